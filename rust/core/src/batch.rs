//! Queries `[n, dim]` in; one array per field of the decision out.

use crate::error::Error;
use crate::policy::{Objective, Policy, PolicySpec};
use crate::router::{Router, RowPolicy, Scratch};

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

/// Rows of a [`Batch`] to be filled; rows may be split among threads.
#[derive(Debug)]
pub struct BatchRows<'a> {
    model_ids: &'a mut [i32],
    quality: &'a mut [f32],
    cost: &'a mut [f32],
    margin: &'a mut [f32],
    similarity: &'a mut [f32],
    in_distribution: &'a mut [bool],
    cluster_ids: &'a mut [i32],
    cluster_weights: &'a mut [f32],
    top_p: usize,
}

/// What the rows of a batch ask for: one policy, and arrays of what differs by row.
#[derive(Clone, Copy, Debug)]
pub struct BatchPolicy<'a> {
    /// Holds for all rows.
    pub policy: &'a Policy,
    /// Objective of each row in place of the policy's, `[n]`.
    pub objectives: Option<RowObjectives<'a>>,
    /// Models that each row allows, `[n, n_models]`; the policy's own limits hold besides.
    pub allowed: Option<&'a [bool]>,
}

/// One number a row, for one kind of objective.
#[derive(Clone, Copy, Debug)]
pub enum RowObjectives<'a> {
    /// See [`Objective::Alpha`].
    Alpha(&'a [f32]),
    /// See [`Objective::WillingnessToPay`].
    WillingnessToPay(&'a [f32]),
}

impl RowObjectives<'_> {
    /// A policy's limits with these objectives in place of its own, as the hardest of the rows needs them.
    ///
    /// Fails on the first number out of range, with its row.
    pub fn over(self, limits: PolicySpec) -> Result<PolicySpec, Error> {
        let (field, values) = match self {
            Self::Alpha(values) => ("alpha", values),
            Self::WillingnessToPay(values) => ("willingness_to_pay", values),
        };
        let mut spec = PolicySpec { max_mean_cost: None, min_quality: None, ..limits };
        let mut set = |value: f32| match self {
            Self::Alpha(_) => (spec.alpha, spec.willingness_to_pay) = (Some(f64::from(value)), None),
            Self::WillingnessToPay(_) => (spec.alpha, spec.willingness_to_pay) = (None, Some(f64::from(value))),
        };
        let holds = |value: f32| match self {
            Self::Alpha(_) => (0.0..=1.0).contains(&value),
            Self::WillingnessToPay(_) => value >= 0.0 && value.is_finite(),
        };
        if let Some(row) = values.iter().position(|&value| !holds(value)) {
            return Err(Error::RowNumber { field, row, value: values[row] });
        }
        // The lowest alpha is the one that needs costs, if any does.
        set(values.iter().copied().fold(1.0, f32::min));
        Ok(spec)
    }

    fn at(self, row: usize) -> Objective {
        match self {
            Self::Alpha(values) => Objective::Alpha(values[row]),
            Self::WillingnessToPay(values) => Objective::WillingnessToPay(values[row]),
        }
    }
}

impl BatchPolicy<'_> {
    fn at(&self, row: usize, n_models: usize) -> RowPolicy<'_> {
        RowPolicy {
            objective: self.objectives.map(|objectives| objectives.at(row)),
            allowed: self.allowed.map(|allowed| &allowed[row * n_models..][..n_models]),
        }
    }
}

impl Batch {
    /// A batch of `n_queries` empty rows.
    #[must_use]
    pub fn new(n_queries: usize, top_p: usize) -> Self {
        Self {
            model_ids: vec![0; n_queries],
            quality: vec![0.0; n_queries],
            cost: vec![0.0; n_queries],
            margin: vec![0.0; n_queries],
            similarity: vec![0.0; n_queries],
            in_distribution: vec![false; n_queries],
            cluster_ids: vec![0; n_queries * top_p],
            cluster_weights: vec![0.0; n_queries * top_p],
        }
    }

