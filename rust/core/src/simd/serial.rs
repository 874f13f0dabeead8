//! Portable loops, written so that the compiler turns them into vector code of the baseline.

use super::{
    BYTES_PER_LANE, BYTES_PER_VECTOR, ByteLanes, ByteTile, GROUP_PANELS, HalfLanes, Kernels, LANES, Lanes, Tile,
};

/// The portable loops.
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

/// Inner product of two slices of equal length.
#[must_use]
#[inline(always)]
pub fn dot_f32(left: &[f32], right: &[f32]) -> f32 {
    debug_assert_eq!(left.len(), right.len());
    // Independent partial sums hide the latency of the adds.
    let mut sums = [0.0f32; 2 * LANES];
    let (left_chunks, left_rest) = left.as_chunks::<{ 2 * LANES }>();
    let (right_chunks, right_rest) = right.as_chunks::<{ 2 * LANES }>();
    for (left, right) in left_chunks.iter().zip(right_chunks) {
        for lane in 0..2 * LANES {
            sums[lane] += left[lane] * right[lane];
        }
    }
    let rest: f32 = left_rest.iter().zip(right_rest).map(|(left, right)| left * right).sum();
    // Pairwise, so that the rounding does not grow with the number of lanes.
    let mut width = LANES;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    sums[0] + rest
}

/// See [`Kernels::group_f32`].
pub fn group_f32(query: &[f32], group: &[Lanes], out: &mut [Lanes]) {
    sum_group(query, group, out, |vector, lane| vector.0[lane]);
}

/// See [`Kernels::group_f16`].
pub fn group_f16(query: &[f32], group: &[HalfLanes], out: &mut [Lanes]) {
    sum_group(query, group, out, |vector, lane| f32_from_f16(vector.0[lane]));
}

#[inline(always)]
fn sum_group<V>(query: &[f32], group: &[V], out: &mut [Lanes], value_of: impl Fn(&V, usize) -> f32) {
    let n_panels = out.len();
    debug_assert_eq!(group.len(), query.len() * n_panels);
    for (panel, out) in out.iter_mut().enumerate() {
        let mut sums = [0.0f32; LANES];
        for (&value, vectors) in query.iter().zip(group.chunks_exact(n_panels)) {
            for lane in 0..LANES {
                sums[lane] += value * value_of(&vectors[panel], lane);
            }
        }
        out.0 = sums;
    }
}

/// See [`Kernels::group_i8`].
pub fn group_i8(query: &[u8], group: &[ByteLanes], out: &mut [[i32; LANES]]) {
    let query = query.as_chunks::<BYTES_PER_LANE>().0;
    let n_panels = out.len();
    debug_assert_eq!(group.len(), query.len() * n_panels);
    for (panel, out) in out.iter_mut().enumerate() {
        let mut sums = [0i32; LANES];
        for (values, vectors) in query.iter().zip(group.chunks_exact(n_panels)) {
            for lane in 0..LANES {
                for place in 0..BYTES_PER_LANE {
                    sums[lane] += i32::from(values[place]) * i32::from(vectors[panel].0[lane][place]);
                }
            }
        }
        *out = sums;
    }
}

/// See [`Kernels::tile_f32`].
pub fn tile_f32(queries: &[f32], dim: usize, group: &[Lanes], out: &mut Tile) {
    let n_panels = group.len() / dim;
    for (query, out) in queries.chunks_exact(dim).zip(out) {
        group_f32(query, group, &mut out[..n_panels]);
    }
}

/// See [`Kernels::tile_i8`].
pub fn tile_i8(queries: &[u8], n_bytes: usize, group: &[ByteLanes], out: &mut ByteTile) {
    let n_panels = group.len() * BYTES_PER_LANE / n_bytes;
    for (query, out) in queries.chunks_exact(n_bytes).zip(out) {
        group_i8(query, group, &mut out[..n_panels]);
    }
}

/// See [`Kernels::rows_i8`].
pub fn rows_i8(query: &[u8], rows: &[ByteLanes], ids: &[u32], out: &mut [i32]) {
    let n_vectors = query.len() / BYTES_PER_VECTOR;
    for (out, &id) in out.iter_mut().zip(ids) {
        let row = rows[id as usize * n_vectors..][..n_vectors].iter().flat_map(|vector| vector.0.as_flattened());
        *out = query.iter().zip(row).map(|(&left, &right)| i32::from(left) * i32::from(right)).sum();
    }
}

