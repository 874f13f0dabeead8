//! Made-up routers for benches, instruction counts and the test of allocations: 384 dims, 16 models, top-p 4.

use centroute_core::artifact::{Metadata, Table};
use centroute_core::{Artifact, Error, Isa, Precision, Router};

/// Width of the rows.
pub const DIM: usize = 384;
const N_MODELS: usize = 16;
/// Clusters blended.
pub const TOP_P: usize = 4;

/// Values in -0.5..0.5, the same on every machine.
fn values(n: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 24) as f32 - 0.5
    };
    (0..n).map(|_| next()).collect()
}

/// Rows of norm one, the same on every machine.
#[must_use]
pub fn unit_rows(n: usize, seed: u64) -> Vec<f32> {
    let mut rows = values(n * DIM, seed);
    for row in rows.chunks_exact_mut(DIM) {
        let norm = row.iter().map(|value| value * value).sum::<f32>().sqrt();
        for value in row {
            *value /= norm;
        }
    }
    rows
}

/// A router of made-up tables.
pub fn router(n_clusters: usize, isa: Isa, precision: Precision) -> Result<Router, Error> {
    let models: Vec<String> = (0..N_MODELS).map(|model| format!(r#"{{"name":"m{model}"}}"#)).collect();
    let json = format!(
        r#"{{"format_version":1,"models":[{}],"top_p":{TOP_P},"beta":9.0,
            "embedder":{{"name":"made up","dim":{DIM},"fingerprint":null}},"sha256":""}}"#,
        models.join(",")
    );
    let metadata: Metadata = serde_json::from_str(&json).map_err(|error| Error::Metadata(error.to_string()))?;
    let table = |seed| {
        let cells: Vec<f32> = values(n_clusters * N_MODELS, seed).iter().map(|value| value + 0.5).collect();
        let prior = cells[..N_MODELS].to_vec();
        Table { cells, prior }
    };
    let artifact = Artifact {
        metadata,
        metadata_json: json,
        centroids: unit_rows(n_clusters, 1),
        precision: Precision::F32,
        quality: table(2),
        cost: table(3),
        count: vec![1.0; n_clusters * N_MODELS],
        quality_se: None,
        frontier: Vec::new(),
        pairs: None,
        index: None,
    };
    Router::new(artifact, Some(precision), isa)
}
