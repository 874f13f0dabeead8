//! The table inside a static embedder's `model.onnx`.
//!
//! `models/export_static.py` writes one graph: gather the int8 rows and their scales by token id, sum under the mask,
//! divide by the norm. Exactly that graph is read here; any other is for ONNX Runtime. Protobuf is read field by field
//! where it stands and never turned into objects, of which two bytes of a file could claim a hundred.

use bytes::Bytes;

use crate::error::Error;
use crate::protobuf::{Fields, Value, cut_off, number};
use crate::table::{Rows, Table};

/// The graph, a node a line; the names are those that the exporter gives.
const GRAPH: &str = "\
gather_0 = Gather(rows, input_ids)
cast_1 = Cast(gather_0) to=1
gather_2 = Gather(scales, input_ids)
cast_3 = Cast(attention_mask) to=1
mul_4 = Mul(gather_2, cast_3)
unsqueeze_5 = Unsqueeze(mul_4, middle_axis)
matmul_6 = MatMul(unsqueeze_5, cast_1)
squeeze_7 = Squeeze(matmul_6, middle_axis)
reducel2_8 = ReduceL2(squeeze_7) axes=1 keepdims=1
max_9 = Max(reducel2_8, norm_floor)
embedding = Div(squeeze_7, max_9)
";
const FLOAT: u64 = 1;
const INT8: u64 = 3;

/// A tensor of the graph; the bytes stay where they are.
#[derive(Clone, Copy, Default)]
struct Tensor<'a> {
    /// As many dimensions as there are, and the first two.
    n_dimensions: usize,
    shape: [u64; 2],
    kind: u64,
    name: &'a [u8],
    data: &'a [u8],
}

/// Reads the table of a static embedder, `None` where the graph is another one. The rows stay where they are in `model`.
#[expect(clippy::needless_pass_by_value, reason = "the rows keep it")]
pub fn read_table(model: Bytes) -> Result<Option<Table>, Error> {
    let wrong = |what: String| Error::Table(what);
    let mut graph = None;
    for field in Fields(&model) {
        if let (7, Value::Bytes(bytes)) = field? {
            graph = Some(bytes);
        }
    }
    let graph = graph.ok_or_else(|| wrong("not an ONNX model (it has no graph)".into()))?;
    let mut nodes = String::new();
    let mut tensors = ["middle_axis", "rows", "scales"].map(|name| (name, None));
    for field in Fields(graph) {
        match field? {
            (1, Value::Bytes(node)) => {
                describe(node, &mut nodes)?;
                if !GRAPH.starts_with(&nodes) {
                    return Ok(None);
                }
            }
            (5, Value::Bytes(bytes)) => {
                let tensor = Tensor::read(bytes)?;
                let wanted = tensors.iter_mut().find(|(name, found)| name.as_bytes() == tensor.name && found.is_none());
                if let Some((_, found)) = wanted {
                    *found = Some(tensor);
                }
            }
            _ => {}
        }
    }
    if nodes != GRAPH {
        return Ok(None);
    }
    let [axis, rows, scales] =
        tensors.map(|(name, found)| found.ok_or_else(|| wrong(format!("initializer '{name}' is missing"))));
    let (axis, rows, scales) = (axis?, rows?, scales?);
    if axis.data != &1i64.to_le_bytes()[..] {
        return Ok(None);
    }
    if rows.kind != INT8 || scales.kind != FLOAT {
        return Err(wrong("the initializers are not int8 rows and float32 scales".into()));
    }
    if (rows.n_dimensions, scales.n_dimensions) != (2, 1) {
        return Err(wrong("the initializers are not rows [n_tokens, dim] and scales [n_tokens]".into()));
    }
    let ([n_rows, dim], n_scales) = (rows.shape, scales.shape[0]);
    let fit = n_rows == n_scales
        && n_rows.checked_mul(dim) == Some(rows.data.len() as u64)
        && n_rows.checked_mul(4) == Some(scales.data.len() as u64);
    if !fit {
        return Err(wrong(format!(
            "rows [{n_rows}, {dim}] and scales [{n_scales}] do not fit each other or their bytes"
        )));
    }
    let weights = scales.data.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    Table::new(Rows::I8(model.slice_ref(rows.data)), dim as usize, weights, None).map(Some)
}

