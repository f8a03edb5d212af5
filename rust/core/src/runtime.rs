//! Where experiments run: threads, instruction set, seed.

use pnncore_kernels::Level;
use pnncore_kernels::philox::{Philox, Purpose};
use pnncore_kernels::watch::{self, Watch};
use rayon::prelude::*;
use std::cell::RefCell;
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::{Error, Result};

/// What one core does at most in a microsecond, in multiply-adds.
const PER_MICROSECOND: f64 = 5e4;

/// How many times as long as the hand-over of nothing a region must be for a second thread to pay:
/// it begins late, and where it ends last the caller sleeps and is woken in its turn.
const PAYS_FROM: f64 = 6.0;

/// How long a hand-over may be taken to be, in microseconds: less is not measured well, more was
/// a moment's interruption.
const HAND_OVER: (f64, f64) = (3.0, 40.0);

/// What a region counts for, in multiply-adds, between two looks for interrupts; its items count
/// for themselves.
const REGION: usize = 1 << 14;

/// How long a region may keep its caller waiting, beyond twice the caller's own work in it, before
/// the machine counts as crowded: another process has taken the core of a thread that holds a part.
const PATIENCE: Duration = Duration::from_micros(200);

/// How long regions are not shared on a crowded machine: at first, for it may have been a moment's
/// interruption; and at most, twice as long as the last time wherever a new try soon fails. Each
/// may cost a time slice of the other process, some milliseconds.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(4), Duration::from_millis(256));

/// A try fails soon within this many times the last pause.
const SOON: u64 = 4;

/// The place where experiments run.
///
/// Results never depend on the number of threads.
#[derive(Debug, Clone)]
pub struct Runtime {
    level: Level,
    seed: u64,
    threads: usize,
    pool: Option<Arc<Pool>>,
}

/// The threads of a process.
#[derive(Debug)]
struct Pool {
    threads: rayon::ThreadPool,
    /// Work, in multiply-adds, from which on a second thread pays.
    worth_sharing: usize,
    born: Instant,
    /// Until when regions are not shared, in microseconds after `born`.
    crowded: AtomicU64,
    /// How long that was the last time, in microseconds.
    pause: AtomicU64,
}

impl Pool {
    fn new(threads: rayon::ThreadPool) -> Self {
        let hand_over = hand_over(&threads).clamp(HAND_OVER.0, HAND_OVER.1);
        let worth_sharing = (PAYS_FROM * hand_over * PER_MICROSECOND) as usize;
        let quiet = || AtomicU64::new(0);
        Self { threads, worth_sharing, born: Instant::now(), crowded: quiet(), pause: quiet() }
    }

    /// Runs `work` on the pool, and asks meanwhile whether it is still wanted.
    fn attend<R: Send>(&self, watch: Arc<Watch>, work: impl FnOnce() -> R + Send) -> R {
        let (send, receive) = mpsc::sync_channel(1);
        let part = Some(watch.clone());
        let found = self.threads.in_place_scope(|scope| {
            scope.spawn(move |_| {
                // Nobody receives it where the work unwinds, and then there is nothing to send.
                let _ = send.send(watch::join(&part, work));
            });
            loop {
                match receive.recv_timeout(watch::PATIENCE) {
                    Ok(found) => return Some(found),
                    Err(RecvTimeoutError::Timeout) => watch.ask(),
                    Err(RecvTimeoutError::Disconnected) => return None,
                };
            }
        });
        // The scope has unwound where there is none.
        found.unwrap_or_else(|| std::panic::resume_unwind(Box::new(watch::Interrupted)))
    }

    fn micros(&self, time: Instant) -> u64 {
        time.duration_since(self.born).as_micros() as u64
    }

    /// Regions are not shared for a while.
    fn back_off(&self) {
        let now = self.micros(Instant::now());
        let (until, last) =
            (self.crowded.load(Ordering::Relaxed), self.pause.load(Ordering::Relaxed));
        let (first, most) = (BACK_OFF.0.as_micros() as u64, BACK_OFF.1.as_micros() as u64);
        let pause = if now < until + SOON * last { (2 * last).min(most) } else { first };
        self.pause.store(pause, Ordering::Relaxed);
        self.crowded.store(now + pause, Ordering::Relaxed);
    }
}

/// How long a region without work takes whose threads sleep, in microseconds: the median of a few.
/// From 3 on a machine of one's own to 20 on a virtual one, which wakes threads from outside.
fn hand_over(threads: &rayon::ThreadPool) -> f64 {
    const TRIES: usize = 7;
    /// After so long threads that find nothing to do are asleep.
    const ASLEEP: Duration = Duration::from_micros(100);
    let mut found = threads.install(|| {
        std::array::from_fn::<f64, TRIES, _>(|_| {
            std::thread::sleep(ASLEEP);
            let start = Instant::now();
            (0..2).into_par_iter().with_max_len(1).for_each(|_| ());
            start.elapsed().as_secs_f64() * 1e6
        })
    });
    found.sort_by(f64::total_cmp);
    found[TRIES / 2]
}

impl Runtime {
    /// A runtime with `threads` threads (`None`: `PNNCORE_NUM_THREADS`, otherwise one per core).
    ///
    /// # Errors
    /// [`Error::Config`] for a number of threads that is not from 1 to [`MOST_THREADS`], given or
    /// in `PNNCORE_NUM_THREADS`, or a `PNNCORE_SIMD` that names no instruction set of this
    /// processor.
    pub fn new(threads: Option<usize>, seed: u64) -> Result<Self> {
        let threads = match threads {
            Some(n) if !(1..=MOST_THREADS).contains(&n) => {
                let message = format!("threads must be from 1 to {MOST_THREADS}, got {n}");
                return Err(Error::Config(message));
            }
            Some(n) => n,
            None => default_threads()?,
        };
        Level::asked().map_err(Error::Config)?;
        let pool = if threads > 1 { Some(pool(threads)?) } else { None };
        Ok(Self { level: Level::get(), seed, threads, pool })
    }

