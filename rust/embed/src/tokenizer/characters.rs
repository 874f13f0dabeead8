//! What BERT's normaliser and pre-tokenizer make of one character.
//!
//! The steps are those of `BertNormalizer` and `BertPreTokenizer` of the `tokenizers` crate, over the same Unicode
//! tables: clean, set CJK ideographs apart, decompose and drop nonspacing marks, lowercase, split at whitespace and
//! punctuation. All but the canonical order of marks looks at one character alone, so that the outcome is kept per
//! character, in pages of 256 that are made when the first of them is met.

use std::sync::OnceLock;

use unicode_categories::UnicodeCategories;
use unicode_normalization_alignments::char::{canonical_combining_class, decompose_canonical};

const PAGE: usize = 256;
const N_PAGES: usize = (char::MAX as usize + 1).div_ceil(PAGE);

/// Settings of the normaliser; text is always cleaned.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// Ideographs are words of their own.
    pub handle_chinese_chars: bool,
    /// Nonspacing marks are dropped.
    pub strip_accents: bool,
    /// Capitals become small.
    pub lowercase: bool,
}

/// A part of what a character becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Ends a word.
    Space,
    /// A word of its own.
    Punctuation(char),
    /// Belongs to a word; its canonical combining class orders it among its neighbours above 0.
    Letter(char, u8),
    /// Dropped after marks were ordered, with its combining class.
    Mark(u8),
}

/// What a character becomes, where that can be told without its neighbours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Nothing: dropped, and as if it had never been there.
    #[default]
    Nothing,
    /// Nothing, but marks before and after it are not ordered together.
    Barrier,
    /// The end of a word.
    Space,
    /// A word of its own.
    Punctuation,
    /// A word of its own, of letters.
    Ideograph,
    /// Part of a word.
    Letters,
    /// Something that needs [`Characters::parts`].
    Other,
}

/// The outcome for one character; its bytes are in its page.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    kind: Kind,
    n_bytes: u8,
    first_byte: u16,
}

#[derive(Debug)]
struct Page {
    entries: [Entry; PAGE],
    bytes: Vec<u8>,
}

/// Outcomes by character, made as they are needed.
#[derive(Debug)]
pub struct Characters {
    rules: Rules,
    pages: Box<[OnceLock<Box<Page>>]>,
}

impl Characters {
    /// No pages yet.
    pub fn new(rules: Rules) -> Self {
        Self { rules, pages: std::iter::repeat_with(OnceLock::new).take(N_PAGES).collect() }
    }

    /// What a character becomes, and its bytes.
    #[inline]
    pub fn look_up(&self, character: char) -> (Kind, &[u8]) {
        let code = character as usize;
        let page = self.pages[code / PAGE].get_or_init(|| self.page(code / PAGE * PAGE));
        let Entry { kind, n_bytes, first_byte } = page.entries[code % PAGE];
        (kind, &page.bytes[first_byte as usize..][..n_bytes as usize])
    }

    #[cold]
    fn page(&self, first: usize) -> Box<Page> {
        let mut page = Box::new(Page { entries: [Entry::default(); PAGE], bytes: Vec::new() });
        let mut parts = Vec::new();
        for place in 0..PAGE {
            // Surrogates are no characters and are never asked for.
            let Some(character) = char::from_u32((first + place) as u32) else { continue };
            parts.clear();
            self.parts(character, &mut parts);
            let first_byte = page.bytes.len();
            let kind = summary(&parts);
            if matches!(kind, Kind::Punctuation | Kind::Ideograph | Kind::Letters) {
                for part in &parts {
                    if let Part::Punctuation(character) | Part::Letter(character, _) = part {
                        page.bytes.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes());
                    }
                }
            }
            // At most 18 characters of 4 bytes each, over 256 entries.
            let n_bytes = (page.bytes.len() - first_byte) as u8;
            page.entries[place] = Entry { kind, n_bytes, first_byte: first_byte as u16 };
        }
        page
    }

    /// The definition: appends what a character becomes.
    pub fn parts(&self, character: char, parts: &mut Vec<Part>) {
        if !matches!(character, '\t' | '\n' | '\r') && (matches!(character, '\0' | '\u{fffd}') || character.is_other())
        {
            return;
        }
        if character.is_whitespace() {
            parts.push(Part::Space);
            return;
        }
        let apart = self.rules.handle_chinese_chars && is_ideograph(character);
        if apart {
            parts.push(Part::Space);
        }
        if self.rules.strip_accents {
            decompose_canonical(character, |character| {
                let class = canonical_combining_class(character);
                if character.is_mark_nonspacing() {
                    parts.push(Part::Mark(class));
                } else {
                    self.lowered(character, class, parts);
                }
            });
        } else {
            self.lowered(character, 0, parts);
        }
        if apart {
            parts.push(Part::Space);
        }
    }

    fn lowered(&self, character: char, class: u8, parts: &mut Vec<Part>) {
        if self.rules.lowercase {
            parts.extend(character.to_lowercase().map(|character| part(character, class)));
        } else {
            parts.push(part(character, class));
        }
    }
}

fn part(character: char, class: u8) -> Part {
    if character.is_whitespace() {
        Part::Space
    } else if character.is_ascii_punctuation() || character.is_punctuation() {
        Part::Punctuation(character)
    } else {
        Part::Letter(character, class)
    }
}

/// The blocks that BERT calls Chinese characters.
fn is_ideograph(character: char) -> bool {
    matches!(
        u32::from(character),
        0x4E00..=0x9FFF
            | 0x3400..=0x4DBF
            | 0x2_0000..=0x2_A6DF
            | 0x2_A700..=0x2_B73F
            | 0x2_B740..=0x2_B81F
            | 0x2_B920..=0x2_CEAF
            | 0xF900..=0xFAFF
            | 0x2_F800..=0x2_FA1F
    )
}

/// The kind of parts; `Other` for what the kinds do not say exactly.
fn summary(parts: &[Part]) -> Kind {
    let are_letters = |parts: &[Part]| {
        matches!(parts.first(), Some(Part::Letter(_, 0)))
            && parts.iter().all(|part| matches!(part, Part::Letter(_, 0) | Part::Mark(_)))
    };
    match parts {
        [] => Kind::Nothing,
        [Part::Space] => Kind::Space,
        [Part::Punctuation(_)] => Kind::Punctuation,
        [Part::Space, within @ .., Part::Space] if are_letters(within) => Kind::Ideograph,
        _ if are_letters(parts) => Kind::Letters,
        // Marks of a class above 0 are dropped and keep nothing apart.
        _ if parts.iter().all(|part| matches!(part, Part::Mark(1..))) => Kind::Nothing,
        [Part::Mark(0)] => Kind::Barrier,
        _ => Kind::Other,
    }
}
