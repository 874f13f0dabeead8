//! The embedder of a bundle, from its description, table and tokenizer.

use centroute_core::Isa;
use centroute_core::artifact::{EmbedderId, N_SURFACE_FEATURES, Surface};
use centroute_embed::embedder::Settings;
use centroute_embed::tokenizer::Options;
use centroute_embed::{StaticEmbedder, Tokenizer, onnx};
use serde::{Deserialize, Serialize};

use crate::bundle::Bundle;
use crate::error::Error;
use crate::manifest::{DESCRIPTION, MODEL, TOKENIZER, sha256_hex, start};

/// Version of `embedder.json` that this build reads.
const FORMAT_VERSION: u64 = 1;

/// The part of `embedder.json` that is read here.
#[derive(Debug, Deserialize)]
struct Description {
    format_version: u64,
    name: String,
    dim: usize,
    pooling: String,
    max_tokens: usize,
    #[serde(default)]
    prefix: String,
    model_sha256: String,
    tokenizer_sha256: String,
}

/// All that shapes the rows; `python/centroute/embedders/fingerprint.py` says why its form is exact.
#[derive(Serialize)]
struct Identity<'a> {
    max_tokens: usize,
    model_sha256: &'a str,
    pooling: &'a str,
    prefix: &'a str,
    surface_features: Option<String>,
    tokenizer_sha256: &'a str,
}

/// Opens the embedder and checks that it is the one that the router was calibrated with.
pub fn open(bundle: &Bundle, wanted: &EmbedderId, isa: Isa) -> Result<StaticEmbedder, Error> {
    let about = |file: &str, what: String| Error::bundle(format!("{file}: {what}"));
    let description: Description =
        serde_json::from_slice(&bundle.description).map_err(|error| about(DESCRIPTION, error.to_string()))?;
    let Description { format_version, name, dim, pooling, max_tokens, prefix, model_sha256, tokenizer_sha256 } =
        description;
    if format_version != FORMAT_VERSION {
        return Err(about(
            DESCRIPTION,
            format!("format_version is {format_version}, this build reads {FORMAT_VERSION}"),
        ));
    }
    for (file, described) in [(MODEL, &model_sha256), (TOKENIZER, &tokenizer_sha256)] {
        // That the bytes have the digests of the manifest is checked meanwhile, see `Bundle::open_with`.
        let digest = bundle.manifest.files.get(file).map(|entry| entry.sha256.as_str());
        if digest != Some(described) {
            return Err(about(file, format!("is not the file that {DESCRIPTION} describes")));
        }
    }
    let surface = wanted.surface_features.as_ref();
    let identity = Identity {
        max_tokens,
        model_sha256: &model_sha256,
        pooling: &pooling,
        prefix: &prefix,
        surface_features: surface.map(|Surface { name, weight, .. }| format!("{name} weight {weight:.4}")),
        tokenizer_sha256: &tokenizer_sha256,
    };
    let identity = serde_json::to_string(&identity).map_err(|error| about(DESCRIPTION, error.to_string()))?;
    let fingerprint = sha256_hex(identity.as_bytes());
    let width = dim + surface.map_or(0, |_| N_SURFACE_FEATURES);
    if width != wanted.dim || wanted.fingerprint.as_ref().is_some_and(|wanted| *wanted != fingerprint) {
        return Err(Error::bundle(format!(
            "embedder {name}: dim {width}, fingerprint {}…; the router was calibrated with {}, dim {}, fingerprint {}…",
            start(&fingerprint),
            wanted.name,
            wanted.dim,
            start(wanted.fingerprint.as_deref().unwrap_or("none"))
        )));
    }
    let table = onnx::read_table(bundle.model.clone()).map_err(|error| about(MODEL, error.to_string()))?;
    let Some(table) = table else {
        return Err(Error::bundle(format!(
            "embedder {name}: its graph needs ONNX Runtime, which this build does not have; use a static embedder"
        )));
    };
    let tokenizer = Tokenizer::from_json(&bundle.tokenizer, Options { max_tokens, add_special_tokens: true })
        .map_err(|error| about(TOKENIZER, error.to_string()))?;
    let embedder = StaticEmbedder::new(tokenizer, table, Settings { prefix, max_characters: None }, isa)
        .map_err(|error| about(MODEL, error.to_string()))?;
    if embedder.dim() != dim {
        return Err(about(MODEL, format!("rows have dim {}, described {dim}", embedder.dim())));
    }
    Ok(embedder)
}
