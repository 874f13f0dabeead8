//! Avengers-Pro's score of a model in a cluster, `alpha * quality + (1 - alpha) * cheapness`, and its variants.
//!
//! The source is arXiv 2508.12631 and the code published with it; see [`AlphaScore`].

use crate::aggregate::PairedTables;
use crate::artifact::{AlphaScore, Artifact, Table};

/// Quality and cheapness, normalised over the models of each cluster.
#[must_use]
pub fn normalized(artifact: &Artifact) -> PairedTables {
    let cheapness = match artifact.metadata.alpha_score {
        AlphaScore::MinMax => cheapness_by_min_max,
        AlphaScore::CostByMaximum | AlphaScore::ReciprocalRank => cheapness_by_max,
    };
    let n_models = artifact.n_models();
    PairedTables::new(
        &by_row(&artifact.quality, n_models, quality_by_min_max),
        &by_row(&artifact.cost, n_models, cheapness),
    )
}

/// Writes the blend of `1 / rank` of every model, ranked within each row of `normalized` by its score, best first and
/// ties by model id.
pub fn blend_reciprocal_ranks(alpha: f32, normalized: &[f32], rows: &[u32], shares: &[f32], into: &mut [f32]) {
    let n_models = into.len();
    into.fill(0.0);
    for (&row, share) in rows.iter().zip(shares) {
        let (quality, cheapness) = normalized[row as usize * 2 * n_models..][..2 * n_models].split_at(n_models);
        // An unknown cost is not read where it does not count.
        let score = |model: usize| {
            if alpha >= 1.0 { quality[model] } else { alpha * quality[model] + (1.0 - alpha) * cheapness[model] }
        };
        for (model, into) in into.iter_mut().enumerate() {
            let own = score(model);
            let ahead = (0..n_models).filter(|&other| {
                let theirs = score(other);
                theirs > own || (theirs == own && other < model)
            });
            *into += share / (1 + ahead.count()) as f32;
        }
    }
}

/// Applies a normalisation to the rows of a table and to its prior.
fn by_row(table: &Table, n_models: usize, normalize_row: fn(&mut [f32])) -> Table {
    let mut normalized = table.clone();
    for row in normalized.cells.chunks_exact_mut(n_models) {
        normalize_row(row);
    }
    normalize_row(&mut normalized.prior);
    normalized
}

/// Min-max over the models of one cluster; a row without spread becomes zeros, as it cannot matter.
fn quality_by_min_max(row: &mut [f32]) {
    let (low, high) = range(row);
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

/// One minus the cost's place between the cheapest and the dearest known model; an unknown cost stays NaN.
fn cheapness_by_min_max(row: &mut [f32]) {
    let (low, high) = range(row);
    let spread = high - low;
    for value in row {
        *value = 1.0 - if spread > 0.0 { (*value - low) / spread } else { *value - low };
    }
}

/// Lowest and highest known value.
fn range(row: &[f32]) -> (f32, f32) {
    row.iter().fold((f32::INFINITY, f32::NEG_INFINITY), |(low, high), &value| (low.min(value), high.max(value)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reciprocal_ranks_are_blended_and_ties_go_to_the_lower_id() {
        // Two clusters of three models: qualities, then cheapness.
        let rows = [1.0, 0.5, 0.0, 0.0, 0.5, 1.0, 0.25, 1.0, 1.0, 0.0, 0.0, 0.0];
        let mut blended = [f32::NAN; 3];
        blend_reciprocal_ranks(1.0, &rows, &[0, 1], &[0.5, 0.5], &mut blended);
        assert_eq!(blended, [0.5 + 0.5 / 3.0, 0.75, 0.5 / 3.0 + 0.25]);
        blend_reciprocal_ranks(0.5, &rows, &[0], &[1.0], &mut blended);
        assert_eq!(blended, [1.0, 0.5, 1.0 / 3.0]);
    }

    #[test]
    fn an_unknown_cost_is_not_read_by_quality_alone() {
        let mut blended = [f32::NAN; 2];
        blend_reciprocal_ranks(1.0, &[0.0, 1.0, f32::NAN, 0.3], &[0], &[1.0], &mut blended);
        assert_eq!(blended, [0.5, 1.0]);
    }

    #[test]
    fn min_max_of_costs_leaves_unknown_ones_unknown() {
        let mut row = [4.0, f32::NAN, 1.0, 2.5];
        cheapness_by_min_max(&mut row);
        assert_eq!((row[0], row[2], row[3]), (0.0, 1.0, 0.5));
        assert!(row[1].is_nan());
        let mut same = [2.0, 2.0];
        cheapness_by_min_max(&mut same);
        assert_eq!(same, [1.0, 1.0]);
    }
}
