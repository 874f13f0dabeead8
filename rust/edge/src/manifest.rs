//! `manifest.json`: what a bundle holds. `python/centroute/bundle.py` writes it.

use std::collections::BTreeMap;

use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::error::Error;

/// Version of the manifest that this build reads.
pub const FORMAT_VERSION: u64 = 1;
/// Name of the manifest.
pub const MANIFEST: &str = "manifest.json";
/// Name of the router file.
pub const ROUTER: &str = "router.safetensors";
/// Name of the embedder's description.
pub const DESCRIPTION: &str = "embedder/embedder.json";
/// Name of the embedder's table or graph.
pub const MODEL: &str = "embedder/model.onnx";
/// Name of the embedder's tokenizer.
pub const TOKENIZER: &str = "embedder/tokenizer.json";
/// Every file that a manifest lists, sorted.
pub const FILES: [&str; 4] = [DESCRIPTION, MODEL, TOKENIZER, ROUTER];
/// No manifest is larger.
pub const MAX_BYTES: u64 = 1 << 20;

/// Size and digest of a file.
#[derive(Clone, Debug, Deserialize)]
pub struct Entry {
    /// Its size.
    pub bytes: u64,
    /// SHA-256 in lower-case hexadecimal.
    pub sha256: String,
}

/// The part of the manifest that is read here.
#[derive(Clone, Debug, Deserialize)]
pub struct Manifest {
    /// How the router file stores its centroids.
    pub precision: String,
    /// Which release wrote it.
    pub centroute_version: String,
    /// The files by name, exactly [`FILES`].
    pub files: BTreeMap<String, Entry>,
}

impl Manifest {
    /// Reads a manifest and checks its form.
    pub fn from_json(json: &[u8]) -> Result<Self, Error> {
        // Read before everything else, so that a bundle of the future is called that and not called broken.
        #[derive(Deserialize)]
        struct Version {
            format_version: u64,
        }
        let refuse = |what: String| Error::bundle(format!("{MANIFEST}: {what}"));
        let version: Version =
            serde_json::from_slice(json).map_err(|error| refuse(format!("not the manifest of a bundle ({error})")))?;
        if version.format_version != FORMAT_VERSION {
            return Err(refuse(format!(
                "format version {} is not readable here (this build reads {FORMAT_VERSION})",
                version.format_version
            )));
        }
        let manifest: Self = serde_json::from_slice(json).map_err(|error| refuse(error.to_string()))?;
        if !manifest.files.keys().eq(FILES.iter()) {
            return Err(refuse(format!("files: wanted exactly {}", FILES.join(", "))));
        }
        Ok(manifest)
    }

    /// Checks a file's size and digest.
    pub fn check(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let entry = self.files.get(name).ok_or_else(|| Error::bundle(format!("{name}: not in the manifest")))?;
        if entry.bytes != bytes.len() as u64 {
            return Err(Error::bundle(format!("{name}: {} bytes, the manifest says {}", bytes.len(), entry.bytes)));
        }
        let computed = sha256_hex(bytes);
        if computed != entry.sha256 {
            return Err(Error::bundle(format!(
                "{name}: is not the file that the manifest lists (SHA-256 {}…, listed {}…)",
                start(&computed),
                start(&entry.sha256)
            )));
        }
        Ok(())
    }
}

/// SHA-256 of bytes in lower-case hexadecimal.
#[must_use]
pub fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    Sha256::digest(bytes).iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The first digits of a digest, enough for people to compare.
#[must_use]
pub fn start(digest: &str) -> String {
    digest.chars().take(16).collect()
}
