//! Inputs that failed a fuzz target once; see `rust/fuzz`.

#![expect(clippy::expect_used, clippy::panic, reason = "a test")]

#[path = "../../fuzz/src/artifact.rs"]
mod artifact;
#[path = "../../fuzz/src/feed.rs"]
#[expect(dead_code, reason = "what other crates need of it")]
mod feed;
#[path = "../../fuzz/src/findings.rs"]
mod findings;
#[path = "../../fuzz/src/kernel.rs"]
#[expect(
    clippy::manual_is_multiple_of,
    clippy::needless_for_each,
    clippy::type_complexity,
    reason = "a fuzz target, short rather than by the book"
)]
mod kernel;
#[path = "../../fuzz/src/made.rs"]
mod made;

#[test]
fn past_findings_do_not_fail() {
    findings::replay("artifact", artifact::run);
    findings::replay("kernel", kernel::run);
}
