//! Bundles made up from their parts, with the digests that the parts have.

use std::path::{Path, PathBuf};

use centroute::manifest::{DESCRIPTION, MANIFEST, MODEL, ROUTER, TOKENIZER, sha256_hex};
use serde_json::{Value, json};

use crate::made;
use crate::made_onnx::Graph;

/// Width of the made-up embedder.
pub const DIM: usize = 4;
const WORDS: [&str; 12] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "river", "a", "b", "##a", "##b", ".", "é"];

/// The files of a bundle by name, its manifest last.
pub struct Parts {
    pub router: Vec<u8>,
    pub description: Value,
    pub model: Vec<u8>,
    pub tokenizer: Vec<u8>,
    pub manifest: Value,
}

impl Parts {
    /// A sound bundle, with or without surface features.
    pub fn sound(surface: bool) -> Self {
        let dim = DIM + if surface { 12 } else { 0 };
        let metadata = made::metadata(dim, surface).to_string();
        let rows: Vec<u8> = (0..WORDS.len() * DIM).map(|place| (place * 37 + 5) as u8).collect();
        Self {
            router: made::sealed(made::container(Some(&metadata), &made::tensors(5, 3, dim, "F32"))),
            description: json!({
                "format_version": 1, "name": "made-up", "dim": DIM, "pooling": "sum", "max_tokens": 16, "prefix": "",
            }),
            model: Graph::new(&rows, DIM, 0.01).to_bytes(),
            tokenizer: tokenizer().to_string().into_bytes(),
            manifest: json!({
                "format_version": 1, "centroute_version": "0", "precision": "f32", "files": {},
            }),
        }
    }

    /// Names and bytes, with the digests filled in wherever the manifest and the description have room for them.
    pub fn files(mut self) -> Vec<(&'static str, Vec<u8>)> {
        if let Some(description) = self.description.as_object_mut() {
            description.entry("model_sha256").or_insert_with(|| sha256_hex(&self.model).into());
            description.entry("tokenizer_sha256").or_insert_with(|| sha256_hex(&self.tokenizer).into());
        }
        let description = self.description.to_string().into_bytes();
        let mut files =
            vec![(DESCRIPTION, description), (MODEL, self.model), (TOKENIZER, self.tokenizer), (ROUTER, self.router)];
        if let Some(listed) = self.manifest.get_mut("files").and_then(Value::as_object_mut) {
            for (name, bytes) in &files {
                listed.entry(*name).or_insert_with(|| json!({"bytes": bytes.len(), "sha256": sha256_hex(bytes)}));
            }
        }
        files.push((MANIFEST, self.manifest.to_string().into_bytes()));
        files
    }
}

/// BERT's pipeline over a dozen pieces.
pub fn tokenizer() -> Value {
    let vocabulary: serde_json::Map<String, Value> =
        WORDS.iter().enumerate().map(|(id, word)| ((*word).to_owned(), id.into())).collect();
    let added: Vec<Value> = WORDS[..4]
        .iter()
        .enumerate()
        .map(|(id, content)| {
            json!({"id": id, "content": content, "special": true, "single_word": false, "lstrip": false,
                "rstrip": false, "normalized": false})
        })
        .collect();
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": null, "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocabulary},
    })
}

/// A tar file of members with sound headers.
pub fn tar(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut archive = Vec::new();
    for (name, bytes) in files {
        let mut header = [0; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[124..135].copy_from_slice(format!("{:011o}", bytes.len()).as_bytes());
        header[156] = b'0';
        header[257..263].copy_from_slice(b"ustar\0");
        seal(&mut header);
        archive.extend_from_slice(&header);
        archive.extend_from_slice(bytes);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

/// Puts the right checksum into a header.
pub fn seal(header: &mut [u8]) {
    header[148..156].fill(b' ');
    let sum: usize = header.iter().map(|&byte| usize::from(byte)).sum();
    header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

/// A folder of this process and purpose in memory, or where temporary files are.
pub fn scratch_folder(purpose: &str) -> PathBuf {
    let memory = Path::new("/dev/shm");
    let root = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    root.join(format!("centroute-fuzz-{}-{purpose}", std::process::id()))
}

/// Writes the files into a new folder.
pub fn write(folder: &Path, files: &[(&str, Vec<u8>)]) -> std::io::Result<()> {
    std::fs::create_dir_all(folder.join("embedder"))?;
    files.iter().try_for_each(|(name, bytes)| std::fs::write(folder.join(name), bytes))
}
