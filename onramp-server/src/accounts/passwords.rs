//! Passwords by argon2id.

use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params, Version};
use pmesh::onramp::accounts::Passwords;

/// Hashes with a salt each, in PHC's string format. Each takes the memory that it is told to, while it works.
pub(crate) struct Argon2id {
    hasher: Argon2<'static>,
    /// Of no password that anybody has: to be checked against for accounts that there are not.
    nobody: String,
}

impl Argon2id {
    /// # Errors
    ///
    /// If argon2 cannot do with such numbers.
    pub(crate) fn new(memory_kib: u32, iterations: u32, parallelism: u32) -> Result<Self, argon2::Error> {
        let params = Params::new(memory_kib, iterations, parallelism, None)?;
        let mut this = Self { hasher: Argon2::new(Algorithm::Argon2id, Version::V0x13, params), nobody: String::new() };
        this.nobody = this.hash("");
        Ok(this)
    }
}

impl Passwords for Argon2id {
    fn hash(&self, password: &str) -> String {
        let hash: PasswordHash = self
            .hasher
            .hash_password(password.as_bytes())
            .expect("the parameters are checked, and there is randomness");
        hash.to_string()
    }

    fn verify(&self, password: &str, hash: Option<&str>) -> bool {
        // The parameters are those in the hash.
        let fits = match PasswordHash::new(hash.unwrap_or(&self.nobody)) {
            Ok(parsed) => self.hasher.verify_password(password.as_bytes(), &parsed).is_ok(),
            Err(error) => {
                tracing::error!(%error, "the hash of a password cannot be read");
                false
            }
        };
        fits && hash.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_fits_its_hash_and_no_other() {
        let passwords = Argon2id::new(64, 1, 1).unwrap();
        let hash = passwords.hash("correct horse");
        assert!(hash.starts_with("$argon2id$v=19$m=64,t=1,p=1$"), "{hash}");
        assert_ne!(hash, passwords.hash("correct horse"), "each has its own salt");
        assert!(passwords.verify("correct horse", Some(&hash)));
        for wrong in ["", "Correct horse", "correct horse\0", "correct hors"] {
            assert!(!passwords.verify(wrong, Some(&hash)), "{wrong}");
        }
        assert!(!passwords.verify("", None) && !passwords.verify("correct horse", None));
        assert!(!passwords.verify("correct horse", Some("no hash")));
    }

    #[test]
    fn old_hashes_keep_their_parameters() {
        let hash = Argon2id::new(64, 1, 1).unwrap().hash("correct horse");
        assert!(Argon2id::new(128, 2, 1).unwrap().verify("correct horse", Some(&hash)));
        assert!(Argon2id::new(1, 1, 1).is_err() && Argon2id::new(64, 0, 1).is_err());
    }
}
