//! What is true of a tree between any two inputs.

use std::collections::{BTreeSet, HashMap};
use std::fmt::Debug;

use super::super::negotiate::Role;
use super::super::{MAX_CHECKS_PER_VIA, MAX_INCOMING, MAX_INCOMING_PER_PEER, Phase, Tree};

impl<P: Clone + Debug> Tree<P> {
    pub(super) fn assert_invariants(&self) {
        let mut deadlines = BTreeSet::new();
        let mut guests: HashMap<_, usize> = HashMap::new();
        assert_eq!(self.links.len(), self.nodes.len());
        for (&id, entry) in &self.nodes {
            assert_eq!(self.links.get(&entry.link), Some(&id), "each node has its link: {entry:?}");
            let key = entry.via.map(|via| (via, &entry.address));
            let pending = key.and_then(|(via, address)| self.pending.get(via, address));
            let settled = matches!(entry.phase, Phase::Open | Phase::Closing(_));
            assert_eq!(entry.deadline.is_none(), settled, "{entry:?}");
            deadlines.extend(entry.deadline.map(|at| (at, id)));
            deadlines.extend(entry.patience.map(|at| (at, id)));
            if settled {
                assert_eq!(entry.patience, None);
                assert!(entry.dial.is_none() && entry.joined.is_empty(), "{entry:?}");
                assert_ne!(pending, Some(id));
            }
            let open = entry.via.is_some() && matches!(entry.phase, Phase::Open);
            assert_eq!(self.open.get(&entry.address) == Some(&id), open, "{entry:?}");
            if let Phase::Negotiating(negotiation) = &entry.phase {
                assert_eq!(pending, Some(id), "{entry:?}");
                assert!(negotiation.held() <= 64, "candidates");
                assert_eq!(negotiation.session, entry.session);
                let (via, address) = key.unwrap();
                let asked = self.checking.get(via, address).is_some();
                match &negotiation.role {
                    Role::Ours { refused, answer, rival } => {
                        assert!(refused.is_none() || asked, "the way out of a refusal: {entry:?}");
                        assert!(answer.is_none() || asked || !negotiation.needs_signalling(), "{entry:?}");
                        assert!(entry.in_demand(), "{entry:?}");
                        let waits = rival.is_some() && !negotiation.is_answered();
                        assert!(waits || entry.patience.is_none(), "{entry:?}");
                        assert!(entry.patience.is_none_or(|at| Some(at) < entry.deadline), "{entry:?}");
                    }
                    Role::Theirs => {
                        assert_eq!(entry.patience, None);
                        *guests.entry(via).or_default() += 1;
                    }
                }
            }
            for joined in &entry.joined {
                assert_eq!(self.waiting[joined].owner, id);
            }
        }
        for (id, waiting) in &self.waiting {
            assert!(!self.nodes.contains_key(id));
            assert!(self.nodes[&waiting.owner].joined.contains(id));
            deadlines.insert((waiting.deadline, *id));
        }
        assert_eq!(self.deadlines, deadlines);
        let negotiating = self.nodes.values().filter(|entry| matches!(entry.phase, Phase::Negotiating(_))).count();
        assert_eq!(self.pending.len(), negotiating);
        assert_eq!(self.open.values().collect::<BTreeSet<_>>().len(), self.open.len());
        assert_eq!(self.checking.len(), self.checks.len());
        for (id, check) in &self.checks {
            assert_eq!(self.checking.get(check.via, &check.from), Some(*id));
            assert!(self.is_open(check.via), "nobody could carry the answer");
            assert!(check.offer.candidates.len() <= 64);
        }
        assert_eq!(self.incoming, guests.values().sum::<usize>());
        assert!(self.incoming + self.checks.len() <= MAX_INCOMING);
        for (id, entry) in &self.nodes {
            assert_eq!(entry.guests, guests.get(id).copied().unwrap_or_default());
            assert!(self.checking.count(*id) <= MAX_CHECKS_PER_VIA);
            assert!(entry.via.is_none() || entry.guests <= MAX_INCOMING_PER_PEER);
        }
    }

    /// Nothing is on its way.
    pub(super) fn assert_idle(&self) {
        assert!(self.pending.len() + self.checks.len() + self.waiting.len() + self.incoming == 0, "{self:?}");
        assert!(self.deadlines.is_empty() && self.outputs.is_empty());
    }
}
