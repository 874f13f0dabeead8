//! A validated artifact and query embeddings in; decisions out, through assign, aggregate and decide.

use crate::aggregate::PairedTables;
use crate::alpha;
use crate::artifact::{AlphaScore, Artifact};
use crate::assign::{Best, norm, trust};
use crate::centroids::{Centroids, MAX_BYTE_DIM, Precision, SearchScratch};
use crate::decide::{Candidates, Choice, exclude, exclude_dearer, utilities};
use crate::error::Error;
use crate::policy::{Objective, Policy, PolicySpec};
use crate::simd::Isa;

/// A router ready to decide. Immutable, so that any number of threads may share it.
#[derive(Debug)]
pub struct Router {
    artifact: Artifact,
    centroids: Centroids,
    /// Quality and cost.
    predicted: PairedTables,
    /// Quality scaled to 0..1 over the pool in each cluster, and `1 - cost / max cost`.
    normalized: PairedTables,
}

/// Buffers of one thread; once they fit, no step allocates.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    /// Ids of the nearest clusters, best first, `top_p` a query.
    cluster_ids: Vec<u32>,
    /// Their cosine similarities.
    similarities: Vec<f32>,
    /// Norms of the queries of a block.
    norms: Vec<f32>,
    /// Softmax weights of the latest query's clusters.
    weights: Vec<f32>,
    /// Rows that are blended, and their weights times trust; the prior's row last.
    blended: (Vec<u32>, Vec<f32>),
    /// Predicted quality, then cost, by model id.
    predicted: Vec<f32>,
    normalized: Vec<f32>,
    utility: Vec<f32>,
    search: SearchScratch,
}

/// What the latest query of a [`Scratch`] was blended from.
#[derive(Clone, Copy, Debug)]
pub struct Assigned<'a> {
    /// Cluster ids, best first.
    pub cluster_ids: &'a [u32],
    /// Softmax weights of the same clusters; they sum to 1.
    pub weights: &'a [f32],
}

/// What one row of a batch asks for beyond the policy of all.
#[derive(Clone, Copy, Debug, Default)]
pub struct RowPolicy<'a> {
    /// Takes the place of the policy's objective.
    pub objective: Option<Objective>,
    /// Excludes further models, by model id.
    pub allowed: Option<&'a [bool]>,
}

impl Router {
    /// Lays out a validated artifact for an instruction set and a search precision.
    ///
    /// Without a precision the one that the file stores is taken, and the file's index where it has one; with one all
    /// centroids are compared.
    pub fn new(mut artifact: Artifact, precision: Option<Precision>, isa: Isa) -> Result<Self, Error> {
        let is_exact = precision.is_some();
        let precision = precision.unwrap_or(artifact.precision);
        if precision == Precision::I8 && artifact.dim() > MAX_BYTE_DIM {
            let dim = artifact.dim();
            return Err(Error::Metadata(format!("dim {dim}: centroids are searched in i8 up to {MAX_BYTE_DIM} dims")));
        }
        let rows = std::mem::take(&mut artifact.centroids);
        let router = Self {
            centroids: match &artifact.index {
                Some(parts) if !is_exact => Centroids::indexed(rows, artifact.dim(), parts, precision, isa),
                _ => Centroids::new(rows, artifact.dim(), precision, isa),
            },
            predicted: PairedTables::new(&artifact.quality, &artifact.cost),
            normalized: alpha::normalized(&artifact),
            artifact,
        };
        // A default that cannot be compiled would fail every request that relies on it.
        router.compile(&PolicySpec::default()).map_err(|error| Error::Metadata(format!("default_policy: {error}")))?;
        Ok(router)
    }

    /// What was loaded; its centroids are in [`Self::centroids`].
    #[must_use]
    pub fn artifact(&self) -> &Artifact {
        &self.artifact
    }

    /// The centroids.
    #[must_use]
    pub fn centroids(&self) -> &Centroids {
        &self.centroids
    }

    /// Clusters blended for a query.
    #[must_use]
    pub fn top_p(&self) -> usize {
        self.artifact.metadata.top_p
    }

    /// Binds a request's policy to this pool.
    pub fn compile(&self, spec: &PolicySpec) -> Result<Policy, Error> {
        spec.compile(&self.artifact)
    }

