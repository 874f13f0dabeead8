//! The tensors of an index in; checked parts out, or the first thing that is wrong.
//!
//! f32 `index.projection [width, dim]`, `index.groups [n_groups, width]` and `index.lists [n_lists, width]` (centroids
//! projected), i32 `index.group_offsets [n_groups + 1]` (where the lists of each group begin), `index.list_offsets
//! [n_lists + 1]` (where the members of each list begin), `index.members [n_members]` (row numbers) and `index.probes
//! [n_probes, 4]` (depth, groups, lists and candidates, see [`super::Probe`]). Rows behind the highest member lie in no
//! list; every row before it lies in one at least.

use safetensors::SafeTensors;

use crate::artifact::{read_f32, read_i32};
use crate::centroids::MAX_BYTE_DIM;
use crate::error::Error;
use crate::index::Probe;

/// Names of the tensors, in the order of the fields of [`Parts`].
pub const NAMES: [&str; 7] = [
    "index.projection",
    "index.groups",
    "index.lists",
    "index.group_offsets",
    "index.list_offsets",
    "index.members",
    "index.probes",
];
/// Most that a projected unit row can be, and room for rounding.
const MAX_VALUE: f32 = 1.001;
/// Most neighbours or candidates that a probe may be for.
const MAX_CANDIDATES: usize = 1 << 20;

/// What an index is built from.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parts {
    /// Directions `[width, dim]`.
    pub projection: Vec<f32>,
    /// Projected centroids of the groups `[n_groups, width]`.
    pub groups: Vec<f32>,
    /// Projected centroids of the lists `[n_lists, width]`, group by group.
    pub lists: Vec<f32>,
    /// Where the lists of each group begin, and the end.
    pub group_offsets: Vec<usize>,
    /// Where the members of each list begin, and the end.
    pub list_offsets: Vec<usize>,
    /// Row numbers, list by list.
    pub members: Vec<u32>,
    /// Rows that lie in lists; later ones lie behind.
    pub n_listed: usize,
    /// Ascending in depth.
    pub probes: Vec<Probe>,
}

/// The arrays of an index as they come, without their shapes but for the width.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "named as the tensors are")]
pub struct Arrays {
    pub width: usize,
    pub projection: Vec<f32>,
    pub groups: Vec<f32>,
    pub lists: Vec<f32>,
    pub group_offsets: Vec<i32>,
    pub list_offsets: Vec<i32>,
    pub members: Vec<i32>,
    pub probes: Vec<[i32; 4]>,
}

impl Parts {
    /// Reads the index of a file with `n_rows` centroids; none where the file has none.
    pub fn read(tensors: &SafeTensors<'_>, n_rows: usize, dim: usize) -> Result<Option<Self>, Error> {
        let mut names: Vec<&str> = tensors.names().into_iter().filter(|name| name.starts_with("index.")).collect();
        names.sort_unstable();
        if let Some(name) = names.iter().find(|name| !NAMES.contains(name)) {
            return Err(Error::Metadata(format!("tensor '{name}' is no part of an index that this build knows")));
        }
        if names.is_empty() {
            return Ok(None);
        }
        let projection = read_f32(tensors, NAMES[0], &[None, Some(dim)])?;
        let width = projection.len() / dim;
        check_width(width, dim)?;
        let shape = [None, Some(width)];
        let arrays = Arrays {
            width,
            projection,
            groups: read_f32(tensors, NAMES[1], &shape)?,
            lists: read_f32(tensors, NAMES[2], &shape)?,
            group_offsets: read_i32(tensors, NAMES[3], &[None])?,
            list_offsets: read_i32(tensors, NAMES[4], &[None])?,
            members: read_i32(tensors, NAMES[5], &[None])?,
            probes: read_i32(tensors, NAMES[6], &[None, Some(4)])?.as_chunks().0.to_vec(),
        };
        Self::check(arrays, n_rows, dim).map(Some)
    }

    /// The most neighbours that can be searched for.
    #[must_use]
    pub fn max_depth(&self) -> usize {
        self.probes.last().map_or(0, |probe| probe.depth)
    }

