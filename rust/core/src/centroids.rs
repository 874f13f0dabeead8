//! Centroid rows `[n_clusters, dim]` in; a table to search them by inner product, in one of three precisions.
//!
//! `f32` is searched directly. `f16` and `i8` are searched approximately, with a bound on the error that
//! Cauchy and Schwarz give, `|q·c - q̂·ĉ| <= |q| |c - ĉ| + |q - q̂| |ĉ|`; every cluster that the bound cannot
//! rule out is scored again with its f32 row, so that the chosen clusters are those of f32. Very many are searched by an
//! index instead, which finds nearly all of these.

use crate::assign::Best;
use crate::index::parts::Parts;
use crate::index::{Index, IndexScratch};
use crate::simd::serial::{f16_from_f32, f32_from_f16};
use crate::simd::{
    BYTES_PER_LANE, ByteLanes, ByteTile, GROUP_CLUSTERS, GROUP_PANELS, HalfLanes, Isa, Kernels, LANES, Lanes,
    TILE_QUERIES, Tile,
};

/// Clusters from which a batch is searched in bytes where the table is.
const BYTES_IN_BATCHES_FROM: usize = 256;
/// Approximate similarities that a block may keep: a megabyte.
const MAX_KEPT_SIMILARITIES: usize = 1 << 18;
/// Widest rows that are searched in bytes: the integer sums of wider ones could overflow.
pub const MAX_BYTE_DIM: usize = 1 << 16;
/// Room for the rounding of the f32 sums themselves, in units of the product of norms.
const ROUNDING: f32 = 1e-5;

/// In which precision centroids are searched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Precision {
    /// Four bytes a value, searched directly.
    #[default]
    F32,
    /// Two bytes a value; the best are scored again.
    F16,
    /// One byte a value and a scale a row; the best are scored again.
    I8,
}

impl Precision {
    /// The precision of a name: `f32`, `f16` or `i8`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "f32" => Some(Self::F32),
            "f16" => Some(Self::F16),
            "i8" => Some(Self::I8),
            _ => None,
        }
    }

    /// `f32`, `f16` or `i8`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::I8 => "i8",
        }
    }
}

/// Centroids laid out for searching; see [`crate::simd`] for panels.
#[derive(Debug)]
pub struct Centroids {
    dim: usize,
    n_clusters: usize,
    rows: Vec<f32>,
    table: Table,
    isa: Isa,
    kernels: &'static Kernels,
}

#[derive(Debug)]
enum Table {
    F32(Vec<Lanes>),
    F16 { panels: Vec<HalfLanes>, row_error: f32 },
    I8 { panels: Vec<ByteLanes>, lanes: Vec<ByteScales>, row_error: f32 },
    Indexed { index: Box<Index>, precision: Precision },
}

/// What turns sixteen integer sums back into similarities.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct ByteScales {
    /// Value of one unit of the row.
    pub(crate) scale: [f32; LANES],
    /// 128 times the sum of the row's bytes: what the query's offset added.
    pub(crate) offset: [i32; LANES],
}

/// Buffers of a search.
#[derive(Clone, Debug, Default)]
pub struct SearchScratch {
    tile: Tile,
    /// Approximate similarities of one query, or of those of a block one after another, to all clusters.
    approximate: Vec<Lanes>,
    quantized: Vec<u8>,
    /// Of each quantized query the value of one unit, and how far its bytes are from it.
    units: Vec<(f32, f32)>,
    /// Panels unpacked for a batch where the table is not f32.
    panels: Vec<Lanes>,
    /// The clusters of the best approximate similarities, and those similarities.
    likely: (Vec<f32>, Vec<u32>),
    index: IndexScratch,
}

impl Centroids {
    /// Lays out rows `[n_clusters, dim]`.
    #[must_use]
    pub fn new(rows: Vec<f32>, dim: usize, precision: Precision, isa: Isa) -> Self {
        let n_clusters = rows.len() / dim;
        let table = match precision {
            Precision::F32 => Table::F32(pack(&rows, dim)),
            Precision::F16 => pack_f16(&rows, dim),
            Precision::I8 => pack_i8(&rows, dim),
        };
        Self { dim, n_clusters, rows, table, isa, kernels: isa.kernels() }
    }