    /// The same runtime with the calling thread alone.
    #[must_use]
    pub fn alone(&self) -> Self {
        Self { threads: 1, pool: None, ..*self }
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

    /// Into how many parts a region of `work` multiply-adds over `items` items is cut: one where a
    /// second thread would not have begun before the first is done, as measured when the threads
    /// were started. Rows do not see how they are grouped, so this may depend on both.
    pub fn parts(&self, work: usize, items: usize) -> usize {
        match &self.pool {
            Some(pool) if work >= pool.worth_sharing => items.min(self.threads * 2).max(1),
            _ => 1,
        }
    }

    /// How many of `pieces` that are not to be cut each part of a region of `work` multiply-adds
    /// takes: one as they come, or all where a second thread is not worth it.
    pub fn grouped(&self, work: usize, pieces: usize) -> usize {
        if self.parts(work, pieces) == 1 { pieces.max(1) } else { 1 }
    }

    /// Runs `work` on the pool, so that the regions inside cost no hand-over.
    pub fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        match (&self.pool, watch::current()) {
            (None, _) => work(),
            (Some(pool), None) => pool.threads.install(work),
            (Some(pool), Some(watch)) => pool.attend(watch, work),
        }
    }

    /// Calls `work` for every item, in parallel where there is more than one item and thread,
    /// unless other processes have just been seen to hold one of the threads up: a caller that gets
    /// on alone is faster than one that waits.
    pub fn for_each<I: Send>(
        &self,
        items: impl IndexedParallelIterator<Item = I>,
        work: impl Fn(I) + Sync + Send,
    ) {
        watch::poll(REGION);
        let start = Instant::now();
        let shared = |pool: &&Arc<Pool>| {
            items.len() > 1 && pool.micros(start) >= pool.crowded.load(Ordering::Relaxed)
        };
        let Some(pool) = self.pool.as_ref().filter(shared) else {
            // A sequential run must not wake another pool: fold in place instead.
            return sequential(items, work);
        };
        let caller = rayon::current_thread_index();
        let own = AtomicU64::new(0);
        let watch = watch::current();
        items.with_max_len(1).for_each(|item| {
            watch::join(&watch, || {
                watch::check();
                work(item);
            });
            if rayon::current_thread_index() == caller {
                own.store(start.elapsed().as_micros() as u64, Ordering::Relaxed);
            }
        });
        let own = Duration::from_micros(own.into_inner());
        if start.elapsed() > 3 * own + PATIENCE {
            pool.back_off();
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

/// The most threads of a pool: as many as the largest machines have, and started within a second.
pub const MOST_THREADS: usize = 1024;

fn default_threads() -> Result<usize> {
    match std::env::var("PNNCORE_NUM_THREADS") {
        Err(_) => {
            let cores = std::thread::available_parallelism().map_or(1, usize::from);
            Ok(cores.min(MOST_THREADS))
        }
        Ok(text) => text.parse().ok().filter(|n| (1..=MOST_THREADS).contains(n)).ok_or_else(|| {
            Error::Config(format!(
                "PNNCORE_NUM_THREADS must be a whole number from 1 to {MOST_THREADS}, got \
                     {text:?}"
            ))
        }),
    }
}

/// By process and number of threads.
type Pools = HashMap<(u32, usize), Arc<Pool>>;

static POOLS: Mutex<Option<Pools>> = Mutex::new(None);

thread_local! {
    static HELD: RefCell<Option<MutexGuard<'static, Option<Pools>>>> = const { RefCell::new(None) };
}

/// Keeps other threads from the list of pools until [`release_pools`]: a child that is forked
/// meanwhile finds it whole, and free.
pub fn hold_pools() {
    HELD.set(Some(POOLS.lock().unwrap_or_else(PoisonError::into_inner)));
}

/// Lets go of the list of pools, on the thread that holds it, or in a child that this thread has
/// forked.
pub fn release_pools() {
    HELD.set(None);
}

/// The pool of this process with this many threads. Keyed by process id: threads do not survive a
/// fork, so a forked child builds its own and the parent's is leaked there.
fn pool(threads: usize) -> Result<Arc<Pool>> {
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
    Ok(pools.entry(key).or_insert(Arc::new(Pool::new(pool))).clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A thread that is held up makes the caller do the next regions alone, each item once.
    #[test]
    fn a_crowded_machine_is_not_waited_for() {
        let runtime = Runtime::new(Some(2), 0).expect("two threads");
        runtime.enter(|| {
            let caller = rayon::current_thread_index();
            let shared = |pause: Duration| {
                let elsewhere = AtomicU64::new(0);
                let mut done = [0u32; 8];
                runtime.for_each(done.par_iter_mut(), |done| {
                    *done += 1;
                    let here = rayon::current_thread_index() == caller;
                    std::thread::sleep(if here { Duration::from_micros(100) } else { pause });
                    elsewhere.fetch_add(u64::from(!here), Ordering::Relaxed);
                });
                assert_eq!(done, [1; 8]);
                elsewhere.into_inner()
            };
            // The other thread may take a while to wake up.
            while shared(Duration::from_millis(20)) == 0 {}
            assert_eq!(shared(Duration::ZERO), 0);
            std::thread::sleep(BACK_OFF.0);
            while shared(Duration::ZERO) == 0 {}
        });
    }
}
