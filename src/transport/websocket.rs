//! WebSocket links to onramps, `ws` and `wss`, on tokio-tungstenite.

use std::fmt;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use data_encoding::BASE64;
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout};
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::error::UrlError;
use tokio_tungstenite::tungstenite::handshake::client::{Request, Response};
use tokio_tungstenite::tungstenite::http::header::{
    AUTHORIZATION, HeaderValue, InvalidHeaderValue, SEC_WEBSOCKET_PROTOCOL,
};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};
use tokio_tungstenite::{Connector, MaybeTlsStream, WebSocketStream, connect_async_tls_with_config};
use zeroize::Zeroizing;

use super::turned::Turned;
use super::{Command, Framing, Link, LinkEvent, Outgoing, Pipe, Target, Transport, WhenFull, WireMessage};
use crate::error::CloseReason;
use crate::protocol::{P_PROTOCOL, PMESH_PROTOCOL};

/// Largest message taken from or sent to an onramp, in bytes: what the original onramp takes.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;
/// Pause between pings to an onramp, so that one that died without a word is noticed.
const PING_INTERVAL: Duration = Duration::from_secs(20);
/// Silence after which an onramp counts as dead.
const SILENCE_LIMIT: Duration = Duration::from_secs(50);
/// How long closing in good order may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// Buffer for reading: an onramp carries signalling only.
const READ_BUFFER_BYTES: usize = 8 * 1024;

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// Opens WebSockets, `ws` and `wss`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Dialler {
    /// Certificate authorities to trust besides the system's.
    extra_roots: Vec<CertificateDer<'static>>,
    /// Made at the first `wss` connection: reading the system's certificates takes a while.
    tls: Arc<OnceLock<Arc<ClientConfig>>>,
}

/// A value for the header `Authorization`. Wiped from memory when dropped, and not shown.
#[derive(Clone)]
pub(crate) struct Authorization(Zeroizing<String>);

impl Authorization {
    /// As in HTTP Basic.
    pub(crate) fn basic(name: &str, password: &str) -> Self {
        let pair = Zeroizing::new(format!("{name}:{password}"));
        let encoded = Zeroizing::new(BASE64.encode(pair.as_bytes()));
        Self(Zeroizing::new(format!("Basic {}", *encoded)))
    }

    /// The value.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Authorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Authorization")
    }
}

/// Makes WebSocket links: [`Target::Url`]. Must be used within a tokio runtime.
#[derive(Debug, Default)]
pub(crate) struct WebSocket {
    dialler: Dialler,
    authorization: Option<Authorization>,
}

impl WebSocket {
    pub(crate) fn new(dialler: Dialler) -> Self {
        Self { dialler, authorization: None }
    }

    /// One that logs in at each server.
    pub(crate) fn logging_in(dialler: Dialler, authorization: Authorization) -> Self {
        Self { dialler, authorization: Some(authorization) }
    }
}

impl Transport for WebSocket {
    fn start(&self, target: Target, pipe: Arc<Pipe>) -> Box<dyn Link> {
        let (commands, receiver) = mpsc::channel(1);
        let (dialler, authorization) = (self.dialler.clone(), self.authorization.clone());
        tokio::spawn(async move {
            let reason = match target {
                Target::Url(url) => run(&url, &dialler, authorization, &pipe, receiver).await,
                _ => CloseReason::Failed("a WebSocket goes to a URL".into()),
            };
            pipe.finish(reason).await;
        });
        Box::new(Handle(commands))
    }
}

/// Dropping it closes the channel, which ends the task.
struct Handle(mpsc::Sender<Command>);

impl Link for Handle {
    fn command(&self, command: Command) {
        // The only command is to close: one in the channel is enough.
        let _ = self.0.try_send(command);
    }
}

async fn run(
    url: &str,
    dialler: &Dialler,
    authorization: Option<Authorization>,
    pipe: &Pipe,
    mut commands: mpsc::Receiver<Command>,
) -> CloseReason {
    let dialling = dialler.dial_as(authorization.as_ref(), url, &[PMESH_PROTOCOL, P_PROTOCOL], MAX_MESSAGE_BYTES);
    let (socket, protocol) = tokio::select! {
        dialled = dialling => match dialled {
            Ok(dialled) => dialled,
            Err(turned) => return turned.into(),
        },
        _ = commands.recv() => return CloseReason::Local,
    };
    let extension = protocol.as_deref() == Some(PMESH_PROTOCOL);
    pipe.open(Framing::Plain { max_message: MAX_MESSAGE_BYTES }, None);
    pipe.emit(LinkEvent::Opened { extension }).await;
    let (sink, stream) = socket.split();
    let mut reading = std::pin::pin!(read(stream, pipe));
    let mut writing = std::pin::pin!(write(sink, pipe));
    tokio::select! {
        reason = &mut reading => return reason,
        reason = &mut writing => return reason,
        command = commands.recv() => if command.is_none() {
            return CloseReason::Local;
        },
    }
    pipe.start_closing();
    let closing = async {
        let written = writing.await;
        // After our close frame the server answers with its own.
        if written == CloseReason::Local {
            reading.await;
        }
    };
    // Whatever happens from here on, it was this side that closed.
    let _ = timeout(CLOSE_TIMEOUT, closing).await;
    CloseReason::Local
}

impl Dialler {
    /// One that trusts these certificate authorities (DER) too.
    pub(crate) fn new(extra_roots: Vec<CertificateDer<'static>>) -> Self {
        Self { extra_roots, tls: Arc::default() }
    }

