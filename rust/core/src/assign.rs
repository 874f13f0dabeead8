//! Query `[dim]` and centroids `[n_clusters, dim]` in; the `top_p` nearest clusters and their weights out.
//!
//! Similarity is the cosine: the inner product with the unit centroid over the query's norm. Weights are
//! `softmax(beta * similarity)` over the chosen clusters. Equal similarities go to the lower cluster id.

use crate::error::Error;
use crate::simd;

/// The nearest clusters of one query, best first.
#[derive(Clone, Debug, Default)]
pub struct Assignment {
    /// Cluster ids, best first, `top_p` of them.
    pub cluster_ids: Vec<u32>,
    /// Softmax weights of the same clusters; they sum to 1.
    pub weights: Vec<f32>,
    /// Cosine similarities of the same clusters, descending.
    pub similarities: Vec<f32>,
}

impl Assignment {
    /// Buffers for `top_p` clusters; no call to [`assign`] allocates after this.
    #[must_use]
    pub fn with_capacity(top_p: usize) -> Self {
        Self {
            cluster_ids: Vec::with_capacity(top_p + 1),
            weights: Vec::with_capacity(top_p),
            similarities: Vec::with_capacity(top_p + 1),
        }
    }
}

/// One over the norm of a query, or what is wrong with it.
///
/// `row` is only named in the error.
pub fn inverse_norm(query: &[f32], row: usize) -> Result<f32, Error> {
    let squared = simd::dot_f32(query, query);
    if squared.is_finite() && squared > 0.0 {
        return Ok(squared.sqrt().recip());
    }
    // Finite values whose squares overflow or vanish in f32 are refused too: they are no embeddings.
    let what = if query.iter().any(|value| !value.is_finite()) {
        "it holds NaN or infinity"
    } else if squared > 0.0 {
        "its norm overflows float32"
    } else {
        "its norm is zero"
    };
    Err(Error::Row { row, what })
}

/// Finds the `top_p` nearest clusters of `query` and writes them with their weights into `into`.
pub fn assign(query: &[f32], inverse_norm: f32, centroids: &[f32], top_p: usize, beta: f32, into: &mut Assignment) {
    debug_assert_eq!(centroids.len() % query.len(), 0);
    let Assignment { cluster_ids, weights, similarities } = into;
    cluster_ids.clear();
    similarities.clear();
    for (cluster, centroid) in (0u32..).zip(centroids.chunks_exact(query.len())) {
        let similarity = simd::dot_f32(query, centroid) * inverse_norm;
        let full = similarities.len() == top_p;
        if full && similarities.last().is_some_and(|&worst| similarity <= worst) {
            continue;
        }
        // Strictly greater moves ahead, so that an earlier cluster keeps its place in a tie.
        let place = similarities.iter().position(|&other| similarity > other).unwrap_or(similarities.len());
        if full {
            similarities.pop();
            cluster_ids.pop();
        }
        similarities.insert(place, similarity);
        cluster_ids.insert(place, cluster);
    }
    let best = similarities.first().copied().unwrap_or(0.0);
    weights.clear();
    weights.extend(similarities.iter().map(|&similarity| (beta * (similarity - best)).exp()));
    let scale = weights.iter().sum::<f32>().recip();
    for weight in weights.iter_mut() {
        *weight *= scale;
    }
}

/// How far the tables are trusted at a similarity: 1 in distribution, falling linearly to 0 at similarity 0.
#[must_use]
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

    fn top(query: &[f32], centroids: &[f32], top_p: usize, beta: f32) -> Assignment {
        let mut assignment = Assignment::with_capacity(top_p);
        let scale = inverse_norm(query, 0).expect("a routable row");
        assign(query, scale, centroids, top_p, beta, &mut assignment);
        assignment
    }

    #[test]
    fn nearest_first_and_weights_sum_to_one() {
        let centroids = [1.0, 0.0, 0.0, 1.0, 0.6, 0.8];
        let found = top(&[0.0, 2.0], &centroids, 2, 9.0);
        assert_eq!(found.cluster_ids, [1, 2]);
        assert!((found.similarities[0] - 1.0).abs() < 1e-6);
        assert!((found.weights.iter().sum::<f32>() - 1.0).abs() < 1e-6);
        assert!((found.weights[1] / found.weights[0] - (9.0f32 * -0.2).exp()).abs() < 1e-5);
    }

    #[test]
    fn equal_similarities_go_to_the_lower_id() {
        let centroids = [1.0, 0.0, 1.0, 0.0, 1.0, 0.0];
        assert_eq!(top(&[1.0, 0.0], &centroids, 2, 9.0).cluster_ids, [0, 1]);
    }

    #[test]
    fn unroutable_rows_say_why() {
        for (query, what) in [
            ([0.0, 0.0], "zero"),
            ([f32::NAN, 1.0], "NaN"),
            ([f32::INFINITY, 1.0], "NaN"),
            ([f32::MAX, 1.0], "overflows"),
        ] {
            let error = inverse_norm(&query, 7).expect_err("must be refused").to_string();
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
