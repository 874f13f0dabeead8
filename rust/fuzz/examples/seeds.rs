//! Writes the seeds that the targets start from: `cargo run --example seeds`.

use std::fs;
use std::path::Path;

use centroute_fuzz::made;
use centroute_fuzz::made_bundle::{Parts, tar, tokenizer};
use centroute_fuzz::made_onnx::Graph;

fn main() -> std::io::Result<()> {
    let metadata = [made::metadata(4, false).to_string(), made::metadata(16, true).to_string()];
    let router =
        |precision: &str| made::sealed(made::container(Some(&metadata[0]), &made::tensors(5, 3, 4, precision)));
    let graph = Graph::new(&[3; 64], 16, 0.25).to_bytes();
    let files = || Parts::sound(true).files();
    let pieces = "the\nriver\na\n##a\n##b\n##river\n.\né\n漢\n##\u{301}\n\u{e9}a\n##ing";
    let policies = [
        r#"{"alpha": 0.3, "allow": ["small", "large"]}"#,
        r#"{"willingness_to_pay": 0.01, "deny": ["a, b"], "require": ["tools", "context>=8000"]}"#,
        r#"{"max_mean_cost": 0.005, "deny": ["a, b"], "fallback": "small"}"#,
        r#"{"min_quality": 0.5, "max_cost": 1e-2, "allow": null}"#,
    ];
    let texts = [
        "[CLS] is [CLSs] [[CLS]] caf\u{e9} cafe\u{301} ﬁ ½ ß İ I\u{307} \u{344} a\u{1d165}\u{1d16d}",
        "漢字かな交じり文 \u{f900}\u{2f800}x\u{301} 한국어 हिन्दी ไทย a\0b\u{fffd}c\u{200b}d\u{ad}e 👩‍👩‍👧 unaffable",
        "def f(x): return x + 1  # $5? 12%\n\tclass A: None\n",
    ];
    let request = br#"{"query": "the r\u00efver \ud800", "policy": {"alpha": 0.5, "deny": ["a, b"]}}"#;

    for (place, precision) in ["F32", "F16", "I8"].iter().enumerate() {
        seed("artifact", &format!("file-{precision}"), &[&[0], &router(precision)])?;
        let numbers = [vec![0, 5 + place as u8, 0, place as u8], vec![0; 12]].concat();
        for (kind, metadata) in metadata.iter().enumerate() {
            seed("artifact", &format!("metadata-{kind}-{precision}"), &[&[1], metadata.as_bytes(), &numbers])?;
        }
    }
    for (place, policy) in policies.iter().enumerate() {
        seed("policy", &place.to_string(), &[&[place as u8, 0, 3], policy.as_bytes()])?;
        let line = format!("{{\"query\": \"the river\", \"policy\": {policy}}}\n");
        seed("lines", &format!("policy-{place}"), &[&[9], line.as_bytes()])?;
        seed("serve", &format!("policy-{place}"), &[&[1], line.as_bytes()])?;
        let mut calls = [&[0, 0, 0, 0], &[1, 0, 0][..], policy.as_bytes(), b"\0"].concat();
        calls.extend_from_slice(b"\x02\0\0the river\0\x04\0\0a river.\0\xff\x04\x06\0\0\0");
        seed("c_library", &format!("policy-{place}"), &[&calls])?;
    }
    seed("lines", "request", &[&[3], request, b"\r\n\nplain text \xff\xed\xa0\x80\n{\"ping\": true}"])?;
    seed("serve", "request", &[&[0], request, b"\n{\"ping\": true}\n[]\n\n"])?;
    for (place, text) in texts.iter().enumerate() {
        seed("surface", &place.to_string(), &[&[0, 0], text.as_bytes()])?;
        for kind in 0..8 {
            seed("tokenizer", &format!("{place}-{kind}"), &[&[kind], text.as_bytes()])?;
        }
        seed(
            "tokenizer_file",
            &format!("built-{place}"),
            &[&[1, 0x18, 0x84, 0], pieces.as_bytes(), b"\0", text.as_bytes(), b"\0"],
        )?;
    }
    seed("tokenizer_file", "file", &[&[0], tokenizer().to_string().as_bytes()])?;
    for (name, kind) in OTHER_TOKENIZERS {
        seed("tokenizer_file", name, &[&[0], kind.as_bytes()])?;
    }
    seed("onnx", "file", &[&[0], &graph])?;
    seed("onnx", "built", &[&[1, 3, 0, 4, 0], b"0123456789abcdef", &[0, 0, 128, 63, 0, 0, 0, 0]])?;
    seed("table", "built", &[&[1, 0, 2, 0, 3, 4], &[63; 60], &[1, 0, 4, 1, 0, 3], &[1; 40]])?;
    seed("tar", "raw", &[&[0], &tar(&files()[..1])])?;
    seed("tar", "sealed", &[&[1], &tar(&[("manifest.json", b"{}".to_vec()), ("router.safetensors", vec![])])])?;
    for as_tar in 0..2 {
        let name = |part: &str| format!("{part}-{as_tar}");
        let manifest = br#"{"files": {"embedder/model.onnx": {"bytes": 1, "sha256": "00"}}, "format_version": 1}"#;
        seed("bundle", &name("manifest"), &[&[0, as_tar], manifest])?;
        let description = br#"{"max_tokens": 3, "prefix": "a", "pooling": "mean", "dim": 4}"#;
        seed("bundle", &name("description"), &[&[1, as_tar], description, b"\0the river"])?;
        seed("bundle", &name("router"), &[&[2, as_tar], metadata[0].as_bytes(), &[0; 20]])?;
        seed("bundle", &name("model"), &[&[3, as_tar], &Graph::new(&[3; 48], 4, 0.25).to_bytes()])?;
        seed("bundle", &name("tokenizer"), &[&[4, as_tar], tokenizer().to_string().as_bytes()])?;
        seed("bundle", &name("files"), &[&[5, as_tar], b"the river\0", &[1, 0, 2, 0, 3, 9, 0, 1]])?;
    }
    for place in 0..4u8 {
        let bytes: Vec<u8> = (0..80).map(|step: u8| step.wrapping_mul(37 + 2 * place).wrapping_add(place)).collect();
        seed("kernel", &place.to_string(), &[&bytes])?;
    }
    Ok(())
}

