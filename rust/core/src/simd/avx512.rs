//! AVX-512 F, BW, VL and VNNI. One panel vector is one register.

use std::arch::x86_64::*;

use super::{
    BYTES_PER_LANE, BYTES_PER_VECTOR, ByteLanes, ByteTile, GROUP_PANELS, HalfLanes, Kernels, LANES, Lanes, ROWS_AHEAD,
    TILE_QUERIES, Tile, serial,
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
    super::avx2::is_available()
        && is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("avx512bw")
        && is_x86_feature_detected!("avx512vl")
        && is_x86_feature_detected!("avx512vnni")
}

entry!(dot_f32 = dot_f32_avx512(left: &[f32], right: &[f32]) -> f32);
entry!(group_f32 = group_f32_avx512(query: &[f32], group: &[Lanes], out: &mut [Lanes]));
entry!(group_f16 = group_f16_avx512(query: &[f32], group: &[HalfLanes], out: &mut [Lanes]));
entry!(group_i8 = group_i8_avx512(query: &[u8], group: &[ByteLanes], out: &mut [[i32; LANES]]));
entry!(tile_f32 = tile_f32_avx512(queries: &[f32], dim: usize, group: &[Lanes], out: &mut Tile));
entry!(tile_i8 = tile_i8_avx512(queries: &[u8], n_bytes: usize, group: &[ByteLanes], out: &mut ByteTile));
entry!(rows_i8 = rows_i8_avx512(query: &[u8], rows: &[ByteLanes], ids: &[u32], out: &mut [i32]));
entry!(quantize = quantize_avx512(query: &[f32], out: &mut [u8]) -> (f32, f32));
entry!(take_best = take_best_avx512(group: &[Lanes], n_valid: usize, similarities: &mut [f32], ids: &mut [u32]));
entry!(scan = scan_avx512(group: &[Lanes], n_valid: usize, first: u32, similarities: &mut [f32], ids: &mut [u32]));
entry!(weigh = weigh_avx512(similarities: &mut [f32], inverse_norm: f32, beta: f32, weights: &mut [f32]));
entry!(top_two = top_two_avx512(values: &[f32]) -> (usize, f32, f32));
entry!(above = above_avx512(lanes: &Lanes, threshold: f32) -> u32);
entry!(blend = blend_avx512(rows: &[f32], ids: &[u32], weights: &[f32], into: &mut [f32]));
entry!(blend_i8 = blend_i8_avx512(rows: &[i8], ids: &[u32], weights: &[f32], into: &mut [f32]));

#[target_feature(enable = "avx512f")]
fn dot_f32_avx512(left: &[f32], right: &[f32]) -> f32 {
    assert!(left.len() == right.len());
    // Four independent sums hide the latency of the multiply-adds.
    let mut sums = [_mm512_setzero_ps(); 4];
    let mut start = 0;
    while start + 4 * LANES <= left.len() {
        for (place, sum) in sums.iter_mut().enumerate() {
            let at = start + place * LANES;
            // SAFETY: `at + 16` is within both slices.
            let (left, right) =
                unsafe { (_mm512_loadu_ps(left.as_ptr().add(at)), _mm512_loadu_ps(right.as_ptr().add(at))) };
            *sum = _mm512_fmadd_ps(left, right, *sum);
        }
        start += 4 * LANES;
    }
    while start < left.len() {
        let mask = lanes_below(left.len() - start);
        // SAFETY: the mask lets no lane past the end of the slices be read.
        let (left, right) = unsafe {
            (
                _mm512_maskz_loadu_ps(mask, left.as_ptr().add(start)),
                _mm512_maskz_loadu_ps(mask, right.as_ptr().add(start)),
            )
        };
        sums[0] = _mm512_fmadd_ps(left, right, sums[0]);
        start += LANES;
    }
    _mm512_reduce_add_ps(_mm512_add_ps(_mm512_add_ps(sums[0], sums[1]), _mm512_add_ps(sums[2], sums[3])))
}

