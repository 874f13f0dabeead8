//! `centroute-edge route`.

use std::io::Write;
use std::os::unix::ffi::OsStrExt as _;

use centroute::request::{PolicyCache, Request, text_of_line};
use centroute::{Buffers, Engine, Error, decision_json};
use centroute_core::Policy;

use crate::arguments::RouteOptions;
use crate::lines::{Line, Lines, MAX_LINE_BYTES};
use crate::{Fault, complain};

/// Bytes of answers that are kept before they are written.
const OUTPUT_BYTES: usize = 1 << 16;

/// Routes the texts, or the lines of standard input; one at fault is told, and the rest go on.
pub fn run(options: &RouteOptions) -> Result<bool, Fault> {
    let engine = Engine::open(&options.bundle)?;
    let policy = engine.compile(&options.policy.spec(&engine))?;
    let mut answers = Answers::new(&engine, &policy);
    if options.texts.is_empty() {
        let mut lines = Lines::new(std::io::stdin().lock());
        let mut number = 0;
        loop {
            // Whoever waits for an answer gets it before the next question is waited for.
            if !lines.has_line() {
                answers.flush()?;
            }
            number += 1;
            match lines.next()? {
                Line::Whole(line) if options.jsonl => answers.request(line, number)?,
                Line::Whole(line) => answers.text(&text_of_line(line), "stdin line", number)?,
                Line::TooLong => {
                    let error = Error::data(format!("has more than {MAX_LINE_BYTES} bytes"));
                    answers.fault(&error, "stdin line", number)?;
                }
                Line::End => break,
            }
        }
    }
    for (place, text) in options.texts.iter().enumerate() {
        answers.text(&text_of_line(text.as_bytes()), "text", place + 1)?;
    }
    answers.flush()?;
    Ok(answers.n_faults == 0)
}

/// Decides and writes, one line a query.
struct Answers<'a> {
    engine: &'a Engine,
    policy: &'a Policy,
    own_policies: PolicyCache,
    buffers: Buffers,
    output: Vec<u8>,
    n_faults: usize,
}

impl<'a> Answers<'a> {
    fn new(engine: &'a Engine, policy: &'a Policy) -> Self {
        Self {
            engine,
            policy,
            own_policies: PolicyCache::default(),
            buffers: Buffers::default(),
            output: Vec::with_capacity(2 * OUTPUT_BYTES),
            n_faults: 0,
        }
    }

    fn text(&mut self, text: &str, place: &str, number: usize) -> Result<(), Fault> {
        match self.engine.decide(text, self.policy, &mut self.buffers) {
            Ok(decision) => decision_json::write(&decision, &mut self.output),
            Err(error) => return self.fault(&error, place, number),
        }
        self.end_line()
    }

    /// A line of JSON; its policy takes the place of the flags.
    fn request(&mut self, line: &[u8], number: usize) -> Result<(), Fault> {
        let Self { engine, own_policies, buffers, output, .. } = self;
        let answered = Request::from_line(line).and_then(|Request { query, policy, .. }| {
            let query = query.ok_or_else(|| Error::data("has no query"))?;
            let policy = match policy {
                Some(spec) => own_policies.get(spec, engine)?,
                None => self.policy,
            };
            decision_json::write(&engine.decide(&query.0, policy, buffers)?, output);
            Ok(())
        });
        match answered {
            Ok(()) => self.end_line(),
            Err(error) => self.fault(&error, "stdin line", number),
        }
    }

    fn fault(&mut self, error: &Error, place: &str, number: usize) -> Result<(), Fault> {
        self.n_faults += 1;
        let message = format!("{place} {number} {error}");
        complain(&message);
        decision_json::write_error(&message, &mut self.output);
        self.end_line()
    }

    fn end_line(&mut self) -> Result<(), Fault> {
        self.output.push(b'\n');
        if self.output.len() >= OUTPUT_BYTES { self.flush() } else { Ok(()) }
    }

    fn flush(&mut self) -> Result<(), Fault> {
        if self.output.is_empty() {
            return Ok(());
        }
        let mut stdout = std::io::stdout().lock();
        stdout.write_all(&self.output)?;
        stdout.flush()?;
        self.output.clear();
        Ok(())
    }
}