    /// Lays out rows `[n_clusters, dim]` to be searched by an index; `precision` is that in which they were stored.
    #[must_use]
    pub fn indexed(rows: Vec<f32>, dim: usize, parts: &Parts, precision: Precision, isa: Isa) -> Self {
        let index = Box::new(Index::new(parts, &rows, dim, isa));
        let table = Table::Indexed { index, precision };
        Self { dim, n_clusters: rows.len() / dim, rows, table, isa, kernels: isa.kernels() }
    }

    /// Whether an index is searched, and not all centroids.
    #[must_use]
    pub fn is_indexed(&self) -> bool {
        matches!(self.table, Table::Indexed { .. })
    }

    /// Number of centroids.
    #[must_use]
    pub fn n_clusters(&self) -> usize {
        self.n_clusters
    }

    /// Width of a row.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Rows `[n_clusters, dim]`.
    #[must_use]
    pub fn rows(&self) -> &[f32] {
        &self.rows
    }

    /// The precision that one query is searched in.
    #[must_use]
    pub fn precision(&self) -> Precision {
        match self.table {
            Table::F32(_) => Precision::F32,
            Table::F16 { .. } => Precision::F16,
            Table::I8 { .. } => Precision::I8,
            Table::Indexed { precision, .. } => precision,
        }
    }

