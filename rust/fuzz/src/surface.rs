//! The features of a text are those of a plain count, and the row with them has norm one.

use centroute_core::artifact::{N_SURFACE_FEATURES, SURFACE_SETS, Surface};
use centroute_embed::surface::{MAX_BYTES, Scratch, append, features};

use crate::feed::Feed;

pub fn run(data: &[u8]) {
    let mut feed = Feed(data);
    let repeats = 1 + usize::from(feed.byte() / 250) * 200;
    let weight = feed.pick(&[0.15, 1e-3, 10.0]);
    let text = String::from_utf8_lossy(feed.0).repeat(repeats);
    let mut scratch = Scratch::default();
    let got = features(&text, N_SURFACE_FEATURES, &mut scratch);
    for (place, (got, wanted)) in got.iter().zip(plain(&text.as_bytes()[..text.len().min(MAX_BYTES)])).enumerate() {
        assert!((f64::from(*got) - wanted).abs() < 1e-6 * (1.0 + wanted), "feature {place}: {got}, counted {wanted}");
    }
    for (name, n_features) in SURFACE_SETS {
        let (mean, scale) = (vec![0.5; n_features], vec![0.25; n_features]);
        let surface = Surface { name: name.into(), weight, mean, scale };
        let mut row = vec![0.0; 3 + n_features];
        row[1] = 1.0;
        append(&text, &surface, &mut scratch, &mut row);
        let norm: f32 = row.iter().map(|value| value * value).sum();
        assert!((norm - 1.0).abs() < 1e-5, "{norm}");
    }
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
    // What is left of a character that was cut off is no text.
    let whole = match std::str::from_utf8(bytes) {
        Ok(whole) => whole,
        Err(error) => std::str::from_utf8(&bytes[..error.valid_up_to()]).unwrap_or_default(),
    };
    let script = |place: usize| share(whole.chars().filter(|&letter| script(letter) == Some(place)).count() as f64);
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
        script(0),
        script(1),
        script(2),
        script(3),
        script(4),
        script(5),
        script(6),
        script(7),
    ]
}

fn script(letter: char) -> Option<usize> {
    Some(match u32::from(letter) {
        0xc0..0x2c0 | 0x1e00..0x1f00 => 0,
        0x400..0x540 => 1,
        0x600..0x700 | 0x740..0x780 => 2,
        0x3400..0x4dc0 | 0x4e00..0xa000 | 0xf900..0xfb00 | 0x2_0000..0x4_0000 => 3,
        0x3040..0x3100 => 4,
        0x1100..0x1200 | 0xac00..0xd7c0 => 5,
        0xe00..0xe80 => 6,
        0x380..0x400
        | 0x540..0x600
        | 0x700..0x740
        | 0x780..0xe00
        | 0xe80..0x1100
        | 0x1200..0x1e00
        | 0x1f00..0x2000
        | 0x2c00..0x2e00
        | 0xa480..0xac00 => 7,
        _ => return None,
    })
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
