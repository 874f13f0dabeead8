//! Router files made up from a few numbers.

use serde_json::{Value, json};

use crate::feed::Feed;

/// Values that a seed alone decides, from -0.5 to 0.5.
pub fn values(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    (0..n)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
        })
        .collect()
}

/// Rows of norm one.
pub fn unit_rows(n: usize, dim: usize, seed: u64) -> Vec<f32> {
    let mut rows = values(n * dim, seed);
    for row in rows.chunks_exact_mut(dim) {
        let norm = row.iter().map(|&value| f64::from(value).powi(2)).sum::<f64>().sqrt();
        for value in row {
            *value = (f64::from(*value) / norm) as f32;
        }
    }
    rows
}

/// Metadata of a sound router file of three models.
pub fn metadata(dim: usize, surface: bool) -> Value {
    let surface =
        surface.then(|| json!({"name": "surface-1", "weight": 0.15, "mean": vec![1.0; 12], "scale": vec![0.5; 12]}));
    json!({
        "format_version": 1,
        "models": [
            {"name": "large", "input_usd_per_million": 2.5, "tags": ["tools", "vision"], "context_length": 128_000},
            {"name": "small", "input_usd_per_million": null, "tags": ["tools"], "context_length": 8_000},
            {"name": "a, b"},
        ],
        "top_p": 2,
        "beta": 9.0,
        "embedder": {"name": "made-up", "dim": dim, "fingerprint": null, "surface_features": surface},
        "ood_threshold": 0.25,
        "default_policy": {"fallback": "small"},
        "sha256": "0".repeat(64),
    })
}

/// A tensor to be written.
pub struct Tensor {
    pub name: &'static str,
    pub dtype: &'static str,
    pub shape: Vec<usize>,
    pub bytes: Vec<u8>,
}

impl Tensor {
    fn floats(name: &'static str, shape: Vec<usize>, values: &[f32]) -> Self {
        Self { name, dtype: "F32", shape, bytes: values.iter().flat_map(|value| value.to_le_bytes()).collect() }
    }
}

/// Sound tensors for metadata of `n_models` and `dim`; the costs of the last model are unknown where there are several.
pub fn tensors(n_clusters: usize, n_models: usize, dim: usize, precision: &str) -> Vec<Tensor> {
    let rows = unit_rows(n_clusters, dim, 7);
    let unit = |n: usize, seed| values(n, seed).iter().map(|value| value + 0.5).collect::<Vec<f32>>();
    let cost = |n: usize, seed| {
        let mut cost = unit(n, seed);
        if n_models > 1 {
            cost.iter_mut().skip(n_models - 1).step_by(n_models).for_each(|cost| *cost = f32::NAN);
        }
        cost
    };
    let (cells, shape) = (n_clusters * n_models, vec![n_clusters, n_models]);
    let mut tensors = vec![
        Tensor::floats("quality", shape.clone(), &unit(cells, 1)),
        Tensor::floats("cost", shape.clone(), &cost(cells, 2)),
        Tensor::floats("count", shape.clone(), &unit(cells, 3)),
        Tensor::floats("quality_se", shape, &unit(cells, 4)),
        Tensor::floats("prior_quality", vec![n_models], &unit(n_models, 5)),
        Tensor::floats("prior_cost", vec![n_models], &cost(n_models, 6)),
        Tensor::floats("frontier", vec![2, 3], &[0.0, 0.5, 0.001, 0.1, 0.75, 0.01]),
    ];
    let shape = vec![n_clusters, dim];
    match precision {
        "F16" => {
            let half = |value: &f32| centroute_core::simd::serial::f16_from_f32(*value).to_le_bytes();
            let bytes = rows.iter().flat_map(half).collect();
            tensors.push(Tensor { name: "centroids", dtype: "F16", shape, bytes });
        }
        "I8" => {
            let quantized: Vec<_> = rows.chunks_exact(dim).map(centroute_core::centroids::quantize_row).collect();
            let bytes = quantized.iter().flat_map(|(bytes, _)| bytes.iter().map(|byte| byte.cast_unsigned())).collect();
            let scales: Vec<f32> = quantized.iter().map(|(_, scale)| *scale).collect();
            tensors.push(Tensor { name: "centroids", dtype: "I8", shape, bytes });
            tensors.push(Tensor::floats("centroid_scale", vec![n_clusters], &scales));
        }
        _ => tensors.push(Tensor::floats("centroids", shape, &rows)),
    }
    tensors
}

/// A safetensors file; `metadata` is the text under the key `centroute`, whatever it holds.
pub fn container(metadata: Option<&str>, tensors: &[Tensor]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    if let Some(text) = metadata {
        header.insert("__metadata__".into(), json!({"centroute": text}));
    }
    let mut data = Vec::new();
    for Tensor { name, dtype, shape, bytes } in tensors {
        let offsets = [data.len(), data.len() + bytes.len()];
        header.insert((*name).into(), json!({"dtype": dtype, "shape": shape, "data_offsets": offsets}));
        data.extend_from_slice(bytes);
    }
    let header = Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.extend_from_slice(&data);
    file
}

/// Puts the right digest into a router file where that is all that is wrong with it, as no chance would.
pub fn sealed(mut file: Vec<u8>) -> Vec<u8> {
    if let Err(centroute_core::Error::Digest { stored, computed }) = centroute_core::Artifact::from_bytes(&file)
        && let Some(place) = file.windows(stored.len()).position(|window| window == stored.as_bytes())
    {
        file[place..place + computed.len()].copy_from_slice(computed.as_bytes());
    }
    file
}

/// A router file of the given metadata, with sound tensors that the feed then spoils in a few places.
pub fn router_file(metadata: &str, feed: &mut Feed<'_>) -> Vec<u8> {
    let parsed: Value = serde_json::from_str(metadata).unwrap_or_default();
    let n_models = parsed["models"].as_array().map_or(1, Vec::len).clamp(1, 64);
    let dim = parsed["embedder"]["dim"].as_u64().unwrap_or(4).clamp(1, 512) as usize;
    let n_clusters = 1 + feed.below(80);
    let mut tensors = tensors(n_clusters, n_models, dim, feed.pick(&["F32", "F16", "I8"]));
    for _ in 0..feed.below(8) {
        let place = feed.below(tensors.len());
        let tensor = &mut tensors[place];
        match feed.byte() % 8 {
            0 => tensor.shape[0] = feed.below(usize::MAX),
            1 => tensor.shape.push(feed.below(3)),
            2 => tensor.dtype = feed.pick(&["F64", "BF16", "I64", "U8", "BOOL", "F4", "X"]),
            3 => tensor.name = feed.pick(&["centroids", "quality", "frontier", "other", ""]),
            4 => {
                let length = feed.below(tensor.bytes.len() + 1);
                tensor.bytes.truncate(length);
            }
            _ => {
                let start = feed.below(tensor.bytes.len().saturating_sub(3)) & !3;
                let value = feed.float().to_le_bytes();
                if let Some(four) = tensor.bytes.get_mut(start..start + 4) {
                    four.copy_from_slice(&value);
                }
            }
        }
    }
    sealed(container(Some(metadata), &tensors))
}
