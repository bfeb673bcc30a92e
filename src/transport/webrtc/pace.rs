//! How long the crate's driver sleeps, and how much it takes at once.
//!
//! - Once the link is open the driver gets datagrams in portions, between which the reader and the application have their
//!   turn: so a grant goes out while more arrives, and both ends work at the same time. Not where the window is small: the
//!   other end would wait all the same, and more turns cost more.
//! - The crate parks what arrives while 256 messages wait to be read, and announces a smaller window; once that is closed
//!   it stays so for a second and more. Between pmesh peers credit prevents that. Of a peer without credit, the driver gets
//!   nothing while something may be parked.
//! - During set-up the driver is kept from sleeping on what it has just queued. It writes, handles events, reads, and
//!   sleeps; what handling events has queued would wait for the next timer, up to 200 ms, three times in a row.
//! - A link on which no record has passed for some seconds sleeps from keepalive to keepalive, instead of the 200 ms after
//!   which ICE wishes to look around. What is sent or arrives wakes it all the same; a late retransmission may be later by
//!   as much. Once a keepalive is due and nothing has been heard, it looks around again: so it notices in time that the
//!   other side is gone.

use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::time::Instant;
use webrtc::runtime::{RecvMeta, Transmit};

/// Sleeps that end at once after something has arrived, until the link is open.
const KICKS: u8 = 2;

/// Datagrams that the driver gets in one turn, once the link is open. The last portion may exceed it by as much as
/// the kernel hands over at once.
const PORTION: usize = 64;

/// The smallest SCTP window, in bytes, with which there are portions.
const PORTIONED_WINDOW: u32 = 1024 * 1024;

/// Longest sleep while the link is being set up, and for how long after the latest step.
const HURRIED_SLEEP: Duration = Duration::from_millis(1);
const HURRY: Duration = Duration::from_secs(2);

/// Longest sleep of a link that is not open and in no hurry: an offer nobody has answered yet.
const PATIENT_SLEEP: Duration = Duration::from_millis(50);

/// How long no record must have passed until a link counts as quiet: in this time the first two retransmissions of SCTP
/// would have passed.
const QUIET_AFTER: Duration = Duration::from_secs(4);

/// How long the driver may sleep.
#[derive(Debug)]
pub(super) struct Pace {
    created: Instant,
    settled: AtomicBool,
    /// Sleeps that are still to end at once.
    kicks: AtomicU8,
    /// The sleep that goes on now is to end, because something may be parked.
    roused: AtomicBool,
    /// The driver has still to be polled for that.
    poll_due: AtomicBool,
    /// How many datagrams the driver gets in one turn.
    portion_size: AtomicUsize,
    /// Datagrams that the driver may still have in this turn.
    portion: AtomicUsize,
    /// How long a quiet link sleeps.
    keepalive: Duration,
    /// Whether a record has passed since the latest sleep, and when one had, in milliseconds since `created`.
    busy: AtomicBool,
    busy_at: AtomicU64,
    /// Whether anything at all has arrived since the latest sleep.
    heard: AtomicBool,
    /// End of the hurry, in milliseconds since `created`.
    hurry_until: AtomicU64,
}

impl Pace {
    /// A pace for a link that starts to be made.
    pub(super) fn new(keepalive: Duration) -> Self {
        Self {
            created: Instant::now(),
            settled: AtomicBool::new(false),
            kicks: AtomicU8::new(0),
            roused: AtomicBool::new(false),
            poll_due: AtomicBool::new(false),
            portion_size: AtomicUsize::new(usize::MAX),
            portion: AtomicUsize::new(usize::MAX),
            keepalive,
            busy: AtomicBool::new(true),
            busy_at: AtomicU64::new(0),
            heard: AtomicBool::new(false),
            hurry_until: AtomicU64::new(0),
        }
    }

    /// Datagrams go out.
    pub(super) fn sent(&self, transmit: &Transmit<'_>) {
        self.passes(transmit.contents, transmit.segment_size.unwrap_or(transmit.contents.len()));
    }

    /// Datagrams have arrived.
    pub(super) fn received(&self, buffer: &[u8], meta: &RecvMeta) {
        self.passes(&buffer[..meta.len.min(buffer.len())], meta.stride);
        self.arrived(meta.len.div_ceil(meta.stride.max(1)));
    }

