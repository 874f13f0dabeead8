//! `Kernel`: a loaded router file; routes one embedding or a batch of them.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use centroute_core::{
    Artifact, Batch, BatchPolicy, Error, Isa, PolicySpec, Precision, Router, RowObjectives, Scratch, policy,
};
use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::decision::{Decision, DecisionBatch, Pool};
use crate::errors::{DataError, PolicyError, raise};
use crate::policy::Policy;

/// Multiplications above which the interpreter lock is released; below, releasing costs more than it gives.
const DETACH_ABOVE: usize = 1 << 20;
/// Rows that a thread takes at a time; fewer would not be worth a further thread.
const ROWS_PER_PART: usize = 768;

thread_local! {
    /// Buffers of this thread; they fit themselves to the router that uses them.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Numbers kernels, so that a policy knows whether it was compiled for this one.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);

type Rows<'py> = PyReadonlyArray<'py, f32, numpy::Ix2>;
type Pair<'py> = (Bound<'py, PyArray2<f32>>, Bound<'py, PyArray2<f32>>);

/// A validated router file, ready to decide. Immutable and shareable between threads.
#[pyclass(frozen, module = "centroute._kernel")]
pub struct Kernel {
    router: Router,
    default_policy: Arc<policy::Policy>,
    pool: Pool,
    number: u64,
    #[pyo3(get)]
    generation: u64,
}

impl Kernel {
    /// The loaded router.
    pub fn router(&self) -> &Router {
        &self.router
    }

    /// A number that no other kernel of this process has.
    pub fn number(&self) -> u64 {
        self.number
    }

    fn policy(&self, policy: Option<&Policy>) -> PyResult<Arc<policy::Policy>> {
        policy.map_or_else(|| Ok(Arc::clone(&self.default_policy)), |policy| policy.compile(self))
    }

    fn is_heavy(&self, n_queries: usize) -> bool {
        n_queries * self.router.centroids().rows().len() > DETACH_ABOVE
    }

    fn matrix<'py>(&self, embeddings: &Bound<'py, PyAny>) -> PyResult<Rows<'py>> {
        let matrix: Rows<'py> = float32("embeddings", embeddings, "[n, dim]")?;
        self.router.check_dim(matrix.shape()[1]).map_err(raise)?;
        Ok(matrix)
    }

    /// Decides all rows, on as many threads as are asked for and worth it.
    fn decide(&self, queries: &[f32], policy: &BatchPolicy<'_>, threads: usize) -> Result<Batch, Error> {
        let dim = self.router.centroids().dim();
        let (n_queries, top_p) = (queries.len() / dim, self.router.top_p());
        let mut batch = Batch::new(n_queries, top_p);
        let n_threads = threads.min(n_queries.div_ceil(ROWS_PER_PART)).max(1);
        let mut left = batch.rows(top_p);
        if n_threads == 1 {
            SCRATCH.with_borrow_mut(|scratch| self.router.route_batch(queries, 0, policy, &mut left, scratch))?;
            return Ok(batch);
        }
        let mut parts = Vec::with_capacity(n_queries.div_ceil(ROWS_PER_PART));
        for (part, queries) in queries.chunks(ROWS_PER_PART * dim).enumerate() {
            let (rows, rest) = left.split_at(queries.len() / dim);
            left = rest;
            parts.push((part * ROWS_PER_PART, queries, rows));
        }
        // Threads take the next part when they are done with one, so that a slow core does not hold up the others;
        // what a row becomes does not depend on who decides it.
        let parts = Mutex::new(parts.into_iter());
        let first_fault: Mutex<Option<(usize, Error)>> = Mutex::new(None);
        let work = || {
            let mut scratch = Scratch::default();
            loop {
                let part = parts.lock().unwrap_or_else(PoisonError::into_inner).next();
                let Some((first_row, queries, mut rows)) = part else { return };
                if let Err(error) = self.router.route_batch(queries, first_row, policy, &mut rows, &mut scratch) {
                    let mut fault = first_fault.lock().unwrap_or_else(PoisonError::into_inner);
                    if fault.as_ref().is_none_or(|(row, _)| first_row < *row) {
                        *fault = Some((first_row, error));
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..n_threads {
                scope.spawn(work);
            }
            work();
        });
        match first_fault.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some((_, error)) => Err(error),
            None => Ok(batch),
        }
    }
}

