//! Inner products in; the `top_p` nearest clusters of a query, best first, and their weights out.
//!
//! Similarity is the cosine: the inner product with the unit centroid over the query's norm. Weights are
//! `softmax(beta * similarity)` over the chosen clusters. Equal similarities go to the lower cluster id.

use crate::error::Error;
use crate::simd::{Kernels, LANES, Lanes};

/// The highest inner products so far, descending, in two borrowed slices of length `top_p`.
#[derive(Debug)]
pub struct Best<'a> {
    similarities: &'a mut [f32],
    ids: &'a mut [u32],
}

impl<'a> Best<'a> {
    /// A view of what is there; see [`Self::start`].
    pub fn new(similarities: &'a mut [f32], ids: &'a mut [u32]) -> Self {
        debug_assert_eq!(similarities.len(), ids.len());
        Self { similarities, ids }
    }

    /// Forgets what was there and takes the best of the first group, whose first lane is cluster 0.
    #[inline]
    pub fn start(&mut self, kernels: &Kernels, group: &[Lanes], n_clusters: usize) {
        (kernels.take_best)(group, n_clusters, self.similarities, self.ids);
    }

    /// What is kept, best first.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        self.ids
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.similarities.fill(f32::NEG_INFINITY);
        self.ids.fill(u32::MAX);
    }

    /// The lowest that is kept.
    #[must_use]
    #[inline]
    pub fn worst(&self) -> f32 {
        self.similarities[self.similarities.len() - 1]
    }

    /// Keeps a cluster where it is better than the worst; of equals the lower id is better.
    #[inline]
    pub fn offer(&mut self, similarity: f32, id: u32) {
        let mut place = self.ids.len() - 1;
        let is_better = |place: usize, best: &Self| {
            similarity > best.similarities[place] || (similarity == best.similarities[place] && id < best.ids[place])
        };
        if !is_better(place, self) {
            return;
        }
        while place > 0 && is_better(place - 1, self) {
            self.similarities[place] = self.similarities[place - 1];
            self.ids[place] = self.ids[place - 1];
            place -= 1;
        }
        self.similarities[place] = similarity;
        self.ids[place] = id;
    }

    /// Offers whole panels, of which the first lane is cluster `first`.
    #[inline]
    pub fn scan(&mut self, kernels: &Kernels, panels: &[Lanes], first: usize, n_clusters: usize) {
        for (panel, lanes) in panels.iter().enumerate() {
            let start = first + panel * LANES;
            let mut mask = (kernels.above)(lanes, self.worst());
            // Lanes past the last cluster hold no cluster.
            if start + LANES > n_clusters {
                mask &= (1 << (n_clusters - start)) - 1;
            }
            while mask != 0 {
                let lane = mask.trailing_zeros() as usize;
                mask &= mask - 1;
                self.offer(lanes.0[lane], (start + lane) as u32);
            }
        }
    }
}

/// The norm of a query, or what is wrong with it. `row` is only named in the error.
#[inline]
pub fn norm(kernels: &Kernels, query: &[f32], row: usize) -> Result<f32, Error> {
    let squared = (kernels.dot_f32)(query, query);
    if squared.is_finite() && squared > 0.0 {
        return Ok(squared.sqrt());
    }
    Err(unroutable(query, row, squared))
}

/// Finite values whose squares overflow or vanish in f32 are refused too: they are no embeddings.
#[cold]
fn unroutable(query: &[f32], row: usize, squared: f32) -> Error {
    let what = if query.iter().any(|value| !value.is_finite()) {
        "it holds NaN or infinity"
    } else if squared > 0.0 {
        "its norm overflows float32"
    } else {
        "its norm is zero"
    };
    Error::Row { row, what }
}

/// Turns inner products, descending, into cosines, and writes their softmax weights.
#[inline]
pub fn weigh(similarities: &mut [f32], inverse_norm: f32, beta: f32, weights: &mut [f32]) {
    let best = similarities[0] * inverse_norm;
    for (similarity, weight) in similarities.iter_mut().zip(weights.iter_mut()) {
        *similarity *= inverse_norm;
        *weight = exp(beta * (*similarity - best));
    }
    let scale = weights.iter().sum::<f32>().recip();
    for weight in weights {
        *weight *= scale;
    }
}

