//! Who may transfer a file at present. Pure.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use pmesh::overlay::OverlayId;

use super::protocol::FileName;

/// Transfers that go on at once.
const TRANSFERS: usize = 16;
/// Of them, of one sender.
const OF_ONE_SENDER: usize = 4;
/// Streams of one sender that are answered at once: those of its transfers, and as many that are told to come later.
const STREAMS_OF_ONE_SENDER: usize = 2 * OF_ONE_SENDER;

/// The least that a transfer has to bring in a [`WHILE`], in bytes, when all places are taken.
const LEAST: u64 = 20 * 1024;
const WHILE: Duration = Duration::from_secs(20);

/// Files of which it was said that they wait. At it, the oldest is forgotten, and said again.
const SAID: usize = 256;

/// A file that is not taken now.
#[derive(Debug)]
pub(super) struct Later {
    pub(super) name: FileName,
    pub(super) why: Busy,
}

impl fmt::Display for Later {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.why.fmt(f)
    }
}

impl std::error::Error for Later {}

/// Why a file is not taken now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Busy {
    /// Somebody sends a file of that name.
    Name,
    /// The sender has enough transfers.
    Sender,
    /// All places are taken.
    Full,
}

impl fmt::Display for Busy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name => f.write_str("a file of that name is on its way already"),
            Self::Sender => write!(f, "{OF_ONE_SENDER} files of this sender are on their way already"),
            Self::Full => write!(f, "{TRANSFERS} files are on their way already"),
        }
    }
}

/// The places of all transfers.
#[derive(Debug, Clone, Default)]
pub(super) struct Places(Arc<Mutex<Taken>>);

#[derive(Debug, Default)]
struct Taken {
    transfers: usize,
    senders: HashMap<OverlayId, Sender>,
    /// Who waits with what, as was said.
    waiting: VecDeque<(OverlayId, FileName)>,
}

#[derive(Debug, Default)]
struct Sender {
    streams: usize,
    transfers: usize,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A stream of a sender is answered; `None` if it has too many.
    pub(super) fn attend(&self, sender: OverlayId) -> Option<Attended> {
        let mut taken = self.lock();
        let of_sender = taken.senders.entry(sender).or_default();
        if of_sender.streams >= STREAMS_OF_ONE_SENDER {
            return None;
        }
        of_sender.streams += 1;
        Some(Attended { places: self.clone(), sender, transfers: false })
    }

    /// Whether somebody has to wait.
    pub(super) fn is_full(&self) -> bool {
        self.lock().transfers >= TRANSFERS
    }
}

/// A stream that is answered, until this is dropped.
#[derive(Debug)]
pub(super) struct Attended {
    places: Places,
    sender: OverlayId,
    transfers: bool,
}

impl Attended {
    /// Takes a place for a transfer, once, until it is [over](Self::transferred).
    ///
    /// # Errors
    ///
    /// [`Busy::Sender`], [`Busy::Full`].
    pub(super) fn transfer(&mut self) -> Result<(), Busy> {
        let mut taken = self.places.lock();
        let is_full = taken.transfers >= TRANSFERS;
        let of_sender = taken.senders.entry(self.sender).or_default();
        if of_sender.transfers >= OF_ONE_SENDER {
            return Err(Busy::Sender);
        }
        if is_full {
            return Err(Busy::Full);
        }
        of_sender.transfers += 1;
        taken.transfers += 1;
        self.transfers = true;
        Ok(())
    }

    /// The transfer is over, if there was one. The stream is still to be answered.
    pub(super) fn transferred(&mut self) {
        if std::mem::take(&mut self.transfers) {
            let mut taken = self.places.lock();
            taken.transfers -= 1;
            if let Some(of_sender) = taken.senders.get_mut(&self.sender) {
                of_sender.transfers -= 1;
            }
        }
    }