#[target_feature(enable = "avx512f")]
fn group_f32_avx512(query: &[f32], group: &[Lanes], out: &mut [Lanes]) {
    match out.len() {
        4 => rows_by_group::<1, 4>(query, query.len(), group, &mut [out]),
        3 => rows_by_group::<1, 3>(query, query.len(), group, &mut [out]),
        2 => rows_by_group::<1, 2>(query, query.len(), group, &mut [out]),
        _ => rows_by_group::<1, 1>(query, query.len(), group, &mut [out]),
    }
}

#[target_feature(enable = "avx512f")]
fn tile_f32_avx512(queries: &[f32], dim: usize, group: &[Lanes], out: &mut Tile) {
    if queries.len() == TILE_QUERIES * dim && group.len() == GROUP_PANELS * dim {
        return rows_by_group::<TILE_QUERIES, GROUP_PANELS>(
            queries,
            dim,
            group,
            &mut out.each_mut().map(|row| &mut row[..]),
        );
    }
    let n_panels = group.len() / dim;
    for (query, out) in queries.chunks_exact(dim).zip(out) {
        group_f32_avx512(query, group, &mut out[..n_panels]);
    }
}

/// `Q` rows with the `P` panels of a group: of the 32 registers a whole tile fills 24 with sums, 4 with panel vectors
/// and one with the value that is multiplied.
#[target_feature(enable = "avx512f")]
#[inline]
fn rows_by_group<const Q: usize, const P: usize>(
    queries: &[f32],
    dim: usize,
    group: &[Lanes],
    out: &mut [&mut [Lanes]; Q],
) {
    assert!(queries.len() == Q * dim && group.len() == P * dim);
    let mut sums = [[_mm512_setzero_ps(); P]; Q];
    let (queries, group) = (queries.as_ptr(), group.as_ptr());
    for d in 0..dim {
        // SAFETY: `d < dim`; the group holds `P * dim` vectors of 64 bytes at 64-byte boundaries.
        let vectors: [__m512; P] =
            std::array::from_fn(|panel| unsafe { _mm512_load_ps(group.add(d * P + panel).cast()) });
        for query in 0..Q {
            // SAFETY: `d < dim` and `query < Q`; there are `Q * dim` values.
            let value = _mm512_set1_ps(unsafe { *queries.add(query * dim + d) });
            for panel in 0..P {
                sums[query][panel] = _mm512_fmadd_ps(value, vectors[panel], sums[query][panel]);
            }
        }
    }
    for query in 0..Q {
        for (out, sum) in out[query].iter_mut().zip(sums[query]) {
            // SAFETY: `Lanes` is 64 bytes at a 64-byte boundary.
            unsafe { _mm512_store_ps(out.0.as_mut_ptr(), sum) };
        }
    }
}

#[target_feature(enable = "avx512f")]
fn group_f16_avx512(query: &[f32], group: &[HalfLanes], out: &mut [Lanes]) {
    match out.len() {
        4 => group_f16_of::<4>(query, group, out),
        3 => group_f16_of::<3>(query, group, out),
        2 => group_f16_of::<2>(query, group, out),
        _ => group_f16_of::<1>(query, group, out),
    }
}

