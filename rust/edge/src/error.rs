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
        Self { kind: Kind::Bundle, message: message.into() }
    }

    /// A fault of the request's text or form.
    pub fn data(message: impl Into<String>) -> Self {
        Self { kind: Kind::Data, message: message.into() }
    }
}

impl From<centroute_core::Error> for Error {
    fn from(error: centroute_core::Error) -> Self {
        let kind = match error.kind() {
            ErrorKind::Artifact => Kind::Bundle,
            ErrorKind::Data => Kind::Data,
            ErrorKind::Policy => Kind::Policy,
        };
        Self { kind, message: error.to_string() }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
