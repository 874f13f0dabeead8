//! Many rows `[n_rows, dim]` in; the nearest of them to a query out, without comparing it with all.
//!
//! A two-level inverted file. Every row lies in the list of the centroid nearest to it and in a second one, on another
//! side of it; lists lie in groups of neighbours. A query is compared with the groups, with the lists of the nearest
//! groups, and with the rows of the nearest lists, each time by [`codes`]; the best are scored again in f32. How many
//! groups, lists and candidates these are was measured when the index was built ([`Probe`]), so that the wanted share of
//! the true neighbours is found. Rows that came later lie behind the lists and are compared with every query.
//!
//! `python/centroute/calibrate/index.py` builds it; [`parts`] checks what was built.

pub mod codes;
pub mod owners;
pub mod parts;
pub mod rows;
pub mod shortlist;

use std::ops::Range;

use crate::assign::Best;
use crate::error::Error;
use crate::simd::{Isa, Kernels, LANES};
use codes::{ByteRows, Coder, Codes, Projection};
use owners::Filter;
use parts::Parts;
use shortlist::Shortlist;

/// The number of no row, list or owner.
const NONE: u32 = u32::MAX;

/// Rows that are scored in f32 beyond twice as many as are asked for: bytes order what is close otherwise.
const MORE_FINALISTS: usize = 16;

/// How much is compared to find a number of neighbours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Neighbours that it was measured for.
    pub depth: usize,
    /// Nearest groups whose lists are compared.
    pub n_groups: usize,
    /// Nearest lists whose rows are compared.
    pub n_lists: usize,
    /// Nearest rows that are scored again.
    pub n_candidates: usize,
}

/// Rows laid out to be searched; the rows themselves stay with the caller.
#[derive(Clone, Debug)]
pub struct Index {
    kernels: &'static Kernels,
    dim: usize,
    projection: Projection,
    groups: Codes,
    lists: Codes,
    /// First panel of the lists of each group, and the end.
    group_panels: Vec<u32>,
    members: Codes,
    /// First panel of the members of each list, and where the rows begin that lie in none.
    list_panels: Vec<u32>,
    /// The rows themselves.
    bytes: ByteRows,
    /// Ascending in depth.
    probes: Vec<Probe>,
}

/// Buffers of a search.
#[derive(Clone, Debug, Default)]
pub struct IndexScratch {
    coder: Coder,
    groups: Shortlist,
    lists: Shortlist,
    /// Rows that may be found.
    rows: Shortlist,
    /// Under a filter the nearest rows of all.
    near: Shortlist,
    finalists: Shortlist,
    scored: Vec<(f32, u32)>,
}

impl IndexScratch {
    /// Whether `top_p` rows that a filter allows are as near as the probe was measured for. Where the filter has little
    /// left of what is near the query, they may lie in lists that were not looked at.
    fn holds(&mut self, probe: &Probe, top_p: usize, filter: &Filter<'_>) -> bool {
        self.near.sorted().take(probe.depth).filter(|&row| filter.allows(row)).count() >= top_p
    }
}

impl Index {
    /// Lays out checked parts for the rows `[n_rows, dim]` that they are of.
    #[must_use]
    pub fn new(parts: &Parts, rows: &[f32], dim: usize, isa: Isa) -> Self {
        let kernels = isa.kernels();
        let projection = Projection::new(&parts.projection, dim, kernels);
        let width = projection.width();
        let mut coder = Coder::default();
        let mut groups = Codes::new(width);
        for (group, centroid) in parts.groups.chunks_exact(width).enumerate() {
            let unit = coder.take(kernels, centroid);
            groups.push(&coder.code, unit, group as u32);
        }
        let mut lists = Codes::new(width);
        let mut group_panels = vec![0];
        for range in ranges(&parts.group_offsets) {
            for list in range {
                let unit = coder.take(kernels, &parts.lists[list * width..][..width]);
                lists.push(&coder.code, unit, list as u32);
            }
            group_panels.push(lists.end_panel());
        }
        let mut index = Self {
            kernels,
            dim,
            projection,
            groups,
            lists,
            group_panels,
            members: Codes::new(width),
            list_panels: vec![0],
            bytes: ByteRows::default(),
            probes: parts.probes.clone(),
        };
        let mut codes = Vec::with_capacity(parts.n_listed * coder.code.len());
        let mut units = Vec::with_capacity(parts.n_listed);
        for values in rows.chunks_exact(dim).take(parts.n_listed) {
            let (byte_unit, unit) = index.projection.code(kernels, values, &mut coder);
            index.bytes.push(&coder.bytes, byte_unit);
            codes.extend_from_slice(&coder.code);
            units.push(unit);
        }
        let n_bytes = coder.code.len();
        for range in ranges(&parts.list_offsets) {
            for &row in &parts.members[range] {
                let at = row as usize;
                index.members.push(&codes[at * n_bytes..][..n_bytes], units[at], row);
            }
            let panel = index.members.end_panel();
            index.list_panels.push(panel);
        }
        for (row, values) in rows.chunks_exact(dim).enumerate().skip(parts.n_listed) {
            index.push(values, row as u32, &mut coder);
        }
        index
    }

