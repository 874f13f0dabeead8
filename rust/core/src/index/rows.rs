//! Rows with owners that are searched by an index, or one by one where they are few; rows come and go.

use crate::assign::{Best, norm};
use crate::error::Error;
use crate::index::codes::Coder;
use crate::index::owners::Owners;
use crate::index::parts::Parts;
use crate::index::{Index, IndexScratch};
use crate::simd::{Isa, Kernels};

/// Rows `[n_rows, dim]` and whom each belongs to. A row keeps its number until the index is built anew.
#[derive(Clone, Debug)]
pub struct RowIndex {
    dim: usize,
    rows: Vec<f32>,
    owners: Owners,
    index: Option<Index>,
    kernels: &'static Kernels,
    coder: Coder,
}

impl RowIndex {
    /// Takes unit rows, their owners and the parts of an index, where there is one.
    pub fn new(rows: Vec<f32>, dim: usize, owners: Owners, parts: Option<&Parts>, isa: Isa) -> Result<Self, Error> {
        check_rows(&rows, dim)?;
        let index = parts.map(|parts| Index::new(parts, &rows, dim, isa));
        Ok(Self { dim, rows, owners, index, kernels: isa.kernels(), coder: Coder::default() })
    }

    /// Width of a row.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Rows `[n_rows, dim]`, the removed ones among them.
    #[must_use]
    pub fn rows(&self) -> &[f32] {
        &self.rows
    }

    /// Whom the rows belong to.
    #[must_use]
    pub fn owners(&self) -> &Owners {
        &self.owners
    }

    /// Adds unit rows `[n, dim]` behind the others; an owner may be new, numbered on from the last. Returns the number of
    /// the first.
    pub fn add(&mut self, rows: &[f32], owners: &[u32]) -> Result<usize, Error> {
        check_rows(rows, self.dim)?;
        let n_owners = self.owners.n_owners() + owners.len();
        if let Some(row) = owners.iter().position(|&owner| owner as usize >= n_owners) {
            return Err(Error::Owner { row, owner: owners[row], n_owners });
        }
        let first = self.rows.len() / self.dim;
        if let Some(index) = &mut self.index {
            for (place, values) in rows.chunks_exact(self.dim).enumerate() {
                index.push(values, (first + place) as u32, &mut self.coder);
            }
        }
        self.rows.extend_from_slice(rows);
        self.owners.add(owners);
        Ok(first)
    }

    /// Sets how much is compared, where there is an index.
    pub fn set_probes(&mut self, probes: &[[i32; 4]]) -> Result<(), Error> {
        self.index.as_mut().map_or(Ok(()), |index| index.set_probes(probes))
    }

    /// Removes rows by their numbers; none is removed where one of them is not there.
    pub fn remove(&mut self, rows: &[usize]) -> Result<(), Error> {
        let mut left = self.owners.clone();
        for &row in rows {
            if !left.remove(row) {
                return Err(Error::NoRow { row, n_rows: self.rows.len() / self.dim });
            }
        }
        self.owners = left;
        Ok(())
    }

    /// Puts the cosines and numbers of the nearest rows of one query, nearest first, into `similarities` and `ids`, of the
    /// owners that are allowed; returns how many there are. `row` is only named in errors.
    pub fn search(
        &self,
        query: &[f32],
        row: usize,
        allowed: Option<&[bool]>,
        (similarities, ids): (&mut [f32], &mut [u32]),
        scratch: &mut IndexScratch,
    ) -> Result<usize, Error> {
        if query.len() != self.dim {
            return Err(Error::Dim { got: query.len(), wanted: self.dim });
        }
        let norm = norm(self.kernels, query, row)?;
        let filter = self.owners.filter(allowed)?;
        let mut best = Best::new(similarities, ids);
        if let Some(index) = &self.index {
            index.search(&self.rows, query, filter.as_ref(), &mut best, scratch);
        } else {
            best.clear();
            let mut each = |row: u32| {
                let values = &self.rows[row as usize * self.dim..][..self.dim];
                best.offer((self.kernels.dot_f32)(query, values), row);
            };
            match &filter {
                Some(filter) => filter.for_each(each),
                None => (0..(self.rows.len() / self.dim) as u32).for_each(&mut each),
            }
        }
        for similarity in &mut *similarities {
            *similarity *= norm.recip();
        }
        Ok(ids.len().min(filter.map_or(self.rows.len() / self.dim, |filter| filter.n_allowed())))
    }
}

/// How far the norm of a row may be from one.
const NORM_TOLERANCE: f32 = 1e-3;

fn check_rows(rows: &[f32], dim: usize) -> Result<(), Error> {
    for (row, values) in rows.chunks_exact(dim).enumerate() {
        let squared: f32 = values.iter().map(|value| value * value).sum();
        if squared.is_nan() || (squared.sqrt() - 1.0).abs() > NORM_TOLERANCE {
            return Err(Error::Row { row, what: "its norm is not one" });
        }
    }
    Ok(())
}
