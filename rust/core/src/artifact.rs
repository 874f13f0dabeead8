//! Bytes of a router file in; validated metadata and tables out, or the first thing that is wrong.
//!
//! A safetensors file. Tensors: `centroids [n_clusters, dim]` (unit rows; f32, f16, or i8 with
//! `centroid_scale [n_clusters]` in f32) and, all f32, `quality`, `cost`, `count` and, optional, `quality_se`
//! `[n_clusters, n_models]`, `prior_quality` and `prior_cost` `[n_models]`, `frontier [n_points, 3]`
//! (willingness to pay, quality, mean cost; ascending), and, optional, `pairs [n_pairs, n_points, 6]` (see
//! [`crate::pairs`]), and those of an index over the centroids (see [`crate::index::parts`]). A model whose cost is
//! unknown has NaN in its whole cost column and prior; no other value, but for those of `pairs`, may be NaN.
//! Metadata key `centroute` holds the JSON of [`Metadata`].

use std::collections::{BTreeSet, HashSet};
use std::fmt::Write as _;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::centroids::Precision;
use crate::error::Error;
use crate::index::parts::Parts;
use crate::pairs::Pairs;
use crate::policy::PolicySpec;
use crate::simd::serial;

/// The format version that this build reads and `calibrate` writes.
pub const FORMAT_VERSION: u64 = 1;
/// Most clusters a query may be blended from.
pub const MAX_TOP_P: usize = 1024;
/// The sets of surface features and how many each has; a set begins with those of the sets before it.
pub const SURFACE_SETS: [(&str, usize); 2] = [("surface-1", 12), ("surface-2", N_SURFACE_FEATURES)];
/// Surface features of the largest set.
pub const N_SURFACE_FEATURES: usize = 20;
/// Most that surface features may weigh.
const MAX_SURFACE_WEIGHT: f64 = 10.0;
/// How far the norm of a stored centroid may be from one.
const NORM_TOLERANCE: f32 = 1e-3;
/// The same for rows that were rounded to f16 or i8.
const ROUNDED_NORM_TOLERANCE: f32 = 2e-2;

/// One model of the pool.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Model {
    /// The name that requests use.
    pub name: String,
    /// USD per million input tokens, where known.
    #[serde(default)]
    pub input_usd_per_million: Option<f64>,
    /// USD per million output tokens, where known.
    #[serde(default)]
    pub output_usd_per_million: Option<f64>,
    /// Capabilities that a policy may require.
    #[serde(default)]
    pub tags: BTreeSet<String>,
    /// Context length in tokens, where known.
    #[serde(default)]
    pub context_length: Option<u64>,
}

/// The embedder that the centroids were fitted on.
#[derive(Clone, Debug, Deserialize)]
pub struct EmbedderId {
    /// Its name or folder name.
    pub name: String,
    /// Width of its rows.
    pub dim: usize,
    /// SHA-256 over weights, tokenizer, pooling, maximum length and surface features; absent when the
    /// embeddings came from outside.
    pub fingerprint: Option<String>,
    /// Features of a text's form behind its embedding; absent for none.
    #[serde(default)]
    pub surface_features: Option<Surface>,
}

/// Features of a text's form that stand behind its embedding, and how they are standardised.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Surface {
    /// Name of the feature set, one of [`SURFACE_SETS`].
    pub name: String,
    /// What a standardised feature is multiplied by.
    pub weight: f64,
    /// Mean of each feature.
    pub mean: Vec<f64>,
    /// Standard deviation of each feature.
    pub scale: Vec<f64>,
}

impl Surface {
    /// Features of the set, which a row has behind its embedding.
    #[must_use]
    pub fn n_features(&self) -> usize {
        self.mean.len()
    }
}

/// How an alpha policy scores the models of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AlphaScore {
    /// Quality by min-max, cost by its maximum, as Avengers-Pro's public code normalises them.
    #[default]
    CostByMaximum,
    /// Both by min-max, as its paper writes it.
    MinMax,
    /// One over the model's rank in the cluster by [`Self::CostByMaximum`], as its public code blends them.
    ReciprocalRank,
}

