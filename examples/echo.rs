//! "Not Friday": accounts, trust, and a module that peers call, all in one program.
//!
//! ```text
//! cargo run --example echo
//! ```
//!
//! A server has two accounts. Alice and Bob log in, do not see each other, exchange a token, and call each other's peers.

use std::error::Error;

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use pmesh::Root;
use pmesh::directory::{Credentials, Directory, Peer, Replies, Session};
use pmesh::onramp::Onramp;
use pmesh::onramp::accounts::{Accounts, MemoryStore, Passwords};
use pmesh::rpc::{Failure, ModuleGuard, Request};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio_stream::StreamExt;

const MODULE: &str = "My.Echo.Module";
const PASSWORD: &str = "correct horse";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    // The server. A real one is `onramp-server --accounts sqlite:FILE`.
    let accounts = Accounts::new(MemoryStore::new(), Argon2id);
    for name in ["alice", "bob"] {
        accounts.create(name, PASSWORD).await?;
    }
    let onramp = Onramp::builder().accounts(accounts).bind("127.0.0.1:0").await?;
    let url = onramp.url();
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(onramp.run(stopped));

    // Alice is there once, Bob twice. All have the module.
    let alice = log_in(&url, "alice").await?;
    let bobs = [log_in(&url, "bob").await?, log_in(&url, "bob").await?];
    let _modules = [echo(&alice)?, echo(&bobs[0])?, echo(&bobs[1])?];
    println!("Alice is {}, Bob is {} and {}", alice.number(), bobs[0].number(), bobs[1].number());
    println!("Alice sees {} peers, and nobody answers her", alice.peers().len());
    say(alice.get("*").message(MODULE, friday()), 0).await?;

    // Alice makes a token for Bob, and brings it to him in another way. He claims it.
    let token = alice.request_token("Bobby").await?;
    bobs[0].claim_token("Ali", &token).await?;
    println!("Bob has claimed the token of Alice");
    let mut events = alice.events();
    while alice.get("Bobby").peers().len() < bobs.len() {
        events.next().await.ok_or("the session is over")?;
    }
    println!("Alice sees {} peers", alice.peers().len());

    println!("Alice calls everybody:");
    say(alice.get("*").message(MODULE, friday()), 2).await?;
    println!("Alice calls Bobby, and keeps the connections for what comes next:");
    say(alice.get("Bobby").keep(true).message(MODULE, friday()), 2).await?;
    println!("Alice calls one peer:");
    say(alice.get(bobs[1].number()).message(MODULE, friday()), 1).await?;
    println!("Bob calls his other login:");
    say(bobs[0].get("Us").message(MODULE, friday()), 1).await?;

    for session in [&alice, &bobs[0], &bobs[1]] {
        session.disconnect().await;
        session.root().close().await;
    }
    drop(stop);
    running.await?;
    Ok(())
}

/// A session whose peers are on this machine.
async fn log_in(url: &str, name: &str) -> Result<Session, Box<dyn Error>> {
    let root = Root::builder().loopback(true).mdns(false).build();
    Ok(Directory::builder().root(&root).connect(url, Credentials::new(name, PASSWORD)).await?)
}

/// Says the opposite of what it is told.
fn echo(session: &Session) -> Result<ModuleGuard, Box<dyn Error>> {
    let module = session.module(MODULE, async |request: Request| {
        let Some(text) = request.body()["text"].as_str() else { return Err(Failure::new("there is no text")) };
        // By which alias the caller is known here.
        let name = request.caller().data::<Peer>().map_or("somebody", |peer| peer.name.as_str());
        Ok(json!({"text": format!("Not {text}, {name}")}))
    })?;
    Ok(module)
}

fn friday() -> Value {
    json!({"text": "Friday"})
}

/// Prints replies, of which there are so many.
async fn say(mut replies: Replies, count: usize) -> Result<(), Box<dyn Error>> {
    let mut answers = 0;
    while let Some(reply) = replies.next().await {
        println!("  {} at {}: {}", reply.name, reply.number, reply.result?["text"]);
        answers += 1;
    }
    if answers == count { Ok(()) } else { Err(format!("{answers} answers in place of {count}").into()) }
}

/// How the server keeps passwords. The library leaves this to programs.
struct Argon2id;

impl Passwords for Argon2id {
    fn hash(&self, password: &str) -> String {
        let hash: PasswordHash = Argon2::default().hash_password(password.as_bytes()).expect("there is randomness");
        hash.to_string()
    }

    fn verify(&self, password: &str, hash: Option<&str>) -> bool {
        // For an account that there is not, something must take as long.
        let Some(hash) = hash else { return self.hash(password).is_empty() };
        PasswordHash::new(hash).is_ok_and(|hash| Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn all_who_are_called_answer() -> Result<(), Box<dyn std::error::Error>> {
        super::main()
    }
}