#[target_feature(enable = "avx512f")]
#[inline]
fn group_f16_of<const P: usize>(query: &[f32], group: &[HalfLanes], out: &mut [Lanes]) {
    assert!(group.len() == P * query.len());
    let mut sums = [_mm512_setzero_ps(); P];
    let group = group.as_ptr();
    for (d, &value) in query.iter().enumerate() {
        let value = _mm512_set1_ps(value);
        for panel in 0..P {
            // SAFETY: `d < dim`; the group holds `P * dim` vectors of 32 bytes at 32-byte boundaries.
            let half = unsafe { _mm256_load_si256(group.add(d * P + panel).cast()) };
            sums[panel] = _mm512_fmadd_ps(value, _mm512_cvtph_ps(half), sums[panel]);
        }
    }
    for (out, sum) in out.iter_mut().zip(sums) {
        // SAFETY: `Lanes` is 64 bytes at a 64-byte boundary.
        unsafe { _mm512_store_ps(out.0.as_mut_ptr(), sum) };
    }
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn group_i8_avx512(query: &[u8], group: &[ByteLanes], out: &mut [[i32; LANES]]) {
    let query = query.as_chunks::<BYTES_PER_LANE>().0;
    match out.len() {
        4 => group_i8_of::<4>(query, group, out),
        3 => group_i8_of::<3>(query, group, out),
        2 => group_i8_of::<2>(query, group, out),
        _ => group_i8_of::<1>(query, group, out),
    }
}

#[target_feature(enable = "avx512f,avx512vnni")]
#[inline]
fn group_i8_of<const P: usize>(query: &[[u8; BYTES_PER_LANE]], group: &[ByteLanes], out: &mut [[i32; LANES]]) {
    assert!(group.len() == P * query.len());
    // Even and odd vectors are summed apart: a dot product takes longer than `P` of them need.
    let mut sums = [[_mm512_setzero_si512(); 2]; P];
    let group = group.as_ptr();
    for (v, &values) in query.iter().enumerate() {
        let values = _mm512_set1_epi32(i32::from_le_bytes(values));
        for panel in 0..P {
            // SAFETY: the group holds `P` vectors of 64 bytes at 64-byte boundaries for each four values.
            let bytes = unsafe { _mm512_load_si512(group.add(v * P + panel).cast()) };
            sums[panel][v % 2] = _mm512_dpbusd_epi32(sums[panel][v % 2], values, bytes);
        }
    }
    for (out, [even, odd]) in out.iter_mut().zip(sums) {
        // SAFETY: the row holds sixteen 32-bit integers; the store asks for no alignment.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), _mm512_add_epi32(even, odd)) };
    }
}

#[target_feature(enable = "avx512f")]
fn quantize_avx512(query: &[f32], out: &mut [u8]) -> (f32, f32) {
    assert!(out.len() >= query.len());
    let mut largest = _mm512_setzero_ps();
    for start in (0..query.len()).step_by(LANES) {
        let mask = lanes_below(query.len() - start);
        // SAFETY: the mask lets no lane past the end of the slice be read.
        let values = unsafe { _mm512_maskz_loadu_ps(mask, query.as_ptr().add(start)) };
        largest = _mm512_max_ps(largest, _mm512_abs_ps(values));
    }
    let largest = _mm512_cvtss_f32(highest_lane(largest));
    let (scale, inverse) = (largest / 127.0, 127.0 / largest);
    let mut squared = _mm512_setzero_ps();
    for start in (0..query.len()).step_by(LANES) {
        let mask = lanes_below(query.len() - start);
        // SAFETY: the mask lets no lane past the end of the slice be read.
        let values = unsafe { _mm512_maskz_loadu_ps(mask, query.as_ptr().add(start)) };
        let whole = _mm512_cvtps_epi32(_mm512_mul_ps(values, _mm512_set1_ps(inverse)));
        let bytes = _mm512_add_epi32(whole, _mm512_set1_epi32(128));
        // SAFETY: the mask lets no byte past the end of the query, and `out` is no shorter, be written.
        unsafe { _mm512_mask_cvtepi32_storeu_epi8(out.as_mut_ptr().add(start).cast(), mask, bytes) };
        let error = _mm512_sub_ps(values, _mm512_mul_ps(_mm512_cvtepi32_ps(whole), _mm512_set1_ps(scale)));
        squared = _mm512_fmadd_ps(error, error, squared);
    }
    (scale, _mm512_reduce_add_ps(squared).sqrt())
}

#[target_feature(enable = "avx512f")]
fn above_avx512(lanes: &Lanes, threshold: f32) -> u32 {
    // SAFETY: `Lanes` is 64 bytes at a 64-byte boundary.
    let values = unsafe { _mm512_load_ps(lanes.0.as_ptr()) };
    u32::from(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(values, _mm512_set1_ps(threshold)))
}

#[target_feature(enable = "avx512f,avx512vl,avx2,fma")]
fn blend_avx512(rows: &[f32], ids: &[u32], weights: &[f32], into: &mut [f32]) {
    serial::blend(rows, ids, weights, into);
}

/// Sums stay in registers, sixteen at a time, so that each row is read once and nothing is written meanwhile.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
fn blend_i8_avx512(rows: &[i8], ids: &[u32], weights: &[f32], into: &mut [f32]) {
    let width = into.len();
    let mut done = 0;
    while done < width {
        let into = &mut into[done..];
        done += match into.len() / LANES {
            16.. => blend_i8_columns::<16>(rows, width, done, ids, weights, into),
            4.. => blend_i8_columns::<4>(rows, width, done, ids, weights, into),
            1.. => blend_i8_columns::<1>(rows, width, done, ids, weights, into),
            0 => {
                serial::blend_i8_columns(rows, width, done, ids, weights, into);
                into.len()
            }
        };
    }
}

/// The first `16 N` columns of `into`, which are those of the rows from `first` on; returns their number.
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx2,fma")]
#[inline]
fn blend_i8_columns<const N: usize>(
    rows: &[i8],
    width: usize,
    first: usize,
    ids: &[u32],
    weights: &[f32],
    into: &mut [f32],
) -> usize {
    let mut sums = [_mm512_setzero_ps(); N];
    for (place, (&id, &weight)) in ids.iter().zip(weights).enumerate() {
        if let Some(&ahead) = ids.get(place + ROWS_AHEAD) {
            let row = rows.as_ptr().wrapping_add(ahead as usize * width + first);
            for line in (0..N * LANES).step_by(64) {
                _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(line));
            }
        }
        let (row, weight) = (&rows[id as usize * width + first..][..N * LANES], _mm512_set1_ps(weight));
        for (register, sum) in sums.iter_mut().enumerate() {
            // SAFETY: the slice holds `16 N` bytes.
            let bytes = unsafe { _mm_loadu_si128(row.as_ptr().add(register * LANES).cast()) };
            *sum = _mm512_fmadd_ps(weight, _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)), *sum);
        }
    }
    for (into, sum) in into.as_chunks_mut::<LANES>().0.iter_mut().zip(sums) {
        // SAFETY: a chunk is sixteen values.
        unsafe { _mm512_storeu_ps(into.as_mut_ptr(), sum) };
    }
    N * LANES
}

