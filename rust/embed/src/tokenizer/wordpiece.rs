//! BERT's tokenizer in one pass over a text: normalise, split into words, match the longest pieces, stop when full.

use super::characters::{Characters, Kind, Part};
use super::file::Bert;
use super::vocabulary::{PADDING, Vocabulary};

/// Codes of ASCII bytes that are no letters; a letter's code is itself, made small where the rules say so.
const NOTHING: u8 = 0;
const SPACE: u8 = 1;
const PUNCTUATION: u8 = 2;
const ADDED: u8 = 3;
const NOT_ASCII: u8 = 4;
/// All codes from here on are letters; the bytes below are control characters, which are dropped.
const FIRST_LETTER: u8 = 5;

/// A tokenizer of the kind that BERT and most sentence embedders use.
#[derive(Debug)]
pub struct WordPiece {
    codes: [u8; 256],
    characters: Characters,
    vocabulary: Vocabulary,
    /// Ids of ASCII punctuation, each a word.
    punctuation: [u32; 128],
    unknown: u32,
    max_characters_per_word: usize,
    /// Contents and ids, the longest first.
    added: Vec<(Box<str>, u32)>,
}

/// The word that is being read; one a thread.
#[derive(Clone, Debug, Default)]
pub struct Word {
    /// The word's bytes so far, and room for [`PADDING`] others.
    bytes: Vec<u8>,
    n_bytes: usize,
    /// More characters than a word may have were read; its bytes are not kept.
    is_overlong: bool,
    /// Combining classes and places of the letters at the end that canonical order may still move.
    marks: Vec<(u8, usize)>,
    parts: Vec<Part>,
}

impl WordPiece {
    /// Takes what the file says; the reason where it is not consistent.
    pub fn new(bert: Bert<'_>) -> Result<Self, String> {
        let Bert { rules, vocab, unknown, max_characters_per_word, added_tokens, .. } = bert;
        let vocabulary = Vocabulary::new(&vocab);
        let unknown =
            vocabulary.find(&unknown).ok_or_else(|| format!("unk_token '{unknown}' is not in the vocabulary"))?;
        let mut added = Vec::new();
        for token in added_tokens {
            if vocabulary.find(&token.content) != Some(token.id) {
                return Err(format!("added token '{}' is not the vocabulary's {}", token.content, token.id));
            }
            added.push((token.content.into(), token.id));
        }
        added.sort_by_key(|(content, _): &(Box<str>, u32)| std::cmp::Reverse(content.len()));

        let characters = Characters::new(rules);
        let mut codes = [NOT_ASCII; 256];
        let mut punctuation = [unknown; 128];
        for byte in 0..128u8 {
            codes[byte as usize] = match characters.look_up(char::from(byte)) {
                (Kind::Space, _) => SPACE,
                (Kind::Punctuation, _) if added.iter().any(|(content, _)| content.as_bytes()[0] == byte) => ADDED,
                (Kind::Punctuation, _) => PUNCTUATION,
                (Kind::Letters, &[letter]) => letter,
                _ => NOTHING,
            };
            punctuation[byte as usize] = vocabulary.find(char::from(byte).encode_utf8(&mut [0; 4])).unwrap_or(unknown);
        }
        Ok(Self { codes, characters, vocabulary, punctuation, unknown, max_characters_per_word, added })
    }

    /// Appends the ids of a text's tokens until there are `limit` of them, without those around it.
    pub fn encode(&self, text: &str, limit: usize, word: &mut Word, ids: &mut Vec<u32>) {
        let limit = ids.len() + limit;
        let bytes = text.as_bytes();
        // A character has at most four bytes, so that a word that does not fit has too many.
        let room = 4 * self.max_characters_per_word + 4;
        word.bytes.resize(room + PADDING, 0);
        word.clear();
        let mut at = 0;
        while at < bytes.len() && ids.len() < limit {
            let code = self.codes[bytes[at] as usize];
            if code >= FIRST_LETTER {
                at = self.read_letters(bytes, at, room, word);
                continue;
            }
            match code {
                SPACE => self.end_word(word, ids),
                PUNCTUATION => {
                    self.end_word(word, ids);
                    ids.push(self.punctuation[bytes[at] as usize]);
                }
                ADDED => {
                    self.end_word(word, ids);
                    let found = self.added.iter().find(|(content, _)| bytes[at..].starts_with(content.as_bytes()));
                    if let Some((content, id)) = found {
                        ids.push(*id);
                        at += content.len();
                        continue;
                    }
                    ids.push(self.punctuation[bytes[at] as usize]);
                }
                NOT_ASCII => {
                    // `at` is always the start of a character.
                    let Some(character) = text[at..].chars().next() else { break };
                    self.read_character(character, room, word, ids);
                    at += character.len_utf8();
                    continue;
                }
                _ => {}
            }
            at += 1;
        }
        if ids.len() < limit {
            self.end_word(word, ids);
        }
        ids.truncate(limit);
    }

