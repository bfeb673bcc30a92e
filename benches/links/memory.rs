//! What an idle pair costs in memory. Each variant is measured in a process of its own, so that what the allocator has
//! kept from earlier measurements does not matter.

use std::time::Duration;

use tokio::process::Command;

use crate::onramp::Onramp;
use crate::pair::Variant;
use crate::tree::Peer;
use crate::{Result, bare, facts};

/// How long the pairs are idle before the memory is read, for each pair and at most.
const SETTLE: Duration = Duration::from_millis(50);
const LONGEST_SETTLE: Duration = Duration::from_millis(500);

/// Runs the measurement in a process of its own: KB for each pair.
pub(crate) async fn of_a_pair(variant: Variant, pairs: usize) -> Result<f64> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--hold", &variant.to_string(), &pairs.to_string()]).kill_on_drop(true);
    let output = command.output().await?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().parse()?)
}

/// What that process does.
pub(crate) async fn hold(variant: Variant, pairs: usize) -> Result<()> {
    let kb = if variant == Variant::Pmesh { hold_tree(pairs).await? } else { hold_bare(variant, pairs).await? };
    println!("{:.0}", kb / pairs as f64);
    Ok(())
}

/// One peer with a link to each of many others. All are on the onramp before, and one link has been made before.
async fn hold_tree(pairs: usize) -> Result<f64> {
    let onramp = Onramp::start().await?;
    let hub = Peer::new(&onramp).await?;
    let mut others = Vec::new();
    for _ in 0..=pairs {
        others.push(Peer::new(&onramp).await?);
    }
    let mut nodes = Vec::with_capacity(pairs + 1);
    nodes.push(hub.connect(&others[0]).await?);
    let before = settled(pairs).await;
    for other in &others[1..] {
        nodes.push(hub.connect(other).await?);
    }
    Ok(settled(pairs).await - before)
}

async fn hold_bare(variant: Variant, pairs: usize) -> Result<f64> {
    let open = || bare::open(variant == Variant::Same, 1_000_000);
    let mut held = Vec::with_capacity(pairs + 1);
    held.push(open().await?);
    let before = settled(pairs).await;
    for _ in 0..pairs {
        held.push(open().await?);
    }
    Ok(settled(pairs).await - before)
}

async fn settled(pairs: usize) -> f64 {
    tokio::time::sleep(LONGEST_SETTLE.min(SETTLE * pairs as u32)).await;
    facts::resident_kb() as f64
}
