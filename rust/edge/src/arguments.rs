//! The command line. Flags have the names and meanings of the Python command `centroute`.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use centroute::Engine;
use centroute_core::PolicySpec;
use lexopt::Arg::{Long, Short, Value};
use lexopt::{Parser, ValueExt as _};

pub const HELP: &str = "\
The right language model for each query, without Python.

Usage: centroute-edge route BUNDLE [TEXT...] [--jsonl] [policy flags]
       centroute-edge inspect BUNDLE [--json]
       centroute-edge bench BUNDLE [FILE] [--seconds S] [--jsonl] [--json] [policy flags]
       centroute-edge serve BUNDLE --unix PATH | --tcp ADDRESS:PORT [options] [policy flags]

BUNDLE is a folder or tar file as `centroute export` writes it.

route: one JSON object a query; queries are the TEXTs, or the lines of standard input.
  --jsonl                   lines are JSON: {\"query\": TEXT, \"policy\": {...}}

bench: texts are the lines of FILE, or a few that are built in.
  --seconds S               how long single decisions are timed (default 2)

serve: a line of JSON in, a line of JSON out: {\"query\": TEXT, \"policy\": {...}} or {\"ping\": true}.
  --unix PATH               socket to make; only this user may connect
  --tcp ADDRESS:PORT        loopback address; port 0 takes a free one
  --max-connections N       more are turned away (default 64)
  --line-seconds S          a line must be whole this long after its first byte (default 10)
  --idle-seconds S          a client that says nothing this long is hung up on (default 600)
  --stop-with-stdin         end when standard input is closed, as with SIGTERM

Policy flags:
  --alpha A                 trade-off from 0 (cheapest) to 1 (quality only), as Avengers-Pro
  --willingness-to-pay W    USD that one right answer is worth
  --max-mean-cost B         mean cost a query to stay within, in USD
  --min-quality Q           take the cheapest model predicted at this quality or more
  --strong MODEL            with --weak MODEL and --strong-share S: of the two the strong one where it
                            gains most, for this share of the queries, from 0 to 1
  --max-cost C              exclude models predicted dearer than this, in USD
  --allow MODEL             only these models; repeat it, or use commas
  --deny MODEL              none of these models; repeat it, or use commas
  --require TAG             tag a model must have, or context>=N

-h, --help and --version print and end. Exit codes: 0 done, 1 data or request at fault, 2 wrong usage.
";

/// Why nothing is run.
pub enum Stop {
    Help,
    Version,
    Usage(String),
}

impl From<lexopt::Error> for Stop {
    fn from(error: lexopt::Error) -> Self {
        Self::Usage(error.to_string())
    }
}

pub enum Command {
    Route(RouteOptions),
    Inspect(InspectOptions),
    Bench(BenchOptions),
    Serve(ServeOptions),
}

pub struct RouteOptions {
    pub bundle: PathBuf,
    pub texts: Vec<OsString>,
    pub jsonl: bool,
    pub policy: PolicyFlags,
}

pub struct InspectOptions {
    pub bundle: PathBuf,
    pub json: bool,
}

pub struct BenchOptions {
    pub bundle: PathBuf,
    pub file: Option<PathBuf>,
    pub seconds: Duration,
    pub jsonl: bool,
    pub json: bool,
    pub policy: PolicyFlags,
}

/// Where to listen.
pub enum Place {
    Unix(PathBuf),
    Tcp(String),
}

pub struct ServeOptions {
    pub bundle: PathBuf,
    pub place: Place,
    pub max_connections: usize,
    pub line_time: Duration,
    pub idle_time: Duration,
    pub stop_with_stdin: bool,
    pub policy: PolicyFlags,
}

/// Policy flags as they are given: names may still be lists with commas.
#[derive(Default)]
pub struct PolicyFlags {
    spec: PolicySpec,
    allow: Vec<String>,
    deny: Vec<String>,
    require: Vec<String>,
}

impl PolicyFlags {
    /// The policy for a pool; a value that is itself the name of a model is not taken apart at its commas.
    pub fn spec(&self, engine: &Engine) -> PolicySpec {
        let known = |name: &str| engine.router().artifact().metadata.models.iter().any(|model| model.name == name);
        PolicySpec {
            allow: names(&self.allow, known),
            deny: names(&self.deny, known),
            require: names(&self.require, |_| false),
            ..self.spec.clone()
        }
    }
}

fn names(values: &[String], is_known: impl Fn(&str) -> bool) -> Option<BTreeSet<String>> {
    if values.is_empty() {
        return None;
    }
    let parts =
        values.iter().flat_map(|value| if is_known(value) { vec![value.as_str()] } else { value.split(',').collect() });
    Some(parts.map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

/// All that any command takes, before it is known what is missing or too much.
#[derive(Default)]
struct Given {
    values: Vec<OsString>,
    jsonl: bool,
    json: bool,
    seconds: Option<Duration>,
    unix: Option<PathBuf>,
    tcp: Option<String>,
    max_connections: Option<usize>,
    line_time: Option<Duration>,
    idle_time: Option<Duration>,
    stop_with_stdin: bool,
    policy: PolicyFlags,
}

/// Flags of each command beside `--help` and `--version`.
const ROUTE: &[&str] = &["jsonl"];
const INSPECT: &[&str] = &["json"];
const BENCH: &[&str] = &["jsonl", "json", "seconds"];
const SERVE: &[&str] = &["unix", "tcp", "max-connections", "line-seconds", "idle-seconds", "stop-with-stdin"];
const POLICY: &[&str] = &[
    "alpha",
    "willingness-to-pay",
    "max-mean-cost",
    "min-quality",
    "strong",
    "weak",
    "strong-share",
    "max-cost",
    "allow",
    "deny",
    "require",
];

/// Reads the arguments of this process.
pub fn parse() -> Result<Command, Stop> {
    let mut parser = Parser::from_env();
    let command = match parser.next()? {
        Some(Short('h') | Long("help")) => return Err(Stop::Help),
        Some(Long("version")) => return Err(Stop::Version),
        Some(Value(name)) => name.string()?,
        Some(other) => return Err(other.unexpected().into()),
        None => return Err(Stop::Usage("no command given".into())),
    };
    let (own, takes_policy) = match command.as_str() {
        "route" => (ROUTE, true),
        "inspect" => (INSPECT, false),
        "bench" => (BENCH, true),
        "serve" => (SERVE, true),
        _ => return Err(Stop::Usage(format!("no command {command:?}"))),
    };
    let mut given = read_flags(&mut parser, own, takes_policy)?;
    if given.values.is_empty() {
        return Err(Stop::Usage(format!("{command}: BUNDLE is missing")));
    }
    let bundle = PathBuf::from(given.values.remove(0));
    let most = match command.as_str() {
        "route" => usize::MAX,
        "bench" => 1,
        _ => 0,
    };
    if let Some(value) = given.values.get(most) {
        return Err(Stop::Usage(format!("{command}: unexpected argument {}", value.display())));
    }
    let Given { values, jsonl, json, policy, .. } = given;
    Ok(match command.as_str() {
        "route" if jsonl && !values.is_empty() => {
            return Err(Stop::Usage("route: --jsonl is for the lines of standard input, not for TEXTs".into()));
        }
        "route" => Command::Route(RouteOptions { bundle, texts: values, jsonl, policy }),
        "inspect" => Command::Inspect(InspectOptions { bundle, json }),
        "bench" => Command::Bench(BenchOptions {
            bundle,
            file: values.into_iter().next().map(PathBuf::from),
            seconds: given.seconds.unwrap_or(Duration::from_secs(2)),
            jsonl,
            json,
            policy,
        }),
        _ => Command::Serve(ServeOptions {
            bundle,
            place: match (given.unix, given.tcp) {
                (Some(path), None) => Place::Unix(path),
                (None, Some(address)) => Place::Tcp(address),
                _ => return Err(Stop::Usage("serve: wants one of --unix and --tcp".into())),
            },
            max_connections: given.max_connections.unwrap_or(64),
            line_time: given.line_time.unwrap_or(Duration::from_secs(10)),
            idle_time: given.idle_time.unwrap_or(Duration::from_secs(600)),
            stop_with_stdin: given.stop_with_stdin,
            policy,
        }),
    })
}

fn read_flags(parser: &mut Parser, own: &[&str], takes_policy: bool) -> Result<Given, Stop> {
    let mut given = Given::default();
    while let Some(argument) = parser.next()? {
        let name = match argument {
            Short('h') | Long("help") => return Err(Stop::Help),
            Long("version") => return Err(Stop::Version),
            Value(value) => {
                given.values.push(value);
                continue;
            }
            Long(name) if own.contains(&name) || (takes_policy && POLICY.contains(&name)) => name.to_owned(),
            other => return Err(other.unexpected().into()),
        };
        let policy = &mut given.policy;
        match name.as_str() {
            "jsonl" => given.jsonl = true,
            "json" => given.json = true,
            "stop-with-stdin" => given.stop_with_stdin = true,
            "unix" => given.unix = Some(parser.value()?.into()),
            "tcp" => given.tcp = Some(parser.value()?.string()?),
            "seconds" => given.seconds = Some(seconds(parser, &name)?),
            "line-seconds" => given.line_time = Some(seconds(parser, &name)?),
            "idle-seconds" => given.idle_time = Some(seconds(parser, &name)?),
            "max-connections" => {
                let count: usize = parser.value()?.parse()?;
                if !(1..=4096).contains(&count) {
                    return Err(Stop::Usage(format!("--max-connections {count}: wanted 1 to 4096")));
                }
                given.max_connections = Some(count);
            }
            "allow" => policy.allow.push(parser.value()?.string()?),
            "deny" => policy.deny.push(parser.value()?.string()?),
            "require" => policy.require.push(parser.value()?.string()?),
            "alpha" => policy.spec.alpha = Some(parser.value()?.parse()?),
            "willingness-to-pay" => policy.spec.willingness_to_pay = Some(parser.value()?.parse()?),
            "max-mean-cost" => policy.spec.max_mean_cost = Some(parser.value()?.parse()?),
            "min-quality" => policy.spec.min_quality = Some(parser.value()?.parse()?),
            "strong" => policy.spec.strong = Some(parser.value()?.string()?),
            "weak" => policy.spec.weak = Some(parser.value()?.string()?),
            "strong-share" => policy.spec.strong_share = Some(parser.value()?.parse()?),
            _ => policy.spec.max_cost = Some(parser.value()?.parse()?),
        }
    }
    Ok(given)
}

fn seconds(parser: &mut Parser, name: &str) -> Result<Duration, Stop> {
    let value: f64 = parser.value()?.parse()?;
    // Below a hundredth of a second a time limit would be none.
    if (0.01..=86_400.0).contains(&value) {
        return Ok(Duration::from_secs_f64(value));
    }
    Err(Stop::Usage(format!("--{name} {value}: wanted 0.01 to 86400 seconds")))
}