    /// The instruction set in use.
    #[must_use]
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// The inner loops in use.
    #[must_use]
    pub fn kernels(&self) -> &'static Kernels {
        self.kernels
    }

    /// Puts the clusters of the highest inner products with one query into `best`, whatever it holds.
    pub fn search(&self, query: &[f32], norm: f32, best: &mut Best<'_>, scratch: &mut SearchScratch) {
        debug_assert_eq!(query.len(), self.dim);
        let n_panels = self.n_clusters.div_ceil(LANES);
        match &self.table {
            Table::F32(panels) => {
                for (group, panels) in panels.chunks(GROUP_PANELS * self.dim).enumerate() {
                    let out = &mut scratch.tile[0][..panels.len() / self.dim];
                    (self.kernels.group_f32)(query, panels, out);
                    self.gather(group * GROUP_CLUSTERS, out, best);
                }
            }
            Table::F16 { panels, row_error } => {
                scratch.approximate.resize(n_panels, Lanes::default());
                let groups = panels.chunks(GROUP_PANELS * self.dim);
                for (panels, out) in groups.zip(scratch.approximate.chunks_mut(GROUP_PANELS)) {
                    (self.kernels.group_f16)(query, panels, out);
                }
                let SearchScratch { approximate, likely, .. } = scratch;
                self.rescore(query, norm * (row_error + ROUNDING), approximate, best, likely);
            }
            Table::I8 { panels, lanes, row_error } => {
                scratch.approximate.resize(n_panels, Lanes::default());
                scratch.quantized.clear();
                scratch.quantized.resize(self.dim.next_multiple_of(BYTES_PER_LANE), 128);
                let (scale, query_error) = (self.kernels.quantize)(query, &mut scratch.quantized);
                let groups = panels.chunks(GROUP_PANELS * self.dim.div_ceil(BYTES_PER_LANE));
                let outs = scratch.approximate.chunks_mut(GROUP_PANELS).zip(lanes.chunks(GROUP_PANELS));
                for (panels, (out, lanes)) in groups.zip(outs) {
                    let mut sums = [[0; LANES]; GROUP_PANELS];
                    (self.kernels.group_i8)(&scratch.quantized, panels, &mut sums[..out.len()]);
                    approximate_group(&sums, scale, lanes, out);
                }
                let SearchScratch { approximate, likely, .. } = scratch;
                self.rescore(query, byte_bound(norm, *row_error, query_error), approximate, best, likely);
            }
            Table::Indexed { index, .. } => self.search_index(index, query, best, scratch),
        }
    }

    /// Apart, so that a search without an index has no part in its stack frame.
    #[cold]
    fn search_index(&self, index: &Index, query: &[f32], best: &mut Best<'_>, scratch: &mut SearchScratch) {
        index.search(&self.rows, query, None, best, &mut scratch.index);
    }

    /// Takes the best of a group, whose first lane is cluster `first`; the first group starts anew.
    #[inline]
    fn gather(&self, first: usize, group: &[Lanes], best: &mut Best<'_>) {
        if first == 0 {
            best.start(self.kernels, group, self.n_clusters);
        } else {
            best.scan(self.kernels, group, first, self.n_clusters);
        }
    }

    /// Scores again, in f32, every cluster that may be among the best when similarities are off by `bound`.
    fn rescore(
        &self,
        query: &[f32],
        bound: f32,
        approximate: &[Lanes],
        best: &mut Best<'_>,
        (similarities, ids): &mut (Vec<f32>, Vec<u32>),
    ) {
        similarities.resize(best.ids().len(), 0.0);
        ids.resize(best.ids().len(), 0);
        let mut likely = Best::new(similarities, ids);
        for (group, lanes) in approximate.chunks(GROUP_PANELS).enumerate() {
            self.gather(group * GROUP_CLUSTERS, lanes, &mut likely);
        }
        let score = |cluster: u32| (self.kernels.dot_f32)(query, &self.rows[cluster as usize * self.dim..][..self.dim]);
        best.clear();
        for &cluster in likely.ids() {
            best.offer(score(cluster), cluster);
        }
        // A rival's inner product is at most its approximation and the bound.
        let threshold = (best.worst() - bound).next_down();
        for (panel, lanes) in approximate.iter().enumerate() {
            let mut mask = (self.kernels.above)(lanes, threshold);
            while mask != 0 {
                let cluster = (panel * LANES) as u32 + mask.trailing_zeros();
                mask &= mask - 1;
                if (cluster as usize) < self.n_clusters && !likely.ids().contains(&cluster) {
                    best.offer(score(cluster), cluster);
                }
            }
        }
    }

    /// Queries whose best clusters are kept while all panels pass by: they and a group fit the second cache. Where each
    /// group is unpacked for a block, more share that work; where similarities are kept, they fit too.
    #[must_use]
    pub fn queries_per_block(&self) -> usize {
        match self.table {
            Table::F32(_) => 192,
            Table::I8 { .. } if self.n_clusters >= BYTES_IN_BATCHES_FROM => {
                (MAX_KEPT_SIMILARITIES / self.n_clusters).clamp(TILE_QUERIES, 192)
            }
            _ => 768,
        }
    }

    /// The same for a block of rows; `norms` holds one a row, `similarities` and `ids` receive `top_p` a row.
    ///
    /// Few clusters are searched in f32 whatever the table: there the arithmetic saved would not pay for scoring again.
    pub fn search_block(
        &self,
        queries: &[f32],
        norms: &[f32],
        similarities: &mut [f32],
        ids: &mut [u32],
        scratch: &mut SearchScratch,
    ) {
        let top_p = similarities.len() / norms.len();
        if self.is_indexed() {
            let states = similarities.chunks_mut(top_p).zip(ids.chunks_mut(top_p));
            for ((query, norm), (similarities, ids)) in queries.chunks_exact(self.dim).zip(norms).zip(states) {
                self.search(query, *norm, &mut Best::new(similarities, ids), scratch);
            }
            return;
        }
        if let Table::I8 { panels, lanes, row_error } = &self.table
            && self.n_clusters >= BYTES_IN_BATCHES_FROM
        {
            self.approximate_block(queries, panels, lanes, scratch);
            let SearchScratch { approximate, units, likely, .. } = scratch;
            let rows = queries.chunks_exact(self.dim).zip(approximate.chunks_exact(lanes.len()));
            let bounds = norms.iter().zip(units).map(|(norm, (_, error))| byte_bound(*norm, *row_error, *error));
            let states = similarities.chunks_mut(top_p).zip(ids.chunks_mut(top_p));
            for (((query, approximate), bound), (similarities, ids)) in rows.zip(bounds).zip(states) {
                self.rescore(query, bound, approximate, &mut Best::new(similarities, ids), likely);
            }
            return;
        }
        for first in (0..self.n_clusters).step_by(GROUP_CLUSTERS) {
            let n_panels = (self.n_clusters - first).div_ceil(LANES).min(GROUP_PANELS);
            let panels = if let Table::F32(panels) = &self.table {
                &panels[first / LANES * self.dim..][..n_panels * self.dim]
            } else {
                let last = (first + GROUP_CLUSTERS).min(self.n_clusters);
                pack_into(&self.rows[first * self.dim..last * self.dim], self.dim, &mut scratch.panels);
                &scratch.panels
            };
            let states = similarities.chunks_mut(TILE_QUERIES * top_p).zip(ids.chunks_mut(TILE_QUERIES * top_p));
            for (queries, (similarities, ids)) in queries.chunks(TILE_QUERIES * self.dim).zip(states) {
                (self.kernels.tile_f32)(queries, self.dim, panels, &mut scratch.tile);
                let states = similarities.chunks_mut(top_p).zip(ids.chunks_mut(top_p));
                for ((similarities, ids), out) in states.zip(&scratch.tile) {
                    self.gather(first, &out[..n_panels], &mut Best::new(similarities, ids));
                }
            }
        }
    }

    /// Approximate similarities of a block of rows to all clusters, with their units, into the scratch.
    fn approximate_block(
        &self,
        queries: &[f32],
        panels: &[ByteLanes],
        lanes: &[ByteScales],
        scratch: &mut SearchScratch,
    ) {
        let n_queries = queries.len() / self.dim;
        let n_bytes = self.dim.next_multiple_of(BYTES_PER_LANE);
        let SearchScratch { quantized, units, approximate, .. } = scratch;
        quantized.clear();
        quantized.resize(n_queries * n_bytes, 128);
        let rows = queries.chunks_exact(self.dim).zip(quantized.chunks_exact_mut(n_bytes));
        units.clear();
        units.extend(rows.map(|(query, out)| (self.kernels.quantize)(query, out)));
        approximate.resize(n_queries * lanes.len(), Lanes::default());
        let groups = panels.chunks(GROUP_PANELS * n_bytes / BYTES_PER_LANE).zip(lanes.chunks(GROUP_PANELS));
        for (group, (panels, group_lanes)) in groups.enumerate() {
            let tiles =
                quantized.chunks(TILE_QUERIES * n_bytes).zip(approximate.chunks_mut(TILE_QUERIES * lanes.len()));
            for ((queries, outs), units) in tiles.zip(units.chunks(TILE_QUERIES)) {
                let mut sums = ByteTile::default();
                (self.kernels.tile_i8)(queries, n_bytes, panels, &mut sums);
                for ((sums, &(scale, _)), out) in sums.iter().zip(units).zip(outs.chunks_exact_mut(lanes.len())) {
                    let out = &mut out[group * GROUP_PANELS..][..group_lanes.len()];
                    approximate_group(sums, scale, group_lanes, out);
                }
            }
        }
    }
}

