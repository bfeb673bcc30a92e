use std::collections::BTreeMap;

use super::NodeId;
use crate::protocol::Address;

/// What goes on with an address through an introducer. Ordered, so that the machine is deterministic.
#[derive(Debug)]
pub(super) struct Table<T>(BTreeMap<NodeId, BTreeMap<Address, T>>);

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<T: Copy> Table<T> {
    pub(super) fn get(&self, via: NodeId, address: &Address) -> Option<T> {
        self.0.get(&via)?.get(address).copied()
    }

    pub(super) fn insert(&mut self, via: NodeId, address: Address, value: T) {
        self.0.entry(via).or_default().insert(address, value);
    }

    pub(super) fn remove(&mut self, via: NodeId, address: &Address) {
        if let Some(of_via) = self.0.get_mut(&via) {
            of_via.remove(address);
            if of_via.is_empty() {
                self.0.remove(&via);
            }
        }
    }

    /// How many there are through an introducer.
    pub(super) fn count(&self, via: NodeId) -> usize {
        self.0.get(&via).map_or(0, BTreeMap::len)
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.values().map(BTreeMap::len).sum()
    }

    /// All through an introducer.
    pub(super) fn of(&self, via: NodeId) -> Vec<T> {
        self.0.get(&via).map(|of_via| of_via.values().copied().collect()).unwrap_or_default()
    }

    /// One for an address, whoever introduces it.
    pub(super) fn any(&self, address: &Address) -> Option<T> {
        self.0.values().find_map(|of_via| of_via.get(address)).copied()
    }
}
