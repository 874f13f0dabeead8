//! AVX2, FMA and F16C. One panel vector is two registers.

use std::arch::x86_64::*;

use super::{
    BYTES_PER_LANE, BYTES_PER_VECTOR, ByteLanes, ByteTile, HalfLanes, Kernels, LANES, Lanes, ROWS_AHEAD, TILE_QUERIES,
    Tile, serial,
};

/// The loops of this file. Given out by [`super::Isa::kernels`] where [`is_available`] alone.
pub static KERNELS: Kernels = Kernels {
    dot_f32,
    group_f32,
    group_f16,
    group_i8,
    tile_f32,
    tile_i8,
    rows_i8,
    quantize,
    take_best,
    scan,
    weigh,
    top_two,
    above,
    blend,
    blend_i8,
};

/// Whether this machine has the instructions of this file.
#[must_use]
pub fn is_available() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
}

entry!(dot_f32 = dot_f32_avx2(left: &[f32], right: &[f32]) -> f32);
entry!(group_f32 = group_f32_avx2(query: &[f32], group: &[Lanes], out: &mut [Lanes]));
entry!(group_f16 = group_f16_avx2(query: &[f32], group: &[HalfLanes], out: &mut [Lanes]));
entry!(group_i8 = group_i8_avx2(query: &[u8], group: &[ByteLanes], out: &mut [[i32; LANES]]));
entry!(tile_f32 = tile_f32_avx2(queries: &[f32], dim: usize, group: &[Lanes], out: &mut Tile));
entry!(tile_i8 = tile_i8_avx2(queries: &[u8], n_bytes: usize, group: &[ByteLanes], out: &mut ByteTile));
entry!(rows_i8 = rows_i8_avx2(query: &[u8], rows: &[ByteLanes], ids: &[u32], out: &mut [i32]));
entry!(quantize = quantize_avx2(query: &[f32], out: &mut [u8]) -> (f32, f32));
entry!(take_best = take_best_avx2(group: &[Lanes], n_valid: usize, similarities: &mut [f32], ids: &mut [u32]));
entry!(scan = scan_avx2(group: &[Lanes], n_valid: usize, first: u32, similarities: &mut [f32], ids: &mut [u32]));
entry!(weigh = weigh_avx2(similarities: &mut [f32], inverse_norm: f32, beta: f32, weights: &mut [f32]));
entry!(top_two = top_two_avx2(values: &[f32]) -> (usize, f32, f32));
entry!(above = above_avx2(lanes: &Lanes, threshold: f32) -> u32);
entry!(blend = blend_avx2(rows: &[f32], ids: &[u32], weights: &[f32], into: &mut [f32]));
entry!(blend_i8 = blend_i8_avx2(rows: &[i8], ids: &[u32], weights: &[f32], into: &mut [f32]));

#[target_feature(enable = "avx2,fma")]
fn dot_f32_avx2(left: &[f32], right: &[f32]) -> f32 {
    serial::dot_f32(left, right)
}

#[target_feature(enable = "avx2,fma")]
fn group_f32_avx2(query: &[f32], group: &[Lanes], out: &mut [Lanes]) {
    match out.len() {
        4 => rows_by_panels::<1, 4>(query, query.len(), group, 4, 0, &mut [out]),
        3 => rows_by_panels::<1, 3>(query, query.len(), group, 3, 0, &mut [out]),
        2 => rows_by_panels::<1, 2>(query, query.len(), group, 2, 0, &mut [out]),
        _ => rows_by_panels::<1, 1>(query, query.len(), group, 1, 0, &mut [out]),
    }
}

#[target_feature(enable = "avx2,fma")]
fn tile_f32_avx2(queries: &[f32], dim: usize, group: &[Lanes], out: &mut Tile) {
    let n_panels = group.len() / dim;
    if queries.len() == TILE_QUERIES * dim {
        for panel in 0..n_panels {
            let mut out = out.each_mut().map(|row| &mut row[panel..=panel]);
            rows_by_panels::<TILE_QUERIES, 1>(queries, dim, group, n_panels, panel, &mut out);
        }
        return;
    }
    for (query, out) in queries.chunks_exact(dim).zip(out) {
        group_f32_avx2(query, group, &mut out[..n_panels]);
    }
}

/// `Q` rows with `P` panels of a group of `n_panels`, from panel `first`: of the 16 registers six rows and one panel
/// fill 12 with sums, 2 with a panel vector and one with the value that is multiplied.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn rows_by_panels<const Q: usize, const P: usize>(
    queries: &[f32],
    dim: usize,
    group: &[Lanes],
    n_panels: usize,
    first: usize,
    out: &mut [&mut [Lanes]; Q],
) {
    assert!(queries.len() == Q * dim && group.len() == n_panels * dim && first + P <= n_panels);
    let mut sums = [[[_mm256_setzero_ps(); 2]; P]; Q];
    let (queries, group) = (queries.as_ptr(), group.as_ptr());
    for d in 0..dim {
        for panel in 0..P {
            // SAFETY: `d < dim` and `first + panel < n_panels`; `Lanes` is 64 bytes at a 64-byte boundary.
            let vector: [__m256; 2] = unsafe {
                let start: *const f32 = group.add(d * n_panels + first + panel).cast();
                [_mm256_load_ps(start), _mm256_load_ps(start.add(8))]
            };
            for query in 0..Q {
                // SAFETY: `d < dim` and `query < Q`; there are `Q * dim` values.
                let value = _mm256_set1_ps(unsafe { *queries.add(query * dim + d) });
                for half in 0..2 {
                    sums[query][panel][half] = _mm256_fmadd_ps(value, vector[half], sums[query][panel][half]);
                }
            }
        }
    }
    for query in 0..Q {
        for (out, sum) in out[query].iter_mut().zip(sums[query]) {
            store(out, sum);
        }
    }
}

