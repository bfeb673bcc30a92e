//! `pmesh register`: an account by an invitation.

use std::net::IpAddr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use ureq::http::Uri;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::args::{RegisterArgs, ServerArgs};
use super::secret;
use crate::mesh::Result;

/// For all of it: the directory hashes a password.
const TIMEOUT: Duration = Duration::from_secs(30);

/// What is asked for.
#[derive(Serialize)]
struct Acceptance<'a> {
    invite: &'a str,
    name: &'a str,
    password: &'a str,
}

/// What a directory says that refuses.
#[derive(Deserialize)]
struct Refusal {
    message: String,
}

pub(super) async fn run(args: RegisterArgs) -> Result<()> {
    let url = invitations(&args.server)?;
    let invite = secret::argument(args.invite)?;
    let password = args.password.read_new()?;
    let asked =
        spawn_blocking(move || post(&url, &Acceptance { invite: &invite, name: &args.name, password: &password }));
    asked.await?
}

/// Where invitations are accepted: beside the directory, as a link `invite` on it would lead. So behind a path of a proxy they are too.
fn invitations(server: &ServerArgs) -> Result<String> {
    let url: Uri = server.url.parse().map_err(|_| "this is no URL")?;
    let (Some(place), Some(host)) = (url.authority(), url.host()) else { return Err("the URL has no host".into()) };
    if place.as_str().contains('@') || url.query().is_some() {
        return Err("the URL has a name, a password or a query".into());
    }
    let scheme = match url.scheme_str().map(str::to_ascii_lowercase).as_deref() {
        Some("wss") => "https",
        Some("ws") if server.allow_plaintext || is_loopback(host) => "http",
        Some("ws") => {
            return Err("the password would go over the network in the clear: use wss://, or --allow-plaintext".into());
        }
        _ => return Err("the URL begins neither with ws:// nor with wss://".into()),
    };
    let folder = url.path().rsplit_once('/').map_or("", |(folder, _)| folder);
    Ok(format!("{scheme}://{place}{folder}/invite"))
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

fn post(url: &str, acceptance: &Acceptance<'_>) -> Result<()> {
    // Those that logging in trusts.
    let certificates = rustls_native_certs::load_native_certs().certs;
    let trusted: RootCerts = certificates.iter().map(|der| Certificate::from_der(der).to_owned()).into();
    let config = ureq::Agent::config_builder()
        .tls_config(TlsConfig::builder().root_certs(trusted).build())
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None);
    let sent = ureq::Agent::from(config.build()).post(url).send_json(acceptance);
    let mut answer = sent.map_err(|error| format!("the directory cannot be reached: {error}"))?;
    if answer.status().is_success() {
        return Ok(());
    }
    match answer.body_mut().read_json::<Refusal>() {
        Ok(refusal) => Err(refusal.message.into()),
        Err(_) => Err(format!("not a directory: it answers with status {}", answer.status().as_u16()).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invitations_are_accepted_beside_the_directory_and_not_in_the_clear() {
        let at = |url: &str, allow_plaintext| invitations(&ServerArgs { url: url.to_owned(), allow_plaintext }).ok();
        for (url, full) in [
            ("wss://example.org/directory", "https://example.org/invite"),
            ("ws://localhost:20500", "http://localhost:20500/invite"),
            ("ws://[::1]:1/", "http://[::1]:1/invite"),
            ("WSS://example.org/mesh/directory", "https://example.org/mesh/invite"),
            ("wss://example.org/a/mesh/", "https://example.org/a/mesh/invite"),
        ] {
            assert_eq!(at(url, false).as_deref(), Some(full));
        }
        assert_eq!(at("ws://example.org", false), None);
        assert_eq!(at("ws://example.org", true).as_deref(), Some("http://example.org/invite"));
        for none in ["", "example.org", "https://example.org", "/x", "wss://a:b@example.org", "wss://example.org/?a=b"]
        {
            assert_eq!(at(none, true), None, "{none}");
        }
    }
}