#[pymethods]
impl Kernel {
    #[new]
    #[pyo3(signature = (data, *, generation=1, precision=None))]
    fn new(py: Python<'_>, data: &[u8], generation: u64, precision: Option<&str>) -> PyResult<Self> {
        let search = precision
            .map(|name| {
                Precision::from_name(name).ok_or_else(|| {
                    PyValueError::new_err(format!("precision '{name}': wanted one of 'f32', 'f16', 'i8'"))
                })
            })
            .transpose()?;
        let isa = isa()?;
        let router = py.detach(|| Router::new(Artifact::from_bytes(data)?, search, isa)).map_err(raise)?;
        let default_policy = Arc::new(router.compile(&PolicySpec::default()).map_err(raise)?);
        let names = &router.artifact().metadata.models;
        let pool = names.iter().map(|model| PyString::new(py, &model.name).unbind()).collect();
        Ok(Self { router, default_policy, pool, number: NEXT_NUMBER.fetch_add(1, Ordering::Relaxed), generation })
    }

    /// Names of the pool, in the order of the table columns.
    #[getter]
    fn models<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.pool.iter().map(|name| name.bind(py)))
    }

    #[getter]
    fn n_clusters(&self) -> usize {
        self.router.centroids().n_clusters()
    }

    #[getter]
    fn dim(&self) -> usize {
        self.router.centroids().dim()
    }

    #[getter]
    fn top_p(&self) -> usize {
        self.router.top_p()
    }

    #[getter]
    fn beta(&self) -> f32 {
        self.router.artifact().metadata.beta
    }

    /// Name of the instruction set in use.
    #[getter]
    fn simd(&self) -> &'static str {
        self.router.centroids().isa().name()
    }

    /// Precision in which one query is searched.
    #[getter]
    fn precision(&self) -> &'static str {
        self.router.centroids().precision().name()
    }

    /// How the file stores the centroids.
    #[getter]
    fn stored_precision(&self) -> &'static str {
        self.router.artifact().precision.name()
    }

    /// Name, dim and fingerprint (`None` for embeddings from outside) of the embedder it was fitted on.
    #[getter]
    fn embedder(&self) -> (&str, usize, Option<&str>) {
        let embedder = &self.router.artifact().metadata.embedder;
        (&embedder.name, embedder.dim, embedder.fingerprint.as_deref())
    }

    /// The metadata JSON as it stands in the file.
    #[getter]
    fn metadata_json(&self) -> &str {
        &self.router.artifact().metadata_json
    }

    /// Copies of the tensors by name, float32.
    fn tensors<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let (artifact, centroids) = (self.router.artifact(), self.router.centroids());
        let cells = [centroids.n_clusters(), artifact.n_models()];
        let tensors = PyDict::new(py);
        let add = |name: &str, values: &[f32], shape: [usize; 2]| {
            tensors.set_item(name, PyArray1::from_slice(py, values).reshape(shape)?)
        };
        add("centroids", centroids.rows(), [centroids.n_clusters(), centroids.dim()])?;
        add("quality", &artifact.quality.cells, cells)?;
        add("cost", &artifact.cost.cells, cells)?;
        add("count", &artifact.count, cells)?;
        add("frontier", artifact.frontier.as_flattened(), [artifact.frontier.len(), 3])?;
        tensors.set_item("prior_quality", PyArray1::from_slice(py, &artifact.quality.prior))?;
        tensors.set_item("prior_cost", PyArray1::from_slice(py, &artifact.cost.prior))?;
        Ok(tensors)
    }

    /// Decides one embedding, float32 `[dim]`.
    #[pyo3(signature = (embedding, policy=None))]
    fn route(&self, embedding: &Bound<'_, PyAny>, policy: Option<&Policy>) -> PyResult<Decision> {
        let array = embedding.cast::<PyArray1<f32>>().ok().filter(|array| array.is_c_contiguous());
        let array = array.ok_or_else(|| refuse("embedding", embedding, "[dim]"))?;
        let policy = self.policy(policy)?;
        // SAFETY: the array is contiguous, and nothing writes to it meanwhile: the interpreter lock is held until the
        // slice is gone. Counting the borrow, as for batches, would take 4 % of the decision.
        let query = unsafe { array.as_slice() }?;
        SCRATCH.with_borrow_mut(|scratch| {
            let choice = self.router.route(query, &policy, scratch).map_err(raise)?;
            Ok(Decision::new(Arc::clone(&self.pool), policy, choice, scratch, self.generation))
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
        let alpha = alpha.map(|values| row_numbers("alpha", values, n_queries)).transpose()?;
        let amounts =
            willingness_to_pay.map(|values| row_numbers("willingness_to_pay", values, n_queries)).transpose()?;
        let allow = allow.map(|values| row_masks(values, [n_queries, self.pool.len()])).transpose()?;
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
                Arc::new(self.router.compile(&objectives.over(spec).map_err(raise)?).map_err(raise)?)
            }
        };
        let allowed = allow.as_ref().map(PyReadonlyArray::as_slice).transpose()?;
        let wanted = BatchPolicy { policy: &policy, objectives, allowed };
        let decide = || self.decide(queries, &wanted, threads);
        let batch = if self.is_heavy(n_queries) { py.detach(decide) } else { decide() }.map_err(raise)?;
        DecisionBatch::new(py, Arc::clone(&self.pool), batch, self.top_p(), self.generation)
    }

    /// Predicted quality and cost of every model for every row of float32 `[n, dim]`: two arrays `[n, n_models]`.
    fn predict<'py>(&self, py: Python<'py>, embeddings: &Bound<'py, PyAny>) -> PyResult<Pair<'py>> {
        let embeddings = self.matrix(embeddings)?;
        let queries = embeddings.as_slice()?;
        let shape = [embeddings.shape()[0], self.pool.len()];
        let (mut quality, mut cost) = (vec![0.0; shape[0] * shape[1]], vec![0.0; shape[0] * shape[1]]);
        let mut predict =
            || SCRATCH.with_borrow_mut(|scratch| self.router.predict_batch(queries, &mut quality, &mut cost, scratch));
        if self.is_heavy(shape[0]) { py.detach(predict) } else { predict() }.map_err(raise)?;
        Ok((quality.into_pyarray(py).reshape(shape)?, cost.into_pyarray(py).reshape(shape)?))
    }
}

/// Name of the instruction set that new kernels use: the widest of this machine, or what `CENTROUTE_SIMD` names.
#[pyfunction]
pub fn simd() -> PyResult<&'static str> {
    isa().map(Isa::name)
}

fn isa() -> PyResult<Isa> {
    let Some(wanted) = std::env::var_os("CENTROUTE_SIMD").filter(|name| !name.is_empty()) else {
        return Ok(Isa::detect());
    };
    let available: Vec<&str> = Isa::ALL.into_iter().filter(|isa| isa.is_available()).map(Isa::name).collect();
    let found = Isa::ALL.into_iter().find(|isa| wanted == isa.name() && isa.is_available());
    found.ok_or_else(|| {
        let available = available.join(", ");
        PyValueError::new_err(format!("CENTROUTE_SIMD={}: this machine has {available}", wanted.display()))
    })
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
fn float32<'py, D: numpy::ndarray::Dimension>(
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
