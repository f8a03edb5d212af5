//! Where experiments run: threads, instruction set, seed.

use pnncore_kernels::Level;
use pnncore_kernels::philox::{Philox, Purpose};
use rayon::prelude::*;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::{Error, Result};

/// Work (in multiply-adds) below which a region is not worth a second thread: about 20 microseconds of one core.
const SEQUENTIAL_BELOW: usize = 1 << 20;

/// The place where experiments run.
///
/// Results never depend on the number of threads.
#[derive(Debug, Clone)]
pub struct Lab {
    level: Level,
    seed: u64,
    threads: usize,
    pool: Option<Arc<rayon::ThreadPool>>,
}

impl Lab {
    /// A lab with `threads` threads (`None`: `PNNCORE_NUM_THREADS`, otherwise one per core).
    ///
    /// # Errors
    /// [`Error::Config`] for zero threads, or a `PNNCORE_NUM_THREADS` that is no positive number.
    pub fn new(threads: Option<usize>, seed: u64) -> Result<Self> {
        let threads = match threads {
            Some(0) => return Err(Error::Config("threads must be at least 1, got 0".into())),
            Some(n) => n,
            None => default_threads()?,
        };
        Ok(Self { level: Level::get(), seed, threads, pool: if threads > 1 { Some(pool(threads)?) } else { None } })
    }

    /// The instruction set of the kernels.
    pub fn level(&self) -> Level {
        self.level
    }

    /// The number of threads.
    pub fn threads(&self) -> usize {
        self.threads
    }

    /// The random numbers of a purpose.
    pub fn random(&self, purpose: Purpose) -> Philox {
        Philox::new(self.seed, purpose)
    }

    /// Into how many parts a region of `work` multiply-adds over `items` items is cut. Rows do not see how they are
    /// grouped, so this may depend on the number of threads.
    pub fn parts(&self, work: usize, items: usize) -> usize {
        if self.threads == 1 || work < SEQUENTIAL_BELOW { 1 } else { items.min(self.threads * 2).max(1) }
    }

    /// Runs `work` on the pool, so that the regions inside cost no hand-over.
    pub fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match &self.pool {
            Some(pool) => pool.install(work),
            None => work(),
        }
    }

    /// Calls `work` for every item, in parallel where there is more than one item and thread.
    pub fn for_each<I: Send>(&self, items: impl IndexedParallelIterator<Item = I>, work: impl Fn(I) + Sync + Send) {
        if self.threads == 1 || items.len() < 2 {
            // A sequential run must not wake another pool: fold in place instead.
            sequential(items, work);
        } else {
            items.with_max_len(1).for_each(work);
        }
    }
}

/// Drives an indexed parallel iterator on the current thread.
fn sequential<I: Send>(items: impl IndexedParallelIterator<Item = I>, work: impl Fn(I)) {
    use rayon::iter::plumbing::{Producer, ProducerCallback};
    struct Here<F>(F);
    impl<I, F: Fn(I)> ProducerCallback<I> for Here<F> {
        type Output = ();
        fn callback<P: Producer<Item = I>>(self, producer: P) {
            producer.into_iter().for_each(self.0);
        }
    }
    items.with_producer(Here(work));
}

fn default_threads() -> Result<usize> {
    match std::env::var("PNNCORE_NUM_THREADS") {
        Err(_) => Ok(std::thread::available_parallelism().map_or(1, usize::from)),
        Ok(text) => text
            .parse()
            .ok()
            .filter(|&n| n > 0)
            .ok_or_else(|| Error::Config(format!("PNNCORE_NUM_THREADS must be a positive number, got {text:?}"))),
    }
}

/// The pool of this process with this many threads. Keyed by process id: threads do not survive a fork, so a forked
/// child builds its own and the parent's is leaked there.
fn pool(threads: usize) -> Result<Arc<rayon::ThreadPool>> {
    type Pools = HashMap<(u32, usize), Arc<rayon::ThreadPool>>;
    static POOLS: Mutex<Option<Pools>> = Mutex::new(None);
    let mut pools = POOLS.lock().unwrap_or_else(PoisonError::into_inner);
    let key = (std::process::id(), threads);
    let pools = pools.get_or_insert_default();
    if let Some(pool) = pools.get(&key) {
        return Ok(pool.clone());
    }
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .thread_name(|i| format!("pnncore-{i}"))
        .build()
        .map_err(|e| Error::Config(format!("cannot start {threads} threads: {e}")))?;
    Ok(pools.entry(key).or_insert(Arc::new(pool)).clone())
}
