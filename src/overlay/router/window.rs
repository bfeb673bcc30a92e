//! Which of the last numbers of a sender have been here: a sliding window, as in RFC 6479.

use std::collections::VecDeque;
use std::mem;

const WORDS: usize = 16;

/// The bits of the last 960 numbers or more; those before count as seen.
#[derive(Debug, Clone, Default)]
pub(super) struct Window {
    /// The largest number so far.
    last: u64,
    /// Boxed, as maps keep room for more entries than they have.
    bits: Box<[u64; WORDS]>,
}

impl Window {
    /// Takes a number, and says whether it is new.
    pub(super) fn accept(&mut self, number: u64) -> bool {
        let (block, last_block) = (number / 64, self.last / 64);
        if block + WORDS as u64 <= last_block {
            return false;
        }
        if block > last_block {
            // The words between are those of numbers that have not been here.
            for skipped in 1..=(block - last_block).min(WORDS as u64) {
                self.bits[((last_block + skipped) % WORDS as u64) as usize] = 0;
            }
        }
        self.last = self.last.max(number);
        let (word, bit) = ((block % WORDS as u64) as usize, 1 << (number % 64));
        let is_new = self.bits[word] & bit == 0;
        self.bits[word] |= bit;
        is_new
    }
}

/// The random part of a nonce: a sender has another one in each of its runs, and when it had forgotten us.
pub(super) type Epoch = [u8; 6];

/// Epochs of a source that are over and remembered as such.
const MAX_RETIRED: usize = 32;

/// The windows of one source: those of its last two epochs. What is of an earlier one has been here.
#[derive(Debug, Default)]
pub(super) struct Windows {
    before: Option<(Epoch, Window)>,
    last: Option<(Epoch, Window)>,
    retired: VecDeque<Epoch>,
}

impl Windows {
    /// Takes a nonce, and says whether it is new.
    pub(super) fn accept(&mut self, epoch: Epoch, number: u64) -> bool {
        for (known, window) in [&mut self.last, &mut self.before].into_iter().flatten() {
            if *known == epoch {
                return window.accept(number);
            }
        }
        if self.retired.contains(&epoch) {
            return false;
        }
        if let Some((retired, _)) = mem::replace(&mut self.before, self.last.take()) {
            if self.retired.len() == MAX_RETIRED {
                self.retired.pop_front();
            }
            self.retired.push_back(retired);
        }
        self.last.insert((epoch, Window::default())).1.accept(number)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const BITS: u64 = WORDS as u64 * 64;

    #[test]
    fn each_number_once() {
        let mut window = Window::default();
        assert!(window.accept(0) && !window.accept(0));
        assert!(window.accept(5) && window.accept(3) && !window.accept(5) && !window.accept(3));
        assert!(window.accept(BITS * 3) && !window.accept(5) && !window.accept(6), "too old");
        assert!(window.accept(BITS * 3 - 900) && !window.accept(BITS * 3 - 900));
        assert!(window.accept(u64::MAX) && !window.accept(u64::MAX));
    }

    #[test]
    fn epochs_that_are_over_do_not_come_back() {
        let mut windows = Windows::default();
        for epoch in 0..20 {
            assert!(windows.accept([epoch; 6], 0) && windows.accept([epoch; 6], 1));
            // What is still under way from the one before.
            assert!(epoch == 0 || windows.accept([epoch - 1; 6], 2));
            assert!((0..=epoch).all(|old| !windows.accept([old; 6], 0)));
        }
        assert!(!windows.accept([5; 6], 77));
        (20..250).for_each(|epoch| assert!(windows.accept([epoch; 6], 0)));
        assert_eq!(windows.retired.len(), MAX_RETIRED);
    }

    proptest! {
        #[test]
        fn never_twice_and_always_when_close(steps in prop::collection::vec((0u64..1200, any::<bool>()), 1..400)) {
            let (mut window, mut seen, mut last) = (Window::default(), HashSet::new(), 5000u64);
            window.accept(last);
            seen.insert(last);
            for (step, forwards) in steps {
                let number = if forwards { last + step / 8 } else { last - step };
                let is_new = window.accept(number);
                prop_assert!(!is_new || !seen.contains(&number));
                if last.saturating_sub(number) < BITS - 64 {
                    prop_assert_eq!(is_new, !seen.contains(&number));
                }
                seen.insert(number);
                last = last.max(number);
            }
        }
    }
}
