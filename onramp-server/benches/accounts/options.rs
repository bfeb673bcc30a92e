//! The command line.

use crate::Result;

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    pub(crate) accounts: usize,
    parts: Vec<String>,
}

impl Options {
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let (mut bench, mut quick, mut rounds, mut accounts, mut parts) = (false, false, None, None, Vec::new());
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--bench" => bench = true,
                "--quick" => quick = true,
                "--rounds" => rounds = Some(value()?.parse::<usize>()?.clamp(1, 100)),
                // A ring in which neighbours on both sides are not the same.
                "--accounts" => accounts = Some(value()?.parse::<usize>()?.clamp(20, 10_000)),
                part @ ("presence" | "calls") => parts.push(part.to_owned()),
                other => return Err(format!("unknown option {other}").into()),
            }
        }
        let quick = quick || !bench;
        let some = |full, quick_one| if quick { quick_one } else { full };
        Ok(Self { quick, rounds: rounds.unwrap_or(some(3, 1)), accounts: accounts.unwrap_or(some(1000, 40)), parts })
    }

    /// Whether this part is asked for.
    pub(crate) fn wants(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|wanted| wanted == part)
    }

    /// So many, or fewer in a smoke run.
    pub(crate) fn some(&self, full: usize, quick: usize) -> usize {
        if self.quick { quick } else { full }
    }
}
