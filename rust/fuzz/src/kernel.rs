//! Every instruction set decides as a plain computation in double precision does, one query or a batch.

use std::sync::OnceLock;

use centroute_core::artifact::{AlphaScore, EmbedderId, Metadata, Model, Table};
use centroute_core::decide::EXCLUDED;
use centroute_core::policy::Objective;
use centroute_core::{Artifact, Batch, BatchPolicy, Choice, Error, Isa, Policy, Precision, Router, Scratch};

use crate::feed::Feed;
use crate::made;

/// Similarities of unit rows are off by less than this in single precision.
const SIMILARITY_ERROR: f64 = 1e-5;

pub fn run(data: &[u8]) {
    let mut feed = Feed(data);
    let (artifact, is_coarse) = artifact(&mut feed);
    let n_models = artifact.n_models();
    let precision = feed.pick(&[Precision::F32, Precision::F16, Precision::I8]);
    let policy = policy(&mut feed, &artifact);
    let dim = artifact.dim();
    let n_queries = 1 + feed.below(9);
    let mut queries = made::values(n_queries * dim, u64::from(feed.byte()));
    if is_coarse {
        queries.iter_mut().for_each(|value| *value = (*value * 4.0).round());
    }
    for _ in 0..feed.below(4) {
        let place = feed.below(queries.len());
        queries[place] = feed.float();
    }
    let scale = feed.pick(&[1.0, 1e-12, 1e12]);
    queries.iter_mut().for_each(|value| *value *= scale);

    let mut decided: Vec<(Isa, Vec<Result<Choice, Error>>, Vec<f32>)> = Vec::new();
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        let Ok(router) = Router::new(artifact.clone(), Some(precision), isa) else { return };
        let mut scratch = Scratch::default();
        let mut utilities = Vec::new();
        let choices: Vec<Result<Choice, Error>> = queries
            .chunks_exact(dim)
            .map(|query| {
                let choice = router.route(query, &policy, &mut scratch);
                if let Ok(choice) = &choice {
                    check(&artifact, query, &policy, choice, &scratch);
                }
                utilities.extend_from_slice(scratch.utility());
                choice
            })
            .collect();
        check_batch(&router, &queries, &policy, &choices);
        decided.push((isa, choices, utilities));
    }
    let (first_isa, first, utilities) = &decided[0];
    for (isa, others, _) in &decided[1..] {
        for (row, (choice, other)) in first.iter().zip(others).enumerate() {
            match (choice, other) {
                (Ok(choice), Ok(other)) if choice.model_id != other.model_id => {
                    let utility = &utilities[row * n_models..][..n_models];
                    let (one, two) = (utility[choice.model_id as usize], utility[other.model_id as usize]);
                    let close = (one - two).abs() <= 1e-4 * (1.0 + one.abs());
                    assert!(
                        close || near_a_limit(&artifact, &policy, choice),
                        "{first_isa:?} {choice:?} {isa:?} {other:?}"
                    );
                }
                (Ok(choice), Err(_)) | (Err(_), Ok(choice)) => {
                    let is_near = near_a_limit(&artifact, &policy, choice) || choice.similarity == 0.0;
                    assert!(is_near || scale != 1.0, "{first_isa:?} and {isa:?} differ: {choice:?} {other:?}");
                }
                _ => {}
            }
        }
    }
}

/// Whether rounding may move a query over a limit: of cost, of quality, or of the distribution.
fn near_a_limit(artifact: &Artifact, policy: &Policy, choice: &Choice) -> bool {
    let near = |value: f32, limit: f32| (value - limit).abs() <= 1e-4 * (1.0 + limit.abs());
    artifact.metadata.ood_threshold.is_some_and(|threshold| near(choice.similarity, threshold))
        || policy.max_cost.is_some()
        || matches!(policy.objective, Objective::MinQuality(_))
}

