//! Which of the parts of one task have been woken.
//!
//! What one part wakes in another, as the writer does the driver with each message, then costs no trip through the
//! scheduler, and a part that nobody has woken is not polled.
//!
//! The crate's driver asks to be polled again whenever it waits for its only socket, as `FuturesUnordered` is fair to the
//! others that it might have. There is nothing for it to find, so what it asks for during its own poll does not count.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Wake, Waker};

use futures_util::task::AtomicWaker;

pub(super) const WRITER: u8 = 1;
pub(super) const DRIVER: u8 = 2;
pub(super) const READER: u8 = 4;
/// The task is being polled: who is woken now is polled before that ends.
const POLLING: u8 = 8;

/// The parts that have been woken, and [`POLLING`].
#[derive(Default)]
struct Wakes {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Wakers {
    /// The task that is to be woken from now on, when no poll is going on.
    pub(super) fn register(&self, task: &Waker) {
        self.wakes.task.register(task);
    }

    /// Ends a poll: from now on who is woken wakes the task. Fails if a part has been woken meanwhile.
    pub(super) fn leave(&self) -> bool {
        self.wakes.state.compare_exchange(POLLING, 0, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Begins or continues a poll. Returns the parts that have been woken since the last call.
    pub(super) fn take(&self) -> u8 {
        self.wakes.state.swap(POLLING, Ordering::AcqRel) & !POLLING
    }
}

struct PartWaker {
    part: u8,
    wakes: Arc<Wakes>,
}

impl Wake for PartWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.part == DRIVER && Driving::now() {
            return;
        }
        if self.wakes.state.fetch_or(self.part, Ordering::AcqRel) == 0 {
            self.wakes.task.wake();
        }
    }
}

thread_local! {
    /// Whether this thread is polling the crate's driver.
    static DRIVING: Cell<bool> = const { Cell::new(false) };
}

/// Says that this thread is polling the crate's driver, as long as it lives.
pub(super) struct Driving;

impl Driving {
    pub(super) fn begin() -> Self {
        DRIVING.set(true);
        Self
    }

    /// Whether it lives on this thread.
    pub(super) fn now() -> bool {
        DRIVING.get()
    }
}

impl Drop for Driving {
    fn drop(&mut self) {
        DRIVING.set(false);
    }
}

/// The wakers of the three parts.
pub(super) struct Wakers {
    wakes: Arc<Wakes>,
    pub(super) writer: Waker,
    pub(super) driver: Waker,
    pub(super) reader: Waker,
}

impl Wakers {
    pub(super) fn new() -> Self {
        let wakes = Arc::<Wakes>::default();
        let waker = |part| Waker::from(Arc::new(PartWaker { part, wakes: wakes.clone() }));
        Self { writer: waker(WRITER), driver: waker(DRIVER), reader: waker(READER), wakes }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn counted(wakers: &Wakers) -> Arc<Count> {
        let count = Arc::<Count>::default();
        wakers.register(&Waker::from(count.clone()));
        count
    }

    #[test]
    fn a_part_woken_during_a_poll_is_seen_in_it_and_does_not_wake_the_task() {
        let wakers = Wakers::new();
        let count = counted(&wakers);
        assert_eq!(wakers.take(), 0);
        wakers.driver.wake_by_ref();
        wakers.writer.wake_by_ref();
        assert!(!wakers.leave());
        assert_eq!(wakers.take(), DRIVER | WRITER);
        assert!(wakers.leave());
        assert_eq!(count.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn between_polls_the_first_that_is_woken_wakes_the_task() {
        let wakers = Wakers::new();
        let count = counted(&wakers);
        assert_eq!(wakers.take(), 0);
        assert!(wakers.leave());
        wakers.reader.wake_by_ref();
        wakers.driver.wake_by_ref();
        assert_eq!(count.0.load(Ordering::Relaxed), 1);
        assert_eq!(wakers.take(), READER | DRIVER);
    }

    #[test]
    fn what_the_driver_asks_of_itself_does_not_count() {
        let wakers = Wakers::new();
        assert_eq!(wakers.take(), 0);
        let driving = Driving::begin();
        wakers.driver.wake_by_ref();
        wakers.reader.wake_by_ref();
        let other = wakers.driver.clone();
        assert_eq!(wakers.take(), READER);
        std::thread::spawn(|| other.wake()).join().unwrap();
        assert_eq!(wakers.take(), DRIVER, "woken from elsewhere");
        drop(driving);
        wakers.driver.wake_by_ref();
        assert_eq!(wakers.take(), DRIVER);
    }
}
