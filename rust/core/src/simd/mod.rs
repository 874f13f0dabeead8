//! The inner loops over floats and bytes, one file an instruction set, chosen once at run time.
//!
//! Centroids lie in groups of up to [`GROUP_PANELS`] panels of [`LANES`]: vector `d * n_panels + p` of a group holds
//! dimension `d` of its centroids `16 p` to `16 p + 15`, so that one vector load serves sixteen centroids, no sum
//! crosses lanes, and a group is read from its begin to its end. Every similarity is accumulated over the dimensions
//! in ascending order in one lane: one query or a tile of them, alone or in a batch, on one thread or many, the bits
//! are the same.
//!
//! `unsafe` stands in this folder alone. Every file offers the functions of [`serial`] with the same
//! signatures and is tested against it.

use crate::error::Error;

#[cfg(target_arch = "x86_64")]
/// Makes a safe function of one that needs instructions, for the table of the file that calls it.
macro_rules! entry {
    ($name:ident = $inner:ident($($argument:ident: $kind:ty),*) $(-> $result:ty)?) => {
        fn $name($($argument: $kind),*) $(-> $result)? {
            debug_assert!(is_available());
            // SAFETY: only the table leads here, and it is given out only where the machine has the instructions.
            unsafe { $inner($($argument),*) }
        }
    };
}

pub mod serial;

// Private: the functions of their tables are safe only where the machine has the instructions, see `Isa::kernels`.
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

/// Centroids in one panel.
pub const LANES: usize = 16;
/// Panels in a group; the last group has fewer where the clusters end.
pub const GROUP_PANELS: usize = 4;
/// Centroids in a whole group.
pub const GROUP_CLUSTERS: usize = GROUP_PANELS * LANES;
/// Queries that one tile covers.
pub const TILE_QUERIES: usize = 6;
/// Rows of bytes that are fetched before they are blended.
pub(crate) const ROWS_AHEAD: usize = 8;
/// Bytes of one vector.
pub const BYTES_PER_VECTOR: usize = LANES * BYTES_PER_LANE;
/// Dimensions that share one 32-bit lane of a byte panel.
pub const BYTES_PER_LANE: usize = 4;

/// One dimension of sixteen centroids.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub struct Lanes(pub [f32; LANES]);

/// One dimension of sixteen centroids as IEEE half-precision bits.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(32))]
pub struct HalfLanes(pub [u16; LANES]);

/// Four dimensions of sixteen centroids, the four of one centroid side by side.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct ByteLanes(pub [[i8; BYTES_PER_LANE]; LANES]);

/// Similarities of one query to a group.
pub type GroupLanes = [Lanes; GROUP_PANELS];
/// Similarities of up to [`TILE_QUERIES`] queries to a group.
pub type Tile = [GroupLanes; TILE_QUERIES];

/// Sums of up to [`TILE_QUERIES`] queries of bytes with a group of bytes.
pub type ByteTile = [[[i32; LANES]; GROUP_PANELS]; TILE_QUERIES];

/// An instruction set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isa {
    /// Portable code.
    Serial,
    /// AVX2, FMA and F16C (x86-64).
    Avx2,
    /// AVX-512 F, BW, VL and VNNI, with what AVX2 has (x86-64).
    Avx512,
    /// NEON (aarch64).
    Neon,
}

impl Isa {
    /// All names, the widest first.
    pub const ALL: [Self; 4] = [Self::Avx512, Self::Avx2, Self::Neon, Self::Serial];

    /// The widest instruction set of this machine.
    #[must_use]
    pub fn detect() -> Self {
        Self::ALL.into_iter().find(|isa| isa.is_available()).unwrap_or(Self::Serial)
    }

