//! `Policy`: keyword arguments in, an immutable specification out, compiled once per kernel.

use std::collections::BTreeSet;
use std::collections::hash_map::DefaultHasher;
use std::fmt::Write as _;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

use centroute_core::{PolicySpec, policy};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFrozenSet, PyString, PyTuple};

use crate::errors::{PolicyError, raise};
use crate::kernel::Kernel;

/// A compiled policy with the number of the kernel that it is bound to.
type Compiled = Option<(u64, Arc<policy::Policy>)>;

/// What one request wants: at most one objective, and limits. Immutable.
///
/// See `centroute.policy` for the description of each field.
#[pyclass(frozen, module = "centroute")]
pub struct Policy {
    spec: PolicySpec,
    compiled: Mutex<Compiled>,
}

impl Policy {
    /// What the request states.
    pub fn spec(&self) -> &PolicySpec {
        &self.spec
    }

    /// The policy bound to `kernel`; compiled at its first use there.
    pub fn compile(&self, kernel: &Kernel) -> PyResult<Arc<policy::Policy>> {
        let mut compiled = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((number, policy)) = compiled.as_ref()
            && *number == kernel.number()
        {
            return Ok(Arc::clone(policy));
        }
        let policy = Arc::new(kernel.router().compile(&self.spec).map_err(raise)?);
        *compiled = Some((kernel.number(), Arc::clone(&policy)));
        Ok(policy)
    }

    /// Fields that are set, as Python values by name.
    fn fields<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let fields = PyDict::new(py);
        let numbers = [
            ("alpha", self.spec.alpha),
            ("willingness_to_pay", self.spec.willingness_to_pay),
            ("max_mean_cost", self.spec.max_mean_cost),
            ("min_quality", self.spec.min_quality),
            ("strong_share", self.spec.strong_share),
            ("max_cost", self.spec.max_cost),
        ];
        for (name, value) in numbers {
            if let Some(value) = value {
                fields.set_item(name, value)?;
            }
        }
        for (name, value) in [("allow", &self.spec.allow), ("deny", &self.spec.deny), ("require", &self.spec.require)] {
            if let Some(value) = value {
                fields.set_item(name, PyFrozenSet::new(py, value)?)?;
            }
        }
        let texts = [("strong", &self.spec.strong), ("weak", &self.spec.weak), ("fallback", &self.spec.fallback)];
        for (name, value) in texts {
            if let Some(value) = value {
                fields.set_item(name, value)?;
            }
        }
        if let Some(n_models) = self.spec.n_models {
            fields.set_item("n_models", n_models)?;
        }
        Ok(fields)
    }
}

