//! A tokenizer with what an embedder does to every text before, and whether a text holds anything that it knows.

use crate::tokenizer::{self, Tokenizer};

/// A tokenizer and its embedder's settings. Immutable, so that any number of threads may share it.
#[derive(Debug)]
pub struct PrefixedTokenizer {
    tokenizer: Tokenizer,
    settings: Settings,
    /// Known tokens of the prefix, which say nothing about a text.
    n_prefix_known: usize,
}

/// What is done to a text before it is tokenized.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Comes before every text.
    pub prefix: String,
    /// Characters that are read, the prefix included; absent for all.
    pub max_characters: Option<usize>,
}

/// Buffers of one thread, and the text that was tokenized last.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    tokenizer: tokenizer::Scratch,
    prefixed: String,
    token_ids: Vec<u32>,
    is_known: bool,
}

impl PrefixedTokenizer {
    /// Puts tokenizer and settings together.
    #[must_use]
    pub fn new(tokenizer: Tokenizer, settings: Settings) -> Self {
        let mut token_ids = Vec::new();
        tokenizer.encode(&settings.prefix, &mut tokenizer::Scratch::default(), &mut token_ids);
        let n_prefix_known = tokenizer.n_known(&token_ids);
        Self { tokenizer, settings, n_prefix_known }
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Tokenizes a text, and finds out whether it holds a known token.
    pub fn tokenize(&self, text: &str, scratch: &mut Scratch) {
        let Scratch { tokenizer, prefixed, token_ids, is_known } = scratch;
        let Settings { prefix, max_characters } = &self.settings;
        if prefix.is_empty() {
            self.tokenizer.encode(first_characters(text, *max_characters), tokenizer, token_ids);
            *is_known = self.tokenizer.knows_more_than(0, token_ids);
            return;
        }
        prefixed.clear();
        prefixed.push_str(prefix);
        prefixed.push_str(text);
        let whole = first_characters(prefixed, *max_characters);
        self.tokenizer.encode(whole, tokenizer, token_ids);
        *is_known = self.tokenizer.knows_more_than(self.n_prefix_known, token_ids);
        if !*is_known {
            // The end of the prefix can become one token with the start of the text.
            self.tokenizer.encode(text, tokenizer, token_ids);
            *is_known = self.tokenizer.knows_more_than(0, token_ids);
            self.tokenizer.encode(whole, tokenizer, token_ids);
        }
    }
}

impl Scratch {
    /// Ids of the text's tokens, the prefix's first.
    #[must_use]
    pub fn token_ids(&self) -> &[u32] {
        &self.token_ids
    }

    /// Whether the text itself holds a known token.
    #[must_use]
    pub fn is_known(&self) -> bool {
        self.is_known
    }
}

fn first_characters(text: &str, limit: Option<usize>) -> &str {
    match limit {
        // A character has at least one byte, so that most texts need no counting.
        Some(limit) if text.len() > limit => &text[..text.char_indices().nth(limit).map_or(text.len(), |(end, _)| end)],
        _ => text,
    }
}
