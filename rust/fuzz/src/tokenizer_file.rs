//! A tokenizer.json is refused in one line, or gives the ids that the `tokenizers` crate gives.
//!
//! Even first byte: the rest is the file. Odd: settings, the vocabulary's pieces by lines up to a zero byte, a text.

use centroute_embed::tokenizer::{Options, Scratch, Tokenizer};
use serde_json::{Map, Value, json};

use crate::feed::{Feed, check_refusal, let_through_panics_of_tokenizers};
use crate::tokenizer::Pair;

pub fn run(data: &[u8]) {
    let_through_panics_of_tokenizers();
    let mut feed = Feed(data);
    let mut text = "Hello, wörld! [UNK] [CLS]x ##a \u{301}é 漢字 a\u{302f}\u{302e}".to_owned();
    let file =
        if feed.byte() % 2 == 0 { feed.0.to_vec() } else { built(&mut feed, &mut text).to_string().into_bytes() };
    let options = Options { max_tokens: usize::from(feed.byte()) + 1, add_special_tokens: feed.byte() % 4 != 0 };
    let tokenizer = match Tokenizer::from_json(&file, options) {
        Ok(tokenizer) => tokenizer,
        Err(error) => return check_refusal(&error),
    };
    let (mut scratch, mut ids) = (Scratch::default(), Vec::new());
    for text in [text.as_str(), "", "a"] {
        tokenizer.encode(text, &mut scratch, &mut ids);
        assert!(ids.len() <= options.max_tokens, "{} ids", ids.len());
        assert!(tokenizer.n_known(&ids) <= ids.len());
        if tokenizer.fallback_reason().is_none() {
            assert!(ids.iter().all(|&id| (id as usize) < tokenizer.n_token_ids()), "{ids:?}");
        }
    }
    if let Some(mut pair) = Pair::new(&file, options) {
        for text in [text.as_str(), "", "a"] {
            pair.check(text);
        }
    }
}

fn built(feed: &mut Feed<'_>, text: &mut String) -> Value {
    let settings = [feed.byte(), feed.byte(), feed.byte()];
    let set = |byte: usize, bit: u8| settings[byte] >> bit & 1 == 1;
    let mut vocabulary = Map::new();
    for (id, special) in ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].into_iter().enumerate() {
        vocabulary.insert(special.to_owned(), id.into());
    }
    let pieces = feed.until(0);
    for (place, piece) in pieces.split(|&byte| byte == b'\n').enumerate() {
        let id = if set(0, 7) && place % 5 == 4 { place } else { place + 4 };
        vocabulary.insert(String::from_utf8_lossy(piece).into_owned(), id.into());
    }
    let mut added = vec![];
    for (id, content) in ["[PAD]", "[UNK]", "[CLS]", "[SEP]"].into_iter().enumerate().take(usize::from(settings[1] % 5))
    {
        added.push(json!({"id": id, "content": content, "special": !set(2, 0), "single_word": set(2, 1) && id == 2,
            "lstrip": set(2, 2) && id == 3, "rstrip": false, "normalized": set(2, 3) && id == 1}));
    }
    if set(1, 3)
        && let Some((piece, id)) = vocabulary.iter().next_back()
    {
        added.push(json!({"id": id, "content": piece, "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false}));
    }
    *text = String::from_utf8_lossy(feed.until(0)).into_owned();
    let strip = if set(0, 1) { Value::Null } else { set(0, 2).into() };
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": set(0, 3),
            "strip_accents": strip, "lowercase": set(0, 4)},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": if set(0, 5) {
            json!({"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]})
        } else {
            Value::Null
        },
        "decoder": null,
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": if set(0, 6) { settings[2] >> 4 } else { 100 }, "vocab": vocabulary},
    })
}
