//! Thresholds between a strong and a weak model: a share of calls in, the predicted gap that gives it out.
//!
//! Calibration measures every pair of the pool (`python/centroute/calibrate/pairs.py`). A query goes to the strong model
//! when its predicted quality leads that of the weak one by more than the threshold, as in `RouteLLM` (arXiv 2406.18665).

use safetensors::SafeTensors;

use crate::artifact::{Artifact, read_f32, value_error};
use crate::error::Error;

/// Name of the tensor.
const NAME: &str = "pairs";
/// Numbers of a point.
const WIDTH: usize = 6;
/// No predicted gap is as large: qualities lie within 0 to 1.
const BEYOND: f32 = 2.0;

/// One point of a pair's curve: the predicted lead in quality above which the strong model is asked, the share of the
/// calibration queries above it, accuracy and its standard error, the standard error of the recovered part of the gap
/// (NaN where there is none), mean cost.
pub type Point = [f32; WIDTH];

/// Curves of all pairs of a pool, in the order (0, 1), (0, 2), …, (1, 2), ….
#[derive(Clone, Debug)]
pub struct Pairs {
    points: Vec<Point>,
    n_models: usize,
    n_points: usize,
}

impl Pairs {
    /// Reads and checks the tensor, `None` where the file has none.
    pub(crate) fn read(tensors: &SafeTensors<'_>, n_models: usize) -> Result<Option<Self>, Error> {
        let Ok(tensor) = tensors.tensor(NAME) else { return Ok(None) };
        let n_pairs = n_models * (n_models - 1) / 2;
        let values = read_f32(tensors, NAME, &[Some(n_pairs), None, Some(WIDTH)])?;
        let n_points = tensor.shape()[1];
        if n_pairs == 0 || n_points < 2 {
            return Err(Error::TensorLayout {
                name: NAME,
                got: format!("{:?}", tensor.shape()),
                wanted: "two points or more of a pair of models".into(),
            });
        }
        let rows = values.as_chunks::<WIDTH>().0;
        for (pair, curve) in rows.chunks_exact(n_points).enumerate() {
            check_curve(pair * n_points, curve)?;
        }
        Ok(Some(Self { points: rows.to_vec(), n_models, n_points }))
    }

    /// All points, curve after curve.
    #[must_use]
    pub fn points(&self) -> &[Point] {
        &self.points
    }

    /// Points of one curve.
    #[must_use]
    pub fn n_points(&self) -> usize {
        self.n_points
    }

    /// Points of a pair, the share ascending; `None` where no query was answered by both.
    fn curve(&self, one: usize, other: usize) -> Option<&[Point]> {
        let (first, second) = (one.min(other), one.max(other));
        let pair = first * (2 * self.n_models - first - 1) / 2 + second - first - 1;
        let curve = &self.points[pair * self.n_points..][..self.n_points];
        (!curve[0][0].is_nan()).then_some(curve)
    }
}

/// Checks one curve. A pair that nobody measured is NaN throughout, and so are costs that are not known at every point.
fn check_curve(first_row: usize, curve: &[Point]) -> Result<(), Error> {
    let refuse = |row: usize, column: usize, wanted: &'static str| {
        value_error(NAME, (first_row + row) * WIDTH + column, WIDTH, curve[row][column], wanted)
    };
    let (measured, cost_is_known) = (!curve[0][0].is_nan(), !curve[0][WIDTH - 1].is_nan());
    for (row, values) in curve.iter().enumerate() {
        let [threshold, share, accuracy, error, recovered_error, cost] = *values;
        let is_error = |value: f32| value >= 0.0 && value.is_finite();
        let unit = |value: f32| (0.0..=1.0).contains(&value);
        if !measured {
            if let Some(column) = values.iter().position(|value| !value.is_nan()) {
                return Err(refuse(row, column, "unknown as the pair's first"));
            }
            continue;
        }
        let checks = [
            ((-1.0..=1.0).contains(&threshold), "within -1 to 1"),
            (unit(share), "within 0 to 1"),
            (unit(accuracy), "within 0 to 1"),
            (is_error(error), "finite and 0 or more"),
            (recovered_error.is_nan() || is_error(recovered_error), "finite and 0 or more"),
            (
                if cost_is_known { cost >= 0.0 && cost.is_finite() } else { cost.is_nan() },
                "known or unknown as the pair's first",
            ),
        ];
        for (column, (holds, wanted)) in checks.into_iter().enumerate() {
            if !holds {
                return Err(refuse(row, column, wanted));
            }
        }
        if row > 0 && threshold > curve[row - 1][0] {
            return Err(refuse(row, 0, "descending"));
        }
        if row > 0 && share < curve[row - 1][1] {
            return Err(refuse(row, 1, "ascending"));
        }
    }
    Ok(())
}

