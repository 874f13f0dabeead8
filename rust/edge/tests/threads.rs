//! One engine decides on many threads at a time as on one; under `ThreadSanitizer` this is the test for races.

#![expect(clippy::expect_used, reason = "a test")]

use std::sync::Barrier;
use std::thread;

use centroute::request::policy_from_json;
use centroute::{Buffers, Engine, decision_json};

#[path = "../../fuzz/src/feed.rs"]
#[expect(dead_code, reason = "what the made-up bundle needs of it")]
mod feed;
#[path = "../../fuzz/src/made.rs"]
#[expect(dead_code, reason = "what the made-up bundle needs of it")]
mod made;
#[path = "../../fuzz/src/made_bundle.rs"]
#[expect(dead_code, reason = "a bundle, and no tar file")]
mod made_bundle;
#[path = "../../fuzz/src/made_onnx.rs"]
mod made_onnx;

const N_THREADS: usize = 16;

fn decide_all(engine: &Engine, first: usize) -> Vec<Vec<u8>> {
    let policies = [r#"{"alpha": 0.5, "deny": ["a, b"]}"#, r#"{"allow": ["small"]}"#, "{}"];
    let mut buffers = Buffers::default();
    (0..600)
        .map(|turn| {
            // Every thread begins with other pages of characters, so that several are made at a time.
            let page = (turn + 37 * first) % 600;
            let letter = char::from_u32(page as u32 * 256 + 65).unwrap_or('x');
            let text = format!("the river {letter}a b{letter}");
            let spec = policy_from_json(policies[page % policies.len()]).expect("a policy");
            let policy = engine.compile(&spec).expect("a policy of this pool");
            let mut json = vec![page as u8, (page >> 8) as u8];
            decision_json::write(&engine.decide(&text, &policy, &mut buffers).expect("a text"), &mut json);
            json
        })
        .collect()
}

#[test]
fn many_threads_decide_as_one() {
    let folder = made_bundle::scratch_folder("threads");
    made_bundle::write(&folder, &made_bundle::Parts::sound(true).files()).expect("a folder in memory");
    let open = || Engine::open(&folder).expect("a sound bundle");
    let mut wanted = decide_all(&open(), 0);
    wanted.sort();
    // Nothing of it is made yet when the threads start.
    let engine = open();
    std::fs::remove_dir_all(&folder).expect("its own folder");
    let barrier = Barrier::new(N_THREADS);
    thread::scope(|scope| {
        let start = |first| {
            let (engine, barrier) = (&engine, &barrier);
            scope.spawn(move || {
                barrier.wait();
                decide_all(engine, first)
            })
        };
        let threads: Vec<_> = (0..N_THREADS).map(start).collect();
        for thread in threads {
            let mut got = thread.join().expect("a thread that ends");
            got.sort();
            assert_eq!(got, wanted);
        }
    });
}
