//! What was measured, as tables in Markdown.

use std::time::Duration;

use crate::lookups::Fares;
use crate::observe::Class;
use crate::scenario::attacks::Harm;
use crate::scenario::churn::{Churn, Failures, Partition};
use crate::scenario::hops::Row;
use crate::world::Oddities;

/// A table: the heads of its columns, then the rows.
pub fn table(heads: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: Vec<&str>| format!("| {} |\n", cells.join(" | "));
    let mut text = line(heads.to_vec());
    text += &line(vec!["---"; heads.len()]);
    rows.iter().for_each(|row| text += &line(row.iter().map(String::as_str).collect()));
    text
}

/// Hops, links and costs, by size.
pub fn hops(rows: &[(&str, Row)]) -> String {
    let cells = |(name, row): &(&str, Row)| {
        vec![
            format!("{name} {}", row.nodes),
            format!("{:.2}", row.plain.hops),
            row.plain.hops_p99.to_string(),
            percent(row.plain.rate()),
            percent(row.confirmed.rate()),
            format!("{:.1}", row.links.0),
            row.links.1.to_string(),
            format!("{:.2}", row.plain.each(Class::User)),
            format!("{:.2}", row.plain.each(Class::Key)),
            format!("{:.2}", row.confirmed.messages()),
            format!("{:.2}", row.confirmed.answers()),
            format!("{:.1}", row.original.0),
        ]
    };
    let fares = table(
        &[
            "peers",
            "hops",
            "p99",
            "delivered",
            "with confirmation",
            "links",
            "most",
            "messages each",
            "for its key, once",
            "with confirmation",
            "hop answers",
            "original's rule",
        ],
        &rows.iter().map(cells).collect::<Vec<_>>(),
    );
    let cells = |(name, row): &(&str, Row)| {
        vec![
            format!("{name} {}", row.nodes),
            percent(row.right),
            format!("{:.0}", row.join.0),
            format!("{:.0}", row.join.1 / 1000.0),
            format!("{:.2}", row.idle.0),
            format!("{:.0}", row.idle.1),
            format!("{:.3}", row.idle.2),
            format!("{:.0}", row.state),
            row.resident.map_or("-".into(), |bytes| format!("{:.0}", bytes / 1000.0)),
            odd(&row.oddities),
        ]
    };
    let costs = table(
        &[
            "peers",
            "tables right",
            "packets a join",
            "kB a join",
            "idle: packets/s",
            "bytes/s",
            "of the table/s",
            "table, bytes",
            "process, kB a peer",
            "odd",
        ],
        &rows.iter().map(cells).collect::<Vec<_>>(),
    );
    format!("{fares}\n{costs}")
}

/// Chord's paper: share that failed, mean path, time-outs (table II).
const PAPER: [(f64, f64); 6] = [(0.0, 3.84), (0.1, 4.03), (0.2, 4.22), (0.3, 4.44), (0.4, 4.69), (0.5, 5.09)];

/// Many vanish at once.
pub fn failures(rows: &[(&str, Failures)]) -> String {
    let cells = |(name, row): &(&str, Failures)| {
        let paper = PAPER.iter().find(|(share, _)| (share - row.share).abs() < 0.01);
        vec![
            format!("{name}, {:.0} %", row.share * 100.0),
            format!("{:.2}", row.at_once.hops),
            failed(&row.at_once),
            after(row.right_after),
            format!("{:.2}", row.mended.hops),
            failed(&row.mended),
            paper.map_or(String::new(), |(_, hops)| format!("{hops}, none")),
            odd(&row.oddities),
        ]
    };
    table(
        &["vanish", "at once: hops", "failed", "right after", "then: hops", "failed", "Chord's paper", "odd"],
        &rows.iter().map(cells).collect::<Vec<_>>(),
    )
}

/// Peers come and go.
pub fn churn(rows: &[(&str, Churn)]) -> String {
    let paper = [(0.05, 0), (0.1, 0), (0.15, 2), (0.2, 5), (0.25, 6), (0.3, 8), (0.35, 16), (0.4, 15)];
    let cells = |(name, row): &(&str, Churn)| {
        let paper = paper.iter().find(|(rate, _)| (rate - row.rate).abs() < 0.001);
        vec![
            format!("{name}, {:.2}", row.rate),
            format!("{:.2}", row.fares.hops),
            format!("{:.1}", row.fares.failures()),
            row.fares.sent.to_string(),
            percent(row.right),
            paper.map_or(String::new(), |(_, failures)| failures.to_string()),
            odd(&row.oddities),
        ]
    };
    table(
        &["joins and leaves a second", "hops", "failed of 10,000", "sent", "tables right", "Chord's paper", "odd"],
        &rows.iter().map(cells).collect::<Vec<_>>(),
    )
}

/// Two halves.
pub fn partitions(rows: &[(&str, Partition)]) -> String {
    let cells = |(name, row): &(&str, Partition)| {
        vec![
            format!("{name}, {} s", row.apart.as_secs()),
            after(row.healed),
            after(row.helped),
            failed(&row.fares),
            row.fares.sent.to_string(),
            odd(&row.oddities),
        ]
    };
    table(
        &["apart", "one again after", "with one link from outside", "then failed", "of", "odd"],
        &rows.iter().map(cells).collect::<Vec<_>>(),
    )
}

/// Attacks.
pub fn attacks(rows: &[(&str, Harm)]) -> String {
    let cells = |(name, row): &(&str, Harm)| {
        let counters = &row.counters;
        let count = |name: &str, count: u64| (count > 0).then(|| format!("{name} {count}"));
        let counted = [
            count("malformed", counters.malformed),
            count("over budget", counters.over_budget),
            count("duplicates", counters.duplicates),
            count("out of hops", counters.out_of_hops),
            count("no route", counters.no_route),
            count("not authentic", counters.not_authentic),
            count("replayed", counters.replayed),
            count("unexpected", counters.unexpected),
            count("rerouted", counters.rerouted),
            count("sent again", counters.retried),
            count("ignored by tables", row.ignored),
        ];
        vec![
            format!("{name}: {}", row.name),
            percent(row.plain.rate()),
            percent(row.confirmed.rate()),
            format!("{:.2}", row.confirmed.hops),
            row.plain.twice.max(row.confirmed.twice).to_string(),
            format!("{} / {}", row.state.0, row.state.1),
            row.links.to_string(),
            row.victim.map_or(String::new(), |(bad, good)| format!("{bad} / {good}")),
            counted.into_iter().flatten().collect::<Vec<_>>().join(", "),
        ]
    };
    table(
        &[
            "attack",
            "delivered",
            "with confirmation",
            "hops",
            "twice",
            "largest table before / at the end, bytes",
            "most links",
            "victim's links: bad / good",
            "honest routers have counted",
        ],
        &rows.iter().map(cells).collect::<Vec<_>>(),
    )
}

fn percent(share: f64) -> String {
    if share == 1.0 { "100 %".into() } else { format!("{:.2} %", share * 100.0) }
}

fn failed(fares: &Fares) -> String {
    percent(1.0 - fares.rate()).replace("0.00 %", "none")
}

fn after(time: Option<Duration>) -> String {
    time.map_or("-".into(), |time| format!("{} s", time.as_secs()))
}

fn odd(oddities: &Oddities) -> String {
    let Oddities { without_link, restless, stranded, .. } = oddities;
    if without_link + restless + stranded == 0 {
        return String::new();
    }
    format!("{without_link} without link, {restless} restless, {stranded} stranded")
}
