//! The architecture, as far as it can be read off the sources: see ARCHITECTURE.md.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

use std::fs;
use std::path::{Path, PathBuf};

/// Each module of the crate, and what it may use.
const LAYERS: &[(&str, &[&str])] = &[
    ("identity", &[]),
    ("error", &["identity"]),
    ("lock", &[]),
    ("protocol", &["error", "identity"]),
    ("transport", &["error", "identity", "lock", "protocol"]),
    ("node", &["error", "identity", "lock", "protocol", "transport"]),
    ("overlay", &["error", "identity", "lock", "protocol", "transport", "node"]),
    ("rpc", &["error", "identity", "lock", "protocol", "node", "overlay"]),
    ("directory", &["error", "identity", "lock", "protocol", "transport", "node", "overlay", "rpc"]),
    ("onramp", &["error", "lock", "protocol", "transport"]),
    ("lib", &["error", "identity", "protocol", "transport", "node", "overlay", "rpc", "directory", "onramp"]),
];

/// Pure parts: no runtime, no sockets, no clock, no randomness but from a seed.
const PURE: &[&str] = &[
    "src/error.rs",
    "src/protocol",
    "src/transport/turned.rs",
    "src/transport/webrtc/shared/routes.rs",
    "src/transport/webrtc/shared/stun.rs",
    "src/directory/doubts.rs",
    "src/directory/pool",
    "src/directory/presence.rs",
    "src/node/tree",
    "src/node/budget.rs",
    "src/node/firewall.rs",
    "src/onramp/accounts/bearer.rs",
    "src/onramp/accounts/guess.rs",
    "src/onramp/accounts/names.rs",
    "src/onramp/accounts/throttle.rs",
    "src/onramp/accounts/turns.rs",
    "src/onramp/agenda.rs",
    "src/onramp/hub",
    "src/onramp/line.rs",
    "src/overlay/compat/peer_relay/codec.rs",
    "src/overlay/compat/peer_relay/machine.rs",
    "src/overlay/id.rs",
    "src/overlay/keys.rs",
    "src/overlay/routing",
    "src/overlay/router",
    "src/overlay/core/patience.rs",
    "src/overlay/link/handshake.rs",
    "src/overlay/topics",
    "src/rpc/error.rs",
    "src/rpc/outbox.rs",
    "src/rpc/table",
    "src/rpc/wire.rs",
];
const IMPURE: &[&str] =
    &["tokio::", "Instant::now", "SystemTime::now", "rand::random", "rand::rng()", "std::net::", "std::thread"];

/// The only places that name these crates.
const ADAPTERS: &[(&str, &[&str])] = &[
    ("webrtc::", &["src/transport/webrtc"]),
    ("rtc::", &["src/transport/webrtc"]),
    ("rustls::", &["src/transport/websocket.rs", "src/overlay/stream/tls.rs"]),
    ("quinn::", &["src/overlay/stream"]),
    ("ring::", &["src/onramp/accounts/guess.rs", "src/overlay/keys.rs", "src/overlay/stream"]),
    ("httparse::", &["src/transport/http.rs"]),
    ("ed25519_dalek::", &["src/identity"]),
    ("sqlx::", &["onramp-server/src/accounts/database.rs"]),
    ("argon2::", &["onramp-server/src/accounts/passwords.rs"]),
];

const MAX_LINES: usize = 500;

struct Source {
    path: String,
    /// Without comments and without what is compiled for tests only.
    code: String,
    lines: usize,
}

fn sources(root: &Path) -> Vec<Source> {
    let mut files = Vec::new();
    let mut folders =
        vec![root.join("src"), root.join("onramp-server/src"), root.join("pmesh-cli/src"), root.join("simulation/src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    files.iter().filter(|path| !is_test(path)).map(|path| source(root, path)).collect()
}

fn is_test(path: &Path) -> bool {
    path.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs" | "memory.rs")))
}

fn source(root: &Path, path: &PathBuf) -> Source {
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let path = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
    Source { path, code: code.join("\n"), lines: text.lines().count() }
}

fn words<'a>(code: &'a str, prefix: &'a str) -> impl Iterator<Item = &'a str> {
    code.match_indices(prefix).filter_map(move |(at, _)| {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            return None;
        }
        let rest = &code[at + prefix.len()..];
        Some(&rest[..rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())])
    })
}

#[test]
fn dependencies_point_down() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    for source in sources(root).iter().filter(|source| source.path.starts_with("src/")) {
        let module = source.path["src/".len()..].split(['/', '.']).next().unwrap();
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{} is in no layer", source.path));
            continue;
        };
        for used in words(&source.code, "crate::") {
            if used != module && !allowed.contains(&used) {
                wrong.push(format!("{} uses crate::{used}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pure_parts_are_pure() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    for source in sources(root) {
        if PURE.iter().any(|pure| source.path.starts_with(pure)) {
            wrong.extend(
                IMPURE.iter().filter(|word| source.code.contains(*word)).map(|word| (source.path.clone(), word)),
            );
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn only_adapters_name_what_they_adapt() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    for source in sources(root) {
        for (word, places) in ADAPTERS {
            if !places.iter().any(|place| source.path.starts_with(place)) && words(&source.code, word).next().is_some()
            {
                wrong.push(format!("{} names {word}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn errors_events_and_settings_can_grow() {
    const GROW: &[&str] = &["Error", "Failure", "Refused", "Event", "Config", "Compat", "Counters"];
    // Each of its kinds gives the message back.
    const COMPLETE: &[&str] = &["TrySendError"];
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut wrong = Vec::new();
    for source in sources(root).iter().filter(|source| source.path.starts_with("src/")) {
        let lines: Vec<&str> = source.code.lines().collect();
        for (at, line) in lines.iter().enumerate() {
            let name = line.strip_prefix("pub struct ").or(line.strip_prefix("pub enum "));
            let Some(name) = name.and_then(|rest| rest.strip_suffix(" {")) else { continue };
            let attributes = lines[..at].iter().rev().take_while(|line| line.is_empty() || line.starts_with("#["));
            if GROW.iter().any(|end| name.ends_with(end))
                && !COMPLETE.contains(&name)
                && !attributes.clone().any(|line| *line == "#[non_exhaustive]")
            {
                wrong.push(format!("{}: {name}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn files_are_short() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let long: Vec<String> = sources(root)
        .iter()
        .filter(|source| source.lines > MAX_LINES)
        .map(|source| format!("{}: {} lines", source.path, source.lines))
        .collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
}
