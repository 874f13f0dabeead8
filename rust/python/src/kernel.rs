//! `Kernel`: a loaded router file; routes one embedding or a batch of them.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use centroute_core::artifact::Surface;
use centroute_core::{
    Artifact, Batch, BatchPolicy, Choice, Error, Isa, PolicySpec, Precision, Router, RowObjectives, Scratch, policy,
};
use centroute_embed::embedder;
use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::{PyDict, PySlice, PyString, PyTuple};

use crate::counters::{Counters, Stage, StageClock, TIME_EVERY};
use crate::decision::{Decision, DecisionBatch, Shared};
use crate::embedder::StaticEmbedder;
use crate::errors::{DataError, PolicyError, raise};
use crate::index::index_tensors;
use crate::policy::Policy;
use crate::text::{utf8, utf8_items};
use crate::threads::{FirstFault, in_parts};

/// Multiplications above which the interpreter lock is released; below, releasing costs more than it gives.
const DETACH_ABOVE: usize = 1 << 20;
/// Rows that a thread takes at a time; fewer would not be worth a further thread.
const ROWS_PER_PART: usize = 768;

/// Bytes of a text above which the interpreter lock is released; below, handing it over costs more than it gives.
const DETACH_ABOVE_BYTES: usize = 384;
/// Texts that a thread takes at a time.
const TEXTS_PER_PART: usize = 48;

/// Buffers of one thread; they fit themselves to the router and the embedder that use them.
#[derive(Default)]
struct Buffers {
    route: Scratch,
    embed: embedder::Scratch,
    /// A text's row, or those of several texts.
    row: Vec<f32>,
    /// Single decisions of this thread.
    n_decisions: u32,
}

impl Buffers {
    /// Whether the next decision is one of those that are timed.
    fn is_timed(&mut self) -> bool {
        self.n_decisions = self.n_decisions.wrapping_add(1);
        self.n_decisions.is_multiple_of(TIME_EVERY)
    }
}

thread_local! {
    static BUFFERS: RefCell<Buffers> = RefCell::default();
}

/// Numbers kernels, so that a policy knows whether it was compiled for this one.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);

type Rows<'py> = PyReadonlyArray<'py, f32, numpy::Ix2>;
type Pair<'py> = (Bound<'py, PyArray2<f32>>, Bound<'py, PyArray2<f32>>);

/// A validated router file, ready to decide. Immutable and shareable between threads.
#[pyclass(frozen, module = "centroute._kernel")]
pub struct Kernel {
    shared: Arc<Shared>,
    default_policy: Arc<policy::Policy>,
    number: u64,
    #[pyo3(get)]
    generation: u64,
    #[pyo3(get)]
    counters: Py<Counters>,
    /// Decisions by model id.
    decided: Box<[Arc<AtomicU64>]>,
}

impl Kernel {
    /// The loaded router.
    pub fn router(&self) -> &Router {
        &self.shared.router
    }

    /// A number that no other kernel of this process has.
    pub fn number(&self) -> u64 {
        self.number
    }

    fn policy(&self, policy: Option<&Policy>) -> PyResult<Arc<policy::Policy>> {
        policy.map_or_else(|| Ok(Arc::clone(&self.default_policy)), |policy| policy.compile(self))
    }

    fn is_heavy(&self, n_queries: usize) -> bool {
        n_queries * self.router().centroids().rows().len() > DETACH_ABOVE
    }