/// `e^x` for `x <= 0` within 2e-7 of itself, the same bits on every machine; `e^-87` below that.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`; the Taylor polynomial of degree 7 in `r`, then the exponent. Without
/// branches, so that several are computed at once.
#[inline]
fn exp(x: f32) -> f32 {
    /// Adding and subtracting it rounds to a whole number, ties to even.
    const ROUND: f32 = 12_582_912.0;
    let x = if x < -87.0 { -87.0 } else { x };
    let n = (x * std::f32::consts::LOG2_E + ROUND) - ROUND;
    // ln 2 in two parts: the products with the first are exact.
    let r = (x - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let mut sum = 1.0 / 5040.0;
    for coefficient in [1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0] {
        sum = sum * r + coefficient;
    }
    sum * f32::from_bits((n as i32 + 127).cast_unsigned() << 23)
}

/// How far the tables are trusted at a similarity: 1 in distribution, falling linearly to 0 at similarity 0.
#[must_use]
#[inline]
pub fn trust(similarity: f32, ood_threshold: Option<f32>) -> f32 {
    match ood_threshold {
        Some(threshold) if similarity < threshold && threshold > 0.0 => (similarity / threshold).max(0.0),
        Some(threshold) if similarity < threshold => 0.0,
        _ => 1.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::serial;

    #[test]
    fn the_best_are_kept_in_order_and_ties_keep_the_lower_id() {
        let (mut similarities, mut ids) = ([0.0; 3], [0; 3]);
        let mut best = Best::new(&mut similarities, &mut ids);
        best.clear();
        for (id, similarity) in [0.1, 0.5, 0.5, -0.2, 0.7, 0.5].into_iter().enumerate() {
            best.offer(similarity, id as u32);
        }
        assert_eq!(best.worst(), 0.5);
        assert_eq!((similarities, ids), ([0.7, 0.5, 0.5], [4, 1, 2]));
    }

    #[test]
    fn lanes_past_the_last_cluster_are_no_clusters() {
        let (mut similarities, mut ids) = ([0.0; 4], [0; 4]);
        let mut best = Best::new(&mut similarities, &mut ids);
        best.clear();
        let mut lanes = [Lanes([0.0; LANES]); 2];
        lanes[0].0 = [-0.5; LANES];
        lanes[1].0[1] = -0.25;
        lanes[1].0[0] = -0.75;
        best.scan(&serial::KERNELS, &lanes, 0, 18);
        assert_eq!(ids, [17, 0, 1, 2]);
    }

    #[test]
    fn weights_are_the_softmax_of_the_cosines() {
        let (mut similarities, mut weights) = ([2.0, 1.6], [0.0; 2]);
        weigh(&mut similarities, 0.5, 9.0, &mut weights);
        assert_eq!(similarities, [1.0, 0.8]);
        assert!((weights[0] + weights[1] - 1.0).abs() < 1e-6);
        assert!((weights[1] / weights[0] - (9.0f32 * -0.2).exp()).abs() < 1e-6);
    }

    #[test]
    fn exp_is_the_exponential() {
        for step in 0..2_000_000 {
            let x = -100.0 * step as f32 / 2e6;
            let (got, wanted) = (exp(x), f64::from(x).exp());
            assert!((f64::from(got) - wanted).abs() <= 2e-7 * wanted + 2e-38, "exp({x}) = {got}, wanted {wanted}");
        }
        assert_eq!((exp(0.0), exp(-1000.0), exp(f32::MIN)), (1.0, exp(-87.0), exp(-87.0)));
    }

    #[test]
    fn unroutable_rows_say_why() {
        for (query, what) in [
            ([0.0, 0.0], "zero"),
            ([f32::NAN, 1.0], "NaN"),
            ([f32::INFINITY, 1.0], "NaN"),
            ([f32::MAX, 1.0], "overflows"),
        ] {
            let error = norm(&serial::KERNELS, &query, 7).expect_err("must be refused").to_string();
            assert!(error.contains("row 7") && error.contains(what), "{error}");
        }
    }

    #[test]
    fn trust_is_one_in_distribution_and_falls_to_zero() {
        assert_eq!(trust(0.1, None), 1.0);
        assert_eq!(trust(0.5, Some(0.4)), 1.0);
        assert!((trust(0.2, Some(0.4)) - 0.5).abs() < 1e-6);
        assert_eq!(trust(-0.3, Some(0.4)), 0.0);
        assert_eq!(trust(-0.3, Some(0.0)), 0.0);
    }
}
