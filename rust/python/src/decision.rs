//! `Decision` and `DecisionBatch`: what the kernel chose, with the numbers that explain it.

use std::sync::Arc;

use centroute_core::decide::Candidates;
use centroute_core::{Batch, Choice, Router, Scratch, policy};
use numpy::{IntoPyArray, PyArray1, PyArray2, PyArrayMethods};
use pyo3::prelude::*;
use pyo3::types::{PyList, PyString, PyTuple};

/// What all decisions of one kernel share.
pub struct Shared {
    /// The router that decides.
    pub router: Router,
    /// Model names as Python strings.
    pub names: Box<[Py<PyString>]>,
}

/// The model chosen for one query and why.
#[pyclass(frozen, module = "centroute")]
pub struct Decision {
    shared: Arc<Shared>,
    policy: Arc<policy::Policy>,
    choice: Choice,
    clusters: Clusters,
    /// Quality, cost and utility by model id, one after another.
    candidates: Box<[f32]>,
    #[pyo3(get)]
    generation: u64,
}

impl Decision {
    /// Puts a choice together with the numbers behind it.
    pub fn new(
        shared: Arc<Shared>,
        policy: Arc<policy::Policy>,
        choice: Choice,
        scratch: &Scratch,
        generation: u64,
    ) -> Self {
        let assigned = scratch.assigned();
        let clusters = Clusters::new(assigned.cluster_ids.iter().copied().zip(assigned.weights.iter().copied()));
        let candidates = [scratch.quality(), scratch.cost(), scratch.utility()].concat().into_boxed_slice();
        Self { shared, policy, choice, clusters, candidates, generation }
    }
}

impl Decision {
    /// Ids of all candidates, best first.
    fn ranked(&self) -> Vec<u32> {
        let n_models = self.shared.names.len();
        let (quality, rest) = self.candidates.split_at(n_models);
        let (cost, utility) = rest.split_at(n_models);
        Candidates { quality, cost, utility }.ranking(self.policy.objective, self.choice.model_id)
    }
}

/// Pairs of cluster id and weight; few of them lie in place, without an allocation.
enum Clusters {
    Few(usize, [(u32, f32); 8]),
    Many(Box<[(u32, f32)]>),
}

impl Clusters {
    fn new(pairs: impl ExactSizeIterator<Item = (u32, f32)>) -> Self {
        let n = pairs.len();
        if n > 8 {
            return Self::Many(pairs.collect());
        }
        let mut few = [(0, 0.0); 8];
        for (place, pair) in few.iter_mut().zip(pairs) {
            *place = pair;
        }
        Self::Few(n, few)
    }

    fn as_slice(&self) -> &[(u32, f32)] {
        match self {
            Self::Few(n, few) => &few[..*n],
            Self::Many(many) => many,
        }
    }
}

/// NaN stands for "not known" in the kernel and is `None` in Python.
fn known(value: f32) -> Option<f32> {
    (!value.is_nan()).then_some(value)
}

