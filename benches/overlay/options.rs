//! The command line.

use crate::Result;
use crate::process::Variant;

#[derive(Debug)]
pub(crate) struct Options {
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    pub(crate) window: u64,
    pub(crate) variant: Option<Variant>,
    pub(crate) counters: bool,
    names: Vec<String>,
}

impl Options {
    pub(crate) fn parse(mut arguments: impl Iterator<Item = String>) -> Result<Self> {
        let (mut bench, mut quick, mut counters) = (false, false, false);
        let (mut rounds, mut window, mut variant, mut names) = (None, 1000, None, Vec::new());
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--bench" => bench = true,
                "--quick" => quick = true,
                "--counters" => counters = true,
                "--rounds" => rounds = Some(value()?.parse::<usize>()?.clamp(1, 100)),
                "--window" => window = value()?.parse::<u64>()?.clamp(200, 100_000),
                "--variant" => {
                    let name = value()?;
                    let known = Variant::ALL.into_iter().find(|variant| variant.to_string() == name);
                    variant = Some(known.ok_or_else(|| format!("no variant {name}"))?);
                }
                option if option.starts_with('-') => return Err(format!("unknown option {option}").into()),
                name => names.push(name.to_owned()),
            }
        }
        let quick = quick || !bench;
        Ok(Self { quick, rounds: rounds.unwrap_or(if quick { 1 } else { 3 }), window, variant, counters, names })
    }

    /// Whether this measurement is asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|wanted| name.contains(wanted.as_str()))
    }
}
