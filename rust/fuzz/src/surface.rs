//! The features of a text are those of a plain count, and the row with them has norm one.

use centroute_core::artifact::{N_SURFACE_FEATURES, Surface};
use centroute_embed::surface::{MAX_BYTES, Scratch, append, features};

use crate::feed::Feed;

pub fn run(data: &[u8]) {
    let mut feed = Feed(data);
    let repeats = 1 + usize::from(feed.byte() / 250) * 200;
    let weight = feed.pick(&[0.15, 1e-3, 10.0]);
    let text = String::from_utf8_lossy(feed.0).repeat(repeats);
    let mut scratch = Scratch::default();
    let got = features(&text, &mut scratch);
    for (place, (got, wanted)) in got.iter().zip(plain(&text.as_bytes()[..text.len().min(MAX_BYTES)])).enumerate() {
        assert!((f64::from(*got) - wanted).abs() < 1e-6 * (1.0 + wanted), "feature {place}: {got}, counted {wanted}");
    }
    let surface = Surface { name: "surface-1".into(), weight, mean: [0.5; 12], scale: [0.25; 12] };
    let mut row = [0.0; 3 + N_SURFACE_FEATURES];
    row[1] = 1.0;
    append(&text, &surface, &mut scratch, &mut row);
    let norm: f32 = row.iter().map(|value| value * value).sum();
    assert!((norm - 1.0).abs() < 1e-5, "{norm}");
}

/// The definition, as `python/centroute/surface.py` has it.
fn plain(bytes: &[u8]) -> [f64; N_SURFACE_FEATURES] {
    let count = |holds: &dyn Fn(u8) -> bool| bytes.iter().filter(|&&byte| holds(byte)).count() as f64;
    let among = |set: &'static [u8]| count(&|byte| set.contains(&byte));
    let characters = count(&|byte| byte & 0xc0 != 0x80);
    let is_space = |byte: &u8| matches!(byte, 9..=13 | 32);
    let words: Vec<&[u8]> = bytes.split(is_space).filter(|word| !word.is_empty()).collect();
    let distinct: std::collections::HashSet<&[u8]> = words.iter().copied().collect();
    let is_name = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    let keywords = bytes.split(|byte| !is_name(byte)).filter(|name| KEYWORDS.contains(name)).count() as f64;
    let share = |n: f64| n / characters.max(1.0);
    [
        (1.0 + characters).ln(),
        (1.0 + words.len() as f64).ln(),
        (1.0 + among(b"\n")).ln(),
        share(count(&|byte| byte.is_ascii_digit())),
        share(count(&|byte| byte.is_ascii_uppercase())),
        share(among(b"{}[]();_#&|~@\\`")),
        share(among(b"+-*/=^<>%")),
        share(count(&|byte| byte >= 0xc0)),
        (1.0 + among(b"$")).ln(),
        among(b"?").min(1.0),
        (1.0 + keywords).ln(),
        distinct.len() as f64 / (words.len() as f64).max(1.0),
    ]
}

const KEYWORDS: [&[u8]; 27] = [
    b"assert",
    b"break",
    b"class",
    b"const",
    b"def",
    b"elif",
    b"else",
    b"false",
    b"function",
    b"import",
    b"int",
    b"lambda",
    b"new",
    b"null",
    b"public",
    b"return",
    b"self",
    b"static",
    b"str",
    b"struct",
    b"true",
    b"var",
    b"void",
    b"while",
    b"False",
    b"None",
    b"True",
];
