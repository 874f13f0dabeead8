//! A bundle is refused in one line that names it, or decides texts.
//!
//! The first byte picks what the rest spoils of a sound bundle: the manifest, the description, the router, the table,
//! the tokenizer, or which files there are.

use std::fs;

use centroute::manifest::Manifest;
use centroute::{Buffers, Engine, decision_json};
use serde_json::Value;

use crate::feed::{Feed, check_message, let_through_panics_of_tokenizers};
use crate::made;
use crate::made_bundle::{Parts, scratch_folder, tar, write};

pub fn run(data: &[u8]) {
    let_through_panics_of_tokenizers();
    let mut feed = Feed(data);
    let (first, as_tar) = (feed.byte(), feed.byte() % 2 == 0);
    let mut parts = Parts::sound(first & 128 > 0);
    let mut text = "the river".to_owned();
    match first % 6 {
        0 => merge(&mut parts.manifest, &String::from_utf8_lossy(feed.0)),
        1 => {
            merge(&mut parts.description, &String::from_utf8_lossy(feed.until(0)));
            text = String::from_utf8_lossy(feed.0).into_owned();
        }
        2 => {
            let metadata = String::from_utf8_lossy(feed.until(0)).into_owned();
            parts.router = made::router_file(&metadata, &mut feed);
        }
        3 => parts.model = feed.0.to_vec(),
        4 => parts.tokenizer = feed.0.to_vec(),
        _ => text = String::from_utf8_lossy(feed.until(0)).into_owned(),
    }
    let mut files = parts.files();
    if first % 6 == 5 {
        for _ in 0..feed.below(4) {
            let place = feed.below(files.len());
            match feed.byte() % 4 {
                0 => drop(files.remove(place)),
                1 => files[place].1 = feed.until(0).to_vec(),
                2 => files[place].0 = feed.pick(&["embedder/more", "x", "manifest.json", "embedder/model.onnx"]),
                _ => {
                    let at = feed.below(files[place].1.len());
                    if let Some(byte) = files[place].1.get_mut(at) {
                        *byte ^= feed.byte();
                    }
                }
            }
            if files.is_empty() {
                return;
            }
        }
    }
    if first % 6 == 0
        && let Some((_, bytes)) = files.last()
        && let Err(error) = Manifest::from_json(bytes)
    {
        check_message(&error);
    }
    open_and_decide(&files, as_tar, &text);
}

fn open_and_decide(files: &[(&str, Vec<u8>)], as_tar: bool, text: &str) {
    let root = scratch_folder("bundle");
    let path = root.join(if as_tar { "bundle.tar" } else { "bundle" });
    let written = if as_tar {
        fs::create_dir_all(&root).and_then(|()| fs::write(&path, tar(files)))
    } else {
        write(&path, files)
    };
    written.expect("a folder in memory");
    match Engine::open(&path) {
        Ok(engine) => {
            let mut buffers = Buffers::default();
            match engine.decide(text, engine.default_policy(), &mut buffers) {
                Ok(decision) => {
                    let mut json = Vec::new();
                    decision_json::write(&decision, &mut json);
                    let read: Value = serde_json::from_slice(&json).expect("a decision is JSON");
                    assert!(read["model"].is_string(), "{read}");
                }
                Err(error) => check_message(&error),
            }
        }
        Err(error) => {
            check_message(&error);
            assert!(error.message.starts_with(&*path.to_string_lossy()), "{error}");
        }
    }
    fs::remove_dir_all(&root).expect("its own folder");
}

/// Puts the keys of a JSON object into another one; a text that is no object takes its place as a string.
fn merge(into: &mut Value, text: &str) {
    match serde_json::from_str::<Value>(text) {
        Ok(Value::Object(keys)) => keys.into_iter().for_each(|(key, value)| into[key] = value),
        Ok(other) => *into = other,
        Err(_) => *into = text.into(),
    }
}
