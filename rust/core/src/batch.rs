//! Queries `[n, dim]` in; one array per field of the decision out.

use crate::error::Error;
use crate::policy::Policy;
use crate::router::{Router, Scratch};

/// The decisions of a batch, row by row; `cluster_ids` and `cluster_weights` are `[n, top_p]`.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Chosen model ids.
    pub model_ids: Vec<i32>,
    /// Predicted quality of the chosen models.
    pub quality: Vec<f32>,
    /// Predicted cost of the chosen models in USD, NaN when unknown.
    pub cost: Vec<f32>,
    /// Lead over the second candidate, NaN without one.
    pub margin: Vec<f32>,
    /// Similarity of the nearest cluster.
    pub similarity: Vec<f32>,
    /// Whether the query resembles the calibration data.
    pub in_distribution: Vec<bool>,
    /// Ids of the blended clusters, best first.
    pub cluster_ids: Vec<i32>,
    /// Their weights.
    pub cluster_weights: Vec<f32>,
}

impl Batch {
    fn with_capacity(n_queries: usize, top_p: usize) -> Self {
        Self {
            model_ids: Vec::with_capacity(n_queries),
            quality: Vec::with_capacity(n_queries),
            cost: Vec::with_capacity(n_queries),
            margin: Vec::with_capacity(n_queries),
            similarity: Vec::with_capacity(n_queries),
            in_distribution: Vec::with_capacity(n_queries),
            cluster_ids: Vec::with_capacity(n_queries * top_p),
            cluster_weights: Vec::with_capacity(n_queries * top_p),
        }
    }
}

impl Router {
    /// Decides every row of `queries`, which holds `n * dim` values; the first unroutable row is the error.
    pub fn route_batch(&self, queries: &[f32], policy: &Policy, scratch: &mut Scratch) -> Result<Batch, Error> {
        let dim = self.artifact().dim();
        debug_assert_eq!(queries.len() % dim, 0);
        let mut batch = Batch::with_capacity(queries.len() / dim, self.artifact().metadata.top_p);
        for (row, query) in queries.chunks_exact(dim).enumerate() {
            let choice = self.route(query, row, policy, scratch)?;
            batch.model_ids.push(choice.model_id.cast_signed());
            batch.quality.push(choice.quality);
            batch.cost.push(choice.cost);
            batch.margin.push(choice.margin);
            batch.similarity.push(choice.similarity);
            batch.in_distribution.push(choice.in_distribution);
            batch.cluster_ids.extend(scratch.assignment.cluster_ids.iter().map(|id| id.cast_signed()));
            batch.cluster_weights.extend_from_slice(&scratch.assignment.weights);
        }
        Ok(batch)
    }
}
