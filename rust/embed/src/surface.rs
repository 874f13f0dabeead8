//! Surface features: twelve cheap numbers of a text, put behind its embedding before it is routed.
//!
//! `python/centroute/surface.py` is the definition and the NumPy twin; the tests compare the two.

use centroute_core::artifact::Surface;

/// Number of features.
pub const N_FEATURES: usize = centroute_core::artifact::N_SURFACE_FEATURES;
/// Bytes of a text that are read.
pub const MAX_BYTES: usize = 16_384;
/// Standard deviations beyond which a feature says no more.
const CLIP: f64 = 4.0;
/// Bits that a class has in a sum of class units, and bytes that may be summed before one is full.
const FIELD_BITS: u32 = 7;
const BYTES_PER_SUM: usize = (1 << FIELD_BITS) - 1;

const DIGIT: u32 = 0;
const UPPER: u32 = 1;
const CODE: u32 = 2;
const ARITHMETIC: u32 = 3;
const LINE_BREAK: u32 = 4;
const DOLLAR: u32 = 5;
const QUESTION: u32 = 6;
const CONTINUED: u32 = 7;
const LEAD: u32 = 8;
const N_CLASSES: usize = 9;

/// One in the field of the byte's class; nothing for a byte of no class.
const UNITS: [u64; 256] = {
    let mut units = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let class = match byte as u8 {
            b'0'..=b'9' => Some(DIGIT),
            b'A'..=b'Z' => Some(UPPER),
            b'{' | b'}' | b'[' | b']' | b'(' | b')' | b';' | b'_' | b'#' | b'&' | b'|' | b'~' | b'@' | b'\\' | b'`' => {
                Some(CODE)
            }
            b'+' | b'-' | b'*' | b'/' | b'=' | b'^' | b'<' | b'>' | b'%' => Some(ARITHMETIC),
            b'\n' => Some(LINE_BREAK),
            b'$' => Some(DOLLAR),
            b'?' => Some(QUESTION),
            0x80..=0xbf => Some(CONTINUED),
            0xc0.. => Some(LEAD),
            _ => None,
        };
        if let Some(class) = class {
            units[byte] = 1 << (FIELD_BITS * class);
        }
        byte += 1;
    }
    units
};

/// Hashes of the words met; one a thread.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    words: Vec<u64>,
}

/// The features of a text.
pub fn features(text: &str, scratch: &mut Scratch) -> [f32; N_FEATURES] {
    let bytes = &text.as_bytes()[..text.len().min(MAX_BYTES)];
    let counts = count_classes(bytes);
    let count = |class: u32| f64::from(counts[class as usize]);
    let (n_words, n_distinct) = count_words(bytes, &mut scratch.words);
    let n_characters = bytes.len() as f64 - count(CONTINUED);
    let share = |class: u32| count(class) / n_characters.max(1.0);
    [
        (1.0 + n_characters).ln(),
        (1.0 + n_words as f64).ln(),
        (1.0 + count(LINE_BREAK)).ln(),
        share(DIGIT),
        share(UPPER),
        share(CODE),
        share(ARITHMETIC),
        share(LEAD),
        (1.0 + count(DOLLAR)).ln(),
        count(QUESTION).min(1.0),
        (1.0 + count_keywords(bytes) as f64).ln(),
        n_distinct as f64 / (n_words as f64).max(1.0),
    ]
    .map(|value| value as f32)
}

/// Turns `[embedding, anything]` into the row that is routed: features behind the embedding, all of norm one.
pub fn append(text: &str, surface: &Surface, scratch: &mut Scratch, row: &mut [f32]) {
    let (embedding, behind) = row.split_at_mut(row.len() - N_FEATURES);
    let mut square: f64 = embedding.iter().map(|&value| f64::from(value).powi(2)).sum();
    let features = features(text, scratch);
    let mut parts = [0.0; N_FEATURES];
    for (place, part) in parts.iter_mut().enumerate() {
        let standardised = (f64::from(features[place]) - surface.mean[place]) / surface.scale[place];
        *part = surface.weight * standardised.clamp(-CLIP, CLIP);
        square += part.powi(2);
    }
    let factor = square.sqrt().recip();
    for value in embedding {
        *value = (f64::from(*value) * factor) as f32;
    }
    for (into, part) in behind.iter_mut().zip(parts) {
        *into = (part * factor) as f32;
    }
}

