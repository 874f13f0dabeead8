//! A static table in a safetensors file, as model2vec and sentence-transformers' `StaticEmbedding` write them.

use centroute_core::simd::serial::f32_from_f16;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::error::Error;
use crate::table::{Rows, Table};

/// Names of the tensors. In model2vec's terms a token's row is `rows[mapping[id]] * weights[id]`.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    /// `[n_rows, dim]`.
    pub rows: &'a str,
    /// `[n_token_ids]`; absent where every token weighs the same.
    pub weights: Option<&'a str>,
    /// `[n_token_ids]`; absent where a token's row is its id.
    pub mapping: Option<&'a str>,
}

/// Reads the table; rows and weights are turned into single precision.
pub fn read_table(file: &[u8], names: Names<'_>) -> Result<Table, Error> {
    let tensors = SafeTensors::deserialize(file).map_err(|error| Error::Table(error.to_string()))?;
    let tensor = |name: &str| tensors.tensor(name).map_err(|_| Error::Table(format!("tensor '{name}' is missing")));
    let rows = tensor(names.rows)?;
    let &[n_rows, dim] = rows.shape() else {
        return Err(Error::Table(format!("{} has shape {:?}, wanted [n_rows, dim]", names.rows, rows.shape())));
    };
    // Rows of no values take no bytes, however many of them a file claims.
    if dim == 0 {
        return Err(Error::Table(format!("{} has shape [{n_rows}, 0], wanted rows that hold something", names.rows)));
    }
    let rows = numbers(names.rows, &rows)?;
    let row_ids = names.mapping.map(|name| row_ids(name, &tensor(name)?)).transpose()?;
    let weights = match names.weights {
        Some(name) => numbers(name, &tensor(name)?)?,
        None => vec![1.0; row_ids.as_ref().map_or(n_rows, Vec::len)],
    };
    Table::new(Rows::F32(rows), dim, weights, row_ids)
}

fn numbers(name: &str, tensor: &TensorView<'_>) -> Result<Vec<f32>, Error> {
    let data = tensor.data();
    match tensor.dtype() {
        Dtype::F64 => Ok(data.as_chunks().0.iter().map(|&bytes| f64::from_le_bytes(bytes) as f32).collect()),
        Dtype::F32 => Ok(data.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()),
        Dtype::F16 => Ok(data.as_chunks().0.iter().map(|&bytes| f32_from_f16(u16::from_le_bytes(bytes))).collect()),
        Dtype::I8 => Ok(data.iter().map(|&byte| f32::from(byte.cast_signed())).collect()),
        other => Err(Error::Table(format!("{name} is {other:?}, wanted F64, F32, F16 or I8"))),
    }
}

fn row_ids(name: &str, tensor: &TensorView<'_>) -> Result<Vec<u32>, Error> {
    let data = tensor.data();
    let ids: Option<Vec<u32>> = match tensor.dtype() {
        Dtype::I64 => data.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes).try_into().ok()).collect(),
        Dtype::I32 => data.as_chunks().0.iter().map(|&bytes| i32::from_le_bytes(bytes).try_into().ok()).collect(),
        other => return Err(Error::Table(format!("{name} is {other:?}, wanted I64 or I32"))),
    };
    ids.ok_or_else(|| Error::Table(format!("{name} holds a row that cannot be")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_without_values_take_no_memory_for_their_number() {
        let header = format!(r#"{{"rows":{{"dtype":"F32","shape":[{},0],"data_offsets":[0,0]}}}}"#, 1u64 << 50);
        let file = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
        let error = read_table(&file, Names { rows: "rows", weights: None, mapping: None }).expect_err("no table");
        assert!(error.to_string().contains("rows has shape"), "{error}");
    }
}
