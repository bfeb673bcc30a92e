//! Passwords by argon2id.
//!
//! A wrong password takes as long as the parameters of now do, also where there is no account, and where the hash is older and was
//! cheaper: what that lacks is spent beside it. A hash that was dearer takes longer still, until its owner logs in: whoever lowers the
//! parameters shows by the time which accounts have been there since before. Nor is it exact: memory that fits into a cache is filled
//! faster.

use std::hint::black_box;

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
        this.nobody = this.hasher.hash_password(b"").map_err(|_| argon2::Error::OutOfMemory)?.to_string();
        Ok(this)
    }

    /// Takes as long as hashing of this cost does.
    fn spend(&self, cost: u64) {
        let own = self.hasher.params();
        let memory_kib = u32::try_from(cost / u64::from(own.t_cost())).unwrap_or(u32::MAX);
        // What is too little for argon2 is too little to be noticed.
        if let Ok(params) = Params::new(memory_kib, own.t_cost(), own.p_cost(), None) {
            let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
            let _ = black_box(hasher.hash_password_into(b"", &[0; 16], &mut [0; Params::DEFAULT_OUTPUT_LEN]));
        }
    }
}

/// What hashing costs, in KiB that are filled: lanes are filled one after the other.
fn cost(params: &Params) -> u64 {
    u64::from(params.m_cost()) * u64::from(params.t_cost())
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
        let (fits, spent) = match PasswordHash::new(hash.unwrap_or(&self.nobody)) {
            Ok(parsed) => {
                let fits = self.hasher.verify_password(password.as_bytes(), &parsed).is_ok();
                (fits, Params::try_from(&parsed).map_or(0, |params| cost(&params)))
            }
            Err(error) => {
                tracing::error!(%error, "the hash of a password cannot be read");
                (false, 0)
            }
        };
        if !fits {
            self.spend(cost(self.hasher.params()).saturating_sub(spent));
        }
        fits && hash.is_some()
    }

    fn is_current(&self, hash: &str) -> bool {
        let Ok(hash) = PasswordHash::new(hash) else { return false };
        let numbers = |params: &Params| (params.m_cost(), params.t_cost(), params.p_cost());
        let are_same = Params::try_from(&hash).is_ok_and(|params| numbers(&params) == numbers(self.hasher.params()));
        are_same && hash.algorithm == Algorithm::Argon2id.ident() && hash.version == Some(Version::V0x13.into())
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
        let now = Argon2id::new(128, 2, 1).unwrap();
        assert!(now.verify("correct horse", Some(&hash)) && !now.verify("correct hors", Some(&hash)));
        assert!(!now.is_current(&hash) && !now.is_current("no hash"));
        assert!(now.is_current(&now.hash("correct horse")));
        for (memory_kib, iterations, parallelism) in [(128, 1, 1), (64, 2, 1), (128, 2, 2)] {
            assert!(!Argon2id::new(memory_kib, iterations, parallelism).unwrap().is_current(&now.hash("x")));
        }
        let other = now.hash("x").replace("argon2id", "argon2i");
        assert!(!now.is_current(&other));
        assert!(Argon2id::new(1, 1, 1).is_err() && Argon2id::new(64, 0, 1).is_err());
    }
}