/// Bytes of each class: one table look-up and one addition a byte, as the classes' counts share a number.
fn count_classes(bytes: &[u8]) -> [u32; N_CLASSES] {
    let mut counts = [0; N_CLASSES];
    for bytes in bytes.chunks(BYTES_PER_SUM) {
        let sum: u64 = bytes.iter().map(|&byte| UNITS[byte as usize]).sum();
        for (class, count) in counts.iter_mut().enumerate() {
            *count += (sum >> (FIELD_BITS as usize * class)) as u32 & BYTES_PER_SUM as u32;
        }
    }
    counts
}

fn is_space(byte: u8) -> bool {
    matches!(byte, 0x09..=0x0d | b' ')
}

/// Words, and different words; words are told apart by 64 bits of hash.
fn count_words(bytes: &[u8], table: &mut Vec<u64>) -> (usize, usize) {
    // Every word but the last has a space behind it, so that some places stay empty.
    let n_slots = (bytes.len() / 2 + 2).next_power_of_two();
    table.clear();
    table.resize(n_slots, 0);
    let (mut n_words, mut n_distinct) = (0, 0);
    for word in bytes.split(|&byte| is_space(byte)).filter(|word| !word.is_empty()) {
        n_words += 1;
        let hash = hash(word);
        let mut place = hash as usize & (n_slots - 1);
        while table[place] != 0 && table[place] != hash {
            place = (place + 1) & (n_slots - 1);
        }
        n_distinct += usize::from(table[place] == 0);
        table[place] = hash;
    }
    (n_words, n_distinct)
}

/// Never 0, which marks an empty place.
fn hash(word: &[u8]) -> u64 {
    // The length apart from the bytes: padding must not make two words the same.
    let mut hash = (word.len() as u64).wrapping_mul(0x9fb2_1c65_1e98_df25);
    let (eights, rest) = word.as_chunks::<8>();
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    for &eight in eights.iter().chain([&last]) {
        let product = u128::from(hash ^ u64::from_le_bytes(eight) ^ 0x9e37_79b9_7f4a_7c15) * 0xd1b5_4a32_d192_ed03;
        hash = product as u64 ^ (product >> 64) as u64;
    }
    hash | 1
}

fn count_keywords(bytes: &[u8]) -> usize {
    let is_name = |byte: &u8| byte.is_ascii_alphabetic() || *byte == b'_';
    bytes.split(|byte| !is_name(byte)).filter(|name| is_keyword(name)).count()
}

fn is_keyword(name: &[u8]) -> bool {
    if !(SHORTEST..=8).contains(&name.len()) {
        return false;
    }
    let number = number(name);
    KEYWORD_SLOTS[slot(number)] == number
}

/// Up to eight bytes as one number.
const fn number(name: &[u8]) -> u64 {
    let (mut number, mut place) = (0, 0);
    while place < name.len() {
        number = number << 8 | name[place] as u64;
        place += 1;
    }
    number
}

/// Bytes of the shortest keyword.
const SHORTEST: usize = 3;
const KEYWORDS: [u64; 27] = [
    number(b"assert"),
    number(b"break"),
    number(b"class"),
    number(b"const"),
    number(b"def"),
    number(b"elif"),
    number(b"else"),
    number(b"false"),
    number(b"function"),
    number(b"import"),
    number(b"int"),
    number(b"lambda"),
    number(b"new"),
    number(b"null"),
    number(b"public"),
    number(b"return"),
    number(b"self"),
    number(b"static"),
    number(b"str"),
    number(b"struct"),
    number(b"true"),
    number(b"var"),
    number(b"void"),
    number(b"while"),
    number(b"False"),
    number(b"None"),
    number(b"True"),
];

/// Gives every keyword a slot of its own; found by trying.
const fn slot(number: u64) -> usize {
    (number.wrapping_mul(0x19d6_d73b_2778_507d) >> 58) as usize
}

const KEYWORD_SLOTS: [u64; 64] = {
    let mut slots = [0; 64];
    let mut place = 0;
    while place < KEYWORDS.len() {
        assert!(slots[slot(KEYWORDS[place])] == 0, "two keywords share a slot");
        slots[slot(KEYWORDS[place])] = KEYWORDS[place];
        place += 1;
    }
    slots
};
