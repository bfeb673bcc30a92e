//! What the application is told.

use std::collections::BTreeMap;

use tokio::sync::broadcast;

use super::{Core, Undelivered};
use crate::lock::lock;
use crate::overlay::OverlayId;
use crate::overlay::error::{BootstrapFailure, OverlaySendError};
use crate::overlay::events::{OverlayEvent, OverlayEvents};
use crate::overlay::router::{Kind, SendFailure};

/// Events that a slow reader may be behind before it loses some.
const EVENTS: usize = 1024;

/// The way to those who listen.
#[derive(Debug)]
pub(super) struct Told {
    /// `None` when the overlay is over.
    events: Option<broadcast::Sender<OverlayEvent>>,
    /// What is wrong with the URLs to begin at: who listens later is told too.
    failed: BTreeMap<String, BootstrapFailure>,
}

impl Default for Told {
    fn default() -> Self {
        Self { events: Some(broadcast::Sender::new(EVENTS)), failed: BTreeMap::new() }
    }
}

impl Told {
    fn subscribe(&self) -> broadcast::Receiver<OverlayEvent> {
        match &self.events {
            Some(events) => events.subscribe(),
            // Over: a stream that ends at once.
            None => broadcast::Sender::new(1).subscribe(),
        }
    }

    fn emit(&self, event: OverlayEvent) {
        if let Some(events) = &self.events {
            // Nobody listens: nothing is lost that could not be read again.
            let _ = events.send(event);
        }
    }

    pub(super) fn end(&mut self) {
        self.events = None;
    }
}

impl Core {
    /// Events from now on.
    pub(in crate::overlay) fn events(&self) -> broadcast::Receiver<OverlayEvent> {
        lock(&self.told).subscribe()
    }

    /// Events from now on, and before them what is wrong.
    pub(in crate::overlay) fn all_events(&self) -> OverlayEvents {
        let told = lock(&self.told);
        let failed = told.failed.iter();
        let failed = failed.map(|(url, why)| OverlayEvent::BootstrapFailed { url: shown(url), why: why.clone() });
        OverlayEvents::new(failed.collect(), told.subscribe())
    }

    pub(super) fn emit(&self, event: OverlayEvent) {
        lock(&self.told).emit(event);
    }

    /// Tells of messages that failed.
    pub(super) fn tell_undelivered(&self, undelivered: Vec<Undelivered>) {
        for Undelivered { to, why, messages } in undelivered {
            self.emit(OverlayEvent::Undelivered { to, why, messages });
        }
    }

    /// Dialling a URL to begin at has led to a link, or to none. The latter is told if it is news.
    pub(in crate::overlay) fn dialled(&self, url: &str, failure: Option<BootstrapFailure>) {
        let mut told = lock(&self.told);
        let Some(why) = failure else { return drop(told.failed.remove(url)) };
        if told.failed.get(url) != Some(&why) {
            told.failed.insert(url.to_owned(), why.clone());
            told.emit(OverlayEvent::BootstrapFailed { url: shown(url), why });
        }
    }
}

/// Notes that a message failed, if it is one of the application: with those before it to the same peer, as they mostly fail together.
pub(super) fn add(undelivered: &mut Vec<Undelivered>, to: OverlayId, kind: Kind, failure: SendFailure) {
    let why = OverlaySendError::from(failure);
    match undelivered.last_mut() {
        _ if !matches!(kind, Kind::Json | Kind::Binary) => {}
        Some(last) if last.to == to && last.why == why => last.messages += 1,
        _ => undelivered.push(Undelivered { to, why, messages: 1 }),
    }
}

/// A URL without what may be secret: the user, the password and the query.
pub(in crate::overlay) fn shown(url: &str) -> String {
    let url = url.split(['?', '#']).next().unwrap_or_default();
    let (scheme, rest) = url.split_at(url.find("://").map_or(0, |at| at + 3));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let host = authority.rsplit('@').next().unwrap_or_default();
    format!("{scheme}{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secrets_are_shown() {
        for (url, without) in [
            ("ws://host:1/path?token=secret", "ws://host:1/path"),
            ("wss://user:p@ss@host/a@b#secret", "wss://host/a@b"),
            ("ws://host?token=a/b@c", "ws://host"),
            ("ws://[::1]:80", "ws://[::1]:80"),
            ("user:secret@host:1", "host:1"),
            ("", ""),
        ] {
            assert_eq!(shown(url), without);
        }
    }
}