/// The predicted gap above which a share of the calibration queries lies.
///
/// Between two points it is interpolated linearly in the share.
pub fn threshold_for_share(artifact: &Artifact, strong: usize, weak: usize, share: f64) -> Result<f32, Error> {
    let name = |model: usize| artifact.model_name(model);
    let refuse = |why: String| Err(Error::StrongWeak(why));
    if strong == weak {
        return refuse(format!("both are {}", name(strong)));
    }
    let quality = &artifact.quality.prior;
    if quality[strong] <= quality[weak] {
        return refuse(format!(
            "strong {} was no better than weak {} at calibration (quality {:.3} and {:.3})",
            name(strong),
            name(weak),
            quality[strong],
            quality[weak]
        ));
    }
    let cost = &artifact.cost.prior;
    if cost[strong] < cost[weak] {
        return refuse(format!(
            "strong {} is better and costs less than weak {} ({:.3e} and {:.3e} USD): nothing is to be weighed",
            name(strong),
            name(weak),
            cost[strong],
            cost[weak]
        ));
    }
    let Some(pairs) = &artifact.pairs else {
        return refuse("the artifact stores no thresholds; calibrate again".into());
    };
    let Some(curve) = pairs.curve(strong, weak) else {
        return refuse(format!("no query of the calibration was answered by both {} and {}", name(strong), name(weak)));
    };
    if share <= 0.0 {
        return Ok(BEYOND);
    }
    if share >= 1.0 {
        return Ok(-BEYOND);
    }
    let share = share as f32;
    let above = curve.partition_point(|point| point[1] <= share);
    Ok(match (above.checked_sub(1).map(|below| curve[below]), curve.get(above)) {
        (Some(low), Some(high)) => low[0] + (share - low[1]) / (high[1] - low[1]) * (high[0] - low[0]),
        (Some(point), None) => point[0],
        (None, _) => curve[0][0],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_found_in_either_order() {
        let points = (0..6).map(|pair| [pair as f32, 0.5, 0.5, 0.0, 0.0, 0.0]).collect();
        let pairs = Pairs { points, n_models: 4, n_points: 1 };
        let found: Vec<f32> = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)]
            .into_iter()
            .flat_map(|(one, other)| [pairs.curve(one, other), pairs.curve(other, one)])
            .map(|curve| curve.expect("measured")[0][0])
            .collect();
        assert_eq!(found, [0.0, 0.0, 1.0, 1.0, 2.0, 2.0, 3.0, 3.0, 4.0, 4.0, 5.0, 5.0]);
    }

    #[test]
    fn a_curve_is_measured_throughout_or_not_at_all() {
        let nan = f32::NAN;
        assert!(check_curve(0, &[[nan; 6]; 2]).is_ok());
        assert!(check_curve(0, &[[0.2, 0.0, 0.5, 0.01, nan, 0.1], [0.1, 1.0, 0.6, 0.01, 0.1, 0.2]]).is_ok());
        assert!(check_curve(0, &[[0.2, 0.0, 0.5, 0.01, nan, nan], [0.1, 1.0, 0.6, 0.01, nan, nan]]).is_ok());
        for (curve, what) in [
            ([[nan; 6], [0.1, 1.0, 0.6, 0.01, 0.1, 0.2]], "unknown as"),
            ([[0.2, 0.0, 0.5, 0.01, nan, nan], [0.1, 1.0, 0.6, 0.01, 0.1, 0.2]], "known or unknown as"),
            ([[0.1, 0.0, 0.5, 0.01, nan, 0.1], [0.2, 1.0, 0.6, 0.01, 0.1, 0.2]], "descending"),
            ([[0.2, 0.9, 0.5, 0.01, nan, 0.1], [0.1, 0.3, 0.6, 0.01, 0.1, 0.2]], "ascending"),
            ([[0.2, 0.0, 1.5, 0.01, nan, 0.1], [0.1, 1.0, 0.6, 0.01, 0.1, 0.2]], "within 0 to 1"),
        ] {
            let said = check_curve(0, &curve).expect_err(what).to_string();
            assert!(said.contains(what), "{said}");
        }
    }
}
