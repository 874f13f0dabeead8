//! A table of token rows, and the embedding that their weighted sum is.

use bytes::Bytes;
use centroute_core::Isa;

use crate::error::Error;

/// Below this a sum has no direction; far below any norm that a token can give.
const NORM_FLOOR: f32 = 1e-12;

/// Rows of all tokens `[n_rows, dim]`, and what each token id weighs.
#[derive(Debug)]
pub struct Table {
    rows: Rows,
    dim: usize,
    /// By token id.
    weights: Vec<f32>,
    /// Row of each token id, where that is not the id itself.
    row_ids: Option<Vec<u32>>,
}

/// The rows as they are stored.
#[derive(Debug)]
pub enum Rows {
    /// Signed bytes; the scale of a row is in its weight.
    I8(Bytes),
    /// Single precision.
    F32(Vec<f32>),
}

/// Buffers of one thread.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    row_ids: Vec<u32>,
    weights: Vec<f32>,
}

impl Table {
    /// Checks that the parts fit each other. Without `row_ids` the row of a token is its id.
    pub fn new(rows: Rows, dim: usize, weights: Vec<f32>, row_ids: Option<Vec<u32>>) -> Result<Self, Error> {
        let n_values = match &rows {
            Rows::I8(bytes) => bytes.len(),
            Rows::F32(values) => values.len(),
        };
        // Without values nothing would bound what a file says that a row has.
        if dim == 0 || n_values == 0 || n_values % dim != 0 {
            return Err(Error::Table(format!("{n_values} values are no rows of {dim}")));
        }
        let n_rows = n_values / dim;
        let n_token_ids = row_ids.as_ref().map_or(n_rows, Vec::len);
        if weights.len() != n_token_ids {
            return Err(Error::Table(format!("{} weights for {n_token_ids} token ids", weights.len())));
        }
        if let Some(place) = weights.iter().position(|weight| !weight.is_finite()) {
            return Err(Error::Table(format!("the weight of token {place} is {}", weights[place])));
        }
        if let Rows::F32(values) = &rows
            && let Some(place) = values.iter().position(|value| !value.is_finite())
        {
            return Err(Error::Table(format!("row {} holds {}", place / dim, values[place])));
        }
        if let Some(row) = row_ids.iter().flatten().find(|&&row| row as usize >= n_rows) {
            return Err(Error::Table(format!("a token's row is {row}, there are {n_rows}")));
        }
        Ok(Self { rows, dim, weights, row_ids })
    }

    /// Width of a row.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Token ids that have a row.
    #[must_use]
    pub fn n_token_ids(&self) -> usize {
        self.weights.len()
    }

    /// Makes a token weigh nothing.
    pub fn silence(&mut self, token_id: u32) {
        if let Some(weight) = self.weights.get_mut(token_id as usize) {
            *weight = 0.0;
        }
    }

    /// Writes the weighted sum of the tokens' rows, brought to norm one; zeros where it is nothing.
    ///
    /// All ids must be below [`Self::n_token_ids`].
    pub fn embed(&self, token_ids: &[u32], isa: Isa, scratch: &mut Scratch, into: &mut [f32]) {
        let Scratch { row_ids, weights } = scratch;
        weights.clear();
        weights.extend(token_ids.iter().map(|&id| self.weights[id as usize]));
        let ids = if let Some(rows) = &self.row_ids {
            row_ids.clear();
            row_ids.extend(token_ids.iter().map(|&id| rows[id as usize]));
            row_ids.as_slice()
        } else {
            token_ids
        };
        let kernels = isa.kernels();
        match &self.rows {
            Rows::I8(bytes) => (kernels.blend_i8)(bytemuck::cast_slice(bytes), ids, weights, into),
            Rows::F32(values) => (kernels.blend)(values, ids, weights, into),
        }
        let norm = (kernels.dot_f32)(into, into).sqrt();
        // Values that are no numbers any more are not made zero by a factor.
        if !(norm > NORM_FLOOR && norm.is_finite()) {
            into.fill(0.0);
            return;
        }
        let factor = norm.recip();
        for value in into {
            *value *= factor;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_that_overflows_is_nothing_and_not_nan() {
        let rows = Rows::F32(vec![f32::MAX, f32::MAX, f32::MAX, -f32::MAX]);
        let table = Table::new(rows, 2, vec![1.0, 1.0], None).expect("sound");
        for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
            let mut row = [f32::NAN; 2];
            table.embed(&[0, 0, 1, 1, 1], isa, &mut Scratch::default(), &mut row);
            assert_eq!(row, [0.0; 2], "{isa:?}");
        }
    }

    #[test]
    fn a_table_without_rows_is_refused() {
        assert!(Table::new(Rows::F32(Vec::new()), 1 << 60, Vec::new(), None).is_err());
    }
}