    /// Fits buffers to this router and a number of queries at a time, without allocating when they fit already.
    fn fit(&self, scratch: &mut Scratch, n_queries: usize) {
        let (n_models, top_p) = (self.artifact.n_models(), self.top_p());
        scratch.cluster_ids.resize(n_queries * top_p, 0);
        scratch.similarities.resize(n_queries * top_p, 0.0);
        scratch.norms.resize(n_queries, 0.0);
        scratch.weights.resize(top_p, 0.0);
        scratch.predicted.resize(2 * n_models, 0.0);
        scratch.normalized.resize(2 * n_models, 0.0);
        scratch.utility.resize(n_models, 0.0);
    }

    /// Decides one query `[dim]`; `scratch` keeps the numbers behind the choice.
    pub fn route(&self, query: &[f32], policy: &Policy, scratch: &mut Scratch) -> Result<Choice, Error> {
        self.search_one(query, scratch)?;
        self.decide(0, 0, policy, RowPolicy::default(), scratch)
    }

    /// Predicts quality and cost of every model for one query; [`Scratch::quality`] and [`Scratch::cost`] hold them.
    pub fn predict(&self, query: &[f32], scratch: &mut Scratch) -> Result<(), Error> {
        self.search_one(query, scratch)?;
        self.blend(0, scratch);
        Ok(())
    }

    fn search_one(&self, query: &[f32], scratch: &mut Scratch) -> Result<(), Error> {
        self.check_dim(query.len())?;
        self.fit(scratch, 1);
        let norm = norm(self.centroids.kernels(), query, 0)?;
        let mut best = Best::new(&mut scratch.similarities, &mut scratch.cluster_ids);
        self.centroids.search(query, norm, &mut best, &mut scratch.search);
        scratch.norms[0] = norm;
        Ok(())
    }

    /// Calls `each(row, place, scratch)` for every row of `queries` once its clusters are known and lie at `place` of the
    /// scratch; `first_row` is the number of the first, for `each` and for errors.
    pub(crate) fn for_each_row(
        &self,
        queries: &[f32],
        first_row: usize,
        scratch: &mut Scratch,
        mut each: impl FnMut(usize, usize, &mut Scratch) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let dim = self.centroids.dim();
        let per_block = self.centroids.queries_per_block();
        for (block, queries) in queries.chunks(per_block * dim).enumerate() {
            let first_row = first_row + block * per_block;
            self.fit(scratch, queries.len() / dim);
            for (place, query) in queries.chunks_exact(dim).enumerate() {
                scratch.norms[place] = norm(self.centroids.kernels(), query, first_row + place)?;
            }
            let Scratch { norms, similarities, cluster_ids, search, .. } = scratch;
            self.centroids.search_block(queries, norms, similarities, cluster_ids, search);
            for place in 0..queries.len() / dim {
                each(first_row + place, place, scratch)?;
            }
        }
        Ok(())
    }

    /// Blends quality and cost for the query at `place` of the scratch; returns its similarity to the nearest cluster.
    pub(crate) fn blend(&self, place: usize, scratch: &mut Scratch) -> f32 {
        let metadata = &self.artifact.metadata;
        let range = place * metadata.top_p..(place + 1) * metadata.top_p;
        let Scratch { cluster_ids, similarities, norms, weights, blended, predicted, .. } = scratch;
        let similarities = &mut similarities[range.clone()];
        (self.centroids.kernels().weigh)(similarities, norms[place].recip(), metadata.beta, weights);
        let trust = trust(similarities[0], metadata.ood_threshold);
        let (ids, shares) = blended;
        ids.clear();
        ids.extend_from_slice(&cluster_ids[range]);
        shares.clear();
        if trust < 1.0 {
            shares.extend(weights.iter().map(|weight| trust * weight));
            ids.push(self.predicted.prior_id());
            shares.push(1.0 - trust);
        } else {
            shares.extend_from_slice(weights);
        }
        (self.centroids.kernels().blend)(self.predicted.rows(), ids, shares, predicted);
        similarities[0]
    }

