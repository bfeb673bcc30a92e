//! What has become of the ways that something of ours has gone.

/// After so many times that nobody was closer, there is no way.
const ENOUGH: u8 = 2;

/// The ways of a message of ours, or of a question for a key.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// The last copy is under way, as far as is known.
    is_out: bool,
    /// Somebody who may have an earlier one has not answered.
    is_unsure: bool,
    /// How often nobody was closer.
    dead_ends: u8,
}

impl Ways {
    /// A copy is sent off. What becomes of an earlier one that has not come back will not be heard.
    pub(super) fn begin(&mut self) {
        self.is_unsure |= self.is_out;
        self.is_out = true;
    }

    /// The last copy has come back. Somebody on its way may have it all the same, if that `is_unsure`.
    pub(super) fn came_back(&mut self, is_unsure: bool) {
        self.is_out = false;
        self.is_unsure |= is_unsure;
        self.dead_end();
    }

    /// There is nobody to send it to.
    pub(super) fn dead_end(&mut self) {
        self.dead_ends = self.dead_ends.saturating_add(1);
    }

    /// Whether it has been tried often enough.
    pub(super) fn is_enough(&self) -> bool {
        self.dead_ends >= ENOUGH
    }

    /// Whether everybody who was asked has said no, and so nobody has it.
    pub(super) fn is_no(&self) -> bool {
        self.dead_ends > 0 && self.nobody_has_it()
    }

    /// Whether nobody can have it.
    pub(super) fn nobody_has_it(&self) -> bool {
        !self.is_out && !self.is_unsure
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_no_counts_if_nobody_was_silent() {
        let mut ways = Ways::default();
        assert!(!ways.is_no() && ways.nobody_has_it());
        ways.begin();
        assert!(!ways.nobody_has_it());
        ways.came_back(false);
        assert!(ways.is_no() && !ways.is_enough());
        ways.begin();
        ways.came_back(false);
        assert!(ways.is_no() && ways.is_enough());
        ways.begin();
        ways.dead_end();
        assert!(!ways.is_no(), "one is under way still");
        ways.came_back(true);
        assert!(!ways.is_no());
    }

    #[test]
    fn a_copy_that_was_given_up_may_have_arrived() {
        let mut ways = Ways::default();
        ways.begin();
        ways.begin();
        ways.came_back(false);
        assert!(!ways.is_no());
    }
}
