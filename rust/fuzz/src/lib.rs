//! What the fuzz targets do with their bytes, a module a target.
//!
//! The tests `findings` of the crates take the modules in by path and run the inputs of `findings/` through them, so a
//! module uses nothing but the crate that it is about, the crates below that, and [`feed`] and [`made`].

pub mod feed;
pub mod findings;
pub mod made;
pub mod made_bundle;
pub mod made_onnx;

pub mod artifact;
pub mod bundle;
pub mod c_library;
pub mod kernel;
pub mod lines;
pub mod onnx;
pub mod policy;
pub mod surface;
pub mod table;
pub mod tar;
pub mod tokenizer;
pub mod tokenizer_file;

#[path = "../../edge/src/arguments.rs"]
#[allow(dead_code, reason = "the command line itself is not fuzzed")]
mod arguments;
pub mod serve;
// Under the names that `serve.rs` of the command has for them.
pub(crate) use serve::{Fault, complain};