/// Sums of bytes as similarities.
#[inline]
fn approximate_group(sums: &[[i32; LANES]], scale: f32, lanes: &[ByteScales], out: &mut [Lanes]) {
    for ((out, sums), lanes) in out.iter_mut().zip(sums).zip(lanes) {
        for lane in 0..LANES {
            out.0[lane] = (sums[lane] - lanes.offset[lane]) as f32 * (scale * lanes.scale[lane]);
        }
    }
}

/// How far a similarity of bytes may be off; a stored row is no longer than its f32 row and its own error.
fn byte_bound(norm: f32, row_error: f32, query_error: f32) -> f32 {
    norm * (row_error + ROUNDING) + query_error * (1.0 + row_error)
}

/// Rows `[n, dim]` as groups of panels; lanes past the last row are zero.
fn pack(rows: &[f32], dim: usize) -> Vec<Lanes> {
    let mut panels = Vec::new();
    pack_into(rows, dim, &mut panels);
    panels
}

fn pack_into(rows: &[f32], dim: usize, panels: &mut Vec<Lanes>) {
    panels.clear();
    panels.resize((rows.len() / dim).div_ceil(LANES) * dim, Lanes::default());
    let groups = panels.chunks_mut(GROUP_PANELS * dim).zip(rows.chunks(GROUP_CLUSTERS * dim));
    for (group, rows) in groups {
        let n_panels = group.len() / dim;
        for (row, values) in rows.chunks_exact(dim).enumerate() {
            let vectors = group.iter_mut().skip(row / LANES).step_by(n_panels);
            for (lanes, &value) in vectors.zip(values) {
                lanes.0[row % LANES] = value;
            }
        }
    }
}

