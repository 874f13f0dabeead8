//! Kernel errors as the classes of `centroute.errors`.

use centroute_core::Error;
use centroute_core::error::ErrorKind;
use pyo3::PyErr;
use pyo3::exceptions::PyValueError;

pyo3::import_exception!(centroute.errors, ArtifactError);
pyo3::import_exception!(centroute.errors, DataError);
pyo3::import_exception!(centroute.errors, EmbedderError);
pyo3::import_exception!(centroute.errors, PolicyError);

/// The Python exception for a kernel error.
#[expect(clippy::needless_pass_by_value, reason = "the shape that map_err wants")]
pub fn raise(error: Error) -> PyErr {
    let message = error.to_string();
    match error.kind() {
        ErrorKind::Artifact => ArtifactError::new_err(message),
        ErrorKind::Data => DataError::new_err(message),
        ErrorKind::Policy => PolicyError::new_err(message),
        ErrorKind::Environment => PyValueError::new_err(message),
    }
}
