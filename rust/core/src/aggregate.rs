//! Assignment and tables `[n_clusters, n_models]` in; one blended value per model `[n_models]` out.

use crate::assign::Assignment;
use crate::simd;

/// A table `[n_clusters, n_models]` with the row that stands for "no cluster is near".
#[derive(Clone, Debug)]
pub struct Table {
    /// Row-major cells.
    pub cells: Vec<f32>,
    /// One value per model: what holds where no cluster is near.
    pub prior: Vec<f32>,
}

/// `into[m] = (1 - trust) * prior[m] + trust * sum_c weight_c * cells[c, m]`.
pub fn aggregate(assignment: &Assignment, trust: f32, table: &Table, into: &mut [f32]) {
    let n_models = table.prior.len();
    debug_assert_eq!(into.len(), n_models);
    into.fill(0.0);
    for (&cluster, &weight) in assignment.cluster_ids.iter().zip(&assignment.weights) {
        let start = cluster as usize * n_models;
        simd::add_scaled_f32(into, trust * weight, &table.cells[start..start + n_models]);
    }
    if trust < 1.0 {
        simd::add_scaled_f32(into, 1.0 - trust, &table.prior);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blends_rows_and_leans_on_the_prior() {
        let table = Table { cells: vec![0.0, 1.0, 1.0, 0.5], prior: vec![0.25, 0.75] };
        let assignment =
            Assignment { cluster_ids: vec![1, 0], weights: vec![0.75, 0.25], similarities: vec![0.9, 0.8] };
        let mut blended = [f32::NAN; 2];
        aggregate(&assignment, 1.0, &table, &mut blended);
        assert_eq!(blended, [0.75, 0.625]);
        aggregate(&assignment, 0.5, &table, &mut blended);
        assert_eq!(blended, [0.5, 0.6875]);
    }
}
