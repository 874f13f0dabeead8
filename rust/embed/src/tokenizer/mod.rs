//! Text to token ids, as a `tokenizer.json` says.
//!
//! BERT's pipeline (`BertNormalizer`, `BertPreTokenizer`, `WordPiece`) is read in one pass by [`wordpiece`]; any
//! other is left to the `tokenizers` crate. Padding and truncation of the file do not count: the first `max_tokens`
//! tokens are given, those that the file puts around every text included.

mod characters;
mod file;
mod vocabulary;
mod wordpiece;

use std::panic::{AssertUnwindSafe, catch_unwind};

use tokenizers::{TruncationParams, TruncationStrategy};

use crate::error::Error;
use wordpiece::{Word, WordPiece};

/// A loaded `tokenizer.json`. Immutable, so that any number of threads may share it.
#[derive(Debug)]
pub struct Tokenizer {
    pipeline: Pipeline,
    /// Why the file is left to the `tokenizers` crate.
    reason: Option<String>,
    max_tokens: usize,
    n_token_ids: usize,
    /// Ids that stand for no part of a text: special tokens and the unknown one.
    special_ids: Vec<u32>,
    unknown_id: Option<u32>,
}

#[derive(Debug)]
enum Pipeline {
    Bert { wordpiece: Box<WordPiece>, around: [Vec<u32>; 2] },
    General { tokenizer: Box<tokenizers::Tokenizer>, add_special_tokens: bool },
}

/// Buffers of one thread.
#[derive(Clone, Debug, Default)]
pub struct Scratch {
    word: Word,
}

/// What a caller may ask of a tokenizer beyond its file.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Tokens given of a text at most.
    pub max_tokens: usize,
    /// Whether tokens are put around every text as the file says.
    pub add_special_tokens: bool,
}

impl Tokenizer {
    /// Reads a `tokenizer.json`.
    pub fn from_json(json: &[u8], options: Options) -> Result<Self, Error> {
        let Options { max_tokens, add_special_tokens } = options;
        let bert = match file::read(json) {
            Ok(bert) => bert,
            Err(reason) => return Self::general(json, options, reason),
        };
        let around = if add_special_tokens { bert.around.clone() } else { Default::default() };
        check_room(max_tokens, around.iter().map(Vec::len).sum())?;
        let mut special_ids: Vec<u32> =
            bert.added_tokens.iter().filter(|token| token.special).map(|token| token.id).collect();
        let n_token_ids = bert.vocab.iter().map(|&(_, id)| id as usize + 1).max().unwrap_or(0);
        let unknown_id = bert.vocab.iter().rfind(|(token, _)| *token == bert.unknown).map(|&(_, id)| id);
        special_ids.extend(unknown_id);
        match WordPiece::new(bert) {
            Ok(wordpiece) => Ok(Self {
                pipeline: Pipeline::Bert { wordpiece: Box::new(wordpiece), around },
                reason: None,
                max_tokens,
                n_token_ids,
                special_ids,
                unknown_id,
            }),
            Err(reason) => Self::general(json, options, reason),
        }
    }

    fn general(json: &[u8], options: Options, reason: String) -> Result<Self, Error> {
        let fails = || Err(Error::Tokenizer("the tokenizers crate fails on it".into()));
        caught(|| Self::read_general(json, options, reason)).unwrap_or_else(fails)
    }