fn artifact(feed: &mut Feed<'_>) -> (Artifact, bool) {
    let dim = 1 + size(feed, 70, 300);
    let n_clusters = 1 + size(feed, 70, 400);
    let n_models = 1 + size(feed, 12, 80);
    let is_coarse = feed.byte() % 4 == 0;
    let seed = u64::from(feed.byte());
    let coarse = |values: Vec<f32>| -> Vec<f32> {
        values.iter().map(|value| if is_coarse { (value * 4.0).round() / 4.0 } else { *value }).collect()
    };
    let unit = |n, seed| -> Vec<f32> { coarse(made::values(n, seed)).iter().map(|value| value + 0.5).collect() };
    let mut rows = if is_coarse {
        // One dimension a cluster: many of the same, and sums without rounding.
        let mut rows = vec![0.0; n_clusters * dim];
        for (cluster, row) in rows.chunks_exact_mut(dim).enumerate() {
            row[cluster * 7 % dim] = 1.0;
        }
        rows
    } else {
        made::unit_rows(n_clusters, dim, seed)
    };
    // Twins tie.
    let twin = feed.below(n_clusters);
    rows.copy_within(..dim, twin * dim);
    let unknown = (feed.byte() % 3 == 0).then(|| feed.below(n_models));
    let cost = |n: usize, seed| {
        let mut cost: Vec<f32> = unit(n, seed).iter().map(|value| value * 0.01).collect();
        if let Some(unknown) = unknown {
            cost.iter_mut().skip(unknown).step_by(n_models).for_each(|cost| *cost = f32::NAN);
        }
        cost
    };
    let cells = n_clusters * n_models;
    let metadata = Metadata {
        format_version: 1,
        models: (0..n_models).map(|model| Model { name: format!("m{model}"), ..Model::default() }).collect(),
        top_p: 1 + feed.below(n_clusters.min(40)),
        beta: feed.pick(&[0.0, 1.0, 9.0, 40.0, 1000.0]),
        embedder: EmbedderId { name: "made-up".into(), dim, fingerprint: None, surface_features: None },
        ood_threshold: feed.pick(&[None, Some(0.3), Some(-0.5), Some(0.0), Some(1.0)]),
        default_policy: None,
        alpha_score: feed.pick(&[AlphaScore::CostByMaximum, AlphaScore::MinMax, AlphaScore::ReciprocalRank]),
        sha256: "0".repeat(64),
    };
    let artifact = Artifact {
        metadata,
        metadata_json: String::new(),
        centroids: rows,
        precision: Precision::F32,
        quality: Table { cells: unit(cells, seed + 1), prior: unit(n_models, seed + 2) },
        cost: Table { cells: cost(cells, seed + 3), prior: cost(n_models, seed + 4) },
        count: vec![1.0; cells],
        quality_se: None,
        frontier: Vec::new(),
        ..sound().clone()
    };
    (artifact, is_coarse)
}

/// What of a router is not made up here.
fn sound() -> &'static Artifact {
    static SOUND: OnceLock<Artifact> = OnceLock::new();
    SOUND.get_or_init(|| {
        let file = made::container(Some(&made::metadata(4, false).to_string()), &made::tensors(2, 3, 4, "F32"));
        Artifact::from_bytes(&made::sealed(file)).expect("a sound file")
    })
}

/// A number below the first limit, or now and then below the second.
fn size(feed: &mut Feed<'_>, often: usize, seldom: usize) -> usize {
    let limit = if feed.byte() < 200 { often } else { seldom };
    feed.below(limit)
}

fn policy(feed: &mut Feed<'_>, artifact: &Artifact) -> Policy {
    let n_models = artifact.n_models();
    let share = f32::from(feed.byte()) / 255.0;
    let mut allowed: Box<[bool]> = (0..n_models).map(|_| feed.0.is_empty() || feed.byte() % 3 > 0).collect();
    allowed[0] = true;
    // As `bind` has it: whoever needs costs may not allow a model without them.
    let objective = match feed.byte() % 5 {
        0 => Objective::Quality,
        1 => Objective::Alpha(share),
        2 => Objective::Alpha(1.0),
        3 => Objective::WillingnessToPay(share),
        _ => Objective::MinQuality(share),
    };
    let max_cost = (feed.byte() % 3 == 0).then_some(share * 0.01);
    if max_cost.is_some() || !matches!(objective, Objective::Quality | Objective::Alpha(1.0)) {
        for (allowed, cost) in allowed.iter_mut().zip(&artifact.cost.prior) {
            *allowed &= !cost.is_nan();
        }
    }
    let fallback = (feed.byte() % 3 == 0).then(|| feed.below(n_models) as u32).filter(|&model| allowed[model as usize]);
    Policy { objective, allowed: Some(allowed), max_cost, fallback }
}

