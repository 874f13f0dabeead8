//! `centroute-edge bench`: how long a decision takes, stage by stage.

use std::io::Write as _;
use std::time::{Duration, Instant};

use centroute::request::{Request, text_of_line};
use centroute::{Buffers, Engine, decision_json};
use centroute_core::Policy;
use serde_json::{Value, json};

use crate::Fault;
use crate::arguments::BenchOptions;
use crate::lines::{Line, Lines};

const STAGES: [&str; 4] = ["tokenize", "embed", "kernel", "total"];
/// Decisions that are timed however long they take.
const MIN_CALLS: usize = 20;
const BUILT_IN: [&str; 4] = [
    "What is the capital of France?",
    "Prove that the square root of two is irrational.",
    "Write a Python function that returns the n-th Fibonacci number, with a docstring and two tests.",
    "A train leaves Leeds at 9:40 and drives 88 km/h; another leaves York at 10:05 and drives 112 km/h towards it. The \
     towns are 40 km apart. When and how far from York do they meet? Give your answer to the minute, and show each step.",
];

/// Times single decisions by stage, then all texts one after another with their answers as JSON.
pub fn run(options: &BenchOptions) -> Result<bool, Fault> {
    let engine = Engine::open(&options.bundle)?;
    let policy = engine.compile(&options.policy.spec(&engine))?;
    let mut texts = read_texts(options)?;
    let n_read = texts.len();
    let mut buffers = Buffers::default();
    texts.retain(|text| engine.decide(text, &policy, &mut buffers).is_ok());
    if texts.is_empty() {
        return Err(Fault::Told("no text can be routed".into()));
    }
    let result = json!({
        "stages": time_stages(&engine, &policy, &texts, options.seconds)?,
        "throughput_qps": throughput(&engine, &policy, &texts, options.seconds)?,
        "simd": engine.router().centroids().isa().name(),
        "threads": 1,
        "versions": {"centroute-edge": env!("CARGO_PKG_VERSION")},
        "embedder": {
            "name": engine.router().artifact().metadata.embedder.name,
            "runtime": "centroute",
            "device": "cpu",
        },
        "texts": options.file.as_ref().map_or("built in".into(), |file| file.to_string_lossy().into_owned()),
        "n_texts": texts.len(),
        "n_left_out": n_read - texts.len(),
    });
    let mut stdout = std::io::stdout().lock();
    if options.json {
        writeln!(stdout, "{result}")?;
        return Ok(true);
    }
    for stage in STAGES {
        let times = &result["stages"][stage];
        writeln!(stdout, "{stage:10} median {:>9} µs   p99 {:>9} µs", times["p50_us"], times["p99_us"])?;
    }
    writeln!(stdout, "{} decisions a second on one thread, answers as JSON included", result["throughput_qps"])?;
    Ok(true)
}

fn read_texts(options: &BenchOptions) -> Result<Vec<String>, Fault> {
    let Some(path) = &options.file else {
        return Ok(BUILT_IN.map(str::to_owned).to_vec());
    };
    let about = |error: &dyn std::fmt::Display| Fault::Told(format!("{}: {error}", path.display()));
    let mut lines = Lines::new(std::fs::File::open(path).map_err(|error| about(&error))?);
    let mut texts = Vec::new();
    loop {
        match lines.next().map_err(|error| about(&error))? {
            Line::Whole(line) if options.jsonl => {
                let query = Request::from_line(line).map_err(|error| about(&error))?.query;
                texts.extend(query.map(|text| text.0));
            }
            Line::Whole(line) => texts.push(text_of_line(line).into_owned()),
            Line::TooLong => {}
            Line::End => return Ok(texts),
        }
    }
}

/// Median and 99th percentile of each stage, in microseconds.
fn time_stages(engine: &Engine, policy: &Policy, texts: &[String], time: Duration) -> Result<Value, Fault> {
    let mut buffers = Buffers::default();
    let mut samples: [Vec<f64>; 4] = Default::default();
    let microseconds = |time: Duration| time.as_secs_f64() * 1e6;
    let until = Instant::now() + time / 2;
    for text in texts.iter().cycle() {
        let stages = engine.time_stages(text, policy, &mut buffers)?;
        for (samples, time) in samples.iter_mut().zip([stages.tokenize, stages.embed, stages.kernel]) {
            samples.push(microseconds(time));
        }
        if samples[0].len() >= MIN_CALLS && Instant::now() > until {
            break;
        }
    }
    // In a loop of its own: right after its stages, a text's rows would still be in the cache.
    let until = Instant::now() + time / 2;
    for text in texts.iter().cycle() {
        let started = Instant::now();
        engine.decide(text, policy, &mut buffers)?;
        samples[3].push(microseconds(started.elapsed()));
        if samples[3].len() >= MIN_CALLS && Instant::now() > until {
            break;
        }
    }
    let mut stages = serde_json::Map::new();
    for (name, samples) in STAGES.into_iter().zip(&mut samples) {
        stages.insert(name.into(), json!({"p50_us": quantile(samples, 0.5), "p99_us": quantile(samples, 0.99)}));
    }
    Ok(Value::Object(stages))
}

/// Decisions a second, their JSON included: the median over runs through all texts.
fn throughput(engine: &Engine, policy: &Policy, texts: &[String], time: Duration) -> Result<f64, Fault> {
    let (mut buffers, mut output, mut rates) = (Buffers::default(), Vec::new(), Vec::new());
    let passes = 1000_usize.div_ceil(texts.len());
    let until = Instant::now() + time;
    while rates.is_empty() || Instant::now() < until {
        let started = Instant::now();
        for _ in 0..passes {
            for text in texts {
                output.clear();
                decision_json::write(&engine.decide(text, policy, &mut buffers)?, &mut output);
            }
        }
        rates.push((passes * texts.len()) as f64 / started.elapsed().as_secs_f64());
    }
    Ok(quantile(&mut rates, 0.5).round())
}

/// Rounded to thousandths; the samples are sorted on the way.
fn quantile(samples: &mut [f64], share: f64) -> f64 {
    samples.sort_unstable_by(f64::total_cmp);
    #[expect(clippy::cast_sign_loss, reason = "a share of a length")]
    let place = (share * (samples.len() - 1) as f64).round() as usize;
    (samples[place] * 1e3).round() / 1e3
}
