//! Blended quality and cost `[n_models]` and a policy in; one model out, with what explains the choice.
//!
//! Ties go to the lower cost, an unknown cost last, then to the lower model id.

use std::cmp::Ordering;

use crate::policy::{Objective, Policy};

/// A limit holds within this share of itself: blending equal cells rounds in the last digit.
const LIMIT_TOLERANCE: f32 = 1e-6;

/// The model chosen for one query.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Choice {
    /// Chosen model id.
    pub model_id: u32,
    /// Its predicted quality, 0 to 1.
    pub quality: f32,
    /// Its predicted cost in USD; NaN when unknown.
    pub cost: f32,
    /// How far it leads the second in the policy's own measure; NaN without a second or when the fallback was taken.
    pub margin: f32,
    /// Cosine similarity of the nearest cluster.
    pub similarity: f32,
    /// Whether the query resembles the calibration data.
    pub in_distribution: bool,
}

/// The numbers that candidates are compared by.
#[derive(Clone, Copy, Debug)]
pub struct Candidates<'a> {
    /// Predicted quality by model id.
    pub quality: &'a [f32],
    /// Predicted cost by model id, NaN when unknown.
    pub cost: &'a [f32],
    /// Utility by model id, as [`utilities`] writes it; NaN for models that are no candidates.
    pub utility: &'a [f32],
}

/// Writes the utility of every candidate, NaN for the others.
///
/// `normalized` holds the two Avengers-Pro sums of an alpha policy (quality part, cost part) and is not read
/// otherwise.
pub fn utilities(policy: &Policy, quality: &[f32], cost: &[f32], normalized: (&[f32], &[f32]), into: &mut [f32]) {
    match policy.objective {
        Objective::Quality => into.copy_from_slice(quality),
        Objective::Alpha(alpha) if alpha >= 1.0 => into.copy_from_slice(normalized.0),
        Objective::Alpha(alpha) => {
            for (into, (p, q)) in into.iter_mut().zip(normalized.0.iter().zip(normalized.1)) {
                *into = alpha * p + (1.0 - alpha) * q;
            }
        }
        Objective::WillingnessToPay(amount) => {
            for (into, (quality, cost)) in into.iter_mut().zip(quality.iter().zip(cost)) {
                *into = amount * quality - cost;
            }
        }
        Objective::MinQuality(wanted) => {
            for (into, (quality, cost)) in into.iter_mut().zip(quality.iter().zip(cost)) {
                *into = if meets(*quality, wanted) { -cost } else { quality - wanted };
            }
        }
    }
    if let Some(allowed) = &policy.allowed {
        for (into, &is_allowed) in into.iter_mut().zip(allowed) {
            if !is_allowed {
                *into = f32::NAN;
            }
        }
    }
    if let Some(max_cost) = policy.max_cost {
        let limit = max_cost * (1.0 + LIMIT_TOLERANCE);
        for (into, &cost) in into.iter_mut().zip(cost) {
            // An unknown cost never passes a cost limit.
            if cost.is_nan() || cost > limit {
                *into = f32::NAN;
            }
        }
    }
}

fn meets(quality: f32, wanted: f32) -> bool {
    quality >= wanted - LIMIT_TOLERANCE
}

