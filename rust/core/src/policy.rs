//! What one request wants: a [`PolicySpec`] of names and numbers in, a [`Policy`] bound to one pool out.
//!
//! Compiling checks everything that does not depend on the query (ranges, names, unknown costs, candidates),
//! so that deciding only compares numbers.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::artifact::Artifact;
use crate::error::Error;
use crate::pairs::threshold_for_share;

/// What to maximise.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Objective {
    /// Highest predicted quality, ties by cost.
    Quality,
    /// `A * p + (1 - A) * (1 - q)` over per-cluster normalised quality and cost (Avengers-Pro).
    Alpha(f32),
    /// `W * quality - cost`, W in USD for one unit of quality.
    WillingnessToPay(f32),
    /// The cheapest model predicted at this quality or more, else the best one.
    MinQuality(f32),
    /// The strong model where its predicted quality leads by more than a threshold, else the weak one; no other is a
    /// candidate.
    StrongShare {
        /// Id of the strong model.
        strong: u32,
        /// Lead that it needs.
        threshold: f32,
    },
}

/// A policy as a request states it: names and numbers, not yet bound to a pool.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PolicySpec {
    /// Trade-off of Avengers-Pro, 0 (cheapest) to 1 (quality only).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alpha: Option<f64>,
    /// USD for one unit of quality.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub willingness_to_pay: Option<f64>,
    /// Mean cost in USD a query, met through the frontier stored in the artifact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_mean_cost: Option<f64>,
    /// Predicted quality that is good enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_quality: Option<f64>,
    /// The better and dearer of two models, of which one is asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strong: Option<String>,
    /// The other.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weak: Option<String>,
    /// Share of the queries that the strong one is to answer, met through the thresholds stored in the artifact.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub strong_share: Option<f64>,
    /// Models predicted to cost more than this, in USD a query, are excluded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cost: Option<f64>,
    /// Only these models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow: Option<BTreeSet<String>>,
    /// None of these models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deny: Option<BTreeSet<String>>,
    /// Tags that a model must have, and `context>=N` for its context length in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub require: Option<BTreeSet<String>>,
    /// Taken when the query is out of distribution or no candidate is left.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<String>,
    /// Most models of an ensemble, 2 or more; the kernel names one model, and refuses a policy with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_models: Option<i64>,
}

/// A policy bound to the pool of one router.
#[derive(Clone, Debug)]
pub struct Policy {
    /// What to maximise.
    pub objective: Objective,
    /// Candidates by model id; `None` when all are.
    pub allowed: Option<Box<[bool]>>,
    /// Predicted cost above which a model is excluded, in USD.
    pub max_cost: Option<f32>,
    /// Model id taken when out of distribution or when nothing is left.
    pub fallback: Option<u32>,
}

impl PolicySpec {
    /// Checks ranges and that at most one objective is set; needs no pool.
    pub fn check(&self) -> Result<(), Error> {
        let objectives = [
            ("alpha", self.alpha.is_some()),
            ("willingness_to_pay", self.willingness_to_pay.is_some()),
            ("max_mean_cost", self.max_mean_cost.is_some()),
            ("min_quality", self.min_quality.is_some()),
            ("strong_share", self.has_pair()),
        ];
        let mut given = objectives.iter().filter(|(_, set)| *set).map(|(name, _)| *name);
        if let (Some(first), Some(second)) = (given.next(), given.next()) {
            return Err(Error::PolicyConflict(first, second));
        }
        let unit = |value: f64| (0.0..=1.0).contains(&value);
        let amount = |value: f64| value >= 0.0 && value <= f64::from(f32::MAX);
        let checks: [(&'static str, Option<f64>, bool, &'static str); 6] = [
            ("alpha", self.alpha, self.alpha.is_none_or(unit), "0 to 1"),
            (
                "willingness_to_pay",
                self.willingness_to_pay,
                self.willingness_to_pay.is_none_or(amount),
                "a finite amount of USD, 0 or more",
            ),
            (
                "max_mean_cost",
                self.max_mean_cost,
                self.max_mean_cost.is_none_or(amount),
                "a finite amount of USD, 0 or more",
            ),
            ("min_quality", self.min_quality, self.min_quality.is_none_or(unit), "0 to 1"),
            ("strong_share", self.strong_share, self.strong_share.is_none_or(unit), "0 to 1"),
            ("max_cost", self.max_cost, self.max_cost.is_none_or(amount), "a finite amount of USD, 0 or more"),
        ];
        for (field, value, holds, wanted) in checks {
            if let (Some(value), false) = (value, holds) {
                return Err(Error::PolicyValue { field, value, wanted });
            }
        }
        if self.has_pair() && (self.strong.is_none() || self.weak.is_none() || self.strong_share.is_none()) {
            return Err(Error::StrongWeak("all three belong together".into()));
        }
        match self.n_models {
            Some(n_models) if n_models < 2 => Err(Error::PolicyValue {
                field: "n_models",
                value: n_models as f64,
                wanted: "2 or more, since one model holds no vote",
            }),
            _ => Ok(()),
        }
    }

