//! NEON, which every aarch64 processor has. One panel vector is four registers.

use std::arch::aarch64::*;

use super::{Kernels, LANES, Lanes, TILE_QUERIES, Tile, serial};

/// The loops of this file; half precision and bytes are the portable ones.
pub static KERNELS: Kernels = Kernels {
    dot_f32: serial::dot_f32,
    group_f32,
    group_f16: serial::group_f16,
    group_i8: serial::group_i8,
    tile_f32,
    tile_i8: serial::tile_i8,
    rows_i8: serial::rows_i8,
    quantize: serial::quantize,
    take_best: serial::take_best,
    scan: serial::scan,
    weigh: serial::weigh,
    top_two: serial::top_two,
    above: serial::above,
    blend: serial::blend,
    blend_i8: serial::blend_i8,
};

const REGISTERS: usize = LANES / 4;

fn group_f32(query: &[f32], group: &[Lanes], out: &mut [Lanes]) {
    let n_panels = out.len();
    for panel in 0..n_panels {
        rows_by_panel::<1>(query, query.len(), group, n_panels, panel, [&mut out[panel]]);
    }
}

fn tile_f32(queries: &[f32], dim: usize, group: &[Lanes], out: &mut Tile) {
    let n_panels = group.len() / dim;
    if queries.len() == TILE_QUERIES * dim {
        for panel in 0..n_panels {
            let out = out.each_mut().map(|row| &mut row[panel]);
            rows_by_panel::<TILE_QUERIES>(queries, dim, group, n_panels, panel, out);
        }
        return;
    }
    for (query, out) in queries.chunks_exact(dim).zip(out) {
        group_f32(query, group, &mut out[..n_panels]);
    }
}

/// `Q` rows with one panel of a group: six rows fill 24 of the 32 registers with sums and 4 with the panel vector.
fn rows_by_panel<const Q: usize>(
    queries: &[f32],
    dim: usize,
    group: &[Lanes],
    n_panels: usize,
    panel: usize,
    out: [&mut Lanes; Q],
) {
    // SAFETY: NEON is in the baseline of aarch64.
    let mut sums = [[unsafe { vdupq_n_f32(0.0) }; REGISTERS]; Q];
    for (d, vectors) in group.chunks_exact(n_panels).enumerate() {
        let start = vectors[panel].0.as_ptr();
        // SAFETY: each quarter of `Lanes` holds four floats.
        let vector: [float32x4_t; REGISTERS] =
            std::array::from_fn(|quarter| unsafe { vld1q_f32(start.add(4 * quarter)) });
        for (query, sums) in sums.iter_mut().enumerate() {
            let value = queries[query * dim + d];
            for (sum, vector) in sums.iter_mut().zip(vector) {
                // SAFETY: NEON is in the baseline of aarch64.
                *sum = unsafe { vfmaq_n_f32(*sum, vector, value) };
            }
        }
    }
    for (out, sums) in out.into_iter().zip(sums) {
        for (quarter, sum) in sums.into_iter().enumerate() {
            // SAFETY: each quarter of `Lanes` holds four floats.
            unsafe { vst1q_f32(out.0.as_mut_ptr().add(4 * quarter), sum) };
        }
    }
}