    fn matrix<'py>(&self, embeddings: &Bound<'py, PyAny>) -> PyResult<Rows<'py>> {
        let matrix: Rows<'py> = float32("embeddings", embeddings, "[n, dim]")?;
        self.router().check_dim(matrix.shape()[1]).map_err(raise)?;
        Ok(matrix)
    }

    fn refused(&self, py: Python<'_>, error: &PyErr) {
        self.counters.get().refused(py, error);
    }

    /// Embeds and decides one text, with a clock reading after each stage.
    #[cold]
    fn decide_timed(
        &self,
        embedder: &StaticEmbedder,
        text: &str,
        policy: &policy::Policy,
        buffers: &mut Buffers,
    ) -> Result<Choice, Fault> {
        let Buffers { route, embed, row, .. } = buffers;
        let mut clock = StageClock::start(self.counters.get());
        embedder.0.tokenizer().tokenize(text, &mut embed.tokens);
        clock.end(Stage::Tokenize);
        if !embedder.0.embed_tokens(text, self.surface(), embed, row) {
            return Err(Fault::Text(0));
        }
        clock.end(Stage::Embed);
        let choice = self.router().route(row, policy, route).map_err(Fault::Kernel);
        clock.end(Stage::Kernel);
        choice
    }

    /// Decides all rows, on as many threads as are asked for and worth it.
    fn decide(&self, queries: &[f32], policy: &BatchPolicy<'_>, threads: usize) -> Result<Batch, Error> {
        let (dim, top_p) = (self.router().centroids().dim(), self.router().top_p());
        let mut batch = Batch::new(queries.len() / dim, top_p);
        let mut left = batch.rows(top_p);
        if threads <= 1 || queries.len() <= ROWS_PER_PART * dim {
            BUFFERS.with_borrow_mut(|buffers| {
                self.router().route_batch(queries, 0, policy, &mut left, &mut buffers.route)
            })?;
            return Ok(batch);
        }
        let mut parts = Vec::with_capacity(queries.len().div_ceil(ROWS_PER_PART * dim));
        for (part, queries) in queries.chunks(ROWS_PER_PART * dim).enumerate() {
            let (rows, rest) = left.split_at(queries.len() / dim);
            left = rest;
            parts.push((part * ROWS_PER_PART, queries, rows));
        }
        // What a row becomes does not depend on who decides it.
        let fault = FirstFault::new();
        in_parts(parts.into_iter(), threads, Scratch::default, |scratch, (first_row, queries, mut rows)| {
            if let Err(error) = self.router().route_batch(queries, first_row, policy, &mut rows, scratch) {
                fault.keep(first_row, error);
            }
        });
        fault.into_result().map(|()| batch)
    }

    /// Embeds and decides all texts, part by part, so that a part's rows are still at hand when they are decided.
    fn decide_texts(
        &self,
        embedder: &StaticEmbedder,
        texts: &[PyBackedStr],
        policy: &BatchPolicy<'_>,
        threads: usize,
    ) -> Result<Batch, Fault> {
        let top_p = self.router().top_p();
        let mut batch = Batch::new(texts.len(), top_p);
        let mut left = batch.rows(top_p);
        let mut parts = Vec::with_capacity(texts.len().div_ceil(TEXTS_PER_PART));
        for (part, texts) in texts.chunks(TEXTS_PER_PART).enumerate() {
            let (rows, rest) = left.split_at(texts.len());
            left = rest;
            parts.push((part * TEXTS_PER_PART, texts, rows));
        }
        let fault = FirstFault::new();
        in_parts(parts.into_iter(), threads, Buffers::default, |buffers, (first_row, texts, mut rows)| {
            let done = self.embed_part(embedder, texts, first_row, buffers).and_then(|()| {
                let Buffers { route, row: queries, .. } = buffers;
                self.router().route_batch(queries, first_row, policy, &mut rows, route).map_err(Fault::Kernel)
            });
            if let Err(error) = done {
                fault.keep(first_row, error);
            }
        });
        fault.into_result().map(|()| batch)
    }

    /// Embeds texts into the buffers' row, one after another; the first of them is number `first_row`.
    fn embed_part(
        &self,
        embedder: &StaticEmbedder,
        texts: &[PyBackedStr],
        first_row: usize,
        buffers: &mut Buffers,
    ) -> Result<(), Fault> {
        let Buffers { embed, row: rows, .. } = buffers;
        rows.resize(texts.len() * self.dim(), 0.0);
        for (place, (text, row)) in texts.iter().zip(rows.chunks_exact_mut(self.dim())).enumerate() {
            if !embedder.0.embed(text, self.surface(), embed, row) {
                return Err(Fault::Text(first_row + place));
            }
        }
        Ok(())
    }

    fn surface(&self) -> Option<&Surface> {
        self.router().artifact().metadata.embedder.surface_features.as_ref()
    }

    fn check_embedder(&self, embedder: &StaticEmbedder) -> PyResult<()> {
        let behind = self.surface().map_or(0, Surface::n_features);
        self.router().check_dim(embedder.0.dim() + behind).map_err(raise)
    }

    /// The policy of a batch whose rows may have objectives and masks of their own, handed to `decide`.
    fn with_row_policies<R>(
        &self,
        n_queries: usize,
        policy: Option<&Policy>,
        own: &RowArguments<'_, '_>,
        decide: impl FnOnce(&BatchPolicy<'_>) -> PyResult<R>,
    ) -> PyResult<R> {
        let alpha = own.alpha.map(|values| row_numbers("alpha", values, n_queries)).transpose()?;
        let amounts =
            own.willingness_to_pay.map(|values| row_numbers("willingness_to_pay", values, n_queries)).transpose()?;
        let allow = own.allow.map(|values| row_masks(values, [n_queries, self.shared.names.len()])).transpose()?;
        let objectives = match (&alpha, &amounts) {
            (Some(_), Some(_)) => return Err(raise(Error::PolicyConflict("alpha", "willingness_to_pay"))),
            (Some(values), None) => Some(RowObjectives::Alpha(values.as_slice()?)),
            (None, Some(values)) => Some(RowObjectives::WillingnessToPay(values.as_slice()?)),
            (None, None) => None,
        };
        let policy = match (policy, objectives) {
            (policy, None) => self.policy(policy)?,
            // The rows' own objective decides which costs must be known.
            (policy, Some(objectives)) => {
                let spec = policy.map(|policy| policy.spec().clone()).unwrap_or_default();
                Arc::new(self.router().compile(&objectives.over(spec).map_err(raise)?).map_err(raise)?)
            }
        };
        let allowed = allow.as_ref().map(PyReadonlyArray::as_slice).transpose()?;
        decide(&BatchPolicy { policy: &policy, objectives, allowed })
    }
}