fn seed(target: &str, name: &str, parts: &[&[u8]]) -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(target);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join(name), parts.concat())
}

/// Files that are left to the `tokenizers` crate.
const OTHER_TOKENIZERS: [(&str, &str); 4] = [
    (
        "words",
        r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":null,
"pre_tokenizer":{"type":"Whitespace"},"post_processor":null,"decoder":null,
"model":{"type":"WordLevel","vocab":{"a":0,"b":1,"?":2},"unk_token":"?"}}"#,
    ),
    (
        "pairs",
        r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],
"normalizer":{"type":"Sequence","normalizers":[{"type":"NFC"},{"type":"Lowercase"}]},
"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"trim_offsets":true,"use_regex":true},
"post_processor":{"type":"ByteLevel","add_prefix_space":true,"trim_offsets":false,"use_regex":true},"decoder":null,
"model":{"type":"BPE","dropout":null,"unk_token":null,"continuing_subword_prefix":"","end_of_word_suffix":"",
"fuse_unk":false,"byte_fallback":false,"vocab":{"a":0,"b":1,"ab":2},"merges":["a b"]}}"#,
    ),
    (
        "unigram",
        r#"{"version":"1.0","truncation":null,"padding":null,"added_tokens":[],"normalizer":{"type":"NFKC"},
"pre_tokenizer":{"type":"Metaspace","replacement":"▁","prepend_scheme":"always","split":true},
"post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>","type_id":0}},{"Sequence":
{"id":"A","type_id":0}}],"pair":[{"Sequence":{"id":"A","type_id":0}},{"Sequence":{"id":"B","type_id":1}}],
"special_tokens":{"<s>":{"id":"<s>","ids":[0],"tokens":["<s>"]}}},"decoder":null,
"model":{"type":"Unigram","unk_id":0,"byte_fallback":false,"vocab":[["<s>",0.0],["▁a",-1.5],["b",-2.0]]}}"#,
    ),
    (
        "split",
        r#"{"version":"1.0","added_tokens":[{"id":3,"content":"<x>","special":true,"single_word":true,"lstrip":true,
"rstrip":true,"normalized":true}],"normalizer":{"type":"Replace","pattern":{"Regex":"a+"},"content":"b"},
"pre_tokenizer":{"type":"Split","pattern":{"Regex":"\\p{L}+|\\s"},"behavior":"Isolated","invert":false},
"model":{"type":"WordPiece","unk_token":"?","continuing_subword_prefix":"@","max_input_chars_per_word":9,
"vocab":{"a":0,"b":1,"?":2}}}"#,
    ),
];
