//! How sure a decision is: standard errors of what was blended, for those who ask after the fact.
//!
//! Cells are taken as independent, and so are two models in a cell. Models answer the same queries, and those that
//! are right together make the true error of a difference smaller: the errors here are on the safe side.

use crate::artifact::AlphaScore;
use crate::policy::Objective;
use crate::router::Router;

/// A lead of this many standard errors is more than chance (95 %).
const RESOLVED: f32 = 1.96;

impl Router {
    /// Standard error of a model's quality blended from clusters and weights; `None` where the artifact has none.
    #[must_use]
    pub fn quality_se(&self, clusters: &[(u32, f32)], model: u32) -> Option<f32> {
        let errors = self.artifact().quality_se.as_deref()?;
        let n_models = self.artifact().n_models();
        let cell = |cluster: u32| errors[cluster as usize * n_models + model as usize];
        Some(clusters.iter().map(|&(cluster, weight)| (weight * cell(cluster)).powi(2)).sum::<f32>().sqrt())
    }

    /// Whether the first model leads the second by more than the qualities' standard errors leave to chance, in the
    /// measure of the objective; `None` where the artifact has no errors, or the objective is a least quality or ranks.
    #[must_use]
    pub fn is_resolved(
        &self,
        objective: Objective,
        clusters: &[(u32, f32)],
        models: [u32; 2],
        margin: f32,
    ) -> Option<bool> {
        let errors = self.artifact().quality_se.as_deref()?;
        let by_rank = self.artifact().metadata.alpha_score == AlphaScore::ReciprocalRank;
        if by_rank && matches!(objective, Objective::Alpha(_)) {
            return None;
        }
        let n_models = self.artifact().n_models();
        let mut square = 0.0;
        for &(cluster, weight) in clusters {
            let row = cluster as usize * n_models..(cluster as usize + 1) * n_models;
            let scale = match objective {
                Objective::Quality | Objective::StrongShare { .. } => 1.0,
                Objective::WillingnessToPay(amount) => amount,
                Objective::Alpha(alpha) => alpha / spread(&self.artifact().quality.cells[row.clone()]),
                Objective::MinQuality(_) => return None,
            };
            let errors = &errors[row];
            square += models.iter().map(|&model| (scale * weight * errors[model as usize]).powi(2)).sum::<f32>();
        }
        Some(margin > RESOLVED * square.sqrt())
    }
}

/// Difference between the best and the worst model, which an alpha policy scales a cluster's qualities by.
fn spread(quality: &[f32]) -> f32 {
    let high = quality.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let low = quality.iter().copied().fold(f32::INFINITY, f32::min);
    // Without a spread the cluster's qualities do not count, and neither do their errors.
    if high > low { high - low } else { f32::INFINITY }
}
