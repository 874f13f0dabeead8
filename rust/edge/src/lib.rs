//! A bundle routed without Python: what the command `centroute-edge` and the C library `libcentroute` share.
//!
//! 1. [`bundle`]: a folder or tar file, mapped and checked against its [`manifest`],
//! 2. [`engine`]: router and [`embedder`] put together; texts in, decisions out,
//! 3. [`request`] and [`decision_json`]: lines of text or JSON in, lines of JSON out.
//!
//! With the feature `onnxruntime`, [`onnx`] runs the graphs of embedders that are no tables. [`ffi`] is the C library. All that decides is in `centroute-core` and `centroute-embed`, which the Python package
//! runs too.

pub mod bundle;
pub mod decision_json;
pub mod embedder;
pub mod engine;
pub mod error;
pub mod ffi;
pub mod manifest;
#[cfg_attr(not(feature = "onnxruntime"), path = "without_onnx.rs")]
pub mod onnx;
pub mod request;
pub mod tar;

pub use engine::{Buffers, Decision, Engine};
pub use error::{Error, Kind};
