//! What is measured in a process of its own, so that neither what the allocator has kept from earlier measurements nor
//! what else goes on matters.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use tokio::process::Command;
use tokio::time::{sleep, timeout};

use crate::bare::{self, BarePair};
use crate::onramp::Onramp;
use crate::pair::{End, Pair, Variant};
use crate::tree::Peer;
use crate::{Error, Result, facts, options};

/// How long pairs are idle before the memory is read, for each pair and at most.
const SETTLE: Duration = Duration::from_millis(50);
const LONGEST_SETTLE: Duration = Duration::from_millis(500);

/// How long pairs are idle before processor time is counted, and for how long it is.
const QUIET: Duration = Duration::from_secs(10);
const COUNTED: Duration = Duration::from_secs(20);

/// How long a reader is flooded that has stopped, how often memory is looked at, and where the flood ends early.
const FLOOD: Duration = Duration::from_secs(3);
const LOOK: Duration = Duration::from_millis(20);
const MOST_KB: u64 = 512 * 1024;

/// Pairs that are opened at the same time, where opening takes long.
const AT_ONCE: usize = 25;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alone {
    /// KB for each of so many idle pairs.
    Memory { pairs: usize },
    /// What part of a core so many idle pairs take, in percent.
    Idle { pairs: usize },
    /// By how many MB the process grows, both ends, when a flood of messages of so many bytes meets a reader that has stopped.
    Stall { message: usize },
}

impl fmt::Display for Alone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory { pairs } => write!(f, "memory:{pairs}"),
            Self::Idle { pairs } => write!(f, "idle:{pairs}"),
            Self::Stall { message } => write!(f, "stall:{message}"),
        }
    }
}

impl FromStr for Alone {
    type Err = Box<dyn Error + Send + Sync>;

    fn from_str(text: &str) -> Result<Self> {
        let (name, number) = text.split_once(':').unwrap_or_default();
        let number = number.parse()?;
        match name {
            "memory" => Ok(Self::Memory { pairs: number }),
            "idle" => Ok(Self::Idle { pairs: number }),
            "stall" => Ok(Self::Stall { message: number }),
            _ => Err(format!("no measurement {text}").into()),
        }
    }
}

impl Alone {
    /// Runs it in a process of its own, and returns the figure.
    pub(crate) async fn run(self, variant: Variant) -> Result<f64> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(["--alone", &self.to_string(), &variant.to_string()])
            .args(options::shared_port())
            .kill_on_drop(true);
        let output = command.output().await?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into());
        }
        Ok(String::from_utf8(output.stdout)?.trim().parse()?)
    }

    /// What that process does.
    pub(crate) async fn measure(self, variant: Variant) -> Result<()> {
        let figure = match self {
            Self::Memory { pairs } => memory(variant, pairs).await?,
            Self::Idle { pairs } => idle(variant, pairs).await?,
            Self::Stall { message } => stall(variant, message).await?,
        };
        println!("{figure:.3}");
        Ok(())
    }
}

/// Pairs that are held open. With pmesh, one peer has a link to each of many others; all are on the onramp before.
enum Holder {
    Tree { _onramp: Onramp, hub: Peer, others: Vec<Peer>, open: usize },
    Bare { tuned: bool, held: Vec<BarePair> },
}

impl Holder {
    async fn new(variant: Variant, pairs: usize) -> Result<Self> {
        if variant != Variant::Pmesh {
            return Ok(Self::Bare { tuned: variant == Variant::Same, held: Vec::new() });
        }
        let onramp = Onramp::start().await?;
        let hub = Peer::new(&onramp).await?;
        let mut others = Vec::with_capacity(pairs);
        for _ in 0..pairs {
            others.push(Peer::new(&onramp).await?);
        }
        Ok(Self::Tree { _onramp: onramp, hub, others, open: 0 })
    }

    async fn open(&mut self, pairs: usize) -> Result<()> {
        match self {
            Self::Tree { hub, others, open, .. } => {
                for other in others.iter().skip(*open).take(pairs) {
                    hub.connect(other).await?;
                }
                *open += pairs;
            }
            Self::Bare { tuned, held } => {
                let at_once = if *tuned { 1 } else { AT_ONCE };
                for begin in (0..pairs).step_by(at_once) {
                    let some = (begin..pairs.min(begin + at_once)).map(|_| bare::open(*tuned, bare::SEND_BUFFER_BYTES));
                    held.extend(try_join_all(some).await?);
                }
            }
        }
        Ok(())
    }
}

async fn memory(variant: Variant, pairs: usize) -> Result<f64> {
    let settled = || async move {
        sleep(LONGEST_SETTLE.min(SETTLE * pairs as u32)).await;
        facts::resident_kb() as f64
    };
    let mut holder = Holder::new(variant, pairs + 1).await?;
    holder.open(1).await?;
    let before = settled().await;
    holder.open(pairs).await?;
    Ok((settled().await - before) / pairs as f64)
}

async fn idle(variant: Variant, pairs: usize) -> Result<f64> {
    let mut holder = Holder::new(variant, pairs).await?;
    holder.open(pairs).await?;
    sleep(QUIET).await;
    let (begin, cpu) = (Instant::now(), facts::cpu_time());
    sleep(COUNTED).await;
    Ok((facts::cpu_time() - cpu).as_secs_f64() / begin.elapsed().as_secs_f64() * 100.0)
}

async fn stall(variant: Variant, message: usize) -> Result<f64> {
    // The crate as it comes has no limit on what it queues.
    let pair = match variant {
        Variant::Plain => Pair::bare(bare::open(false, usize::MAX).await?),
        _ => Pair::open(variant, message).await?,
    };
    let _stopped = pair.b.reader();
    let before = facts::resident_kb();
    let flood = tokio::spawn(flood(pair.a.clone(), message));
    let (begin, mut most) = (Instant::now(), 0);
    while begin.elapsed() < FLOOD && most < MOST_KB {
        sleep(LOOK).await;
        most = most.max(facts::resident_kb().saturating_sub(before));
    }
    flood.abort();
    // A cancelled flood is what is meant; one that failed is not.
    if let Ok(Ok(done)) = timeout(LOOK, flood).await {
        done?;
    }
    Ok(most as f64 / 1024.0)
}

async fn flood(end: End, message: usize) -> Result<()> {
    let body = vec![7_u8; message];
    loop {
        end.send(&body).await?;
        // What never waits must not keep the others from working.
        tokio::task::consume_budget().await;
    }
}
