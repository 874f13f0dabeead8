//! A bundle routed without Python: what the command `centroute-edge` and the C library `libcentroute` share.
//!
//! 1. [`bundle`]: a folder or tar file, mapped and checked against its [`manifest`],
//! 2. [`engine`]: router and [`embedder`] put together; texts in, decisions out,
//! 3. [`request`] and [`decision_json`]: lines of text or JSON in, lines of JSON out.
//!
//! [`ffi`] is the C library. All that decides is in `centroute-core` and `centroute-embed`, which the Python package
//! runs too.

pub mod bundle;
pub mod decision_json;
pub mod embedder;
pub mod engine;
pub mod error;
pub mod ffi;
pub mod manifest;
pub mod request;
pub mod tar;

pub use engine::{Buffers, Decision, Engine};
pub use error::{Error, Kind};