/// The part of the metadata JSON that routing reads; the rest (method, report) is kept as text.
#[derive(Clone, Debug, Deserialize)]
pub struct Metadata {
    /// See [`FORMAT_VERSION`].
    pub format_version: u64,
    /// The pool, in the order of the table columns.
    pub models: Vec<Model>,
    /// Number of clusters blended for a query.
    pub top_p: usize,
    /// Sharpness of the softmax over similarities.
    pub beta: f32,
    /// The embedder that the centroids were fitted on.
    pub embedder: EmbedderId,
    /// Similarity below which a query is out of distribution; absent when never.
    #[serde(default)]
    pub ood_threshold: Option<f32>,
    /// What holds for requests that leave something open.
    #[serde(default)]
    pub default_policy: Option<PolicySpec>,
    /// What an alpha policy maximises.
    #[serde(default)]
    pub alpha_score: AlphaScore,
    /// Digest of the file's contents, see [`digest`].
    pub sha256: String,
}

/// A table `[n_clusters, n_models]` with the row that stands for "no cluster is near".
#[derive(Clone, Debug)]
pub struct Table {
    /// Row-major cells.
    pub cells: Vec<f32>,
    /// One value per model: what holds where no cluster is near.
    pub prior: Vec<f32>,
}

/// A validated router file.
#[derive(Clone, Debug)]
pub struct Artifact {
    /// The parsed part of the metadata.
    pub metadata: Metadata,
    /// The whole metadata JSON as it stands in the file.
    pub metadata_json: String,
    /// Unit rows `[n_clusters, dim]`, as stored or turned back into f32.
    pub centroids: Vec<f32>,
    /// How the file stores them.
    pub precision: Precision,
    /// Predicted quality and its prior.
    pub quality: Table,
    /// Predicted cost in USD and its prior.
    pub cost: Table,
    /// Number of outcomes behind each cell, `[n_clusters, n_models]`.
    pub count: Vec<f32>,
    /// Standard error of each cell's quality, `[n_clusters, n_models]`, where the file has them.
    pub quality_se: Option<Vec<f32>>,
    /// Rows of willingness to pay, quality and mean cost, ascending.
    pub frontier: Vec<[f32; 3]>,
    /// Thresholds between any two models, where the file has them.
    pub pairs: Option<Pairs>,
    /// What an index over the centroids is built from, where the file has one.
    pub index: Option<Parts>,
}

impl Artifact {
    /// Reads and validates the whole file.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let (_, header) = SafeTensors::read_metadata(bytes).map_err(|error| Error::Container(error.to_string()))?;
        let json = header.metadata().as_ref().and_then(|map| map.get("centroute")).ok_or(Error::NoMetadata)?;
        check_version(json)?;
        let metadata: Metadata = serde_json::from_str(json).map_err(|error| Error::Metadata(error.to_string()))?;
        check_metadata(&metadata)?;
        let tensors = SafeTensors::deserialize(bytes).map_err(|error| Error::Container(error.to_string()))?;
        let computed = digest(json, &metadata.sha256, &tensors);
        if computed != metadata.sha256 {
            return Err(Error::Digest { stored: metadata.sha256, computed });
        }

