use std::time::Duration;

/// Longer times mean this one: a hundred years, which can be added to any time of a clock.
pub(in crate::directory) const FOREVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// How many connections to peers a session makes for its calls, and how long they last.
///
/// A connection that exists anyway, because the application or the other side has made it, is used too. It does not count, and is never
/// closed here.
///
/// Times of more than a hundred years mean a hundred years: [`Duration::MAX`] is for ever.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PoolConfig {
    /// Connections that are made for calls, at a time. At least 1. Default: 5.
    ///
    /// Calls to further peers wait. They get their turns in the order of their peers, and a connection that is only kept is closed
    /// for them.
    pub outgoing: usize,
    /// Connections of peers that are accepted, at a time. Default: 5.
    ///
    /// No user has all of them, if there are at least two: the peers of one that has some get a further one only while more are free than it
    /// has, so 3 of 5 if nobody else is there. Further ones hear [`Verdict::Busy`](crate::Verdict::Busy), and call again after a pause if
    /// they are sessions too.
    pub incoming: usize,
    /// Calls that wait for a connection. Default: 4,096. Further ones fail at once.
    pub waiting: usize,
    /// How long a call waits for a connection at most. Default: one minute. Then it fails, as [busy](crate::ConnectError::Busy) if the
    /// peer has said so last.
    pub wait: Duration,
    /// How long an attempt to connect may take: a random time between these two. Default: 5 to 10 seconds.
    pub connect_timeout: (Duration, Duration),
    /// Further attempts to connect to a peer that did not answer. Default: 2. Then the calls to it fail. A peer that is busy is asked
    /// again as long as there are calls to it.
    pub retries: u32,
    /// How long to leave a peer alone that is busy: a random time between these two. Default: 0.5 to 1.5 seconds.
    pub pause: (Duration, Duration),
    /// How long a connection is kept after its last call, if one of its calls has asked for that: a random time between these two.
    /// Default: 5 to 10 seconds. Otherwise it is closed at once.
    pub idle: (Duration, Duration),
}

impl Default for PoolConfig {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self {
            outgoing: 5,
            incoming: 5,
            waiting: 4096,
            wait: seconds(60),
            connect_timeout: (seconds(5), seconds(10)),
            retries: 2,
            pause: (Duration::from_millis(500), Duration::from_millis(1500)),
            idle: (seconds(5), seconds(10)),
        }
    }
}

impl PoolConfig {
    /// The same, with values that can be.
    pub(super) fn checked(mut self) -> Self {
        self.outgoing = self.outgoing.max(1);
        for (from, to) in [&mut self.connect_timeout, &mut self.pause, &mut self.idle] {
            (*from, *to) = ((*from).min(FOREVER), (*to).min(FOREVER));
        }
        self.wait = self.wait.min(FOREVER);
        self
    }
}
