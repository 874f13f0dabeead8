//! Pieces of words by their bytes, and the longest match over them.

use std::borrow::Cow;

/// Bytes that a word must be followed by, whatever they hold: its ends are read in whole loads.
pub const PADDING: usize = 16;
/// What stands before a piece that continues a word in the vocabulary's file.
pub const CONTINUING_PREFIX: &str = "##";

/// Pieces in an open-addressed hash table, half empty at least.
///
/// A slot holds the piece's first eight bytes itself, so that most lookups touch one cache line; a search hashes the
/// bytes where they stand, without a copy.
#[derive(Debug)]
pub struct Vocabulary {
    slots: Box<[Slot]>,
    /// Where the slot's piece starts in `pieces`.
    starts: Box<[u32]>,
    /// The bytes of all pieces.
    pieces: Vec<u8>,
    /// Length of the longest piece that starts a word, and of the longest that continues one.
    longest: [usize; 2],
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    /// The first eight bytes, padded with zeros.
    head: u64,
    /// Twice the length, plus one where the piece continues a word.
    form: u32,
    id: u32,
}

const EMPTY: Slot = Slot { head: 0, form: u32::MAX, id: 0 };

impl Vocabulary {
    /// Takes pieces with their ids; a later one takes the place of an equal one before it.
    pub fn new(entries: &[(Cow<'_, str>, u32)]) -> Self {
        let n_slots = (2 * entries.len() + 2).next_power_of_two();
        let mut vocabulary = Self {
            slots: vec![EMPTY; n_slots].into(),
            starts: vec![0; n_slots].into(),
            pieces: Vec::with_capacity(entries.iter().map(|(piece, _)| piece.len()).sum()),
            longest: [0; 2],
        };
        let mut padded = Vec::new();
        for (text, id) in entries {
            let (piece, continues) = match text.strip_prefix(CONTINUING_PREFIX) {
                Some(rest) if !rest.is_empty() => (rest, true),
                _ => (text.as_ref(), false),
            };
            padded.clear();
            padded.extend_from_slice(piece.as_bytes());
            padded.resize(piece.len() + PADDING, 0);
            let (place, _) = vocabulary.place(&Ends::of(&padded), &padded, piece.len(), continues);
            let start = vocabulary.pieces.len();
            vocabulary.pieces.extend_from_slice(piece.as_bytes());
            vocabulary.starts[place] = start as u32;
            let head = Ends::of(&padded).head(piece.len());
            vocabulary.slots[place] = Slot { head, form: form(piece.len(), continues), id: *id };
            let longest = &mut vocabulary.longest[usize::from(continues)];
            *longest = piece.len().max(*longest);
        }
        vocabulary
    }

    /// The id of a whole word or of a mark, which is not continued.
    pub fn find(&self, text: &str) -> Option<u32> {
        let mut padded = text.as_bytes().to_vec();
        padded.resize(text.len() + PADDING, 0);
        self.find_piece(&Ends::of(&padded), &padded, text.len(), false)
    }

    /// Appends the ids of a word's pieces, each the longest that fits; false, and nothing appended, where none does.
    ///
    /// `padded` is the word's `n_bytes` bytes and [`PADDING`] others.
    #[inline]
    pub fn split(&self, padded: &[u8], n_bytes: usize, ids: &mut Vec<u32>) -> bool {
        let n_before = ids.len();
        let mut start = 0;
        while start < n_bytes {
            let continues = start > 0;
            let rest = &padded[start..];
            let ends = Ends::of(rest);
            let mut length = (n_bytes - start).min(self.longest[usize::from(continues)]);
            // A length that ends within a character matches nothing, as all pieces end with whole ones.
            let id = loop {
                if length == 0 {
                    ids.truncate(n_before);
                    return false;
                }
                if let Some(id) = self.find_piece(&ends, rest, length, continues) {
                    break id;
                }
                length -= 1;
            };
            ids.push(id);
            start += length;
        }
        true
    }

    #[inline]
    fn find_piece(&self, ends: &Ends, padded: &[u8], length: usize, continues: bool) -> Option<u32> {
        let (place, found) = self.place(ends, padded, length, continues);
        found.then(|| self.slots[place].id)
    }

    /// The slot of the first `length` bytes and whether they are there; the slot to put them in where not.
    #[inline]
    fn place(&self, ends: &Ends, padded: &[u8], length: usize, continues: bool) -> (usize, bool) {
        let (head, form) = (ends.head(length), form(length, continues));
        let mask = self.slots.len() - 1;
        let mut place = hash(head, ends.second(length), &padded[..length], form) as usize & mask;
        loop {
            let slot = self.slots[place];
            if slot.form == u32::MAX {
                return (place, false);
            }
            if slot.head == head && slot.form == form {
                let piece = &self.pieces[self.starts[place] as usize..][..length];
                if length <= 8 || piece[8..] == padded[8..length] {
                    return (place, true);
                }
            }
            place = (place + 1) & mask;
        }
    }
}

fn form(length: usize, continues: bool) -> u32 {
    // Lengths are those of strings of a JSON file of at most a few megabytes.
    (length as u32) << 1 | u32::from(continues)
}

/// The first sixteen bytes of a place in a word; of any number of them by a mask.
struct Ends([u64; 2]);

impl Ends {
    #[inline]
    fn of(padded: &[u8]) -> Self {
        let (first, rest) = padded.split_first_chunk::<8>().map_or(([0; 8], padded), |(first, rest)| (*first, rest));
        let second = rest.first_chunk::<8>().copied().unwrap_or_default();
        Self([u64::from_le_bytes(first), u64::from_le_bytes(second)])
    }

    #[inline]
    fn head(&self, length: usize) -> u64 {
        self.0[0] & MASKS[length.min(8)]
    }

    #[inline]
    fn second(&self, length: usize) -> u64 {
        self.0[1] & MASKS[length.saturating_sub(8).min(8)]
    }
}

/// The lowest bytes by their number.
const MASKS: [u64; 9] = {
    let mut masks = [u64::MAX; 9];
    let mut n_bytes = 0;
    while n_bytes < 8 {
        masks[n_bytes] = (1 << (8 * n_bytes)) - 1;
        n_bytes += 1;
    }
    masks
};

#[inline]
fn hash(head: u64, second: u64, bytes: &[u8], form: u32) -> u64 {
    let mut hash = fold(head ^ 0x9e37_79b9_7f4a_7c15, second ^ 0xd1b5_4a32_d192_ed03 ^ u64::from(form).rotate_left(40));
    if bytes.len() > 16 {
        for &byte in &bytes[16..] {
            hash = fold(hash ^ u64::from(byte), 0x9fb2_1c65_1e98_df25);
        }
    }
    hash
}

/// The product's halves combined: every bit of the result depends on all of both factors.
#[inline]
fn fold(left: u64, right: u64) -> u64 {
    let product = u128::from(left) * u128::from(right);
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(vocabulary: &Vocabulary, word: &str) -> Option<Vec<u32>> {
        let mut padded = word.as_bytes().to_vec();
        padded.resize(word.len() + PADDING, b'!');
        let mut ids = vec![7];
        let done = vocabulary.split(&padded, word.len(), &mut ids);
        assert_eq!(ids[0], 7);
        done.then(|| ids[1..].to_vec())
    }

    #[test]
    fn the_longest_piece_is_taken_first() {
        let pieces =
            ["un", "##aff", "##able", "unaff", "u", "a", "##a", "é", "##é", "##", "internationalization", "in"];
        let entries: Vec<(Cow<'_, str>, u32)> =
            pieces.iter().enumerate().map(|(id, &piece)| (piece.into(), id as u32)).collect();
        let vocabulary = Vocabulary::new(&entries);
        assert_eq!(split(&vocabulary, "unaffable"), Some(vec![3, 2]));
        assert_eq!(split(&vocabulary, "unable"), Some(vec![0, 2]));
        assert_eq!(split(&vocabulary, "aaé"), Some(vec![5, 6, 8]));
        assert_eq!(split(&vocabulary, "internationalization"), Some(vec![10]));
        assert_eq!(split(&vocabulary, "internationalizatiom"), None);
        assert_eq!(split(&vocabulary, "\u{c3}"), None, "a byte of é is no é");
        assert_eq!(split(&vocabulary, ""), Some(vec![]));
        assert_eq!(vocabulary.find("##"), Some(9));
        assert_eq!(vocabulary.find("##a"), None);
    }

    #[test]
    fn a_later_entry_takes_the_place_of_an_equal_one() {
        let vocabulary = Vocabulary::new(&[("a".into(), 1), ("a".into(), 2), ("a\0".into(), 3)]);
        assert_eq!(vocabulary.find("a"), Some(2));
        assert_eq!(vocabulary.find("a\0"), Some(3));
        assert_eq!(Vocabulary::new(&[]).find("a"), None);
    }
}
