//! Why the service of accounts has not done something.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use super::names::Invalid;
use super::store::StoreError;

/// An error and what is behind it, for the log. Users are told only the first.
pub(in crate::onramp) struct Chain<'a>(pub(in crate::onramp) &'a dyn Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = self.0.to_string();
        f.write_str(&told)?;
        let mut next = self.0.source();
        while let Some(error) = next {
            let text = error.to_string();
            // Some say themselves what is behind them.
            if !told.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            (told, next) = (text, error.source());
        }
        Ok(())
    }
}

/// Why somebody is not logged in.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LoginError {
    /// There is no such account, it is not active, or the password or token is not right: which of them is not told.
    #[error("the name or the password is wrong")]
    Wrong,
    /// There were too many wrong passwords.
    #[error("too many wrong passwords: try again in {} s", retry_after.as_secs() + 1)]
    Throttled {
        /// How long no attempt is let pass.
        retry_after: Duration,
    },
    /// Too many attempts are under way, from this address or in all.
    #[error("too many logins are under way: try again later")]
    Busy,
    /// The store, or the check of the password, has failed.
    #[error(transparent)]
    Failed(#[from] StoreError),
}

/// Why nothing has happened to an account.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccountError {
    /// No account can have this name.
    #[error("invalid name: {0}")]
    InvalidName(Invalid),
    /// Nobody can be known by this alias.
    #[error("invalid alias: {0}")]
    InvalidAlias(Invalid),
    /// This is no password for an account.
    #[error("invalid password: {0}")]
    InvalidPassword(Invalid),
    /// Nobody can be invited at this email address.
    #[error("invalid email address: {0}")]
    InvalidEmail(Invalid),
    /// The password of the account is another one.
    #[error("the password is wrong")]
    WrongPassword,
    /// See [`LoginError::Throttled`].
    #[error("too many wrong passwords: try again in {} s", retry_after.as_secs() + 1)]
    Throttled {
        /// How long no attempt is let pass.
        retry_after: Duration,
    },
    /// See [`LoginError::Busy`].
    #[error("too many attempts are under way: try again later")]
    Busy,
    /// No account has this name.
    #[error("there is no account {0:?}")]
    UnknownName(String),
    /// What the store says.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl LoginError {
    /// A word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Wrong => "wrongPassword",
            Self::Throttled { .. } => "throttled",
            Self::Busy => "busy",
            Self::Failed(error) => error.code(),
        }
    }
}

impl AccountError {
    /// A word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidName(_) => "invalidName",
            Self::InvalidAlias(_) => "invalidAlias",
            Self::InvalidPassword(_) => "invalidPassword",
            Self::InvalidEmail(_) => "invalidEmail",
            Self::WrongPassword => "wrongPassword",
            Self::Throttled { .. } => "throttled",
            Self::Busy => "busy",
            Self::UnknownName(_) => StoreError::UnknownAccount.code(),
            Self::Store(error) => error.code(),
        }
    }
}

impl From<LoginError> for AccountError {
    fn from(error: LoginError) -> Self {
        match error {
            LoginError::Wrong => Self::WrongPassword,
            LoginError::Throttled { retry_after } => Self::Throttled { retry_after },
            LoginError::Busy => Self::Busy,
            LoginError::Failed(error) => Self::Store(error),
        }
    }
}

impl StoreError {
    /// A word for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::NameTaken => "nameTaken",
            Self::UnknownAccount => "unknownAccount",
            Self::PasswordChanged => "wrongPassword",
            Self::AliasTaken => "aliasTaken",
            Self::UnknownAlias => "unknownAlias",
            Self::AlreadyTrusted => "alreadyTrusted",
            Self::UnknownToken => "unknownToken",
            Self::Expired => "expired",
            Self::OwnToken => "ownToken",
            Self::TooMany(_) => "tooMany",
            Self::Failed(_) => "failed",
        }
    }
}
