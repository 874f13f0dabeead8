//! Assignment and tables `[n_clusters, n_models]` in; blended values per model out.
//!
//! Two tables lie side by side, row by row, so that one pass blends both: `[left of M models | right of M]`.
//! Their last row, after those of the clusters, holds what is true where no cluster is near; distrust is its
//! weight: `(1 - trust) * prior + trust * sum_c weight_c * cells[c]`.

use crate::artifact::Table;

/// Two tables of one pool, to be blended together.
#[derive(Clone, Debug)]
pub struct PairedTables {
    /// `[n_clusters + 1, 2 * n_models]`.
    rows: Vec<f32>,
    prior_id: u32,
}

impl PairedTables {
    /// Puts two tables side by side.
    #[must_use]
    pub fn new(left: &Table, right: &Table) -> Self {
        let n_models = left.prior.len();
        let n_clusters = left.cells.len() / n_models;
        let left_rows = left.cells.chunks_exact(n_models).chain([left.prior.as_slice()]);
        let right_rows = right.cells.chunks_exact(n_models).chain([right.prior.as_slice()]);
        let rows = left_rows.zip(right_rows).flat_map(|(left, right)| left.iter().chain(right)).copied().collect();
        Self { rows, prior_id: n_clusters as u32 }
    }

    /// The rows, `[n_clusters + 1, 2 * n_models]`.
    #[must_use]
    pub fn rows(&self) -> &[f32] {
        &self.rows
    }

    /// Id of the row that holds the priors.
    #[must_use]
    pub fn prior_id(&self) -> u32 {
        self.prior_id
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::serial;

    #[test]
    fn both_tables_are_blended_and_the_prior_is_one_more_row() {
        let left = Table { cells: vec![0.0, 1.0, 1.0, 0.5], prior: vec![0.25, 0.75] };
        let right = Table { cells: vec![8.0, 4.0, 0.0, 2.0], prior: vec![2.0, 2.0] };
        let tables = PairedTables::new(&left, &right);
        let mut blended = [f32::NAN; 4];
        serial::blend(tables.rows(), &[1, 0], &[0.75, 0.25], &mut blended);
        assert_eq!(blended, [0.75, 0.625, 2.0, 2.5]);
        serial::blend(tables.rows(), &[1, 0, tables.prior_id()], &[0.375, 0.125, 0.5], &mut blended);
        assert_eq!(blended, [0.5, 0.6875, 2.0, 2.25]);
    }
}
