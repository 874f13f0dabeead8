//! `Counters`: how many decisions, of which model, out of distribution, by fallback, refused, and how long they take.
//!
//! Always on: a decision adds one to a relaxed atomic or two, and every 64th reads the clock between its stages.
//! Kernels that are loaded one after another may share the counters, so that nothing is lost when a router is reloaded.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use centroute_core::{Batch, Choice, policy};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::{DataError, PolicyError};

/// One decision in so many is timed.
pub const TIME_EVERY: u32 = 64;
/// Upper bounds of the buckets that durations are counted in; what is longer falls in a last one.
const BOUNDS_NS: [u64; 16] = [
    500,
    1_000,
    2_000,
    5_000,
    10_000,
    20_000,
    50_000,
    100_000,
    200_000,
    500_000,
    1_000_000,
    2_000_000,
    5_000_000,
    10_000_000,
    50_000_000,
    200_000_000,
];
const STAGES: [&str; 3] = ["tokenize", "embed", "kernel"];

/// A stage of a decision.
#[derive(Clone, Copy)]
pub enum Stage {
    /// Text to token ids.
    Tokenize,
    /// Token ids to a row.
    Embed,
    /// A row to a decision.
    Kernel,
}

#[derive(Default)]
struct Durations {
    buckets: [AtomicU64; BOUNDS_NS.len() + 1],
    sum_ns: AtomicU64,
}

impl Durations {
    fn observe(&self, nanoseconds: u64) {
        let bucket = BOUNDS_NS.partition_point(|&bound| bound < nanoseconds);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_ns.fetch_add(nanoseconds, Relaxed);
    }
}

/// What kernels count. Cheap to write to from any thread.
#[pyclass(frozen, module = "centroute._kernel")]
#[derive(Default)]
pub struct Counters {
    decisions: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    out_of_distribution: AtomicU64,
    fallbacks: AtomicU64,
    data_errors: AtomicU64,
    policy_errors: AtomicU64,
    stages: [Durations; 3],
}

impl Counters {
    /// The counter of a model, the same for all who ask by its name.
    pub fn of_model(&self, name: &str) -> Arc<AtomicU64> {
        let mut decisions = self.decisions.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(decisions.entry(name.to_owned()).or_default())
    }

    /// Counts one decision; `by_model` are the counters of the pool.
    pub fn count(&self, choice: &Choice, policy: &policy::Policy, by_model: &[Arc<AtomicU64>]) {
        by_model[choice.model_id as usize].fetch_add(1, Relaxed);
        if !choice.in_distribution {
            self.out_of_distribution.fetch_add(1, Relaxed);
        }
        if policy.fallback == Some(choice.model_id) && choice.margin.is_nan() {
            self.fallbacks.fetch_add(1, Relaxed);
        }
    }

    /// Counts the decisions of a batch.
    pub fn count_batch(&self, batch: &Batch, policy: &policy::Policy, by_model: &[Arc<AtomicU64>]) {
        let mut decisions = vec![0u64; by_model.len()];
        let mut fallbacks = 0;
        for (model_id, margin) in batch.model_ids.iter().zip(&batch.margin) {
            let model_id = model_id.cast_unsigned();
            decisions[model_id as usize] += 1;
            fallbacks += u64::from(policy.fallback == Some(model_id) && margin.is_nan());
        }
        for (counter, n) in by_model.iter().zip(decisions) {
            counter.fetch_add(n, Relaxed);
        }
        let n_outside = batch.in_distribution.iter().filter(|&&inside| !inside).count();
        self.out_of_distribution.fetch_add(n_outside as u64, Relaxed);
        self.fallbacks.fetch_add(fallbacks, Relaxed);
    }

    /// Counts an error by its class.
    #[cold]
    pub fn refused(&self, py: Python<'_>, error: &PyErr) {
        if error.is_instance_of::<DataError>(py) {
            self.data_errors.fetch_add(1, Relaxed);
        } else if error.is_instance_of::<PolicyError>(py) {
            self.policy_errors.fetch_add(1, Relaxed);
        }
    }
}

/// Measures the stages of one decision.
pub struct StageClock<'a> {
    counters: &'a Counters,
    last: Instant,
}

impl<'a> StageClock<'a> {
    /// Starts the first stage.
    pub fn start(counters: &'a Counters) -> Self {
        Self { counters, last: Instant::now() }
    }

    /// Ends a stage and starts the next one.
    pub fn end(&mut self, stage: Stage) {
        let now = Instant::now();
        self.counters.stages[stage as usize].observe(now.duration_since(self.last).as_nanos() as u64);
        self.last = now;
    }
}

#[pymethods]
impl Counters {
    #[new]
    fn new() -> Self {
        Self::default()
    }

    /// Counts since the start: `decisions` by model, `out_of_distribution`, `fallbacks`, `errors` by class, and
    /// `stages`: buckets (counts, the last one unbounded) and sum in nanoseconds of the decisions that were timed.
    fn snapshot<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let decisions = PyDict::new(py);
        for (name, counter) in self.decisions.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            decisions.set_item(name, counter.load(Relaxed))?;
        }
        let errors = PyDict::new(py);
        errors.set_item("data", self.data_errors.load(Relaxed))?;
        errors.set_item("policy", self.policy_errors.load(Relaxed))?;
        let stages = PyDict::new(py);
        for (name, durations) in STAGES.iter().zip(&self.stages) {
            let buckets: Vec<u64> = durations.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect();
            stages.set_item(name, (buckets, durations.sum_ns.load(Relaxed)))?;
        }
        let counts = PyDict::new(py);
        counts.set_item("decisions", decisions)?;
        counts.set_item("out_of_distribution", self.out_of_distribution.load(Relaxed))?;
        counts.set_item("fallbacks", self.fallbacks.load(Relaxed))?;
        counts.set_item("errors", errors)?;
        counts.set_item("stages", stages)?;
        Ok(counts)
    }

    /// Upper bounds of the buckets in nanoseconds.
    #[classattr]
    #[expect(non_snake_case, reason = "a constant of the class")]
    fn BOUNDS_NS() -> Vec<u64> {
        BOUNDS_NS.to_vec()
    }

    /// Takes in a duration that was measured outside, such as that of an embedder that does not run here.
    fn observe(&self, stage: &str, nanoseconds: u64) -> PyResult<()> {
        let place = STAGES
            .iter()
            .position(|name| *name == stage)
            .ok_or_else(|| PyValueError::new_err(format!("stage '{stage}': wanted one of {}", STAGES.join(", "))))?;
        self.stages[place].observe(nanoseconds);
        Ok(())
    }

    /// Counts an error that was raised outside, by its class.
    fn count_refused(&self, py: Python<'_>, error: Bound<'_, PyAny>) {
        self.refused(py, &PyErr::from_value(error));
    }
}