fn pack_f16(rows: &[f32], dim: usize) -> Table {
    let panels = pack(rows, dim).iter().map(|lanes| HalfLanes(lanes.0.map(f16_from_f32))).collect();
    let row_error =
        largest_error(rows, dim, |row| row.iter().map(|&value| f32_from_f16(f16_from_f32(value))).collect());
    Table::F16 { panels, row_error }
}

fn pack_i8(rows: &[f32], dim: usize) -> Table {
    let n_vectors = dim.div_ceil(BYTES_PER_LANE);
    let n_panels = (rows.len() / dim).div_ceil(LANES);
    let mut panels = vec![ByteLanes([[0; BYTES_PER_LANE]; LANES]); n_panels * n_vectors];
    let mut lanes = vec![ByteScales::default(); n_panels];
    let groups = panels.chunks_mut(GROUP_PANELS * n_vectors).zip(lanes.chunks_mut(GROUP_PANELS));
    for ((group, lanes), rows) in groups.zip(rows.chunks(GROUP_CLUSTERS * dim)) {
        for (row, values) in rows.chunks_exact(dim).enumerate() {
            let (bytes, scale) = quantize_row(values);
            let (panel, lane) = (row / LANES, row % LANES);
            for (v, four) in bytes.chunks(BYTES_PER_LANE).enumerate() {
                group[v * lanes.len() + panel].0[lane][..four.len()].copy_from_slice(four);
            }
            lanes[panel].scale[lane] = scale;
            lanes[panel].offset[lane] = 128 * bytes.iter().map(|&byte| i32::from(byte)).sum::<i32>();
        }
    }
    let row_error = largest_error(rows, dim, |row| {
        let (bytes, scale) = quantize_row(row);
        bytes.iter().map(|&byte| f32::from(byte) * scale).collect()
    });
    Table::I8 { panels, lanes, row_error }
}

/// A row as signed bytes and the value of one unit, which the largest magnitude sets.
#[must_use]
pub fn quantize_row(row: &[f32]) -> (Vec<i8>, f32) {
    let scale = row.iter().fold(0.0f32, |largest, value| largest.max(value.abs())) / 127.0;
    let inverse = if scale > 0.0 { scale.recip() } else { 0.0 };
    (row.iter().map(|value| (value * inverse).round_ties_even().clamp(-127.0, 127.0) as i8).collect(), scale)
}

/// The largest distance between a row and what is stored of it.
fn largest_error(rows: &[f32], dim: usize, stored: impl Fn(&[f32]) -> Vec<f32>) -> f32 {
    rows.chunks_exact(dim).fold(0.0, |largest, row| {
        let squared: f32 = row.iter().zip(stored(row)).map(|(value, stored)| (value - stored).powi(2)).sum();
        largest.max(squared.sqrt())
    })
}
