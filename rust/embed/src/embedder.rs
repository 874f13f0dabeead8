//! A static embedder: tokenizer and table. Text in, unit row out, without an allocation once the buffers fit.

use centroute_core::Isa;

use crate::error::Error;
use crate::table::{self, Table};
use crate::tokenizer::{self, Tokenizer};

/// Tokenizer and table of one embedder. Immutable, so that any number of threads may share it.
#[derive(Debug)]
pub struct StaticEmbedder {
    tokenizer: Tokenizer,
    table: Table,
    settings: Settings,
    /// Known tokens of the prefix, which say nothing about a text.
    n_prefix_known: usize,
    isa: Isa,
}

/// What is done to a text before it is tokenized.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Comes before every text.
    pub prefix: String,
    /// Characters that are read, the prefix included; absent for all.
    pub max_characters: Option<usize>,
}

/// Buffers of one thread.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    tokenizer: tokenizer::Scratch,
    table: table::Scratch,
    token_ids: Vec<u32>,
    prefixed: String,
    /// Whether the text that was tokenized last holds a known token.
    is_known: bool,
}

impl StaticEmbedder {
    /// Puts tokenizer and table together.
    pub fn new(tokenizer: Tokenizer, table: Table, settings: Settings, isa: Isa) -> Result<Self, Error> {
        let (n_rows, n_token_ids) = (table.n_token_ids(), tokenizer.n_token_ids());
        if n_token_ids > n_rows {
            return Err(Error::Vocabulary { n_rows, n_token_ids });
        }
        let mut token_ids = Vec::new();
        tokenizer.encode(&settings.prefix, &mut tokenizer::Scratch::default(), &mut token_ids);
        let n_prefix_known = tokenizer.n_known(&token_ids);
        Ok(Self { tokenizer, table, settings, n_prefix_known, isa })
    }

    /// Width of a row.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.table.dim()
    }

    /// The tokenizer.
    #[must_use]
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// Ids of a text's tokens, the prefix's first.
    pub fn tokenize<'a>(&self, text: &str, scratch: &'a mut Scratch) -> &'a [u32] {
        let Scratch { tokenizer, token_ids, prefixed, is_known, .. } = scratch;
        let Settings { prefix, max_characters } = &self.settings;
        if prefix.is_empty() {
            self.tokenizer.encode(first_characters(text, *max_characters), tokenizer, token_ids);
            *is_known = self.tokenizer.knows_more_than(0, token_ids);
            return token_ids;
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
        token_ids
    }

    /// Writes a text's row, of norm one; false, and zeros, where the text holds no known token.
    pub fn embed(&self, text: &str, scratch: &mut Scratch, into: &mut [f32]) -> bool {
        self.tokenize(text, scratch);
        self.embed_tokens(scratch, into)
    }

    /// [`Self::embed`] of the text that was tokenized last.
    pub fn embed_tokens(&self, scratch: &mut Scratch, into: &mut [f32]) -> bool {
        if !scratch.is_known {
            into.fill(0.0);
            return false;
        }
        self.table.embed(&scratch.token_ids, self.isa, &mut scratch.table, into);
        into.iter().any(|&value| value != 0.0)
    }
}

fn first_characters(text: &str, limit: Option<usize>) -> &str {
    match limit {
        // A character has at least one byte, so that most texts need no counting.
        Some(limit) if text.len() > limit => &text[..text.char_indices().nth(limit).map_or(text.len(), |(end, _)| end)],
        _ => text,
    }
}
