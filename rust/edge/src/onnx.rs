//! Graphs of transformer embedders, run by ONNX Runtime. Its shared library is loaded when the first one is opened.

use std::error::Error as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use centroute_embed::external_data::has_external_data;
use ort::LoadDynamicError;
use ort::session::Session;
use ort::value::TensorRef;

use crate::bundle::Bundle;
use crate::embedder::Description;
use crate::error::Error;
use crate::manifest::MODEL;

/// Names the shared library; `ort` gave it its name.
const LIBRARY_VARIABLE: &str = "ORT_DYLIB_PATH";
/// Searched for where the system keeps its libraries.
const LIBRARY: &str = if cfg!(target_vendor = "apple") { "libonnxruntime.dylib" } else { "libonnxruntime.so" };
/// Tells ONNX Runtime to send nothing, and to start no thread for that.
const TELEMETRY_VARIABLE: &str = "ORT_DISABLE_TELEMETRY";
/// How many threads work on one text.
const THREADS_VARIABLE: &str = "CENTROUTE_ONNX_THREADS";
/// How far the norm of a row may be from one.
const NORM_TOLERANCE: f64 = 1e-3;

/// A graph that turns the tokens of a text into its embedding.
#[derive(Debug)]
pub struct Graph {
    /// One text at a time: `ort` does not trust ONNX Runtime with several threads in one session.
    session: Mutex<Session>,
    name: String,
    inputs: [String; 2],
    dim: usize,
}

impl Graph {
    /// Opens the graph of a bundle as the Python package does.
    pub fn open(bundle: &Bundle, description: &Description) -> Result<Self, Error> {
        let Description { name, dim, inputs, output, .. } = description;
        let about = |what: String| Error::bundle(format!("{MODEL}: {what}"));
        // Before it is handed on: nobody knows what ONNX Runtime does with a damaged file.
        bundle.manifest.check(MODEL, &bundle.model)?;
        if has_external_data(&bundle.model).map_err(|error| about(error.to_string()))? {
            return Err(about("keeps its weights in another file; save it with all in one file".into()));
        }
        load_library().map_err(|why| {
            let what = "its graph needs ONNX Runtime, whose shared library cannot be loaded";
            Error::bundle(format!("embedder {name}: {what} ({why}); {LIBRARY_VARIABLE} names its file"))
        })?;
        let session = open_session(&bundle.model, n_threads()?)
            .map_err(|error| about(format!("not a readable ONNX model: {}", first_line(&error))))?;
        let found = [session.inputs(), session.outputs()].map(|outlets| {
            let mut names: Vec<&str> = outlets.iter().map(ort::value::Outlet::name).collect();
            names.sort_unstable();
            names
        });
        let mut wanted = [inputs.each_ref().map(String::as_str).to_vec(), vec![output]];
        wanted[0].sort_unstable();
        if found != wanted {
            return Err(about(format!("inputs and outputs are {found:?}, embedder.json says {wanted:?}")));
        }
        Ok(Self { session: Mutex::new(session), name: name.clone(), inputs: inputs.clone(), dim: *dim })
    }

    /// Width of an embedding.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Runs the graph on the largest token id, so that what does not fit is told now and not with the first text.
    pub fn try_out(&self, n_token_ids: usize) -> Result<(), Error> {
        let about = |what: String| Error::bundle(format!("{MODEL}: {what}"));
        let mut row = vec![0.0; self.dim];
        let last = n_token_ids.saturating_sub(1) as u32;
        self.infer(&[last], &mut row)
            .map_err(|error| about(format!("cannot be run with {n_token_ids} token ids: {}", first_line(&error))))?;
        let norm = row.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
        if norm != 0.0 && (norm - 1.0).abs() > NORM_TOLERANCE {
            return Err(about(format!("its rows have norm {norm:.3}, and not 1")));
        }
        Ok(())
    }

    /// Fills a text's embedding, `[dim]`, from its token ids.
    pub fn run(&self, token_ids: &[u32], embedding: &mut [f32]) -> Result<(), Error> {
        self.infer(token_ids, embedding).map_err(|error| {
            let (name, error) = (&self.name, first_line(&error));
            Error::data(format!("has {} tokens, on which embedder {name} fails: {error}", token_ids.len()))
        })
    }

    fn infer(&self, token_ids: &[u32], embedding: &mut [f32]) -> ort::Result<()> {
        let shape = [1, token_ids.len()];
        let ids: Vec<i64> = token_ids.iter().map(|&id| i64::from(id)).collect();
        let mask = vec![1_i64; ids.len()];
        let [ids_name, mask_name] = &self.inputs;
        let inputs = ort::inputs![
            ids_name.as_str() => TensorRef::from_array_view((shape, ids.as_slice()))?,
            mask_name.as_str() => TensorRef::from_array_view((shape, mask.as_slice()))?,
        ];
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let outputs = session.run(inputs)?;
        let (shape, row) = outputs[0].try_extract_tensor::<f32>()?;
        if **shape != [1, self.dim.cast_signed() as i64] {
            return Err(ort::Error::new(format!("its output is {shape}, expected [1, {}]", self.dim)));
        }
        if row.iter().any(|value| !value.is_finite()) {
            return Err(ort::Error::new("its values are not finite"));
        }
        embedding.copy_from_slice(row);
        Ok(())
    }
}

/// Loads the shared library unless that was done before, or tells why not.
fn load_library() -> Result<(), String> {
    if std::env::var_os(TELEMETRY_VARIABLE).is_none() {
        // SAFETY: nothing of this process that is written in Rust reads the environment without the lock that is taken
        // here. Hosts of the C library are told in `docs/edge.md` to set the variable themselves where they have threads
        // that read the environment meanwhile.
        unsafe { std::env::set_var(TELEMETRY_VARIABLE, "1") };
    }
    let path = std::env::var_os(LIBRARY_VARIABLE).filter(|path| !path.is_empty());
    let path = path.unwrap_or_else(|| LIBRARY.into());
    let environment = ort::init_from(Path::new(&path)).map_err(|error| match error {
        // What the system says is in the error behind.
        LoadDynamicError::Dlopen { error, .. } => error.source().map_or(error.to_string(), ToString::to_string),
        error => error.to_string(),
    })?;
    environment.with_name("centroute").with_telemetry(false).commit();
    Ok(())
}

/// One, as in the Python package, unless the environment says otherwise.
fn n_threads() -> Result<usize, Error> {
    let Some(wanted) = std::env::var_os(THREADS_VARIABLE).filter(|number| !number.is_empty()) else {
        return Ok(1);
    };
    let number = wanted.to_str().and_then(|number| number.parse().ok()).filter(|number| (1..=1024).contains(number));
    number.ok_or_else(|| {
        Error::bundle(format!("{THREADS_VARIABLE}={}: wanted a whole number from 1 to 1024", wanted.display()))
    })
}

/// A session with the settings of `python/centroute/embedders/onnx.py`, so that the rows have the same bits.
fn open_session(model: &[u8], n_threads: usize) -> ort::Result<Session> {
    let mut builder = Session::builder()?
        .with_intra_threads(n_threads)?
        .with_inter_threads(1)?
        .with_intra_op_spinning(false)?
        .with_inter_op_spinning(false)?
        .with_log_level(ort::logging::LogLevel::Fatal)?;
    builder.commit_from_memory(model)
}

fn first_line(error: &ort::Error) -> &str {
    error.message().lines().next().unwrap_or_default()
}