/// See [`Kernels::quantize`]. Bytes past the query stay as they are.
#[inline(always)]
pub fn quantize(query: &[f32], out: &mut [u8]) -> (f32, f32) {
    let mut largest = [0.0f32; LANES];
    let (chunks, rest) = query.as_chunks::<LANES>();
    for chunk in chunks {
        for lane in 0..LANES {
            largest[lane] = largest[lane].max(chunk[lane].abs());
        }
    }
    let largest = largest.iter().chain(rest).fold(0.0f32, |largest, value| largest.max(value.abs()));
    let scale = largest / 127.0;
    let inverse = 127.0 / largest;
    let mut squared = [0.0f32; LANES];
    for (chunk, out) in query.chunks(LANES).zip(out.chunks_mut(LANES)) {
        for (lane, (&value, out)) in chunk.iter().zip(out).enumerate() {
            let rounded = (value * inverse + ROUND) - ROUND;
            *out = (rounded as i32 + 128).cast_unsigned() as u8;
            let error = value - rounded * scale;
            squared[lane] += error * error;
        }
    }
    (scale, squared.iter().sum::<f32>().sqrt())
}

/// See [`Kernels::take_best`].
#[inline(always)]
pub fn take_best(group: &[Lanes], n_valid: usize, similarities: &mut [f32], ids: &mut [u32]) {
    let mut left = [[f32::NEG_INFINITY; LANES]; GROUP_PANELS];
    for (panel, lanes) in group.iter().enumerate() {
        for lane in 0..LANES {
            let is_valid = panel * LANES + lane < n_valid;
            left[panel][lane] = if is_valid { lanes.0[lane] } else { f32::NEG_INFINITY };
        }
    }
    for (similarity, id) in similarities.iter_mut().zip(ids) {
        let mut highest = left[0];
        for lanes in &left[1..] {
            for lane in 0..LANES {
                highest[lane] = if lanes[lane] > highest[lane] { lanes[lane] } else { highest[lane] };
            }
        }
        *similarity = highest.iter().fold(f32::NEG_INFINITY, |best, &value| if value > best { value } else { best });
        *id = u32::MAX;
        if *similarity > f32::NEG_INFINITY
            && let Some(place) = left.as_flattened().iter().position(|value| value == similarity)
        {
            *id = place as u32;
            left.as_flattened_mut()[place] = f32::NEG_INFINITY;
        }
    }
}

/// See [`Kernels::scan`].
#[inline(always)]
pub fn scan(group: &[Lanes], n_valid: usize, first: u32, similarities: &mut [f32], ids: &mut [u32]) {
    for (panel, lanes) in group.iter().enumerate() {
        let mut mask = above(lanes, similarities[similarities.len() - 1]);
        // Lanes past the last cluster hold no cluster.
        let n_valid = n_valid.saturating_sub(panel * LANES);
        if n_valid < LANES {
            mask &= (1 << n_valid) - 1;
        }
        while mask != 0 {
            let lane = mask.trailing_zeros();
            mask &= mask - 1;
            insert(similarities, ids, lanes.0[lane as usize], first + (panel * LANES) as u32 + lane);
        }
    }
}

/// Puts a similarity, where it is better than the last, into its place; of equals the lower id is better.
#[inline(always)]
pub fn insert(similarities: &mut [f32], ids: &mut [u32], similarity: f32, id: u32) {
    let mut place = similarities.len() - 1;
    let is_better = |other: f32, other_id: u32| similarity > other || (similarity == other && id < other_id);
    if !is_better(similarities[place], ids[place]) {
        return;
    }
    while place > 0 && is_better(similarities[place - 1], ids[place - 1]) {
        similarities[place] = similarities[place - 1];
        ids[place] = ids[place - 1];
        place -= 1;
    }
    similarities[place] = similarity;
    ids[place] = id;
}

/// See [`Kernels::weigh`]. Multiplications and additions are not fused, so that the bits are the same everywhere.
#[inline(always)]
pub fn weigh(similarities: &mut [f32], inverse_norm: f32, beta: f32, weights: &mut [f32]) {
    let best = similarities[0] * inverse_norm;
    let mut total = 0.0f32;
    for (similarity, weight) in similarities.iter_mut().zip(&mut *weights) {
        *similarity *= inverse_norm;
        *weight = exp(beta * (*similarity - best));
        total += *weight;
    }
    let scale = total.recip();
    for weight in weights {
        *weight *= scale;
    }
}

/// Adding and subtracting it rounds to a whole number, ties to even.
pub(super) const ROUND: f32 = 12_582_912.0;
/// Below this the exponential is no normal number.
pub(super) const EXP_LOWEST: f32 = -87.0;
/// ln 2 in two parts, `high - rest`: the products of the first with whole numbers are exact.
pub(super) const LN_2_HIGH: f32 = 0.693_359_4;
/// See [`LN_2_HIGH`].
pub(super) const LN_2_REST: f32 = 2.121_944_4e-4;
/// Taylor coefficients of the exponential, the highest degree first.
pub(super) const EXP_COEFFICIENTS: [f32; 8] =
    [1.0 / 5040.0, 1.0 / 720.0, 1.0 / 120.0, 1.0 / 24.0, 1.0 / 6.0, 0.5, 1.0, 1.0];

