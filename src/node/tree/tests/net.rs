//! The network of the simulation: links and their ends, a model of WebRTC, and onramps.

use std::time::Duration;

use rand::RngExt;

use super::super::LinkId;
use super::lone::{address, candidate_of, sdp};
use super::sim::{End, Event, Owner, Sim, name};
use crate::error::CloseReason;
use crate::protocol::frame::{self, Frame, Undeliverable};
use crate::protocol::signal::{Description, DescriptionKind};
use crate::transport::{Command, LinkEvent, Remote, Target};

/// How long it takes WebRTC to find out that nobody is at the other end.
const LOST_AFTER: Duration = Duration::from_secs(15);

impl Sim {
    pub(super) fn join(&mut self, end: u64, host: usize, onramp: usize, extension: bool) {
        let other = self.end(Owner::Onramp(onramp, host));
        self.onramps[onramp].clients.insert(host, other);
        self.ends.get_mut(&end).unwrap().extension = extension && self.onramps[onramp].extension;
        self.ends.get_mut(&other).unwrap().extension = extension && self.onramps[onramp].extension;
        self.ends.get_mut(&end).unwrap().partner = Some(other);
        self.establish(other, end);
    }

    pub(super) fn end(&mut self, owner: Owner) -> u64 {
        self.next += 1;
        let busy_until = self.now;
        self.ends.insert(
            self.next,
            End { owner, partner: None, up: false, extension: false, confirmation: None, busy_until },
        );
        self.next
    }

    pub(super) fn start_link(&mut self, host: usize, link: LinkId, target: Target) {
        let end = self.end(Owner::Tree(host, link));
        self.hosts[host].as_mut().unwrap().links.insert(link, end);
        match target {
            Target::Url(url) => {
                let onramp = url.strip_prefix("ws").unwrap().parse().unwrap();
                self.join(end, host, onramp, true);
            }
            Target::Offer => {
                let early = self.rng.random();
                self.describe(end, DescriptionKind::Offer, early);
            }
            Target::Answer { offer, remote } => {
                self.ends.get_mut(&end).unwrap().extension = remote != Remote::Original;
                self.take_offer(end, &offer);
                let early = self.rng.random();
                self.describe(end, DescriptionKind::Answer, early);
            }
        }
    }

    /// An end learns who offered, and will find out if that is gone.
    pub(super) fn take_offer(&mut self, end: u64, offer: &Description) {
        let partner = described(offer);
        if self.ends.contains_key(&partner) {
            self.ends.get_mut(&end).unwrap().partner = Some(partner);
        } else {
            self.at(
                LOST_AFTER.as_millis() as u64,
                Event::Link(end, LinkEvent::Closed(CloseReason::Lost("ICE".into()))),
            );
        }
    }

    /// The end makes its description, with a candidate before it if `early`, and one after it.
    pub(super) fn describe(&mut self, end: u64, kind: DescriptionKind, early: bool) {
        let fragment = format!("u{end}");
        let delay = self.random(&self.net.setup.clone());
        if early {
            self.at(delay / 2, Event::Link(end, LinkEvent::Candidate(candidate_of(&fragment))));
        }
        self.at(delay, Event::Link(end, LinkEvent::Description(Description { kind, sdp: sdp(&fragment) })));
        self.at(delay + 5, Event::Link(end, LinkEvent::Candidate(candidate_of(&fragment))));
    }

    pub(super) fn command(&mut self, end: u64, command: Command) {
        match command {
            Command::Answer { description, remote } => {
                let it = self.ends.get_mut(&end).unwrap();
                it.extension = remote != Remote::Original;
                assert_eq!(it.partner, None, "one answer, to an offer");
                self.take_answer(end, &description);
            }
            Command::Confirm(confirmation) => self.ends.get_mut(&end).unwrap().confirmation = Some(confirmation),
            Command::Candidate(candidate) => {
                let it = &self.ends[&end];
                if let Some(partner) = it.partner {
                    assert_eq!(candidate, candidate_of(&format!("u{partner}")), "a candidate of the other description");
                }
            }
            Command::Close => {
                let latency = self.random(&self.net.latency.clone());
                self.at(latency, Event::Link(end, LinkEvent::Closed(CloseReason::Local)));
                self.ends.get_mut(&end).unwrap().up = false;
                self.tell_partner(end);
            }
        }
    }

