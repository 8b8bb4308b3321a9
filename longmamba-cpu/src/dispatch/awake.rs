//! Threads that wait for the next piece of work without going to sleep.

use rayon::Yield;
use std::cell::Cell;
use std::hint::spin_loop;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Does `work`, which may use any kernels, while the other threads of the current rayon pool stay awake for its pieces.
///
/// A thread of rayon that has looked for work some thirty times in vain goes to sleep, and a stage of a model that reads
/// a single token is over before it is awake again. So the other threads look again and again here, as long as `work`
/// takes, but not after 5 ms in which there is none. What they find may be another's, as always with rayon. Outside of
/// a pool `work` is just done. Nothing is allocated.
///
/// ```
/// use longmamba_cpu::keep_awake;
/// let answer = keep_awake(|| 6 * 7);
/// assert_eq!(answer, 42);
/// ```
pub fn keep_awake<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    let others = rayon::current_num_threads() - 1;
    if others == 0 || rayon::current_thread_index().is_none() || BUSY.get() {
        return work();
    }
    let watch = Watch { others, ..Watch::default() };
    beside(others, &watch, || {
        // Also where it panics.
        let _ended = Ended(&watch.done);
        busy(work)
    })
}

/// Does `work` with a [`Watch::keep`] for each of so many other threads.
fn beside<R: Send>(others: usize, watch: &Watch, work: impl FnOnce() -> R + Send) -> R {
    match others {
        0 => work(),
        _ => rayon::join(move || beside(others - 1, watch, work), || watch.keep()).0,
    }
}

thread_local! {
    /// Whether this thread is in the middle of something. It must not wait for the end of something else then, which
    /// may wait for it.
    static BUSY: Cell<bool> = const { Cell::new(false) };
}

/// Does `work`, during which this thread does not watch for other work, though it may do some.
fn busy<R>(work: impl FnOnce() -> R) -> R {
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            BUSY.set(self.0);
        }
    }
    let _before = Before(BUSY.replace(true));
    work()
}

/// How long a thread looks for work in vain. It is to outlast what others wait for: a piece of a product of many rows,
/// which takes a millisecond or more in large models, and a thread that the system has held up.
const PATIENCE: Duration = Duration::from_millis(5);

/// How long it leaves work to others that have not begun to look: it would take from them what keeps them awake.
const START: Duration = Duration::from_micros(20);

/// How often it looks before it lets the system run another thread.
const LOOKS: usize = 64;

/// What threads that watch have in common.
#[derive(Default)]
struct Watch {
    others: usize,
    /// How many have begun.
    begun: AtomicUsize,
    done: AtomicBool,
}

/// Says that work is done when it goes.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

impl Watch {
    /// Does what there is to do until the work is done.
    fn keep(&self) {
        self.begun.fetch_add(1, Ordering::Relaxed);
        if !BUSY.get() {
            busy(|| {
                let done = || self.done.load(Ordering::Acquire);
                let all = || self.begun.load(Ordering::Relaxed) == self.others;
                until(START, || false, || done() || all());
                until(PATIENCE, look, done);
            });
        }
    }
}

/// Calls `look` until `enough` says so, or it has found nothing for so long.
fn until(patience: Duration, look: impl Fn() -> bool, enough: impl Fn() -> bool) {
    let mut since = Instant::now();
    loop {
        for _ in 0..LOOKS {
            if enough() {
                return;
            }
            match look() {
                true => since = Instant::now(),
                false => spin_loop(),
            }
        }
        if since.elapsed() > patience {
            return;
        }
        thread::yield_now();
    }
}

/// Does some of the work that there is, if there is any.
fn look() -> bool {
    rayon::yield_now() == Some(Yield::Executed)
}

