//! A loaded bundle: texts in, decisions out, as the Python package makes them.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use centroute_core::decide::Candidates;
use centroute_core::{Artifact, Choice, Isa, Policy, PolicySpec, Router, Scratch};
use centroute_embed::embedder;

use crate::bundle::Bundle;
use crate::embedder::Embedder;
use crate::error::Error;
use crate::manifest::Manifest;

/// Characters of a text that an error shows.
const SHOWN_CHARACTERS: usize = 80;

/// Numbers engines, so that a policy knows whether it was compiled for this one.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);

/// Router and embedder of one bundle. Immutable, so that any number of threads may share it.
#[derive(Debug)]
pub struct Engine {
    router: Router,
    embedder: Embedder,
    default_policy: Policy,
    manifest: Manifest,
    number: u64,
}

/// Buffers of one thread; they fit themselves to the engine that uses them.
#[derive(Debug, Default)]
pub struct Buffers {
    route: Scratch,
    embed: embedder::Scratch,
    row: Vec<f32>,
    clusters: Vec<(u32, f32)>,
}

/// The latest decision of some buffers, with the numbers that explain it.
#[derive(Clone, Copy, Debug)]
pub struct Decision<'a> {
    /// The chosen model and its numbers.
    pub choice: Choice,
    /// Pairs of cluster id and weight, nearest first.
    pub clusters: &'a [(u32, f32)],
    engine: &'a Engine,
    policy: &'a Policy,
    scratch: &'a Scratch,
}

/// How long the stages of a decision took.
#[derive(Clone, Copy, Debug)]
pub struct Stages {
    /// Text to token ids.
    pub tokenize: Duration,
    /// Token ids to the row.
    pub embed: Duration,
    /// The row to a choice.
    pub kernel: Duration,
}

impl Engine {
    /// Opens and checks a bundle, a folder or a tar file.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let isa = Isa::from_environment()?;
        let (bundle, (router, embedder)) = Bundle::open_with(path, |bundle| {
            let artifact = Artifact::from_bytes(&bundle.router)?;
            let embedder = Embedder::open(bundle, &artifact.metadata.embedder, isa)?;
            Ok((Router::new(artifact, None, isa)?, embedder))
        })?;
        let default_policy = router.compile(&PolicySpec::default())?;
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        Ok(Self { router, embedder, default_policy, manifest: bundle.manifest, number })
    }

    /// The loaded router.
    #[must_use]
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// What the bundle says of itself.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// What holds where a request says nothing.
    #[must_use]
    pub fn default_policy(&self) -> &Policy {
        &self.default_policy
    }

    /// A number that no other engine of this process has.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Binds a request's policy to this pool.
    pub fn compile(&self, spec: &PolicySpec) -> Result<Policy, Error> {
        spec.check()?;
        Ok(self.router.compile(spec)?)
    }

    /// Decides one text.
    pub fn decide<'a>(
        &'a self,
        text: &str,
        policy: &'a Policy,
        buffers: &'a mut Buffers,
    ) -> Result<Decision<'a>, Error> {
        self.embedder.tokenize(text, &mut buffers.embed.tokens);
        self.embed_tokens(text, buffers)?;
        self.decide_row(policy, buffers)
    }

    /// Decides one text with a clock reading between the stages.
    pub fn time_stages(&self, text: &str, policy: &Policy, buffers: &mut Buffers) -> Result<Stages, Error> {
        let started = Instant::now();
        self.embedder.tokenize(text, &mut buffers.embed.tokens);
        let tokenized = Instant::now();
        self.embed_tokens(text, buffers)?;
        let embedded = Instant::now();
        self.decide_row(policy, buffers)?;
        let decided = Instant::now();
        Ok(Stages { tokenize: tokenized - started, embed: embedded - tokenized, kernel: decided - embedded })
    }

    /// Fills the row with the embedding of the text tokenized last, and its surface features where there are any.
    fn embed_tokens(&self, text: &str, buffers: &mut Buffers) -> Result<(), Error> {
        let Buffers { embed, row, .. } = buffers;
        row.resize(self.router.centroids().dim(), 0.0);
        let surface = self.router.artifact().metadata.embedder.surface_features.as_ref();
        if self.embedder.embed_tokens(text, surface, embed, row)? { Ok(()) } else { Err(unroutable(text)) }
    }

    fn decide_row<'a>(&'a self, policy: &'a Policy, buffers: &'a mut Buffers) -> Result<Decision<'a>, Error> {
        let Buffers { route, row, clusters, .. } = buffers;
        let choice = self.router.route(row, policy, route)?;
        let assigned = route.assigned();
        clusters.clear();
        clusters.extend(assigned.cluster_ids.iter().copied().zip(assigned.weights.iter().copied()));
        Ok(Decision { choice, clusters, engine: self, policy, scratch: route })
    }
}

impl Decision<'_> {
    /// Name of the chosen model.
    #[must_use]
    pub fn model(&self) -> &str {
        self.engine.router.artifact().model_name(self.choice.model_id as usize)
    }

    /// Name of any model.
    #[must_use]
    pub fn model_name(&self, model: u32) -> &str {
        self.engine.router.artifact().model_name(model as usize)
    }

    /// Ids of all candidates, best first.
    #[must_use]
    pub fn ranking(&self) -> Vec<u32> {
        let candidates =
            Candidates { quality: self.scratch.quality(), cost: self.scratch.cost(), utility: self.scratch.utility() };
        candidates.ranking(self.policy.objective, self.choice.model_id)
    }

    /// Standard error of the chosen model's quality, where the router has them.
    #[must_use]
    pub fn quality_se(&self) -> Option<f32> {
        self.engine.router.quality_se(self.clusters, self.choice.model_id)
    }

    /// Whether the lead over the second of the ranking is more than chance; `None` where nobody can say.
    #[must_use]
    pub fn resolved(&self, ranking: &[u32]) -> Option<bool> {
        if self.choice.margin.is_nan() {
            return None;
        }
        let models = [self.choice.model_id, *ranking.get(1)?];
        let is_resolved =
            self.engine.router.is_resolved(self.policy.objective, self.clusters, models, self.choice.margin)?;
        Some(is_resolved && self.choice.in_distribution)
    }
}

#[cold]
fn unroutable(text: &str) -> Error {
    let holds = if text.trim().is_empty() { "only spaces or nothing" } else { "nothing that the embedder knows" };
    let start: String = text.chars().take(SHOWN_CHARACTERS).collect();
    Error::data(format!("holds {holds}: {start:?}"))
}