#[target_feature(enable = "avx")]
fn store(lanes: &mut Lanes, value: [__m256; 2]) {
    // SAFETY: `Lanes` is 64 bytes at a 64-byte boundary.
    unsafe {
        _mm256_store_ps(lanes.0.as_mut_ptr(), value[0]);
        _mm256_store_ps(lanes.0.as_mut_ptr().add(8), value[1]);
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn group_f16_avx2(query: &[f32], group: &[HalfLanes], out: &mut [Lanes]) {
    let n_panels = out.len();
    for (panel, out) in out.iter_mut().enumerate() {
        let mut sums = [_mm256_setzero_ps(); 2];
        for (&value, vectors) in query.iter().zip(group.chunks_exact(n_panels)) {
            let value = _mm256_set1_ps(value);
            for half in 0..2 {
                // SAFETY: each half of `HalfLanes` is 16 bytes at a 16-byte boundary.
                let bits = unsafe { _mm_load_si128(vectors[panel].0.as_ptr().add(8 * half).cast()) };
                sums[half] = _mm256_fmadd_ps(value, _mm256_cvtph_ps(bits), sums[half]);
            }
        }
        store(out, sums);
    }
}

#[target_feature(enable = "avx2")]
fn group_i8_avx2(query: &[u8], group: &[ByteLanes], out: &mut [[i32; LANES]]) {
    let query = query.as_chunks::<BYTES_PER_LANE>().0;
    let n_panels = out.len();
    for (panel, out) in out.iter_mut().enumerate() {
        // Four registers of sums, two sums a centroid: bytes are widened to 16 bits, where pairs cannot overflow.
        let mut sums = [_mm256_setzero_si256(); 4];
        for (values, vectors) in query.iter().zip(group.chunks_exact(n_panels)) {
            let words = [values[0], 0, values[1], 0, values[2], 0, values[3], 0];
            let values = _mm256_set1_epi64x(i64::from_le_bytes(words));
            for quarter in 0..4 {
                // SAFETY: each quarter of `ByteLanes` is 16 bytes at a 16-byte boundary.
                let bytes = unsafe { _mm_load_si128(vectors[panel].0.as_ptr().add(4 * quarter).cast()) };
                let products = _mm256_madd_epi16(_mm256_cvtepi8_epi16(bytes), values);
                sums[quarter] = _mm256_add_epi32(sums[quarter], products);
            }
        }
        for quarter in 0..4 {
            let mut pairs = [0i32; 8];
            // SAFETY: the array holds eight 32-bit integers; the store asks for no alignment.
            unsafe { _mm256_storeu_si256(pairs.as_mut_ptr().cast(), sums[quarter]) };
            for lane in 0..4 {
                out[4 * quarter + lane] = pairs[2 * lane] + pairs[2 * lane + 1];
            }
        }
    }
}

#[target_feature(enable = "avx2,fma")]
fn quantize_avx2(query: &[f32], out: &mut [u8]) -> (f32, f32) {
    serial::quantize(query, out)
}

#[target_feature(enable = "avx2")]
fn above_avx2(lanes: &Lanes, threshold: f32) -> u32 {
    let threshold = _mm256_set1_ps(threshold);
    // SAFETY: `Lanes` is 64 bytes at a 64-byte boundary.
    let [low, high] = unsafe { [_mm256_load_ps(lanes.0.as_ptr()), _mm256_load_ps(lanes.0.as_ptr().add(8))] };
    let mask = |half| _mm256_movemask_ps(_mm256_cmp_ps::<_CMP_GT_OQ>(half, threshold)).cast_unsigned();
    mask(low) | mask(high) << 8
}

#[target_feature(enable = "avx2,fma")]
fn blend_avx2(rows: &[f32], ids: &[u32], weights: &[f32], into: &mut [f32]) {
    serial::blend(rows, ids, weights, into);
}

/// Sums stay in registers, eight at a time, so that nothing is written while rows are read.
#[target_feature(enable = "avx2,fma")]
fn blend_i8_avx2(rows: &[i8], ids: &[u32], weights: &[f32], into: &mut [f32]) {
    let width = into.len();
    let mut done = 0;
    while done < width {
        let into = &mut into[done..];
        done += match into.len() / 8 {
            8.. => blend_i8_columns::<8>(rows, width, done, ids, weights, into),
            1.. => blend_i8_columns::<1>(rows, width, done, ids, weights, into),
            0 => {
                serial::blend_i8_columns(rows, width, done, ids, weights, into);
                into.len()
            }
        };
    }
}

/// The first `8 N` columns of `into`, which are those of the rows from `first` on; returns their number.
#[target_feature(enable = "avx2,fma")]
#[inline]
fn blend_i8_columns<const N: usize>(
    rows: &[i8],
    width: usize,
    first: usize,
    ids: &[u32],
    weights: &[f32],
    into: &mut [f32],
) -> usize {
    let mut sums = [_mm256_setzero_ps(); N];
    for (place, (&id, &weight)) in ids.iter().zip(weights).enumerate() {
        if let Some(&ahead) = ids.get(place + ROWS_AHEAD) {
            _mm_prefetch::<_MM_HINT_T0>(rows.as_ptr().wrapping_add(ahead as usize * width + first));
        }
        let (row, weight) = (&rows[id as usize * width + first..][..N * 8], _mm256_set1_ps(weight));
        for (register, sum) in sums.iter_mut().enumerate() {
            // SAFETY: the slice holds `8 N` bytes.
            let bytes = unsafe { _mm_loadl_epi64(row.as_ptr().add(register * 8).cast()) };
            *sum = _mm256_fmadd_ps(weight, _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)), *sum);
        }
    }
    for (into, sum) in into.as_chunks_mut::<8>().0.iter_mut().zip(sums) {
        // SAFETY: a chunk is eight values.
        unsafe { _mm256_storeu_ps(into.as_mut_ptr(), sum) };
    }
    N * 8
}