/// Appends a node in the form of [`GRAPH`].
fn describe(node: &[u8], into: &mut String) -> Result<(), Error> {
    let (mut inputs, mut outputs, mut operator, mut rest) =
        (String::new(), String::new(), String::new(), String::new());
    for field in Fields(node) {
        match field? {
            (1, Value::Bytes(name)) => list(name, &mut inputs),
            (2, Value::Bytes(name)) => list(name, &mut outputs),
            (4, Value::Bytes(name)) => operator = String::from_utf8_lossy(name).into_owned(),
            (5, Value::Bytes(attribute)) => describe_attribute(attribute, &mut rest)?,
            // An operator of somebody's own, whatever its name.
            (7, Value::Bytes(domain)) if !domain.is_empty() => rest.push_str(" in another domain"),
            _ => {}
        }
    }
    into.extend([&outputs, " = ", &operator, "(", &inputs, ")", &rest, "\n"]);
    Ok(())
}

fn describe_attribute(attribute: &[u8], into: &mut String) -> Result<(), Error> {
    let (mut name, mut numbers) = (String::new(), String::new());
    for field in Fields(attribute) {
        match field? {
            (1, Value::Bytes(bytes)) => name = String::from_utf8_lossy(bytes).into_owned(),
            (3 | 8, Value::Number(number)) => list(number.cast_signed().to_string().as_bytes(), &mut numbers),
            (8, Value::Bytes(mut packed)) => {
                while !packed.is_empty() {
                    let number = number(&mut packed).ok_or_else(cut_off)?;
                    list(number.cast_signed().to_string().as_bytes(), &mut numbers);
                }
            }
            _ => {}
        }
    }
    into.extend([" ", &name, "=", &numbers]);
    Ok(())
}

fn list(item: &[u8], into: &mut String) {
    if !into.is_empty() {
        into.push_str(", ");
    }
    into.push_str(&String::from_utf8_lossy(item));
}

impl<'a> Tensor<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, Error> {
        let mut tensor = Self::default();
        for field in Fields(bytes) {
            match field? {
                (1, Value::Number(size)) => tensor.add_dimension(size),
                (1, Value::Bytes(mut packed)) => {
                    while !packed.is_empty() {
                        tensor.add_dimension(number(&mut packed).ok_or_else(cut_off)?);
                    }
                }
                (2, Value::Number(kind)) => tensor.kind = kind,
                (8, Value::Bytes(name)) => tensor.name = name,
                (9, Value::Bytes(data)) => tensor.data = data,
                _ => {}
            }
        }
        Ok(tensor)
    }

    fn add_dimension(&mut self, size: u64) {
        if let Some(place) = self.shape.get_mut(self.n_dimensions) {
            *place = size;
        }
        self.n_dimensions += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(tag: u8, bytes: &[u8]) -> Vec<u8> {
        [&[tag << 3 | 2, bytes.len() as u8][..], bytes].concat()
    }

    #[test]
    fn fields_that_are_cut_off_are_refused() {
        for model in [
            &b"\x3a\x05\x0a"[..],
            b"\x3a",
            b"\x3b",
            b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff",
            b"",
            b"\x3a\x01\x09",
        ] {
            let error = read_table(Bytes::copy_from_slice(model)).expect_err("no model").to_string();
            assert!(error.contains("not an ONNX model"), "{error}");
        }
    }

    #[test]
    fn another_graph_is_left_at_its_first_node() {
        // A million nodes that hold nothing would take a hundred megabytes as objects.
        let nodes = b"\x0a\x00".repeat(1 << 20);
        let mut model = vec![0x3a, 0x80, 0x80, 0x80, 0x01];
        model.extend_from_slice(&nodes);
        assert!(read_table(model.into()).expect("a model").is_none());
    }

    #[test]
    fn an_operator_of_another_domain_is_another_graph() {
        let node = |domain: &[u8]| {
            let names =
                [field(1, b"rows"), field(1, b"input_ids"), field(2, b"gather_0"), field(4, b"Gather")].concat();
            let mut text = String::new();
            describe(&[names, field(7, domain)].concat(), &mut text).expect("sound");
            text
        };
        assert!(GRAPH.starts_with(&node(b"")));
        assert!(!GRAPH.starts_with(&node(b"own")));
    }
}
