//! `Kernel`: a loaded router file; routes one embedding or a batch of them.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use centroute_core::{PolicySpec, Router, Scratch, policy};
use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray, PyUntypedArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyString, PyTuple};

use crate::decision::{Decision, DecisionBatch, Names};
use crate::errors::{DataError, raise};
use crate::policy::Policy;

/// Multiplications above which the interpreter lock is released; below, releasing costs more than it gives.
const DETACH_ABOVE: usize = 1 << 20;

thread_local! {
    /// Buffers of this thread; they fit themselves to the router that uses them.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Numbers kernels, so that a policy knows whether it was compiled for this one.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);

/// A validated router file, ready to decide. Immutable and shareable between threads.
#[pyclass(frozen, module = "centroute._kernel")]
pub struct Kernel {
    router: Router,
    default_policy: Arc<policy::Policy>,
    names: Names,
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
        n_queries * self.router.artifact().centroids.len() > DETACH_ABOVE
    }
}

#[pymethods]
impl Kernel {
    #[new]
    #[pyo3(signature = (data, *, generation=1))]
    fn new(py: Python<'_>, data: &[u8], generation: u64) -> PyResult<Self> {
        let router = py.detach(|| Router::from_bytes(data)).map_err(raise)?;
        let default_policy = Arc::new(router.compile(&PolicySpec::default()).map_err(raise)?);
        let names =
            router.artifact().metadata.models.iter().map(|model| PyString::new(py, &model.name).unbind()).collect();
        Ok(Self { router, default_policy, names, number: NEXT_NUMBER.fetch_add(1, Ordering::Relaxed), generation })
    }

    /// Names of the pool, in the order of the table columns.
    #[getter]
    fn models<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.names.iter().map(|name| name.bind(py)))
    }

    #[getter]
    fn n_clusters(&self) -> usize {
        self.router.artifact().n_clusters()
    }

    #[getter]
    fn dim(&self) -> usize {
        self.router.artifact().dim()
    }

    #[getter]
    fn top_p(&self) -> usize {
        self.router.artifact().metadata.top_p
    }

    #[getter]
    fn beta(&self) -> f32 {
        self.router.artifact().metadata.beta
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
        let artifact = self.router.artifact();
        let cells = [artifact.n_clusters(), artifact.n_models()];
        let tensors = PyDict::new(py);
        let add = |name: &str, values: &[f32], shape: [usize; 2]| {
            tensors.set_item(name, PyArray1::from_slice(py, values).reshape(shape)?)
        };
        add("centroids", &artifact.centroids, [artifact.n_clusters(), artifact.dim()])?;
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
        let embedding: PyReadonlyArray<'_, f32, numpy::Ix1> = float32(embedding, "[dim]")?;
        let policy = self.policy(policy)?;
        let query = embedding.as_slice()?;
        SCRATCH.with_borrow_mut(|scratch| {
            let choice = self.router.route(query, 0, &policy, scratch).map_err(raise)?;
            let assignment = &scratch.assignment;
            let clusters = assignment.cluster_ids.iter().copied().zip(assignment.weights.iter().copied()).collect();
            let ranking = self.router.ranking(&policy, &choice, scratch).into_boxed_slice();
            Ok(Decision::new(Arc::clone(&self.names), choice, clusters, ranking, self.generation))
        })
    }

    /// Decides every row of float32 `[n, dim]`.
    #[pyo3(signature = (embeddings, policy=None))]
    fn route_batch(
        &self,
        py: Python<'_>,
        embeddings: &Bound<'_, PyAny>,
        policy: Option<&Policy>,
    ) -> PyResult<DecisionBatch> {
        let embeddings = self.matrix(embeddings)?;
        let policy = self.policy(policy)?;
        let queries = embeddings.as_slice()?;
        let decide = || SCRATCH.with_borrow_mut(|scratch| self.router.route_batch(queries, &policy, scratch));
        let heavy = self.is_heavy(embeddings.shape()[0]);
        let batch = if heavy { py.detach(decide) } else { decide() }.map_err(raise)?;
        DecisionBatch::new(py, Arc::clone(&self.names), batch, self.top_p(), self.generation)
    }

    /// Predicted quality and cost of every model for every row of float32 `[n, dim]`: two arrays `[n, n_models]`.
    #[expect(clippy::type_complexity, reason = "a pair of arrays")]
    fn predict<'py>(
        &self,
        py: Python<'py>,
        embeddings: &Bound<'py, PyAny>,
    ) -> PyResult<(Bound<'py, PyArray2<f32>>, Bound<'py, PyArray2<f32>>)> {
        let embeddings = self.matrix(embeddings)?;
        let queries = embeddings.as_slice()?;
        let shape = [embeddings.shape()[0], self.names.len()];
        let predict = || {
            SCRATCH.with_borrow_mut(|scratch| {
                let mut quality = Vec::with_capacity(shape[0] * shape[1]);
                let mut cost = Vec::with_capacity(shape[0] * shape[1]);
                for (row, query) in queries.chunks_exact(self.dim()).enumerate() {
                    self.router.predict(query, row, scratch)?;
                    quality.extend_from_slice(&scratch.quality);
                    cost.extend_from_slice(&scratch.cost);
                }
                Ok((quality, cost))
            })
        };
        let (quality, cost) = if self.is_heavy(shape[0]) { py.detach(predict) } else { predict() }.map_err(raise)?;
        Ok((quality.into_pyarray(py).reshape(shape)?, cost.into_pyarray(py).reshape(shape)?))
    }
}

impl Kernel {
    fn matrix<'py>(&self, embeddings: &Bound<'py, PyAny>) -> PyResult<PyReadonlyArray<'py, f32, numpy::Ix2>> {
        let matrix: PyReadonlyArray<'py, f32, numpy::Ix2> = float32(embeddings, "[n, dim]")?;
        let (got, wanted) = (matrix.shape()[1], self.dim());
        if got == wanted {
            return Ok(matrix);
        }
        Err(raise(centroute_core::Error::Dim { got, wanted }))
    }
}

/// A C-contiguous float32 array of the wanted rank without a copy, or an error with what was got and wanted.
fn float32<'py, D: numpy::ndarray::Dimension>(
    value: &Bound<'py, PyAny>,
    wanted: &str,
) -> PyResult<PyReadonlyArray<'py, f32, D>> {
    if let Ok(array) = value.cast::<numpy::PyArray<f32, D>>()
        && array.is_c_contiguous()
        && let Ok(array) = array.try_readonly()
    {
        return Ok(array);
    }
    let got = match value.cast::<PyUntypedArray>() {
        Ok(array) => {
            let order = if array.is_c_contiguous() { "" } else { ", not C-contiguous" };
            format!("an array of {} {:?}{order}", array.dtype(), array.shape())
        }
        Err(_) => value.get_type().to_string(),
    };
    Err(DataError::new_err(format!("embeddings: got {got}, wanted a C-contiguous array of float32 {wanted}")))
}