/// What the rows of a batch ask for by themselves, as it comes from Python.
struct RowArguments<'a, 'py> {
    alpha: Option<&'a Bound<'py, PyAny>>,
    willingness_to_pay: Option<&'a Bound<'py, PyAny>>,
    allow: Option<&'a Bound<'py, PyAny>>,
}

/// Why texts were not decided.
enum Fault {
    /// The text of this index holds nothing that the embedder knows.
    Text(usize),
    /// The kernel refused.
    Kernel(Error),
}

#[pymethods]
impl Kernel {
    #[new]
    #[pyo3(signature = (data, *, generation=1, precision=None, counters=None))]
    fn new(
        py: Python<'_>,
        data: &[u8],
        generation: u64,
        precision: Option<&str>,
        counters: Option<Py<Counters>>,
    ) -> PyResult<Self> {
        let search = precision
            .map(|name| {
                Precision::from_name(name).ok_or_else(|| {
                    PyValueError::new_err(format!("precision '{name}': wanted one of 'f32', 'f16', 'i8'"))
                })
            })
            .transpose()?;
        let isa = Isa::from_environment().map_err(raise)?;
        let router = py.detach(|| Router::new(Artifact::from_bytes(data)?, search, isa)).map_err(raise)?;
        let default_policy = Arc::new(router.compile(&PolicySpec::default()).map_err(raise)?);
        let names = &router.artifact().metadata.models;
        let counters = counters.map_or_else(|| Py::new(py, Counters::default()), Ok)?;
        let decided = names.iter().map(|model| counters.get().of_model(&model.name)).collect();
        let names = names.iter().map(|model| PyString::new(py, &model.name).unbind()).collect();
        let shared = Arc::new(Shared { router, names });
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        Ok(Self { shared, default_policy, number, generation, counters, decided })
    }

