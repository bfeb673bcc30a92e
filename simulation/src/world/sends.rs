//! What the simulated application sends, and what becomes of it.

use std::collections::HashMap;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use pmesh::overlay::OverlayId;
use pmesh::overlay::router::{Kind, SendId};

use super::{Peer, World};
use crate::queue::Micros;

/// About as long as a chat message.
const BODY_BYTES: usize = 100;

/// Names a message in the order of sending.
pub type Ticket = usize;

/// A message of the application.
#[derive(Debug, Clone)]
pub struct Send {
    /// Who has sent it.
    pub from: Peer,
    /// Who is to get it.
    pub to: Peer,
    /// When.
    pub at: Micros,
    /// How often it has arrived there.
    pub deliveries: u32,
    /// How many sends brought it there first.
    pub hops: u32,
    /// When that was.
    pub delivered_at: Micros,
    /// What the sender was told, if it wanted a confirmation.
    pub confirmed: Option<bool>,
}

#[derive(Debug, Default)]
pub(super) struct Sends {
    all: Vec<Send>,
    waiting: HashMap<(Peer, SendId), Ticket>,
}

impl Sends {
    pub(super) fn over(&mut self, peer: Peer, send: SendId, confirmed: bool) {
        if let Some(ticket) = self.waiting.remove(&(peer, send)) {
            self.all[ticket].confirmed = Some(confirmed);
        }
    }
}

impl World {
    /// Sends a message of 100 bytes. None if the sender is gone or its router refuses.
    pub fn send(&mut self, from: Peer, to: Peer, confirm: Option<Duration>) -> Option<Ticket> {
        let (ticket, id, now) = (self.sends.all.len(), self.id(to), self.instant());
        let mut body = BytesMut::zeroed(BODY_BYTES);
        (&mut body[..]).put_u64(ticket as u64);
        let router = self.nodes[from as usize].router.as_mut()?;
        let send = router.send(id, Kind::Binary, body.freeze(), confirm, now).ok()?;
        let at = self.now;
        self.sends.all.push(Send { from, to, at, deliveries: 0, hops: 0, delivered_at: 0, confirmed: None });
        if confirm.is_some() {
            self.sends.waiting.insert((from, send), ticket);
        }
        self.drain(from);
        Some(ticket)
    }

    /// What was sent since this many had been.
    pub fn sends_since(&self, ticket: Ticket) -> &[Send] {
        &self.sends.all[ticket..]
    }

    /// How many messages were sent.
    pub fn sends(&self) -> Ticket {
        self.sends.all.len()
    }

    pub(super) fn delivered(&mut self, peer: Peer, from: OverlayId, kind: Kind, body: &[u8]) {
        if kind == Kind::Signal {
            return self.signalled(peer, from, body);
        }
        let Some((ticket, _)) = body.split_first_chunk() else { return };
        let (hops, now) = (self.arriving.unwrap_or(0), self.now);
        if let Some(send) = self.sends.all.get_mut(u64::from_be_bytes(*ticket) as usize)
            && send.to == peer
        {
            if send.deliveries == 0 {
                (send.hops, send.delivered_at) = (hops.into(), now);
            }
            send.deliveries += 1;
        }
    }
}
