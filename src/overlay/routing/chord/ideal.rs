//! The ring as it should be, seen from above.

use std::collections::BTreeSet;

use crate::overlay::{Distance, OverlayId};

use super::BELOW_RING;

#[derive(Debug, Clone, Default)]
pub(super) struct Ring(pub(super) BTreeSet<OverlayId>);

impl Ring {
    /// The first peer at or behind this id: who is responsible for it.
    pub(super) fn responsible(&self, id: &OverlayId) -> OverlayId {
        *self.0.range(*id..).chain(&self.0).next().expect("somebody is in the ring")
    }

    pub(super) fn successor(&self, id: &OverlayId) -> OverlayId {
        self.responsible(&id.at(&Distance::power_of_two(0)))
    }

    pub(super) fn predecessor(&self, id: &OverlayId) -> OverlayId {
        *self.0.range(..*id).next_back().or_else(|| self.0.last()).expect("somebody is in the ring")
    }

    pub(super) fn finger(&self, id: &OverlayId, row: u32) -> OverlayId {
        self.responsible(&id.at(&Distance::power_of_two(BELOW_RING + row)))
    }
}
