//! A network of ports within the process: delay, a slow hop with a bounded queue, loss, and paths that change.

use std::collections::{BTreeMap, HashMap};
use std::future::poll_fn;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use tokio::time::{Instant, sleep_until};

use crate::identity::Identity;
use crate::lock::lock;
use crate::overlay::OverlayId;
use crate::overlay::packets::{PacketPort, PacketQueue, QueuedPort};
use crate::overlay::stream::Streams;

/// What happens to packets on their way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Path {
    pub(super) delay: Duration,
    /// Bytes in a second, and bytes that may wait at the slow hop before packets get lost.
    pub(super) hop: Option<(u64, u64)>,
    /// Of 1000 packets, so many get lost.
    pub(super) loss: u32,
    /// Of 1000 packets, so many get a bit changed.
    pub(super) forged: u32,
}

impl Path {
    pub(super) const fn of(millis: u64) -> Self {
        Self { delay: Duration::from_millis(millis), hop: None, loss: 0, forged: 0 }
    }

    pub(super) const fn hop(self, bytes_per_second: u64, queue: u64) -> Self {
        Self { hop: Some((bytes_per_second, queue)), ..self }
    }

    pub(super) const fn loss(self, per_mille: u32) -> Self {
        Self { loss: per_mille, ..self }
    }
}

#[derive(Debug)]
pub(super) struct Net {
    path: Mutex<Path>,
    ports: Mutex<HashMap<OverlayId, [Arc<PacketQueue>; 2]>>,
    pub(super) lost: AtomicU64,
}

impl Net {
    pub(super) fn new(path: Path) -> Arc<Self> {
        Arc::new(Self { path: Mutex::new(path), ports: Mutex::default(), lost: AtomicU64::new(0) })
    }

    pub(super) fn set(&self, path: Path) {
        *lock(&self.path) = path;
    }

    /// A port with this id. The one that had it before gets nothing more, and what it sends is lost.
    pub(super) fn attach(self: &Arc<Self>, id: OverlayId) -> Arc<dyn PacketPort> {
        let outbound = Arc::new(PacketQueue::new(64, 4 << 20));
        let inbound = Arc::new(PacketQueue::new(1024, 16 << 20));
        let both = [Arc::clone(&outbound), Arc::clone(&inbound)];
        if let Some(before) = lock(&self.ports).insert(id, both) {
            // A process that has died says nothing: its tasks here must not either.
            before[0].close();
        }
        tokio::spawn(Arc::clone(self).carry(id, Arc::clone(&outbound)));
        Arc::new(QueuedPort::new(id, outbound, inbound))
    }

    /// Streams of the peer with this secret.
    pub(super) fn peer(self: &Arc<Self>, secret: u8) -> (OverlayId, Streams) {
        let identity = Identity::from_secret([secret; 32]);
        let id = OverlayId::of(&identity.peer_id());
        (id, Streams::new(&identity, self.attach(id)))
    }

    async fn carry(self: Arc<Self>, from: OverlayId, outbound: Arc<PacketQueue>) {
        let mut rng = StdRng::seed_from_u64(1);
        let mut hop_is_free = Instant::now();
        let mut on_their_way = BTreeMap::new();
        let mut number = 0;
        loop {
            let next = on_their_way.first_key_value().map(|((due, _), _)| *due);
            let (to, mut packet) = tokio::select! {
                biased;
                () = sleep_until(next.unwrap_or(hop_is_free)), if next.is_some() => {
                    let (to, packet) = on_their_way.pop_first().unwrap().1;
                    self.deliver(from, to, packet);
                    continue;
                }
                sent = poll_fn(|cx| outbound.poll_pop(cx)) => match sent {
                    Some(sent) => sent,
                    None => break,
                },
            };
            let Path { delay, hop, loss, forged } = *lock(&self.path);
            let now = Instant::now();
            let mut due = now + delay;
            let mut is_lost = rng.random_range(0..1000) < loss;
            if rng.random_range(0..1000) < forged {
                let mut bytes = packet.to_vec();
                let at = rng.random_range(0..bytes.len());
                bytes[at] ^= 1 << rng.random_range(0..8);
                packet = bytes.into();
            }
            if let Some((rate, queue)) = hop {
                hop_is_free = hop_is_free.max(now);
                let waiting = (hop_is_free - now).as_secs_f64() * rate as f64;
                is_lost |= waiting > queue as f64;
                if !is_lost {
                    hop_is_free += Duration::from_secs_f64(packet.len() as f64 / rate as f64);
                    due = hop_is_free + delay;
                }
            }
            if is_lost {
                self.lost.fetch_add(1, Ordering::Relaxed);
            } else if due <= now {
                self.deliver(from, to, packet);
            } else {
                number += 1;
                on_their_way.insert((due, number), (to, packet));
            }
        }
    }

    fn deliver(&self, from: OverlayId, to: OverlayId, packet: Bytes) {
        let inbound = lock(&self.ports).get(&to).map(|[_, inbound]| Arc::clone(inbound));
        if inbound.is_none_or(|inbound| inbound.try_push(from, packet).is_err()) {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}