/// The highest value of all lanes, in all lanes.
#[target_feature(enable = "avx512f")]
#[inline]
fn highest_lane(values: __m512) -> __m512 {
    let values = _mm512_max_ps(values, _mm512_shuffle_f32x4::<0b01_00_11_10>(values, values));
    let values = _mm512_max_ps(values, _mm512_shuffle_f32x4::<0b10_11_00_01>(values, values));
    let values = _mm512_max_ps(values, _mm512_permute_ps::<0b01_00_11_10>(values));
    _mm512_max_ps(values, _mm512_permute_ps::<0b10_11_00_01>(values))
}

/// Each step takes the highest of up to 64 values in four registers without a branch that the values decide.
#[target_feature(enable = "avx512f")]
fn take_best_avx512(group: &[Lanes], n_valid: usize, similarities: &mut [f32], ids: &mut [u32]) {
    let lowest = _mm512_set1_ps(f32::NEG_INFINITY);
    let mut left = [lowest; GROUP_PANELS];
    for (panel, lanes) in group.iter().enumerate().take(GROUP_PANELS) {
        let valid = lanes_below(n_valid.saturating_sub(panel * LANES));
        // SAFETY: `Lanes` is 64 bytes at a 64-byte boundary.
        left[panel] = unsafe { _mm512_mask_load_ps(lowest, valid, lanes.0.as_ptr()) };
    }
    for (similarity, id) in similarities.iter_mut().zip(ids) {
        let highest = highest_lane(_mm512_max_ps(_mm512_max_ps(left[0], left[1]), _mm512_max_ps(left[2], left[3])));
        let mut equal = 0u64;
        for (panel, &values) in left.iter().enumerate() {
            equal |= u64::from(_mm512_cmp_ps_mask::<_CMP_EQ_OQ>(values, highest)) << (panel * LANES);
        }
        *similarity = _mm512_cvtss_f32(highest);
        // The lowest set bit is the first of equals; padding is negative infinity and never a cluster.
        *id = if *similarity > f32::NEG_INFINITY { equal.trailing_zeros() } else { u32::MAX };
        let taken = equal & equal.wrapping_neg();
        for (panel, values) in left.iter_mut().enumerate() {
            *values = _mm512_mask_mov_ps(*values, (taken >> (panel * LANES)) as u16, lowest);
        }
    }
}