/// Does both, perhaps side by side. A thread that is done with the first stays awake for the end of the second, as long
/// as [`keep_awake`] lets others look for work; in rayon's own `join` it would go to sleep. Nothing is allocated.
pub(super) fn join(first: impl FnOnce() + Send, second: impl FnOnce() + Send) {
    let done = AtomicBool::new(false);
    let first = || {
        first();
        until(PATIENCE, look, || done.load(Ordering::Acquire));
    };
    let second = || {
        // Also where it panics.
        let _ended = Ended(&done);
        second();
    };
    busy(|| rayon::join(first, second));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dispatch::{Divide, parallel};
    use rayon::ThreadPoolBuilder;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    /// Counts its units.
    struct Count<'a>(usize, &'a AtomicUsize);

    impl Divide for Count<'_> {
        fn units(&self) -> usize {
            self.0
        }
        fn divide(self, at: usize) -> (Self, Self) {
            (Count(at, self.1), Count(self.0 - at, self.1))
        }
        fn run(self) {
            self.1.fetch_add(self.0, Ordering::Relaxed);
        }
    }

    /// A step of some stages, with other ways of rayon among them; gives how many units were done.
    fn step() -> usize {
        let sum = AtomicUsize::new(0);
        for _ in 0..10 {
            parallel(Count(100, &sum), 1);
            rayon::scope(|scope| scope.spawn(|_| parallel(Count(1, &sum), 1)));
            keep_awake(|| parallel(Count(10, &sum), 1));
        }
        sum.into_inner()
    }

    #[test]
    fn everything_is_done_with_any_number_of_threads() {
        for threads in [1, 2, 3, 8] {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for _ in 0..50 {
                assert_eq!(pool.install(|| keep_awake(step)), 1110, "{threads} threads");
            }
            // Several steps at once, each of which waits for what others are about to do.
            let total = AtomicUsize::new(0);
            pool.scope(|scope| {
                for _ in 0..50 {
                    scope.spawn(|_| {
                        total.fetch_add(keep_awake(step), Ordering::Relaxed);
                    });
                }
            });
            assert_eq!(total.into_inner(), 50 * 1110, "{threads} threads");
        }
    }

    #[test]
    fn outside_of_a_pool_it_is_just_done() {
        assert_eq!(keep_awake(step), 1110);
    }

    #[test]
    fn both_are_done_once() {
        for threads in [1, 2, 3] {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            for (first, second) in [(0, 0), (0, 3), (3, 0)] {
                let count = AtomicUsize::new(0);
                let piece = |ms, units| {
                    thread::sleep(Duration::from_millis(ms));
                    count.fetch_add(units, Ordering::Relaxed);
                };
                pool.install(|| join(|| piece(first, 1), || piece(second, 10)));
                assert_eq!(count.into_inner(), 11, "{threads} threads, {first} and {second} ms");
            }
        }
    }

    #[test]
    fn looking_ends_where_it_is_enough_or_was_long_in_vain() {
        let calls = Cell::new(0);
        until(Duration::MAX, || false, || calls.replace(calls.get() + 1) == 100);
        assert_eq!(calls.get(), 101);
        // What is found makes patience begin anew.
        let (start, found) = (Instant::now(), Duration::from_millis(5));
        until(Duration::from_millis(1), || start.elapsed() < found, || false);
        assert!(start.elapsed() > found);
    }

    #[test]
    fn a_panic_of_either_comes_out() {
        let pool = ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        for which in [0, 1] {
            let piece = |i| assert!(i != which, "on purpose");
            let fails = || pool.install(|| join(|| piece(0), || piece(1)));
            assert!(catch_unwind(AssertUnwindSafe(fails)).is_err());
        }
        assert_eq!(pool.install(|| keep_awake(step)), 1110);
    }

    #[test]
    fn a_panic_comes_out() {
        let pool = ThreadPoolBuilder::new().num_threads(3).build().unwrap();
        let fails = || pool.install(|| keep_awake(|| panic!("on purpose")));
        assert!(catch_unwind(AssertUnwindSafe(fails)).is_err());
        assert_eq!(pool.install(|| keep_awake(step)), 1110);
    }

    /// The threads look for work, and are no longer busy with that afterwards.
    #[test]
    fn others_are_awake() {
        let pool = ThreadPoolBuilder::new().num_threads(4).build().unwrap();
        let all_began = || {
            let watch = Watch { others: 3, ..Watch::default() };
            beside(3, &watch, || {
                let _ended = Ended(&watch.done);
                let start = Instant::now();
                while watch.begun.load(Ordering::Relaxed) < 3 && start.elapsed().as_secs() < 10 {
                    thread::yield_now();
                }
            });
            watch.begun.into_inner()
        };
        assert_eq!(pool.install(all_began), 3);
        assert!(pool.broadcast(|_| BUSY.get()).into_iter().all(|busy| !busy));
    }
}
