//! Rows `[n, dim]` in; codes of fewer dimensions in bytes out, laid out to be compared sixteen at a time.
//!
//! A row is turned into bytes, projected in whole numbers and turned into bytes again. Whole numbers have no rounding
//! that an instruction set could do otherwise: codes, and what follows from them, are the same on every machine.
//! The scale of a query is left out, since only the order of its similarities counts.

use crate::centroids::ByteScales;
use crate::index::NONE;
use crate::simd::{BYTES_PER_LANE, BYTES_PER_VECTOR, ByteLanes, Kernels, LANES, Lanes};

/// Rows that are compared before their similarities are looked at.
const ROWS_AT_ONCE: usize = 64;

/// Directions to project on, as bytes.
#[derive(Clone, Debug)]
pub struct Projection {
    dim: usize,
    width: usize,
    codes: Codes,
}

/// Numbered codes in panels of sixteen, one panel after another.
#[derive(Clone, Debug)]
pub struct Codes {
    width: usize,
    panels: Vec<ByteLanes>,
    lanes: Vec<ByteScales>,
    ids: Vec<[u32; LANES]>,
    /// Lanes of the last panel that are taken.
    n_taken: usize,
}

/// A row's bytes and its code, both around 128.
#[derive(Clone, Debug, Default)]
pub struct Coder {
    /// The latest row, up to whole vectors.
    pub bytes: Vec<u8>,
    projected: Vec<f32>,
    /// The latest code, up to fours.
    pub code: Vec<u8>,
}

/// Rows as bytes, one after another.
#[derive(Clone, Debug, Default)]
pub struct ByteRows {
    vectors: Vec<ByteLanes>,
    units: Vec<f32>,
    /// 128 times the sum of the bytes: what the query's offset adds.
    offsets: Vec<i32>,
}

impl Projection {
    /// Takes directions `[width, dim]`.
    #[must_use]
    pub fn new(directions: &[f32], dim: usize, kernels: &Kernels) -> Self {
        let width = directions.len() / dim;
        let mut codes = Codes::new(dim);
        let mut bytes = Vec::new();
        for (id, direction) in directions.chunks_exact(dim).enumerate() {
            let unit = quantize(kernels, direction, BYTES_PER_LANE, &mut bytes);
            codes.push(&bytes, unit, id as u32);
        }
        Self { dim, width, codes }
    }

    /// Number of directions.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Puts a row's bytes and its code into `coder` and returns the values of one unit of either.
    pub fn code(&self, kernels: &Kernels, row: &[f32], coder: &mut Coder) -> (f32, f32) {
        debug_assert_eq!(row.len(), self.dim);
        let Coder { bytes, projected, code } = coder;
        let unit = quantize(kernels, row, BYTES_PER_VECTOR, bytes);
        let used = &bytes[..row.len().next_multiple_of(BYTES_PER_LANE)];
        projected.clear();
        for panel in 0..self.codes.n_panels() {
            projected.extend(self.codes.similarities(kernels, used, panel).0);
        }
        projected.truncate(self.width);
        (unit, quantize(kernels, projected, BYTES_PER_LANE, code) * unit)
    }
}

impl Coder {
    /// Takes values as they are for a code, and returns the value of one unit.
    pub fn take(&mut self, kernels: &Kernels, values: &[f32]) -> f32 {
        quantize(kernels, values, BYTES_PER_LANE, &mut self.code)
    }
}

impl Codes {
    /// None yet, of `width` values each.
    #[must_use]
    pub fn new(width: usize) -> Self {
        Self { width, panels: Vec::new(), lanes: Vec::new(), ids: Vec::new(), n_taken: LANES }
    }

    /// Number of panels.
    #[must_use]
    pub fn n_panels(&self) -> usize {
        self.lanes.len()
    }

    /// Numbers of the codes of a panel, [`NONE`] where there is none.
    #[inline]
    #[must_use]
    pub fn ids(&self, panel: usize) -> &[u32; LANES] {
        &self.ids[panel]
    }