#[target_feature(enable = "avx2,fma")]
fn take_best_avx2(group: &[Lanes], n_valid: usize, similarities: &mut [f32], ids: &mut [u32]) {
    serial::take_best(group, n_valid, similarities, ids);
}

#[target_feature(enable = "avx2,fma")]
fn top_two_avx2(values: &[f32]) -> (usize, f32, f32) {
    serial::top_two(values)
}

#[target_feature(enable = "avx2")]
fn weigh_avx2(similarities: &mut [f32], inverse_norm: f32, beta: f32, weights: &mut [f32]) {
    serial::weigh(similarities, inverse_norm, beta, weights);
}

#[target_feature(enable = "avx2")]
fn scan_avx2(group: &[Lanes], n_valid: usize, first: u32, similarities: &mut [f32], ids: &mut [u32]) {
    for (panel, lanes) in group.iter().enumerate() {
        // Most panels hold nothing better: one comparison passes them by.
        if above_avx2(lanes, similarities[similarities.len() - 1]) != 0 {
            let start = panel * LANES;
            let (n_valid, first) = (n_valid.saturating_sub(start), first + start as u32);
            serial::scan(std::slice::from_ref(lanes), n_valid, first, similarities, ids);
        }
    }
}

#[target_feature(enable = "avx2")]
fn tile_i8_avx2(queries: &[u8], n_bytes: usize, group: &[ByteLanes], out: &mut ByteTile) {
    let n_panels = group.len() * BYTES_PER_LANE / n_bytes;
    for (query, out) in queries.chunks_exact(n_bytes).zip(out) {
        group_i8_avx2(query, group, &mut out[..n_panels]);
    }
}

#[target_feature(enable = "avx2")]
fn rows_i8_avx2(query: &[u8], rows: &[ByteLanes], ids: &[u32], out: &mut [i32]) {
    let (query, n_vectors) = (query.as_chunks::<BYTES_PER_VECTOR>().0, query.len() / BYTES_PER_VECTOR);
    for (place, (&id, out)) in ids.iter().zip(out).enumerate() {
        if let Some(&ahead) = ids.get(place + ROWS_AHEAD) {
            let row = rows.as_ptr().wrapping_add(ahead as usize * n_vectors);
            for vector in 0..n_vectors {
                _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(vector).cast());
            }
        }
        let row = &rows[id as usize * n_vectors..][..n_vectors];
        let mut sums = [_mm256_setzero_si256(); 2];
        for (values, vector) in query.iter().zip(row) {
            for quarter in 0..4 {
                // SAFETY: each quarter of both is 16 bytes; the loads ask for no alignment.
                let (left, right) = unsafe {
                    (
                        _mm_loadu_si128(values.as_ptr().add(16 * quarter).cast()),
                        _mm_loadu_si128(vector.0.as_flattened().as_ptr().add(16 * quarter).cast()),
                    )
                };
                // Bytes are widened to 16 bits, where pairs of products cannot overflow their 32.
                let products = _mm256_madd_epi16(_mm256_cvtepu8_epi16(left), _mm256_cvtepi8_epi16(right));
                sums[quarter % 2] = _mm256_add_epi32(sums[quarter % 2], products);
            }
        }
        let sum = _mm256_add_epi32(sums[0], sums[1]);
        let four = _mm_add_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256::<1>(sum));
        let two = _mm_add_epi32(four, _mm_shuffle_epi32::<0b00_00_11_10>(four));
        *out = _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<0b00_00_00_01>(two)));
    }
}
