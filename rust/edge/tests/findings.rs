//! Inputs that failed a fuzz target once; see `rust/fuzz`.

#![expect(clippy::expect_used, clippy::panic, clippy::naive_bytecount, reason = "a test")]

#[path = "../src/arguments.rs"]
#[expect(dead_code, reason = "a module of the command, most of which is not needed here")]
mod arguments;
#[path = "../../fuzz/src/artifact.rs"]
#[expect(dead_code, reason = "replayed in the core")]
mod artifact;
#[path = "../../fuzz/src/bundle.rs"]
mod bundle;
#[path = "../../fuzz/src/c_library.rs"]
mod c_library;
#[path = "../../fuzz/src/feed.rs"]
mod feed;
#[path = "../../fuzz/src/findings.rs"]
mod findings;
#[path = "../../fuzz/src/lines.rs"]
#[expect(clippy::allow_attributes, reason = "what the command's module has unused depends on who takes it in")]
mod lines;
#[path = "../../fuzz/src/made.rs"]
mod made;
#[path = "../../fuzz/src/made_bundle.rs"]
mod made_bundle;
#[path = "../../fuzz/src/made_onnx.rs"]
mod made_onnx;
#[path = "../../fuzz/src/policy.rs"]
mod policy;
#[path = "../../fuzz/src/serve.rs"]
mod serve;
#[path = "../../fuzz/src/tar.rs"]
mod tar;

use serve::{Fault, complain};

#[test]
fn past_findings_do_not_fail() {
    findings::replay("bundle", bundle::run);
    findings::replay("c_library", c_library::run);
    findings::replay("lines", lines::run);
    findings::replay("policy", policy::run);
    findings::replay("serve", serve::run);
    findings::replay("tar", tar::run);
}
