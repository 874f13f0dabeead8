//! The one-pass tokenizer gives the ids of the `tokenizers` crate.

#![expect(clippy::unwrap_used, reason = "a test fails where its own files are not there")]

use std::path::Path;

use centroute_embed::tokenizer::{Options, Scratch, Tokenizer};
use tokenizers::{TruncationParams, TruncationStrategy};

const MAX_TOKENS: usize = 64;

/// A tokenizer and the general one of the same file.
struct Pair {
    ours: Tokenizer,
    general: tokenizers::Tokenizer,
    scratch: Scratch,
    ids: Vec<u32>,
}

impl Pair {
    /// The bundled tokenizer with changes to its file.
    fn new(change: impl Fn(&mut serde_json::Value)) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/static-256/tokenizer.json");
        let mut file: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        // Letters that canonical order moves: were they unknown, their order would not show in the ids.
        let vocabulary = file["model"]["vocab"].as_object_mut().unwrap();
        for (place, letter) in ["\u{302e}", "\u{302f}", "\u{1d165}", "\u{1d16d}", "가", "\u{1100}"].iter().enumerate()
        {
            vocabulary.insert((*letter).to_owned(), (30_600 + 2 * place).into());
            vocabulary.insert(format!("##{letter}"), (30_601 + 2 * place).into());
        }
        change(&mut file);
        let json = serde_json::to_vec(&file).unwrap();
        let ours = Tokenizer::from_json(&json, Options { max_tokens: MAX_TOKENS, add_special_tokens: true }).unwrap();
        assert_eq!(ours.fallback_reason(), None);
        let mut general = tokenizers::Tokenizer::from_bytes(&json).unwrap();
        let truncation = TruncationParams {
            max_length: MAX_TOKENS,
            strategy: TruncationStrategy::LongestFirst,
            ..TruncationParams::default()
        };
        general.with_truncation(Some(truncation)).unwrap();
        Self { ours, general, scratch: Scratch::default(), ids: Vec::new() }
    }

    fn check(&mut self, text: &str) {
        self.ours.encode(text, &mut self.scratch, &mut self.ids);
        let wanted = self.general.encode_fast(text, true).unwrap();
        assert_eq!(self.ids, wanted.get_ids(), "{text:?}");
    }
}

fn variants() -> Vec<Pair> {
    let template = |file: &mut serde_json::Value| {
        file["post_processor"] = serde_json::json!({
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                       {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {"[CLS]": {"id": "[CLS]", "ids": [101], "tokens": ["[CLS]"]},
                               "[SEP]": {"id": "[SEP]", "ids": [102], "tokens": ["[SEP]"]}},
        });
    };
    vec![
        Pair::new(|_| {}),
        Pair::new(template),
        Pair::new(|file| file["normalizer"]["lowercase"] = false.into()),
        Pair::new(|file| file["normalizer"]["strip_accents"] = false.into()),
        Pair::new(|file| {
            file["normalizer"]["lowercase"] = false.into();
            file["normalizer"]["strip_accents"] = true.into();
        }),
        Pair::new(|file| file["normalizer"]["handle_chinese_chars"] = false.into()),
        Pair::new(|file| file["model"]["max_input_chars_per_word"] = 3.into()),
        Pair::new(|file| {
            file["post_processor"] =
                serde_json::json!({"type": "BertProcessing", "sep": ["[SEP]", 102], "cls": ["[CLS]", 101]});
        }),
    ]
}

#[test]
fn nasty_texts() {
    let word = |n: usize| "x".repeat(n);
    let texts = [
        String::new(),
        " ".into(),
        "[CLS] is [CLSs] [[CLS]] [cls] [UN[UNK] [MASK".into(),
        "a[SEP]b[PAD][PAD]".into(),
        "caf\u{e9} cafe\u{301} CAFÉ ﬁ ½ Ⅷ ß ẞ İ I\u{307} ŉ ǰ".into(),
        "\u{344} a\u{344} \u{340}\u{341} \u{37e} \u{387} \u{1fef} \u{212a} \u{2126} \u{2000}x\u{2001}".into(),
        "a\u{1d165}\u{1d16d} a\u{1d16d}\u{1d165} \u{1d15e}\u{1d16d}\u{1d165} 가\u{302e}\u{302f} 가\u{302f}\u{302e}"
            .into(),
        "a\u{302f}\u{301}\u{302e} a\u{302f}\0\u{302e} a\u{302f}\u{34f}\u{302e} \u{302f}\u{302e}a".into(),
        "漢字かな交じり文 \u{f900}\u{2f800}x\u{301} 한국어 हिन्दी ไทย עברית العربية".into(),
        "a\0b\u{fffd}c\u{200b}d\u{ad}e\u{feff}f\tg\rh\ni\u{b}j\u{c}k\u{85}l\u{2028}m\u{3000}n\u{1c}o".into(),
        "👩‍👩‍👧‍👦 🏳️‍🌈 🙂 ©™ → ∑ ≠ ‰ € £ ¥ _ ‿ ・ 「」".into(),
        word(99),
        word(100),
        word(101),
        word(4000) + " tail",
        "é".repeat(100) + " " + &"é".repeat(101),
        "e\u{301}".repeat(100) + " " + &"e\u{301}".repeat(101),
        "\u{1d11e}".repeat(100) + " " + &"\u{1d11e}".repeat(101) + "a",
        "가".repeat(34) + " " + &"가".repeat(50) + " 漢" + &"x".repeat(100) + "漢",
        "supercalifragilisticexpialidocious antidisestablishmentarianism ##ing # # ##".into(),
        "3.14159 1,000,000 x_1 don't o'clock e-mail a/b http://x.y/z?q=1&r=2#top".into(),
        ". ".repeat(200),
        "word ".repeat(200),
        "unaffable ".repeat(40) + "[SEP]",
    ];
    for pair in &mut variants() {
        for text in &texts {
            pair.check(text);
        }
    }
}

#[test]
fn every_character() {
    for pair in &mut [Pair::new(|_| {}), Pair::new(|file| file["normalizer"]["strip_accents"] = false.into())] {
        // Many to a text, each with its neighbours, none cut off.
        let mut text = String::new();
        for (place, character) in ('\0'..=char::MAX).enumerate() {
            text.push('a');
            text.push(character);
            text.push_str("\u{302f}b ");
            if place % 8 == 7 {
                pair.check(&text);
                text.clear();
            }
        }
    }
}

#[test]
fn made_up_texts() {
    // Fragments that meet each other in every way; more of each kind than chance would bring.
    let fragments = [
        "the",
        "Un",
        "aff",
        "able",
        "ING",
        "ß",
        "İ",
        "é",
        "e",
        "\u{301}",
        "\u{302e}",
        "\u{302f}",
        "\u{34f}",
        "\u{1d165}",
        "\u{1d16d}",
        "\u{344}",
        "漢",
        "\u{f900}",
        "か",
        "가",
        "ᄀ",
        "ᅡ",
        " ",
        "\t",
        "\u{a0}",
        "\0",
        "\u{200d}",
        "\u{fffd}",
        ".",
        "[",
        "[CLS]",
        "[SE",
        "P]",
        "#",
        "##",
        "_",
        "$",
        "७",
        "ก",
        "ำ",
        "א",
        "ִ",
        "🙂",
        "\u{1f3fd}",
        "x",
        "1",
        "\u{10ffff}",
    ];
    let mut pairs = variants();
    let mut state = 1u64;
    let mut next = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    };
    for turn in 0..40_000 {
        let n_kinds = 1 + next(12);
        let kinds: Vec<&str> = (0..n_kinds).map(|_| fragments[next(fragments.len())]).collect();
        let text: String = (0..=next(40)).map(|_| kinds[next(n_kinds)]).collect();
        let n_pairs = pairs.len();
        pairs[turn % n_pairs].check(&text);
    }
}

