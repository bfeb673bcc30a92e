//! The nodes of the directory that an address may have come from: pure.

use std::collections::HashSet;

use crate::node::NodeId;

/// The directory's node of the login that there is, and those of earlier ones as long as a node is there that they have introduced: an
/// address means a peer only where one of these has. Others may call anybody anything.
#[derive(Debug, Default)]
pub(super) struct Logins(HashSet<NodeId>);

impl Logins {
    /// A login has this node. Those that are there were introduced by these nodes.
    pub(super) fn begin(&mut self, node: NodeId, introducers: impl IntoIterator<Item = NodeId>) {
        self.0 = introducers.into_iter().filter(|id| self.0.contains(id)).chain([node]).collect();
    }

    pub(super) fn contains(&self, node: NodeId) -> bool {
        self.0.contains(&node)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_remembered_as_long_as_who_it_has_introduced_is_there() {
        let mut logins = Logins::default();
        for login in 0..1000 {
            // Of the login 7, and of somebody else.
            let there = [NodeId(7), NodeId(7), NodeId(5000)].into_iter().filter(|_| (8..900).contains(&login));
            logins.begin(NodeId(login), there);
            assert_eq!(logins.contains(NodeId(7)), (7..900).contains(&login), "{login}");
            assert!(logins.contains(NodeId(login)) && !logins.contains(NodeId(5000)));
            assert!(logins.0.len() <= 2);
        }
    }
}
