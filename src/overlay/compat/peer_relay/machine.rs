//! What a peer is to originals: a pure state machine.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use serde_json::value::RawValue;

use super::codec::{Answer, Data, MAX_FOUND, is_usable};
use crate::overlay::OverlayId;

/// Most attempts to connect at once. Further ones [fail](ConnectFailure::Busy).
const MAX_ATTEMPTS: usize = 64;

/// What the machine is to know of the application.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct MachineConfig {
    /// The URL at which originals can connect to us, if there is one.
    pub url: Option<String>,
    /// Whether URLs that originals answer with may be dialled. See the risk at [`Machine`].
    pub dial_answers: bool,
    /// How long an attempt to connect may take, from the question to the link.
    pub connect_timeout: Duration,
}

impl Default for MachineConfig {
    /// No URL, nothing is dialled, 10 seconds.
    fn default() -> Self {
        Self { url: None, dial_answers: false, connect_timeout: Duration::from_secs(10) }
    }
}

/// What is to be done: all of it, so a further kind would be a breaking change.
#[derive(Debug, Clone)]
pub enum Output {
    /// Send this to an original, by routing.
    Send {
        /// To whom.
        to: OverlayId,
        /// What it says.
        data: Box<RawValue>,
    },
    /// Make a link to this peer by a WebSocket to this URL, and refuse it if somebody else is there. [`Machine::up`] or
    /// [`Machine::dial_failed`] tells how that went.
    Dial {
        /// Who is to be there.
        peer: OverlayId,
        /// A `ws` or `wss` URL.
        url: String,
        /// Whether it says that it is a pmesh peer, and so speaks to pmesh peers in another way there.
        pmesh: bool,
    },
    /// An original knows these peers, or says so: at most [`MAX_FOUND`], without ourselves.
    Candidates {
        /// Who says so.
        by: OverlayId,
        /// Whom it knows.
        peers: Vec<OverlayId>,
    },
    /// Something for the application.
    Message {
        /// From whom, by what the message says.
        from: OverlayId,
        /// JSON.
        json: Box<RawValue>,
    },
    /// A [connect](Machine::connect) has failed.
    ConnectFailed {
        /// To whom.
        peer: OverlayId,
        /// Why.
        reason: ConnectFailure,
    },
}

/// Why there is no link to an original.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectFailure {
    /// No answer, or no link, in time.
    #[error("no link came about in time")]
    TimedOut,
    /// It has no WebSocket server.
    #[error("the peer has no WebSocket server")]
    NoWebSocket,
    /// Its answer may not be [dialled](MachineConfig::dial_answers).
    #[error("dialling what a peer answers is not allowed")]
    NotAllowed,
    /// Its answer is no `ws` or `wss` URL.
    #[error("the peer answered with an unusable URL")]
    UnusableUrl,
    /// The URL was dialled, and there is no link.
    #[error("the peer could not be reached at its URL")]
    Unreachable,
    /// Too many attempts are under way.
    #[error("too many attempts to connect")]
    Busy,
    /// The overlay takes no originals, or is closed.
    #[error("originals are not taken as neighbours, or the overlay is closed")]
    NotTaken,
}

/// What has come so far and led to nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct MachineCounters {
    /// Data that was malformed.
    pub malformed: u64,
    /// Data of kinds that nobody knows.
    pub unknown: u64,
    /// Answers to what was not asked.
    pub unasked: u64,
    /// Signals of simple-peer.
    pub signals: u64,
}

#[derive(Debug)]
struct Attempt {
    until: Instant,
    dialling: bool,
}

/// What is done with messages of originals that are addressed to us, and how one is asked for a connection. Pure.
///
/// ```text
/// connect(id) -> handshake-offer ->  handshake-answer  -> Dial -> up            ours
/// handshake-offer <- ; handshake-answer -> ; it dials -> up                      theirs
/// ```
///
/// When both ask at once, the one with the larger id answers, and the other dials; so it is with originals. Nothing is signalled
/// for WebRTC here: offers and candidates of simple-peer are only relayed between others.
///
/// **URLs.** The URL in an answer is what a stranger wrote, and whoever relays it may have changed it: to dial it means to
/// open a connection to a host and port of somebody else's choice, and to ask for a path of somebody else's choice there. So it is
/// dialled only if [`MachineConfig::dial_answers`] allows it, only for a peer that this side has asked, once for each time
/// of asking, and only if it is a plain `ws` or `wss` URL. Originals always say `ws://localhost:<port>`, which
/// is of use on one machine only.
///
/// Take [outputs](Self::poll_output) until there are none, after every input: only then they are bounded.
#[derive(Debug)]
pub struct Machine {
    id: OverlayId,
    config: MachineConfig,
    /// Those with a link: as many as the caller admits.
    linked: BTreeSet<OverlayId>,
    attempts: BTreeMap<OverlayId, Attempt>,
    outputs: VecDeque<Output>,
    counters: MachineCounters,
}

