//! Protobuf messages read in place: nothing is copied, whatever they claim.

use crate::error::Error;

/// The fields of a protobuf message: their numbers and values.
pub struct Fields<'a>(pub &'a [u8]);

/// The value of a field.
pub enum Value<'a> {
    /// Of a varint.
    Number(u64),
    /// A message, text or packed numbers.
    Bytes(&'a [u8]),
    /// A float of either width.
    Other,
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        Some(self.read().ok_or_else(cut_off))
    }
}

impl<'a> Fields<'a> {
    fn read(&mut self) -> Option<(u64, Value<'a>)> {
        let key = number(&mut self.0)?;
        let value = match key & 7 {
            0 => Value::Number(number(&mut self.0)?),
            1 => self.take(8).map(|_| Value::Other)?,
            2 => {
                let length = number(&mut self.0)?.try_into().ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Other)?,
            _ => return None,
        };
        Some((key >> 3, value))
    }

    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }
}

/// A number of seven bits a byte, taken from the front.
pub fn number(bytes: &mut &[u8]) -> Option<u64> {
    let mut number = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(number);
        }
    }
    None
}

/// What is said of bytes that are no message.
#[must_use]
pub fn cut_off() -> Error {
    Error::Table("not an ONNX model (a field is cut off, or of a kind that ONNX does not have)".into())
}
