//! `RowIndex`: rows with owners; the nearest of them to one query or a batch.

use std::cell::RefCell;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use centroute_core::index::IndexScratch;
use centroute_core::index::owners::Owners;
use centroute_core::index::parts::{Arrays, NAMES, Parts};
use centroute_core::{Error, Isa, RowIndex as CoreRowIndex};
use numpy::{Element, IntoPyArray, PyArray1, PyArray2, PyArrayMethods, PyReadonlyArray, PyUntypedArrayMethods};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::{DataError, raise};
use crate::kernel::{contiguous, float32};
use crate::threads::{FirstFault, in_parts};

/// Queries that a thread takes at a time.
const ROWS_PER_PART: usize = 64;
/// Owners that there may be: a number of this kind takes memory for itself.
const MAX_OWNERS: usize = 1 << 26;

thread_local! {
    static SCRATCH: RefCell<IndexScratch> = RefCell::default();
}

type Found<'py, D> = (Bound<'py, numpy::PyArray<i32, D>>, Bound<'py, numpy::PyArray<f32, D>>);

/// Rows of unit norm, whom each belongs to, and an index over them, where they are many. Rows come and go while others
/// search.
#[pyclass(frozen, module = "centroute._kernel")]
pub struct RowIndex(RwLock<CoreRowIndex>);

