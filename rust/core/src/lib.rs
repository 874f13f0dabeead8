//! The centroute kernel: artifact bytes and embeddings in, decisions out.
//!
//! Pipeline of one query, each step a module:
//!
//! 1. [`assign`]: the `top_p` nearest centroids and their softmax weights,
//! 2. [`aggregate`]: the score tables blended by those weights,
//! 3. [`decide`]: the policy picks one model.
//!
//! [`alpha`] holds the scores of Avengers-Pro's policy. [`artifact`] validates a router file into tables once; [`policy`] compiles what one request wants
//! against a pool once; [`router`] runs the steps. `python/centroute/_reference.py` is the same in NumPy.
//! No Python, files or threads: this crate does not depend on them.

pub mod aggregate;
pub mod alpha;
pub mod artifact;
pub mod assign;
pub mod batch;
pub mod centroids;
pub mod decide;
pub mod error;
pub mod index;
pub mod pairs;
pub mod policy;
pub mod router;
pub mod simd;
pub mod uncertainty;

pub use artifact::Artifact;
pub use batch::{Batch, BatchPolicy, RowObjectives};
pub use centroids::Precision;
pub use decide::Choice;
pub use error::Error;
pub use index::rows::RowIndex;
pub use policy::{Policy, PolicySpec};
pub use router::{Router, Scratch};
pub use simd::Isa;
