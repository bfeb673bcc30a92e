/// What was dropped, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Counters {
    /// Frames relayed between two peers of this tree.
    pub relayed: u64,
    /// Frames that could not be relayed: the destination is unknown, or does not keep up.
    pub undeliverable: u64,
    /// Frames dropped because their source or introducer had used up its budget.
    pub over_budget: u64,
    /// Frames dropped because they were malformed or of an unknown type.
    pub malformed: u64,
    /// Answers, candidates and refusals dropped because no negotiation of that introducer expected them.
    pub unexpected: u64,
    /// Offers, answers and connections turned down because an identity was missing or could not be verified.
    pub unverified: u64,
    /// Offers that the firewall accepted.
    pub offers_accepted: u64,
    /// Offers that the firewall refused or ignored.
    pub offers_refused: u64,
}