    /// Sets how much is compared; see [`Parts::check`].
    pub fn set_probes(&mut self, probes: &[[i32; 4]]) -> Result<(), Error> {
        self.probes = parts::check_probes(probes, self.group_panels.len() - 1, self.list_panels.len() - 1)?;
        Ok(())
    }

    /// Adds a row behind the lists.
    pub fn push(&mut self, values: &[f32], row: u32, coder: &mut Coder) {
        let (byte_unit, unit) = self.projection.code(self.kernels, values, coder);
        self.bytes.push(&coder.bytes, byte_unit);
        self.members.push(&coder.code, unit, row);
    }

    /// Puts the rows of the highest inner products with a query into `best`, whatever it holds; of those that a filter
    /// allows, where there is one. Places that no row is left for hold negative infinity.
    pub fn search(
        &self,
        rows: &[f32],
        query: &[f32],
        filter: Option<&Filter<'_>>,
        best: &mut Best<'_>,
        scratch: &mut IndexScratch,
    ) {
        let (top_p, n_rows) = (best.ids().len(), rows.len() / self.dim);
        let n_allowed = filter.map_or(n_rows, Filter::n_allowed);
        self.projection.code(self.kernels, query, &mut scratch.coder);
        // Where a share of the rows is allowed, the nearest of these lie that much deeper among all; twice that, as it is
        // a matter of chance.
        let mut depth = filter.map_or(top_p, |_| (2 * top_p).saturating_mul(n_rows).div_ceil(n_allowed.max(1)));
        while let Some(probe) = self.probe(top_p, depth)
            && self.bytes_compared(&probe) < n_allowed * self.dim * size_of::<f32>()
        {
            self.compare(&probe, filter, scratch);
            if filter.is_none_or(|filter| scratch.holds(&probe, top_p, filter)) {
                self.score(rows, query, best, scratch);
                // The nearest lists may hold too few.
                if best.worst() > f32::NEG_INFINITY {
                    return;
                }
            }
            depth = probe.depth + 1;
        }
        best.clear();
        let score = |row: u32| (self.kernels.dot_f32)(query, &rows[row as usize * self.dim..][..self.dim]);
        match filter {
            Some(filter) => filter.for_each(|row| best.offer(score(row), row)),
            None => (0..n_rows as u32).for_each(|row| best.offer(score(row), row)),
        }
    }

    /// What to compare for `top_p` neighbours that are among the `depth` nearest of all rows; none where that was never
    /// measured.
    fn probe(&self, top_p: usize, depth: usize) -> Option<Probe> {
        let probe = self.probes.iter().find(|probe| probe.depth >= depth)?;
        // A row that lies in two lists takes two places.
        let n_candidates = self.probes.iter().find(|probe| probe.depth >= top_p)?.n_candidates.max(2 * top_p);
        Some(Probe { n_candidates, ..*probe })
    }

    /// About how many bytes a probe reads.
    fn bytes_compared(&self, probe: &Probe) -> usize {
        let n_lists = self.list_panels.len() - 1;
        let n_panels = self.lists.n_panels() + probe.n_lists * self.members.n_panels() / n_lists;
        n_panels * LANES * self.projection.width()
    }

