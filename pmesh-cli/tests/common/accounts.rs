//! People with accounts at a directory, and what they do with the command.

use std::path::PathBuf;
use std::process::Output;

use pmesh::onramp::Onramp;
use pmesh::onramp::accounts::{Accounts, MemoryStore, Passwords};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStderr, Command};

use super::{program, soon};

pub(crate) const PASSWORD: &str = "correct horse";

/// Passwords that cost nothing.
struct Cheap;

impl Passwords for Cheap {
    fn hash(&self, password: &str) -> String {
        format!("cheap {password}")
    }

    fn verify(&self, password: &str, hash: Option<&str>) -> bool {
        hash == Some(&self.hash(password))
    }
}

/// A server in this process, with these accounts.
pub(crate) async fn server(names: &[&str]) -> (String, Accounts) {
    let accounts = Accounts::new(MemoryStore::new(), Cheap);
    for name in names {
        accounts.create(name, PASSWORD).await.unwrap();
    }
    let onramp = Onramp::builder().accounts(accounts.clone()).bind("127.0.0.1:0").await.unwrap();
    let url = onramp.url();
    tokio::spawn(onramp.run(std::future::pending::<()>()));
    (url, accounts)
}

/// A proxy that has the server behind the path `/mesh`.
pub(crate) async fn behind_a_path(server: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/mesh/directory", listener.local_addr().unwrap());
    let server = server.strip_prefix("ws://").unwrap().to_owned();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let mut server = TcpStream::connect(&server).await.unwrap();
            tokio::spawn(async move {
                let mut client = BufReader::new(client);
                let mut line = String::new();
                client.read_line(&mut line).await.unwrap();
                let (method, path) = line.split_once(" /mesh").expect(&line);
                server.write_all(format!("{method} {path}").as_bytes()).await.unwrap();
                // Either may break it off.
                let _ = copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    url
}

/// What a command has come to.
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) told: String,
}

impl Done {
    fn of(output: Output) -> Self {
        let [out, told] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        Self { code: output.status.code(), out, told }
    }

    /// What it wrote, if it has gone well.
    pub(crate) fn well(self) -> String {
        assert_eq!((self.code, &*self.told), (Some(0), ""), "{}", self.out);
        self.out
    }

    /// What it told, if it has not.
    pub(crate) fn badly(self) -> String {
        assert_eq!(self.code, Some(1), "{}{}", self.out, self.told);
        self.told
    }

    pub(crate) fn lines(&self) -> Vec<Value> {
        self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

/// Runs a command with this on its standard input.
pub(crate) async fn run(command: &mut Command, input: &str) -> Done {
    let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // It may not read it.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    Done::of(soon(child.wait_with_output()).await.unwrap())
}

/// Somebody with a file for their login.
pub(crate) struct Person {
    folder: TempDir,
}

impl Person {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    /// Somebody who is logged in.
    pub(crate) async fn log_in(url: &str, name: &str) -> Self {
        let person = Self::new();
        person.run(&["login", url, name, "--password-stdin"], PASSWORD).await.well();
        person
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.folder.path().join("login.json")
    }

    /// A command of theirs; those that reach peers are given a module or target first, and reach those on this machine.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let file = self.file();
        let mut all = vec![arguments[0]];
        if matches!(arguments[0], "call" | "serve") {
            all.push("--loopback");
        }
        let takes_subcommand = matches!(arguments[0], "token" | "trust");
        if takes_subcommand {
            all.push(arguments[1]);
        }
        all.extend(["--login", file.to_str().unwrap()]);
        all.extend(&arguments[1 + usize::from(takes_subcommand)..]);
        program(&all)
    }

    pub(crate) async fn run(&self, arguments: &[&str], input: &str) -> Done {
        run(&mut self.command(arguments), input).await
    }

    /// The replies to a call that all have answered.
    pub(crate) async fn call(&self, arguments: &[&str], input: &str) -> Vec<Value> {
        let done = self.run(&[&["call"], arguments].concat(), input).await;
        let lines = done.lines();
        done.well();
        lines
    }

    /// The only reply to a call, which failed.
    pub(crate) async fn failed_call(&self, arguments: &[&str]) -> Value {
        let done = self.run(&[&["call"], arguments].concat(), "").await;
        let mut lines = done.lines();
        let bystander = lines.iter().any(|line| line["code"] == "unknownModule" || line["code"] == "refused");
        let told = if bystander { "pmesh call: nobody has answered: " } else { "pmesh call: 1 of 1 calls failed\n" };
        assert!(done.badly().starts_with(told) && lines.len() == 1, "{lines:?}");
        lines.remove(0)
    }

    pub(crate) async fn serve(&self, arguments: &[&str]) -> Module {
        let mut child = self.command(&[&["serve"], arguments].concat()).spawn().unwrap();
        let mut told = BufReader::new(child.stderr.take().unwrap()).lines();
        let ready = soon(told.next_line()).await.unwrap().unwrap();
        let number = ready.rsplit(' ').next().unwrap().parse().expect(&ready);
        Module { child, told, number }
    }
}

/// A command that serves.
pub(crate) struct Module {
    child: Child,
    told: Lines<BufReader<ChildStderr>>,
    pub(crate) number: u64,
}

impl Module {
    /// What it tells next.
    pub(crate) async fn told(&mut self) -> Option<String> {
        soon(self.told.next_line()).await.unwrap()
    }

    /// Kills it.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Tells it to stop, and returns its exit code.
    pub(crate) async fn stop(self) -> Option<i32> {
        self.end_by("TERM").await
    }

    /// Sends a signal to it, and returns its exit code.
    pub(crate) async fn end_by(mut self, signal: &str) -> Option<i32> {
        send(&self.child, signal).await;
        soon(self.child.wait()).await.unwrap().code()
    }
}

pub(crate) async fn terminate(child: &Child) {
    send(child, "TERM").await;
}

pub(crate) async fn send(child: &Child, signal: &str) {
    let id = child.id().unwrap().to_string();
    assert!(Command::new("kill").args(["-s", signal, &id]).status().await.unwrap().success());
}