    /// What the environment variable `CENTROUTE_SIMD` names, or the widest instruction set of this machine.
    pub fn from_environment() -> Result<Self, Error> {
        let Some(wanted) = std::env::var_os("CENTROUTE_SIMD").filter(|name| !name.is_empty()) else {
            return Ok(Self::detect());
        };
        let available = || Self::ALL.into_iter().filter(|isa| isa.is_available());
        available().find(|isa| wanted == isa.name()).ok_or_else(|| Error::InstructionSet {
            wanted: wanted.display().to_string(),
            available: available().map(Self::name).collect::<Vec<_>>().join(", "),
        })
    }

    /// Whether this machine has it.
    #[must_use]
    pub fn is_available(self) -> bool {
        match self {
            Self::Serial => true,
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => avx2::is_available(),
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => avx512::is_available(),
            #[cfg(target_arch = "aarch64")]
            Self::Neon => true,
            _ => false,
        }
    }

    /// Its name in lower case.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Serial => "serial",
            Self::Avx2 => "avx2",
            Self::Avx512 => "avx512",
            Self::Neon => "neon",
        }
    }

    /// The loops of this instruction set; the portable ones where the machine lacks it.
    #[must_use]
    pub fn kernels(self) -> &'static Kernels {
        if !self.is_available() {
            return &serial::KERNELS;
        }
        match self {
            #[cfg(target_arch = "x86_64")]
            Self::Avx2 => &avx2::KERNELS,
            #[cfg(target_arch = "x86_64")]
            Self::Avx512 => &avx512::KERNELS,
            #[cfg(target_arch = "aarch64")]
            Self::Neon => &neon::KERNELS,
            _ => &serial::KERNELS,
        }
    }
}

