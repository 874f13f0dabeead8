//! `tokenizer.json`, as far as BERT's pipeline needs it.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::characters::Rules;
use super::vocabulary::CONTINUING_PREFIX;

/// Longest word that is kept in full; a file that asks for more is left to the general tokenizer. Pieces are looked for in
/// every length at every place, so that a file made for it could keep a longer word busy for seconds.
const MAX_CHARACTERS_PER_WORD: usize = 512;

#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow, default)]
    added_tokens: Vec<AddedToken<'a>>,
    #[serde(borrow)]
    normalizer: Option<&'a RawValue>,
    #[serde(borrow)]
    pre_tokenizer: Option<&'a RawValue>,
    #[serde(borrow)]
    post_processor: Option<&'a RawValue>,
    #[serde(borrow)]
    model: &'a RawValue,
}

/// A token that is found in the text itself, before anything else.
#[derive(Clone, Debug, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "the keys of the file")]
pub struct AddedToken<'a> {
    pub id: u32,
    #[serde(borrow)]
    pub content: Cow<'a, str>,
    pub special: bool,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum Normalizer {
    BertNormalizer { clean_text: bool, handle_chinese_chars: bool, strip_accents: Option<bool>, lowercase: bool },
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum PreTokenizer {
    BertPreTokenizer,
}

#[derive(Deserialize)]
#[serde(tag = "type")]
enum PostProcessor {
    BertProcessing { sep: (String, u32), cls: (String, u32) },
    TemplateProcessing { single: Vec<TemplatePiece>, special_tokens: std::collections::HashMap<String, Special> },
}

#[derive(Deserialize)]
enum TemplatePiece {
    SpecialToken { id: String },
    Sequence { id: String },
}

#[derive(Deserialize)]
struct Special {
    ids: Vec<u32>,
}

#[derive(Deserialize)]
struct Kind<'a> {
    #[serde(rename = "type")]
    kind: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
struct Model<'a> {
    #[serde(borrow)]
    unk_token: Cow<'a, str>,
    #[serde(borrow)]
    continuing_subword_prefix: Cow<'a, str>,
    max_input_chars_per_word: usize,
    #[serde(borrow)]
    vocab: Vocab<'a>,
}

/// The vocabulary in the order of the file; strings without escapes stay where they are.
struct Vocab<'a>(Vec<(Cow<'a, str>, u32)>);

impl<'de: 'a, 'a> Deserialize<'de> for Vocab<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Vec<(Cow<'de, str>, u32)>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object of tokens and their ids")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some((Text(token), id)) = map.next_entry()? {
                    entries.push((token, id));
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_map(Entries).map(Self)
    }
}

#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// What BERT's pipeline is set to.
pub struct Bert<'a> {
    pub rules: Rules,
    pub vocab: Vec<(Cow<'a, str>, u32)>,
    pub unknown: Cow<'a, str>,
    pub max_characters_per_word: usize,
    pub added_tokens: Vec<AddedToken<'a>>,
    /// Ids put before and after every text.
    pub around: [Vec<u32>; 2],
}

/// Reads the file; the reason where it asks for something that BERT's pipeline has not.
pub fn read(json: &[u8]) -> Result<Bert<'_>, String> {
    let broken = |error: serde_json::Error| error.to_string();
    let file: File<'_> = serde_json::from_slice(json).map_err(broken)?;
    let normalizer = file.normalizer.ok_or("no normalizer")?.get();
    let rules = match serde_json::from_str(normalizer) {
        Ok(Normalizer::BertNormalizer { clean_text: true, handle_chinese_chars, strip_accents, lowercase }) => {
            Rules { handle_chinese_chars, strip_accents: strip_accents.unwrap_or(lowercase), lowercase }
        }
        Ok(_) => return Err("normalizer BertNormalizer without clean_text".into()),
        Err(_) => return Err(other("normalizer", normalizer)),
    };
    let pre_tokenizer = file.pre_tokenizer.ok_or("no pre_tokenizer")?.get();
    if serde_json::from_str::<PreTokenizer>(pre_tokenizer).is_err() {
        return Err(other("pre_tokenizer", pre_tokenizer));
    }
    let around = match file.post_processor {
        None => [Vec::new(), Vec::new()],
        Some(json) => around(json.get()).ok_or_else(|| other("post_processor", json.get()))?,
    };
    if serde_json::from_str::<Kind<'_>>(file.model.get()).map_err(broken)?.kind.as_deref() != Some("WordPiece") {
        return Err(other("model", file.model.get()));
    }
    let model: Model<'_> = serde_json::from_str(file.model.get()).map_err(broken)?;
    if model.continuing_subword_prefix != CONTINUING_PREFIX {
        return Err(format!("continuing_subword_prefix '{}'", model.continuing_subword_prefix));
    }
    // Of no characters at all, not even a mark of punctuation would be known.
    if !(1..=MAX_CHARACTERS_PER_WORD).contains(&model.max_input_chars_per_word) {
        return Err(format!("max_input_chars_per_word {}", model.max_input_chars_per_word));
    }
    for token in &file.added_tokens {
        let plain = !(token.single_word || token.lstrip || token.rstrip || token.normalized);
        // Only at punctuation does the scan of a text look for added tokens.
        if !plain || !token.content.starts_with(|first: char| first.is_ascii_punctuation()) {
            return Err(format!("added token '{}'", token.content));
        }
    }
    Ok(Bert {
        rules,
        vocab: model.vocab.0,
        unknown: model.unk_token,
        max_characters_per_word: model.max_input_chars_per_word,
        added_tokens: file.added_tokens,
        around,
    })
}

/// Ids before and after the text; nothing where the template is not of that form.
fn around(json: &str) -> Option<[Vec<u32>; 2]> {
    match serde_json::from_str(json).ok()? {
        PostProcessor::BertProcessing { sep, cls } => Some([vec![cls.1], vec![sep.1]]),
        PostProcessor::TemplateProcessing { single, special_tokens } => {
            let mut around = [Vec::new(), Vec::new()];
            let mut n_texts = 0;
            for piece in single {
                match piece {
                    TemplatePiece::SpecialToken { id } => {
                        around.get_mut(n_texts)?.extend_from_slice(&special_tokens.get(&id)?.ids);
                    }
                    TemplatePiece::Sequence { id } if id == "A" => n_texts += 1,
                    TemplatePiece::Sequence { .. } => return None,
                }
            }
            (n_texts == 1).then_some(around)
        }
    }
}

fn other(part: &str, json: &str) -> String {
    let kind = serde_json::from_str::<Kind<'_>>(json).ok().and_then(|kind| kind.kind);
    format!("{part} {}", kind.as_deref().unwrap_or("without a type"))
}