impl RowIndex {
    fn read(&self) -> RwLockReadGuard<'_, CoreRowIndex> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, CoreRowIndex> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl RowIndex {
    #[new]
    #[pyo3(signature = (rows, *, owners=None, n_owners=None, index=None))]
    fn new(
        py: Python<'_>,
        rows: &Bound<'_, PyAny>,
        owners: Option<&Bound<'_, PyAny>>,
        n_owners: Option<usize>,
        index: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Self> {
        let rows: PyReadonlyArray<'_, f32, numpy::Ix2> = float32("rows", rows, "[n, dim]")?;
        let [n_rows, dim] = [rows.shape()[0], rows.shape()[1]];
        if dim == 0 {
            return Err(DataError::new_err("rows: got rows of no numbers"));
        }
        let owners = match owners {
            Some(owners) => owners_of(owners, n_rows)?,
            None => (0..n_rows as u32).collect(),
        };
        let n_owners = n_owners.unwrap_or_else(|| owners.iter().max().map_or(0, |&owner| owner as usize + 1));
        if n_owners > MAX_OWNERS {
            return Err(DataError::new_err(format!("n_owners is {n_owners}, wanted at most {MAX_OWNERS}")));
        }
        let arrays = index.map(arrays).transpose()?;
        let rows = rows.as_slice()?;
        let isa = Isa::from_environment().map_err(raise)?;
        let build = || {
            let parts = arrays.map(|arrays| Parts::check(arrays, n_rows, dim)).transpose()?;
            CoreRowIndex::new(rows.to_vec(), dim, Owners::new(owners, n_owners)?, parts.as_ref(), isa)
        };
        Ok(Self(RwLock::new(py.detach(build).map_err(raise)?)))
    }

    /// Rows that were added, the removed ones among them.
    #[getter]
    fn n_rows(&self) -> usize {
        let index = self.read();
        index.rows().len() / index.dim()
    }

    /// Rows that are not removed.
    #[getter]
    fn n_live(&self) -> usize {
        self.read().owners().n_live()
    }

    #[getter]
    fn n_owners(&self) -> usize {
        self.read().owners().n_owners()
    }

    #[getter]
    fn dim(&self) -> usize {
        self.read().dim()
    }

    /// Copy of the rows, float32 `[n_rows, dim]`.
    #[getter]
    fn rows<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyArray2<f32>>> {
        let index = self.read();
        PyArray1::from_slice(py, index.rows()).reshape([index.rows().len() / index.dim(), index.dim()])
    }

    /// Owner of each row, int32 `[n_rows]`, -1 where it was removed.
    #[getter]
    fn owners<'py>(&self, py: Python<'py>) -> Bound<'py, PyArray1<i32>> {
        let owners: Vec<i32> = self.read().owners().of_rows().map(|owner| owner.map_or(-1, u32::cast_signed)).collect();
        owners.into_pyarray(py)
    }

    /// Numbers and cosines of the nearest rows of one query, float32 `[dim]`, of the owners that `allowed`, bool
    /// `[n_owners]`, names.
    #[pyo3(signature = (query, top_p, allowed=None))]
    fn search<'py>(
        &self,
        py: Python<'py>,
        query: &Bound<'py, PyAny>,
        top_p: usize,
        allowed: Option<&Bound<'py, PyAny>>,
    ) -> PyResult<Found<'py, numpy::Ix1>> {
        let query: PyReadonlyArray<'py, f32, numpy::Ix1> = float32("query", query, "[dim]")?;
        let allowed = allowed.map(mask).transpose()?;
        let allowed = allowed.as_ref().map(PyReadonlyArray::as_slice).transpose()?;
        let index = self.read();
        let top_p = check_top_p(top_p)?.min(index.owners().n_live());
        let (mut similarities, mut ids) = (vec![0.0; top_p], vec![0; top_p]);
        let found = SCRATCH.with_borrow_mut(|scratch| {
            index.search(query.as_slice()?, 0, allowed, (&mut similarities, &mut ids), scratch).map_err(raise)
        })?;
        similarities.truncate(found);
        let ids: Vec<i32> = ids[..found].iter().map(|id| id.cast_signed()).collect();
        Ok((ids.into_pyarray(py), similarities.into_pyarray(py)))
    }

    /// The same for every row of float32 `[n, dim]`: two arrays `[n, top_p]`, -1 and minus infinity where no row is left.
    #[pyo3(signature = (queries, top_p, allowed=None, *, threads=1))]
    fn search_batch<'py>(
        &self,
        py: Python<'py>,
        queries: &Bound<'py, PyAny>,
        top_p: usize,
        allowed: Option<&Bound<'py, PyAny>>,
        threads: usize,
    ) -> PyResult<Found<'py, numpy::Ix2>> {
        let queries: PyReadonlyArray<'py, f32, numpy::Ix2> = float32("queries", queries, "[n, dim]")?;
        let [n_queries, dim] = [queries.shape()[0], queries.shape()[1]];
        let allowed = allowed.map(mask).transpose()?;
        let allowed = allowed.as_ref().map(PyReadonlyArray::as_slice).transpose()?;
        let (top_p, queries) = (check_top_p(top_p)?, queries.as_slice()?);
        let (mut similarities, mut ids) = (vec![0.0; n_queries * top_p], vec![0; n_queries * top_p]);
        let search = || -> Result<(), Error> {
            let index = self.read();
            if dim != index.dim() {
                return Err(Error::Dim { got: dim, wanted: index.dim() });
            }
            let parts: Vec<_> = queries
                .chunks(ROWS_PER_PART * dim)
                .zip(similarities.chunks_mut(ROWS_PER_PART * top_p).zip(ids.chunks_mut(ROWS_PER_PART * top_p)))
                .enumerate()
                .collect();
            let fault = FirstFault::new();
            in_parts(parts.into_iter(), threads, IndexScratch::default, |scratch, (part, (queries, into))| {
                let into = into.0.chunks_mut(top_p).zip(into.1.chunks_mut(top_p));
                for (place, (query, into)) in queries.chunks(dim).zip(into).enumerate() {
                    let row = part * ROWS_PER_PART + place;
                    if let Err(error) = index.search(query, row, allowed, into, scratch) {
                        fault.keep(row, error);
                        return;
                    }
                }
            });
            fault.into_result()
        };
        py.detach(search).map_err(raise)?;
        let ids: Vec<i32> = ids.into_iter().map(u32::cast_signed).collect();
        Ok((
            ids.into_pyarray(py).reshape([n_queries, top_p])?,
            similarities.into_pyarray(py).reshape([n_queries, top_p])?,
        ))
    }

    /// Adds rows `[n, dim]` and their owners, int32 `[n]`; returns the number of the first.
    fn add(&self, py: Python<'_>, rows: &Bound<'_, PyAny>, owners: &Bound<'_, PyAny>) -> PyResult<usize> {
        let rows: PyReadonlyArray<'_, f32, numpy::Ix2> = float32("rows", rows, "[n, dim]")?;
        let owners = owners_of(owners, rows.shape()[0])?;
        let (got, rows) = (rows.shape()[1], rows.as_slice()?);
        py.detach(|| {
            let mut index = self.write();
            if got == index.dim() { index.add(rows, &owners) } else { Err(Error::Dim { got, wanted: index.dim() }) }
        })
        .map_err(raise)
    }

    /// Sets how much is compared, int32 `[n, 4]`; see the tensor `index.probes` of a router file.
    fn set_probes(&self, probes: &Bound<'_, PyAny>) -> PyResult<()> {
        let probes: PyReadonlyArray<'_, i32, numpy::Ix2> = contiguous("probes", probes, "int32 [n, 4]")?;
        if probes.shape()[1] != 4 {
            return Err(DataError::new_err(format!("probes: got {:?}, wanted int32 [n, 4]", probes.shape())));
        }
        self.write().set_probes(probes.as_slice()?.as_chunks().0).map_err(raise)
    }

    /// Removes rows by their numbers; none where one of them is not there.
    #[expect(clippy::needless_pass_by_value, reason = "as it comes from Python")]
    fn remove(&self, py: Python<'_>, rows: Vec<usize>) -> PyResult<()> {
        py.detach(|| self.write().remove(&rows)).map_err(raise)
    }
}