    /// All rows.
    pub fn rows(&mut self, top_p: usize) -> BatchRows<'_> {
        BatchRows {
            model_ids: &mut self.model_ids,
            quality: &mut self.quality,
            cost: &mut self.cost,
            margin: &mut self.margin,
            similarity: &mut self.similarity,
            in_distribution: &mut self.in_distribution,
            cluster_ids: &mut self.cluster_ids,
            cluster_weights: &mut self.cluster_weights,
            top_p,
        }
    }
}

impl BatchRows<'_> {
    /// The first `n` rows and the rest.
    #[must_use]
    pub fn split_at(self, n: usize) -> (Self, Self) {
        let top_p = self.top_p;
        let (model_ids, model_ids_rest) = self.model_ids.split_at_mut(n);
        let (quality, quality_rest) = self.quality.split_at_mut(n);
        let (cost, cost_rest) = self.cost.split_at_mut(n);
        let (margin, margin_rest) = self.margin.split_at_mut(n);
        let (similarity, similarity_rest) = self.similarity.split_at_mut(n);
        let (in_distribution, in_distribution_rest) = self.in_distribution.split_at_mut(n);
        let (cluster_ids, cluster_ids_rest) = self.cluster_ids.split_at_mut(n * top_p);
        let (cluster_weights, cluster_weights_rest) = self.cluster_weights.split_at_mut(n * top_p);
        (
            Self { model_ids, quality, cost, margin, similarity, in_distribution, cluster_ids, cluster_weights, top_p },
            Self {
                model_ids: model_ids_rest,
                quality: quality_rest,
                cost: cost_rest,
                margin: margin_rest,
                similarity: similarity_rest,
                in_distribution: in_distribution_rest,
                cluster_ids: cluster_ids_rest,
                cluster_weights: cluster_weights_rest,
                top_p,
            },
        )
    }
}

impl Router {
    /// Decides every row of `queries`, which holds `n * dim` values, into `n` rows; the first row at fault is the
    /// error. `first_row` is the number of the first within the whole batch, for `policy` and for errors.
    pub fn route_batch(
        &self,
        queries: &[f32],
        first_row: usize,
        policy: &BatchPolicy<'_>,
        into: &mut BatchRows<'_>,
        scratch: &mut Scratch,
    ) -> Result<(), Error> {
        let (n_models, top_p) = (self.artifact().n_models(), self.top_p());
        self.for_each_row(queries, first_row, scratch, |row, place, scratch| {
            let choice = self.decide(row, place, policy.policy, policy.at(row, n_models), scratch)?;
            let at = row - first_row;
            into.model_ids[at] = choice.model_id.cast_signed();
            into.quality[at] = choice.quality;
            into.cost[at] = choice.cost;
            into.margin[at] = choice.margin;
            into.similarity[at] = choice.similarity;
            into.in_distribution[at] = choice.in_distribution;
            let assigned = scratch.assigned_at(place);
            for (into, &id) in into.cluster_ids[at * top_p..][..top_p].iter_mut().zip(assigned.cluster_ids) {
                *into = id.cast_signed();
            }
            into.cluster_weights[at * top_p..][..top_p].copy_from_slice(assigned.weights);
            Ok(())
        })
    }

    /// Predicts quality and cost of every model for every row: two slices `[n, n_models]` to be filled.
    pub fn predict_batch(
        &self,
        queries: &[f32],
        quality: &mut [f32],
        cost: &mut [f32],
        scratch: &mut Scratch,
    ) -> Result<(), Error> {
        let n_models = self.artifact().n_models();
        self.for_each_row(queries, 0, scratch, |row, place, scratch| {
            self.blend(place, scratch);
            quality[row * n_models..][..n_models].copy_from_slice(scratch.quality());
            cost[row * n_models..][..n_models].copy_from_slice(scratch.cost());
            Ok(())
        })
    }
}
