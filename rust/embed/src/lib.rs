//! Text to embedding without ONNX Runtime.
//!
//! 1. [`tokenizer`]: text to token ids, up to the embedder's maximum; [`prefixed`] puts an embedder's prefix before it,
//! 2. [`table`]: the ids' rows of a static table, summed by weight and brought to norm one,
//! 3. [`surface`]: numbers of the text's form, appended where a router was calibrated with them.
//!
//! [`embedder`] puts them together; [`onnx`] and [`safetensors_table`] read the table from the files that it is
//! published in. Bytes and slices in, no files or threads.

pub mod embedder;
pub mod error;
pub mod external_data;
pub mod onnx;
pub mod prefixed;
pub mod protobuf;
pub mod safetensors_table;
pub mod surface;
pub mod table;
pub mod tokenizer;

pub use embedder::{Scratch, StaticEmbedder};
pub use error::Error;
pub use prefixed::PrefixedTokenizer;
pub use table::Table;
pub use tokenizer::Tokenizer;
