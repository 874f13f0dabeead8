//! Inner products in; the `top_p` nearest clusters of a query out, best first, and how far they are trusted.
//!
//! Similarity is the cosine: the inner product with the unit centroid over the query's norm. Equal similarities go to
//! the lower cluster id. Weights are `softmax(beta * similarity)` over the chosen clusters, see
//! [`crate::simd::Kernels::weigh`].

use crate::error::Error;
use crate::simd::{Kernels, Lanes, serial};

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
        serial::insert(self.similarities, self.ids, similarity, id);
    }

    /// Takes what is better of a further group, whose first lane is cluster `first`.
    #[inline]
    pub fn scan(&mut self, kernels: &Kernels, group: &[Lanes], first: usize, n_clusters: usize) {
        (kernels.scan)(group, n_clusters - first, first as u32, self.similarities, self.ids);
    }
}

/// Far from where f32 loses digits, which begins at 1e-38.
const SMALLEST_SQUARE: f32 = 1e-30;

/// The norm of a query, or what is wrong with it. `row` is only named in the error.
#[inline]
pub fn norm(kernels: &Kernels, query: &[f32], row: usize) -> Result<f32, Error> {
    let squared = (kernels.dot_f32)(query, query);
    if squared.is_finite() && squared >= SMALLEST_SQUARE {
        return Ok(squared.sqrt());
    }
    unusual_norm(query, row, squared)
}

/// The norm of a query whose squares lose digits in f32. Values that overflow, or are too small to divide by, are
/// refused: they are no embeddings.
#[cold]
fn unusual_norm(query: &[f32], row: usize, squared: f32) -> Result<f32, Error> {
    let refuse = |what| Err(Error::Row { row, what });
    if query.iter().any(|value| !value.is_finite()) {
        return refuse("it holds NaN or infinity");
    }
    if squared >= SMALLEST_SQUARE {
        return refuse("its norm overflows float32");
    }
    let norm = query.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt() as f32;
    if norm >= SMALLEST_SQUARE {
        return Ok(norm);
    }
    refuse(if norm == 0.0 { "its norm is zero" } else { "its norm is too small for float32" })
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
    use crate::simd::LANES;

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
    fn unroutable_rows_say_why() {
        for (query, what) in [
            ([0.0, 0.0], "zero"),
            ([f32::NAN, 1.0], "NaN"),
            ([f32::INFINITY, 1.0], "NaN"),
            ([f32::MAX, 1.0], "overflows"),
            ([1e-31, 1e-31], "too small"),
        ] {
            let error = norm(&serial::KERNELS, &query, 7).expect_err("must be refused").to_string();
            assert!(error.contains("row 7") && error.contains(what), "{error}");
        }
    }

    #[test]
    fn squares_that_lose_digits_do_not_change_the_norm() {
        for scale in [1.0, 1e-14, 1e-16, 1e-19, 1e-22, 1e-28] {
            let found = norm(&serial::KERNELS, &[3.0 * scale, 4.0 * scale], 0).expect("a norm") / scale;
            assert!((found - 5.0).abs() < 1e-5, "{found} at {scale:e}");
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