    /// Collects the nearest rows of the nearest lists of the nearest groups, and of those in no list; under a filter also
    /// the nearest that it does not allow.
    fn compare(&self, probe: &Probe, filter: Option<&Filter<'_>>, scratch: &mut IndexScratch) {
        let IndexScratch { coder: Coder { code, .. }, groups, lists, rows, near, .. } = scratch;
        groups.start(probe.n_groups);
        self.offer_panels(&self.groups, 0..self.groups.n_panels(), code, groups);
        lists.start(probe.n_lists);
        for group in groups.sorted() {
            self.offer_panels(&self.lists, range_of(&self.group_panels, group), code, lists);
        }
        rows.start(probe.n_candidates);
        near.start(2 * probe.depth);
        let behind = self.list_panels.last().map_or(0, |&panel| panel as usize)..self.members.n_panels();
        for panels in lists.sorted().map(|list| range_of(&self.list_panels, list)).chain([behind]) {
            match filter {
                None => self.offer_panels(&self.members, panels, code, rows),
                Some(filter) => self.offer_allowed(panels, code, filter, rows, near),
            }
        }
    }

    /// Offers the codes of panels to a shortlist.
    #[inline]
    fn offer_panels(&self, codes: &Codes, panels: Range<usize>, code: &[u8], into: &mut Shortlist) {
        for panel in panels {
            let similarities = codes.similarities(self.kernels, code, panel);
            let ids = codes.ids(panel);
            for lane in lanes_of(into.likely(self.kernels, &similarities)) {
                if ids[lane] != NONE {
                    into.offer(similarities.0[lane], ids[lane]);
                }
            }
        }
    }

    /// Offers the rows of panels to one shortlist, and those that a filter allows to another as well.
    fn offer_allowed(
        &self,
        panels: Range<usize>,
        code: &[u8],
        filter: &Filter<'_>,
        allowed: &mut Shortlist,
        all: &mut Shortlist,
    ) {
        for panel in panels {
            let similarities = self.members.similarities(self.kernels, code, panel);
            let ids = self.members.ids(panel);
            for lane in lanes_of(all.likely(self.kernels, &similarities)) {
                if ids[lane] != NONE {
                    all.offer(similarities.0[lane], ids[lane]);
                }
            }
            for lane in lanes_of(allowed.likely(self.kernels, &similarities)) {
                if ids[lane] != NONE && filter.allows(ids[lane]) {
                    allowed.offer(similarities.0[lane], ids[lane]);
                }
            }
        }
    }

    /// Scores the collected rows by their bytes, and the best of these in f32.
    fn score(&self, rows: &[f32], query: &[f32], best: &mut Best<'_>, scratch: &mut IndexScratch) {
        let IndexScratch { coder, rows: nearest, finalists, scored, .. } = scratch;
        finalists.start(2 * (2 * best.ids().len() + MORE_FINALISTS));
        self.bytes.similarities(self.kernels, &coder.bytes, nearest.unsorted(), |row, similarity| {
            finalists.offer(similarity, row);
        });
        scored.clear();
        // Apart from the offers, so that one row is fetched while another is multiplied.
        scored.extend(finalists.sorted().map(|row| {
            let values = &rows[row as usize * self.dim..][..self.dim];
            ((self.kernels.dot_f32)(query, values), row)
        }));
        best.clear();
        for &(similarity, row) in scored.iter() {
            best.offer(similarity, row);
        }
    }
}

/// The lanes whose bits are set.
#[inline]
fn lanes_of(mut mask: u32) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let lane = mask.trailing_zeros() as usize;
        (mask != 0).then(|| {
            mask &= mask - 1;
            lane
        })
    })
}

fn ranges(offsets: &[usize]) -> impl Iterator<Item = Range<usize>> {
    offsets.windows(2).map(|pair| pair[0]..pair[1])
}

#[inline]
fn range_of(panels: &[u32], place: u32) -> Range<usize> {
    panels[place as usize] as usize..panels[place as usize + 1] as usize
}