    /// Whether it is news that the sender has to wait with this file.
    pub(super) fn waits(&self, name: &FileName) -> bool {
        let mut taken = self.places.lock();
        let file = (self.sender, name.clone());
        if taken.waiting.contains(&file) {
            return false;
        }
        if taken.waiting.len() == SAID {
            taken.waiting.pop_front();
        }
        taken.waiting.push_back(file);
        true
    }

    /// It has not to wait any more.
    pub(super) fn goes_on(&self, name: &FileName) {
        self.places.lock().waiting.retain(|(sender, waiting)| (*sender, waiting) != (self.sender, name));
    }

    /// The places of all.
    pub(super) fn places(&self) -> &Places {
        &self.places
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        self.transferred();
        let mut taken = self.places.lock();
        if let Some(of_sender) = taken.senders.get_mut(&self.sender) {
            of_sender.streams -= 1;
            if of_sender.streams == 0 {
                taken.senders.remove(&self.sender);
            }
        }
    }
}

/// How fast a transfer is.
#[derive(Debug)]
pub(super) struct Speed {
    since: Instant,
    bytes: u64,
}

impl Speed {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, bytes: 0 }
    }

    /// So many bytes have come. Returns whether it was too slow lately to keep others waiting.
    pub(super) fn took(&mut self, bytes: usize, now: Instant) -> bool {
        self.bytes += bytes as u64;
        if now.saturating_duration_since(self.since) < WHILE {
            return false;
        }
        self.since = now;
        std::mem::take(&mut self.bytes) < LEAST
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sender(number: u8) -> OverlayId {
        OverlayId::from_bytes([number; 20])
    }

    fn transfers(places: &Places, sender: OverlayId) -> Result<Attended, Busy> {
        let mut attended = places.attend(sender).unwrap();
        attended.transfer().map(|()| attended)
    }

    #[test]
    fn no_sender_has_all_places_and_they_come_back() {
        let places = Places::default();
        let mut held = Vec::new();
        for number in 0..4 {
            assert!(!places.is_full());
            held.extend((0..OF_ONE_SENDER).map(|_| transfers(&places, sender(number)).unwrap()));
        }
        assert!(places.is_full());
        assert_eq!(transfers(&places, sender(0)).unwrap_err(), Busy::Sender);
        assert_eq!(transfers(&places, sender(9)).unwrap_err(), Busy::Full);
        drop(held.pop());
        assert_eq!(transfers(&places, sender(0)).unwrap_err(), Busy::Sender);
        drop(transfers(&places, sender(9)).unwrap());
        drop(held);
        assert!(places.lock().senders.is_empty() && places.lock().transfers == 0);
    }

    #[test]
    fn a_sender_has_so_many_streams_and_no_more() {
        let places = Places::default();
        let held: Vec<_> = (0..STREAMS_OF_ONE_SENDER).map(|_| places.attend(sender(1)).unwrap()).collect();
        assert!(places.attend(sender(1)).is_none());
        assert!(places.attend(sender(2)).is_some());
        drop(held);
        assert!(places.attend(sender(1)).is_some());
    }

    #[test]
    fn that_a_file_waits_is_news_once() {
        let places = Places::default();
        let [one, two] = [1, 2].map(|number| places.attend(sender(number)).unwrap());
        let name = |number: usize| FileName::try_from(number.to_string()).unwrap();
        assert!(one.waits(&name(0)) && two.waits(&name(0)) && one.waits(&name(1)));
        assert!(!one.waits(&name(0)) && !two.waits(&name(0)) && !one.waits(&name(1)));
        assert!((2..SAID).all(|number| one.waits(&name(number))));
        assert!(one.waits(&name(0)), "it was forgotten");
        assert_eq!(places.lock().waiting.len(), SAID);
    }

    #[test]
    fn who_brings_next_to_nothing_is_too_slow() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut speed = Speed::new(start);
        assert!(!speed.took(1, at(5)) && !speed.took(1, at(19)));
        assert!(speed.took(1, at(20)));
        assert!(!speed.took(LEAST as usize, at(39)), "a new while has begun");
        assert!(!speed.took(0, at(40)));
        assert!(speed.took(LEAST as usize - 1, at(60)));
    }
}