/// Compares what was assigned, blended and chosen with the definition, in double precision.
fn check(artifact: &Artifact, query: &[f32], policy: &Policy, choice: &Choice, scratch: &Scratch) {
    let n_models = artifact.n_models();
    let norm = query.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
    let similarity = |cluster: usize| {
        let row = &artifact.centroids[cluster * artifact.dim()..][..artifact.dim()];
        row.iter().zip(query).map(|(&left, &right)| f64::from(left) * f64::from(right)).sum::<f64>() / norm
    };
    let all: Vec<f64> = (0..artifact.n_clusters()).map(similarity).collect();
    let assigned = scratch.assigned();
    let chosen: Vec<f64> = assigned.cluster_ids.iter().map(|&id| all[id as usize]).collect();
    assert!(chosen.windows(2).all(|pair| pair[0] >= pair[1] - SIMILARITY_ERROR), "not descending: {chosen:?}");
    let last = chosen[chosen.len() - 1];
    for (cluster, &similarity) in all.iter().enumerate() {
        let is_chosen = assigned.cluster_ids.contains(&(cluster as u32));
        assert!(is_chosen || similarity <= last + SIMILARITY_ERROR, "cluster {cluster} at {similarity} was left out");
    }
    assert!((f64::from(choice.similarity) - chosen[0]).abs() < SIMILARITY_ERROR, "{choice:?} {}", chosen[0]);

    let beta = f64::from(artifact.metadata.beta);
    let soft: Vec<f64> = chosen.iter().map(|similarity| (beta * (similarity - chosen[0])).exp()).collect();
    let total: f64 = soft.iter().sum();
    for (weight, soft) in assigned.weights.iter().zip(&soft) {
        let error = (f64::from(*weight) - soft / total).abs();
        assert!(error < 1e-6 + 2.0 * SIMILARITY_ERROR * (1.0 + beta), "{weight} for {}", soft / total);
    }

    let threshold = artifact.metadata.ood_threshold.map(f64::from);
    let own = f64::from(choice.similarity);
    let trust = match threshold {
        Some(threshold) if own < threshold && threshold > 0.0 => (own / threshold).max(0.0),
        Some(threshold) if own < threshold => 0.0,
        _ => 1.0,
    };
    let blend = |table: &Table, model: usize| {
        let near: f64 = assigned
            .cluster_ids
            .iter()
            .zip(assigned.weights)
            .map(|(&id, &weight)| f64::from(weight) * f64::from(table.cells[id as usize * n_models + model]))
            .sum();
        if trust < 1.0 { trust * near + (1.0 - trust) * f64::from(table.prior[model]) } else { near }
    };
    for model in 0..n_models {
        let (quality, cost) = (f64::from(scratch.quality()[model]), f64::from(scratch.cost()[model]));
        assert!((quality - blend(&artifact.quality, model)).abs() < 1e-5, "quality of {model}");
        let wanted = blend(&artifact.cost, model);
        assert!(cost.is_nan() == wanted.is_nan() && (cost.is_nan() || (cost - wanted).abs() < 1e-7), "cost of {model}");
    }

    let model = choice.model_id as usize;
    assert_eq!(choice.in_distribution, threshold.is_none_or(|threshold| own >= threshold));
    let utility = scratch.utility();
    let is_fallback = policy.fallback == Some(choice.model_id);
    let candidates = (0..n_models).filter(|&model| {
        policy.allowed.as_ref().is_none_or(|allowed| allowed[model])
            && policy.max_cost.is_none_or(|limit| scratch.cost()[model] <= limit * (1.0 + 1e-6))
    });
    let candidates: Vec<usize> = candidates.collect();
    for other in 0..n_models {
        assert_eq!(utility[other] > EXCLUDED, candidates.contains(&other), "candidates {other}");
    }
    if is_fallback && (candidates.is_empty() || !choice.in_distribution) {
        return;
    }
    assert!(candidates.contains(&model), "{choice:?}");
    let meets = |model: usize, wanted: f32| scratch.quality()[model] >= wanted - 1e-6;
    for &other in &candidates {
        let (own, theirs) = match policy.objective {
            Objective::Quality => (scratch.quality()[model], scratch.quality()[other]),
            Objective::WillingnessToPay(amount) => (
                amount * scratch.quality()[model] - scratch.cost()[model],
                amount * scratch.quality()[other] - scratch.cost()[other],
            ),
            Objective::MinQuality(wanted) => {
                assert!(meets(model, wanted) || !meets(other, wanted), "{other} is good enough, {model} is not");
                match (meets(model, wanted), meets(other, wanted)) {
                    (true, true) => (-scratch.cost()[model], -scratch.cost()[other]),
                    (false, _) => (scratch.quality()[model], scratch.quality()[other]),
                    _ => continue,
                }
            }
            _ => (utility[model], utility[other]),
        };
        assert!(own >= theirs - 1e-6, "{other} with {theirs} is better than {choice:?} with {own}");
    }
}

/// A batch gives the rows of one query after another.
fn check_batch(router: &Router, queries: &[f32], policy: &Policy, choices: &[Result<Choice, Error>]) {
    let top_p = router.top_p();
    let mut batch = Batch::new(choices.len(), top_p);
    let policy = BatchPolicy { policy, objectives: None, allowed: None };
    let done = router.route_batch(queries, 0, &policy, &mut batch.rows(top_p), &mut Scratch::default());
    assert_eq!(done.is_ok(), choices.iter().all(Result::is_ok), "{done:?}");
    if done.is_err() {
        return;
    }
    for (row, choice) in choices.iter().flatten().enumerate() {
        let got = [batch.quality[row], batch.cost[row], batch.margin[row], batch.similarity[row]];
        let wanted = [choice.quality, choice.cost, choice.margin, choice.similarity];
        if router.centroids().precision() == Precision::F32 {
            assert_eq!(batch.model_ids[row].cast_unsigned(), choice.model_id, "row {row}");
            assert_eq!(got.map(f32::to_bits), wanted.map(f32::to_bits), "row {row}");
        } else {
            // One query is scored again alone and a block in tiles: the last bit of a sum may differ.
            assert!((got[3] - wanted[3]).abs() < 1e-6, "row {row}: {got:?} {wanted:?}");
        }
    }
}
