//! Training does not allocate once it runs: counted, not believed.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::alloc::{GlobalAlloc, Layout, System as Heap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pnncore::batch::{Batch, Rows, Targets};
use pnncore::loss::Loss;
use pnncore::method::MethodConfig;
use pnncore::method::equilibrium_propagation::{EquilibriumPropagation, Estimator, Sign};
use pnncore::optim::Optimizer;
use pnncore::params::Params;
use pnncore::runtime::Runtime;
use pnncore::settling::Settling;
use pnncore::system::System;
use pnncore::system::hopfield::Activation;
use pnncore::system::layered::Layered;
use pnncore::train::{Progress, StepBudget, TrainingTask, train};

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's contract.
        unsafe { Heap.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { Heap.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static HEAP: Counting = Counting;

/// Allocations of a call that makes `steps` steps.
fn allocations(sizes: &[usize], threads: usize, steps: usize) -> usize {
    let net = Layered::hopfield(sizes, Activation::HardSigmoid).unwrap();
    let system: &dyn System<f32> = &net;
    let mut params: Vec<Vec<f32>> = system.specs().iter().map(|s| vec![0.0; s.len()]).collect();
    net.initialise(
        &Runtime::new(Some(1), 0).unwrap(),
        1,
        0.7,
        &mut params.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>(),
    );
    let batch_size = 64;
    let samples = batch_size * steps;
    let x: Vec<f32> = (0..samples * sizes[0]).map(|i| ((i * 7919) % 101) as f32 / 101.0).collect();
    let labels: Vec<i64> = (0..samples as i64).map(|i| i % 10).collect();
    let order: Vec<u64> = (0..samples as u64).collect();
    let method = EquilibriumPropagation {
        variant: Estimator::Centered,
        beta: Some(0.2),
        sign: Sign::Positive,
        points: 8,
    }
    .with(Loss::SquaredError, Settling::default());
    let protocol = method.protocol(system).unwrap();
    let rates = vec![0.01; params.len()];
    let optimizer = Optimizer::SGD { momentum: 0.0, weight_decay: 0.0 };
    let runtime = Runtime::new(Some(threads), 0).unwrap();
    let task = TrainingTask {
        system,
        protocol: &protocol,
        optimizer: &optimizer,
        rates: &rates,
        data: Batch { x: Rows::all(&x, sizes[0]), y: Targets::Labels(Rows::all(&labels, 1)) },
        order: &order,
        batch_size,
    };
    let budget = StepBudget { first: 0, before: 0, steps, time: Duration::MAX, first_epoch: 0.0 };
    let mut values = Params::exclusive(params.iter_mut().map(Vec::as_mut_slice));
    runtime.enter(|| {
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        train(&runtime, task, budget, &mut values, &mut [], &mut Progress::default()).unwrap();
        ALLOCATIONS.load(Ordering::Relaxed) - before
    })
}

// One test: allocations are counted for the whole process.
#[test]
fn steps_do_not_allocate_in_steady_state() {
    for sizes in [vec![64, 128, 10], vec![100, 300, 200, 10]] {
        for threads in [1, 2] {
            allocations(&sizes, threads, 2);
            let (short, long) =
                (allocations(&sizes, threads, 40), allocations(&sizes, threads, 240));
            // Lists may still grow now and then while the network learns, and the pool's queues
            // come in blocks.
            let per_step = (long as f64 - short as f64) / 200.0;
            assert!(
                per_step < 0.2,
                "{sizes:?}, {threads} threads: {short} then {long} allocations"
            );
        }
    }
}
