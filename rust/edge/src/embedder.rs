//! The embedder of a bundle: opened from its description, table or graph and tokenizer; texts in, rows out.

use centroute_core::Isa;
use centroute_core::artifact::{EmbedderId, Surface};
use centroute_embed::embedder::Scratch;
use centroute_embed::onnx::read_table;
use centroute_embed::prefixed::{self, Settings};
use centroute_embed::tokenizer::Options;
use centroute_embed::{PrefixedTokenizer, StaticEmbedder, Tokenizer, surface};
use serde::{Deserialize, Serialize};

use crate::bundle::Bundle;
use crate::error::Error;
use crate::manifest::{DESCRIPTION, MODEL, TOKENIZER, sha256_hex, start};
use crate::onnx::Graph;

/// Version of `embedder.json` that this build reads.
const FORMAT_VERSION: u64 = 1;

/// What turns texts into rows. Immutable, so that any number of threads may share it.
#[derive(Debug)]
pub enum Embedder {
    /// A table of token rows.
    Static(StaticEmbedder),
    /// A graph that ONNX Runtime runs.
    Onnx(PrefixedTokenizer, Graph),
}

/// The part of `embedder.json` that is read here.
#[derive(Debug, Deserialize)]
pub struct Description {
    format_version: u64,
    /// For people.
    pub name: String,
    /// Width of an embedding.
    pub dim: usize,
    pooling: String,
    max_tokens: usize,
    #[serde(default)]
    prefix: String,
    /// The graph's inputs: token ids and mask.
    #[serde(default)]
    pub inputs: [String; 2],
    /// The graph's output.
    #[serde(default)]
    pub output: String,
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

impl Embedder {
    /// Opens the embedder and checks that it is the one that the router was calibrated with.
    pub fn open(bundle: &Bundle, wanted: &EmbedderId, isa: Isa) -> Result<Self, Error> {
        let description = Description::read(bundle)?;
        description.check(bundle, wanted)?;
        let table = read_table(bundle.model.clone()).map_err(|error| about(MODEL, error))?;
        let Some(table) = table else {
            let graph = Graph::open(bundle, &description)?;
            let tokenizer = description.open_tokenizer(bundle)?;
            graph.try_out(tokenizer.tokenizer().n_token_ids())?;
            return Ok(Self::Onnx(tokenizer, graph));
        };
        let embedder = StaticEmbedder::new(description.open_tokenizer(bundle)?, table, isa);
        let embedder = embedder.map_err(|error| about(MODEL, error))?;
        if embedder.dim() != description.dim {
            let what = format!("rows have dim {}, described {}", embedder.dim(), description.dim);
            return Err(about(MODEL, what));
        }
        Ok(Self::Static(embedder))
    }

    /// Tokenizes a text, the first step of embedding it.
    pub fn tokenize(&self, text: &str, scratch: &mut prefixed::Scratch) {
        match self {
            Self::Static(embedder) => embedder.tokenizer(),
            Self::Onnx(tokenizer, _) => tokenizer,
        }
        .tokenize(text, scratch);
    }

    /// Fills a row with the embedding of the text that was tokenized last and, where a router wants them, its surface
    /// features; false where the text holds no known token.
    pub fn embed_tokens(
        &self,
        text: &str,
        surface: Option<&Surface>,
        scratch: &mut Scratch,
        row: &mut [f32],
    ) -> Result<bool, Error> {
        let graph = match self {
            Self::Static(embedder) => return Ok(embedder.embed_tokens(text, surface, scratch, row)),
            Self::Onnx(_, graph) => graph,
        };
        if !scratch.tokens.is_known() {
            return Ok(false);
        }
        graph.run(scratch.tokens.token_ids(), &mut row[..graph.dim()])?;
        if let Some(surface) = surface {
            surface::append(text, surface, &mut scratch.surface, row);
        }
        Ok(true)
    }
}

impl Description {
    fn read(bundle: &Bundle) -> Result<Self, Error> {
        let description: Self =
            serde_json::from_slice(&bundle.description).map_err(|error| about(DESCRIPTION, error))?;
        let version = description.format_version;
        if version == FORMAT_VERSION {
            return Ok(description);
        }
        Err(about(DESCRIPTION, format!("format_version is {version}, this build reads {FORMAT_VERSION}")))
    }

    fn open_tokenizer(&self, bundle: &Bundle) -> Result<PrefixedTokenizer, Error> {
        let options = Options { max_tokens: self.max_tokens, add_special_tokens: true };
        let tokenizer = Tokenizer::from_json(&bundle.tokenizer, options).map_err(|error| about(TOKENIZER, error))?;
        let settings = Settings { prefix: self.prefix.clone(), max_characters: None };
        Ok(PrefixedTokenizer::new(tokenizer, settings))
    }

    /// Checks that the files beside it are those that it describes, and that the router was calibrated with them.
    fn check(&self, bundle: &Bundle, wanted: &EmbedderId) -> Result<(), Error> {
        let Self { name, dim, pooling, max_tokens, prefix, model_sha256, tokenizer_sha256, .. } = self;
        for (file, described) in [(MODEL, model_sha256), (TOKENIZER, tokenizer_sha256)] {
            // That the bytes have the digests of the manifest is checked meanwhile, see `Bundle::open_with`.
            let digest = bundle.manifest.files.get(file).map(|entry| entry.sha256.as_str());
            if digest != Some(described) {
                return Err(about(file, format!("is not the file that {DESCRIPTION} describes")));
            }
        }
        let surface = wanted.surface_features.as_ref();
        let identity = Identity {
            max_tokens: *max_tokens,
            model_sha256,
            pooling,
            prefix,
            surface_features: surface.map(|Surface { name, weight, .. }| format!("{name} weight {weight:.4}")),
            tokenizer_sha256,
        };
        let identity = serde_json::to_string(&identity).map_err(|error| about(DESCRIPTION, error))?;
        let fingerprint = sha256_hex(identity.as_bytes());
        let width = dim.saturating_add(surface.map_or(0, Surface::n_features));
        if width == wanted.dim && wanted.fingerprint.as_ref().is_none_or(|wanted| *wanted == fingerprint) {
            return Ok(());
        }
        Err(Error::bundle(format!(
            "embedder {name}: dim {width}, fingerprint {}…; the router was calibrated with {}, dim {}, fingerprint {}…",
            start(&fingerprint),
            wanted.name,
            wanted.dim,
            start(wanted.fingerprint.as_deref().unwrap_or("none"))
        )))
    }
}

fn about(file: &str, what: impl std::fmt::Display) -> Error {
    Error::bundle(format!("{file}: {what}"))
}
