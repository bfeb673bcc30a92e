//! How much of what there is one address may have.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex};

use crate::lock::lock;

/// As many places for each address, or for each network of 64 bits of IPv6. It holds as many addresses as have any.
#[derive(Debug)]
pub(crate) struct Places {
    most: usize,
    taken: Mutex<HashMap<IpAddr, usize>>,
}

impl Places {
    pub(crate) fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, taken: Mutex::default() })
    }

    /// A place, if this address has one left.
    pub(crate) fn take(self: &Arc<Self>, from: IpAddr) -> Option<Place> {
        let from = network(from);
        let mut taken = lock(&self.taken);
        let count = taken.get(&from).copied().unwrap_or_default();
        (count < self.most).then(|| {
            taken.insert(from, count + 1);
            Place(Some((self.clone(), from)))
        })
    }
}

/// A place of an address, until it is dropped.
#[derive(Debug)]
pub(crate) struct Place(Option<(Arc<Places>, IpAddr)>);

impl Place {
    /// One that is not counted.
    pub(crate) fn free() -> Self {
        Self(None)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((places, from)) = self.0.take() else { return };
        if let Entry::Occupied(mut count) = lock(&places.taken).entry(from) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// Who has one address of IPv6 has all of its network.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_and_each_network_has_its_own() {
        let places = Places::new(2);
        let take = |address: &str| places.take(address.parse().unwrap());
        let here = [take("192.0.2.1"), take("::ffff:192.0.2.1")];
        assert!(here.iter().all(Option::is_some) && take("192.0.2.1").is_none(), "one address in two spellings");
        assert!(take("192.0.2.2").is_some());
        let network = [take("2001:db8::1"), take("2001:db8::ffff:1")];
        assert!(network.iter().all(Option::is_some) && take("2001:db8:0:0:7::").is_none());
        assert!(take("2001:db8:0:1::1").is_some());
        drop((here, network));
        assert!(lock(&places.taken).is_empty());
        assert!(take("192.0.2.1").is_some());
    }
}
