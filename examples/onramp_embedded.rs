//! A program with an onramp of its own: two peers meet there, the counters are read, and it shuts down in order.
//!
//! ```text
//! cargo run --example onramp_embedded
//! ```

use std::error::Error;
use std::time::Duration;

use pmesh::Root;
use pmesh::onramp::Onramp;
use tokio::sync::oneshot;
use tokio_stream::StreamExt;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // Bind first: from here on peers can connect, and the port is known. The options are optional.
    let onramp = Onramp::builder()
        .max_connections(100)
        .max_frame_bytes(256 * 1024)
        .ping_interval(Duration::from_secs(20))
        .bind("127.0.0.1:0")
        .await?;
    let url = onramp.url();
    println!("The onramp listens at {url}");

    // Any future may tell it to stop; here one that ends when `stop` is dropped. A program might wait for Ctrl-C.
    let handle = onramp.handle();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(onramp.run(stopped));

    // The first peer waits. The second is told by the onramp who is here, and calls.
    let (first, second) = (peer(), peer());
    let connecting = first.connect(&url);
    let mut callers = connecting.node().connections();
    let first_onramp = connecting.await?;
    let onramp = second.connect(&url).await?;
    let announcement = onramp.messages().next().await.ok_or("the onramp is gone")?;
    let address = announcement.as_str().ok_or("an announcement is an address")?;
    println!("The second peer calls {address}");
    let to_first = onramp.connect(address).await?;
    to_first.send("hello").await?;
    let caller = callers.next().await.ok_or("nobody called")?;
    let greeting = caller.messages().next().await.ok_or("the caller is gone")?;
    println!("The first peer hears: {}", greeting.as_str().ok_or("a greeting is text")?);

    let stats = handle.stats();
    println!("The onramp has {} peers and has relayed {} frames", stats.open, stats.relayed);

    // The peers are told, and this waits for them, but not for long.
    drop(stop);
    running.await?;
    println!("The onramp has stopped. The first peer's connection to it: {}", first_onramp.closed().await);
    println!(
        "It now has {} peers; the connection between the two is open: {}",
        handle.stats().open,
        to_first.is_open()
    );
    if handle.stats().open != 0 || !to_first.is_open() {
        return Err("the onramp should be empty, and the peers connected".into());
    }
    first.close().await;
    second.close().await;
    Ok(())
}

/// A peer that finds others on this machine.
fn peer() -> Root {
    Root::builder().loopback(true).mdns(false).build()
}
