//! Accounts from the command line: logging in, trust, calls and modules.

// Helpers of tests are tests.
#![allow(clippy::unwrap_used)]

mod common;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use common::accounts::{Done, PASSWORD, Person, behind_a_path, run, server, terminate};
use common::{Running, ignores_hangup, program, soon};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::sync::mpsc;

/// Two people who trust each other.
async fn alice_and_bob() -> (String, Person, Person) {
    let (url, accounts) = server(&["alice", "bob"]).await;
    accounts.trust("alice", "Bob", "bob", "Alice").await.unwrap();
    let (alice, bob) = (Person::log_in(&url, "alice").await, Person::log_in(&url, "bob").await);
    (url, alice, bob)
}

#[tokio::test]
async fn two_accounts_come_to_trust_and_call_each_other() {
    let (url, _) = server(&["alice", "bob"]).await;
    let (alice, bob) = (Person::log_in(&url, "alice").await, Person::log_in(&url, "bob").await);
    let echo = bob.serve(&["Echo", "--", "cat"]).await;
    assert_eq!(alice.run(&["call", "*", "Echo"], "").await.badly(), "pmesh call: nobody is there as *\n");

    let token = alice.run(&["token", "request", "Bob"], "").await.well();
    assert_eq!(
        alice.run(&["token", "claim", "Me", "-"], &token).await.badly(),
        "pmesh token: the token is one's own\n"
    );
    bob.run(&["token", "claim", "Alice", "-"], &token).await.well();
    assert_eq!(
        bob.run(&["token", "claim", "Alice", token.trim()], "").await.badly(),
        "pmesh token: there is no such token\n"
    );
    // One token in 64 begins with a hyphen.
    assert_eq!(
        bob.run(&["token", "claim", "Alice", "-MOy1"], "").await.badly(),
        "pmesh token: there is no such token\n"
    );
    assert_eq!(alice.run(&["trust", "list"], "").await.well(), "Bob\n");
    assert_eq!(bob.run(&["call", "Alice", "Echo"], "").await.badly(), "pmesh call: nobody is there as Alice now\n");

    let who: Value = serde_json::from_str(&alice.run(&["who", "--json"], "").await.well()).unwrap();
    assert_eq!(who["users"], json!([{"name": "Bob", "peers": [echo.number]}]));
    let who = alice.run(&["who"], "").await.well();
    assert_eq!(who, format!("Bob\t{}\n", echo.number));

    let reply = |value: Value| json!({"peer": echo.number, "name": "Bob", "value": value});
    for target in ["*", "Bob", &echo.number.to_string()] {
        assert_eq!(
            alice.call(&[target, "Echo", r#"{"text": "Friday"}"#], "").await,
            [reply(json!({"text": "Friday"}))]
        );
    }
    // Those of the own account are no others, and what is not said is null.
    assert_eq!(bob.call(&["Us", "Echo"], "").await, [json!({"peer": echo.number, "name": "Us", "value": null})]);
    let large = alice.run(&["call", "Bob", "Echo", "-"], &format!("{:?}", "x".repeat(1 << 20))).await;
    let bound = "the request, which has 1048578 bytes, or the answer has more than the 1048576 that are taken";
    assert_eq!(large.lines()[0]["error"], bound);
    let many = alice.call(&["Bob", "Echo", "-", "--keep"], "1 [2,\n3]\n\"4\"").await;
    assert_eq!(many, [json!(1), json!([2, 3]), json!("4")].map(reply));

    alice.run(&["trust", "revoke", "Bob"], "").await.well();
    let unknown =
        "pmesh call: nobody is there as Bob, and no user of this name is known to you: see `pmesh trust list`\n";
    assert_eq!(alice.run(&["call", "Bob", "Echo"], "").await.badly(), unknown);
    assert_eq!(alice.run(&["trust", "list"], "").await.well(), "");
    assert_eq!(echo.stop().await, Some(0));
}

/// The real server, which other processes than this test run.
async fn onramp_server() -> PathBuf {
    let server = Path::new(env!("CARGO_BIN_EXE_pmesh")).with_file_name("onramp-server");
    if !server.exists() {
        // Only this package is being tested.
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--package", "onramp-server"]);
        if server.parent().is_some_and(|folder| folder.ends_with("release")) {
            build.arg("--release");
        }
        assert!(build.status().await.unwrap().success());
    }
    server
}

#[tokio::test]
async fn accounts_of_a_real_server_outlive_it() {
    let program = onramp_server().await;
    let folder = tempfile::tempdir().unwrap();
    let accounts = format!("sqlite:{}", folder.path().join("accounts.db").display());
    let cheap = ["--accounts", &accounts, "--argon2-memory-kib", "64", "--argon2-iterations", "1"];
    for name in ["alice", "bob"] {
        let mut add = Command::new(&program);
        add.args(["user", "add", name, "--password-stdin"]).args(cheap).stdout(Stdio::piped()).stderr(Stdio::piped());
        run(&mut add, PASSWORD).await.well();
    }
    let start = async |host: &str| {
        let mut command = Command::new(&program);
        command.args(["--host", host, "--log", "error"]).args(cheap).stdout(Stdio::piped()).kill_on_drop(true);
        let mut server = command.spawn().unwrap();
        let mut lines = BufReader::new(server.stdout.take().unwrap()).lines();
        let first = soon(lines.next_line()).await.unwrap().unwrap();
        (server, first.rsplit(' ').next().unwrap().to_owned())
    };
    let (mut server, url) = start("127.0.0.1:0").await;
    let (alice, bob) = (Person::log_in(&url, "alice").await, Person::log_in(&url, "bob").await);
    let token = alice.run(&["token", "request", "Bob"], "").await.well();
    bob.run(&["token", "claim", "Alice", "-"], &token).await.well();
    let mut echo = bob.serve(&["Echo", "--", "cat"]).await;
    let reply = |number: u64| json!({"peer": number, "name": "Bob", "value": [1]});
    assert_eq!(alice.call(&["Bob", "Echo", "[1]"], "").await, [reply(echo.number)]);

    // The module logs in again by itself, and says by which number.
    server.kill().await.unwrap();
    let (_server, _) = start(url.strip_prefix("ws://").unwrap()).await;
    assert_eq!(echo.told().await.unwrap(), "* the directory is lost");
    let again = echo.told().await.unwrap();
    let number = again.strip_prefix("serving Echo as ").expect(&again).parse().unwrap();
    assert_eq!(alice.call(&["Bob", "Echo", "[1]"], "").await, [reply(number)]);
    assert_eq!(echo.stop().await, Some(0));
}

#[tokio::test]
async fn calls_that_fail_say_why() {
    let (_, alice, bob) = alice_and_bob().await;
    let sh = async |module: &str, options: &[&str], script: &str| {
        bob.serve(&[&[module], options, &["--", "sh", "-c", script]].concat()).await
    };
    let failing = sh("Fail", &[], "echo oops >&2; exit 3").await;
    let reply = |number: u64, more: Value| {
        let mut reply = json!({"peer": number, "name": "Bob"});
        reply.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        reply
    };
    let told = |code: &str, error: &str| json!({"code": code, "error": error});
    let to = failing.number.to_string();
    let mut failed = told("commandFailed", "oops");
    failed["data"] = json!({"status": 3});
    assert_eq!(alice.failed_call(&[&to, "Fail"]).await, reply(failing.number, failed));
    assert_eq!(
        alice.failed_call(&["Bob", "Other"]).await,
        reply(failing.number, told("unknownModule", "the other side has no such module"))
    );
    // The caller's words are no part of a command line, and nothing of its own is lost in text.
    let says = sh("Say", &[], "echo \"$PMESH_CALLER $PMESH_ALIAS $PMESH_MODULE\"").await;
    let said = alice.call(&[&says.number.to_string(), "Say"], "").await;
    let words: Vec<&str> = said[0]["value"].as_str().unwrap().split(' ').collect();
    assert!(words[0].parse::<u64>().is_ok() && words[1..] == ["Alice", "Say"], "{said:?}");

    for (options, script, code) in [
        (&[][..], "head -c 1048577 /dev/zero", "outputTooLarge"),
        (&["--timeout", "0.3"], "sleep 1000", "commandTimedOut"),
        (&["--only", "Carol", "--only", "Alicia"], "true", "refused"),
    ] {
        let module = sh("Module", options, script).await;
        assert_eq!(alice.failed_call(&[&module.number.to_string(), "Module"]).await["code"], code);
        assert_eq!(module.stop().await, Some(0));
    }
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("program");
    std::os::unix::fs::symlink("/bin/sh", &program).unwrap();
    let path = program.to_str().unwrap();
    let mut none = bob.serve(&["Module", "--only", "Alice", "--", path]).await;
    std::fs::remove_file(&program).unwrap();
    assert_eq!(alice.failed_call(&[&none.number.to_string(), "Module"]).await["code"], "notRun");
    assert!(none.told().await.unwrap().starts_with(&format!("cannot run {path}: ")));
    let never = bob.run(&["serve", "Module", "--", path], "").await;
    assert_eq!(never.badly(), format!("pmesh serve: there is no command {path}\n"));

    // One fails, one answers, and one has nothing to do with it.
    let fails = sh("Say", &[], "false").await;
    let all = alice.run(&["call", "Bob", "Say"], "").await;
    let answers = all.lines().iter().filter(|line| line["value"].is_string()).count();
    assert_eq!((all.lines().len(), answers), (4, 1));
    assert_eq!(all.badly(), "pmesh call: 1 of 2 calls failed\n");
    assert_eq!(fails.stop().await, Some(0));
}

#[tokio::test]
async fn bystanders_do_not_make_a_call_fail() {
    let (_, alice, bob) = alice_and_bob().await;
    let mut looking = bob.command(&["who", "--follow"]).spawn().unwrap();
    let mut lines = BufReader::new(looking.stdout.take().unwrap()).lines();
    soon(lines.next_line()).await.unwrap().unwrap();
    let call = async |module: &str, input: &str| {
        let done = alice.run(&["call", "*", module, "-"], input).await;
        let mut codes: Vec<String> = done.lines().iter().map(|line| line["code"].to_string()).collect();
        codes.sort();
        (codes.join(" "), done)
    };
    let (codes, done) = call("Echo", "1").await;
    assert_eq!(codes, r#""refused""#);
    assert!(done.badly().starts_with("pmesh call: nobody has answered: "));

    let echo = bob.serve(&["Echo", "--", "cat"]).await;
    let mut pipe = Pipe::new().await;
    let wait = bob.serve(&["Wait", "--", "sh", "-c", &pipe.script()]).await;
    let fail = bob.serve(&["Fail", "--", "false"]).await;
    // This one is in the way of others of its account.
    let waiting = alice.command(&["call", &wait.number.to_string(), "Wait"]).spawn().unwrap();
    pipe.begun().await;
    let (codes, done) = call("Echo", "1").await;
    assert_eq!(codes, r#""refused" "refused" "unknownModule" "unknownModule" null"#);
    done.well();
    assert_eq!(alice.run(&["call", "*", "Echo", "--stream"], "").await.code, Some(0));
    assert_eq!(alice.run(&["call", "*", "None", "--stream"], "").await.code, Some(1));
    let (_, done) = call("Fail", "1 2").await;
    assert_eq!(done.badly(), "pmesh call: 2 of 2 calls failed\n");
    let (_, done) = call("None", "1 2").await;
    assert!(done.badly().starts_with("pmesh call: 2 of 2 requests: nobody has answered: "));

    terminate(&waiting).await;
    soon(waiting.wait_with_output()).await.unwrap();
    pipe.ended().await;
    // Callers that come and go at the same time.
    let calls = (0..4).map(|_| alice.call(&["*", "Echo"], ""));
    futures_util::future::join_all(calls).await;
    for module in [echo, wait, fail] {
        assert_eq!(module.stop().await, Some(0));
    }
}

#[tokio::test]
async fn two_logins_with_one_key_cannot_call_each_other_and_are_told_so() {
    let (_, alice, bob) = alice_and_bob().await;
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key.pem");
    let key = key.to_str().unwrap();
    run(&mut program(&["id", "--new", key]), "").await.well();
    let same = alice.serve(&["Echo", "--identity", key, "--", "cat"]).await;
    let own = alice.run(&["call", "Us", "Echo", "--identity", key], "").await;
    let reply = own.lines().remove(0);
    assert_eq!((&reply["peer"], &reply["code"]), (&json!(same.number), &json!("ownAddress")));
    assert!(reply["error"].as_str().unwrap().contains("the same key"), "{reply}");
    assert!(own.badly().starts_with("pmesh call: nobody has answered"));
    // It is a bystander, too.
    let echo = bob.serve(&["Echo", "--", "cat"]).await;
    assert_eq!(alice.run(&["call", "*", "Echo", "--identity", key], "").await.code, Some(0));
    for module in [same, echo] {
        assert_eq!(module.stop().await, Some(0));
    }
}

/// A pipe that commands write to, and whose end is when all who have it are dead.
struct Pipe {
    folder: TempDir,
    said: mpsc::Receiver<Option<String>>,
}

impl Pipe {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&path).status().await.unwrap().success());
        let (sender, said) = mpsc::channel(16);
        // Not of the runtime, which would wait for it.
        std::thread::spawn(move || {
            let pipe = std::io::BufReader::new(std::fs::File::open(path).unwrap());
            for line in std::io::BufRead::lines(pipe) {
                sender.blocking_send(Some(line.unwrap())).unwrap();
            }
            let _ = sender.blocking_send(None);
        });
        Self { folder, said }
    }

    /// A command that says so when it runs, and leaves another one behind.
    fn script(&self) -> String {
        let path = self.folder.path().join("pipe");
        format!("exec 3>{}; echo begun >&3; sleep 1000 & sleep 1000", path.display())
    }

    async fn begun(&mut self) {
        assert_eq!(soon(self.said.recv()).await.unwrap().as_deref(), Some("begun"));
    }

    async fn ended(&mut self) {
        assert_eq!(soon(self.said.recv()).await.unwrap(), None);
    }
}

#[tokio::test]
async fn commands_end_with_their_callers_and_with_the_module() {
    let (_, alice, bob) = alice_and_bob().await;

    // The time is over; others hear meanwhile that there is no place.
    let mut pipe = Pipe::new().await;
    let module = bob.serve(&["Wait", "--jobs", "1", "--", "sh", "-c", &pipe.script()]).await;
    let waiting = alice.command(&["call", "Bob", "Wait", "--timeout", "3"]).spawn().unwrap();
    pipe.begun().await;
    assert_eq!(alice.failed_call(&["Bob", "Wait"]).await["code"], "busy");
    let waited = soon(waiting.wait_with_output()).await.unwrap();
    let reply: Value = serde_json::from_slice(&waited.stdout).unwrap();
    assert_eq!((waited.status.code(), &reply["code"]), (Some(1), &json!("timedOut")));
    pipe.ended().await;
    assert_eq!(module.stop().await, Some(0));

    // The caller is told to stop.
    let mut pipe = Pipe::new().await;
    let module = bob.serve(&["Wait", "--", "sh", "-c", &pipe.script()]).await;
    let waiting = alice.command(&["call", "Bob", "Wait"]).spawn().unwrap();
    pipe.begun().await;
    terminate(&waiting).await;
    pipe.ended().await;
    assert_eq!(soon(waiting.wait_with_output()).await.unwrap().status.code(), Some(1));
    assert_eq!(module.stop().await, Some(0));

    // The module is, or its terminal is closed.
    let hangup = if ignores_hangup("self") { "TERM" } else { "HUP" };
    for signal in ["TERM", hangup, "QUIT"] {
        let mut pipe = Pipe::new().await;
        let module = bob.serve(&["Wait", "--", "sh", "-c", &pipe.script()]).await;
        let waiting = alice.command(&["call", "Bob", "Wait"]).spawn().unwrap();
        pipe.begun().await;
        assert_eq!(module.end_by(signal).await, Some(0), "{signal}");
        pipe.ended().await;
        assert_eq!(soon(waiting.wait_with_output()).await.unwrap().status.code(), Some(1));
    }

    // The module is killed, and can do nothing: a command that writes ends.
    let mut pipe = Pipe::new().await;
    let script = pipe.script().replace("sleep 1000 & sleep 1000", "while echo on; do sleep 0.05; done");
    let module = bob.serve(&["Wait", "--", "sh", "-c", &script]).await;
    let waiting = alice.command(&["call", "Bob", "Wait"]).spawn().unwrap();
    pipe.begun().await;
    module.kill().await;
    pipe.ended().await;
    terminate(&waiting).await;
    soon(waiting.wait_with_output()).await.unwrap();
}

#[tokio::test]
async fn as_many_peers_as_there_are_jobs_are_served_at_a_time() {
    let (_, alice, bob) = alice_and_bob().await;
    let mut pipe = Pipe::new().await;
    let module = bob.serve(&["Wait", "--jobs", "7", "--", "sh", "-c", &pipe.script()]).await;
    let waiting: Vec<_> = (0..7).map(|_| alice.command(&["call", "Bob", "Wait"]).spawn().unwrap()).collect();
    for _ in &waiting {
        pipe.begun().await;
    }
    assert_eq!(alice.failed_call(&["Bob", "Wait"]).await["code"], "busy");
    assert_eq!(module.stop().await, Some(0));
    pipe.ended().await;
    for call in waiting {
        assert_eq!(soon(call.wait_with_output()).await.unwrap().status.code(), Some(1));
    }
}

#[tokio::test]
async fn who_comes_and_goes_is_followed() {
    let (_, alice, bob) = alice_and_bob().await;
    let mut child = alice.command(&["who", "--follow", "--json"]).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next =
        async || -> Value { serde_json::from_str(&soon(lines.next_line()).await.unwrap().unwrap()).unwrap() };
    assert_eq!(next().await["event"], "connected");
    assert_eq!(next().await, json!({"event": "user", "name": "Bob"}));
    let echo = bob.serve(&["Echo", "--", "cat"]).await;
    let number = echo.number;
    assert_eq!(next().await, json!({"event": "peer", "name": "Bob", "number": number}));
    assert_eq!(echo.stop().await, Some(0));
    assert_eq!(next().await, json!({"event": "peer-left", "number": number}));
    bob.run(&["trust", "revoke", "Alice"], "").await.well();
    // Whoever revokes it is there for a moment.
    assert_eq!(next().await["event"], "peer");
    assert_eq!(next().await["event"], "peer-left");
    assert_eq!(next().await, json!({"event": "user-removed", "name": "Bob"}));
    terminate(&child).await;
    assert_eq!(soon(child.wait()).await.unwrap().code(), Some(0));
}

#[tokio::test]
async fn an_account_is_made_by_invitation_and_its_password_changed() {
    let (url, _) = server(&["alice"]).await;
    let alice = Person::log_in(&url, "alice").await;
    let link = alice.run(&["invite", "carol@example.org"], "").await.well();
    let register = async |link: &str, name: &str, input: &str| {
        run(&mut program(&["register", link, name, "--password-stdin"]), input).await
    };
    let input = format!("{link}{PASSWORD}\n");
    assert_eq!(register("-", "alice", &input).await.badly(), "pmesh register: the name is taken\n");
    register("-", "carol", &input).await.well();
    let (place, _) = link.split_once('#').unwrap();
    for none in [link.trim(), &format!("{place}#-MOy1")] {
        assert!(register(none, "dave", PASSWORD).await.badly().contains("the invitation is unknown"));
    }

    let carol = Person::log_in(&url, "carol").await;
    assert_eq!(carol.run(&["passwd", "--password-stdin"], "short").await.badly().lines().count(), 1);
    carol.run(&["passwd", "--password-stdin"], "another horse\n").await.well();
    carol.run(&["trust", "list"], "").await.well();
    let other = Person::new();
    let log_in = ["login", &url, "carol", "--password-stdin"];
    assert_eq!(other.run(&log_in, PASSWORD).await.badly(), "pmesh login: wrong name or password\n");
    assert!(!other.file().exists(), "what is wrong is not kept");
    other.run(&log_in, "another horse\n").await.well();
    assert_eq!(std::fs::metadata(other.file()).unwrap().permissions().mode() & 0o777, 0o600);
    for _ in 0..2 {
        other.run(&["logout"], "").await.well();
        assert!(!other.file().exists());
    }
}

#[tokio::test]
async fn that_nobody_reads_the_output_is_no_failure() {
    let (_, alice, bob) = alice_and_bob().await;
    let echo = bob.serve(&["Echo", "--", "cat"]).await;
    let unread = async |mut command: Command, input: &str| {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        run(command.stdout(writer), input).await.well();
    };
    for arguments in [
        &["who"][..],
        &["who", "--json"],
        &["who", "--follow"],
        &["call", "Bob", "Echo", "-"],
        &["trust", "list"],
        &["token", "request", "Carol"],
        &["invite", "carol@example.org"],
    ] {
        unread(alice.command(arguments), "1 2").await;
    }
    let folder = tempfile::tempdir().unwrap();
    unread(program(&["id", "--new", folder.path().join("key.pem").to_str().unwrap()]), "").await;
    assert_eq!(echo.stop().await, Some(0));
}

#[tokio::test]
async fn a_server_may_be_behind_a_path() {
    let (server, _) = server(&["alice"]).await;
    let url = behind_a_path(&server).await;
    let link = Person::log_in(&url, "alice").await.run(&["invite", "carol@example.org"], "").await.well();
    let input = format!("{link}{PASSWORD}\n");
    run(&mut program(&["register", "-", "carol", "--password-stdin"]), &input).await.well();
    Person::log_in(&url, "carol").await;
}

#[tokio::test]
async fn a_peer_logs_in_at_an_onramp_and_shows_no_secret() {
    let (url, alice, bob) = alice_and_bob().await;
    let login = |person: &Person| person.file().to_str().unwrap().to_owned();
    let mut peers =
        [Running::peer(&url, &["--login", &login(&alice)]), Running::peer(&url, &["--login", &login(&bob)])];
    for peer in &mut peers {
        assert_eq!(peer.event("open").await["node"], json!(url));
    }
    // Each of two who trust each other is told of the other one.
    let [one, other] = &mut peers;
    let address = one.event("message").await["json"].clone();
    one.command(json!({"cmd": "connect", "to": address})).await;
    assert_eq!(one.event("open").await["kind"], "webrtc");
    assert_eq!(other.event("open").await["kind"], "webrtc");

    let nobody = Person::new();
    let peer = async |url: &str, login: &[&str]| {
        let arguments = [&["peer", "--json", "--onramp", url], login].concat();
        run(program(&arguments).env("XDG_CONFIG_HOME", nobody.file()), "").await
    };
    let done = peer(&url, &[]).await;
    let error = done.lines().into_iter().find(|line| line["reason"] == "notLoggedIn").expect(&done.out);
    assert!(error["message"].as_str().unwrap().contains("`pmesh login`"), "{error}");
    let done = peer(&url.replace("ws://127.0.0.1", "ws://localhost"), &["--login", &login(&alice)]).await;
    assert!(done.out.contains("status 401: Log in first"), "another server does not get it: {}", done.out);
    let mistaken = Person::log_in(&url, "alice").await;
    let known = std::fs::read_to_string(mistaken.file()).unwrap();
    std::fs::write(mistaken.file(), known.replace(PASSWORD, "T0p")).unwrap();
    let done = peer(&url, &["--login", &login(&mistaken)]).await;
    let error = done.lines().into_iter().find(|line| line["reason"] == "wrongPassword").expect(&done.out);
    assert!(
        error["message"].as_str().unwrap().contains("the name or the password is wrong (see `pmesh login`)"),
        "{error}"
    );
    assert!(!done.out.contains("T0p"));
    let done = peer(&url, &["--login", nobody.file().to_str().unwrap()]).await;
    assert!(done.badly().contains("not logged in: see `pmesh login`"));
    let done = peer(&format!("{url}/?token=T0p-s3cret"), &[]).await;
    assert_eq!(done.lines()[0]["reason"], "login");
    assert!(!done.out.contains("T0p") && !done.badly().contains("T0p"));
}

#[tokio::test]
async fn mistakes_are_told() {
    let nobody = Person::new();
    for (arguments, code, told) in [
        (&["who"][..], 1, "not logged in: see `pmesh login`"),
        (&["call", "Bob", "Echo", "{"], 2, "EOF while parsing"),
        (&["call", "Bob", "Echo", "friday"], 2, "it is no JSON, where text needs quotes, as in '\"Friday\"'"),
        (&["call", "Bob"], 2, "<MODULE>"),
        (&["serve", "Echo"], 2, "<COMMAND>"),
        (&["serve", "Echo", "--jobs", "0", "--", "cat"], 2, "0 is not in"),
        (&["login", "ws://example.org", "a", "--password-stdin"], 1, "use wss://, or --allow-plaintext"),
        (&["login", "example.org", "a", "--password-stdin"], 1, "not the URL of a directory"),
        (&["login", "ws://127.0.0.1:1", "a", "--password-stdin"], 1, "cannot be reached"),
        (&["login", "ws://127.0.0.1:1", "a"], 1, "--password-stdin"),
    ] {
        let mut command = nobody.command(arguments);
        // Without a terminal, wherever the test runs.
        let done: Done = run(command.stdin(Stdio::piped()).process_group(0), "secret").await;
        assert_eq!(done.code, Some(code), "{arguments:?}: {}", done.told);
        assert!(done.told.contains(told) && !done.told.contains("secret"), "{arguments:?}: {}", done.told);
    }
    let help = run(&mut program(&["login", "--help"]), "").await.well();
    assert!(help.contains("holds the password"), "{help}");
}