/// A mask of the first `n` lanes, all of them from sixteen on.
#[inline]
fn lanes_below(n: usize) -> u16 {
    if n >= LANES { u16::MAX } else { (1 << n) - 1 }
}

#[target_feature(enable = "avx512f")]
fn top_two_avx512(values: &[f32]) -> (usize, f32, f32) {
    if values.len() > LANES {
        return serial::top_two(values);
    }
    let lowest = _mm512_set1_ps(f32::NEG_INFINITY);
    // SAFETY: the mask lets no lane past the end of the slice be read.
    let values = unsafe { _mm512_mask_loadu_ps(lowest, lanes_below(values.len()), values.as_ptr()) };
    let first = highest_lane(values);
    let equal = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(values, first);
    let others = _mm512_mask_mov_ps(values, equal & equal.wrapping_neg(), lowest);
    (equal.trailing_zeros() as usize, _mm512_cvtss_f32(first), _mm512_cvtss_f32(highest_lane(others)))
}

/// The portable computation step by step, in one register: multiplications and additions are not fused, and the sum is
/// taken in the order of the lanes.
#[target_feature(enable = "avx512f")]
fn weigh_avx512(similarities: &mut [f32], inverse_norm: f32, beta: f32, weights: &mut [f32]) {
    let top_p = similarities.len();
    if top_p > LANES || weights.len() != top_p {
        return serial::weigh(similarities, inverse_norm, beta, weights);
    }
    let kept = lanes_below(top_p);
    // SAFETY: the mask lets no lane past the end of the slice be read.
    let products = unsafe { _mm512_maskz_loadu_ps(kept, similarities.as_ptr()) };
    let cosines = _mm512_mul_ps(products, _mm512_set1_ps(inverse_norm));
    // SAFETY: the mask lets no lane past the end of the slice be written.
    unsafe { _mm512_mask_storeu_ps(similarities.as_mut_ptr(), kept, cosines) };
    let behind = _mm512_sub_ps(cosines, _mm512_broadcastss_ps(_mm512_castps512_ps128(cosines)));
    let soft = exp(_mm512_mul_ps(_mm512_set1_ps(beta), behind));
    let mut lanes = Lanes::default();
    // SAFETY: `Lanes` is 64 bytes at a 64-byte boundary.
    unsafe { _mm512_store_ps(lanes.0.as_mut_ptr(), soft) };
    let total: f32 = lanes.0[..top_p].iter().fold(0.0, |total, weight| total + weight);
    let scaled = _mm512_mul_ps(soft, _mm512_set1_ps(total.recip()));
    // SAFETY: the mask lets no lane past the end of the slice be written.
    unsafe { _mm512_mask_storeu_ps(weights.as_mut_ptr(), kept, scaled) };
}

