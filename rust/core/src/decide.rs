//! Blended quality and cost `[n_models]` and a policy in; one model out, with what explains the choice.
//!
//! Ties go to the lower cost, an unknown cost last, then to the lower model id.

use std::cmp::Ordering;

use crate::policy::Objective;
use crate::simd::Kernels;

/// A limit holds within this share of itself: blending equal cells rounds in the last digit.
const LIMIT_TOLERANCE: f32 = 1e-6;

/// Utility of a model that is no candidate.
pub const EXCLUDED: f32 = f32::NEG_INFINITY;

/// The model chosen for one query.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
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
    /// Utility by model id, as [`utilities`] and [`exclude`] write it; [`EXCLUDED`] for models that are no candidates.
    pub utility: &'a [f32],
}

/// Writes the utility of every model.
///
/// `normalized` holds the two Avengers-Pro sums of an alpha policy (quality part, then cheapness part) and is not
/// read otherwise.
#[inline]
pub fn utilities(objective: Objective, quality: &[f32], cost: &[f32], normalized: &[f32], into: &mut [f32]) {
    match objective {
        Objective::Quality => into.copy_from_slice(quality),
        // Without its own branch an unknown cost would make the sum unknown.
        Objective::Alpha(alpha) if alpha >= 1.0 => into.copy_from_slice(&normalized[..into.len()]),
        Objective::Alpha(alpha) => {
            let (p, cheapness) = normalized.split_at(into.len());
            for (into, (p, cheapness)) in into.iter_mut().zip(p.iter().zip(cheapness)) {
                *into = alpha * p + (1.0 - alpha) * cheapness;
            }
        }
        Objective::WillingnessToPay(amount) => {
            for (into, (quality, cost)) in into.iter_mut().zip(quality.iter().zip(cost)) {
                *into = amount * quality - cost;
            }
        }
        Objective::StrongShare { strong, threshold } => {
            into.copy_from_slice(quality);
            into[strong as usize] -= threshold;
        }
        Objective::MinQuality(wanted) => {
            for (into, (quality, cost)) in into.iter_mut().zip(quality.iter().zip(cost)) {
                *into = if meets(*quality, wanted) { -cost } else { quality - wanted };
            }
        }
    }
}

/// Excludes the models that a row of permissions does not name.
#[inline]
pub fn exclude(allowed: &[bool], utility: &mut [f32]) {
    for (utility, &is_allowed) in utility.iter_mut().zip(allowed) {
        *utility = if is_allowed { *utility } else { EXCLUDED };
    }
}

/// Excludes the models predicted dearer than a limit; an unknown cost passes no limit.
#[inline]
pub fn exclude_dearer(max_cost: f32, cost: &[f32], utility: &mut [f32]) {
    let limit = max_cost * (1.0 + LIMIT_TOLERANCE);
    for (utility, &cost) in utility.iter_mut().zip(cost) {
        *utility = if cost <= limit { *utility } else { EXCLUDED };
    }
}