        let (n_models, dim) = (metadata.models.len(), metadata.embedder.dim);
        let (centroids, precision) = read_centroids(&tensors, dim)?;
        let n_clusters = centroids.len() / dim;
        if n_clusters == 0 {
            return Err(Error::Metadata("the file holds no cluster".into()));
        }
        if metadata.top_p > n_clusters {
            return Err(Error::Metadata(format!("top_p {} exceeds the {n_clusters} clusters", metadata.top_p)));
        }
        let index = Parts::read(&tensors, n_clusters, dim)?;
        if let Some(index) = &index
            && index.max_depth() < metadata.top_p
        {
            let (depth, top_p) = (index.max_depth(), metadata.top_p);
            return Err(Error::Metadata(format!("index.probes: for {depth} neighbours at most, and top_p is {top_p}")));
        }
        let cells = [Some(n_clusters), Some(n_models)];
        let artifact = Self {
            quality: Table {
                cells: read_f32(&tensors, "quality", &cells)?,
                prior: read_f32(&tensors, "prior_quality", &cells[1..])?,
            },
            cost: Table {
                cells: read_f32(&tensors, "cost", &cells)?,
                prior: read_f32(&tensors, "prior_cost", &cells[1..])?,
            },
            pairs: Pairs::read(&tensors, n_models)?,
            count: read_f32(&tensors, "count", &cells)?,
            quality_se: match tensors.tensor("quality_se") {
                Ok(_) => Some(read_f32(&tensors, "quality_se", &cells)?),
                Err(_) => None,
            },
            frontier: read_f32(&tensors, "frontier", &[None, Some(3)])?.as_chunks().0.to_vec(),
            centroids,
            precision,
            index,
            metadata_json: json.clone(),
            metadata,
        };
        artifact.check_values()?;
        Ok(artifact)
    }

    /// Number of models in the pool.
    #[must_use]
    pub fn n_models(&self) -> usize {
        self.metadata.models.len()
    }

    /// Number of clusters.
    #[must_use]
    pub fn n_clusters(&self) -> usize {
        self.centroids.len() / self.dim()
    }

    /// Width of the centroids.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.metadata.embedder.dim
    }

    /// Name of a model.
    #[must_use]
    pub fn model_name(&self, model_id: usize) -> &str {
        &self.metadata.models[model_id].name
    }

    /// Id of a model named in a policy's `field`.
    pub fn model_id(&self, field: &'static str, name: &str) -> Result<usize, Error> {
        self.metadata.models.iter().position(|model| model.name == name).ok_or_else(|| Error::UnknownModel {
            field,
            name: name.to_owned(),
            pool: self.metadata.models.iter().map(|model| model.name.as_str()).collect::<Vec<_>>().join(", "),
        })
    }

    /// Ids of all models named in a policy's `field`.
    pub fn model_ids(&self, field: &'static str, names: &BTreeSet<String>) -> Result<Vec<usize>, Error> {
        names.iter().map(|name| self.model_id(field, name)).collect()
    }

    fn check_values(&self) -> Result<(), Error> {
        let (n_models, dim) = (self.n_models(), self.dim());
        check_range("quality", &self.quality.cells, n_models, "within 0 to 1", |value| (0.0..=1.0).contains(&value))?;
        check_range("prior_quality", &self.quality.prior, n_models, "within 0 to 1", |value| {
            (0.0..=1.0).contains(&value)
        })?;
        if let Some(errors) = &self.quality_se {
            check_range("quality_se", errors, n_models, "finite and 0 or more", |value| {
                value >= 0.0 && value.is_finite()
            })?;
        }
        check_range("count", &self.count, n_models, "finite and 0 or more", |value| value >= 0.0 && value.is_finite())?;
        for (name, values) in [("prior_cost", &self.cost.prior), ("cost", &self.cost.cells)] {
            for (place, (&value, prior)) in values.iter().zip(self.cost.prior.iter().cycle()).enumerate() {
                if value.is_nan() != prior.is_nan() {
                    return Err(value_error(name, place, n_models, value, "known or unknown as the model's prior is"));
                }
                if value < 0.0 || value.is_infinite() {
                    return Err(value_error(name, place, n_models, value, "finite and 0 or more"));
                }
            }
        }
        let tolerance = if self.precision == Precision::F32 { NORM_TOLERANCE } else { ROUNDED_NORM_TOLERANCE };
        for (cluster, centroid) in self.centroids.chunks_exact(dim).enumerate() {
            let norm = serial::dot_f32(centroid, centroid).sqrt();
            if norm.is_nan() || (norm - 1.0).abs() > tolerance {
                return Err(Error::TensorValue {
                    name: "centroids",
                    position: format!("row {cluster}, its norm"),
                    value: norm,
                    wanted: "one",
                });
            }
        }
        check_range("frontier", self.frontier.as_flattened(), 3, "finite and 0 or more", |value| {
            value >= 0.0 && value.is_finite()
        })?;
        for (place, pair) in self.frontier.windows(2).enumerate() {
            if pair[1][0] <= pair[0][0] || pair[1][2] < pair[0][2] {
                return Err(Error::TensorValue {
                    name: "frontier",
                    position: format!("row {}", place + 1),
                    value: pair[1][0],
                    wanted: "ascending in willingness to pay and mean cost",
                });
            }
        }
        Ok(())
    }
}

