//! Accounts for real: in a database, with passwords by argon2id.

mod database;
mod passwords;
mod sql;
#[cfg(test)]
mod tests;

pub(crate) use database::OpenError;
pub(crate) use passwords::Argon2id;
pub(crate) use sql::SqlStore;