    /// Names of the pool, in the order of the table columns.
    #[getter]
    fn models<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.shared.names.iter().map(|name| name.bind(py)))
    }

    #[getter]
    fn n_clusters(&self) -> usize {
        self.router().centroids().n_clusters()
    }

    #[getter]
    fn dim(&self) -> usize {
        self.router().centroids().dim()
    }

    #[getter]
    fn top_p(&self) -> usize {
        self.router().top_p()
    }

    #[getter]
    fn beta(&self) -> f32 {
        self.router().artifact().metadata.beta
    }

    /// Name of the instruction set in use.
    #[getter]
    fn simd(&self) -> &'static str {
        self.router().centroids().isa().name()
    }

    /// Precision in which one query is searched.
    #[getter]
    fn precision(&self) -> &'static str {
        self.router().centroids().precision().name()
    }

    /// Whether an index is searched, and not all centroids.
    #[getter]
    fn is_indexed(&self) -> bool {
        self.router().centroids().is_indexed()
    }

    /// How the file stores the centroids.
    #[getter]
    fn stored_precision(&self) -> &'static str {
        self.router().artifact().precision.name()
    }

    /// Name, dim and fingerprint (`None` for embeddings from outside) of the embedder it was fitted on.
    #[getter]
    fn embedder(&self) -> (&str, usize, Option<&str>) {
        let embedder = &self.router().artifact().metadata.embedder;
        (&embedder.name, embedder.dim, embedder.fingerprint.as_deref())
    }

    /// The metadata JSON as it stands in the file.
    #[getter]
    fn metadata_json(&self) -> &str {
        &self.router().artifact().metadata_json
    }

    /// Copies of the tensors by name, float32; those of an index, where there is one, together under `index`.
    fn tensors<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (artifact, centroids) = (self.router().artifact(), self.router().centroids());
        let cells = [centroids.n_clusters(), artifact.n_models()];
        let tensors = PyDict::new(py);
        let add = |name: &str, values: &[f32], shape: [usize; 2]| {
            tensors.set_item(name, PyArray1::from_slice(py, values).reshape(shape)?)
        };
        add("centroids", centroids.rows(), [centroids.n_clusters(), centroids.dim()])?;
        add("quality", &artifact.quality.cells, cells)?;
        add("cost", &artifact.cost.cells, cells)?;
        add("count", &artifact.count, cells)?;
        if let Some(errors) = &artifact.quality_se {
            add("quality_se", errors, cells)?;
        }
        add("frontier", artifact.frontier.as_flattened(), [artifact.frontier.len(), 3])?;
        if let Some(pairs) = &artifact.pairs {
            let (values, n_points) = (pairs.points().as_flattened(), pairs.n_points());
            let shape = [pairs.points().len() / n_points, n_points, values.len() / pairs.points().len()];
            tensors.set_item("pairs", PyArray1::from_slice(py, values).reshape(shape)?)?;
        }
        if let Some(parts) = &artifact.index {
            tensors.set_item("index", index_tensors(py, parts, centroids.dim())?)?;
        }
        tensors.set_item("prior_quality", PyArray1::from_slice(py, &artifact.quality.prior))?;
        tensors.set_item("prior_cost", PyArray1::from_slice(py, &artifact.cost.prior))?;
        Ok(tensors)
    }

    /// Decides one embedding, float32 `[dim]`.
    #[pyo3(signature = (embedding, policy=None))]
    fn route(&self, embedding: &Bound<'_, PyAny>, policy: Option<&Policy>) -> PyResult<Decision> {
        let array = embedding.cast::<PyArray1<f32>>().ok().filter(|array| array.is_c_contiguous());
        let array = array.ok_or_else(|| refuse("embedding", embedding, "[dim]"))?;
        let refused = |error: &PyErr| self.refused(embedding.py(), error);
        let policy = self.policy(policy).inspect_err(refused)?;
        // SAFETY: the array is contiguous, and nothing writes to it meanwhile: the interpreter lock is held until the
        // slice is gone. Counting the borrow, as for batches, would take 4 % of the decision.
        let query = unsafe { array.as_slice() }?;
        BUFFERS.with_borrow_mut(|buffers| {
            let mut clock = buffers.is_timed().then(|| StageClock::start(self.counters.get()));
            let scratch = &mut buffers.route;
            let choice = self.router().route(query, &policy, scratch).map_err(raise).inspect_err(refused)?;
            if let Some(clock) = &mut clock {
                clock.end(Stage::Kernel);
            }
            self.counters.get().count(&choice, &policy, &self.decided);
            Ok(Decision::new(Arc::clone(&self.shared), policy, choice, scratch, self.generation))
        })
    }

    /// Decides every row of float32 `[n, dim]`.
    ///
    /// `alpha` or `willingness_to_pay`, float32 `[n]`, take the place of the policy's objective row by row;
    /// `allow`, bool `[n, n_models]`, limits each row further.
    #[pyo3(signature = (embeddings, policy=None, *, alpha=None, willingness_to_pay=None, allow=None, threads=1))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of the binding")]
    fn route_batch(
        &self,
        py: Python<'_>,
        embeddings: &Bound<'_, PyAny>,
        policy: Option<&Policy>,
        alpha: Option<&Bound<'_, PyAny>>,
        willingness_to_pay: Option<&Bound<'_, PyAny>>,
        allow: Option<&Bound<'_, PyAny>>,
        threads: usize,
    ) -> PyResult<DecisionBatch> {
        let embeddings = self.matrix(embeddings)?;
        let n_queries = embeddings.shape()[0];
        let queries = embeddings.as_slice()?;
        let own = RowArguments { alpha, willingness_to_pay, allow };
        let batch = self.with_row_policies(n_queries, policy, &own, |policy| {
            let decide = || self.decide(queries, policy, threads);
            let batch = if self.is_heavy(n_queries) { py.detach(decide) } else { decide() }.map_err(raise)?;
            self.counters.get().count_batch(&batch, policy.policy, &self.decided);
            Ok(batch)
        });
        let batch = batch.inspect_err(|error| self.refused(py, error))?;
        DecisionBatch::new(py, Arc::clone(&self.shared), batch, self.generation)
    }

    /// Decides one text; the interpreter lock is released while a longer one is embedded.
    #[pyo3(signature = (embedder, text, policy=None))]
    fn route_text(
        &self,
        py: Python<'_>,
        embedder: &StaticEmbedder,
        text: &Bound<'_, PyString>,
        policy: Option<&Policy>,
    ) -> PyResult<Decision> {
        self.check_embedder(embedder)?;
        let policy = self.policy(policy).inspect_err(|error| self.refused(py, error))?;
        let utf8 = &utf8(text)?;
        BUFFERS.with_borrow_mut(|buffers| {
            buffers.row.resize(self.dim(), 0.0);
            let is_timed = buffers.is_timed();
            let mut decide = || {
                if is_timed {
                    return self.decide_timed(embedder, utf8, &policy, buffers);
                }
                let Buffers { route, embed, row, .. } = &mut *buffers;
                if embedder.0.embed(utf8, self.surface(), embed, row) {
                    self.router().route(row, &policy, route).map_err(Fault::Kernel)
                } else {
                    Err(Fault::Text(0))
                }
            };
            let choice = if utf8.len() > DETACH_ABOVE_BYTES { py.detach(decide) } else { decide() };
            match choice {
                Ok(choice) => {
                    self.counters.get().count(&choice, &policy, &self.decided);
                    Ok(Decision::new(Arc::clone(&self.shared), policy, choice, &buffers.route, self.generation))
                }
                Err(fault) => {
                    let error = match fault {
                        Fault::Text(_) => unroutable(0, text),
                        Fault::Kernel(error) => raise(error),
                    };
                    self.refused(py, &error);
                    Err(error)
                }
            }
        })
    }

    /// Decides a sequence of texts, with the interpreter lock released. The rows' own arguments are those of `route_batch`.
    #[pyo3(signature = (embedder, texts, policy=None, *, alpha=None, willingness_to_pay=None, allow=None, threads=1))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of the binding")]
    fn route_texts(
        &self,
        py: Python<'_>,
        embedder: &StaticEmbedder,
        texts: &Bound<'_, PyAny>,
        policy: Option<&Policy>,
        alpha: Option<&Bound<'_, PyAny>>,
        willingness_to_pay: Option<&Bound<'_, PyAny>>,
        allow: Option<&Bound<'_, PyAny>>,
        threads: usize,
    ) -> PyResult<DecisionBatch> {
        self.check_embedder(embedder)?;
        let strings = utf8_items(texts)?;
        let own = RowArguments { alpha, willingness_to_pay, allow };
        let batch = self.with_row_policies(strings.len(), policy, &own, |policy| {
            match py.detach(|| self.decide_texts(embedder, &strings, policy, threads)) {
                Ok(batch) => {
                    self.counters.get().count_batch(&batch, policy.policy, &self.decided);
                    Ok(batch)
                }
                Err(Fault::Text(index)) => Err(unroutable(index, texts.get_item(index)?.cast::<PyString>()?)),
                Err(Fault::Kernel(error)) => Err(raise(error)),
            }
        });
        let batch = batch.inspect_err(|error| self.refused(py, error))?;
        DecisionBatch::new(py, Arc::clone(&self.shared), batch, self.generation)
    }

    /// Nanoseconds that one text takes to be tokenized, embedded and decided, each with a clock reading.
    #[pyo3(signature = (embedder, text, policy=None))]
    fn time_stages(&self, embedder: &StaticEmbedder, text: &str, policy: Option<&Policy>) -> PyResult<(u64, u64, u64)> {
        self.check_embedder(embedder)?;
        let policy = self.policy(policy)?;
        BUFFERS.with_borrow_mut(|buffers| {
            let Buffers { route, embed, row, .. } = buffers;
            row.resize(self.dim(), 0.0);
            let started = Instant::now();
            embedder.0.tokenizer().tokenize(text, &mut embed.tokens);
            let tokenized = Instant::now();
            embedder.0.embed_tokens(text, self.surface(), embed, row);
            let embedded = Instant::now();
            self.router().route(row, &policy, route).map_err(raise)?;
            let decided = Instant::now();
            let nanoseconds = |from: Instant, to: Instant| to.duration_since(from).as_nanos() as u64;
            Ok((nanoseconds(started, tokenized), nanoseconds(tokenized, embedded), nanoseconds(embedded, decided)))
        })
    }

    /// Name, weight, means and scales of the surface features behind the embeddings, `None` without any.
    #[getter]
    fn surface_features(&self) -> Option<(&str, f64, Vec<f64>, Vec<f64>)> {
        self.surface()
            .map(|surface| (surface.name.as_str(), surface.weight, surface.mean.clone(), surface.scale.clone()))
    }

    /// Predicted quality and cost of every model for every row of float32 `[n, dim]`: two arrays `[n, n_models]`.
    fn predict<'py>(&self, py: Python<'py>, embeddings: &Bound<'py, PyAny>) -> PyResult<Pair<'py>> {
        let embeddings = self.matrix(embeddings)?;
        let queries = embeddings.as_slice()?;
        let shape = [embeddings.shape()[0], self.shared.names.len()];
        let (mut quality, mut cost) = (vec![0.0; shape[0] * shape[1]], vec![0.0; shape[0] * shape[1]]);
        let mut predict = || {
            BUFFERS.with_borrow_mut(|buffers| {
                self.router().predict_batch(queries, &mut quality, &mut cost, &mut buffers.route)
            })
        };
        if self.is_heavy(shape[0]) { py.detach(predict) } else { predict() }.map_err(raise)?;
        Ok((quality.into_pyarray(py).reshape(shape)?, cost.into_pyarray(py).reshape(shape)?))
    }
}

