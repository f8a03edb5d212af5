//! How calls leave the interpreter and come back: interrupts, panics, forks, and the end of the
//! interpreter.
//!
//! A daemon thread that wants the interpreter lock when the interpreter ends is killed by Python
//! (3.13 and before) through `pthread_exit`, which must not pass frames of Rust: it aborts the
//! process. So threads register before they wait for the lock or run Python code below frames of
//! Rust; at exit, [`close`] waits until none does, and those that come later are stopped before the
//! gate.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use pnncore::Error;
use pnncore::kernels::watch::{self, Interrupted};
use pnncore::runtime::{self, Runtime};
use pyo3::exceptions::PyKeyboardInterrupt;
use pyo3::prelude::*;

use crate::errors::{OrRaise, exception};

/// Whether the interpreter is about to end.
static CLOSING: AtomicBool = AtomicBool::new(false);

/// Threads that wait for the interpreter lock, or run Python code, below frames of Rust.
static INSIDE: AtomicUsize = AtomicUsize::new(0);

/// How long the end waits for the Python code of daemon threads.
const PATIENCE: Duration = Duration::from_secs(5);

thread_local! {
    /// Whether this is the thread that Python delivers signals to, and that ends the interpreter.
    static IS_MAIN: Cell<bool> = const { Cell::new(false) };
    /// What a handler raised while a call was watched.
    static RAISED: RefCell<Option<PyErr>> = const { RefCell::new(None) };
}

/// The way of a thread back to the interpreter.
struct Gate(());

impl Gate {
    /// Goes through, or waits for the end of the process where the interpreter is about to end. Not
    /// for those who hold its lock.
    fn enter() -> Self {
        INSIDE.fetch_add(1, Ordering::SeqCst);
        let gate = Self(());
        if CLOSING.load(Ordering::SeqCst) && !IS_MAIN.get() {
            drop(gate);
            loop {
                thread::park();
            }
        }
        gate
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        // None, in a child that was forked meanwhile.
        let _ =
            INSIDE.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |inside| inside.checked_sub(1));
    }
}

/// Whether a handler of a signal raised, on the thread that has handlers.
fn interrupted() -> bool {
    let look = |py: Python<'_>| match py.check_signals() {
        Ok(()) => false,
        Err(error) => {
            RAISED.set(Some(error));
            true
        }
    };
    Python::try_attach(look).unwrap_or(false)
}

/// Does some work that signals end, and in which nothing panics.
fn watched<R>(work: impl FnOnce() -> R) -> Result<Result<R, Interrupted>, Box<dyn Any + Send>> {
    // What is left in the middle is thrown away by the caller.
    let work =
        AssertUnwindSafe(
            || if IS_MAIN.get() { watch::over(interrupted, work) } else { Ok(work()) },
        );
    catch_unwind(work)
}

/// The result of watched work, or the exception that ended it.
fn found<R>(
    py: Python<'_>,
    result: Result<Result<R, Interrupted>, Box<dyn Any + Send>>,
) -> PyResult<R> {
    match result {
        // A handler may have raised where the work must not be left: its exception comes when that
        // is done.
        Ok(Ok(found)) => RAISED.take().map_or(Ok(found), Err),
        Ok(Err(Interrupted)) => {
            Err(RAISED.take().unwrap_or_else(|| PyKeyboardInterrupt::new_err(())))
        }
        Err(payload) => {
            RAISED.set(None);
            let text = payload.downcast_ref::<String>().map(String::as_str);
            let text =
                text.or_else(|| payload.downcast_ref::<&str>().copied()).unwrap_or("unknown");
            Err(exception(py, &Error::Internal(text.to_owned())))
        }
    }
}

/// Runs `work` with the interpreter lock released, until it is done or a handler of a signal
/// raises.
pub(crate) fn detached<R: Send>(py: Python<'_>, work: impl FnOnce() -> R + Send) -> PyResult<R> {
    let (result, gate) = py.detach(|| {
        drop(Gate::enter());
        (watched(work), Gate::enter())
    });
    drop(gate);
    found(py, result)
}

/// Runs `work` with the interpreter lock held, until it is done or a handler of a signal raises.
pub(crate) fn held<R>(py: Python<'_>, work: impl FnOnce() -> R) -> PyResult<R> {
    found(py, watched(work))
}

/// Runs Python code in the middle of work that is [`detached`].
pub(crate) fn attached<R>(work: impl FnOnce(Python<'_>) -> R) -> R {
    let gate = Gate::enter();
    let result = Python::attach(work);
    drop(gate);
    result
}

/// A runtime, made with the interpreter lock released: one who forks holds the list of pools, and
/// runs Python code meanwhile.
pub(crate) fn runtime(py: Python<'_>, threads: Option<usize>, seed: u64) -> PyResult<Runtime> {
    py.detach(|| Runtime::new(threads, seed)).or_raise(py)
}

/// Tells that this is the main thread.
#[pyfunction]
pub(crate) fn note_main() {
    IS_MAIN.set(true);
}

/// Waits, at the end of the interpreter, until no other thread is where Python would kill it.
#[pyfunction]
pub(crate) fn close(py: Python<'_>) {
    note_main();
    CLOSING.store(true, Ordering::SeqCst);
    py.detach(|| {
        let start = Instant::now();
        while INSIDE.load(Ordering::SeqCst) > 0 && start.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(1));
        }
    });
}

/// Holds what other threads could hold while a process forks.
#[pyfunction]
pub(crate) fn before_fork() {
    runtime::hold_pools();
}

/// Lets go of that, in the parent.
#[pyfunction]
pub(crate) fn after_fork() {
    runtime::release_pools();
}

/// Lets go of that, in the child, where no other thread is left.
#[pyfunction]
pub(crate) fn after_fork_in_child() {
    runtime::release_pools();
    INSIDE.store(0, Ordering::SeqCst);
    CLOSING.store(false, Ordering::SeqCst);
    note_main();
}
