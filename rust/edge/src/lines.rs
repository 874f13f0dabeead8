//! Lines of a stream, one after another in one buffer; a line that is too long is skipped and told.

use std::io::Read;

/// No line is longer; longer ones are skipped.
pub const MAX_LINE_BYTES: usize = 16 << 20;
const FIRST_BUFFER_BYTES: usize = 1 << 16;

/// What was read.
pub enum Line<'a> {
    /// A line without its line break.
    Whole(&'a [u8]),
    /// A line of more bytes than [`MAX_LINE_BYTES`], which is gone.
    TooLong,
    /// There is none any more.
    End,
}

/// Reads lines of a stream.
pub struct Lines<R> {
    stream: R,
    buffer: Vec<u8>,
    /// What is read and not yet handed out.
    start: usize,
    end: usize,
    /// The rest of a line that was too long is still to come.
    skipping: bool,
    is_over: bool,
}

impl<R: Read> Lines<R> {
    pub fn new(stream: R) -> Self {
        Self { stream, buffer: vec![0; FIRST_BUFFER_BYTES], start: 0, end: 0, skipping: false, is_over: false }
    }

    /// Whether a whole line lies in the buffer, so that the next call waits for nobody.
    pub fn has_line(&self) -> bool {
        self.is_over || self.buffer[self.start..self.end].contains(&b'\n')
    }

    /// The next line.
    pub fn next(&mut self) -> std::io::Result<Line<'_>> {
        let mut searched = self.start;
        loop {
            if let Some(length) = self.buffer[searched..self.end].iter().position(|&byte| byte == b'\n') {
                let line = self.start..searched + length;
                self.start = line.end + 1;
                if std::mem::take(&mut self.skipping) {
                    return Ok(Line::TooLong);
                }
                return Ok(Line::Whole(without_returns(&self.buffer[line])));
            }
            if self.is_over {
                let line = self.start..self.end;
                self.start = self.end;
                return Ok(if std::mem::take(&mut self.skipping) {
                    Line::TooLong
                } else if line.is_empty() {
                    Line::End
                } else {
                    Line::Whole(without_returns(&self.buffer[line]))
                });
            }
            if self.end - self.start > MAX_LINE_BYTES {
                self.skipping = true;
            }
            if self.skipping {
                (self.start, self.end) = (0, 0);
            }
            self.make_room();
            searched = self.end;
            match self.stream.read(&mut self.buffer[self.end..]) {
                Ok(0) => self.is_over = true,
                Ok(n) => self.end += n,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Moves what is left to the front, and grows the buffer where it is full.
    fn make_room(&mut self) {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        }
        if self.end == self.buffer.len() {
            self.buffer.resize(2 * self.buffer.len(), 0);
        }
    }
}

fn without_returns(line: &[u8]) -> &[u8] {
    let length = line.iter().rposition(|&byte| byte != b'\r').map_or(0, |last| last + 1);
    &line[..length]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Gives a few bytes at a time, as a pipe may.
    struct Drops<'a>(&'a [u8], usize);

    impl Read for Drops<'_> {
        fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
            let n = self.0.len().min(self.1).min(into.len());
            into[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    fn all(bytes: &[u8], drop: usize) -> Vec<Option<Vec<u8>>> {
        let (mut lines, mut found) = (Lines::new(Drops(bytes, drop)), Vec::new());
        loop {
            match lines.next().expect("memory") {
                Line::Whole(line) => found.push(Some(line.to_vec())),
                Line::TooLong => found.push(None),
                Line::End => return found,
            }
        }
    }

    #[test]
    fn lines_are_the_same_however_the_bytes_come() {
        let wanted: Vec<Option<Vec<u8>>> =
            [&b"one"[..], b"", b"two", b"last"].iter().map(|line| Some(line.to_vec())).collect();
        for drop in [1, 2, 3, 100] {
            assert_eq!(all(b"one\n\ntwo\r\r\nlast", drop), wanted);
            assert_eq!(all(b"one\n\ntwo\r\nlast\n", drop), wanted);
        }
        assert!(all(b"", 1).is_empty());
    }

    #[test]
    fn a_line_that_is_too_long_is_told_once_and_the_next_is_read() {
        let mut bytes = vec![b'x'; MAX_LINE_BYTES + (1 << 20)];
        bytes.extend(b"\nshort\n");
        assert_eq!(all(&bytes, 1 << 16), [None, Some(b"short".to_vec())]);
        bytes.truncate(MAX_LINE_BYTES + (1 << 19));
        assert_eq!(all(&bytes, 1 << 16), [None]);
    }
}