    /// Connects to a URL, and offers these subprotocols, the best first. Messages may have so many bytes in both directions.
    /// Returns the subprotocol that the server has chosen too.
    ///
    /// # Errors
    ///
    /// [`Turned`].
    pub(crate) async fn dial(
        &self,
        url: &str,
        protocols: &[&str],
        max_message: usize,
    ) -> Result<(Socket, Option<String>), Turned> {
        self.dial_as(None, url, protocols, max_message).await
    }

    /// As [`dial`](Self::dial), as somebody.
    ///
    /// # Errors
    ///
    /// [`Turned`]. What it says has nothing of the credentials, as they were sent.
    pub(crate) async fn dial_as(
        &self,
        who: Option<&Authorization>,
        url: &str,
        protocols: &[&str],
        max_message: usize,
    ) -> Result<(Socket, Option<String>), Turned> {
        let dialled = self.try_dial(who, url, protocols, max_message).await;
        dialled.map_err(|error| Turned::new(error, url, who.map(Authorization::as_str)))
    }

    async fn try_dial(
        &self,
        who: Option<&Authorization>,
        url: &str,
        protocols: &[&str],
        max_message: usize,
    ) -> Result<(Socket, Option<String>), Error> {
        let mut request = url.into_client_request()?;
        if let Some(who) = who {
            authorize(&mut request, who)?;
        }
        if !protocols.is_empty() {
            request.headers_mut().insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_str(&protocols.join(", "))?);
        }
        let (socket, response) = self.connect(request, max_message).await?;
        let chosen = response.headers().get(SEC_WEBSOCKET_PROTOCOL).and_then(|value| value.to_str().ok());
        Ok((socket, chosen.map(str::to_owned)))
    }

    async fn connect(&self, request: Request, max_message: usize) -> Result<(Socket, Response), Error> {
        let connector = match request.uri().scheme_str() {
            Some("wss") => Connector::Rustls(self.tls().await.map_err(|why| Error::Io(io::Error::other(why)))?),
            Some("ws") => Connector::Plain,
            // Before anybody is asked.
            _ => return Err(Error::Url(UrlError::UnsupportedUrlScheme)),
        };
        let config = WebSocketConfig::default()
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(2 * max_message)
            .max_message_size(Some(max_message))
            .max_frame_size(Some(max_message));
        connect_async_tls_with_config(request, Some(config), true, Some(connector)).await
    }

    async fn tls(&self) -> Result<Arc<ClientConfig>, String> {
        if let Some(config) = self.tls.get() {
            return Ok(config.clone());
        }
        // Reads files: not on the tasks of the runtime.
        let extra_roots = self.extra_roots.clone();
        let config = tokio::task::spawn_blocking(move || client_config(extra_roots)).await;
        let config = config.map_err(|error| error.to_string())??;
        Ok(self.tls.get_or_init(|| config).clone())
    }
}

fn authorize(request: &mut Request, authorization: &Authorization) -> Result<(), InvalidHeaderValue> {
    let mut value = HeaderValue::from_str(authorization.as_str())?;
    value.set_sensitive(true);
    request.headers_mut().insert(AUTHORIZATION, value);
    Ok(())
}

fn client_config(extra_roots: Vec<CertificateDer<'static>>) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    // A broken certificate of the system must not keep the others from being used.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    for root in extra_roots {
        roots.add(root).map_err(|error| error.to_string())?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}

async fn read(mut stream: SplitStream<Socket>, pipe: &Pipe) -> CloseReason {
    loop {
        let message = match timeout(SILENCE_LIMIT, stream.next()).await {
            Ok(Some(Ok(message))) => message,
            Ok(Some(Err(Error::ConnectionClosed | Error::AlreadyClosed)) | None) => return CloseReason::Remote,
            Ok(Some(Err(error))) => return CloseReason::Lost(error.to_string()),
            Err(_) => return CloseReason::Lost(format!("silent for {} s", SILENCE_LIMIT.as_secs())),
        };
        let message = match message {
            Message::Text(text) => WireMessage::Text(text.into()),
            Message::Binary(bytes) => WireMessage::Binary(bytes),
            // The end follows.
            Message::Close(_) => continue,
            _ => continue,
        };
        if let Err(reason) = pipe.deliver(message, WhenFull::Wait).await {
            return reason;
        }
    }
}

async fn write(mut sink: SplitSink<Socket, Message>, pipe: &Pipe) -> CloseReason {
    let mut ping = interval_at(Instant::now() + PING_INTERVAL, PING_INTERVAL);
    ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let outgoing = tokio::select! {
            outgoing = pipe.next_outgoing() => outgoing,
            _ = ping.tick() => {
                if let Err(error) = sink.send(Message::Ping(bytes::Bytes::new())).await {
                    return CloseReason::Lost(error.to_string());
                }
                continue;
            }
        };
        // What else waits goes with it, in one flush.
        let mut next = Some(outgoing);
        while let Some(outgoing) = next {
            let message = match outgoing {
                Outgoing::Text(text) => match Utf8Bytes::try_from(text.freeze()) {
                    Ok(text) => Message::Text(text),
                    // Cannot be: frames and JSON are made of strings. Dropping it harms nobody.
                    Err(_) => {
                        next = pipe.try_next_outgoing();
                        continue;
                    }
                },
                Outgoing::Binary(bytes) => Message::Binary(bytes.freeze()),
                // Cannot be: only pmesh peers have streams.
                Outgoing::Stream { .. } => {
                    next = pipe.try_next_outgoing();
                    continue;
                }
                Outgoing::Finished => {
                    // The socket may be gone already.
                    let _ = sink.close().await;
                    return CloseReason::Local;
                }
            };
            if let Err(error) = sink.feed(message).await {
                return CloseReason::Lost(error.to_string());
            }
            next = pipe.try_next_outgoing();
        }
        if let Err(error) = sink.flush().await {
            return CloseReason::Lost(error.to_string());
        }
    }
}