    /// Decides the query at `place` of the scratch, whose clusters are known. `row` is only named in errors.
    pub(crate) fn decide(
        &self,
        row: usize,
        place: usize,
        policy: &Policy,
        own: RowPolicy<'_>,
        scratch: &mut Scratch,
    ) -> Result<Choice, Error> {
        let similarity = self.blend(place, scratch);
        let Scratch { blended, predicted, normalized, utility, .. } = scratch;
        let objective = own.objective.unwrap_or(policy.objective);
        let (quality, cost) = predicted.split_at(utility.len());
        match objective {
            Objective::Alpha(alpha) if self.artifact.metadata.alpha_score == AlphaScore::ReciprocalRank => {
                alpha::blend_reciprocal_ranks(alpha, self.normalized.rows(), &blended.0, &blended.1, utility);
            }
            Objective::Alpha(_) => {
                (self.centroids.kernels().blend)(self.normalized.rows(), &blended.0, &blended.1, normalized);
                utilities(objective, quality, cost, normalized, utility);
            }
            _ => utilities(objective, quality, cost, normalized, utility),
        }
        for allowed in [policy.allowed.as_deref(), own.allowed].into_iter().flatten() {
            exclude(allowed, utility);
        }
        if let Some(max_cost) = policy.max_cost {
            exclude_dearer(max_cost, cost, utility);
        }
        let in_distribution = self.artifact.metadata.ood_threshold.is_none_or(|threshold| similarity >= threshold);
        let best = Candidates { quality, cost, utility }.best(objective, self.centroids.kernels());
        let (model, margin) = match (policy.fallback, best) {
            (Some(fallback), _) if !in_distribution => (fallback as usize, f32::NAN),
            (_, Some(best)) => best,
            (Some(fallback), None) => (fallback as usize, f32::NAN),
            (None, None) => return Err(self.no_candidate(row, policy, own, cost)),
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

    /// An error unless rows have the width of the centroids.
    pub fn check_dim(&self, got: usize) -> Result<(), Error> {
        let wanted = self.centroids.dim();
        if got == wanted { Ok(()) } else { Err(Error::Dim { got, wanted }) }
    }

    /// Only `max_cost` and a row's own mask depend on the query; the rest was checked when compiling.
    #[cold]
    fn no_candidate(&self, row: usize, policy: &Policy, own: RowPolicy<'_>, cost: &[f32]) -> Error {
        let allowed = |model: usize| {
            policy.allowed.as_ref().is_none_or(|allowed| allowed[model])
                && own.allowed.is_none_or(|allowed| allowed[model])
        };
        let left: Vec<usize> = (0..cost.len()).filter(|&model| allowed(model)).collect();
        if left.is_empty() {
            return Error::NoCandidate(format!("row {row}: the row's own allow leaves none that the policy allows"));
        }
        let too_dear: Vec<String> = left
            .into_iter()
            .map(|model| format!("{} ({:.3e})", self.artifact.model_name(model), cost[model]))
            .collect();
        let limit = policy.max_cost.unwrap_or(f32::NAN);
        Error::NoCandidate(format!("row {row}: max_cost {limit:.3e} USD excludes {}", too_dear.join(", ")))
    }
}

impl Scratch {
    /// The clusters of the query last decided, when it was the only one or the first of its block.
    #[must_use]
    pub fn assigned(&self) -> Assigned<'_> {
        self.assigned_at(0)
    }

    /// The clusters of the query at `place` of a block, which was the last to be decided.
    #[must_use]
    pub(crate) fn assigned_at(&self, place: usize) -> Assigned<'_> {
        let top_p = self.weights.len();
        Assigned { cluster_ids: &self.cluster_ids[place * top_p..][..top_p], weights: &self.weights }
    }

    /// Predicted quality by model id of the latest query.
    #[must_use]
    pub fn quality(&self) -> &[f32] {
        &self.predicted[..self.predicted.len() / 2]
    }

    /// Utility by model id of the latest query.
    #[must_use]
    pub fn utility(&self) -> &[f32] {
        &self.utility
    }

    /// Predicted cost by model id of the latest query, NaN when unknown.
    #[must_use]
    pub fn cost(&self) -> &[f32] {
        &self.predicted[self.predicted.len() / 2..]
    }
}
