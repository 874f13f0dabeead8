//! The graph of a static embedder, written as protobuf by hand so that any part of it can be wrong.

/// What stands in the file.
pub struct Graph {
    rows: Vec<u8>,
    /// Shape of the rows.
    pub row_shape: [i64; 2],
    /// One a row.
    pub scales: Vec<f32>,
    /// Data type of the rows; 3 is int8.
    pub kind: u8,
    /// Bytes that stand behind the rest.
    pub extra: Vec<u8>,
}

/// Output, inputs, operator and attributes.
type Node = (&'static str, &'static [&'static str], &'static str, &'static [(&'static str, i64)]);

const NODES: [Node; 11] = [
    ("gather_0", &["rows", "input_ids"], "Gather", &[]),
    ("cast_1", &["gather_0"], "Cast", &[("to", 1)]),
    ("gather_2", &["scales", "input_ids"], "Gather", &[]),
    ("cast_3", &["attention_mask"], "Cast", &[("to", 1)]),
    ("mul_4", &["gather_2", "cast_3"], "Mul", &[]),
    ("unsqueeze_5", &["mul_4", "middle_axis"], "Unsqueeze", &[]),
    ("matmul_6", &["unsqueeze_5", "cast_1"], "MatMul", &[]),
    ("squeeze_7", &["matmul_6", "middle_axis"], "Squeeze", &[]),
    ("reducel2_8", &["squeeze_7"], "ReduceL2", &[("axes", 1), ("keepdims", 1)]),
    ("max_9", &["reducel2_8", "norm_floor"], "Max", &[]),
    ("embedding", &["squeeze_7", "max_9"], "Div", &[]),
];

impl Graph {
    /// Whole rows of `dim` bytes, all of one scale.
    pub fn new(bytes: &[u8], dim: usize, scale: f32) -> Self {
        let n_rows = bytes.len() / dim;
        Self {
            rows: bytes[..n_rows * dim].to_vec(),
            row_shape: [n_rows.cast_signed() as i64, dim.cast_signed() as i64],
            scales: vec![scale; n_rows],
            kind: 3,
            extra: Vec::new(),
        }
    }

    /// The file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut graph = Vec::new();
        for (output, inputs, operator, attributes) in NODES {
            let mut node = Vec::new();
            for input in inputs {
                field(1, input.as_bytes(), &mut node);
            }
            field(2, output.as_bytes(), &mut node);
            field(4, operator.as_bytes(), &mut node);
            for &(name, number) in attributes {
                let mut attribute = Vec::new();
                field(1, name.as_bytes(), &mut attribute);
                // The exporter writes axes as a list.
                tagged(if name == "axes" { 8 } else { 3 }, 0, number.cast_unsigned(), &mut attribute);
                field(5, &attribute, &mut node);
            }
            field(1, &node, &mut graph);
        }
        let n_scales = [self.scales.len().cast_signed() as i64];
        let scales: Vec<u8> = self.scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
        for (name, kind, shape, data) in [
            ("rows", self.kind, &self.row_shape[..], &self.rows[..]),
            ("scales", 1, &n_scales, &scales),
            ("middle_axis", 7, &[1], &1i64.to_le_bytes()),
            ("norm_floor", 1, &[], &1e-12f32.to_le_bytes()),
        ] {
            let mut tensor = Vec::new();
            for &size in shape {
                tagged(1, 0, size.cast_unsigned(), &mut tensor);
            }
            tagged(2, 0, kind.into(), &mut tensor);
            field(8, name.as_bytes(), &mut tensor);
            field(9, data, &mut tensor);
            field(5, &tensor, &mut graph);
        }
        graph.extend_from_slice(&self.extra);
        let mut model = Vec::new();
        field(7, &graph, &mut model);
        model
    }
}

fn field(tag: u64, bytes: &[u8], into: &mut Vec<u8>) {
    tagged(tag, 2, bytes.len() as u64, into);
    into.extend_from_slice(bytes);
}

fn tagged(tag: u64, kind: u64, value: u64, into: &mut Vec<u8>) {
    for mut number in [tag << 3 | kind, value] {
        while number >= 0x80 {
            into.push(number as u8 | 0x80);
            number >>= 7;
        }
        into.push(number as u8);
    }
}