/// Name of the instruction set that new kernels use: the widest of this machine, or what `CENTROUTE_SIMD` names.
#[pyfunction]
pub fn simd() -> PyResult<&'static str> {
    Isa::from_environment().map(Isa::name).map_err(raise)
}

/// A text without anything that the embedder knows: shown in part, as it may be long.
#[cold]
fn unroutable(index: usize, text: &Bound<'_, PyString>) -> PyErr {
    let describe = || -> PyResult<String> {
        let is_blank = text.call_method0("strip")?.len()? == 0;
        let holds = if is_blank { "only spaces or nothing" } else { "nothing that the embedder knows" };
        let start = text.as_any().get_item(PySlice::new(text.py(), 0, 80, 1))?.repr()?;
        Ok(format!("text {index} holds {holds}: {start}"))
    };
    describe().map_or_else(|error| error, DataError::new_err)
}

/// Numbers of the rows of a batch; their ranges are checked against the same limits as a policy's.
fn row_numbers<'py>(
    field: &'static str,
    values: &Bound<'py, PyAny>,
    n_queries: usize,
) -> PyResult<PyReadonlyArray<'py, f32, numpy::Ix1>> {
    let numbers: PyReadonlyArray<'py, f32, numpy::Ix1> = float32(field, values, "[n]")?;
    if numbers.len() == n_queries {
        return Ok(numbers);
    }
    Err(PolicyError::new_err(format!("{field}: got {} numbers for {n_queries} rows", numbers.len())))
}

