//! Portable loops, written so that the compiler turns them into vector code of the baseline.

/// Independent partial sums: enough to hide the latency of the adds.
const LANES: usize = 16;

/// Inner product of two slices of equal length.
#[must_use]
pub fn dot_f32(left: &[f32], right: &[f32]) -> f32 {
    debug_assert_eq!(left.len(), right.len());
    let mut sums = [0.0f32; LANES];
    let (left_chunks, left_rest) = left.as_chunks::<LANES>();
    let (right_chunks, right_rest) = right.as_chunks::<LANES>();
    for (left, right) in left_chunks.iter().zip(right_chunks) {
        for lane in 0..LANES {
            sums[lane] += left[lane] * right[lane];
        }
    }
    let mut total: f32 = left_rest.iter().zip(right_rest).map(|(left, right)| left * right).sum();
    // Pairwise, so that the rounding does not grow with the number of lanes.
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            sums[lane] += sums[lane + width];
        }
        width /= 2;
    }
    total += sums[0];
    total
}

/// `target += weight * row`, elementwise, for slices of equal length.
pub fn add_scaled_f32(target: &mut [f32], weight: f32, row: &[f32]) {
    debug_assert_eq!(target.len(), row.len());
    for (target, value) in target.iter_mut().zip(row) {
        *target += weight * value;
    }
}
