//! Inputs that failed a fuzz target once; see `rust/fuzz`.

#![expect(clippy::expect_used, clippy::panic, reason = "a test")]

#[path = "../../fuzz/src/feed.rs"]
#[expect(dead_code, reason = "what other crates need of it")]
mod feed;
#[path = "../../fuzz/src/findings.rs"]
mod findings;
#[path = "../../fuzz/src/made.rs"]
#[expect(dead_code, reason = "what other crates need of it")]
mod made;
#[path = "../../fuzz/src/made_onnx.rs"]
mod made_onnx;
#[path = "../../fuzz/src/onnx.rs"]
mod onnx;
#[path = "../../fuzz/src/surface.rs"]
mod surface;
#[path = "../../fuzz/src/table.rs"]
mod table;
#[path = "../../fuzz/src/tokenizer.rs"]
mod tokenizer;
#[path = "../../fuzz/src/tokenizer_file.rs"]
mod tokenizer_file;

#[test]
fn past_findings_do_not_fail() {
    findings::replay("onnx", onnx::run);
    findings::replay("surface", surface::run);
    findings::replay("table", table::run);
    findings::replay("tokenizer", tokenizer::run);
    findings::replay("tokenizer_file", tokenizer_file::run);
}