    /// True when the request names its own objective.
    #[must_use]
    pub fn has_objective(&self) -> bool {
        self.alpha.is_some()
            || self.willingness_to_pay.is_some()
            || self.max_mean_cost.is_some()
            || self.min_quality.is_some()
            || self.has_pair()
    }

    /// True when the request says something of a strong and a weak model.
    fn has_pair(&self) -> bool {
        self.strong.is_some() || self.weak.is_some() || self.strong_share.is_some()
    }

    /// This request over the defaults of the artifact: each part that it leaves open is taken from there.
    #[must_use]
    fn over(&self, default: &Self) -> Self {
        let mut merged = self.clone();
        if !self.has_objective() {
            merged.alpha = default.alpha;
            merged.willingness_to_pay = default.willingness_to_pay;
            merged.max_mean_cost = default.max_mean_cost;
            merged.min_quality = default.min_quality;
            merged.strong.clone_from(&default.strong);
            merged.weak.clone_from(&default.weak);
            merged.strong_share = default.strong_share;
        }
        merged.max_cost = merged.max_cost.or(default.max_cost);
        merged.allow = merged.allow.or_else(|| default.allow.clone());
        merged.deny = merged.deny.or_else(|| default.deny.clone());
        merged.require = merged.require.or_else(|| default.require.clone());
        merged.fallback = merged.fallback.or_else(|| default.fallback.clone());
        merged
    }

    /// Binds the request to a pool.
    pub fn compile(&self, artifact: &Artifact) -> Result<Policy, Error> {
        if let Some(default) = &artifact.metadata.default_policy {
            return self.over(default).bind(artifact);
        }
        self.bind(artifact)
    }

    fn bind(&self, artifact: &Artifact) -> Result<Policy, Error> {
        self.check()?;
        if let Some(n_models) = self.n_models {
            return Err(Error::PolicyValue {
                field: "n_models",
                value: n_models as f64,
                wanted: "none: here one model is decided on; an ensemble is what Router.route_ensemble decides on",
            });
        }
        let mut allowed = self.candidates(artifact)?;
        let objective = if let (Some(strong), Some(weak), Some(share)) = (&self.strong, &self.weak, self.strong_share) {
            let (strong, weak) = (artifact.model_id("strong", strong)?, artifact.model_id("weak", weak)?);
            let threshold = threshold_for_share(artifact, strong, weak, share)?;
            for (field, model) in [("strong", strong), ("weak", weak)] {
                if !allowed[model] {
                    let name = artifact.model_name(model);
                    return Err(Error::StrongWeak(format!("{field} {name} is excluded by allow, deny or require")));
                }
            }
            allowed.fill(false);
            (allowed[strong], allowed[weak]) = (true, true);
            Objective::StrongShare { strong: strong as u32, threshold }
        } else if let Some(alpha) = self.alpha {
            Objective::Alpha(alpha as f32)
        } else if let Some(amount) = self.willingness_to_pay {
            Objective::WillingnessToPay(amount as f32)
        } else if let Some(mean_cost) = self.max_mean_cost {
            Objective::WillingnessToPay(willingness_for_mean_cost(&artifact.frontier, mean_cost)?)
        } else if let Some(quality) = self.min_quality {
            Objective::MinQuality(quality as f32)
        } else {
            Objective::Quality
        };
        let needs_cost = match objective {
            Objective::Quality | Objective::StrongShare { .. } => None,
            Objective::Alpha(alpha) => (alpha < 1.0).then_some("alpha"),
            Objective::WillingnessToPay(_) if self.max_mean_cost.is_some() => Some("max_mean_cost"),
            Objective::WillingnessToPay(_) => Some("willingness_to_pay"),
            Objective::MinQuality(_) => Some("min_quality"),
        };
        if let Some(field) = self.max_cost.map(|_| "max_cost").or(needs_cost) {
            let unknown: Vec<&str> = (0..artifact.n_models())
                .filter(|&model| allowed[model] && artifact.cost.prior[model].is_nan())
                .map(|model| artifact.model_name(model))
                .collect();
            if !unknown.is_empty() {
                return Err(Error::CostUnknown { field, models: unknown.join(", ") });
            }
        }
        let fallback = match &self.fallback {
            Some(name) => {
                let model = artifact.model_id("fallback", name)?;
                if !allowed[model] {
                    return Err(Error::NoCandidate(format!("the fallback {name} is itself excluded")));
                }
                Some(model as u32)
            }
            None => None,
        };
        let all = allowed.iter().all(|&is_allowed| is_allowed);
        Ok(Policy {
            objective,
            allowed: (!all).then_some(allowed),
            max_cost: self.max_cost.map(|cost| cost as f32),
            fallback,
        })
    }

