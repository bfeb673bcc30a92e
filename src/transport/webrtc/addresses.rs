//! What to bind.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::WebRtcConfig;

/// Most sockets of one link: each has receive buffers of its own. Further interfaces are left out.
const MAX_SOCKETS: usize = 8;

/// The addresses that a link binds now. Wildcards are expanded here rather than by the crate, because only concrete
/// addresses can be filtered.
pub(super) fn to_bind(config: &WebRtcConfig) -> Vec<SocketAddr> {
    let mut found = Vec::new();
    for &address in &config.bind {
        if address.ip().is_unspecified() {
            found.extend(
                interfaces()
                    .into_iter()
                    .filter(|ip| ip.is_ipv4() == address.is_ipv4())
                    .map(|ip| SocketAddr::new(ip, address.port())),
            );
        } else {
            found.push(address);
        }
    }
    let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    if config.include_loopback {
        found.push(loopback);
    }
    select(found, |ip| config.address_filter.as_ref().is_none_or(|filter| filter(ip)), loopback)
}

fn select(found: Vec<SocketAddr>, allowed: impl Fn(IpAddr) -> bool, otherwise: SocketAddr) -> Vec<SocketAddr> {
    let mut chosen: Vec<SocketAddr> = Vec::new();
    for address in found {
        if chosen.len() < MAX_SOCKETS && !chosen.contains(&address) && allowed(address.ip()) {
            chosen.push(address);
        }
    }
    if chosen.is_empty() {
        // A machine without a network: peers on it can still reach each other.
        chosen.push(otherwise);
    }
    chosen
}

fn interfaces() -> Vec<IpAddr> {
    match rtc::shared::ifaces::ifaces() {
        Ok(interfaces) => {
            interfaces.into_iter().filter_map(|i| i.addr).map(|a| a.ip()).filter(|ip| usable(*ip)).collect()
        }
        Err(error) => {
            tracing::warn!(%error, "cannot list the network interfaces");
            Vec::new()
        }
    }
}

/// Loopback is asked for by itself; link-local addresses need a scope, which a candidate cannot carry.
fn usable(ip: IpAddr) -> bool {
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    !ip.is_loopback() && !ip.is_unspecified() && !link_local
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn duplicates_and_what_the_filter_refuses_are_left_out() {
        let found = vec![address("10.0.0.1:0"), address("10.0.0.1:0"), address("10.0.0.2:0")];
        let chosen = select(found, |ip| ip != address("10.0.0.2:0").ip(), address("127.0.0.1:0"));
        assert_eq!(chosen, [address("10.0.0.1:0")]);
    }

    #[test]
    fn without_any_address_loopback_is_bound() {
        assert_eq!(select(vec![address("10.0.0.1:0")], |_| false, address("127.0.0.1:0")), [address("127.0.0.1:0")]);
    }

    #[test]
    fn the_number_of_sockets_is_bounded() {
        let found = (0..100).map(|n| SocketAddr::from(([10, 0, 0, n], 0))).collect();
        assert_eq!(select(found, |_| true, address("127.0.0.1:0")).len(), MAX_SOCKETS);
    }

    #[test]
    fn given_addresses_are_bound_as_they_are() {
        let config = WebRtcConfig { bind: vec![address("127.0.0.1:0")], ..WebRtcConfig::default() };
        assert_eq!(to_bind(&config), [address("127.0.0.1:0")]);
    }

    #[test]
    fn wildcards_give_no_unusable_address() {
        let chosen = to_bind(&WebRtcConfig { include_loopback: true, ..WebRtcConfig::default() });
        assert!(chosen.contains(&address("127.0.0.1:0")));
        assert!(chosen.iter().all(|a| usable(a.ip()) || a.ip().is_loopback()), "{chosen:?}");
    }
}