    /// Checks all that searching relies on, for `n_rows` rows of width `dim`.
    pub fn check(arrays: Arrays, n_rows: usize, dim: usize) -> Result<Self, Error> {
        let width = arrays.width;
        check_width(width, dim)?;
        for (name, values, columns) in
            [(0, &arrays.projection, dim), (1, &arrays.groups, width), (2, &arrays.lists, width)]
        {
            if let Some(place) = values.iter().position(|value| value.is_nan() || value.abs() > MAX_VALUE) {
                let position = format!("[{}, {}]", place / columns, place % columns);
                return Err(refused(name, position, values[place], "within -1 to 1"));
            }
        }
        let (n_groups, n_lists) = (arrays.groups.len() / width, arrays.lists.len() / width);
        let group_offsets = check_offsets(3, &arrays.group_offsets, n_groups, n_lists)?;
        let list_offsets = check_offsets(4, &arrays.list_offsets, n_lists, arrays.members.len())?;
        let (members, n_listed) = check_members(&arrays.members, n_rows)?;
        let probes = check_probes(&arrays.probes, n_groups, n_lists)?;
        let Arrays { projection, groups, lists, .. } = arrays;
        Ok(Self { projection, groups, lists, group_offsets, list_offsets, members, n_listed, probes })
    }
}

fn check_width(width: usize, dim: usize) -> Result<(), Error> {
    if width > 0 && width <= dim && dim <= MAX_BYTE_DIM {
        return Ok(());
    }
    let wanted = format!("1 to {} directions of {dim} numbers", dim.min(MAX_BYTE_DIM));
    Err(layout(0, format!("{width} of {dim}"), wanted))
}

/// Offsets of `n` parts of `total` things: from zero, never down, to the end.
fn check_offsets(name: usize, offsets: &[i32], n: usize, total: usize) -> Result<Vec<usize>, Error> {
    if n == 0 || offsets.len() != n + 1 {
        return Err(layout(name, format!("I32 [{}]", offsets.len()), format!("I32 [{}], at least two", n + 1)));
    }
    let mut before = 0;
    for (place, &offset) in offsets.iter().enumerate() {
        let holds = match place {
            0 => offset == 0,
            _ if place == n => usize::try_from(offset) == Ok(total) && offset >= before,
            _ => offset >= before,
        };
        if !holds {
            let wanted = match place {
                0 => "0, where the first begins",
                _ if place == n => "the number of what is divided, at the end",
                _ => "as high as the one before",
            };
            return Err(refused(name, format!("[{place}]"), offset as f32, wanted));
        }
        before = offset;
    }
    Ok(offsets.iter().map(|&offset| offset.cast_unsigned() as usize).collect())
}

/// Row numbers, and how many rows lie in lists.
fn check_members(members: &[i32], n_rows: usize) -> Result<(Vec<u32>, usize), Error> {
    let is_row = |member: i32| usize::try_from(member).is_ok_and(|row| row < n_rows);
    if let Some(place) = members.iter().position(|&member| !is_row(member)) {
        return Err(refused(5, format!("[{place}]"), members[place] as f32, "the number of a centroid"));
    }
    let rows: Vec<u32> = members.iter().map(|member| member.cast_unsigned()).collect();
    let n_listed = rows.iter().max().map_or(0, |&row| row as usize + 1);
    let mut is_listed = vec![false; n_listed];
    for &row in &rows {
        is_listed[row as usize] = true;
    }
    match is_listed.iter().position(|&listed| !listed) {
        Some(row) => Err(refused(5, "any place".into(), row as f32, "missing: every row up to the highest is listed")),
        None => Ok((rows, n_listed)),
    }
}

/// How much is compared for some depths, of this many groups and lists.
pub(crate) fn check_probes(probes: &[[i32; 4]], n_groups: usize, n_lists: usize) -> Result<Vec<Probe>, Error> {
    if probes.is_empty() {
        return Err(layout(6, "I32 [0, 4]".into(), "at least one row".into()));
    }
    let mut checked: Vec<Probe> = Vec::with_capacity(probes.len());
    for (row, values) in probes.iter().enumerate() {
        let [depth, groups, lists, candidates] = values.map(|value| usize::try_from(value).unwrap_or(0));
        let least = checked.last().map_or(1, |probe| probe.depth + 1);
        for (column, holds, wanted) in [
            (0, (least..=MAX_CANDIDATES).contains(&depth), "1 or more and higher than the one before"),
            (1, (1..=n_groups).contains(&groups), "1 to the number of groups"),
            (2, (1..=n_lists).contains(&lists), "1 to the number of lists"),
            (3, (depth..=MAX_CANDIDATES).contains(&candidates), "the depth or more, and at most 1048576"),
        ] {
            if !holds {
                return Err(refused(6, format!("[{row}, {column}]"), values[column] as f32, wanted));
            }
        }
        checked.push(Probe { depth, n_groups: groups, n_lists: lists, n_candidates: candidates });
    }
    Ok(checked)
}

fn layout(name: usize, got: String, wanted: String) -> Error {
    Error::TensorLayout { name: NAMES[name], got, wanted }
}

fn refused(name: usize, position: String, value: f32, wanted: &'static str) -> Error {
    Error::TensorValue { name: NAMES[name], position, value, wanted }
}