/// [`serial::exp`] of sixteen values.
#[target_feature(enable = "avx512f")]
#[inline]
fn exp(x: __m512) -> __m512 {
    let round = _mm512_set1_ps(serial::ROUND);
    let x = _mm512_max_ps(x, _mm512_set1_ps(serial::EXP_LOWEST));
    let n = _mm512_sub_ps(_mm512_add_ps(_mm512_mul_ps(x, _mm512_set1_ps(std::f32::consts::LOG2_E)), round), round);
    let r = _mm512_add_ps(
        _mm512_sub_ps(x, _mm512_mul_ps(n, _mm512_set1_ps(serial::LN_2_HIGH))),
        _mm512_mul_ps(n, _mm512_set1_ps(serial::LN_2_REST)),
    );
    let mut sum = _mm512_set1_ps(serial::EXP_COEFFICIENTS[0]);
    for &coefficient in &serial::EXP_COEFFICIENTS[1..] {
        sum = _mm512_add_ps(_mm512_mul_ps(sum, r), _mm512_set1_ps(coefficient));
    }
    let exponent = _mm512_slli_epi32::<23>(_mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127)));
    _mm512_mul_ps(sum, _mm512_castsi512_ps(exponent))
}

/// The best so far lie in one register, sixteen at most, and move aside without a branch.
#[target_feature(enable = "avx512f")]
fn scan_avx512(group: &[Lanes], n_valid: usize, first: u32, similarities: &mut [f32], ids: &mut [u32]) {
    let top_p = similarities.len();
    if top_p > LANES || ids.len() != top_p {
        return serial::scan(group, n_valid, first, similarities, ids);
    }
    let mut mask = 0u64;
    let worst = _mm512_set1_ps(similarities[top_p - 1]);
    for (panel, lanes) in group.iter().enumerate().take(GROUP_PANELS) {
        // SAFETY: `Lanes` is 64 bytes at a 64-byte boundary.
        let values = unsafe { _mm512_load_ps(lanes.0.as_ptr()) };
        let valid = lanes_below(n_valid.saturating_sub(panel * LANES));
        mask |= u64::from(_mm512_mask_cmp_ps_mask::<_CMP_GT_OQ>(valid, values, worst)) << (panel * LANES);
    }
    if mask == 0 {
        return;
    }
    let kept = lanes_below(top_p);
    // SAFETY: the mask lets no lane past the end of the slice be read.
    let mut best = unsafe { _mm512_maskz_loadu_ps(kept, similarities.as_ptr()) };
    // SAFETY: both slices have one length.
    let mut best_ids = unsafe { _mm512_maskz_loadu_epi32(kept, ids.as_ptr().cast()) };
    let previous = _mm512_setr_epi32(0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14);
    while mask != 0 {
        let lane = mask.trailing_zeros() as usize;
        mask &= mask - 1;
        let similarity = _mm512_set1_ps(group[lane / LANES].0[lane % LANES]);
        // Those that are lower move one lane down; the first of them makes room. Equal ones are of lower ids and stay.
        let lower = _mm512_mask_cmp_ps_mask::<_CMP_LT_OQ>(kept, best, similarity);
        let place = lower & lower.wrapping_neg();
        best = _mm512_mask_permutexvar_ps(best, lower, previous, best);
        best_ids = _mm512_mask_permutexvar_epi32(best_ids, lower, previous, best_ids);
        best = _mm512_mask_mov_ps(best, place, similarity);
        best_ids = _mm512_mask_set1_epi32(best_ids, place, (first + lane as u32).cast_signed());
    }
    // SAFETY: the mask lets no lane past the end of the slice be written.
    unsafe { _mm512_mask_storeu_ps(similarities.as_mut_ptr(), kept, best) };
    // SAFETY: both slices have one length.
    unsafe { _mm512_mask_storeu_epi32(ids.as_mut_ptr().cast(), kept, best_ids) };
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn tile_i8_avx512(queries: &[u8], n_bytes: usize, group: &[ByteLanes], out: &mut ByteTile) {
    let n_vectors = n_bytes / BYTES_PER_LANE;
    if queries.len() == TILE_QUERIES * n_bytes && group.len() == GROUP_PANELS * n_vectors {
        return full_byte_tile(queries, n_vectors, group, out);
    }
    let n_panels = group.len() / n_vectors;
    for (query, out) in queries.chunks_exact(n_bytes).zip(out) {
        group_i8_avx512(query, group, &mut out[..n_panels]);
    }
}

/// As [`rows_by_group`] for bytes: 24 registers of sums, 4 of a panel vector each, one of four values of a query.
#[target_feature(enable = "avx512f,avx512vnni")]
#[inline]
fn full_byte_tile(queries: &[u8], n_vectors: usize, group: &[ByteLanes], out: &mut ByteTile) {
    let queries = queries.as_chunks::<BYTES_PER_LANE>().0;
    assert!(queries.len() == TILE_QUERIES * n_vectors && group.len() == GROUP_PANELS * n_vectors);
    let mut sums = [[_mm512_setzero_si512(); GROUP_PANELS]; TILE_QUERIES];
    let (queries, group) = (queries.as_ptr(), group.as_ptr());
    for v in 0..n_vectors {
        // SAFETY: `v < n_vectors`; the group holds `GROUP_PANELS` vectors of 64 bytes at 64-byte boundaries for each.
        let vectors: [__m512i; GROUP_PANELS] =
            std::array::from_fn(|panel| unsafe { _mm512_load_si512(group.add(v * GROUP_PANELS + panel).cast()) });
        for query in 0..TILE_QUERIES {
            // SAFETY: `v < n_vectors` and `query < TILE_QUERIES`; there are as many fours.
            let values = _mm512_set1_epi32(i32::from_le_bytes(unsafe { *queries.add(query * n_vectors + v) }));
            for panel in 0..GROUP_PANELS {
                sums[query][panel] = _mm512_dpbusd_epi32(sums[query][panel], values, vectors[panel]);
            }
        }
    }
    for (out, sums) in out.iter_mut().zip(sums) {
        for (out, sum) in out.iter_mut().zip(sums) {
            // SAFETY: the row holds sixteen 32-bit integers; the store asks for no alignment.
            unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), sum) };
        }
    }
}