fn row_masks<'py>(values: &Bound<'py, PyAny>, shape: [usize; 2]) -> PyResult<PyReadonlyArray<'py, bool, numpy::Ix2>> {
    if let Ok(masks) = values.cast::<PyArray2<bool>>()
        && masks.is_c_contiguous()
        && masks.shape() == shape
        && let Ok(masks) = masks.try_readonly()
    {
        return Ok(masks);
    }
    let got = describe(values);
    Err(PolicyError::new_err(format!("allow: got {got}, wanted a C-contiguous array of bool {shape:?}")))
}

/// A C-contiguous float32 array of the wanted rank without a copy, or an error with what was got and wanted.
pub fn float32<'py, D: numpy::ndarray::Dimension>(
    field: &str,
    value: &Bound<'py, PyAny>,
    wanted: &str,
) -> PyResult<PyReadonlyArray<'py, f32, D>> {
    if let Ok(array) = value.cast::<numpy::PyArray<f32, D>>()
        && array.is_c_contiguous()
        && let Ok(array) = array.try_readonly()
    {
        return Ok(array);
    }
    Err(refuse(field, value, wanted))
}

/// A C-contiguous array of any dtype and the wanted rank without a copy, or an error with what was got and wanted.
pub fn contiguous<'py, T: numpy::Element, D: numpy::ndarray::Dimension>(
    field: &str,
    value: &Bound<'py, PyAny>,
    wanted: &str,
) -> PyResult<PyReadonlyArray<'py, T, D>> {
    if let Ok(array) = value.cast::<numpy::PyArray<T, D>>()
        && array.is_c_contiguous()
        && let Ok(array) = array.try_readonly()
    {
        return Ok(array);
    }
    let got = describe(value);
    Err(DataError::new_err(format!("{field}: got {got}, wanted a C-contiguous array of {wanted}")))
}

#[cold]
fn refuse(field: &str, value: &Bound<'_, PyAny>, wanted: &str) -> PyErr {
    let got = describe(value);
    DataError::new_err(format!("{field}: got {got}, wanted a C-contiguous array of float32 {wanted}"))
}

fn describe(value: &Bound<'_, PyAny>) -> String {
    match value.cast::<PyUntypedArray>() {
        Ok(array) => {
            let order = if array.is_c_contiguous() { "" } else { ", not C-contiguous" };
            format!("an array of {} {:?}{order}", array.dtype(), array.shape())
        }
        Err(_) => value.get_type().to_string(),
    }
}
