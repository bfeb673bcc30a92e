//! The original P as a peer: `internet@0.3.3`, lib/Connection.js and lib/WebRtcConnection.js, with its bugs.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::sim::{Owner, Sim};
use crate::protocol::signal::{Description, DescriptionKind};
use crate::transport::LinkEvent;

pub(super) struct Connection {
    address: String,
    /// The connection that carries its signalling.
    via: usize,
    end: u64,
    pub(super) open: bool,
    /// It offered, and no answer has been applied.
    expects_answer: bool,
    data: Value,
}

#[derive(Default)]
pub(super) struct Original {
    pub(super) connections: Vec<Connection>,
    /// By address. The first one stays, a second one to the same address is an orphan.
    pub(super) map: HashMap<String, usize>,
    /// Frames that made it throw: it does not know their type.
    pub(super) choked: usize,
}

impl Original {
    pub(super) fn new(end: u64) -> Self {
        let mut original = Self::default();
        original.add(Connection {
            address: "ws0".into(),
            via: 0,
            end,
            open: true,
            expects_answer: false,
            data: Value::Null,
        });
        original
    }

    fn add(&mut self, connection: Connection) -> usize {
        let index = self.connections.len();
        self.map.entry(connection.address.clone()).or_insert(index);
        self.connections.push(connection);
        index
    }

    pub(super) fn connection(&self, address: &str) -> usize {
        self.map[address]
    }

    /// Open connections to an address, whether it is in the map or not.
    pub(super) fn open(&self, address: &str) -> usize {
        self.connections.iter().filter(|connection| connection.open && connection.address == address).count()
    }

    /// Whether `getPeer(address)` gives an open connection.
    pub(super) fn has(&self, address: &str) -> bool {
        self.map.get(address).is_some_and(|index| self.connections[*index].open)
    }
}

impl Sim {
    fn original_connects(&mut self, host: usize, via: usize, to: &str, data: Value, offers: bool) -> u64 {
        let index = self.originals[&host].connections.len();
        let end = self.end(Owner::Original(host, index));
        let connection = Connection { address: to.into(), via, end, open: false, expects_answer: offers, data };
        self.originals.get_mut(&host).unwrap().add(connection);
        end
    }

    pub(super) fn original_dials(&mut self, host: usize, via: usize, to: &str, data: Value) {
        let end = self.original_connects(host, via, to, data, true);
        self.describe(end, DescriptionKind::Offer, false);
    }

    fn original_sends(&mut self, host: usize, connection: usize, frame: &Value) {
        let end = self.originals[&host].connections[connection].end;
        self.send(end, frame.to_string());
    }

    pub(super) fn original_hears(&mut self, host: usize, connection: usize, event: LinkEvent) {
        let it = &mut self.originals.get_mut(&host).unwrap().connections[connection];
        let (via, to) = (it.via, it.address.clone());
        match event {
            LinkEvent::Opened { .. } => it.open = true,
            LinkEvent::Closed(_) => {
                it.open = false;
                let original = self.originals.get_mut(&host).unwrap();
                if original.map.get(&to) == Some(&connection) {
                    original.map.remove(&to);
                }
            }
            LinkEvent::Description(description) => {
                let payload = match description.kind {
                    DescriptionKind::Offer => json!([3, description, it.data]),
                    DescriptionKind::Answer => json!([4, description]),
                };
                self.original_sends(host, via, &json!([6, to, payload]));
            }
            LinkEvent::Candidate(candidate) => self.original_sends(host, via, &json!([6, to, [5, candidate]])),
            LinkEvent::Frame(text) | LinkEvent::FrameOf { text, .. } => {
                let frame: Value = serde_json::from_str(&text).unwrap();
                self.original_reads(host, connection, &frame);
            }
            LinkEvent::Malformed => {}
        }
    }

    fn original_reads(&mut self, host: usize, connection: usize, frame: &Value) {
        let original = self.originals.get_mut(&host).unwrap();
        let peer = frame[1].as_str().unwrap_or_default();
        let known = original.map.get(peer).copied();
        match (frame[0].as_u64(), frame[2][0].as_u64()) {
            (Some(0), _) | (Some(7), Some(5)) => {}
            (Some(6), _) => {
                let from = original.connections[connection].address.clone();
                if let Some(index) = known.filter(|index| original.connections[*index].open) {
                    self.original_sends(host, index, &json!([7, from, frame[2]]));
                }
            }
            (Some(7), Some(3)) => {
                let offer: Description = serde_json::from_value(frame[2][1].clone()).unwrap();
                let end = self.original_connects(host, connection, peer, Value::Null, false);
                self.take_offer(end, &offer);
                self.describe(end, DescriptionKind::Answer, false);
            }
            (Some(7), Some(4)) => {
                let expecting = known.filter(|index| original.connections[*index].expects_answer);
                if let Some(index) = expecting {
                    original.connections[index].expects_answer = false;
                    let end = original.connections[index].end;
                    let answer: Description = serde_json::from_value(frame[2][1].clone()).unwrap();
                    if self.ends.contains_key(&end) {
                        self.take_answer(end, &answer);
                    }
                }
            }
            _ => original.choked += 1,
        }
    }
}