/// Digest of a file: SHA-256 over the metadata JSON with the 64 digits of `stored` as zeros, then over every
/// tensor in the order of their names: name, dtype and shape as `name:F32:[2, 3]`, then its bytes.
#[must_use]
pub fn digest(json: &str, stored: &str, tensors: &SafeTensors<'_>) -> String {
    let mut hasher = Sha256::new();
    hasher.update(json.replacen(stored, &"0".repeat(64), 1).as_bytes());
    let mut names = tensors.names();
    names.sort_unstable();
    for name in names {
        if let Ok(tensor) = tensors.tensor(name) {
            hasher.update(format!("{name}:{:?}:{:?}", tensor.dtype(), tensor.shape()).as_bytes());
            hasher.update(tensor.data());
        }
    }
    hasher.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn check_version(json: &str) -> Result<(), Error> {
    // Read before everything else, so that a file of the future is called that and not called broken.
    #[derive(Deserialize)]
    struct Version {
        format_version: u64,
    }
    let version: Version = serde_json::from_str(json).map_err(|error| Error::Metadata(error.to_string()))?;
    if version.format_version == FORMAT_VERSION {
        return Ok(());
    }
    Err(Error::FormatVersion { found: version.format_version, supported: FORMAT_VERSION })
}

fn check_metadata(metadata: &Metadata) -> Result<(), Error> {
    let refuse = |what: String| Err(Error::Metadata(what));
    if metadata.models.is_empty() {
        return refuse("the pool is empty".into());
    }
    let mut seen = HashSet::new();
    for model in &metadata.models {
        if model.name.is_empty() {
            return refuse("a model has an empty name".into());
        }
        if !seen.insert(model.name.as_str()) {
            return refuse(format!("model '{}' stands twice in the pool", model.name));
        }
    }
    if metadata.embedder.dim == 0 {
        return refuse("embedder dim is 0".into());
    }
    if let Some(surface) = &metadata.embedder.surface_features {
        check_surface(surface, metadata.embedder.dim).or_else(|what| refuse(format!("surface_features: {what}")))?;
    }
    if metadata.top_p == 0 || metadata.top_p > MAX_TOP_P {
        return refuse(format!("top_p is {}, wanted 1 to {MAX_TOP_P}", metadata.top_p));
    }
    if !metadata.beta.is_finite() || metadata.beta < 0.0 {
        return refuse(format!("beta is {}, wanted a finite number, 0 or more", metadata.beta));
    }
    if let Some(threshold) = metadata.ood_threshold
        && !(-1.0..=1.0).contains(&threshold)
    {
        return refuse(format!("ood_threshold is {threshold}, wanted -1 to 1"));
    }
    if metadata.sha256.len() != 64 || !metadata.sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return refuse("sha256 is no digest of 64 hexadecimal digits".into());
    }
    if let Some(policy) = &metadata.default_policy {
        policy.check().or_else(|error| refuse(format!("default_policy: {error}")))?;
        if policy.n_models.is_some() {
            return refuse("default_policy: n_models is for a request to say".into());
        }
    }
    Ok(())
}

fn check_surface(surface: &Surface, dim: usize) -> Result<(), String> {
    let Surface { name, weight, mean, scale } = surface;
    let Some((_, n_features)) = SURFACE_SETS.into_iter().find(|(known, _)| known == name) else {
        return Err(format!("set '{name}' is not known"));
    };
    for (what, values) in [("mean", mean), ("scale", scale)] {
        if values.len() != n_features {
            return Err(format!("{what} has {} numbers, {name} has {n_features} features", values.len()));
        }
    }
    if dim <= n_features {
        return Err(format!("embedder dim {dim} leaves nothing for the embedding"));
    }
    if !(*weight > 0.0 && *weight <= MAX_SURFACE_WEIGHT) {
        return Err(format!("weight is {weight}, wanted above 0 and at most {MAX_SURFACE_WEIGHT}"));
    }
    if let Some(value) = mean.iter().find(|value| !value.is_finite()) {
        return Err(format!("mean holds {value}"));
    }
    match scale.iter().find(|value| !(value.is_finite() && **value > 0.0)) {
        Some(value) => Err(format!("scale holds {value}, wanted above 0")),
        None => Ok(()),
    }
}

