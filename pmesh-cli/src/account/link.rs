//! The link of an invitation: a page for a browser, and what `pmesh register` takes. It is `https://HOST/PATH/invite#SECRET`: what is
//! behind the `#` reaches no server until it is used. Pure.

use pmesh::directory::is_loopback;
use ureq::http::Uri;
use zeroize::Zeroizing;

use super::login::folder;
use crate::mesh::Result;

/// Where an invitation is accepted, and its secret.
#[derive(Debug, PartialEq)]
pub(super) struct Link {
    pub(super) url: String,
    pub(super) secret: Zeroizing<String>,
}

impl Link {
    /// Of an invitation of the directory at this URL: invitations are accepted beside it, as a link `invite` on it would lead. So behind
    /// a path of a proxy they are too.
    pub(super) fn new(directory: &str, secret: String) -> Result<Self> {
        let url: Uri = directory.parse().map_err(|_| "this is no URL")?;
        let place = url.authority().ok_or("the URL has no host")?;
        let scheme =
            if url.scheme_str().is_some_and(|scheme| scheme.eq_ignore_ascii_case("ws")) { "http" } else { "https" };
        let folder = folder(url.path());
        Ok(Self { url: format!("{scheme}://{place}{folder}invite"), secret: Zeroizing::new(secret) })
    }

    /// Reads one. Over `http://` the password would cross the network in the clear, so that is taken for this machine only, or if it is
    /// allowed.
    pub(super) fn parse(text: &str, allow_plaintext: bool) -> Result<Self> {
        let no_link = "this is no link of an invitation: https://HOST/invite#SECRET";
        let (place, secret) = text.split_once('#').filter(|(_, secret)| !secret.is_empty()).ok_or(no_link)?;
        let url: Uri = place.parse().map_err(|_| no_link)?;
        let (Some(authority), Some(host)) = (url.authority(), url.host()) else { return Err(no_link.into()) };
        if authority.as_str().contains('@') || url.query().is_some() {
            return Err(no_link.into());
        }
        match url.scheme_str().map(str::to_ascii_lowercase).as_deref() {
            Some("https") => {}
            Some("http") if allow_plaintext || is_loopback(host) => {}
            Some("http") => {
                return Err(
                    "the password would go over the network in the clear: use https://, or --allow-plaintext".into()
                );
            }
            _ => return Err(no_link.into()),
        }
        Ok(Self { url: place.to_owned(), secret: Zeroizing::new(secret.to_owned()) })
    }

    /// The whole of it.
    pub(super) fn text(&self) -> String {
        format!("{}#{}", self.url, *self.secret)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_beside_the_directory_and_come_back() {
        for (directory, link) in [
            ("wss://example.org/directory", "https://example.org/invite#-s_1"),
            ("wss://example.org", "https://example.org/invite#-s_1"),
            ("ws://localhost:20500", "http://localhost:20500/invite#-s_1"),
            ("ws://[::1]:1/", "http://[::1]:1/invite#-s_1"),
            ("WSS://example.org/mesh/directory", "https://example.org/mesh/invite#-s_1"),
            ("wss://example.org/a/mesh/", "https://example.org/a/mesh/invite#-s_1"),
        ] {
            let made = Link::new(directory, "-s_1".into()).unwrap();
            assert_eq!(made.text(), link);
            assert_eq!(Link::parse(link, false).unwrap(), made);
        }
    }

    #[test]
    fn what_is_no_link_is_told_and_no_password_goes_in_the_clear() {
        for none in [
            "",
            "secret",
            "https://example.org/invite",
            "https://example.org/invite#",
            "example.org/invite#s",
            "wss://example.org/invite#s",
            "https://a:b@example.org/invite#s",
            "https://example.org/invite?a=b#s",
        ] {
            assert!(Link::parse(none, true).is_err(), "{none}");
        }
        let plain = "http://example.org/invite#s";
        assert!(Link::parse(plain, false).is_err());
        assert_eq!(Link::parse(plain, true).unwrap().url, "http://example.org/invite");
    }
}