/// The inner loops of one instruction set.
#[derive(Debug)]
#[expect(clippy::type_complexity, reason = "the signatures are the point of this table")]
pub struct Kernels {
    /// Inner product of two slices of equal length.
    pub dot_f32: fn(&[f32], &[f32]) -> f32,
    /// Inner products of one query `[dim]` with a group; `out.len()` is the group's number of panels.
    pub group_f32: fn(query: &[f32], group: &[Lanes], out: &mut [Lanes]),
    /// The same for a group of half-precision values.
    pub group_f16: fn(query: &[f32], group: &[HalfLanes], out: &mut [Lanes]),
    /// Inner products of a query of unsigned bytes, `dim` rounded up to fours, with a group of signed bytes.
    pub group_i8: fn(query: &[u8], group: &[ByteLanes], out: &mut [[i32; LANES]]),
    /// Inner products of 1 to [`TILE_QUERIES`] rows `[n, dim]` with a group.
    pub tile_f32: fn(queries: &[f32], dim: usize, group: &[Lanes], out: &mut Tile),
    /// [`Self::group_i8`] for 1 to [`TILE_QUERIES`] queries of `n_bytes` each.
    pub tile_i8: fn(queries: &[u8], n_bytes: usize, group: &[ByteLanes], out: &mut ByteTile),
    /// Inner products of a query of unsigned bytes with some rows of signed bytes, each of `query.len() / 64` vectors.
    pub rows_i8: fn(query: &[u8], rows: &[ByteLanes], ids: &[u32], out: &mut [i32]),
    /// Writes a query as unsigned bytes around 128 and returns the value of one unit and the distance to the query.
    pub quantize: fn(query: &[f32], out: &mut [u8]) -> (f32, f32),
    /// The highest of the first `n_valid` lanes of a group, descending, the lower lane first in a tie, with their lanes;
    /// as many as there is room for, then negative infinity and `u32::MAX`.
    pub take_best: fn(group: &[Lanes], n_valid: usize, similarities: &mut [f32], ids: &mut [u32]),
    /// Puts what exceeds the last of `similarities`, descending, into it with its id, which is `first` and the lane. Ids
    /// before this group are lower, so that an equal one that is there keeps its place.
    pub scan: fn(group: &[Lanes], n_valid: usize, first: u32, similarities: &mut [f32], ids: &mut [u32]),
    /// Turns inner products, descending, into cosines by a factor, and writes their softmax weights.
    pub weigh: fn(similarities: &mut [f32], inverse_norm: f32, beta: f32, weights: &mut [f32]),
    /// Place of the highest value, the first of equals, that value, and the highest among the others. Without values
    /// above negative infinity the place has no meaning.
    pub top_two: fn(&[f32]) -> (usize, f32, f32),
    /// Bit `l` is set where lane `l` exceeds the threshold.
    pub above: fn(&Lanes, threshold: f32) -> u32,
    /// `into[m] = sum_i weights[i] * rows[ids[i]][m]` over rows of `into.len()` values.
    pub blend: fn(rows: &[f32], ids: &[u32], weights: &[f32], into: &mut [f32]),
    /// [`Self::blend`] of rows of bytes.
    pub blend_i8: fn(rows: &[i8], ids: &[u32], weights: &[f32], into: &mut [f32]),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize, seed: u32) -> Vec<f32> {
        let mut state = u64::from(seed) * 2_654_435_761 + 1;
        (0..n)
            .map(|_| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
            })
            .collect()
    }

    fn close(left: f32, right: f32) -> bool {
        (left - right).abs() <= 1e-4 * (1.0 + right.abs())
    }

    fn available() -> impl Iterator<Item = Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_available())
    }

    const DIMS: [usize; 12] = [1, 3, 7, 15, 16, 17, 31, 33, 64, 65, 256, 384];

    #[test]
    fn every_instruction_set_equals_the_portable_loops() {
        for isa in available() {
            let kernels = isa.kernels();
            for dim in DIMS {
                let (left, right) = (values(dim, 1), values(dim, 2));
                assert!(close((kernels.dot_f32)(&left, &right), serial::dot_f32(&left, &right)), "{isa:?} dot {dim}");

                for n_panels in 1..=GROUP_PANELS {
                    let panels: Vec<Lanes> =
                        values(n_panels * dim * LANES, 3).as_chunks().0.iter().map(|&lanes| Lanes(lanes)).collect();
                    let mut got = vec![Lanes::default(); n_panels];
                    let mut wanted = got.clone();
                    (kernels.group_f32)(&left, &panels, &mut got);
                    serial::group_f32(&left, &panels, &mut wanted);
                    for (got, wanted) in got.iter().zip(&wanted) {
                        assert!(got.0.iter().zip(wanted.0).all(|(&got, wanted)| close(got, wanted)), "{isa:?} {dim}");
                    }

                    let halves: Vec<HalfLanes> =
                        panels.iter().map(|lanes| HalfLanes(lanes.0.map(serial::f16_from_f32))).collect();
                    (kernels.group_f16)(&left, &halves, &mut got);
                    serial::group_f16(&left, &halves, &mut wanted);
                    for (got, wanted) in got.iter().zip(&wanted) {
                        assert!(got.0.iter().zip(wanted.0).all(|(&got, wanted)| close(got, wanted)), "{isa:?} f16");
                    }

                    let n_vectors = dim.div_ceil(BYTES_PER_LANE);
                    let query: Vec<u8> = values(n_vectors * BYTES_PER_LANE, 5)
                        .iter()
                        .map(|value| ((value * 255.0) as i8).cast_unsigned() ^ 128)
                        .collect();
                    let bytes: Vec<ByteLanes> = (0..n_panels * n_vectors)
                        .map(|vector| {
                            let lanes = values(LANES * BYTES_PER_LANE, vector as u32 + 7);
                            let mut lanes = lanes.iter().map(|value| (value * 254.0) as i8);
                            ByteLanes(std::array::from_fn(|_| std::array::from_fn(|_| lanes.next().unwrap_or(0))))
                        })
                        .collect();
                    let mut got = vec![[0; LANES]; n_panels];
                    let mut wanted = got.clone();
                    (kernels.group_i8)(&query, &bytes, &mut got);
                    serial::group_i8(&query, &bytes, &mut wanted);
                    assert_eq!(got, wanted, "{isa:?} i8 {dim}");

                    for n_queries in 1..=TILE_QUERIES {
                        let queries: Vec<u8> =
                            (0..n_queries).flat_map(|turn| query.iter().map(move |byte| byte ^ turn as u8)).collect();
                        let mut tile = ByteTile::default();
                        (kernels.tile_i8)(&queries, query.len(), &bytes, &mut tile);
                        for (query, got) in queries.chunks(query.len()).zip(&tile) {
                            serial::group_i8(query, &bytes, &mut wanted);
                            assert_eq!(got[..n_panels], wanted, "{isa:?} tile of i8 {dim}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_tile_has_the_bits_of_one_query_after_another() {
        for isa in available() {
            let kernels = isa.kernels();
            for dim in DIMS {
                for n_panels in 1..=GROUP_PANELS {
                    let panels: Vec<Lanes> =
                        values(n_panels * dim * LANES, 3).as_chunks().0.iter().map(|&lanes| Lanes(lanes)).collect();
                    for n_queries in 1..=TILE_QUERIES {
                        let queries = values(n_queries * dim, 9);
                        let mut tile = Tile::default();
                        (kernels.tile_f32)(&queries, dim, &panels, &mut tile);
                        for (query, got) in queries.chunks_exact(dim).zip(&tile) {
                            let mut wanted = vec![Lanes::default(); n_panels];
                            (kernels.group_f32)(query, &panels, &mut wanted);
                            for (got, wanted) in got.iter().zip(&wanted) {
                                assert_eq!(got.0.map(f32::to_bits), wanted.0.map(f32::to_bits), "{isa:?} {dim}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn above_and_blend_equal_the_portable_loops() {
        for isa in available() {
            let kernels = isa.kernels();
            let mut lanes = Lanes::default();
            lanes.0.copy_from_slice(&values(LANES, 4));
            lanes.0[3] = 0.125;
            for threshold in [f32::NEG_INFINITY, -0.2, 0.0, 0.125, 1.0] {
                assert_eq!((kernels.above)(&lanes, threshold), serial::above(&lanes, threshold), "{isa:?} {threshold}");
            }
            for width in [1, 3, 15, 16, 17, 32, 33, 64, 100] {
                let rows = values(40 * width, 6);
                let (ids, weights) = ([3u32, 39, 0, 7], [0.5f32, 0.25, 0.125, 0.0625]);
                for n in 0..=4 {
                    let (mut got, mut wanted) = (vec![f32::NAN; width], vec![f32::NAN; width]);
                    (kernels.blend)(&rows, &ids[..n], &weights[..n], &mut got);
                    serial::blend(&rows, &ids[..n], &weights[..n], &mut wanted);
                    assert!(got.iter().zip(&wanted).all(|(&got, &wanted)| close(got, wanted)), "{isa:?} {width}");
                }
            }
        }
    }

    #[test]
    fn blending_bytes_equals_the_portable_loop() {
        for isa in available() {
            for width in [1, 7, 15, 16, 17, 31, 64, 65, 100, 256, 300, 384, 1024] {
                let rows: Vec<i8> = values(40 * width, 31).iter().map(|value| (value * 254.0) as i8).collect();
                let ids: Vec<u32> = (0..100u32).map(|place| place * 7 % 40).collect();
                let weights = values(100, 32);
                for n in [0, 1, 2, 11, 100] {
                    let (mut got, mut wanted) = (vec![f32::NAN; width], vec![f32::NAN; width]);
                    (isa.kernels().blend_i8)(&rows, &ids[..n], &weights[..n], &mut got);
                    serial::blend_i8(&rows, &ids[..n], &weights[..n], &mut wanted);
                    assert!(got.iter().zip(&wanted).all(|(&got, &wanted)| close(got, wanted)), "{isa:?} {width} {n}");
                }
            }
        }
    }

    #[test]
    fn rows_of_bytes_have_the_sums_of_the_portable_loop() {
        for isa in available() {
            for n_vectors in 1..=6 {
                let n_bytes = n_vectors * BYTES_PER_VECTOR;
                let query: Vec<u8> =
                    values(n_bytes, 41).iter().map(|value| ((value * 511.0) as i32).cast_unsigned() as u8).collect();
                let rows: Vec<ByteLanes> = values(9 * n_bytes, 42)
                    .as_chunks::<BYTES_PER_VECTOR>()
                    .0
                    .iter()
                    .map(|row| {
                        ByteLanes(std::array::from_fn(|lane| {
                            std::array::from_fn(|place| (row[lane * BYTES_PER_LANE + place] * 255.9) as i8)
                        }))
                    })
                    .collect();
                let ids: Vec<u32> = (0..20).map(|place| place * 7 % 9).collect();
                let (mut got, mut wanted) = (vec![0; ids.len()], vec![0; ids.len()]);
                (isa.kernels().rows_i8)(&query, &rows, &ids, &mut got);
                serial::rows_i8(&query, &rows, &ids, &mut wanted);
                assert_eq!(got, wanted, "{isa:?} {n_vectors}");
                let exact: i32 = (0..n_bytes)
                    .map(|place| {
                        let lane = &rows[ids[3] as usize * n_vectors + place / BYTES_PER_VECTOR].0;
                        let value = lane[place % BYTES_PER_VECTOR / BYTES_PER_LANE][place % BYTES_PER_LANE];
                        i32::from(query[place]) * i32::from(value)
                    })
                    .sum();
                assert_eq!(wanted[3], exact);
            }
        }
    }

    #[test]
    fn quantizing_is_within_half_a_unit_and_says_how_far_it_is() {
        for isa in available() {
            for dim in DIMS {
                let query = values(dim, 11);
                let (mut got, mut wanted) = (vec![7; dim + 3], vec![7; dim + 3]);
                let (scale, error) = (isa.kernels().quantize)(&query, &mut got);
                let (wanted_scale, wanted_error) = serial::quantize(&query, &mut wanted);
                assert_eq!((&got, scale), (&wanted, wanted_scale), "{isa:?} {dim}");
                assert_eq!(got[dim..], [7, 7, 7], "bytes past the query stay as they are");
                assert!((error - wanted_error).abs() <= 1e-5 * wanted_error + 1e-9, "{isa:?} {error} {wanted_error}");
                let stored = got.iter().map(|&byte| (f32::from(byte) - 128.0) * scale);
                let exact: f64 =
                    query.iter().zip(stored).map(|(value, stored)| f64::from(value - stored).powi(2)).sum();
                assert!((exact.sqrt() - f64::from(error)).abs() <= 1e-4 * f64::from(scale));
            }
        }
    }

    #[test]
    fn the_best_of_a_group_are_those_of_a_stable_sort() {
        for isa in available() {
            let kernels = isa.kernels();
            for n_panels in 1..=GROUP_PANELS {
                for n_valid in
                    [1usize, 2, 15, 16, 17, 33, 63, 64].into_iter().filter(|&n| n.div_ceil(LANES) == n_panels)
                {
                    // Coarse values, so that many are equal.
                    let group: Vec<Lanes> = values(n_panels * LANES, n_valid as u32)
                        .as_chunks()
                        .0
                        .iter()
                        .map(|&lanes: &[f32; LANES]| Lanes(lanes.map(|value| (value * 8.0).round() - 1.0)))
                        .collect();
                    let flat: Vec<f32> = group.iter().flat_map(|lanes| lanes.0).take(n_valid).collect();
                    let mut order: Vec<u32> = (0..n_valid as u32).collect();
                    order.sort_by(|&left, &right| flat[right as usize].total_cmp(&flat[left as usize]));
                    for top_p in [1, 2, 4, 8, 32, 64] {
                        let (mut similarities, mut ids) = (vec![0.0; top_p], vec![0; top_p]);
                        (kernels.take_best)(&group, n_valid, &mut similarities, &mut ids);
                        for place in 0..top_p {
                            let wanted = order.get(place).copied();
                            assert_eq!(ids[place], wanted.unwrap_or(u32::MAX), "{isa:?} {n_valid} {top_p} {place}");
                            let value = wanted.map_or(f32::NEG_INFINITY, |id| flat[id as usize]);
                            assert_eq!(similarities[place], value);
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn scanning_group_after_group_keeps_the_best_of_a_stable_sort() {
        for isa in available() {
            let kernels = isa.kernels();
            for n_clusters in [64usize, 65, 130, 333] {
                let flat: Vec<f32> = values(n_clusters, 17).iter().map(|value| (value * 32.0).round()).collect();
                let mut order: Vec<u32> = (0..n_clusters as u32).collect();
                order.sort_by(|&left, &right| flat[right as usize].total_cmp(&flat[left as usize]));
                for top_p in [1, 2, 4, 15, 16, 17, 40] {
                    let (mut similarities, mut ids) = (vec![0.0; top_p], vec![0; top_p]);
                    for (place, values) in flat.chunks(GROUP_CLUSTERS).enumerate() {
                        // Lanes past the last cluster are higher than all, and still no clusters.
                        let mut group = vec![Lanes([1e9; LANES]); values.len().div_ceil(LANES)];
                        for (lane, &value) in values.iter().enumerate() {
                            group[lane / LANES].0[lane % LANES] = value;
                        }
                        if place == 0 {
                            (kernels.take_best)(&group, values.len(), &mut similarities, &mut ids);
                        } else {
                            let first = (place * GROUP_CLUSTERS) as u32;
                            (kernels.scan)(&group, values.len(), first, &mut similarities, &mut ids);
                        }
                    }
                    assert_eq!(ids, order[..top_p], "{isa:?} {n_clusters} {top_p}");
                }
            }
        }
    }

    #[test]
    fn weights_have_the_same_bits_everywhere() {
        for isa in available() {
            for n in [1, 2, 4, 15, 16, 17, 40] {
                let mut sorted = values(n, 23);
                sorted.sort_by(|left, right| right.total_cmp(left));
                let (mut wanted, mut weights, mut wanted_weights) = (sorted.clone(), vec![0.0; n], vec![0.0; n]);
                (isa.kernels().weigh)(&mut sorted, 1.25, 20.0, &mut weights);
                serial::weigh(&mut wanted, 1.25, 20.0, &mut wanted_weights);
                assert_eq!((&sorted, &weights), (&wanted, &wanted_weights), "{isa:?} {n}");
                assert!((weights.iter().sum::<f32>() - 1.0).abs() < 1e-6);
                assert!((weights[n - 1] / weights[0] - (20.0 * (sorted[n - 1] - sorted[0])).exp()).abs() < 1e-6);
            }
        }
    }

    #[test]
    fn the_top_two_are_those_of_the_portable_loop() {
        for isa in available() {
            for n in 1..40 {
                let coarse: Vec<f32> = values(n, n as u32).iter().map(|value| (value * 4.0).round()).collect();
                assert_eq!((isa.kernels().top_two)(&coarse), serial::top_two(&coarse), "{isa:?} {coarse:?}");
                let mut one = vec![f32::NEG_INFINITY; n];
                one[n / 2] = 1.0;
                assert_eq!((isa.kernels().top_two)(&one), (n / 2, 1.0, f32::NEG_INFINITY), "{isa:?}");
            }
        }
    }

    #[test]
    fn half_precision_converts_as_ieee_says() {
        for (value, bits) in [
            (0.0, 0),
            (1.0, 0x3c00),
            (-2.0, 0xc000),
            (65504.0, 0x7bff),
            (5.960_464_5e-8, 1),
            (0.1, 0x2e66),
            (1e9, 0x7c00),
        ] {
            assert_eq!(serial::f16_from_f32(value), bits, "{value}");
        }
        for bits in (0..0x7c00u16).chain(0x8000..0xfc00) {
            assert_eq!(serial::f16_from_f32(serial::f32_from_f16(bits)), bits);
        }
    }
}
