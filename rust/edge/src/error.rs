//! One error of this crate: what kind, and one line for people.

use centroute_core::error::ErrorKind;

/// Which part of the input is at fault. The numbers are those of the C library.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The bundle: a file is missing, altered or of another version, or it cannot run here.
    Bundle,
    /// The text holds nothing to route on, or the request is not of its form.
    Data,
    /// What the request asks for.
    Policy,
}

/// Bytes of a message.
const LONGEST_MESSAGE: usize = 2000;

/// What went wrong, in one line that names it.
#[derive(Clone, Debug)]
pub struct Error {
    /// The part at fault.
    pub kind: Kind,
    /// One line without a full stop.
    pub message: String,
}

impl Error {
    /// A fault of the bundle.
    pub fn bundle(message: impl Into<String>) -> Self {
        Self { kind: Kind::Bundle, message: one_line(message.into()) }
    }

    /// A fault of the request's text or form.
    pub fn data(message: impl Into<String>) -> Self {
        Self { kind: Kind::Data, message: one_line(message.into()) }
    }
}

impl From<centroute_core::Error> for Error {
    fn from(error: centroute_core::Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::Artifact | ErrorKind::Environment => Kind::Bundle,
            ErrorKind::Data => Kind::Data,
            ErrorKind::Policy => Kind::Policy,
        };
        Self { kind, message: one_line(error.to_string()) }
    }
}

/// One line of a message that repeats what others wrote: control characters are escaped, and the middle is cut out
/// where it is long.
#[must_use]
pub fn one_line(mut message: String) -> String {
    if message.contains(char::is_control) {
        let escaped = |sign: char| if sign.is_control() { sign.escape_default().to_string() } else { sign.into() };
        message = message.chars().map(escaped).collect();
    }
    if message.len() > LONGEST_MESSAGE {
        let (mut end, mut start) = (LONGEST_MESSAGE / 2 - 2, message.len() + 2 - LONGEST_MESSAGE / 2);
        while !message.is_char_boundary(end) {
            end -= 1;
        }
        while !message.is_char_boundary(start) {
            start += 1;
        }
        message.replace_range(end..start, "…");
    }
    message
}

impl std::fmt::Display for Error {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_wrote_stays_on_one_line_and_within_bounds() {
        assert_eq!(Error::data("unknown field `a\nb\u{1b}[2Jé`").message, "unknown field `a\\nb\\u{1b}[2Jé`");
        let long = Error::bundle("é".repeat(10_000)).message;
        assert!(long.len() <= LONGEST_MESSAGE && long.contains("é…é"), "{long}");
    }
}
