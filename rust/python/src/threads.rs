//! Work in parts over threads.

use std::sync::{Mutex, PoisonError};

/// Does every part of the work, on up to `threads` threads that take the next part when they are done with one, so that
/// a slow core does not hold up the others. Each thread has a state of its own.
pub fn in_parts<P: Send, S>(
    parts: impl ExactSizeIterator<Item = P> + Send,
    threads: usize,
    state: impl Fn() -> S + Sync,
    work: impl Fn(&mut S, P) + Sync,
) {
    let n_threads = threads.min(parts.len()).max(1);
    let parts = Mutex::new(parts);
    let take_turns = || {
        let mut state = state();
        loop {
            let part = parts.lock().unwrap_or_else(PoisonError::into_inner).next();
            let Some(part) = part else { return };
            work(&mut state, part);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..n_threads {
            scope.spawn(take_turns);
        }
        take_turns();
    });
}