    /// So many datagrams have arrived: what they cause must not wait for a timer.
    fn arrived(&self, datagrams: usize) {
        if !self.settled.load(Ordering::Relaxed) {
            self.kicks.store(KICKS, Ordering::Relaxed);
        }
        self.heard.store(true, Ordering::Relaxed);
        let left = self.portion.load(Ordering::Relaxed);
        self.portion.store(left.saturating_sub(datagrams), Ordering::Relaxed);
    }

    /// Datagrams of `stride` bytes each pass. Only those with DTLS records count: ICE checks the path of a quiet link too.
    fn passes(&self, datagrams: &[u8], stride: usize) {
        if datagrams.chunks(stride.max(1)).any(carries_record) {
            self.busy.store(true, Ordering::Relaxed);
        }
    }

    /// From now on, datagrams come in portions, if the SCTP window of this side is large enough.
    pub(super) fn portion(&self, window: u32) {
        if window >= PORTIONED_WINDOW {
            self.portion_size.store(PORTION, Ordering::Relaxed);
        }
    }

    /// Whether the driver has had its portion.
    pub(super) fn is_sated(&self) -> bool {
        self.portion.load(Ordering::Relaxed) == 0
    }

    /// A turn of the driver begins.
    pub(super) fn begin_turn(&self) {
        let portion = self.portion_size.load(Ordering::Relaxed);
        self.portion.store(if self.is_roused() { 0 } else { portion }, Ordering::Relaxed);
    }

    /// A step of the set-up has been made.
    pub(super) fn hurry(&self) {
        let until = self.created.elapsed() + HURRY;
        self.hurry_until.store(until.as_millis() as u64, Ordering::Relaxed);
    }

    fn age(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.created).as_millis() as u64
    }

    /// The link is open: sleep as the driver wishes.
    pub(super) fn settle(&self) {
        self.settled.store(true, Ordering::Relaxed);
    }

    /// Ends the driver's present sleep. For the pump only: the driver notices because it is polled along with it.
    pub(super) fn rouse(&self) {
        self.roused.store(true, Ordering::Relaxed);
        self.poll_due.store(true, Ordering::Relaxed);
    }

    /// Whether the sleep that goes on is to end. Says so once.
    pub(super) fn take_rousing(&self) -> bool {
        self.is_roused() && self.roused.swap(false, Ordering::Relaxed)
    }

    /// Whether the driver has to be polled again so that it notices. Says so once.
    pub(super) fn take_poll_due(&self) -> bool {
        self.poll_due.load(Ordering::Relaxed) && self.poll_due.swap(false, Ordering::Relaxed)
    }

    fn is_roused(&self) -> bool {
        self.roused.load(Ordering::Relaxed)
    }

    /// How long to sleep from now on instead of `wish`.
    pub(super) fn sleep(&self, wish: Duration, now: Instant) -> Duration {
        if self.settled.load(Ordering::Relaxed) {
            return self.stretch(wish, self.age(now));
        }
        let kicks = self.kicks.load(Ordering::Relaxed);
        if kicks > 0 {
            self.kicks.store(kicks - 1, Ordering::Relaxed);
            return Duration::ZERO;
        }
        let hurried = self.age(now) < self.hurry_until.load(Ordering::Relaxed);
        wish.min(if hurried { HURRIED_SLEEP } else { PATIENT_SLEEP })
    }

    fn stretch(&self, wish: Duration, now: u64) -> Duration {
        let heard = self.heard.swap(false, Ordering::Relaxed);
        if self.busy.swap(false, Ordering::Relaxed) {
            self.busy_at.store(now, Ordering::Relaxed);
            return wish;
        }
        let silence = Duration::from_millis(now.saturating_sub(self.busy_at.load(Ordering::Relaxed)));
        if silence > QUIET_AFTER && heard { wish.max(self.keepalive) } else { wish }
    }
}