    fn read_general(json: &[u8], options: Options, reason: String) -> Result<Self, Error> {
        let one_line = |error: &dyn std::fmt::Display| {
            Error::Tokenizer(error.to_string().lines().next().unwrap_or_default().to_owned())
        };
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(json).map_err(|error| one_line(&error))?;
        let Options { max_tokens, add_special_tokens } = options;
        let n_added = tokenizer.get_post_processor().filter(|_| add_special_tokens).map_or(0, |processor| {
            use tokenizers::PostProcessor;
            processor.added_tokens(false)
        });
        check_room(max_tokens, n_added)?;
        let truncation = TruncationParams {
            max_length: max_tokens,
            strategy: TruncationStrategy::LongestFirst,
            ..TruncationParams::default()
        };
        tokenizer.with_padding(None);
        tokenizer.with_truncation(Some(truncation)).map_err(|error| one_line(&error))?;
        // What a file lacks may show with the first text only, and then as a panic.
        let _ = ["", "a b"].map(|text| tokenizer.encode_fast(text, add_special_tokens));
        let vocabulary = tokenizer.get_vocab(true);
        let n_token_ids = vocabulary.values().max().map_or(0, |&id| id as usize + 1);
        let mut special_ids: Vec<u32> = tokenizer
            .get_added_tokens_decoder()
            .into_iter()
            .filter(|(_, token)| token.special)
            .map(|(id, _)| id)
            .collect();
        let unknown_id = unknown_token(json).and_then(|token| vocabulary.get(&token).copied());
        special_ids.extend(unknown_id);
        Ok(Self {
            pipeline: Pipeline::General { tokenizer: Box::new(tokenizer), add_special_tokens },
            reason: Some(reason),
            max_tokens,
            n_token_ids,
            special_ids,
            unknown_id,
        })
    }

    /// Replaces `ids` by those of a text.
    pub fn encode(&self, text: &str, scratch: &mut Scratch, ids: &mut Vec<u32>) {
        ids.clear();
        match &self.pipeline {
            Pipeline::Bert { wordpiece, around: [before, after] } => {
                ids.extend_from_slice(before);
                wordpiece.encode(text, self.max_tokens - before.len() - after.len(), &mut scratch.word, ids);
                ids.extend_from_slice(after);
            }
            Pipeline::General { tokenizer, add_special_tokens } => {
                // The one error that is left is a word without pieces where there is no token for that: nothing known.
                if let Some(Ok(encoding)) = caught(|| tokenizer.encode_fast(text, *add_special_tokens)) {
                    // A template may name the text more than once, and the crate cuts the text alone.
                    let cut = encoding.get_ids().len().min(self.max_tokens);
                    ids.extend_from_slice(&encoding.get_ids()[..cut]);
                }
            }
        }
    }

    /// Number of ids that stand for a part of a text.
    #[must_use]
    pub fn n_known(&self, ids: &[u32]) -> usize {
        ids.iter().filter(|id| !self.is_special(**id)).count()
    }

    /// Whether more than `n` ids stand for a part of a text.
    #[must_use]
    pub fn knows_more_than(&self, n: usize, ids: &[u32]) -> bool {
        ids.iter().filter(|id| !self.is_special(**id)).nth(n).is_some()
    }

    fn is_special(&self, id: u32) -> bool {
        self.special_ids.contains(&id)
    }

    /// One more than the highest id.
    #[must_use]
    pub fn n_token_ids(&self) -> usize {
        self.n_token_ids
    }

    /// The id of what is not in the vocabulary, where there is one.
    #[must_use]
    pub fn unknown_id(&self) -> Option<u32> {
        self.unknown_id
    }

    /// Why texts are left to the `tokenizers` crate; `None` where they are not.
    #[must_use]
    pub fn fallback_reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }
}

/// What a call of the `tokenizers` crate gives; nothing where it panics, as it does on some files that are not sound.
fn caught<T>(call: impl FnOnce() -> T) -> Option<T> {
    // The tokenizer is only read, and what it keeps for later is put in place whole.
    catch_unwind(AssertUnwindSafe(call)).ok()
}

fn check_room(max_tokens: usize, n_added: usize) -> Result<(), Error> {
    if max_tokens > n_added { Ok(()) } else { Err(Error::NoRoom { max_tokens, n_added }) }
}

/// The unknown token that a model names, by text or, for Unigram, by id.
fn unknown_token(json: &[u8]) -> Option<String> {
    let file: serde_json::Value = serde_json::from_slice(json).ok()?;
    let model = file.get("model")?;
    if let Some(token) = model.get("unk_token").and_then(serde_json::Value::as_str) {
        return Some(token.to_owned());
    }
    let place = usize::try_from(model.get("unk_id")?.as_u64()?).ok()?;
    Some(model.get("vocab")?.get(place)?.get(0)?.as_str()?.to_owned())
}
