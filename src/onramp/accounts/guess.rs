//! By what a wrong password is remembered.

use ring::hmac;

use super::store::Digest;

/// An account and a password, of which nobody can tell either without the key of this process.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Guess(pub(super) [u8; 32]);

/// The key of this process.
pub(super) struct Guesses(hmac::Key);

impl Guesses {
    pub(super) fn new(key: [u8; 32]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &key))
    }

    pub(super) fn guess(&self, account: Digest, password: &str) -> Guess {
        let mut context = hmac::Context::with_key(&self.0);
        // As long as any other: where the password begins is known.
        context.update(&account.0);
        context.update(password.as_bytes());
        Guess(context.sign().as_ref().try_into().expect("a SHA-256 is so long"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guess_is_of_an_account_and_a_password_and_of_the_key() {
        let (a, b) = (Digest([1; 32]), Digest([2; 32]));
        let guesses = Guesses::new([0; 32]);
        assert!(guesses.guess(a, "x") == guesses.guess(a, "x"));
        for other in [guesses.guess(a, "y"), guesses.guess(b, "x"), Guesses::new([1; 32]).guess(a, "x")] {
            assert!(guesses.guess(a, "x") != other);
        }
    }
}
