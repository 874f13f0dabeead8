//! Similarities with numbers in; the highest of them out, of equals the lower number.

use crate::simd::{Kernels, Lanes};

/// Parts of the range of similarities by which a shortlist is cut.
const LAST_BIN: u8 = u8::MAX;

/// The `limit` best of all that was offered, and no more than a few beyond. Holds up to twice as many meanwhile, so that
/// most offers cost one comparison.
#[derive(Clone, Debug, Default)]
pub struct Shortlist {
    similarities: Vec<f32>,
    ids: Vec<u32>,
    keys: Vec<u64>,
    limit: usize,
    /// Offers that are taken before the next cut.
    room: usize,
    /// Nothing at or below it can be among the best.
    floor: f32,
}

impl Shortlist {
    /// Forgets all; `limit` is at least one.
    pub fn start(&mut self, limit: usize) {
        self.similarities.clear();
        self.ids.clear();
        self.limit = limit;
        self.room = 2 * limit;
        self.floor = f32::NEG_INFINITY;
    }

    /// The lanes of a panel that may be among the best.
    #[inline]
    #[must_use]
    pub fn likely(&self, kernels: &Kernels, similarities: &Lanes) -> u32 {
        (kernels.above)(similarities, self.floor)
    }

    /// Takes one that is finite.
    #[inline]
    pub fn offer(&mut self, similarity: f32, id: u32) {
        self.similarities.push(similarity);
        self.ids.push(id);
        if self.ids.len() >= self.room {
            self.cut();
            // Where all are equal none can be dropped.
            self.room = 2 * self.ids.len().max(self.limit);
        }
    }

    /// The best, highest first, each once.
    pub fn sorted(&mut self) -> impl ExactSizeIterator<Item = u32> + '_ {
        self.keys.clear();
        self.keys.extend(self.similarities.iter().zip(&self.ids).map(|(&similarity, &id)| key(similarity, id)));
        if self.keys.len() > self.limit {
            self.keys.select_nth_unstable_by(self.limit - 1, |left, right| right.cmp(left));
            self.keys.truncate(self.limit);
        }
        self.keys.sort_unstable_by(|left, right| right.cmp(left));
        self.keys.dedup();
        self.keys.iter().map(|&key| !(key as u32))
    }

    /// The best and a few more in any order, as often as each was offered.
    pub fn unsorted(&mut self) -> &[u32] {
        if self.ids.len() > self.limit {
            self.cut();
        }
        &self.ids
    }

    /// Drops what is below the best, by bins of similarity: a tenth of the work of a selection. Equals stay together.
    fn cut(&mut self) {
        let low = self.similarities.iter().fold(f32::INFINITY, |low, &value| if value < low { value } else { low });
        let high =
            self.similarities.iter().fold(f32::NEG_INFINITY, |high, &value| if value > high { value } else { high });
        let scale = f32::from(LAST_BIN) / (high - low);
        if !(scale > 0.0 && scale.is_finite()) {
            return;
        }
        let bin_of = |similarity: f32| {
            (((similarity - low) * scale) as i32).clamp(0, i32::from(LAST_BIN)).cast_unsigned() as usize
        };
        let mut counts = [0u32; LAST_BIN as usize + 1];
        for &similarity in &self.similarities {
            counts[bin_of(similarity)] += 1;
        }
        let (mut bin, mut n_kept) = (counts.len(), 0);
        while n_kept < self.limit {
            bin -= 1;
            n_kept += counts[bin] as usize;
        }
        let mut n = 0;
        let mut lowest = high;
        for place in 0..self.ids.len() {
            let (similarity, id) = (self.similarities[place], self.ids[place]);
            self.similarities[n] = similarity;
            self.ids[n] = id;
            let is_kept = bin_of(similarity) >= bin;
            lowest = if is_kept && similarity < lowest { similarity } else { lowest };
            n += usize::from(is_kept);
        }
        self.similarities.truncate(n);
        self.ids.truncate(n);
        // An equal similarity may still come with a lower number.
        self.floor = lowest.next_down();
    }
}

/// A number that is higher where the similarity is, and of equals where the id is lower.
#[inline]
fn key(similarity: f32, id: u32) -> u64 {
    // `+ 0.0` makes the two zeros equal.
    let bits = (similarity + 0.0).to_bits();
    let ordered = if bits >> 31 == 0 { bits | 1 << 31 } else { !bits };
    u64::from(ordered) << 32 | u64::from(!id)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offers(n: u32, step: f32) -> Vec<(f32, u32)> {
        let mut state = 1u32;
        (0..n)
            .map(|id| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                // Coarse, so that many are equal, and some of both zeros.
                (((state >> 24).cast_signed() - 128) as f32 / step, (id * 7919) % n)
            })
            .collect()
    }

    fn best_of(offers: &[(f32, u32)], limit: usize) -> (Vec<u32>, Vec<u32>) {
        let mut shortlist = Shortlist::default();
        shortlist.start(limit);
        for &(similarity, id) in offers {
            if similarity > shortlist.floor {
                shortlist.offer(similarity, id);
            }
        }
        (shortlist.sorted().collect(), shortlist.unsorted().to_vec())
    }

    #[test]
    fn the_best_are_those_of_a_sort() {
        for step in [16.0, 1e30, -1e-30] {
            let offers = offers(2000, step);
            let mut wanted = offers.clone();
            wanted.sort_by(|left, right| (right.0 + 0.0).total_cmp(&(left.0 + 0.0)).then(left.1.cmp(&right.1)));
            for limit in [1, 2, 7, 100, 1999, 2000, 5000] {
                let (sorted, unsorted) = best_of(&offers, limit);
                assert_eq!(sorted, wanted.iter().take(limit).map(|offer| offer.1).collect::<Vec<_>>());
                assert!(sorted.iter().all(|id| unsorted.contains(id)));
            }
        }
    }

    #[test]
    fn equals_without_end_are_kept_and_the_lowest_numbers_win() {
        let offers: Vec<(f32, u32)> = (0..1000).rev().map(|id| (0.25, id)).collect();
        assert_eq!(best_of(&offers, 3).0, [0, 1, 2]);
    }

    #[test]
    fn one_that_is_offered_twice_is_kept_once() {
        assert_eq!(best_of(&[(-0.5, 3), (-0.5, 3), (-0.5, 1), (0.0, 2), (-0.0, 2)], 5).0, [2, 1, 3]);
    }
}
