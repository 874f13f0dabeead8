//! A validated artifact and a query embedding in; a [`Choice`] out, through assign, aggregate and decide.

use crate::aggregate::{Table, aggregate};
use crate::artifact::Artifact;
use crate::assign::{Assignment, assign, inverse_norm, trust};
use crate::decide::{Candidates, Choice, utilities};
use crate::error::Error;
use crate::policy::{Objective, Policy, PolicySpec};

/// A router ready to decide. Immutable, so that any number of threads may share it.
#[derive(Debug)]
pub struct Router {
    artifact: Artifact,
    /// Quality normalised per cluster: `(q - min) / (max - min)` over the pool.
    normalized_quality: Table,
    /// Cheapness normalised per cluster: `1 - cost / max cost` over the pool.
    normalized_cheapness: Table,
}

/// Buffers of one thread; after the first query no step allocates.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    /// The clusters of the latest query.
    pub assignment: Assignment,
    /// Predicted quality by model id.
    pub quality: Vec<f32>,
    /// Predicted cost by model id.
    pub cost: Vec<f32>,
    /// Utility by model id; NaN for models that are no candidates.
    pub utility: Vec<f32>,
    normalized: (Vec<f32>, Vec<f32>),
}

impl Router {
    /// Reads and validates a router file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let artifact = Artifact::from_bytes(bytes)?;
        let router = Self {
            normalized_quality: normalize(&artifact.quality, artifact.n_models(), quality_min_max),
            normalized_cheapness: normalize(&artifact.cost, artifact.n_models(), cheapness_by_max),
            artifact,
        };
        // A default that cannot be compiled would fail every request that relies on it.
        router.compile(&PolicySpec::default()).map_err(|error| Error::Metadata(format!("default_policy: {error}")))?;
        Ok(router)
    }

    /// What was loaded.
    #[must_use]
    pub fn artifact(&self) -> &Artifact {
        &self.artifact
    }

    /// Binds a request's policy to this pool.
    pub fn compile(&self, spec: &PolicySpec) -> Result<Policy, Error> {
        spec.compile(&self.artifact)
    }

    /// Buffers that fit this router.
    #[must_use]
    pub fn scratch(&self) -> Scratch {
        let zeros = vec![0.0; self.artifact.n_models()];
        Scratch {
            assignment: Assignment::with_capacity(self.artifact.metadata.top_p),
            quality: zeros.clone(),
            cost: zeros.clone(),
            utility: zeros.clone(),
            normalized: (zeros.clone(), zeros),
        }
    }

    /// Fits buffers that were made for another router, without allocating when they fit already.
    fn fit(&self, scratch: &mut Scratch) {
        let n_models = self.artifact.n_models();
        let (quality_part, cost_part) = &mut scratch.normalized;
        for buffer in [&mut scratch.quality, &mut scratch.cost, &mut scratch.utility, quality_part, cost_part] {
            buffer.resize(n_models, 0.0);
        }
    }

    /// Assigns one query and blends quality and cost into `scratch`; returns the trust in the tables.
    ///
    /// `row` is only named in errors.
    pub fn predict(&self, query: &[f32], row: usize, scratch: &mut Scratch) -> Result<f32, Error> {
        let Artifact { metadata, centroids, quality, cost, .. } = &self.artifact;
        if query.len() != self.artifact.dim() {
            return Err(Error::Dim { got: query.len(), wanted: self.artifact.dim() });
        }
        self.fit(scratch);
        let inverse = inverse_norm(query, row)?;
        assign(query, inverse, centroids, metadata.top_p, metadata.beta, &mut scratch.assignment);
        let trust = trust(scratch.assignment.similarities[0], metadata.ood_threshold);
        aggregate(&scratch.assignment, trust, quality, &mut scratch.quality);
        aggregate(&scratch.assignment, trust, cost, &mut scratch.cost);
        Ok(trust)
    }

    /// Decides one query `[dim]`; `scratch` keeps the numbers behind the choice.
    ///
    /// `row` is only named in errors.
    pub fn route(&self, query: &[f32], row: usize, policy: &Policy, scratch: &mut Scratch) -> Result<Choice, Error> {
        let trust = self.predict(query, row, scratch)?;
        let Scratch { assignment, quality, cost, utility, normalized } = scratch;
        if matches!(policy.objective, Objective::Alpha(_)) {
            aggregate(assignment, trust, &self.normalized_quality, &mut normalized.0);
            aggregate(assignment, trust, &self.normalized_cheapness, &mut normalized.1);
        }
        utilities(policy, quality, cost, (&normalized.0, &normalized.1), utility);

        let similarity = assignment.similarities[0];
        let in_distribution = self.artifact.metadata.ood_threshold.is_none_or(|threshold| similarity >= threshold);
        let best = Candidates { quality, cost, utility }.best(policy.objective);
        let (model, margin) = match (policy.fallback, best) {
            (Some(fallback), _) if !in_distribution => (fallback as usize, f32::NAN),
            (_, Some(best)) => best,
            (Some(fallback), None) => (fallback as usize, f32::NAN),
            (None, None) => return Err(self.no_candidate(policy, row, cost)),
        };
        Ok(Choice {
            model_id: model as u32,
            quality: quality[model],
            cost: cost[model],
            margin,
            similarity,
            in_distribution,
        })
    }

    /// All candidates of the query last decided with this `scratch`, best first; the chosen one leads.
    #[must_use]
    pub fn ranking(&self, policy: &Policy, choice: &Choice, scratch: &Scratch) -> Vec<u32> {
        let Scratch { quality, cost, utility, .. } = scratch;
        let mut ranking = Candidates { quality, cost, utility }.ranking(policy.objective);
        if ranking.first() != Some(&choice.model_id) {
            // The fallback was taken.
            ranking.retain(|&model| model != choice.model_id);
            ranking.insert(0, choice.model_id);
        }
        ranking
    }

    /// Only `max_cost` depends on the query; the other limits were checked when the policy was compiled.
    #[cold]
    fn no_candidate(&self, policy: &Policy, row: usize, cost: &[f32]) -> Error {
        let allowed = |model: usize| policy.allowed.as_ref().is_none_or(|allowed| allowed[model]);
        let too_dear: Vec<String> = (0..cost.len())
            .filter(|&model| allowed(model))
            .map(|model| format!("{} ({:.3e})", self.artifact.model_name(model), cost[model]))
            .collect();
        Error::NoCandidate(format!(
            "row {row}: max_cost {:.3e} USD excludes {}",
            policy.max_cost.unwrap_or(f32::NAN),
            too_dear.join(", ")
        ))
    }
}

/// Applies a per-row normalisation to a table and its prior.
fn normalize(table: &Table, n_models: usize, normalize_row: fn(&mut [f32])) -> Table {
    let mut normalized = table.clone();
    for row in normalized.cells.chunks_exact_mut(n_models) {
        normalize_row(row);
    }
    normalize_row(&mut normalized.prior);
    normalized
}

/// Min-max over the models of one cluster; a row without spread becomes zeros, as it cannot matter.
fn quality_min_max(row: &mut [f32]) {
    let low = row.iter().copied().fold(f32::INFINITY, f32::min);
    let high = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let spread = high - low;
    for value in row {
        *value = if spread > 0.0 { (*value - low) / spread } else { 0.0 };
    }
}

/// One minus the share of the dearest known model of the cluster; an unknown cost stays NaN.
fn cheapness_by_max(row: &mut [f32]) {
    let high = row.iter().copied().fold(0.0f32, f32::max);
    for value in row {
        *value = 1.0 - if high > 0.0 { *value / high } else { *value };
    }
}
