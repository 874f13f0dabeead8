//! What stands for `onnx.rs` in a build without ONNX Runtime: no graph can be opened.

use std::convert::Infallible;

use crate::bundle::Bundle;
use crate::embedder::Description;
use crate::error::Error;

/// A graph that there is none of.
#[derive(Debug)]
pub struct Graph(Infallible);

impl Graph {
    /// Refuses it.
    pub fn open(_: &Bundle, description: &Description) -> Result<Self, Error> {
        Err(Error::bundle(format!(
            "embedder {}: its graph needs ONNX Runtime, which this build does not have (feature onnxruntime); \
             use a static embedder",
            description.name
        )))
    }

    /// Never called.
    #[must_use]
    pub fn dim(&self) -> usize {
        match self.0 {}
    }

    /// Never called.
    pub fn try_out(&self, _: usize) -> Result<(), Error> {
        match self.0 {}
    }

    /// Never called.
    pub fn run(&self, _: &[u32], _: &mut [f32]) -> Result<(), Error> {
        match self.0 {}
    }
}
