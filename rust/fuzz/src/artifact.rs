//! A router file is refused in one line, or gives a router whose decisions hold what they promise.
//!
//! Even first byte: the rest is the file. Odd: metadata up to a zero byte, then numbers that spoil sound tensors.

use centroute_core::{Artifact, Isa, Policy, PolicySpec, Precision, Router, Scratch};

use crate::feed::{Feed, check_refusal};
use crate::made;

pub fn run(data: &[u8]) {
    let mut feed = Feed(data);
    let file = if feed.byte() % 2 == 0 {
        made::sealed(feed.0.to_vec())
    } else {
        let metadata = String::from_utf8_lossy(feed.until(0)).into_owned();
        made::router_file(&metadata, &mut feed)
    };
    let artifact = match Artifact::from_bytes(&file) {
        Ok(artifact) => artifact,
        Err(error) => return check_refusal(&error),
    };
    let isas: Vec<Isa> = Isa::ALL.into_iter().filter(|isa| isa.is_available()).collect();
    let precision = feed.pick(&[None, Some(Precision::F32), Some(Precision::F16), Some(Precision::I8)]);
    let router = match Router::new(artifact, precision, feed.pick(&isas)) {
        Ok(router) => router,
        Err(error) => return check_refusal(&error),
    };
    let mut scratch = Scratch::default();
    for turn in 0..4 {
        let query: Vec<f32> = match turn {
            0 => (0..router.centroids().dim()).map(|_| feed.float()).collect(),
            1 => router.centroids().rows()[..router.centroids().dim()].to_vec(),
            _ => made::values(router.centroids().dim(), turn),
        };
        for spec in [
            PolicySpec::default(),
            PolicySpec { alpha: Some(0.5), ..PolicySpec::default() },
            PolicySpec { alpha: Some(1.0), ..PolicySpec::default() },
            PolicySpec { willingness_to_pay: Some(0.01), ..PolicySpec::default() },
            PolicySpec { max_mean_cost: Some(0.005), ..PolicySpec::default() },
            PolicySpec { min_quality: Some(0.5), max_cost: Some(0.5), ..PolicySpec::default() },
        ] {
            match router.compile(&spec) {
                Ok(policy) => check_decision(&router, &query, &policy, &mut scratch),
                Err(error) => check_refusal(&error),
            }
        }
    }
}

/// Decides a row and checks what every decision promises.
pub fn check_decision(router: &Router, query: &[f32], policy: &Policy, scratch: &mut Scratch) {
    let choice = match router.route(query, policy, scratch) {
        Ok(choice) => choice,
        Err(error) => return check_refusal(&error),
    };
    let (artifact, assigned) = (router.artifact(), scratch.assigned());
    let model = choice.model_id as usize;
    assert!(model < artifact.n_models());
    let is_fallback = policy.fallback == Some(choice.model_id);
    assert!(is_fallback || policy.allowed.as_ref().is_none_or(|allowed| allowed[model]), "{choice:?}");
    assert!((-1e-5..=1.0 + 1e-5).contains(&choice.quality), "{choice:?}");
    assert_eq!(choice.cost.is_nan(), artifact.cost.prior[model].is_nan(), "{choice:?}");
    if let (Some(limit), false) = (policy.max_cost, is_fallback) {
        assert!(choice.cost <= limit * (1.0 + 2e-6), "{choice:?} {limit}");
    }
    assert!((choice.similarity.abs() - 1.0) < 0.03, "{choice:?}");
    assert!(choice.margin.is_nan() || choice.margin >= 0.0, "{choice:?}");
    let total: f32 = assigned.weights.iter().sum();
    assert!((total - 1.0).abs() < 1e-3 && assigned.weights.iter().all(|weight| *weight >= 0.0), "{assigned:?}");
    let mut ids = assigned.cluster_ids.to_vec();
    ids.sort_unstable();
    ids.dedup();
    assert!(ids.len() == router.top_p() && ids.iter().all(|id| (*id as usize) < router.centroids().n_clusters()));
}
