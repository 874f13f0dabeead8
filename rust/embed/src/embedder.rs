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
    prefix: String,
    /// Known tokens of the prefix, which say nothing about a text.
    n_prefix_known: usize,
    isa: Isa,
}

/// Buffers of one thread.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    tokenizer: tokenizer::Scratch,
    table: table::Scratch,
    token_ids: Vec<u32>,
    prefixed: String,
}

impl StaticEmbedder {
    /// Puts tokenizer and table together; `prefix` comes before every text.
    pub fn new(tokenizer: Tokenizer, table: Table, prefix: &str, isa: Isa) -> Result<Self, Error> {
        let (n_rows, n_token_ids) = (table.n_token_ids(), tokenizer.n_token_ids());
        if n_token_ids > n_rows {
            return Err(Error::Vocabulary { n_rows, n_token_ids });
        }
        let mut embedder = Self { tokenizer, table, prefix: prefix.to_owned(), n_prefix_known: 0, isa };
        let mut scratch = Scratch::default();
        embedder.tokenizer.encode(prefix, &mut scratch.tokenizer, &mut scratch.token_ids);
        embedder.n_prefix_known = embedder.tokenizer.n_known(&scratch.token_ids);
        Ok(embedder)
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
        let Scratch { tokenizer, token_ids, prefixed, .. } = scratch;
        if self.prefix.is_empty() {
            self.tokenizer.encode(text, tokenizer, token_ids);
        } else {
            prefixed.clear();
            prefixed.push_str(&self.prefix);
            prefixed.push_str(text);
            self.tokenizer.encode(prefixed, tokenizer, token_ids);
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
        if !self.tokenizer.knows_more_than(self.n_prefix_known, &scratch.token_ids) {
            into.fill(0.0);
            return false;
        }
        self.table.embed(&scratch.token_ids, self.isa, &mut scratch.table, into);
        into.iter().any(|&value| value != 0.0)
    }
}
