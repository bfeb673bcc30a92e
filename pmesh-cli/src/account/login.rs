//! The file that says where to log in, and as whom.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use pmesh::Connect;
use pmesh::directory::{Credentials, DirectoryBuilder, LoginError, Session};
use serde::{Deserialize, Serialize};
use ureq::http::Uri;
use zeroize::Zeroizing;

use super::args::FileArgs;
use crate::mesh::Result;

/// More than a file needs.
const MAX_FILE: u64 = 64 * 1024;

/// Where to log in, and as whom.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Login {
    pub(super) url: String,
    pub(super) name: String,
    pub(super) password: Zeroizing<String>,
    /// Whether the password may go over a network in the clear.
    #[serde(default)]
    pub(super) allow_plaintext: bool,
}

impl FileArgs {
    /// The file.
    pub(super) fn path(&self) -> Result<PathBuf> {
        if let Some(file) = &self.file {
            return Ok(file.clone());
        }
        let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let config = absolute("XDG_CONFIG_HOME").or_else(|| Some(absolute("HOME")?.join(".config")));
        let config = config.ok_or("there is neither $XDG_CONFIG_HOME nor $HOME: say --login FILE")?;
        Ok(config.join("pmesh").join("login.json"))
    }

    /// A call to an onramp: with name and password, if it is of the server of this login.
    ///
    /// # Errors
    ///
    /// The URL holds a secret, or a file that was named cannot be read.
    pub(crate) fn onramp(&self, url: &str) -> Result<Connect> {
        if has_secret(url) {
            // Not quoted.
            return Err("a secret in the URL of an onramp would be shown: see `pmesh login`".into());
        }
        let login = match self.load() {
            Ok(login) if login.is_of(url) => login,
            // Somebody who has no login may go to any onramp.
            Err(error) if self.file.is_some() => return Err(error),
            _ => return Ok(Connect::to(url)),
        };
        Ok(Connect::to(url).log_in(&login.name, &login.password))
    }

    /// Reads the file.
    pub(super) fn load(&self) -> Result<Login> {
        let path = self.path()?;
        Login::load(&path).map_err(|why| format!("{}: {why}", path.display()).into())
    }
}

impl Login {
    /// Whether an onramp is at the same server: beside the directory or below, in the same way.
    fn is_of(&self, onramp: &str) -> bool {
        let (Some(login), Some(onramp)) = (Place::of(&self.url), Place::of(onramp)) else { return false };
        login.origin == onramp.origin && format!("{}/", onramp.path).starts_with(folder(&login.path))
    }

    fn load(path: &Path) -> Result<Self> {
        let file = match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err("not logged in: see `pmesh login`".into());
            }
            file => file?,
        };
        let mode = file.metadata()?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(format!("others than the owner have access (mode {mode:o}); chmod 600").into());
        }
        let mut text = Zeroizing::new(Vec::new());
        file.take(MAX_FILE).read_to_end(&mut text)?;
        // What is wrong in it is not told: it may be the password.
        serde_json::from_slice(&text).map_err(|_| "not a login: see `pmesh login`".into())
    }

    /// Writes the file at once as a whole. Nobody but the owner can read it at any time.
    pub(super) fn save(&self, path: &Path) -> Result<()> {
        let failed = |error: io::Error| format!("{}: {error}", path.display());
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(failed)?;
        let text = Zeroizing::new(serde_json::to_vec(self)?);
        let written = tempfile::NamedTempFile::new_in(folder).and_then(|mut file| {
            file.as_file().set_permissions(fs::Permissions::from_mode(0o600))?;
            file.write_all(&text)?;
            file.as_file().sync_all()?;
            Ok(file.persist(path)?)
        });
        written.map(drop).map_err(failed)?;
        Ok(())
    }

    /// Logs in.
    pub(super) async fn connect(&self, builder: DirectoryBuilder) -> std::result::Result<Session, LoginError> {
        let credentials = Credentials::new(&*self.name, self.password.as_str());
        builder.allow_plaintext(self.allow_plaintext).connect(&self.url, credentials).await
    }
}

/// Where a URL leads.
struct Place {
    /// Scheme, host and port.
    origin: (String, String, Option<u16>),
    path: String,
}

impl Place {
    fn of(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let port = uri.port_u16().or(match &*scheme {
            "ws" => Some(80),
            "wss" => Some(443),
            _ => None,
        });
        Some(Self { origin: (scheme, uri.host()?.to_ascii_lowercase(), port), path: uri.path().to_owned() })
    }
}

/// A path to its last `/`.
pub(super) fn folder(path: &str) -> &str {
    path.rfind('/').map_or("/", |end| &path[..=end])
}

/// Whether there is a password or a token in a URL.
fn has_secret(url: &str) -> bool {
    let Ok(uri) = url.parse::<Uri>() else { return url.contains(['@', '?']) };
    let named = uri.authority().is_some_and(|authority| authority.as_str().contains('@'));
    named || uri.query().is_some_and(|query| query.split('&').any(|part| part.split('=').next() == Some("token")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(password: &str) -> Login {
        let password = Zeroizing::new(password.to_owned());
        Login { url: "wss://example.org".into(), name: "alice".into(), password, allow_plaintext: false }
    }

    #[test]
    fn a_login_is_its_owners_and_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new").join("folders").join("login.json");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert!(Login::load(&path).err().unwrap().to_string().contains("not logged in"));
        login("first").save(&path).unwrap();
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        let first = File::open(&path).unwrap();
        login("second").save(&path).unwrap();
        assert_eq!((mode(&path), &**Login::load(&path).unwrap().password), (0o600, "second"));
        let before = io::read_to_string(first).unwrap();
        assert!(before.contains("first"), "who reads it meanwhile has one or the other: {before}");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left");
    }

    #[test]
    fn a_login_is_for_the_onramps_of_its_server() {
        for (directory, onramp, is_of) in [
            ("wss://example.org", "wss://example.org", true),
            ("wss://Example.org:443/", "WSS://example.org/any", true),
            ("wss://example.org/mesh/directory", "wss://example.org/mesh", true),
            ("wss://example.org/mesh/directory", "wss://example.org/mesh/x", true),
            ("wss://example.org/mesh/directory", "wss://example.org/mesh2", false),
            ("wss://example.org/mesh/directory", "wss://example.org", false),
            ("wss://example.org", "ws://example.org", false),
            ("wss://example.org", "wss://example.org:8443", false),
            ("wss://example.org", "wss://example.org.evil.org", false),
            ("wss://example.org", "example.org", false),
        ] {
            let login = Login { url: directory.to_owned(), ..login("secret") };
            assert_eq!(login.is_of(onramp), is_of, "{directory} {onramp}");
        }
    }

    #[test]
    fn a_secret_in_a_url_is_seen() {
        for (url, is_secret) in [
            ("ws://localhost:20500/?token=T", true),
            ("ws://localhost/?a=b&token=T", true),
            ("wss://a:b@example.org", true),
            ("ws://localhost/?tok en=T", true),
            ("wss://example.org/?room=token", false),
            ("wss://example.org", false),
            ("not a url", false),
        ] {
            assert_eq!(has_secret(url), is_secret, "{url}");
        }
    }

    #[test]
    fn files_that_others_can_read_or_that_are_none_are_not_taken_and_not_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("login.json");
        login("secret").save(&path).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(Login::load(&path).err().unwrap().to_string().contains("mode 640"));
        for none in ["", "{}", r#"{"url":"secret","name":1}"#, r#""secret""#] {
            fs::write(&path, none).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert_eq!(Login::load(&path).err().unwrap().to_string(), "not a login: see `pmesh login`");
        }
    }
}
