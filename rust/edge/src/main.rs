//! `centroute-edge`: routes with a bundle where no Python runs. Exit codes: 0 done, 1 the data or request is at fault,
//! 2 wrong usage.

mod arguments;
mod bench;
mod inspect;
mod lines;
mod route;
mod serve;

use std::io::Write as _;
use std::process::ExitCode;

use arguments::{Command, HELP, Stop};

fn main() -> ExitCode {
    let command = match arguments::parse() {
        Ok(command) => command,
        Err(Stop::Help) => {
            return finish(std::io::stdout().write_all(HELP.as_bytes()).map(|()| true).map_err(Into::into));
        }
        Err(Stop::Version) => {
            let line = concat!("centroute-edge ", env!("CARGO_PKG_VERSION"), "\n");
            return finish(std::io::stdout().write_all(line.as_bytes()).map(|()| true).map_err(Into::into));
        }
        Err(Stop::Usage(what)) => {
            complain(&format!("{what}; see centroute-edge --help"));
            return ExitCode::from(2);
        }
    };
    finish(match command {
        Command::Route(options) => route::run(&options),
        Command::Inspect(options) => inspect::run(&options),
        Command::Bench(options) => bench::run(&options),
        Command::Serve(options) => serve::run(&options),
    })
}

/// Why a command ended early.
enum Fault {
    /// Told in one line.
    Told(String),
    /// The reader of our output went away, as `head` does.
    NobodyReads,
}

impl From<centroute::Error> for Fault {
    fn from(error: centroute::Error) -> Self {
        Self::Told(error.message)
    }
}

impl From<std::io::Error> for Fault {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe { Self::NobodyReads } else { Self::Told(error.to_string()) }
    }
}

/// Whether all went well, as an exit code.
fn finish(result: Result<bool, Fault>) -> ExitCode {
    match result {
        Ok(true) => return ExitCode::SUCCESS,
        Ok(false) | Err(Fault::NobodyReads) => {}
        Err(Fault::Told(message)) => complain(&message),
    }
    ExitCode::FAILURE
}

/// One line on standard error.
fn complain(message: &str) {
    let line = message.split_whitespace().collect::<Vec<_>>().join(" ");
    // Nobody is left to tell if this fails.
    let _ = writeln!(std::io::stderr(), "centroute-edge: {line}");
}
