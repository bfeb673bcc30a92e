//! Reading what must not be on a command line.

use std::io::{BufRead, Read, stdin};

use zeroize::Zeroizing;

use super::args::PasswordArgs;
use crate::mesh::Result;

/// More than a password or token has.
const MAX_LINE: u64 = 64 * 1024;

impl PasswordArgs {
    /// Reads the password, from the terminal without showing it.
    pub(super) fn read(self, prompt: &str) -> Result<Zeroizing<String>> {
        if self.password_stdin {
            return line();
        }
        let password = rpassword::prompt_password(prompt);
        let password =
            password.map_err(|error| format!("no password from the terminal: {error}; there is --password-stdin"))?;
        Ok(Zeroizing::new(password))
    }

    /// Reads a password to be, from the terminal twice.
    pub(super) fn read_new(self) -> Result<Zeroizing<String>> {
        let password = self.read("New password: ")?;
        if !self.password_stdin && self.read("The same again: ")? != password {
            return Err("these are two passwords".into());
        }
        Ok(password)
    }
}

/// A secret of the command line, or for `-` a line of standard input.
pub(super) fn argument(text: String) -> Result<Zeroizing<String>> {
    if text == "-" { line() } else { Ok(Zeroizing::new(text)) }
}

/// The next line of standard input.
fn line() -> Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::new());
    let read = stdin().lock().take(MAX_LINE).read_line(&mut line);
    read.map_err(|error| format!("cannot read standard input: {error}"))?;
    let length = line.trim_end_matches(['\r', '\n']).len();
    line.truncate(length);
    Ok(line)
}
