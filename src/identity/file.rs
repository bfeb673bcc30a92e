//! Keeping an identity in a file: PKCS #8 in PEM (RFC 8410), as `openssl genpkey -algorithm ed25519` writes it.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{DecodePrivateKey, EncodePrivateKey, KeypairBytes};

use super::Identity;

/// Longest key file, in bytes. A longer one is none.
const MAX_FILE_BYTES: u64 = 16 * 1024;

/// Why an identity could not be loaded from its file, or written to it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityFileError {
    /// The file cannot be read or written.
    #[error("{}: {error}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system says. [`io::ErrorKind::NotFound`] when loading, [`io::ErrorKind::AlreadyExists`] when creating.
        #[source]
        error: io::Error,
    },
    /// Others than the owner may read or change the file. The key in it must be thought known.
    #[error("{}: others than the owner have access (mode {mode:o}); chmod 600", path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file holds no Ed25519 private key in PEM.
    #[error("{}: not an Ed25519 private key in PEM (PKCS #8)", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
}

impl Identity {
    /// Loads an identity from a file: an Ed25519 private key in PEM, as [`create`](Self::create) and OpenSSL write it.
    ///
    /// # Errors
    ///
    /// [`IdentityFileError`], also if others than the owner have access to the file (on Unix).
    pub fn load(path: impl AsRef<Path>) -> Result<Self, IdentityFileError> {
        let path = path.as_ref();
        let failed = |error| IdentityFileError::Io { path: path.into(), error };
        let file = fs::File::open(path).map_err(failed)?;
        check_permissions(path, &file.metadata().map_err(failed)?)?;
        let mut text = String::new();
        let no_key = || IdentityFileError::NoKey { path: path.into() };
        io::Read::read_to_string(&mut io::Read::take(file, MAX_FILE_BYTES), &mut text)
            .map_err(|error| if error.kind() == io::ErrorKind::InvalidData { no_key() } else { failed(error) })?;
        let key = SigningKey::from_pkcs8_pem(&text).map_err(|_| no_key())?;
        Ok(Self(Arc::new(key)))
    }

    /// Makes a new identity and writes it to a new file, to which only the owner has access (on Unix; elsewhere whoever has
    /// access to the folder). The file appears whole or not at all, and none is ever overwritten.
    ///
    /// # Errors
    ///
    /// [`IdentityFileError::Io`], with [`io::ErrorKind::AlreadyExists`] if there is such a file.
    pub fn create(path: impl AsRef<Path>) -> Result<Self, IdentityFileError> {
        let path = path.as_ref();
        let identity = Self::generate();
        identity.write(path).map_err(|error| IdentityFileError::Io { path: path.into(), error })?;
        Ok(identity)
    }

    /// Loads an identity from a file, which is created with a new one if it is not there.
    ///
    /// # Errors
    ///
    /// [`IdentityFileError`].
    pub fn load_or_create(path: impl AsRef<Path>) -> Result<Self, IdentityFileError> {
        let path = path.as_ref();
        let is = |error: &IdentityFileError, kind| matches!(error, IdentityFileError::Io { error, .. } if error.kind() == kind);
        match Self::load(path) {
            Err(error) if is(&error, io::ErrorKind::NotFound) => match Self::create(path) {
                // Another process was faster.
                Err(error) if is(&error, io::ErrorKind::AlreadyExists) => Self::load(path),
                created => created,
            },
            loaded => loaded,
        }
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        // Without the public key, as OpenSSL has it: that version of the format is understood everywhere.
        let bytes = KeypairBytes { secret_key: self.0.to_bytes(), public_key: None };
        let pem = bytes.to_pkcs8_pem(LineEnding::LF).map_err(io::Error::other)?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // Made with owner-only permissions.
        let mut file = tempfile::NamedTempFile::new_in(folder)?;
        file.write_all(pem.as_bytes())?;
        file.as_file().sync_all()?;
        file.persist_noclobber(path)?;
        // A name that is lost with the power would mean a new identity.
        #[cfg(unix)]
        fs::File::open(folder)?.sync_all()?;
        Ok(())
    }
}

#[cfg(unix)]
fn check_permissions(path: &Path, metadata: &fs::Metadata) -> Result<(), IdentityFileError> {
    use std::os::unix::fs::PermissionsExt;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(IdentityFileError::Exposed { path: path.into(), mode }) }
}

#[cfg(not(unix))]
fn check_permissions(_path: &Path, _metadata: &fs::Metadata) -> Result<(), IdentityFileError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(error: IdentityFileError) -> io::ErrorKind {
        let IdentityFileError::Io { error, .. } = error else { panic!("{error}") };
        error.kind()
    }

    #[test]
    fn an_identity_is_kept_and_never_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        assert_eq!(kind(Identity::load(&path).unwrap_err()), io::ErrorKind::NotFound);
        let identity = Identity::load_or_create(&path).unwrap();
        assert_eq!(Identity::load(&path).unwrap(), identity);
        assert_eq!(Identity::load_or_create(&path).unwrap(), identity);
        assert_eq!(kind(Identity::create(&path).unwrap_err()), io::ErrorKind::AlreadyExists);
        assert_eq!(Identity::load(&path).unwrap(), identity);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left behind");
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_has_access() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        Identity::create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Identity::load(&path), Err(IdentityFileError::Exposed { mode: 0o640, .. })));
    }

    #[cfg(unix)]
    fn private(path: &Path, text: &[u8]) {
        use std::os::unix::fs::OpenOptionsExt;
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path).unwrap();
        file.write_all(text).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn keys_of_openssl_are_read_and_other_files_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.pem");
        // RFC 8410, section 10.3.
        let known = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
        private(&path, known.as_bytes());
        let identity = Identity::load(&path).unwrap();
        assert_eq!(identity.0.to_bytes()[..4], [0xd4, 0xee, 0x72, 0xdb]);
        let again = folder.path().join("again.pem");
        identity.write(&again).unwrap();
        assert_eq!(fs::read_to_string(&again).unwrap(), known);
        for other in [
            &b""[..],
            b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n",
            &[0xff; 40],
            &known.as_bytes()[..80],
        ] {
            private(&path, other);
            assert!(matches!(Identity::load(&path), Err(IdentityFileError::NoKey { .. })), "{other:?}");
        }
    }
}