impl Candidates<'_> {
    /// `Less` when `left` ranks before `right`; both are candidates.
    fn compare(&self, objective: Objective, left: usize, right: usize) -> Ordering {
        if let Objective::MinQuality(wanted) = objective {
            let tier = meets(self.quality[right], wanted).cmp(&meets(self.quality[left], wanted));
            if tier != Ordering::Equal {
                return tier;
            }
        }
        let known = |model: usize| if self.cost[model].is_nan() { f32::INFINITY } else { self.cost[model] };
        self.utility[right]
            .total_cmp(&self.utility[left])
            .then_with(|| known(left).total_cmp(&known(right)))
            .then_with(|| left.cmp(&right))
    }

    /// The best candidate and the margin to the second, or `None` without a candidate.
    #[must_use]
    pub fn best(&self, objective: Objective) -> Option<(usize, f32)> {
        let mut first: Option<usize> = None;
        let mut second: Option<usize> = None;
        for model in (0..self.utility.len()).filter(|&model| !self.utility[model].is_nan()) {
            match first {
                Some(leader) if self.compare(objective, model, leader) == Ordering::Greater => {
                    if second.is_none_or(|other| self.compare(objective, model, other) == Ordering::Less) {
                        second = Some(model);
                    }
                }
                _ => {
                    second = first;
                    first = Some(model);
                }
            }
        }
        first.map(|leader| (leader, second.map_or(f32::NAN, |other| self.margin(objective, leader, other))))
    }

    fn margin(&self, objective: Objective, first: usize, second: usize) -> f32 {
        if let Objective::MinQuality(wanted) = objective
            && meets(self.quality[first], wanted)
            && !meets(self.quality[second], wanted)
        {
            // The second misses the wanted quality by this much.
            return -self.utility[second];
        }
        self.utility[first] - self.utility[second]
    }

    /// Every candidate, best first.
    #[must_use]
    pub fn ranking(&self, objective: Objective) -> Vec<u32> {
        let mut ranking: Vec<u32> =
            (0..self.utility.len() as u32).filter(|&model| !self.utility[model as usize].is_nan()).collect();
        ranking.sort_by(|&left, &right| self.compare(objective, left as usize, right as usize));
        ranking
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(objective: Objective) -> Policy {
        Policy { objective, allowed: None, max_cost: None, fallback: None }
    }

    fn decide(policy: &Policy, quality: &[f32], cost: &[f32]) -> (Option<(usize, f32)>, Vec<u32>) {
        let mut utility = vec![0.0; quality.len()];
        utilities(policy, quality, cost, (quality, cost), &mut utility);
        let candidates = Candidates { quality, cost, utility: &utility };
        (candidates.best(policy.objective), candidates.ranking(policy.objective))
    }

    #[test]
    fn ties_go_to_the_lower_cost_then_the_lower_id_and_unknown_costs_last() {
        let cost = [f32::NAN, 0.3, 0.2, 0.2];
        let (best, ranking) = decide(&policy(Objective::Quality), &[0.5; 4], &cost);
        assert_eq!(best, Some((2, 0.0)));
        assert_eq!(ranking, [2, 3, 1, 0]);
    }

    #[test]
    fn willingness_trades_quality_for_cost() {
        let (quality, cost) = ([0.9, 0.5], [0.01, 0.001]);
        assert_eq!(decide(&policy(Objective::WillingnessToPay(0.0)), &quality, &cost).0.map(|best| best.0), Some(1));
        assert_eq!(decide(&policy(Objective::WillingnessToPay(1.0)), &quality, &cost).0.map(|best| best.0), Some(0));
    }

    #[test]
    fn min_quality_takes_the_cheapest_that_meets_it_else_the_best() {
        let (quality, cost) = ([0.9, 0.7, 0.5], [0.03, 0.02, 0.01]);
        let at = |wanted| decide(&policy(Objective::MinQuality(wanted)), &quality, &cost);
        assert_eq!(at(0.6).1, [1, 0, 2]);
        assert_eq!(at(0.95).1, [0, 1, 2]);
        let (best, margin) = at(0.8).0.expect("a candidate");
        assert_eq!(best, 0);
        assert!((margin - 0.1).abs() < 1e-6, "the second misses by {margin}");
    }

    #[test]
    fn excluded_models_and_dear_ones_are_no_candidates() {
        let mut wanted = policy(Objective::Quality);
        wanted.allowed = Some(vec![true, true, false].into());
        wanted.max_cost = Some(0.02);
        let (best, ranking) = decide(&wanted, &[0.9, 0.7, 0.8], &[0.03, 0.02, 0.01]);
        assert_eq!(ranking, [1]);
        let (model, margin) = best.expect("one candidate");
        assert!(model == 1 && margin.is_nan());
        wanted.max_cost = Some(0.001);
        assert_eq!(decide(&wanted, &[0.9, 0.7, 0.8], &[0.03, 0.02, 0.01]).0, None);
    }
}
