//! A safetensors table is refused in one line, or gives rows of norm one.
//!
//! Even first byte: the rest is the file. Odd: dtypes and shapes, then the bytes of the tensors.

use centroute_embed::safetensors_table::{Names, read_table};

use crate::feed::{Feed, check_refusal};
use crate::made::{Tensor, container};
use crate::onnx::check_table;

pub fn run(data: &[u8]) {
    let mut feed = Feed(data);
    let first = feed.byte();
    let names = Names {
        rows: "rows",
        weights: (first & 2 == 0).then_some("weights"),
        mapping: (first & 4 == 0).then_some("mapping"),
    };
    let file = if first % 2 == 0 { feed.0.to_vec() } else { built(&mut feed) };
    match read_table(&file, names) {
        Ok(table) => check_table(&table),
        Err(error) => check_refusal(&error),
    }
}

fn built(feed: &mut Feed<'_>) -> Vec<u8> {
    let lengths = [0, 1, 2, 3, 5, 8, 1 << 20, 1 << 40, usize::MAX];
    let mut tensors = Vec::new();
    for name in ["rows", "weights", "mapping"] {
        let (dtype, width) =
            feed.pick(&[("F32", 4), ("F16", 2), ("I8", 1), ("F64", 8), ("I64", 8), ("I32", 4), ("U8", 1)]);
        let mut shape: Vec<usize> = (0..feed.below(4)).map(|_| feed.pick(&lengths)).collect();
        let n_bytes = shape.iter().try_fold(width, |product: usize, &length| product.checked_mul(length));
        let n_bytes = n_bytes.filter(|&n| n < 1 << 12).unwrap_or_else(|| feed.below(64));
        let mut bytes = feed.take(n_bytes).to_vec();
        bytes.resize(n_bytes, 0);
        if feed.byte() == 255 {
            shape.push(feed.below(9));
        }
        tensors.push(Tensor { name, dtype, shape, bytes });
    }
    container(None, &tensors)
}