impl Machine {
    /// A peer with this id.
    pub fn new(id: OverlayId, config: MachineConfig) -> Self {
        Self {
            id,
            config,
            linked: BTreeSet::new(),
            attempts: BTreeMap::new(),
            outputs: VecDeque::new(),
            counters: MachineCounters::default(),
        }
    }

    /// There is a link to this original. It is asked for the peers it knows, as it asks us. If it is the first, those that we want a
    /// link to are asked again: there may have been no way to them.
    pub fn up(&mut self, peer: OverlayId) {
        self.attempts.remove(&peer);
        let is_first = self.linked.is_empty();
        if self.linked.insert(peer) {
            self.send(peer, &Data::FindPeers(self.id));
        }
        let wanted = self.attempts.iter().filter(|(_, attempt)| is_first && !attempt.dialling);
        for peer in wanted.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.send(peer, &Data::HandshakeOffer);
        }
    }

    /// The link to this original is gone.
    pub fn down(&mut self, peer: &OverlayId) {
        self.linked.remove(peer);
    }

    /// An [`Output::Dial`] has led to nothing.
    pub fn dial_failed(&mut self, peer: &OverlayId) {
        self.fail(*peer, ConnectFailure::Unreachable);
    }

    /// Asks an original for a connection, and connects. Does nothing if that is under way, if there is a link, or to ourselves.
    ///
    /// An original that has been asked keeps a place for us until there is a link, and does not answer a second time if its id is
    /// smaller than ours: to ask again rarely helps.
    pub fn connect(&mut self, peer: OverlayId, now: Instant) {
        if peer == self.id || self.linked.contains(&peer) || self.attempts.contains_key(&peer) {
            return;
        }
        if self.attempts.len() == MAX_ATTEMPTS {
            return self.outputs.push_back(Output::ConnectFailed { peer, reason: ConnectFailure::Busy });
        }
        self.attempts.insert(peer, Attempt { until: now + self.config.connect_timeout, dialling: false });
        self.send(peer, &Data::HandshakeOffer);
    }

    /// Takes the data of a message that is for us, a JSON value. `closest` yields peers that are known to be near an id, nearest
    /// first and at most [`MAX_FOUND`] of them: only such as originals can connect to.
    pub fn receive(&mut self, from: OverlayId, data: &[u8], closest: &dyn Fn(&OverlayId) -> Vec<OverlayId>) {
        let data = match Data::decode(data) {
            Ok(Some(data)) => data,
            Ok(None) => return self.counters.unknown += 1,
            Err(_) => return self.counters.malformed += 1,
        };
        match data {
            Data::User(json) => self.outputs.push_back(Output::Message { from, json: json.to_owned() }),
            Data::Signal(_) => self.counters.signals += 1,
            Data::FindPeers(target) => {
                let mut found = closest(&target);
                // As originals do: to them who asks is known as well.
                found.push(from);
                found.sort_unstable_by_key(|id| id.xor(&target));
                found.dedup();
                found.truncate(MAX_FOUND);
                self.send(from, &Data::FoundPeers(found));
            }
            Data::FoundPeers(mut found) => {
                found.retain(|id| *id != self.id);
                if !found.is_empty() {
                    self.outputs.push_back(Output::Candidates { by: from, peers: found });
                }
            }
            Data::HandshakeOffer => {
                let other_answers = self.attempts.contains_key(&from) && from > self.id;
                if from != self.id && !self.linked.contains(&from) && !other_answers {
                    let ws = self.config.url.clone().map(Into::into);
                    self.send(from, &Data::HandshakeAnswer(Answer { ws, wrtc: false, pmesh: true }));
                }
            }
            Data::HandshakeAnswer(answer) => self.answered(from, &answer),
        }
    }

    fn answered(&mut self, from: OverlayId, answer: &Answer<'_>) {
        let Some(attempt) = self.attempts.get_mut(&from).filter(|attempt| !attempt.dialling) else {
            return self.counters.unasked += 1;
        };
        let reason = match &answer.ws {
            None => ConnectFailure::NoWebSocket,
            Some(_) if !self.config.dial_answers => ConnectFailure::NotAllowed,
            Some(url) if !is_usable(url) => ConnectFailure::UnusableUrl,
            Some(url) => {
                attempt.dialling = true;
                return self.outputs.push_back(Output::Dial { peer: from, url: url.to_string(), pmesh: answer.pmesh });
            }
        };
        self.fail(from, reason);
    }

    /// How many peers are being connected to.
    pub fn attempts(&self) -> usize {
        self.attempts.len()
    }

    /// Gives up what has taken too long.
    pub fn handle_timeout(&mut self, now: Instant) {
        let late: Vec<_> =
            self.attempts.iter().filter(|(_, attempt)| attempt.until <= now).map(|(id, _)| *id).collect();
        for peer in late {
            self.fail(peer, ConnectFailure::TimedOut);
        }
    }

    /// When [`handle_timeout`](Self::handle_timeout) is to be called, if ever.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.attempts.values().map(|attempt| attempt.until).min()
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// What has come and led to nothing.
    pub fn counters(&self) -> MachineCounters {
        self.counters
    }

    fn fail(&mut self, peer: OverlayId, reason: ConnectFailure) {
        if self.attempts.remove(&peer).is_some() {
            self.outputs.push_back(Output::ConnectFailed { peer, reason });
        }
    }

    fn send(&mut self, to: OverlayId, data: &Data<'_>) {
        self.outputs.push_back(Output::Send { to, data: data.encode() });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const US: OverlayId = id(100);

    const fn id(first: u8) -> OverlayId {
        let mut bytes = [0; OverlayId::BYTES];
        bytes[0] = first;
        OverlayId::from_bytes(bytes)
    }

    fn machine(dial_answers: bool) -> Machine {
        Machine::new(US, MachineConfig { url: Some("ws://localhost:1".into()), dial_answers, ..Default::default() })
    }

    fn nobody(_: &OverlayId) -> Vec<OverlayId> {
        Vec::new()
    }

    fn receive(machine: &mut Machine, from: OverlayId, data: &str) {
        machine.receive(from, data.as_bytes(), &nobody);
    }

    /// The outputs so far, in short.
    fn outputs(machine: &mut Machine) -> Vec<String> {
        std::iter::from_fn(|| machine.poll_output())
            .map(|output| match output {
                Output::Send { to, data } => format!("send {} {data}", to.as_bytes()[0]),
                Output::Dial { peer, url, .. } => format!("dial {} {url}", peer.as_bytes()[0]),
                Output::Candidates { by: _, peers } => {
                    format!("candidates {:?}", peers.iter().map(|id| id.as_bytes()[0]).collect::<Vec<_>>())
                }
                Output::Message { from, json } => format!("message {} {json}", from.as_bytes()[0]),
                Output::ConnectFailed { peer, reason } => format!("failed {} {reason:?}", peer.as_bytes()[0]),
            })
            .collect()
    }

    fn answer(ws: &str) -> String {
        format!(r#"{{"type":"handshake-answer","data":{{"ws":{ws},"wrtc":false}}}}"#)
    }

    const OFFER: &str = r#"{"type":"handshake-offer"}"#;
    const OUR_ANSWER: &str =
        r#"{"type":"handshake-answer","data":{"ws":"ws://localhost:1","wrtc":false,"pmesh":true}}"#;

    #[test]
    fn a_new_neighbour_is_asked_once_whom_it_knows() {
        let mut machine = machine(false);
        machine.up(id(1));
        machine.up(id(1));
        assert_eq!(outputs(&mut machine), [format!(r#"send 1 {{"type":"findPeers","data":"{US}"}}"#)]);
        receive(&mut machine, id(1), &format!(r#"{{"type":"foundPeers","data":["{}",null,"{US}","x"]}}"#, id(7)));
        assert_eq!(outputs(&mut machine), ["candidates [7]"]);
    }

    #[test]
    fn who_asks_for_peers_gets_the_closest_and_itself() {
        let mut machine = machine(false);
        let find = format!(r#"{{"type":"findPeers","data":"{}"}}"#, id(9));
        machine.receive(id(9), find.as_bytes(), &|target| {
            assert_eq!(target, &id(9));
            (0..=MAX_FOUND as u8).map(|n| id(n + 9)).collect()
        });
        let Some(Output::Send { to, data }) = machine.poll_output() else { panic!("no answer") };
        let Ok(Some(Data::FoundPeers(found))) = Data::decode(data.get().as_bytes()) else { panic!("{data}") };
        assert_eq!(
            (to, found.len(), found[0], found.iter().filter(|found| **found == id(9)).count()),
            (id(9), MAX_FOUND, id(9), 1)
        );
    }

    #[test]
    fn a_handshake_of_theirs() {
        let mut machine = machine(false);
        receive(&mut machine, id(1), OFFER);
        assert_eq!(outputs(&mut machine), [format!("send 1 {OUR_ANSWER}")]);
        machine.up(id(1));
        outputs(&mut machine);
        receive(&mut machine, id(1), OFFER);
        receive(&mut machine, US, OFFER);
        assert!(outputs(&mut machine).is_empty(), "there is a link, and none to oneself");
        machine.down(&id(1));
        receive(&mut machine, id(1), OFFER);
        assert_eq!(outputs(&mut machine).len(), 1);
    }

    #[test]
    fn a_handshake_of_ours() {
        let (mut machine, now) = (machine(true), Instant::now());
        receive(&mut machine, id(1), &answer(r#""ws://host:1/""#));
        assert_eq!(machine.counters().unasked, 1);
        machine.connect(id(1), now);
        machine.connect(id(1), now);
        machine.connect(US, now);
        assert_eq!(outputs(&mut machine), [format!("send 1 {OFFER}")]);
        receive(&mut machine, id(2), &answer(r#""ws://host:1/""#));
        receive(&mut machine, id(1), &answer(r#""ws://host:1/""#));
        receive(&mut machine, id(1), &answer(r#""ws://host:2/""#));
        assert_eq!(outputs(&mut machine), ["dial 1 ws://host:1/"]);
        assert_eq!(machine.counters().unasked, 3);
        machine.up(id(1));
        assert_eq!((outputs(&mut machine).len(), machine.next_timeout()), (1, None));
        machine.dial_failed(&id(1));
        machine.connect(id(1), now);
        assert!(outputs(&mut machine).is_empty());
    }

    #[test]
    fn who_was_asked_before_there_was_a_link_is_asked_again() {
        let (mut machine, now) = (machine(true), Instant::now());
        machine.connect(id(1), now);
        outputs(&mut machine);
        machine.up(id(2));
        assert_eq!(outputs(&mut machine)[1..], [format!("send 1 {OFFER}")]);
        machine.up(id(3));
        assert_eq!(outputs(&mut machine).len(), 1);
    }

    #[test]
    fn when_both_ask_the_larger_answers() {
        let (mut machine, now) = (machine(true), Instant::now());
        for (other, answers) in [(id(99), 1), (id(101), 0)] {
            machine.connect(other, now);
            outputs(&mut machine);
            receive(&mut machine, other, OFFER);
            assert_eq!(outputs(&mut machine).len(), answers, "{other}");
        }
    }

    #[test]
    fn what_a_stranger_answers_is_not_dialled_just_like_that() {
        let now = Instant::now();
        let cases = [
            (false, r#""ws://host:1""#, "NotAllowed"),
            (true, "null", "NoWebSocket"),
            (true, r#""http://host:1""#, "UnusableUrl"),
        ];
        for (allowed, ws, reason) in cases {
            let mut machine = machine(allowed);
            machine.connect(id(1), now);
            outputs(&mut machine);
            receive(&mut machine, id(1), &answer(ws));
            assert_eq!(outputs(&mut machine), [format!("failed 1 {reason}")], "{ws}");
        }
    }

    #[test]
    fn attempts_end_and_are_bounded() {
        let (mut machine, now) = (machine(true), Instant::now());
        for n in 0..=MAX_ATTEMPTS as u8 {
            machine.connect(id(n), now);
        }
        assert_eq!(outputs(&mut machine).last().unwrap(), &format!("failed {MAX_ATTEMPTS} Busy"));
        machine.handle_timeout(now);
        assert!(outputs(&mut machine).is_empty());
        machine.handle_timeout(machine.next_timeout().unwrap());
        assert_eq!(
            outputs(&mut machine),
            (0..MAX_ATTEMPTS).map(|n| format!("failed {n} TimedOut")).collect::<Vec<_>>()
        );
        assert_eq!(machine.next_timeout(), None);
    }

    #[test]
    fn messages_signals_and_junk() {
        let mut machine = machine(true);
        receive(&mut machine, id(1), r#"{"type":"user","data":{"a":1}}"#);
        for data in
            ["5", "{}", r#"{"type":"signal","data":{}}"#, r#"{"type":"new"}"#, r#"{"type":"foundPeers","data":[]}"#]
        {
            receive(&mut machine, id(1), data);
        }
        assert_eq!(outputs(&mut machine), [r#"message 1 {"a":1}"#]);
        assert_eq!(machine.counters(), MachineCounters { malformed: 2, unknown: 1, unasked: 0, signals: 1 });
    }
}
