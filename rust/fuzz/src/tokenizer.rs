//! Any text has the ids that the `tokenizers` crate gives it.
//!
//! The first byte picks the settings, the rest is the text.

use std::cell::RefCell;

use centroute_embed::tokenizer::{Options, Scratch, Tokenizer};
use serde_json::{Value, json};
use tokenizers::{TruncationParams, TruncationStrategy};

use crate::feed::Feed;

const N_KINDS: usize = 8;

pub fn run(data: &[u8]) {
    thread_local! {
        static PAIRS: RefCell<[Option<Pair>; N_KINDS]> = RefCell::default();
    }
    let mut feed = Feed(data);
    let kind = usize::from(feed.byte()) % N_KINDS;
    let text = String::from_utf8_lossy(feed.0);
    PAIRS.with_borrow_mut(|pairs| pairs[kind].get_or_insert_with(|| Pair::of_kind(kind)).check(&text));
}

/// A tokenizer and the general one of the same file.
pub struct Pair {
    pub ours: Tokenizer,
    general: tokenizers::Tokenizer,
    scratch: Scratch,
    ids: Vec<u32>,
}

impl Pair {
    /// `None` where either refuses the file.
    pub fn new(file: &[u8], options: Options) -> Option<Self> {
        let Options { max_tokens, add_special_tokens } = options;
        let ours = Tokenizer::from_json(file, options).ok()?;
        if !add_special_tokens || ours.fallback_reason().is_some() {
            return None;
        }
        let mut general = tokenizers::Tokenizer::from_bytes(file).ok()?;
        let truncation = TruncationParams {
            max_length: max_tokens,
            strategy: TruncationStrategy::LongestFirst,
            ..TruncationParams::default()
        };
        general.with_padding(None);
        general.with_truncation(Some(truncation)).ok()?;
        Some(Self { ours, general, scratch: Scratch::default(), ids: Vec::new() })
    }

    /// Compares the ids of a text.
    pub fn check(&mut self, text: &str) {
        self.ours.encode(text, &mut self.scratch, &mut self.ids);
        let wanted = self.general.encode_fast(text, true);
        let wanted = wanted.as_ref().map_or(&[][..], tokenizers::Encoding::get_ids);
        assert_eq!(self.ids, wanted, "{text:?}");
    }

    /// A part of the bundled tokenizer's vocabulary with settings of its own.
    fn of_kind(kind: usize) -> Self {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../models/static-256/tokenizer.json");
        let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut file: Value = serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{path}: {error}"));
        if let Some(vocabulary) = file["model"]["vocab"].as_object_mut() {
            vocabulary.retain(|token, id| {
                let id = id.as_u64().unwrap_or_default();
                id < 1500 || id % 64 == 0 || token.trim_start_matches('#').chars().count() <= 1
            });
            for (place, letter) in
                ["\u{302e}", "\u{302f}", "\u{1d165}", "\u{1d16d}", "가", "\u{1100}"].iter().enumerate()
            {
                vocabulary.insert((*letter).to_owned(), (30_600 + 2 * place).into());
                vocabulary.insert(format!("##{letter}"), (30_601 + 2 * place).into());
            }
        }
        let normalizer = &mut file["normalizer"];
        match kind {
            1 => normalizer["lowercase"] = false.into(),
            2 => normalizer["strip_accents"] = false.into(),
            3 => (normalizer["lowercase"], normalizer["strip_accents"]) = (false.into(), true.into()),
            4 => normalizer["handle_chinese_chars"] = false.into(),
            5 => file["model"]["max_input_chars_per_word"] = 3.into(),
            6 => {
                file["post_processor"] =
                    json!({"type": "BertProcessing", "sep": ["[SEP]", 102], "cls": ["[CLS]", 101]});
            }
            7 => {
                file["normalizer"]["lowercase"] = false.into();
                file["model"]["max_input_chars_per_word"] = 1.into();
            }
            _ => {}
        }
        let options = Options { max_tokens: 128, add_special_tokens: true };
        Self::new(&serde_json::to_vec(&file).unwrap_or_default(), options).expect("both read the file")
    }
}
