//! What accounts, aliases, passwords and email addresses may be.

use crate::protocol::directory::{MAX_NAME_BYTES, OWN_ALIAS};

/// Fewest characters of a new password.
const MIN_PASSWORD_CHARS: usize = 8;
/// Most bytes of a password: more would only make the server work.
pub(super) const MAX_PASSWORD_BYTES: usize = 1024;

/// Why a name, an alias, a password or an email address is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Invalid {
    /// It has nothing in it.
    #[error("it is empty")]
    Empty,
    /// It is shorter than 8 characters.
    #[error("it is shorter than 8 characters")]
    TooShort,
    /// It is longer than 128 bytes, or 1,024 if it is a password.
    #[error("it is too long")]
    TooLong,
    /// It has a control character in it, or white space at an end.
    #[error("it has control characters, or white space at an end")]
    Characters,
    /// A name with a colon: HTTP's way to log in has no room for it.
    #[error("it has a colon")]
    Colon,
    /// An alias by which something else is meant: `Us` and `*`, and digits only, as in the numbers of peers.
    #[error("it is reserved, as `*` (all peers), `Us` (the own logins) and digits only (the number of a peer) are")]
    Reserved,
    /// It is not an email address.
    #[error("it is not an email address")]
    NoEmail,
}

/// Whether an account may have this name.
pub(super) fn check_name(name: &str) -> Result<(), Invalid> {
    plain(name)?;
    if name.contains(':') { Err(Invalid::Colon) } else { Ok(()) }
}

/// Whether one may know somebody by this alias.
pub(super) fn check_alias(alias: &str) -> Result<(), Invalid> {
    plain(alias)?;
    let reserved = alias == OWN_ALIAS || alias == "*" || alias.bytes().all(|byte| byte.is_ascii_digit());
    if reserved { Err(Invalid::Reserved) } else { Ok(()) }
}

/// Whether this may become a password. Old ones may be whatever they are.
pub(super) fn check_password(password: &str) -> Result<(), Invalid> {
    if password.len() > MAX_PASSWORD_BYTES {
        Err(Invalid::TooLong)
    } else if password.chars().nth(MIN_PASSWORD_CHARS - 1).is_none() {
        Err(Invalid::TooShort)
    } else {
        Ok(())
    }
}

/// Whether this may be an email address. Whether it is one, only a letter can tell.
pub(super) fn check_email(email: &str) -> Result<(), Invalid> {
    plain(email)?;
    match email.rsplit_once('@') {
        Some((user, host)) if !user.is_empty() && !host.is_empty() && !email.contains(' ') => Ok(()),
        _ => Err(Invalid::NoEmail),
    }
}

fn plain(text: &str) -> Result<(), Invalid> {
    if text.is_empty() {
        Err(Invalid::Empty)
    } else if text.len() > MAX_NAME_BYTES {
        Err(Invalid::TooLong)
    } else if text.chars().any(char::is_control) || text.trim() != text {
        Err(Invalid::Characters)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_may_be() {
        for good in ["a", "Bob", "bob smith", "Jürgen 😀", "a;b=c%", &"x".repeat(128)] {
            assert_eq!((check_name(good), check_alias(good)), (Ok(()), Ok(())), "{good}");
        }
        for (bad, why) in [
            ("", Invalid::Empty),
            (&*"x".repeat(129), Invalid::TooLong),
            ("a\0", Invalid::Characters),
            ("a\nb", Invalid::Characters),
            (" a", Invalid::Characters),
            ("a ", Invalid::Characters),
        ] {
            assert_eq!((check_name(bad), check_alias(bad)), (Err(why), Err(why)), "{bad:?}");
        }
        assert_eq!((check_name("a:b"), check_alias("a:b")), (Err(Invalid::Colon), Ok(())));
        for reserved in ["Us", "*", "0", "17", "9846338397524"] {
            assert_eq!((check_name(reserved), check_alias(reserved)), (Ok(()), Err(Invalid::Reserved)));
        }
    }

    #[test]
    fn what_passwords_and_emails_may_be() {
        assert_eq!(check_password("1234567"), Err(Invalid::TooShort));
        assert_eq!(check_password("äöüß€😀12"), Ok(()));
        assert_eq!(check_password(&"x".repeat(1024)), Ok(()));
        assert_eq!(check_password(&"x".repeat(1025)), Err(Invalid::TooLong));
        assert_eq!(check_email("a@example.org"), Ok(()));
        for bad in ["example.org", "@example.org", "a@", "a b@example.org"] {
            assert_eq!(check_email(bad), Err(Invalid::NoEmail), "{bad}");
        }
    }
}
