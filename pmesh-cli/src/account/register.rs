//! `pmesh register`: an account by an invitation.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::task::spawn_blocking;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::args::RegisterArgs;
use super::link::Link;
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
    let Link { url, secret } = Link::parse(&secret::argument(args.link)?, args.allow_plaintext)?;
    let password = args.password.read_new()?;
    let asked =
        spawn_blocking(move || post(&url, &Acceptance { invite: &secret, name: &args.name, password: &password }));
    asked.await?
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