    /// Candidates by model id; an error that says which limit excluded whom when none is left.
    fn candidates(&self, artifact: &Artifact) -> Result<Box<[bool]>, Error> {
        let n_models = artifact.n_models();
        let mut allowed = vec![true; n_models].into_boxed_slice();
        let mut reasons: Vec<String> = Vec::new();
        let mut exclude = |limit: &str, keep: &dyn Fn(usize) -> bool| {
            let mut excluded: Vec<&str> = Vec::new();
            for model in 0..n_models {
                if allowed[model] && !keep(model) {
                    allowed[model] = false;
                    excluded.push(artifact.model_name(model));
                }
            }
            if !excluded.is_empty() {
                reasons.push(format!("{limit} excludes {}", excluded.join(", ")));
            }
        };
        if let Some(names) = &self.allow {
            let ids = artifact.model_ids("allow", names)?;
            exclude("allow", &|model| ids.contains(&model));
        }
        if let Some(names) = &self.deny {
            let ids = artifact.model_ids("deny", names)?;
            exclude("deny", &|model| !ids.contains(&model));
        }
        for requirement in self.require.iter().flatten() {
            let limit = format!("require {requirement}");
            if let Some(tokens) = requirement.strip_prefix("context>=") {
                let tokens: u64 = tokens.trim().parse().map_err(|_| Error::Requirement(requirement.clone()))?;
                exclude(&limit, &|model| {
                    artifact.metadata.models[model].context_length.is_some_and(|length| length >= tokens)
                });
            } else {
                exclude(&limit, &|model| artifact.metadata.models[model].tags.contains(requirement));
            }
        }
        if allowed.iter().any(|&is_allowed| is_allowed) {
            return Ok(allowed);
        }
        Err(Error::NoCandidate(reasons.join("; ")))
    }
}

/// The willingness to pay whose calibrated mean cost is `mean_cost`.
///
/// `frontier` rows are `(willingness_to_pay, quality, mean_cost)` in ascending order of all; between two rows
/// the willingness is interpolated linearly in the mean cost.
fn willingness_for_mean_cost(frontier: &[[f32; 3]], mean_cost: f64) -> Result<f32, Error> {
    let refuse = |why: String| Error::Budget { value: mean_cost, why };
    let (Some(first), Some(last)) = (frontier.first(), frontier.last()) else {
        return Err(refuse("the artifact stores no frontier, because costs were unknown at calibration".into()));
    };
    let budget = mean_cost as f32;
    if budget < first[2] {
        return Err(refuse(format!("the cheapest choice already costs {:e} USD a query on average", first[2])));
    }
    let above = frontier.partition_point(|row| row[2] <= budget);
    if above == frontier.len() {
        return Ok(last[0]);
    }
    let (low, high) = (frontier[above - 1], frontier[above]);
    let share = (budget - low[2]) / (high[2] - low[2]);
    Ok(low[0] + share * (high[0] - low[0]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_maps_to_the_willingness_between_two_frontier_rows() {
        let frontier = [[0.0, 0.4, 0.001], [0.01, 0.5, 0.002], [0.1, 0.6, 0.004]];
        let at = |cost| willingness_for_mean_cost(&frontier, cost);
        assert_eq!(at(0.002).expect("on a row"), 0.01);
        assert!((at(0.003).expect("between") - 0.055).abs() < 1e-6);
        assert_eq!(at(1.0).expect("more than all"), 0.1);
        assert!(at(0.0001).expect_err("too little").to_string().contains("cheapest"));
        assert!(willingness_for_mean_cost(&[], 1.0).expect_err("none").to_string().contains("no frontier"));
    }

    #[test]
    fn ranges_and_conflicts_name_the_field() {
        let spec = PolicySpec { alpha: Some(1.5), ..PolicySpec::default() };
        assert!(spec.check().expect_err("out of range").to_string().contains("alpha=1.5"));
        let spec = PolicySpec { max_cost: Some(f64::NAN), ..PolicySpec::default() };
        assert!(spec.check().expect_err("NaN").to_string().contains("max_cost"));
        let spec = PolicySpec { alpha: Some(0.5), min_quality: Some(0.5), ..PolicySpec::default() };
        assert!(spec.check().expect_err("two").to_string().contains("exclude each other"));
        let spec = PolicySpec { n_models: Some(1), ..PolicySpec::default() };
        assert!(spec.check().expect_err("no vote").to_string().contains("n_models=1"));
    }
}
