//! Deciding allocates nothing once the buffers fit: one query in every precision, and a batch.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use centroute_core::{Batch, BatchPolicy, Isa, PolicySpec, Precision, Scratch};

#[path = "../benches/made_up.rs"]
mod made_up;

use made_up::{DIM, TOP_P, router, unit_rows};

struct Counting;

static N_ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: hands everything over to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        N_ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are those of the system's allocator.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The only test of this file: others would allocate beside it.
#[test]
fn deciding_allocates_nothing_once_the_buffers_fit() {
    let queries = unit_rows(50, 3);
    let specs = [
        PolicySpec::default(),
        PolicySpec { alpha: Some(0.5), ..PolicySpec::default() },
        PolicySpec { willingness_to_pay: Some(0.02), max_cost: Some(0.9), ..PolicySpec::default() },
        PolicySpec { min_quality: Some(0.5), deny: Some(["m1".to_owned()].into()), ..PolicySpec::default() },
    ];
    // From 256 clusters on a batch is searched in bytes where the table is.
    let cases = [64, 300].map(|n_clusters| [Precision::F32, Precision::F16, Precision::I8].map(|p| (n_clusters, p)));
    for &(n_clusters, precision) in cases.as_flattened() {
        let router = router(n_clusters, Isa::detect(), precision).expect("a valid router");
        for spec in &specs {
            let policy = router.compile(spec).expect("a valid policy");
            let (mut scratch, mut batch) = (Scratch::default(), Batch::new(50, TOP_P));
            let wanted = BatchPolicy { policy: &policy, objectives: None, allowed: None };
            let mut decide_all = || {
                for query in queries.chunks_exact(DIM) {
                    router.route(query, &policy, &mut scratch).expect("a decision");
                }
                router.route_batch(&queries, 0, &wanted, &mut batch.rows(TOP_P), &mut scratch).expect("decisions");
            };
            decide_all();
            let before = N_ALLOCATIONS.load(Ordering::Relaxed);
            decide_all();
            assert_eq!(N_ALLOCATIONS.load(Ordering::Relaxed) - before, 0, "{n_clusters} {precision:?} {spec:?}");
        }
    }
}
