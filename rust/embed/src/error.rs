//! One error enum for embedders; every message is one line and names what is at fault.

/// Everything that can be wrong with an embedder's files.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are no tokenizer.json that anything here can read.
    #[error("not a tokenizer: {0}")]
    Tokenizer(String),
    /// The limit leaves no room for a text.
    #[error("max_tokens {max_tokens}: the tokenizer adds {n_added} tokens of its own to every text")]
    NoRoom {
        /// The limit.
        max_tokens: usize,
        /// Tokens added to every text.
        n_added: usize,
    },
    /// The file holds no table of token rows.
    #[error("no static table: {0}")]
    Table(String),
    /// Table and tokenizer are of different embedders.
    #[error("the table has {n_rows} rows, the tokenizer has {n_token_ids} token ids")]
    Vocabulary {
        /// Token ids that the table knows.
        n_rows: usize,
        /// Token ids that the tokenizer may give.
        n_token_ids: usize,
    },
}
