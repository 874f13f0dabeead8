//! The table inside a static embedder's `model.onnx`.
//!
//! `models/export_static.py` writes one graph: gather the int8 rows and their scales by token id, sum under the mask,
//! divide by the norm. Exactly that graph is read here; any other is for ONNX Runtime.

use bytes::Bytes;
use prost::Message;

use crate::error::Error;
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
const FLOAT: i32 = 1;
const INT8: i32 = 3;

// The parts of onnx.proto that are read.
#[derive(Message)]
struct Model {
    #[prost(message, optional, tag = "7")]
    graph: Option<Graph>,
}

#[derive(Message)]
struct Graph {
    #[prost(message, repeated, tag = "1")]
    nodes: Vec<Node>,
    #[prost(message, repeated, tag = "5")]
    initializers: Vec<Tensor>,
}

#[derive(Message)]
struct Node {
    #[prost(string, repeated, tag = "1")]
    inputs: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    outputs: Vec<String>,
    #[prost(string, tag = "4")]
    operator: String,
    #[prost(message, repeated, tag = "5")]
    attributes: Vec<Attribute>,
}

#[derive(Message)]
struct Attribute {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(int64, optional, tag = "3")]
    number: Option<i64>,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    numbers: Vec<i64>,
}

#[derive(Message)]
struct Tensor {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    shape: Vec<i64>,
    #[prost(int32, tag = "2")]
    kind: i32,
    #[prost(string, tag = "8")]
    name: String,
    #[prost(bytes = "bytes", tag = "9")]
    data: Bytes,
}

/// Reads the table of a static embedder, `None` where the graph is another one. The rows stay where they are in `model`.
pub fn read_table(model: Bytes) -> Result<Option<Table>, Error> {
    let wrong = |what: String| Error::Table(what);
    let model = Model::decode(model).map_err(|error| wrong(format!("not an ONNX model ({error})")))?;
    let graph = model.graph.ok_or_else(|| wrong("not an ONNX model (it has no graph)".into()))?;
    if describe(&graph.nodes) != GRAPH {
        return Ok(None);
    }
    let tensor = |name: &str| {
        let found = graph.initializers.iter().find(|tensor| tensor.name == name);
        found.ok_or_else(|| wrong(format!("initializer '{name}' is missing")))
    };
    if tensor("middle_axis")?.data[..] != 1i64.to_le_bytes() {
        return Ok(None);
    }
    let (rows, scales) = (tensor("rows")?, tensor("scales")?);
    if rows.kind != INT8 || scales.kind != FLOAT {
        return Err(wrong("the initializers are not int8 rows and float32 scales".into()));
    }
    let sizes: Option<Vec<usize>> =
        rows.shape.iter().chain(&scales.shape).map(|&size| usize::try_from(size).ok()).collect();
    let Some(&[n_rows, dim, n_scales]) = sizes.as_deref() else {
        return Err(wrong("the initializers are not rows [n_tokens, dim] and scales [n_tokens]".into()));
    };
    let fit = n_rows == n_scales
        && n_rows.checked_mul(dim) == Some(rows.data.len())
        && n_rows.checked_mul(4) == Some(scales.data.len());
    if !fit {
        return Err(wrong(format!(
            "rows [{n_rows}, {dim}] and scales [{n_scales}] do not fit each other or their bytes"
        )));
    }
    let weights = scales.data.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
    Table::new(Rows::I8(rows.data.clone()), dim, weights, None).map(Some)
}

/// The nodes in the form of [`GRAPH`].
fn describe(nodes: &[Node]) -> String {
    let line = |node: &Node| {
        let Node { inputs, outputs, operator, attributes } = node;
        let attributes: String = attributes.iter().map(attribute).collect();
        format!("{} = {operator}({}){attributes}\n", outputs.join(", "), inputs.join(", "))
    };
    nodes.iter().map(line).collect()
}

fn attribute(Attribute { name, number, numbers }: &Attribute) -> String {
    let numbers: Vec<String> = number.iter().chain(numbers).map(i64::to_string).collect();
    format!(" {name}={}", numbers.join(","))
}