#[inline]
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
        // `+ 0.0` makes the two zeros equal.
        (self.utility[right] + 0.0)
            .total_cmp(&(self.utility[left] + 0.0))
            .then_with(|| known(left).total_cmp(&known(right)))
            .then_with(|| left.cmp(&right))
    }

    /// The best candidate and the margin to the second, or `None` without a candidate.
    #[must_use]
    #[inline]
    pub fn best(&self, objective: Objective, kernels: &Kernels) -> Option<(usize, f32)> {
        if matches!(objective, Objective::MinQuality(_)) {
            return self.best_by_comparison(objective);
        }
        let (model, first, second) = (kernels.top_two)(self.utility);
        if first == EXCLUDED {
            return None;
        }
        // Where the second equals the first, costs decide.
        if second == first {
            return self.best_by_comparison(objective);
        }
        Some((model, if second == EXCLUDED { f32::NAN } else { first - second }))
    }

    #[cold]
    fn best_by_comparison(&self, objective: Objective) -> Option<(usize, f32)> {
        let mut first: Option<usize> = None;
        let mut second: Option<usize> = None;
        for model in (0..self.utility.len()).filter(|&model| self.utility[model] > EXCLUDED) {
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

    /// Every candidate, best first; the chosen one leads, which a fallback need not do by itself.
    #[must_use]
    pub fn ranking(&self, objective: Objective, chosen: u32) -> Vec<u32> {
        let is_candidate = |&model: &u32| self.utility[model as usize] > EXCLUDED && model != chosen;
        let mut ranking = vec![chosen];
        ranking.extend((0..self.utility.len() as u32).filter(is_candidate));
        ranking[1..].sort_unstable_by(|&left, &right| self.compare(objective, left as usize, right as usize));
        ranking
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::serial;

    fn decide(
        objective: Objective,
        quality: &[f32],
        cost: &[f32],
        allowed: &[bool],
    ) -> (Option<(usize, f32)>, Vec<u32>) {
        let mut utility = vec![0.0; quality.len()];
        utilities(objective, quality, cost, &[], &mut utility);
        exclude(allowed, &mut utility);
        let candidates = Candidates { quality, cost, utility: &utility };
        let (fast, slow) = (candidates.best(objective, &serial::KERNELS), candidates.best_by_comparison(objective));
        assert_eq!(fast.map(|best| (best.0, best.1.to_bits())), slow.map(|best| (best.0, best.1.to_bits())));
        let ranking = fast.map_or_else(Vec::new, |best| candidates.ranking(objective, best.0 as u32));
        (fast, ranking)
    }

    #[test]
    fn ties_go_to_the_lower_cost_then_the_lower_id_and_unknown_costs_last() {
        let cost = [f32::NAN, 0.3, 0.2, 0.2];
        let (best, ranking) = decide(Objective::Quality, &[0.5; 4], &cost, &[true; 4]);
        assert_eq!(best, Some((2, 0.0)));
        assert_eq!(ranking, [2, 3, 1, 0]);
    }

    #[test]
    fn both_zeros_are_equal() {
        let (best, _) = decide(Objective::Quality, &[-0.0, 0.0], &[0.2, 0.3], &[true; 2]);
        assert_eq!(best.map(|best| best.0), Some(0));
        let (best, _) = decide(Objective::Quality, &[0.0, -0.0], &[0.3, 0.2], &[true; 2]);
        assert_eq!(best.map(|best| best.0), Some(1));
    }

    #[test]
    fn willingness_trades_quality_for_cost() {
        let (quality, cost) = ([0.9, 0.5], [0.01, 0.001]);
        let at = |amount| decide(Objective::WillingnessToPay(amount), &quality, &cost, &[true; 2]).0.map(|best| best.0);
        assert_eq!((at(0.0), at(1.0)), (Some(1), Some(0)));
    }

    #[test]
    fn min_quality_takes_the_cheapest_that_meets_it_else_the_best() {
        let (quality, cost) = ([0.9, 0.7, 0.5], [0.03, 0.02, 0.01]);
        let at = |wanted| decide(Objective::MinQuality(wanted), &quality, &cost, &[true; 3]);
        assert_eq!(at(0.6).1, [1, 0, 2]);
        assert_eq!(at(0.95).1, [0, 1, 2]);
        let (best, margin) = at(0.8).0.expect("a candidate");
        assert_eq!(best, 0);
        assert!((margin - 0.1).abs() < 1e-6, "the second misses by {margin}");
    }

    #[test]
    fn excluded_models_and_dear_ones_are_no_candidates() {
        let cost = [0.03, 0.02, f32::NAN];
        let (best, ranking) = decide(Objective::Quality, &[0.9, 0.7, 0.8], &cost, &[false, true, false]);
        assert_eq!(ranking, [1]);
        let (model, margin) = best.expect("one candidate");
        assert!(model == 1 && margin.is_nan());
        let mut utility = [0.9, 0.7, 0.8];
        exclude_dearer(0.02, &cost, &mut utility);
        assert_eq!(utility, [EXCLUDED, 0.7, EXCLUDED]);
        assert_eq!(decide(Objective::Quality, &[0.9, 0.7, 0.8], &cost, &[false; 3]).0, None);
    }
}
