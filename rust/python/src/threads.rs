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

/// The fault of the lowest row, whichever thread meets it first.
pub struct FirstFault<E>(Mutex<Option<(usize, E)>>);

impl<E> FirstFault<E> {
    /// None so far.
    pub fn new() -> Self {
        Self(Mutex::new(None))
    }

    /// Keeps a fault unless one of a lower row is known.
    pub fn keep(&self, row: usize, fault: E) {
        let mut first = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if first.as_ref().is_none_or(|(other, _)| row < *other) {
            *first = Some((row, fault));
        }
    }

    /// What there was to keep.
    pub fn into_result(self) -> Result<(), E> {
        match self.0.into_inner().unwrap_or_else(PoisonError::into_inner) {
            Some((_, fault)) => Err(fault),
            None => Ok(()),
        }
    }
}