fn check_top_p(top_p: usize) -> PyResult<usize> {
    if (1..=centroute_core::artifact::MAX_TOP_P).contains(&top_p) {
        return Ok(top_p);
    }
    Err(DataError::new_err(format!("top_p is {top_p}, wanted 1 to {}", centroute_core::artifact::MAX_TOP_P)))
}

fn mask<'py>(values: &Bound<'py, PyAny>) -> PyResult<PyReadonlyArray<'py, bool, numpy::Ix1>> {
    contiguous("allowed", values, "bool [n_owners]")
}

fn owners_of(values: &Bound<'_, PyAny>, n_rows: usize) -> PyResult<Vec<u32>> {
    let owners: PyReadonlyArray<'_, i32, numpy::Ix1> = contiguous("owners", values, "int32 [n]")?;
    let owners = owners.as_slice()?;
    if owners.len() != n_rows {
        return Err(DataError::new_err(format!("owners: got {} for {n_rows} rows", owners.len())));
    }
    // A negative one becomes too high a number, and is refused as that.
    Ok(owners.iter().map(|owner| owner.cast_unsigned()).collect())
}

/// The arrays of an index by the names that they have in a file.
fn arrays(index: &Bound<'_, PyDict>) -> PyResult<Arrays> {
    fn of<T: Element + Copy>(
        index: &Bound<'_, PyDict>,
        place: usize,
        wanted: &str,
        n_dims: usize,
    ) -> PyResult<(Vec<T>, usize)> {
        let name = NAMES[place];
        let value = index.get_item(name)?.ok_or_else(|| DataError::new_err(format!("index: '{name}' is missing")))?;
        let array: PyReadonlyArray<'_, T, numpy::IxDyn> = contiguous(name, &value, wanted)?;
        if array.shape().len() != n_dims {
            return Err(DataError::new_err(format!("{name}: got {:?}, wanted {wanted}", array.shape())));
        }
        Ok((array.as_slice()?.to_vec(), array.shape()[0]))
    }
    let probes: Vec<i32> = of(index, 6, "int32 [n_probes, 4]", 2)?.0;
    if !probes.len().is_multiple_of(4) {
        return Err(DataError::new_err(format!(
            "index.probes: got {} numbers, wanted int32 [n_probes, 4]",
            probes.len()
        )));
    }
    let (projection, width) = of(index, 0, "float32 [width, dim]", 2)?;
    Ok(Arrays {
        width,
        projection,
        groups: of(index, 1, "float32 [n_groups, width]", 2)?.0,
        lists: of(index, 2, "float32 [n_lists, width]", 2)?.0,
        group_offsets: of(index, 3, "int32 [n_groups + 1]", 1)?.0,
        list_offsets: of(index, 4, "int32 [n_lists + 1]", 1)?.0,
        members: of(index, 5, "int32 [n_members]", 1)?.0,
        probes: probes.as_chunks().0.to_vec(),
    })
}

/// Copies of the arrays of an index by the names that they have in a file.
pub fn index_tensors<'py>(py: Python<'py>, parts: &Parts, dim: usize) -> PyResult<Bound<'py, PyDict>> {
    let width = parts.projection.len() / dim;
    let tensors = PyDict::new(py);
    let floats = [(&parts.projection, dim), (&parts.groups, width), (&parts.lists, width)];
    for (name, (values, columns)) in NAMES.iter().zip(floats) {
        tensors.set_item(name, PyArray1::from_slice(py, values).reshape([values.len() / columns, columns])?)?;
    }
    let whole =
        |values: &mut dyn Iterator<Item = usize>| values.map(|value| (value as u32).cast_signed()).collect::<Vec<_>>();
    for (name, values) in NAMES[3..].iter().zip([
        whole(&mut parts.group_offsets.iter().copied()),
        whole(&mut parts.list_offsets.iter().copied()),
        whole(&mut parts.members.iter().map(|&row| row as usize)),
    ]) {
        tensors.set_item(name, values.into_pyarray(py))?;
    }
    let probes = parts.probes.iter().flat_map(|probe| [probe.depth, probe.n_groups, probe.n_lists, probe.n_candidates]);
    let probes = whole(&mut probes.into_iter());
    tensors.set_item(NAMES[6], probes.into_pyarray(py).reshape([parts.probes.len(), 4])?)?;
    Ok(tensors)
}
