//! Connections of which it is not known yet what they want, and whose place it is when there are too many.

use std::net::IpAddr;
use std::sync::{Arc, Mutex};

use tokio::sync::oneshot;

use super::accounts::Source;
use super::line::Line;
use crate::lock::lock;

/// Of each address, which of IPv6 is its first 64 bits. None is refused here as long as there is room; when there is none, the address that has most gives one up for another
/// that has fewer. All connections of a proxy are of one address, and so give up nothing for each other.
#[derive(Default)]
pub(super) struct Undecided(Mutex<State>);

#[derive(Default)]
struct State {
    line: Line<Source, oneshot::Sender<()>>,
    last: u64,
}

/// The place of a connection, until it is dropped.
pub(super) struct Place {
    undecided: Arc<Undecided>,
    from: Source,
    ticket: u64,
    lost: oneshot::Receiver<()>,
}

impl Undecided {
    /// A place for a connection; if there `is_room` for none, that of another that is told to go.
    pub(super) fn enter(self: &Arc<Self>, from: IpAddr, is_room: bool) -> Option<Place> {
        let (mut state, from) = (lock(&self.0), Source::from(from));
        if !is_room && !state.line.make_room(&[from], &[0]) {
            return None;
        }
        let (waiter, lost) = oneshot::channel();
        state.last += 1;
        let ticket = state.last;
        state.line.push(&[from], ticket, waiter);
        Some(Place { undecided: self.clone(), from, ticket, lost })
    }
}

impl Place {
    /// Waits for what a connection becomes. None, too, if another has its place. Dropping the future drops both.
    pub(super) async fn keep<T>(mut self, open: impl Future<Output = Option<T>>) -> Option<T> {
        tokio::select! {
            opened = open => opened,
            _ = &mut self.lost => None,
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        lock(&self.undecided.0).line.remove(&[self.from], self.ticket);
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};
    use std::task::Poll;

    use futures_util::poll;

    use super::*;

    #[test]
    fn a_network_of_ipv6_is_one_address() {
        let undecided = Arc::new(Undecided::default());
        let [one, neighbour, other] =
            ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"].map(|text| text.parse::<IpAddr>().unwrap());
        let _places = [one, neighbour].map(|from| undecided.enter(from, true).unwrap());
        assert!(undecided.enter("2001:db8::3".parse().unwrap(), false).is_none(), "its network has most");
        assert!(undecided.enter(other, false).is_some());
    }

    #[tokio::test]
    async fn an_address_that_holds_many_gives_one_up() {
        let undecided = Arc::new(Undecided::default());
        let [idle, other] = ["192.0.2.1", "192.0.2.2"].map(|text| text.parse::<IpAddr>().unwrap());
        let mut waiting = Vec::new();
        for _ in 0..3 {
            waiting.push(Box::pin(undecided.enter(idle, true).unwrap().keep(pending::<Option<()>>())));
        }
        assert!(poll!(&mut waiting[2]).is_pending());
        assert!(undecided.enter(idle, false).is_none(), "it has most itself");
        let first = undecided.enter(other, false).unwrap();
        let states: Vec<_> = futures_util::future::join_all(waiting.iter_mut().map(async |one| poll!(one))).await;
        assert_eq!(states, [Poll::Pending, Poll::Pending, Poll::Ready(None)], "the newest");
        assert!(undecided.enter(other, false).is_none(), "then each has two");
        // Whoever is decided has no place to lose.
        assert_eq!(first.keep(ready(Some(1))).await, Some(1));
        drop(waiting);
        assert!(lock(&undecided.0).line.is_empty());
        assert!(undecided.enter(other, false).is_none() && undecided.enter(other, true).is_some());
    }
}