    pub(super) fn take_answer(&mut self, end: u64, answer: &Description) {
        let partner = described(answer);
        self.ends.get_mut(&end).unwrap().partner = Some(partner);
        if self.ends.get(&partner).is_some_and(|other| other.partner == Some(end)) {
            self.establish(partner, end);
        } else {
            self.at(
                LOST_AFTER.as_millis() as u64,
                Event::Link(end, LinkEvent::Closed(CloseReason::Lost("ICE".into()))),
            );
        }
    }

    fn establish(&mut self, a: u64, b: u64) {
        for (end, partner) in [(a, b), (b, a)] {
            if let (Some(ours), Some(theirs)) = (&self.ends[&end].confirmation, &self.ends[&partner].confirmation) {
                assert_eq!(ours.check(theirs.message(), format!("u{partner}").as_bytes()), Ok(()));
            }
        }
        for (end, partner) in [(a, b), (b, a)] {
            let delay = self.random(&self.net.setup.clone());
            let at = self.now + Duration::from_millis(delay);
            let it = self.ends.get_mut(&end).unwrap();
            it.partner = Some(partner);
            it.up = true;
            it.busy_until = at;
            let extension = it.extension;
            self.at(delay, Event::Link(end, LinkEvent::Opened { extension }));
        }
    }

    pub(super) fn drop_end(&mut self, end: u64) {
        self.tell_partner(end);
        self.ends.remove(&end);
    }

    /// Whoever is at the other end hears of the end, or finds out.
    fn tell_partner(&mut self, end: u64) {
        let partners: Vec<_> = self
            .ends
            .iter()
            .filter(|(_, other)| other.partner == Some(end))
            .map(|(id, other)| (*id, other.up))
            .collect();
        for (partner, up) in partners {
            let (delay, reason) = if up {
                (self.random(&self.net.latency.clone()), CloseReason::Remote)
            } else {
                (LOST_AFTER.as_millis() as u64, CloseReason::Lost("ICE".into()))
            };
            self.at(delay, Event::Link(partner, LinkEvent::Closed(reason)));
        }
    }

    pub(super) fn send(&mut self, end: u64, text: String) {
        let End { partner: Some(partner), up: true, .. } = self.ends[&end] else { return };
        if !self.ends.contains_key(&partner) || self.rng.random_bool(self.net.loss) {
            return;
        }
        let copies = if self.rng.random_bool(self.net.duplication) { 2 } else { 1 };
        for _ in 0..copies {
            let latency = self.random(&self.net.latency.clone());
            let it = self.ends.get_mut(&partner).unwrap();
            let at = (self.now + Duration::from_millis(latency)).max(it.busy_until);
            if self.net.ordered {
                it.busy_until = at;
            }
            self.next += 1;
            self.queue.insert((at, self.next), Event::Link(partner, LinkEvent::Frame(text.clone())));
        }
    }

    fn onramp_relays(&mut self, onramp: usize, source: usize, text: &str) {
        let Ok(Frame::Relay { to, payload }) = Frame::parse(text) else { panic!("not for an onramp: {text}") };
        let clients = &self.onramps[onramp].clients;
        let destination = clients.iter().find(|(host, _)| to == *name(**host)).map(|(_, end)| *end);
        let back = clients[&source];
        match destination {
            Some(end) => self.send(end, frame::relayed(&address(&name(source)), payload.get())),
            None if self.ends[&back].extension => self.send(back, frame::undeliverable(&to, Undeliverable::Unknown)),
            None => {}
        }
    }

    pub(super) fn onramp_hears(&mut self, onramp: usize, host: usize, event: LinkEvent) {
        match event {
            LinkEvent::Frame(text) | LinkEvent::FrameOf { text, .. } => self.onramp_relays(onramp, host, &text),
            LinkEvent::Closed(_) => {
                self.onramps[onramp].clients.remove(&host);
                let rest: Vec<_> = self.onramps[onramp].clients.values().copied().collect();
                for client in rest {
                    if self.ends[&client].extension {
                        self.send(client, frame::left(&address(&name(host))));
                    }
                }
            }
            _ => {}
        }
    }
}

/// The end that a description names.
fn described(description: &Description) -> u64 {
    let fragment = description.sdp.rsplit(':').next().unwrap().trim();
    fragment.strip_prefix('u').unwrap().parse().unwrap()
}
