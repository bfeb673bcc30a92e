//! The program from outside: its options, its first line, its signals, its exit codes.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

use std::process::{Output, Stdio};
use std::time::Duration;

use futures_util::StreamExt;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

type Socket = WebSocketStream<MaybeTlsStream<tokio::net::TcpStream>>;

async fn soon<T>(event: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(10), event).await.expect("nothing happened in time")
}

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onramp-server"));
    command.args(arguments);
    piped(command)
}

fn piped(mut command: Command) -> Command {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true).env_remove("RUST_LOG");
    command
}

async fn output(arguments: &[&str]) -> Output {
    soon(program(arguments).output()).await.unwrap()
}

struct Running {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
    url: String,
}

impl Running {
    async fn start(arguments: &[&str]) -> Self {
        Self::start_as(program(arguments)).await
    }

    /// After this line for a shell.
    #[cfg(unix)]
    async fn start_after(line: &str, arguments: &[&str]) -> Self {
        let mut command = Command::new("sh");
        command
            .args(["-c", &format!("{line}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_onramp-server")])
            .args(arguments);
        Self::start_as(piped(command)).await
    }

    async fn start_as(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let first = soon(lines.next_line()).await.unwrap().unwrap();
        let url = first.strip_prefix("onramp listening on ").expect(&first).to_owned();
        Self { child, lines, url }
    }

    async fn peer(&self, protocols: &str) -> Socket {
        let mut request = self.url.as_str().into_client_request().unwrap();
        request.headers_mut().insert("Sec-WebSocket-Protocol", protocols.parse().unwrap());
        soon(connect_async(request)).await.unwrap().0
    }

    #[cfg(unix)]
    async fn signal(&self, name: &str) {
        let id = self.child.id().unwrap().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().await.unwrap().success());
    }

    /// Waits for the end; the exit code and what went to standard error.
    async fn end(mut self) -> (Option<i32>, String) {
        assert_eq!(soon(self.lines.next_line()).await.unwrap(), None, "one line on standard output");
        let mut log = String::new();
        soon(self.child.stderr.take().unwrap().read_to_string(&mut log)).await.unwrap();
        (soon(self.child.wait()).await.unwrap().code(), log)
    }
}

async fn text(socket: &mut Socket) -> String {
    match soon(socket.next()).await {
        Some(Ok(Message::Text(text))) => text.to_string(),
        other => panic!("no text: {other:?}"),
    }
}

#[cfg(unix)]
#[tokio::test]
async fn signals_send_peers_away_and_end_it_with_0() {
    // It is inherited.
    let hangup = if ignores_hangup("self") { "TERM" } else { "HUP" };
    for signal in ["TERM", "INT", "QUIT", hangup] {
        let server = Running::start(&["-h", "127.0.0.1:0"]).await;
        assert!(server.url.starts_with("ws://127.0.0.1:") && !server.url.ends_with(":0"), "{}", server.url);
        let mut a = server.peer("p").await;
        let mut b = server.peer("p").await;
        assert!(text(&mut a).await.starts_with("[0,\"") && text(&mut b).await.starts_with("[0,\""));
        server.signal(signal).await;
        for peer in [&mut a, &mut b] {
            match soon(peer.next()).await {
                Some(Ok(Message::Close(Some(frame)))) => assert_eq!(frame.code, CloseCode::Away),
                other => panic!("no close frame: {other:?}"),
            }
            while soon(peer.next()).await.is_some() {}
        }
        let (code, log) = server.end().await;
        assert_eq!(code, Some(0));
        assert!(log.contains("listening") && log.contains("stopped peers=2 refused=0 frames=0 bytes=0"), "{log}");
        assert!(!log.contains("\x1b"), "{log}");
    }
}

/// While a peer takes its time to go.
#[cfg(unix)]
#[tokio::test]
async fn a_second_signal_ends_it_at_once() {
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let mut server = Running::start(&["-h", "127.0.0.1:0"]).await;
        let mut peer = server.peer("p").await;
        server.signal(signal).await;
        // It has got it. The answer to its close frame does not go before it is read once more.
        assert!(matches!(soon(peer.next()).await, Some(Ok(Message::Close(Some(_))))));
        let killed = async {
            loop {
                server.signal(signal).await;
                if let Ok(status) = timeout(Duration::from_millis(150), server.child.wait()).await {
                    return status.unwrap().code();
                }
            }
        };
        assert_eq!(soon(killed).await, Some(code));
    }
}

/// Where the system does not tell, the program lets it be.
#[cfg(unix)]
fn ignores_hangup(process: &str) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.is_none_or(|mask| u64::from_str_radix(mask.trim(), 16).unwrap() & 1 != 0)
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_hangup_that_was_ignored_stays_ignored() {
    let server = Running::start_after("trap '' HUP", &["-h", "127.0.0.1:0"]).await;
    assert!(ignores_hangup(&server.child.id().unwrap().to_string()));
    server.signal("HUP").await;
    let _peer = server.peer("p").await;
    server.signal("TERM").await;
    assert_eq!(server.end().await.0, Some(0));
}

#[cfg(unix)]
#[tokio::test]
async fn it_goes_on_although_nobody_reads_its_log() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = program(&["-h", "127.0.0.1:0"]);
    command.stderr(writer);
    let mut server = Running::start_as(command).await;
    let _peer = server.peer("p").await;
    server.signal("TERM").await;
    assert_eq!(soon(server.child.wait()).await.unwrap().code(), Some(0));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn only_who_asks_for_more_connections_than_fit_is_warned() {
    for (limit, arguments, is_warned) in [
        (2000, &[][..], false),
        (200, &[], false),
        (2000, &["--max-connections", "912"], false),
        (2000, &["--max-connections", "1500"], true),
    ] {
        let arguments = [&["-h", "127.0.0.1:0"], arguments].concat();
        let server = Running::start_after(&format!("ulimit -n {limit}"), &arguments).await;
        let _peer = server.peer("p").await;
        server.signal("TERM").await;
        let (_, log) = server.end().await;
        assert_eq!(log.contains("WARN"), is_warned, "{limit} {arguments:?}: {log}");
        assert_eq!(log.contains("limit=2000 connections=1500"), is_warned, "{log}");
    }
}