#[target_feature(enable = "avx512f,avx512vnni")]
fn rows_i8_avx512(query: &[u8], rows: &[ByteLanes], ids: &[u32], out: &mut [i32]) {
    let (query, n_vectors) = (query.as_chunks::<BYTES_PER_VECTOR>().0, query.len() / BYTES_PER_VECTOR);
    for (place, (&id, out)) in ids.iter().zip(out).enumerate() {
        if let Some(&ahead) = ids.get(place + ROWS_AHEAD) {
            let row = rows.as_ptr().wrapping_add(ahead as usize * n_vectors);
            for vector in 0..n_vectors {
                _mm_prefetch::<_MM_HINT_T0>(row.wrapping_add(vector).cast());
            }
        }
        let row = &rows[id as usize * n_vectors..][..n_vectors];
        let mut sums = [_mm512_setzero_si512(); 2];
        for (turn, (values, vector)) in query.iter().zip(row).enumerate() {
            // SAFETY: both are 64 bytes; the loads ask for no alignment.
            let (values, vector) =
                unsafe { (_mm512_loadu_si512(values.as_ptr().cast()), _mm512_loadu_si512(vector.0.as_ptr().cast())) };
            sums[turn % 2] = _mm512_dpbusd_epi32(sums[turn % 2], values, vector);
        }
        *out = _mm512_reduce_add_epi32(_mm512_add_epi32(sums[0], sums[1]));
    }
}
