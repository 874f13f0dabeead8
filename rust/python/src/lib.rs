//! The Python binding: converts, detaches, converts; nothing else is decided here.
//!
//! Embeddings come in without a copy as C-contiguous float32; anything else is refused with what was got and
//! what was wanted. Errors are the classes of `centroute.errors`.

mod counters;
mod decision;
mod embedder;
mod errors;
mod index;
mod kernel;
mod policy;
mod text;
mod threads;

use pyo3::prelude::*;

/// Routing kernel of centroute.
#[pymodule]
mod _kernel {
    #[pymodule_export]
    use super::counters::Counters;
    #[pymodule_export]
    use super::decision::{Decision, DecisionBatch};
    #[pymodule_export]
    use super::embedder::{StaticEmbedder, Tokenizer, surface_features};
    #[pymodule_export]
    use super::index::RowIndex;
    #[pymodule_export]
    use super::kernel::{Kernel, simd};
    #[pymodule_export]
    use super::policy::Policy;

    /// Version of the package, the same as in the wheel's metadata.
    #[pymodule_export]
    #[expect(non_upper_case_globals, reason = "the name that Python expects")]
    const __version__: &str = env!("CARGO_PKG_VERSION");
}
