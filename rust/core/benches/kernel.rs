//! The kernel without Python, per instruction set: `cargo bench -p centroute-core`.

#![expect(clippy::expect_used, reason = "a bench that cannot be set up has nothing to measure")]

mod made_up;

use centroute_core::{Batch, BatchPolicy, Isa, PolicySpec, Precision, Scratch};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

use made_up::{DIM, TOP_P, router, unit_rows};

const BATCH: usize = 4096;

fn kernel(criterion: &mut Criterion) {
    let spec = PolicySpec { willingness_to_pay: Some(0.02), ..PolicySpec::default() };
    for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
        let mut group = criterion.benchmark_group(isa.name());
        let mut scratch = Scratch::default();
        for precision in [Precision::F32, Precision::F16, Precision::I8] {
            let router = router(64, isa, precision).expect("a valid router");
            let policy = router.compile(&spec).expect("a valid policy");
            let query = unit_rows(1, 7);
            group.throughput(Throughput::Elements(1));
            group.bench_function(format!("one {}", precision.name()), |bencher| {
                bencher.iter(|| router.route(&query, &policy, &mut scratch));
            });
        }
        let router = router(64, isa, Precision::F32).expect("a valid router");
        let policy = router.compile(&spec).expect("a valid policy");
        let queries = unit_rows(BATCH, 8);
        let wanted = BatchPolicy { policy: &policy, objectives: None, allowed: None };
        let mut batch = Batch::new(BATCH, TOP_P);
        group.throughput(Throughput::Elements((queries.len() / DIM) as u64));
        group.bench_function(format!("batch of {BATCH}"), |bencher| {
            bencher.iter(|| router.route_batch(&queries, 0, &wanted, &mut batch.rows(TOP_P), &mut scratch));
        });
        group.finish();
    }
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30).measurement_time(std::time::Duration::from_secs(1)).warm_up_time(
        std::time::Duration::from_millis(300),
    );
    targets = kernel
}
criterion_main!(benches);
