//! Lines are the same however the bytes come, and a line of JSON is refused in one line or decided.

use std::io::Read;
use std::sync::OnceLock;

use centroute::request::{PolicyCache, Request, text_of_line};
use centroute::{Buffers, Engine, Error, decision_json};

use crate::feed::{Feed, check_message};
use crate::made_bundle::{Parts, scratch_folder, write};

#[path = "../../edge/src/lines.rs"]
#[allow(dead_code, unreachable_pub, clippy::missing_docs_in_private_items, reason = "a module of the command")]
mod stream;

use stream::{Line, Lines};

pub fn run(data: &[u8]) {
    let mut feed = Feed(data);
    let n_at_a_time = 1 + usize::from(feed.byte());
    let mut wanted: Vec<&[u8]> = feed.0.split(|&byte| byte == b'\n').collect();
    // What follows the last line break is a line where it holds something.
    if wanted.last().is_some_and(|last| last.is_empty()) {
        wanted.pop();
    }
    let mut lines = Lines::new(Few(feed.0, n_at_a_time));
    let (mut buffers, mut policies) = (Buffers::default(), PolicyCache::default());
    for wanted in wanted {
        lines.has_line();
        match lines.next() {
            Ok(Line::Whole(line)) => {
                let length = wanted.iter().rposition(|&byte| byte != b'\r').map_or(0, |last| last + 1);
                assert_eq!(line, &wanted[..length]);
                if let Err(error) = answer(line, &mut policies, &mut buffers) {
                    check_message(&error);
                }
            }
            _ => panic!("a line is missing"),
        }
    }
    assert!(matches!(lines.next(), Ok(Line::End)));
}

/// Decides a line as text and as JSON.
fn answer(line: &[u8], policies: &mut PolicyCache, buffers: &mut Buffers) -> Result<(), Error> {
    let text = text_of_line(line);
    assert_eq!(text.contains('\u{fffd}'), String::from_utf8_lossy(line).contains('\u{fffd}'));
    let mut json = Vec::new();
    match engine().decide(&text, engine().default_policy(), buffers) {
        Ok(decision) => decision_json::write(&decision, &mut json),
        Err(error) => decision_json::write_error(&error.message, &mut json),
    }
    check_json(&json);
    json.clear();
    let Request { query, policy, .. } = Request::from_line(line)?;
    let query = query.ok_or_else(|| Error::data("has no query"))?;
    let policy = policies.get(policy.unwrap_or_default(), engine())?;
    decision_json::write(&engine().decide(&query.0, policy, buffers)?, &mut json);
    check_json(&json);
    Ok(())
}

/// Panics unless an answer is one line of one JSON object.
pub fn check_json(json: &[u8]) {
    assert!(!json.contains(&b'\n'));
    let read: serde_json::Value = serde_json::from_slice(json).expect("an answer is JSON");
    assert!(read.is_object(), "{read}");
}

/// The made-up bundle, opened once.
pub fn engine() -> &'static Engine {
    static ENGINE: OnceLock<Engine> = OnceLock::new();
    ENGINE.get_or_init(|| {
        let folder = scratch_folder("lines");
        write(&folder, &Parts::sound(true).files()).expect("a folder in memory");
        let engine = Engine::open(&folder).expect("a sound bundle");
        std::fs::remove_dir_all(folder).expect("its own folder");
        engine
    })
}

/// Gives a few bytes at a time, as a pipe may.
struct Few<'a>(&'a [u8], usize);

impl Read for Few<'_> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let n = self.0.len().min(self.1).min(into.len());
        into[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Ok(n)
    }
}
