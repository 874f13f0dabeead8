//! Surface features: cheap numbers of a text, put behind its embedding before it is routed.
//!
//! `python/centroute/surface.py` is the definition and the NumPy twin; the tests compare the two.

use centroute_core::artifact::Surface;

/// Features of the largest set, surface-2.
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

/// Features of surface-1, with which surface-2 begins.
const N_PLAIN: usize = 12;
/// Scripts that are told apart, and where the shares of each stand behind the plain features.
const N_SCRIPTS: usize = N_FEATURES - N_PLAIN;
const OTHER_SCRIPT: u8 = N_SCRIPTS as u8 - 1;
const NO_SCRIPT: u8 = N_SCRIPTS as u8;
/// First and last blocks of 64 characters of each script; those of other scripts come last.
const SCRIPT_BLOCKS: [(u8, usize, usize); 21] = [
    (0, 0x00c0, 0x02bf), // Latin beyond ASCII
    (0, 0x1e00, 0x1eff),
    (1, 0x0400, 0x053f), // Cyrillic
    (2, 0x0600, 0x06ff), // Arabic
    (2, 0x0740, 0x077f),
    (3, 0x3400, 0x4dbf), // Han
    (3, 0x4e00, 0x9fff),
    (3, 0xf900, 0xfaff),
    (4, 0x3040, 0x30ff), // kana
    (5, 0x1100, 0x11ff), // Hangul
    (5, 0xac00, 0xd7bf),
    (6, 0x0e00, 0x0e7f), // Thai
    (OTHER_SCRIPT, 0x0380, 0x03ff),
    (OTHER_SCRIPT, 0x0540, 0x05ff),
    (OTHER_SCRIPT, 0x0700, 0x073f),
    (OTHER_SCRIPT, 0x0780, 0x0dff),
    (OTHER_SCRIPT, 0x0e80, 0x10ff),
    (OTHER_SCRIPT, 0x1200, 0x1dff),
    (OTHER_SCRIPT, 0x1f00, 0x1fff),
    (OTHER_SCRIPT, 0x2c00, 0x2dff),
    (OTHER_SCRIPT, 0xa480, 0xabff),
];
/// Script of each block of 64 characters below 0x10000.
const SCRIPT_OF_BLOCK: [u8; 1024] = {
    let mut scripts = [NO_SCRIPT; 1024];
    let mut place = 0;
    while place < SCRIPT_BLOCKS.len() {
        let (script, first, last) = SCRIPT_BLOCKS[place];
        let mut block = first / 64;
        while block <= last / 64 {
            scripts[block] = script;
            block += 1;
        }
        place += 1;
    }
    scripts
};

/// Hashes of the words met; one a thread.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    words: Vec<u64>,
}

/// The features of a text; those behind the first `n_features` may be left at 0.
pub fn features(text: &str, n_features: usize, scratch: &mut Scratch) -> [f32; N_FEATURES] {
    let bytes = &text.as_bytes()[..text.len().min(MAX_BYTES)];
    let counts = count_classes(bytes);
    let count = |class: u32| f64::from(counts[class as usize]);
    let (n_words, n_distinct) = count_words(bytes, &mut scratch.words);
    let n_characters = bytes.len() as f64 - count(CONTINUED);
    let share = |class: u32| count(class) / n_characters.max(1.0);
    let plain: [f64; N_PLAIN] = [
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
    ];
    let mut features = [0.0; N_FEATURES];
    for (into, value) in features.iter_mut().zip(plain) {
        *into = value as f32;
    }
    if n_features > N_PLAIN && counts[LEAD as usize] > 0 {
        for (into, n_letters) in features[N_PLAIN..].iter_mut().zip(count_scripts(bytes)) {
            *into = (f64::from(n_letters) / n_characters.max(1.0)) as f32;
        }
    }
    features
}

/// Turns `[embedding, anything]` into the row that is routed: features behind the embedding, all of norm one.
pub fn append(text: &str, surface: &Surface, scratch: &mut Scratch, row: &mut [f32]) {
    let n_features = surface.n_features();
    let (embedding, behind) = row.split_at_mut(row.len() - n_features);
    let mut square: f64 = embedding.iter().map(|&value| f64::from(value).powi(2)).sum();
    let features = features(text, n_features, scratch);
    let mut parts = [0.0; N_FEATURES];
    let statistics = surface.mean.iter().zip(&surface.scale);
    for ((part, &feature), (mean, scale)) in parts.iter_mut().zip(&features).zip(statistics) {
        let standardised = (f64::from(feature) - mean) / scale;
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

/// Characters of each script; one that is cut off at the end has none.
fn count_scripts(bytes: &[u8]) -> [u32; N_SCRIPTS] {
    // The last place is for characters of no script.
    let mut counts = [0; N_SCRIPTS + 1];
    let mut rest = bytes;
    while let Some(&lead) = rest.first() {
        let n_bytes = match lead {
            0..0x80 => 1,
            0x80..0xe0 => 2,
            0xe0..0xf0 => 3,
            0xf0.. => 4,
        };
        let Some((character, behind)) = rest.split_at_checked(n_bytes) else { break };
        let script = match *character {
            [lead, _] => SCRIPT_OF_BLOCK[lead as usize & 0x1f],
            [lead, second, _] => SCRIPT_OF_BLOCK[(lead as usize & 0xf) << 6 | second as usize & 0x3f],
            // From U+20000 on there are ideographs alone.
            [0xf0, 0xa0..=0xbf, ..] => SCRIPT_OF_BLOCK[0x4e00 / 64],
            _ => NO_SCRIPT,
        };
        counts[script as usize] += 1;
        rest = behind;
    }
    std::array::from_fn(|script| counts[script])
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
