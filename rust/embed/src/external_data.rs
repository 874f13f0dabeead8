//! Whether a graph keeps weights in other files, which the fingerprint of an embedder would not cover.
//!
//! `python/centroute/embedders/external_data.py` does the same.

use crate::error::Error;
use crate::protobuf::{Fields, Value};

/// Deepest nesting of messages; protobuf's own readers go no deeper either.
const DEEPEST: usize = 100;

/// The messages of onnx.proto in which there can be a tensor.
#[derive(Clone, Copy)]
enum Message {
    Model,
    Training,
    Function,
    Graph,
    Node,
    Attribute,
    Sparse,
    Tensor,
}

impl Message {
    /// What is in a field of this message; `None` where there can be no tensor.
    fn of_field(self, field: u64) -> Option<Self> {
        Some(match (self, field) {
            (Self::Model, 7) | (Self::Training, 1 | 2) | (Self::Attribute, 6 | 11) => Self::Graph,
            (Self::Model, 20) => Self::Training,
            (Self::Model, 25) => Self::Function,
            (Self::Graph, 1) | (Self::Function, 7) => Self::Node,
            (Self::Node, 5) | (Self::Function, 11) => Self::Attribute,
            (Self::Graph, 5) | (Self::Attribute, 5 | 10) | (Self::Sparse, 1 | 2) => Self::Tensor,
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Self::Sparse,
            _ => return None,
        })
    }
}

/// Whether a tensor anywhere in a graph says that its values are in another file.
pub fn has_external_data(model: &[u8]) -> Result<bool, Error> {
    is_external(Message::Model, model, 0)
}

fn is_external(message: Message, bytes: &[u8], depth: usize) -> Result<bool, Error> {
    if depth > DEEPEST {
        return Err(Error::Table(format!("not an ONNX model (nested more than {DEEPEST} deep)")));
    }
    for field in Fields(bytes) {
        let found = match (message, field?) {
            // Names and offsets of the file; and the place of the values, of which 1 is a file.
            (Message::Tensor, (13, Value::Bytes(_))) => true,
            (Message::Tensor, (14, Value::Number(place))) => place != 0,
            (_, (number, Value::Bytes(inner))) => match message.of_field(number) {
                Some(kind) => is_external(kind, inner, depth + 1)?,
                None => false,
            },
            _ => false,
        };
        if found {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
        let key = u16::from(number) << 3 | 2;
        let mut message = if key < 128 { vec![key as u8] } else { vec![key as u8 | 128, (key >> 7) as u8] };
        let length = bytes.len();
        message.extend([length as u8 & 127 | 128, (length >> 7) as u8]);
        message.extend(bytes);
        message
    }

    #[test]
    fn a_tensor_in_another_file_is_found_wherever_it_stands() {
        let tensor = field(13, b"location");
        let ways: [&[u8]; 6] =
            [&[5, 7], &[1, 2, 20], &[5, 5, 1, 7], &[5, 6, 5, 1, 7], &[10, 11, 25], &[1, 22, 5, 1, 7]];
        for way in ways {
            let model = way.iter().fold(tensor.clone(), |inner, &number| field(number, &inner));
            let is_known = !matches!(way, [1, 2, 20]);
            assert_eq!(has_external_data(&model).ok(), Some(is_known), "{way:?}");
        }
        let in_place = field(7, &field(5, &field(9, b"values")));
        assert_eq!(has_external_data(&in_place).ok(), Some(false));
    }

    #[test]
    fn nesting_without_end_and_cut_off_fields_are_refused() {
        let deep = (0..150).fold(Vec::new(), |inner, level| field([6, 5, 1][level % 3], &inner));
        assert!(has_external_data(&field(7, &deep)).is_err());
        assert!(has_external_data(b"\x3a\x05\x0a").is_err());
    }
}
