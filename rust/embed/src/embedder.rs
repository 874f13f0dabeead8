//! A static embedder: tokenizer and table. Text in, row out, without an allocation once the buffers fit.

use centroute_core::Isa;
use centroute_core::artifact::Surface;

use crate::error::Error;
use crate::prefixed::{self, PrefixedTokenizer};
use crate::surface;
use crate::table::{self, Table};

/// Tokenizer and table of one embedder. Immutable, so that any number of threads may share it.
#[derive(Debug)]
pub struct StaticEmbedder {
    tokenizer: PrefixedTokenizer,
    table: Table,
    isa: Isa,
}

/// Buffers of one thread, for any embedder.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    /// The text that was tokenized last.
    pub tokens: prefixed::Scratch,
    /// For the features of a text.
    pub surface: surface::Scratch,
    table: table::Scratch,
}

impl StaticEmbedder {
    /// Puts tokenizer and table together.
    pub fn new(tokenizer: PrefixedTokenizer, table: Table, isa: Isa) -> Result<Self, Error> {
        let (n_rows, n_token_ids) = (table.n_token_ids(), tokenizer.tokenizer().n_token_ids());
        if n_token_ids > n_rows {
            return Err(Error::Vocabulary { n_rows, n_token_ids });
        }
        Ok(Self { tokenizer, table, isa })
    }

    /// Width of an embedding.
    #[must_use]
    pub fn dim(&self) -> usize {
        self.table.dim()
    }

    /// The tokenizer and its settings.
    #[must_use]
    pub fn tokenizer(&self) -> &PrefixedTokenizer {
        &self.tokenizer
    }

    /// Fills a row of norm one with a text's embedding and, where a router wants them, its surface features; false, and
    /// zeros, where the text holds no known token.
    pub fn embed(&self, text: &str, surface: Option<&Surface>, scratch: &mut Scratch, row: &mut [f32]) -> bool {
        self.tokenizer.tokenize(text, &mut scratch.tokens);
        self.embed_tokens(text, surface, scratch, row)
    }

    /// [`Self::embed`] of the text that was tokenized last.
    pub fn embed_tokens(&self, text: &str, surface: Option<&Surface>, scratch: &mut Scratch, row: &mut [f32]) -> bool {
        let Scratch { tokens, surface: buffers, table } = scratch;
        if tokens.is_known() {
            let embedding = &mut row[..self.table.dim()];
            self.table.embed(tokens.token_ids(), self.isa, table, embedding);
            if embedding.iter().any(|&value| value != 0.0) {
                if let Some(surface) = surface {
                    surface::append(text, surface, buffers, row);
                }
                return true;
            }
        }
        row.fill(0.0);
        false
    }
}