    /// Appends a code, whose number is `id`.
    pub fn push(&mut self, code: &[u8], unit: f32, id: u32) {
        let n_vectors = self.width.div_ceil(BYTES_PER_LANE);
        debug_assert_eq!(code.len(), n_vectors * BYTES_PER_LANE);
        if self.n_taken == LANES {
            self.panels.resize(self.panels.len() + n_vectors, ByteLanes([[0; BYTES_PER_LANE]; LANES]));
            self.lanes.push(ByteScales::default());
            self.ids.push([NONE; LANES]);
            self.n_taken = 0;
        }
        let (panel, lane) = (self.lanes.len() - 1, self.n_taken);
        let mut sum = 0;
        for (vector, four) in self.panels[panel * n_vectors..].iter_mut().zip(code.as_chunks::<BYTES_PER_LANE>().0) {
            vector.0[lane] = four.map(|byte| (byte ^ 128).cast_signed());
            sum += vector.0[lane].iter().map(|&byte| i32::from(byte)).sum::<i32>();
        }
        self.lanes[panel].scale[lane] = unit;
        self.lanes[panel].offset[lane] = 128 * sum;
        self.ids[panel][lane] = id;
        self.n_taken += 1;
    }

    /// Lets the next code begin a panel; returns its number.
    pub fn end_panel(&mut self) -> u32 {
        self.n_taken = LANES;
        self.lanes.len() as u32
    }

    /// Similarities of a code to the sixteen of a panel, in units that are the same for all panels.
    #[inline]
    #[must_use]
    pub fn similarities(&self, kernels: &Kernels, code: &[u8], panel: usize) -> Lanes {
        let n_vectors = code.len() / BYTES_PER_LANE;
        let mut sums = [[0; LANES]];
        (kernels.group_i8)(code, &self.panels[panel * n_vectors..][..n_vectors], &mut sums);
        let (ByteScales { scale, offset }, mut similarities) = (&self.lanes[panel], Lanes::default());
        for lane in 0..LANES {
            similarities.0[lane] = (sums[0][lane] - offset[lane]) as f32 * scale[lane];
        }
        similarities
    }
}

impl ByteRows {
    /// Appends a row.
    pub fn push(&mut self, bytes: &[u8], unit: f32) {
        let mut sum = 0;
        for bytes in bytes.as_chunks::<BYTES_PER_VECTOR>().0 {
            let mut vector = ByteLanes([[0; BYTES_PER_LANE]; LANES]);
            for (value, byte) in vector.0.as_flattened_mut().iter_mut().zip(bytes) {
                *value = (byte ^ 128).cast_signed();
                sum += i32::from(*value);
            }
            self.vectors.push(vector);
        }
        self.units.push(unit);
        self.offsets.push(128 * sum);
    }

    /// Calls `each` with some rows and their similarities to a query's bytes, in units that are the same for all.
    pub fn similarities(&self, kernels: &Kernels, bytes: &[u8], ids: &[u32], mut each: impl FnMut(u32, f32)) {
        for ids in ids.chunks(ROWS_AT_ONCE) {
            let mut sums = [0; ROWS_AT_ONCE];
            (kernels.rows_i8)(bytes, &self.vectors, ids, &mut sums[..ids.len()]);
            for (&id, sum) in ids.iter().zip(sums) {
                each(id, (sum - self.offsets[id as usize]) as f32 * self.units[id as usize]);
            }
        }
    }
}

/// Writes values as bytes around 128, with 128 up to a multiple of some number, and returns the value of one unit.
fn quantize(kernels: &Kernels, values: &[f32], multiple: usize, bytes: &mut Vec<u8>) -> f32 {
    bytes.clear();
    bytes.resize(values.len().next_multiple_of(multiple), 128);
    (kernels.quantize)(values, bytes).0
}