    /// Adds a run of ASCII letters to the word; returns the place behind it.
    #[inline]
    fn read_letters(&self, bytes: &[u8], mut at: usize, room: usize, word: &mut Word) -> usize {
        word.marks.clear();
        let start = word.n_bytes;
        let free = &mut word.bytes[start..room];
        let mut n_read = 0;
        for (into, &byte) in free.iter_mut().zip(&bytes[at..]) {
            let code = self.codes[byte as usize];
            if code < FIRST_LETTER {
                break;
            }
            *into = code;
            n_read += 1;
        }
        word.n_bytes += n_read;
        at += n_read;
        if word.n_bytes == room {
            word.overflow();
        }
        at
    }

    fn read_character(&self, character: char, room: usize, word: &mut Word, ids: &mut Vec<u32>) {
        let (kind, bytes) = self.characters.look_up(character);
        match kind {
            Kind::Nothing => {}
            Kind::Barrier => word.marks.clear(),
            Kind::Space => self.end_word(word, ids),
            Kind::Letters => {
                word.marks.clear();
                word.push(bytes, room);
            }
            Kind::Punctuation | Kind::Ideograph => {
                self.end_word(word, ids);
                word.push(bytes, room);
                self.end_word(word, ids);
            }
            Kind::Other => {
                let mut parts = std::mem::take(&mut word.parts);
                parts.clear();
                self.characters.parts(character, &mut parts);
                for &part in &parts {
                    self.read_part(part, room, word, ids);
                }
                word.parts = parts;
            }
        }
    }

    fn read_part(&self, part: Part, room: usize, word: &mut Word, ids: &mut Vec<u32>) {
        match part {
            Part::Space => self.end_word(word, ids),
            Part::Punctuation(character) => {
                self.end_word(word, ids);
                word.push(character.encode_utf8(&mut [0; 4]).as_bytes(), room);
                self.end_word(word, ids);
            }
            Part::Letter(character, class) => {
                word.push_ordered(character.encode_utf8(&mut [0; 4]).as_bytes(), class, room);
            }
            Part::Mark(0) => word.marks.clear(),
            Part::Mark(_) => {}
        }
    }

    /// Appends the ids of the word that was read, if there is one, and starts another.
    #[inline]
    fn end_word(&self, word: &mut Word, ids: &mut Vec<u32>) {
        let n_bytes = word.n_bytes;
        if n_bytes > 0 || word.is_overlong {
            let is_overlong = word.is_overlong
                || n_bytes > self.max_characters_per_word
                    && n_characters(&word.bytes[..n_bytes]) > self.max_characters_per_word;
            if is_overlong || !self.vocabulary.split(&word.bytes, n_bytes, ids) {
                ids.push(self.unknown);
            }
        }
        word.clear();
    }
}

impl Word {
    #[inline]
    fn clear(&mut self) {
        self.n_bytes = 0;
        self.is_overlong = false;
        self.marks.clear();
    }

    #[cold]
    fn overflow(&mut self) {
        self.n_bytes = 0;
        self.is_overlong = true;
        self.marks.clear();
    }

    #[inline]
    fn push(&mut self, bytes: &[u8], room: usize) {
        let end = self.n_bytes + bytes.len();
        if end > room {
            self.overflow();
        } else {
            self.bytes[self.n_bytes..end].copy_from_slice(bytes);
            self.n_bytes = end;
        }
    }

    /// Adds a letter in canonical order: behind those of its class or a lower one, as far as letters of class 0.
    fn push_ordered(&mut self, bytes: &[u8], class: u8, room: usize) {
        let start = self.n_bytes;
        self.push(bytes, room);
        if class == 0 || self.n_bytes == 0 {
            self.marks.clear();
            return;
        }
        let rank = self.marks.partition_point(|&(other, _)| other <= class);
        let place = self.marks.get(rank).map_or(start, |&(_, place)| place);
        self.bytes[place..self.n_bytes].rotate_right(bytes.len());
        for (_, later) in &mut self.marks[rank..] {
            *later += bytes.len();
        }
        self.marks.insert(rank, (class, place));
    }
}

fn n_characters(utf8: &[u8]) -> usize {
    utf8.iter().filter(|&&byte| byte & 0xc0 != 0x80).count()
}
