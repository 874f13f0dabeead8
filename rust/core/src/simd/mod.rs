//! The inner loops over floats. Today one portable version; instruction sets stand beside it, one file each.

pub mod serial;

pub use serial::{add_scaled_f32, dot_f32};