#[pymethods]
impl Decision {
    /// Name of the chosen model.
    #[getter]
    fn model<'py>(&self, py: Python<'py>) -> &Bound<'py, PyString> {
        self.shared.names[self.choice.model_id as usize].bind(py)
    }

    /// Index of the chosen model in the pool.
    #[getter]
    fn model_id(&self) -> u32 {
        self.choice.model_id
    }

    /// Its predicted quality, 0 to 1.
    #[getter]
    fn quality(&self) -> f32 {
        self.choice.quality
    }

    /// Its predicted cost in USD for this query, `None` when unknown.
    #[getter]
    fn cost(&self) -> Option<f32> {
        known(self.choice.cost)
    }

    /// Lead over the second candidate in the policy's own measure; `None` without a second.
    #[getter]
    fn margin(&self) -> Option<f32> {
        known(self.choice.margin)
    }

    /// Cosine similarity of the nearest cluster.
    #[getter]
    fn similarity(&self) -> f32 {
        self.choice.similarity
    }

    /// Whether the query resembles the calibration data.
    #[getter]
    fn in_distribution(&self) -> bool {
        self.choice.in_distribution
    }

    /// Pairs of cluster id and weight, nearest first.
    #[getter]
    fn clusters<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.clusters.as_slice().iter().copied())
    }

    /// Names of all candidates, best first.
    #[getter]
    fn ranking<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        PyTuple::new(py, self.ranked().iter().map(|&model| self.shared.names[model as usize].bind(py)))
    }

    /// What every candidate is predicted to score and cost, best first: model id, quality, cost in USD or `None`.
    #[getter]
    fn predictions<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let n_models = self.shared.names.len();
        let prediction = |model: u32| {
            let place = model as usize;
            (model, self.candidates[place], known(self.candidates[n_models + place]))
        };
        PyTuple::new(py, self.ranked().into_iter().map(prediction))
    }

    /// Standard error of `quality`, `None` where the router file has none.
    #[getter]
    fn quality_se(&self) -> Option<f32> {
        self.shared.router.quality_se(self.clusters.as_slice(), self.choice.model_id)
    }

    /// Whether the lead over the second candidate is more than chance (95 %) at the precision of the calibration data;
    /// `False` out of distribution, `None` without a second, for a least quality, or where the file has no errors.
    #[getter]
    fn resolved(&self) -> Option<bool> {
        let margin = known(self.choice.margin)?;
        let ranked = self.ranked();
        let second = *ranked.get(1)?;
        let models = [self.choice.model_id, second];
        let is_resolved =
            self.shared.router.is_resolved(self.policy.objective, self.clusters.as_slice(), models, margin)?;
        Some(is_resolved && self.choice.in_distribution)
    }

    /// SHA-256 of the router file that decided.
    #[getter]
    fn sha256(&self) -> &str {
        &self.shared.router.artifact().metadata.sha256
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let Choice { quality, cost, margin, similarity, in_distribution, .. } = self.choice;
        let or_none = |value: f32| known(value).map_or("None".to_owned(), |value| format!("{value:.6}"));
        Ok(format!(
            "Decision(model={}, quality={quality:.4}, cost={}, margin={}, similarity={similarity:.4}, \
             in_distribution={}, generation={})",
            self.model(py).repr()?,
            or_none(cost),
            or_none(margin),
            if in_distribution { "True" } else { "False" },
            self.generation
        ))
    }
}

/// The decisions of a batch as arrays, one row a query.
#[pyclass(frozen, module = "centroute")]
pub struct DecisionBatch {
    shared: Arc<Shared>,
    /// Chosen model ids, int32 `[n]`.
    #[pyo3(get)]
    model_ids: Py<PyArray1<i32>>,
    /// Predicted quality, float32 `[n]`.
    #[pyo3(get)]
    quality: Py<PyArray1<f32>>,
    /// Predicted cost in USD, float32 `[n]`; NaN when unknown.
    #[pyo3(get)]
    cost: Py<PyArray1<f32>>,
    /// Lead over the second candidate, float32 `[n]`; NaN without one.
    #[pyo3(get)]
    margin: Py<PyArray1<f32>>,
    /// Similarity of the nearest cluster, float32 `[n]`.
    #[pyo3(get)]
    similarity: Py<PyArray1<f32>>,
    /// Whether the query resembles the calibration data, bool `[n]`.
    #[pyo3(get)]
    in_distribution: Py<PyArray1<bool>>,
    /// Blended clusters, nearest first, int32 `[n, top_p]`.
    #[pyo3(get)]
    cluster_ids: Py<PyArray2<i32>>,
    /// Their weights, float32 `[n, top_p]`.
    #[pyo3(get)]
    cluster_weights: Py<PyArray2<f32>>,
    /// Which loading of the router decided.
    #[pyo3(get)]
    generation: u64,
}

impl DecisionBatch {
    /// Hands the arrays over to Python without a copy.
    pub fn new(py: Python<'_>, shared: Arc<Shared>, batch: Batch, generation: u64) -> PyResult<Self> {
        let shape = [batch.model_ids.len(), shared.router.top_p()];
        Ok(Self {
            shared,
            model_ids: batch.model_ids.into_pyarray(py).unbind(),
            quality: batch.quality.into_pyarray(py).unbind(),
            cost: batch.cost.into_pyarray(py).unbind(),
            margin: batch.margin.into_pyarray(py).unbind(),
            similarity: batch.similarity.into_pyarray(py).unbind(),
            in_distribution: batch.in_distribution.into_pyarray(py).unbind(),
            cluster_ids: batch.cluster_ids.into_pyarray(py).reshape(shape)?.unbind(),
            cluster_weights: batch.cluster_weights.into_pyarray(py).reshape(shape)?.unbind(),
            generation,
        })
    }
}

#[pymethods]
impl DecisionBatch {
    /// Names of the chosen models, one a row.
    #[getter]
    fn models<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let model_ids = self.model_ids.bind(py).readonly();
        let names =
            model_ids.as_slice()?.iter().map(|&model| self.shared.names[model.cast_unsigned() as usize].bind(py));
        PyList::new(py, names)
    }

    fn __len__(&self, py: Python<'_>) -> PyResult<usize> {
        self.model_ids.bind(py).len()
    }
}