/// Centroid rows turned into f32, and how they were stored.
fn read_centroids(tensors: &SafeTensors<'_>, dim: usize) -> Result<(Vec<f32>, Precision), Error> {
    const NAME: &str = "centroids";
    let tensor = tensors.tensor(NAME).map_err(|_| Error::MissingTensor(NAME))?;
    let shape = [None, Some(dim)];
    match tensor.dtype() {
        Dtype::F16 => {
            check_layout(&tensor, NAME, Dtype::F16, &shape)?;
            let halves = tensor.data().as_chunks::<2>().0;
            Ok((halves.iter().map(|&bytes| serial::f32_from_f16(u16::from_le_bytes(bytes))).collect(), Precision::F16))
        }
        Dtype::I8 => {
            check_layout(&tensor, NAME, Dtype::I8, &shape)?;
            let scales = read_f32(tensors, "centroid_scale", &[Some(tensor.shape()[0])])?;
            check_range("centroid_scale", &scales, 1, "finite and above 0", |value| value > 0.0 && value.is_finite())?;
            let rows = tensor.data().chunks_exact(dim).zip(scales);
            let values =
                rows.flat_map(|(row, scale)| row.iter().map(move |&byte| f32::from(byte.cast_signed()) * scale));
            Ok((values.collect(), Precision::I8))
        }
        _ => Ok((read_f32(tensors, NAME, &shape)?, Precision::F32)),
    }
}

/// A tensor's values, after its dtype and shape were checked; `None` in `wanted` is any length.
pub(crate) fn read_f32(
    tensors: &SafeTensors<'_>,
    name: &'static str,
    wanted: &[Option<usize>],
) -> Result<Vec<f32>, Error> {
    let tensor = tensors.tensor(name).map_err(|_| Error::MissingTensor(name))?;
    check_layout(&tensor, name, Dtype::F32, wanted)?;
    Ok(tensor.data().as_chunks::<4>().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect())
}

/// The same of whole numbers.
pub(crate) fn read_i32(
    tensors: &SafeTensors<'_>,
    name: &'static str,
    wanted: &[Option<usize>],
) -> Result<Vec<i32>, Error> {
    let tensor = tensors.tensor(name).map_err(|_| Error::MissingTensor(name))?;
    check_layout(&tensor, name, Dtype::I32, wanted)?;
    Ok(tensor.data().as_chunks::<4>().0.iter().map(|&bytes| i32::from_le_bytes(bytes)).collect())
}

fn check_layout(
    tensor: &TensorView<'_>,
    name: &'static str,
    dtype: Dtype,
    wanted: &[Option<usize>],
) -> Result<(), Error> {
    let shape = tensor.shape();
    let fits = shape.len() == wanted.len()
        && shape.iter().zip(wanted).all(|(&length, wanted)| wanted.is_none_or(|wanted| wanted == length));
    if tensor.dtype() == dtype && fits {
        return Ok(());
    }
    let lengths: Vec<String> =
        wanted.iter().map(|length| length.map_or("any".into(), |length| length.to_string())).collect();
    Err(Error::TensorLayout {
        name,
        got: format!("{:?} {shape:?}", tensor.dtype()),
        wanted: format!("{dtype:?} [{}]", lengths.join(", ")),
    })
}

pub(crate) fn value_error(name: &'static str, place: usize, width: usize, value: f32, wanted: &'static str) -> Error {
    Error::TensorValue { name, position: format!("[{}, {}]", place / width, place % width), value, wanted }
}

fn check_range(
    name: &'static str,
    values: &[f32],
    width: usize,
    wanted: &'static str,
    holds: impl Fn(f32) -> bool,
) -> Result<(), Error> {
    match values.iter().position(|&value| !holds(value)) {
        Some(place) => Err(value_error(name, place, width, values[place], wanted)),
        None => Ok(()),
    }
}
