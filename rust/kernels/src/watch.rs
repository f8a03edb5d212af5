//! Interrupts: long work looks now and then whether it is still wanted, and unwinds where it is
//! not.
//!
//! The one who calls is asked, on his own thread: at [`poll`]s where that does the work, while it
//! waits for the pool where others do. A poll takes about a nanosecond, but every fraction of a
//! millisecond of work.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// Work, in multiply-adds, between two looks: a fraction of a millisecond.
const LOOK: usize = 1 << 20;

/// How long nobody is asked again.
pub const PATIENCE: Duration = Duration::from_millis(20);

/// The payload of the unwinding of work that is no longer wanted.
#[derive(Debug)]
pub struct Interrupted;

/// What is known of work that somebody waits for.
pub struct Watch {
    unwanted: AtomicBool,
    /// Whether the work is no longer wanted: asked on the thread that waits for it.
    ask: fn() -> bool,
}

impl Watch {
    /// Asks whether the work is no longer wanted, and lets all threads know. For the thread that
    /// waits.
    pub fn ask(&self) -> bool {
        if (self.ask)() {
            self.unwanted.store(true, Ordering::Relaxed);
        }
        self.unwanted.load(Ordering::Relaxed)
    }
}

thread_local! {
    /// The work that this thread is part of, and whether this is the thread that waits.
    static CURRENT: RefCell<Option<(Arc<Watch>, bool)>> = const { RefCell::new(None) };
    static DONE: Cell<usize> = const { Cell::new(0) };
    static ASKED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Puts back what the thread was part of before, also where the work unwinds.
struct Before(Option<(Arc<Watch>, bool)>);

impl Drop for Before {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

fn within<R>(current: Option<(Arc<Watch>, bool)>, work: impl FnOnce() -> R) -> R {
    let _before = Before(CURRENT.replace(current));
    work()
}

/// Does some work, unless `ask`, which is called on this thread every [`PATIENCE`] or so, says that
/// it is no longer wanted.
///
/// # Errors
/// [`Interrupted`] then: the work was left somewhere in the middle.
pub fn over<R>(ask: fn() -> bool, work: impl FnOnce() -> R) -> Result<R, Interrupted> {
    ASKED.set(Some(Instant::now()));
    let watch = Arc::new(Watch { unwanted: AtomicBool::new(false), ask });
    // What is left in the middle is the caller's, who is told.
    match catch_unwind(AssertUnwindSafe(|| within(Some((watch, true)), work))) {
        Ok(found) => Ok(found),
        Err(payload) if payload.is::<Interrupted>() => Err(Interrupted),
        Err(payload) => resume_unwind(payload),
    }
}

/// Does some work that is short, and must not be left in the middle: no poll in it unwinds.
pub fn to_the_end<R>(work: impl FnOnce() -> R) -> R {
    within(None, work)
}

/// The work that this thread is part of.
pub fn current() -> Option<Arc<Watch>> {
    CURRENT.with_borrow(|current| current.as_ref().map(|(watch, _)| watch.clone()))
}

/// Does a part of the work that `watch` watches, on any thread.
pub fn join<R>(watch: &Option<Arc<Watch>>, work: impl FnOnce() -> R) -> R {
    let same = CURRENT.with_borrow(|current| match (current, watch) {
        (Some((own, _)), Some(watch)) => Arc::ptr_eq(own, watch),
        (own, watch) => own.is_none() && watch.is_none(),
    });
    if same { work() } else { within(watch.clone().map(|watch| (watch, false)), work) }
}

/// Unwinds where it is known that the work is no longer wanted, before a part of it begins.
pub fn check() {
    let known = |(watch, _): &(Arc<Watch>, bool)| watch.unwanted.load(Ordering::Relaxed);
    if CURRENT.with_borrow(|current| current.as_ref().is_some_and(known)) {
        resume_unwind(Box::new(Interrupted));
    }
}

/// Counts some work, in multiply-adds, and looks now and then whether all of it is still wanted;
/// unwinds where it is not.
#[inline]
pub fn poll(work: usize) {
    let done = DONE.get().saturating_add(work);
    DONE.set(done);
    if done >= LOOK {
        DONE.set(0);
        look();
    }
}

#[cold]
#[inline(never)]
fn look() {
    let unwanted = CURRENT.with_borrow(|current| match current {
        None => false,
        Some((watch, false)) => watch.unwanted.load(Ordering::Relaxed),
        Some((watch, true)) => {
            let soon = ASKED.get().is_some_and(|asked| asked.elapsed() < PATIENCE);
            if !soon {
                ASKED.set(Some(Instant::now()));
            }
            if soon { watch.unwanted.load(Ordering::Relaxed) } else { watch.ask() }
        }
    });
    if unwanted {
        resume_unwind(Box::new(Interrupted));
    }
}

/// The numbers below `n`, with a poll at each for about this much work.
pub fn polled(n: usize, work: usize) -> impl Iterator<Item = usize> {
    (0..n).inspect(move |_| poll(work))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_is_not_wanted_ends() {
        let forever = || loop {
            poll(1 << 10);
        };
        let start = Instant::now();
        assert!(over(|| true, forever).is_err());
        assert!(start.elapsed() < Duration::from_secs(5));
        assert_eq!(over(|| true, || 3).ok(), Some(3));
        assert_eq!(over(|| false, || polled(3000, LOOK).count()).ok(), Some(3000));
    }

    #[test]
    fn work_that_must_not_be_left_goes_on() {
        let both = over(
            || true,
            || {
                std::thread::sleep(PATIENCE);
                to_the_end(|| polled(100, LOOK).count());
                poll(LOOK);
            },
        );
        assert!(both.is_err());
    }
}
