//! A minimal onramp: tells each peer its address, announces nobody, and relays.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{SinkExt, StreamExt};
use serde_json::value::RawValue;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};
use tokio_tungstenite::accept_hdr_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Callback, ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::http::header::SEC_WEBSOCKET_PROTOCOL;

use crate::Result;

/// Frames that may wait for one peer. Further ones are dropped.
const QUEUE: usize = 256;

type Peers = Arc<Mutex<HashMap<String, mpsc::Sender<String>>>>;

pub(crate) struct Onramp {
    address: SocketAddr,
    task: JoinHandle<()>,
}

impl Onramp {
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        Ok(Self { address, task: tokio::spawn(serve(listener)) })
    }

    pub(crate) fn url(&self) -> String {
        format!("ws://{}", self.address)
    }

    pub(crate) async fn stop(self) {
        self.task.abort();
        // It was aborted: there is nothing to learn from how it ended.
        let _ = self.task.await;
    }
}

async fn serve(listener: TcpListener) {
    let peers = Peers::default();
    let mut links = JoinSet::new();
    let mut count = 0_u64;
    while let Ok((stream, _)) = listener.accept().await {
        count += 1;
        let (peers, address) = (peers.clone(), format!("peer-{count}"));
        links.spawn(async move {
            if let Err(error) = peer(stream, &address, &peers).await {
                eprintln!("onramp: {address}: {error}");
            }
            lock(&peers).remove(&address);
        });
        while links.try_join_next().is_some() {}
    }
}

async fn peer(stream: TcpStream, address: &str, peers: &Peers) -> Result<()> {
    stream.set_nodelay(true)?;
    let socket = accept_hdr_async(stream, Protocol).await?;
    let (mut sink, mut stream) = socket.split();
    let (sender, mut queue) = mpsc::channel::<String>(QUEUE);
    lock(peers).insert(address.to_owned(), sender);
    sink.send(Message::text(serde_json::to_string(&(16, address))?)).await?;
    let write = async {
        while let Some(frame) = queue.recv().await {
            sink.send(Message::text(frame)).await?;
        }
        Ok(())
    };
    let read = async {
        while let Some(message) = stream.next().await {
            let Message::Text(text) = message? else { continue };
            let (kind, to, payload): (u64, String, &RawValue) = serde_json::from_str(&text)?;
            let to = lock(peers).get(&to).cloned();
            if let (6, Some(to)) = (kind, to) {
                // What a peer that does not read loses is its own.
                let _ = to.try_send(serde_json::to_string(&(7, address, payload))?);
            }
        }
        Ok(())
    };
    tokio::select! {
        done = write => done,
        done = read => done,
    }
}

/// Chooses the subprotocol of pmesh.
struct Protocol;

impl Callback for Protocol {
    fn on_request(self, _request: &Request, mut response: Response) -> std::result::Result<Response, ErrorResponse> {
        response.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("pmesh.1"));
        Ok(response)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
