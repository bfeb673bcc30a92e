//! Who may connect: policies written as closures, tried on offers made by hand and on real connections.
//!
//! ```text
//! cargo run --example firewall
//! ```

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use pmesh::onramp::Onramp;
use pmesh::{Address, Connect, ConnectError, Offer, Policy, Root, Verdict};
use serde_json::{Value, json};
use tokio::sync::{RwLock, oneshot};
use tokio_stream::StreamExt;

/// Accepts who knows the secret. The introducer can read it: it keeps strangers out, not the introducer.
fn shared_secret(secret: &'static str) -> Policy {
    Policy::new(move |offer: &Offer| offer.data()["secret"] == secret)
}

/// Accepts who gives one of these names.
fn allow_list(names: &'static [&'static str]) -> Policy {
    Policy::new(move |offer: &Offer| offer.data()["name"].as_str().is_some_and(|name| names.contains(&name)))
}

/// Accepts at most so many offers from each introducer.
fn limit_per_introducer(limit: u32) -> Policy {
    /// Further introducers are refused, so that the map cannot grow for ever.
    const MAX_INTRODUCERS: usize = 1000;
    let counts: Mutex<HashMap<Address, u32>> = Mutex::default();
    Policy::new(move |offer: &Offer| {
        let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
        if counts.len() >= MAX_INTRODUCERS && !counts.contains_key(offer.via()) {
            return false;
        }
        let count = counts.entry(offer.via().clone()).or_default();
        *count += 1;
        *count <= limit
    })
}

/// Accepts whom a database knows as a member. This one is in memory; looking up may take its time.
fn member_of(database: Arc<RwLock<HashSet<String>>>) -> Policy {
    Policy::new_async(move |offer: Offer| {
        let database = database.clone();
        async move {
            let members = database.read().await;
            offer.data()["name"].as_str().is_some_and(|name| members.contains(name))
        }
    })
}

/// Accepts members, and guests on the list who know the secret, but not Mallory; two for each introducer.
///
/// The limit comes last, so that it counts only who has passed everything else.
fn composed(members: Policy) -> Policy {
    let guests = shared_secret("swordfish").and(allow_list(&["alice", "bob"]));
    let banned = allow_list(&["mallory"]);
    members.or(guests).and(!banned).and(limit_per_introducer(2))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let database = Arc::new(RwLock::new(HashSet::from(["dora".to_owned(), "mallory".to_owned()])));
    let members = member_of(database);
    without_a_network(&members).await?;
    with_real_connections(composed(members)).await
}

/// A policy can be asked about any offer: this is how to test one.
async fn without_a_network(members: &Policy) -> Result<(), Box<dyn Error>> {
    println!("Offers made by hand:");
    let alice = json!({"name": "alice", "secret": "swordfish"});
    let dora = json!({"name": "dora"});
    let mallory = json!({"name": "mallory", "secret": "swordfish"});
    let (two, all) = (limit_per_introducer(2), composed(members.clone()));
    let cases = [
        ("shared secret", &shared_secret("swordfish"), &alice, Verdict::Accept),
        ("shared secret", &shared_secret("swordfish"), &dora, Verdict::Refuse),
        ("allow-list", &allow_list(&["alice", "bob"]), &alice, Verdict::Accept),
        ("allow-list", &allow_list(&["alice", "bob"]), &mallory, Verdict::Refuse),
        ("two for each introducer", &two, &alice, Verdict::Accept),
        ("two for each introducer", &two, &alice, Verdict::Accept),
        ("two for each introducer", &two, &alice, Verdict::Refuse),
        ("look-up", members, &dora, Verdict::Accept),
        ("look-up", members, &alice, Verdict::Refuse),
        ("all together", &all, &alice, Verdict::Accept),
        ("all together", &all, &mallory, Verdict::Refuse),
        ("all together", &all, &dora, Verdict::Accept),
        ("all together", &all, &dora, Verdict::Refuse),
    ];
    for (name, policy, data, expected) in cases {
        let offer = Offer::new(Address::new("the caller's address")?, Address::new("ws://onramp")?);
        let verdict = policy.check(&offer.with_data(data.clone())).await;
        println!("  {name:24} {data:42} {verdict:?}", data = data.to_string());
        if verdict != expected {
            return Err(format!("expected {expected:?}").into());
        }
    }
    Ok(())
}

/// A guarded peer, and visitors who call it one after the other through the same onramp.
async fn with_real_connections(policy: Policy) -> Result<(), Box<dyn Error>> {
    println!("Real connections:");
    let onramp = Onramp::bind("127.0.0.1:0").await?;
    let url = onramp.url();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(onramp.run(stopped));

    let guarded = builder().firewall(policy).build();
    guarded.connect(&url).await?;

    let visitors = [
        (json!({"name": "alice"}), false),
        (json!({"name": "alice", "secret": "swordfish"}), true),
        (json!({"name": "mallory", "secret": "swordfish"}), false),
        (json!({"name": "dora"}), true),
        (json!({"name": "bob", "secret": "swordfish"}), false),
    ];
    for (data, welcome) in visitors {
        let visitor = builder().build();
        let started = Instant::now();
        let result = call_the_first(&visitor, &url, &data).await;
        println!("  {data:42} {result:?} after {took:.1?}", data = data.to_string(), took = started.elapsed());
        let expected = if welcome { Ok(()) } else { Err(ConnectError::Refused) };
        if result != expected {
            return Err(format!("expected {expected:?}").into());
        }
        visitor.close().await;
    }
    let counters = guarded.counters();
    println!("The guarded peer has accepted {} and refused {}", counters.offers_accepted, counters.offers_refused);
    guarded.close().await;
    drop(stop);
    Ok(running.await?)
}

/// Calls the peer that has been at the onramp for longest. A refusal comes at once, not after a timeout.
async fn call_the_first(visitor: &Root, url: &str, data: &Value) -> Result<(), ConnectError> {
    let onramp = visitor.connect(url).await?;
    let announcement = onramp.messages().next().await.ok_or(ConnectError::ViaClosed)?;
    let address = announcement.as_str().unwrap_or_default();
    onramp.connect(Connect::to(address).offer_data(data.clone())).await?;
    Ok(())
}

/// Settings of a peer that finds others on this machine.
fn builder() -> pmesh::RootBuilder {
    Root::builder().loopback(true).mdns(false)
}