/// `e^x` for `x <= 0` within 2e-7 of itself, the same bits on every machine; `e^-87` below that.
///
/// `x = n ln 2 + r` with `|r| <= ln 2 / 2`; the Taylor polynomial of degree 7 in `r`, then the exponent.
#[inline(always)]
fn exp(x: f32) -> f32 {
    let x = if x < EXP_LOWEST { EXP_LOWEST } else { x };
    let n = (x * std::f32::consts::LOG2_E + ROUND) - ROUND;
    let r = (x - n * LN_2_HIGH) + n * LN_2_REST;
    let mut sum = EXP_COEFFICIENTS[0];
    for coefficient in &EXP_COEFFICIENTS[1..] {
        sum = sum * r + coefficient;
    }
    sum * f32::from_bits((n as i32 + 127).cast_unsigned() << 23)
}

/// See [`Kernels::top_two`].
#[must_use]
#[inline(always)]
pub fn top_two(values: &[f32]) -> (usize, f32, f32) {
    let (mut place, mut first, mut second) = (0, f32::NEG_INFINITY, f32::NEG_INFINITY);
    for (id, &value) in values.iter().enumerate() {
        if value > first {
            second = first;
            first = value;
            place = id;
        } else if value > second {
            second = value;
        }
    }
    (place, first, second)
}

/// See [`Kernels::above`].
#[must_use]
#[inline(always)]
pub fn above(lanes: &Lanes, threshold: f32) -> u32 {
    lanes.0.iter().enumerate().fold(0, |mask, (lane, &value)| mask | u32::from(value > threshold) << lane)
}

/// See [`Kernels::blend`].
#[inline(always)]
pub fn blend(rows: &[f32], ids: &[u32], weights: &[f32], into: &mut [f32]) {
    let width = into.len();
    into.fill(0.0);
    for (&id, &weight) in ids.iter().zip(weights) {
        let row = &rows[id as usize * width..][..width];
        for (into, value) in into.iter_mut().zip(row) {
            *into += weight * value;
        }
    }
}

/// See [`Kernels::blend_i8`].
#[inline(always)]
pub fn blend_i8(rows: &[i8], ids: &[u32], weights: &[f32], into: &mut [f32]) {
    blend_i8_columns(rows, into.len(), 0, ids, weights, into);
}

/// [`Kernels::blend_i8`] of the columns from `first` on, as many as `into` holds, over rows of `width` bytes.
#[inline(always)]
pub fn blend_i8_columns(rows: &[i8], width: usize, first: usize, ids: &[u32], weights: &[f32], into: &mut [f32]) {
    into.fill(0.0);
    for (&id, &weight) in ids.iter().zip(weights) {
        let row = &rows[id as usize * width + first..][..into.len()];
        for (into, &value) in into.iter_mut().zip(row) {
            *into += weight * f32::from(value);
        }
    }
}

/// The value of half-precision bits (IEEE 754 binary16).
#[must_use]
pub fn f32_from_f16(bits: u16) -> f32 {
    let sign = u32::from(bits & 0x8000) << 16;
    let magnitude = u32::from(bits & 0x7fff);
    match magnitude >> 10 {
        // Subnormal: an integer multiple of 2^-24.
        0 => f32::from_bits(sign | (magnitude as f32 * (1.0 / 16_777_216.0)).to_bits()),
        31 => f32::from_bits(sign | 0x7f80_0000 | (magnitude & 0x3ff) << 13),
        _ => f32::from_bits(sign | ((magnitude << 13) + ((127 - 15) << 23))),
    }
}

/// The nearest half-precision value as bits, ties to even; too large becomes infinity.
#[must_use]
pub fn f16_from_f32(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = ((bits >> 16) & 0x8000) as u16;
    let magnitude = f32::from_bits(bits & 0x7fff_ffff);
    if magnitude.is_nan() {
        return sign | 0x7e00;
    }
    if magnitude >= 65520.0 {
        return sign | 0x7c00;
    }
    if magnitude < 6.103_515_6e-5 {
        // Subnormal or zero: adding a power of two rounds to a multiple of 2^-24 in its last places.
        let rounded = (magnitude + 0.5).to_bits() - 0.5f32.to_bits();
        return sign | rounded as u16;
    }
    let exponent_adjusted = magnitude.to_bits() - ((127 - 15) << 23);
    let even = (exponent_adjusted >> 13) & 1;
    sign | ((exponent_adjusted + 0xfff + even) >> 13) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_the_exponential() {
        for step in 0..2_000_000 {
            let x = -100.0 * step as f32 / 2e6;
            let (got, wanted) = (exp(x), f64::from(x).exp());
            assert!((f64::from(got) - wanted).abs() <= 2e-7 * wanted + 2e-38, "exp({x}) = {got}, wanted {wanted}");
        }
        assert_eq!((exp(0.0), exp(-1000.0), exp(f32::MIN)), (1.0, exp(-87.0), exp(-87.0)));
    }
}
