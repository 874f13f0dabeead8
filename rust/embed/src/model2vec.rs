//! The table of a model2vec folder: `model.safetensors` with `embeddings` and, in newer ones, `weights` and `mapping`.

use centroute_core::simd::serial::f32_from_f16;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::error::Error;
use crate::table::{Rows, Table};

/// Reads the table; rows and weights are turned into single precision.
pub fn read_table(file: &[u8]) -> Result<Table, Error> {
    let tensors = SafeTensors::deserialize(file).map_err(|error| Error::Table(error.to_string()))?;
    let embeddings = tensors.tensor("embeddings").map_err(|error| Error::Table(error.to_string()))?;
    let &[n_rows, dim] = embeddings.shape() else {
        return Err(Error::Table(format!("embeddings have shape {:?}, wanted [n_tokens, dim]", embeddings.shape())));
    };
    let rows = numbers("embeddings", &embeddings)?;
    let row_ids = match tensors.tensor("mapping") {
        Ok(mapping) => Some(row_ids(&mapping)?),
        Err(_) => None,
    };
    let weights = match tensors.tensor("weights") {
        Ok(weights) => numbers("weights", &weights)?,
        Err(_) => vec![1.0; row_ids.as_ref().map_or(n_rows, Vec::len)],
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
        other => Err(Error::Table(format!("{name} are {other:?}, wanted F64, F32, F16 or I8"))),
    }
}

fn row_ids(tensor: &TensorView<'_>) -> Result<Vec<u32>, Error> {
    let data = tensor.data();
    let ids: Option<Vec<u32>> = match tensor.dtype() {
        Dtype::I64 => data.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes).try_into().ok()).collect(),
        Dtype::I32 => data.as_chunks().0.iter().map(|&bytes| i32::from_le_bytes(bytes).try_into().ok()).collect(),
        other => return Err(Error::Table(format!("mapping is {other:?}, wanted I64 or I32"))),
    };
    ids.ok_or_else(|| Error::Table("mapping holds a negative row".into()))
}