/// One address with connections that say nothing keeps no other out.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn idle_connections_of_one_address_give_way() {
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpSocket, TcpStream};

    rlimit::increase_nofile_limit(u64::MAX).unwrap();
    let server = Running::start(&["-h", "127.0.0.1:0", "--max-connections", "1"]).await;
    let address: std::net::SocketAddr = server.url.strip_prefix("ws://").unwrap().parse().unwrap();
    let mut idle = Vec::new();
    for _ in 0..1100 {
        idle.push(soon(TcpStream::connect(address)).await.unwrap());
    }
    // Those beyond the bound are closed.
    let mut last = idle.pop().unwrap();
    assert!(matches!(soon(last.read(&mut [0; 1])).await, Ok(0) | Err(_)));
    for _ in 0..10 {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.2:0".parse().unwrap()).unwrap();
        let mut other = soon(socket.connect(address)).await.unwrap();
        other.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        let _ = soon(other.read_to_string(&mut answer)).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
}

#[tokio::test]
async fn options_reach_the_server() {
    let arguments = "--host localhost:0 --no-announce --max-frame-bytes 100 --max-connections 2 \
                     --frames-per-second 1000 --burst 5 --outbound-queue 3 --ping-interval 0 --log pmesh=debug";
    let server = Running::start(&arguments.split_whitespace().collect::<Vec<_>>()).await;
    assert!(server.url.starts_with("ws://localhost:"), "the name that was asked for");
    let mut peer = server.peer("pmesh.1, p").await;
    assert!(text(&mut peer).await.starts_with("[16,\""));
    let _other = server.peer("p").await;
    let mut request = server.url.as_str().into_client_request().unwrap();
    request.headers_mut().insert("Sec-WebSocket-Protocol", "p".parse().unwrap());
    let refused = soon(connect_async(request)).await.unwrap_err().to_string();
    assert!(refused.contains("503"), "{refused}");
    // Nobody was announced: the answer to too large a frame is all that comes.
    futures_util::SinkExt::send(&mut peer, Message::text("x".repeat(101))).await.unwrap();
    assert!(matches!(soon(peer.next()).await, Some(Ok(Message::Close(Some(frame)))) if frame.code == CloseCode::Size));
}

#[tokio::test]
async fn help_and_version() {
    let help = output(&["--help"]).await;
    assert_eq!(help.status.code(), Some(0));
    let help = String::from_utf8(help.stdout).unwrap();
    for option in [
        "-h, --host [<host>]",
        "--no-announce",
        "--max-frame-bytes <bytes>",
        "--max-connections <number>",
        "--frames-per-second <number>",
        "--burst <number>",
        "--outbound-queue <frames>",
        "--ping-interval <seconds>",
        "--log <filter>",
        "--help",
        "--version",
        "localhost:20500",
        "1048576",
    ] {
        assert!(help.contains(option), "{option} in\n{help}");
    }
    let version = output(&["--version"]).await;
    assert_eq!(String::from_utf8(version.stdout).unwrap(), concat!("onramp-server ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[tokio::test]
async fn mistakes_are_told_and_end_it() {
    for (arguments, code, message) in [
        (&["--no-such-option"][..], 2, "--no-such-option"),
        (&["-h", "localhost:port"], 2, "is not a port"),
        (&["--max-connections", "many"], 2, "many"),
        (&["--log", "a=b=c"], 2, "--log"),
        (&["--accounts", "sqlite:x", "--hashing-at-once", "18446744073709551615"], 2, "1..=256"),
        (&["--accounts", "sqlite:x", "--hashing-at-once", "0"], 2, "1..=256"),
        (&["--accounts", "sqlite:x", "--max-logins", "0"], 2, "--max-logins"),
        (&["--accounts", "sqlite:x", "--argon2-memory-kib", "4294967295"], 2, "4194304"),
        (&["--accounts", "sqlite:x", "--argon2-iterations", "4294967295"], 2, "1..=1000"),
        (&["--accounts", "sqlite:x", "--argon2-parallelism", "100000"], 1, "argon2 cannot do with these numbers"),
        (&["--accounts", "sqlite:x", "--allow-origin", "nonsense"], 2, "such as https://app.example"),
        (&["--accounts", "sqlite:x", "--allow-origin", "https://app.example/"], 2, "\"/\" is no part of an origin"),
        (&["--accounts", "sqlite:x", "--allow-origin", "https://app.example:443"], 2, "browsers leave out"),
        (&["--accounts", "sqlite:x", "--allow-origin", "*"], 2, "such as https://app.example"),
        (&["-h", "not a name:0"], 1, "cannot listen on not a name:0: "),
    ] {
        let output = output(arguments).await;
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(code), 0), "{arguments:?}: {told}");
        assert!(told.contains(message), "{arguments:?}: {told}");
    }
    let server = Running::start(&["-h", "127.0.0.1:0"]).await;
    let taken = output(&["-h", server.url.strip_prefix("ws://").unwrap()]).await;
    let told = String::from_utf8(taken.stderr).unwrap();
    assert_eq!(taken.status.code(), Some(1));
    assert!(told.contains("in use"), "{told}");
}
