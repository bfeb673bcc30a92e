//! The option `--host`, with the forms of the original: `name:port`, `name`, `:port`.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use pmesh::onramp::{Builder, Onramp};

const DEFAULT_PORT: u16 = 20500;

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    /// Without brackets. None stands for all addresses.
    name: Option<String>,
    port: u16,
}

impl Host {
    pub(crate) async fn bind(&self, builder: Builder) -> io::Result<Onramp> {
        let port = self.port;
        match &self.name {
            Some(name) => builder.bind((name.as_str(), port)).await,
            // The IPv6 address takes IPv4 too, where there is IPv6.
            None => match builder.clone().bind((Ipv6Addr::UNSPECIFIED, port)).await {
                Err(error) if error.kind() != io::ErrorKind::AddrInUse => {
                    builder.bind((Ipv4Addr::UNSPECIFIED, port)).await
                }
                bound => bound,
            },
        }
    }

    /// The name that was asked for, with the port that was got.
    pub(crate) fn shown(&self, bound: SocketAddr) -> String {
        match &self.name {
            Some(name) => Self { name: Some(name.clone()), port: bound.port() }.to_string(),
            None => bound.to_string(),
        }
    }
}

impl FromStr for Host {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let named = |name: &str, port| {
            let name = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
            Self { name: (!name.is_empty()).then(|| name.to_owned()), port }
        };
        if text.parse::<IpAddr>().is_ok() || text.ends_with(']') {
            return Ok(named(text, DEFAULT_PORT));
        }
        match text.rsplit_once(':') {
            None => Ok(named(text, DEFAULT_PORT)),
            Some((name, port)) => {
                let port = port.parse().map_err(|_| format!("\"{port}\" is not a port: 0 to 65535"))?;
                Ok(named(name, port))
            }
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) if name.contains(':') => write!(f, "[{name}]:{}", self.port),
            Some(name) => write!(f, "{name}:{}", self.port),
            None => write!(f, "*:{}", self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, shown) in [
            ("localhost:20500", "localhost:20500"),
            ("localhost", "localhost:20500"),
            (":20501", "*:20501"),
            ("", "*:20500"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("::1", "[::1]:20500"),
            ("[::1]", "[::1]:20500"),
            ("[::1]:7", "[::1]:7"),
        ] {
            assert_eq!(text.parse::<Host>().unwrap().to_string(), shown, "{text}");
        }
        assert!("localhost:x".parse::<Host>().is_err());
        assert!("localhost:65536".parse::<Host>().is_err());
    }
}
