//! The bytes of an input, taken from the front; where there are none left, zeros.

/// What is left of an input.
pub struct Feed<'a>(pub &'a [u8]);

impl<'a> Feed<'a> {
    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        let Some((&first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        first
    }

    /// A number from two bytes, below `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        usize::from(u16::from_le_bytes([self.byte(), self.byte()])) % limit.max(1)
    }

    /// Four bytes as a number of any kind: NaN and infinity too.
    pub fn float(&mut self) -> f32 {
        f32::from_le_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// One of a few.
    pub fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::from(self.byte()) % of.len()]
    }

    /// The bytes up to the next one of `end`, which is passed over.
    pub fn until(&mut self, end: u8) -> &'a [u8] {
        let length = self.0.iter().position(|&byte| byte == end).unwrap_or(self.0.len());
        let taken = &self.0[..length];
        self.0 = self.0.get(length + 1..).unwrap_or_default();
        taken
    }

    /// At most `n` bytes.
    pub fn take(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// Panics unless an error of the inner crates says something; the bindings make one line of it.
pub fn check_refusal(message: &dyn std::fmt::Display) {
    assert!(!message.to_string().is_empty());
}

/// Lets panics of the `tokenizers` crate, and of those that it calls, unwind to where they are caught.
pub fn let_through_panics_of_tokenizers() {
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let aborting = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let file = panic.location().map_or("", |location| location.file());
            if !["/tokenizers-", "/spm_precompiled-", "/fancy-regex-"].iter().any(|name| file.contains(name)) {
                aborting(panic);
            }
        }));
    });
}

/// Panics unless a message is what is promised of every message: one line that says something.
pub fn check_message(message: &dyn std::fmt::Display) {
    let message = message.to_string();
    assert!(!message.is_empty() && !message.chars().any(char::is_control), "not one line: {message:?}");
}