#[test]
fn other_pipelines_are_left_to_the_crate() {
    let json = br#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
        "pre_tokenizer":{"type":"Whitespace"},"post_processor":null,"decoder":null,
        "model":{"type":"WordLevel","vocab":{"a":0,"b":1,"?":2},"unk_token":"?"}}"#;
    let tokenizer = Tokenizer::from_json(json, Options { max_tokens: 3, add_special_tokens: true }).unwrap();
    assert_eq!(tokenizer.fallback_reason(), Some("no normalizer"));
    assert_eq!((tokenizer.n_token_ids(), tokenizer.unknown_id()), (3, Some(2)));
    let mut ids = Vec::new();
    tokenizer.encode("b c a a a", &mut Scratch::default(), &mut ids);
    assert_eq!(ids, [1, 2, 0]);
}

#[test]
fn broken_files_are_refused_in_one_line() {
    for json in [&b"{"[..], b"[]", b"{\"model\":{}}", b"{\"model\":{\"type\":\"WordPiece\",\"vocab\":7}}"] {
        let error = Tokenizer::from_json(json, Options { max_tokens: 8, add_special_tokens: true }).unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with("not a tokenizer: ") && !message.contains('\n'), "{message}");
    }
}

#[test]
fn a_file_on_which_the_crate_panics_is_refused() {
    let json = br#"{"version":"1.0","added_tokens":[],"normalizer":null,"pre_tokenizer":null,"decoder":null,
        "post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"x","type_id":0}},
        {"Sequence":{"id":"A","type_id":0}}],"pair":[],"special_tokens":{}},
        "model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}}"#;
    let error = Tokenizer::from_json(json, Options { max_tokens: 3, add_special_tokens: true }).unwrap_err();
    assert_eq!(error.to_string(), "not a tokenizer: the tokenizers crate fails on it");
}

#[test]
fn a_template_with_the_text_twice_gives_no_more_ids_than_asked() {
    let json =
        br#"{"version":"1.0","added_tokens":[],"normalizer":null,"pre_tokenizer":{"type":"Whitespace"},"decoder":null,
        "post_processor":{"type":"TemplateProcessing","single":[{"Sequence":{"id":"A","type_id":0}},
        {"Sequence":{"id":"A","type_id":0}}],"pair":[],"special_tokens":{}},
        "model":{"type":"WordLevel","vocab":{"a":0},"unk_token":"a"}}"#;
    let tokenizer = Tokenizer::from_json(json, Options { max_tokens: 3, add_special_tokens: true }).unwrap();
    let mut ids = Vec::new();
    tokenizer.encode("a a a a a", &mut Scratch::default(), &mut ids);
    assert_eq!(ids, [0, 0, 0]);
}

#[test]
fn words_of_no_characters_are_left_to_the_crate() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/static-256/tokenizer.json");
    let mut file: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    file["model"]["max_input_chars_per_word"] = 0.into();
    let json = serde_json::to_vec(&file).unwrap();
    let tokenizer = Tokenizer::from_json(&json, Options { max_tokens: 8, add_special_tokens: true }).unwrap();
    assert_eq!(tokenizer.fallback_reason(), Some("max_input_chars_per_word 0"));
}