#[pymethods]
impl Policy {
    #[new]
    #[pyo3(signature = (*, alpha=None, willingness_to_pay=None, max_mean_cost=None, min_quality=None,
                        strong=None, weak=None, strong_share=None, max_cost=None, allow=None, deny=None, require=None, fallback=None, n_models=None))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of the public class")]
    fn new(
        alpha: Option<f64>,
        willingness_to_pay: Option<f64>,
        max_mean_cost: Option<f64>,
        min_quality: Option<f64>,
        strong: Option<String>,
        weak: Option<String>,
        strong_share: Option<f64>,
        max_cost: Option<f64>,
        allow: Option<&Bound<'_, PyAny>>,
        deny: Option<&Bound<'_, PyAny>>,
        require: Option<&Bound<'_, PyAny>>,
        fallback: Option<String>,
        n_models: Option<i64>,
    ) -> PyResult<Self> {
        let spec = PolicySpec {
            alpha,
            willingness_to_pay,
            max_mean_cost,
            min_quality,
            strong,
            weak,
            strong_share,
            max_cost,
            allow: names("allow", allow)?,
            deny: names("deny", deny)?,
            require: names("require", require)?,
            fallback,
            n_models,
        };
        spec.check().map_err(raise)?;
        Ok(Self { spec, compiled: Mutex::new(None) })
    }

    #[getter]
    fn alpha(&self) -> Option<f64> {
        self.spec.alpha
    }

    #[getter]
    fn willingness_to_pay(&self) -> Option<f64> {
        self.spec.willingness_to_pay
    }

    #[getter]
    fn max_mean_cost(&self) -> Option<f64> {
        self.spec.max_mean_cost
    }

    #[getter]
    fn min_quality(&self) -> Option<f64> {
        self.spec.min_quality
    }

    #[getter]
    fn strong(&self) -> Option<&str> {
        self.spec.strong.as_deref()
    }

    #[getter]
    fn weak(&self) -> Option<&str> {
        self.spec.weak.as_deref()
    }

    #[getter]
    fn strong_share(&self) -> Option<f64> {
        self.spec.strong_share
    }

    #[getter]
    fn max_cost(&self) -> Option<f64> {
        self.spec.max_cost
    }

    #[getter]
    fn allow<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyFrozenSet>>> {
        self.spec.allow.as_ref().map(|names| PyFrozenSet::new(py, names)).transpose()
    }

    #[getter]
    fn deny<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyFrozenSet>>> {
        self.spec.deny.as_ref().map(|names| PyFrozenSet::new(py, names)).transpose()
    }

    #[getter]
    fn require<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyFrozenSet>>> {
        self.spec.require.as_ref().map(|names| PyFrozenSet::new(py, names)).transpose()
    }

    #[getter]
    fn fallback(&self) -> Option<&str> {
        self.spec.fallback.as_deref()
    }

    #[getter]
    fn n_models(&self) -> Option<i64> {
        self.spec.n_models
    }

    /// The same policy with some fields changed; `None` clears a field.
    #[pyo3(signature = (**changes))]
    fn replace<'py>(&self, py: Python<'py>, changes: Option<&Bound<'py, PyDict>>) -> PyResult<Bound<'py, PyAny>> {
        let fields = self.fields(py)?;
        if let Some(changes) = changes {
            fields.update(changes.as_mapping())?;
        }
        py.get_type::<Self>().call((), Some(&fields))
    }

    fn __eq__(&self, other: &Self) -> bool {
        self.spec == other.spec
    }

    fn __hash__(&self) -> u64 {
        let PolicySpec {
            alpha,
            willingness_to_pay,
            max_mean_cost,
            min_quality,
            strong,
            weak,
            strong_share,
            max_cost,
            allow,
            deny,
            require,
            fallback,
            n_models,
        } = &self.spec;
        let mut hasher = DefaultHasher::new();
        for number in [alpha, willingness_to_pay, max_mean_cost, min_quality, strong_share, max_cost] {
            // Adding zero makes -0.0, which equals 0.0, hash like it.
            number.map(|value| (value + 0.0).to_bits()).hash(&mut hasher);
        }
        (strong, weak, allow, deny, require, fallback, n_models).hash(&mut hasher);
        hasher.finish()
    }

    fn __repr__(&self, py: Python<'_>) -> PyResult<String> {
        let mut text = String::from("Policy(");
        for (name, value) in self.fields(py)? {
            let separator = if text.ends_with('(') { "" } else { ", " };
            let _ = write!(text, "{separator}{name}={}", value.repr()?);
        }
        text.push(')');
        Ok(text)
    }

    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Bound<'py, PyTuple>)> {
        // functools.partial carries keyword arguments through pickle.
        let partial = py.import("functools")?.getattr("partial")?;
        Ok((partial.call((py.get_type::<Self>(),), Some(&self.fields(py)?))?, PyTuple::empty(py)))
    }
}

/// A collection of strings; a bare string is refused, since it would be read letter by letter.
fn names(field: &str, value: Option<&Bound<'_, PyAny>>) -> PyResult<Option<BTreeSet<String>>> {
    let Some(value) = value else { return Ok(None) };
    let refuse =
        |got: String| PolicyError::new_err(format!("policy {field}: got {got}, wanted a collection of strings"));
    if value.is_instance_of::<PyString>() {
        return Err(refuse(format!("the string {}", value.repr()?)));
    }
    let items = value.try_iter().map_err(|_| refuse(value.get_type().to_string()))?;
    items
        .map(|item| {
            let item = item?;
            item.extract::<String>().map_err(|_| refuse(format!("the item {item:?}")))
        })
        .collect::<PyResult<_>>()
        .map(Some)
}