/// Whether there is a DTLS record in a datagram: by itself, or as a TURN server relays it. On a channel it comes after
/// the number and the length; Send and Data indications are for the time before that, and count whatever they carry.
fn carries_record(datagram: &[u8]) -> bool {
    matches!(datagram, [20..64, ..] | [64..80, _, _, _, 20..64, ..] | [0, 0x16 | 0x17, ..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const WISH: Duration = Duration::from_millis(200);
    const KEEPALIVE: Duration = Duration::from_secs(5);

    fn pace() -> Pace {
        Pace::new(KEEPALIVE)
    }

    #[test]
    fn what_arrives_during_set_up_is_answered_at_once() {
        let pace = pace();
        pace.hurry();
        assert_eq!(pace.sleep(WISH, Instant::now()), HURRIED_SLEEP);
        pace.arrived(1);
        assert_eq!(pace.sleep(WISH, Instant::now()), Duration::ZERO);
        assert_eq!(pace.sleep(WISH, Instant::now()), Duration::ZERO);
        assert_eq!(pace.sleep(WISH, Instant::now()), HURRIED_SLEEP);
    }

    #[test]
    fn an_open_link_sleeps_as_it_likes() {
        let pace = pace();
        pace.hurry();
        pace.settle();
        pace.arrived(1);
        assert_eq!(pace.sleep(WISH, Instant::now()), WISH);
    }

    #[test]
    fn an_unanswered_offer_does_not_spin() {
        assert_eq!(pace().sleep(WISH, Instant::now()), PATIENT_SLEEP);
    }

    const CHECK: &[u8] = &[0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42];
    const RECORD: &[u8] = &[23, 254, 253, 0, 1];

    async fn quiet() -> Pace {
        let pace = pace();
        pace.settle();
        assert_eq!(pace.sleep(WISH, Instant::now()), WISH);
        tokio::time::advance(QUIET_AFTER + WISH).await;
        pace
    }

    /// How long a quiet link sleeps after this has arrived.
    async fn sleep_after(datagrams: &[u8], stride: usize) -> Duration {
        let pace = quiet().await;
        pace.passes(datagrams, stride);
        pace.arrived(1);
        pace.sleep(WISH, Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_link_sleeps_until_its_keepalive_as_long_as_no_record_passes() {
        assert_eq!(sleep_after(CHECK, 8).await, KEEPALIVE, "a check of the path is no record");
        assert_eq!(sleep_after(RECORD, 5).await, WISH);
        assert_eq!(sleep_after(&[CHECK, RECORD].concat(), 8).await, WISH, "behind a check");
        assert_eq!(sleep_after(&[], 0).await, KEEPALIVE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_link_through_a_turn_server_too() {
        let on_channel = |data: &[u8]| [&[0x40, 1, 0, data.len() as u8], data].concat();
        assert_eq!(sleep_after(&on_channel(CHECK), 12).await, KEEPALIVE);
        assert_eq!(sleep_after(&on_channel(RECORD), 9).await, WISH);
        assert_eq!(sleep_after(&on_channel(&[]), 4).await, KEEPALIVE);
        assert_eq!(sleep_after(&[0, 0x16, 0, 0], 4).await, WISH, "sent before there is a channel");
        assert_eq!(sleep_after(&[0, 0x17, 0, 0], 4).await, WISH);
        assert_eq!(sleep_after(&[1, 4, 0, 0], 4).await, KEEPALIVE, "a refresh");
    }

    #[tokio::test(start_paused = true)]
    async fn a_link_is_not_quiet_soon_after_a_record_however_much_else_arrives() {
        let pace = quiet().await;
        pace.passes(RECORD, 5);
        assert_eq!(pace.sleep(WISH, Instant::now()), WISH);
        for _ in 0..1000 {
            pace.passes(CHECK, 8);
            pace.arrived(1);
            assert_eq!(pace.sleep(WISH, Instant::now()), WISH);
        }
        tokio::time::advance(QUIET_AFTER + WISH).await;
        pace.arrived(1);
        assert_eq!(pace.sleep(WISH, Instant::now()), KEEPALIVE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_link_that_hears_nothing_looks_around() {
        let pace = quiet().await;
        pace.arrived(1);
        assert_eq!(pace.sleep(WISH, Instant::now()), KEEPALIVE);
        // The other side dies. The sleep ends, a keepalive goes out, and no answer comes.
        for _ in 0..100 {
            assert_eq!(pace.sleep(WISH, Instant::now()), WISH);
        }
        pace.arrived(1);
        assert_eq!(pace.sleep(WISH, Instant::now()), KEEPALIVE);
    }

    #[test]
    fn the_driver_gets_portions_and_none_while_something_may_be_parked() {
        let pace = pace();
        pace.arrived(1000);
        assert!(!pace.is_sated(), "no limit during set-up");
        pace.portion(PORTIONED_WINDOW - 1);
        pace.begin_turn();
        pace.arrived(1000);
        assert!(!pace.is_sated(), "nor with a small window");
        pace.portion(PORTIONED_WINDOW);
        pace.begin_turn();
        pace.arrived(PORTION - 1);
        assert!(!pace.is_sated());
        pace.arrived(PORTION);
        assert!(pace.is_sated());
        pace.begin_turn();
        assert!(!pace.is_sated());
        pace.rouse();
        pace.begin_turn();
        assert!(pace.is_sated());
    }
}
