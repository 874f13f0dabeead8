//! Runs one kind of work a number of times, for `benches/instructions.py` to count its instructions.
//!
//! Usage: `instructions ISA WORK TIMES`, with `serial` or `avx2` and one of the names of `WORK` below.

use std::hint::black_box;
use std::process::ExitCode;

use centroute_core::{Batch, BatchPolicy, Error, Isa, PolicySpec, Precision, Scratch};

#[path = "../benches/made_up.rs"]
mod made_up;

use made_up::{DIM, TOP_P, router, unit_rows};

fn run(isa: Isa, work: &str, times: usize) -> Result<(), Error> {
    let spec = PolicySpec { willingness_to_pay: Some(0.02), ..PolicySpec::default() };
    let precision = match work {
        "one-f16" => Precision::F16,
        "one-i8" => Precision::I8,
        _ => Precision::F32,
    };
    let router = router(64, isa, precision)?;
    let policy = router.compile(&spec)?;
    let mut scratch = Scratch::default();
    let queries = unit_rows(96, 5);
    if work == "compile" {
        for _ in 0..times {
            black_box(router.compile(black_box(&spec))?);
        }
    } else if work == "batch" {
        let mut batch = Batch::new(96, TOP_P);
        let wanted = BatchPolicy { policy: &policy, objectives: None, allowed: None };
        for _ in 0..times {
            router.route_batch(black_box(&queries), 0, &wanted, &mut batch.rows(TOP_P), &mut scratch)?;
        }
    } else {
        for time in 0..times {
            let query = &queries[time % 96 * DIM..][..DIM];
            black_box(router.route(black_box(query), &policy, &mut scratch)?);
        }
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, isa, work, times] = arguments.as_slice() else {
        eprintln!("usage: instructions ISA one-f32|one-f16|one-i8|batch|compile TIMES");
        return ExitCode::from(2);
    };
    let isa = Isa::ALL.into_iter().find(|candidate| candidate.name() == isa && candidate.is_available());
    let (Some(isa), Ok(times)) = (isa, times.parse()) else {
        eprintln!("the instruction set is not to be had here, or TIMES is no number");
        return ExitCode::from(2);
    };
    match run(isa, work, times) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
