//! The command line.

use std::time::Duration;

use crate::Result;
use crate::alone::Alone;
use crate::pair::Variant;

/// The option by which the peers of pmesh use one UDP port each.
const SHARED_PORT: &str = "--shared-port";

/// The option, if it is given.
pub(crate) fn shared_port() -> Option<String> {
    std::env::args().find(|argument| argument == SHARED_PORT)
}

#[derive(Debug, Clone)]
pub(crate) enum Mode {
    Compare,
    Flow,
    /// One figure, in this process.
    Alone(Alone, Variant),
}

#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) mode: Mode,
    pub(crate) quick: bool,
    pub(crate) rounds: usize,
    pub(crate) variant: Option<Variant>,
    pub(crate) seconds: Duration,
    pub(crate) pause: Duration,
    /// What each message costs the reader.
    pub(crate) work: Duration,
    names: Vec<String>,
}

impl Options {
    pub(crate) fn parse(arguments: impl Iterator<Item = String>) -> Result<Self> {
        let (mut flow, mut bench, mut quick, mut alone) = (false, false, false, None);
        let (mut rounds, mut variant, mut seconds, mut pause, mut work) = (None, None, None, None, 0);
        let mut names = Vec::new();
        let mut arguments = arguments;
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
            match argument.as_str() {
                "--bench" => bench = true,
                "--quick" => quick = true,
                "--flow" => flow = true,
                // Seen by every peer, in the process of the memory measurement too.
                SHARED_PORT => {}
                "--rounds" => rounds = Some(value()?.parse::<usize>()?.clamp(1, 100)),
                "--variant" => variant = Some(value()?.parse()?),
                "--seconds" => seconds = Some(value()?.parse::<f64>()?.clamp(0.1, 3600.0)),
                "--pause" => pause = Some(value()?.parse::<f64>()?.clamp(0.1, 3600.0)),
                "--work" => work = value()?.parse::<u64>()?.min(100_000),
                "--alone" => alone = Some((value()?.parse()?, value()?.parse()?)),
                option if option.starts_with('-') => return Err(format!("unknown option {option}").into()),
                name => names.push(name.to_owned()),
            }
        }
        let mode = match alone {
            Some((what, variant)) => Mode::Alone(what, variant),
            None if flow => Mode::Flow,
            None => Mode::Compare,
        };
        let quick = quick || !bench;
        Ok(Self {
            mode,
            quick,
            rounds: rounds.unwrap_or(if quick { 1 } else { 5 }),
            variant,
            seconds: Duration::from_secs_f64(seconds.unwrap_or(if quick { 0.5 } else { 10.0 })),
            pause: Duration::from_secs_f64(pause.unwrap_or(if quick { 0.5 } else { 5.0 })),
            work: Duration::from_micros(work),
            names,
        })
    }

    /// Whether this measurement is asked for.
    pub(crate) fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|wanted| name.contains(wanted.as_str()))
    }
}
