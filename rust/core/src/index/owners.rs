//! Rows and whom each belongs to; a choice of owners in, whether a row is allowed out.

use crate::error::Error;
use crate::index::NONE;

/// Whom each row belongs to. Removed rows belong to nobody.
#[derive(Clone, Debug, Default)]
pub struct Owners {
    of_row: Vec<u32>,
    /// Rows by owner: those of owner `o` begin at `starts[o]`. Later rows are not among them.
    rows: Vec<u32>,
    starts: Vec<u32>,
    /// Rows of each owner that are not removed.
    counts: Vec<u32>,
    n_live: usize,
}

/// The rows that one search may find.
#[derive(Clone, Copy, Debug)]
pub struct Filter<'a> {
    owners: &'a Owners,
    /// By owner; `None` where all are allowed.
    allowed: Option<&'a [bool]>,
    n_allowed: usize,
}

impl Owners {
    /// Takes the owner of each row, each below `n_owners`.
    pub fn new(of_row: Vec<u32>, n_owners: usize) -> Result<Self, Error> {
        check(&of_row, n_owners)?;
        let mut counts = vec![0; n_owners];
        for &owner in &of_row {
            counts[owner as usize] += 1;
        }
        let mut starts = vec![0];
        for (owner, count) in counts.iter().enumerate() {
            starts.push(starts[owner] + count);
        }
        let (mut next, mut rows) = (starts.clone(), vec![0; of_row.len()]);
        for (row, &owner) in of_row.iter().enumerate() {
            let place = &mut next[owner as usize];
            rows[*place as usize] = row as u32;
            *place += 1;
        }
        Ok(Self { n_live: of_row.len(), of_row, rows, starts, counts })
    }

    /// Number of owners.
    #[must_use]
    pub fn n_owners(&self) -> usize {
        self.counts.len()
    }

    /// Rows that are not removed.
    #[must_use]
    pub fn n_live(&self) -> usize {
        self.n_live
    }

    /// Owner of each row, `None` where it was removed.
    #[must_use]
    pub fn of_rows(&self) -> impl ExactSizeIterator<Item = Option<u32>> {
        self.of_row.iter().map(|&owner| (owner != NONE).then_some(owner))
    }

    /// Adds rows; an owner that is new makes the number of owners larger.
    pub fn add(&mut self, owners: &[u32]) {
        for &owner in owners {
            if owner as usize >= self.counts.len() {
                self.counts.resize(owner as usize + 1, 0);
            }
            self.counts[owner as usize] += 1;
        }
        self.of_row.extend_from_slice(owners);
        self.n_live += owners.len();
    }

    /// Removes a row; false where there is none of this number.
    pub fn remove(&mut self, row: usize) -> bool {
        let Some(owner) = self.of_row.get_mut(row).filter(|owner| **owner != NONE) else { return false };
        self.counts[*owner as usize] -= 1;
        self.n_live -= 1;
        *owner = NONE;
        true
    }

    /// What a choice of owners allows, `None` where it allows everything there is.
    pub fn filter<'a>(&'a self, allowed: Option<&'a [bool]>) -> Result<Option<Filter<'a>>, Error> {
        let Some(chosen) = allowed else {
            let is_whole = self.n_live == self.of_row.len();
            return Ok((!is_whole).then_some(Filter { owners: self, allowed, n_allowed: self.n_live }));
        };
        if chosen.len() != self.counts.len() {
            return Err(Error::FilterLength { got: chosen.len(), wanted: self.counts.len() });
        }
        let n_allowed = self.counts.iter().zip(chosen).map(|(&count, &chosen)| u32::from(chosen) * count).sum::<u32>();
        if n_allowed == 0 {
            let n_chosen = chosen.iter().filter(|&&chosen| chosen).count();
            let (n_live, n_owners) = (self.n_live, self.counts.len());
            return Err(Error::NoCandidate(format!(
                "the filter allows {n_chosen} of {n_owners} owners, and none of the {n_live} rows is theirs"
            )));
        }
        Ok(Some(Filter { owners: self, allowed, n_allowed: n_allowed as usize }))
    }
}

impl Filter<'_> {
    /// Number of rows that are allowed.
    #[must_use]
    pub fn n_allowed(&self) -> usize {
        self.n_allowed
    }

    /// Whether a row is allowed.
    #[inline]
    #[must_use]
    pub fn allows(&self, row: u32) -> bool {
        let owner = self.owners.of_row[row as usize];
        owner != NONE && self.allowed.is_none_or(|allowed| allowed[owner as usize])
    }

    /// Calls `each` with every row that is allowed.
    pub fn for_each(&self, mut each: impl FnMut(u32)) {
        let Owners { of_row, rows, starts, .. } = self.owners;
        let Some(allowed) = self.allowed else {
            return (0..of_row.len() as u32).filter(|&row| self.allows(row)).for_each(each);
        };
        for (owner, pair) in starts.windows(2).enumerate() {
            if allowed[owner] {
                let rows = &rows[pair[0] as usize..pair[1] as usize];
                rows.iter().filter(|&&row| of_row[row as usize] != NONE).for_each(|&row| each(row));
            }
        }
        (rows.len() as u32..of_row.len() as u32).filter(|&row| self.allows(row)).for_each(each);
    }
}

fn check(owners: &[u32], n_owners: usize) -> Result<(), Error> {
    match owners.iter().position(|&owner| owner as usize >= n_owners) {
        Some(row) => Err(Error::Owner { row, owner: owners[row], n_owners }),
        None => Ok(()),
    }
}
