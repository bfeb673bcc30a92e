//! Runs the overlay in virtual time and prints what was measured: tables in Markdown on stdout, progress on stderr.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use pmesh::overlay::routing::KademliaConfig;
use pmesh::overlay::routing::chord::ChordConfig;
use pmesh_simulation::plot::{Line, points, svg};
use pmesh_simulation::report;
use pmesh_simulation::scenario::hops::Effort;
use pmesh_simulation::scenario::{attacks, churn, hops};
use pmesh_simulation::world::{Settings, Table};

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum What {
    /// How far messages go, and what the network costs.
    Hops,
    /// Peers vanish, come and go; the network falls apart and heals.
    Churn,
    /// Peers do harm.
    Attacks,
    /// All of these.
    All,
    /// Only the plot of hops, from the tables in a text.
    Plot,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Routing {
    Kademlia,
    Chord,
}

#[derive(Debug, Parser)]
#[command(version, about = "The overlay of pmesh in virtual time")]
struct Args {
    /// What is measured.
    what: What,
    /// Peers.
    #[arg(long, default_value_t = 1000)]
    nodes: usize,
    /// One routing only.
    #[arg(long)]
    routing: Option<Routing>,
    /// What all that is random follows from; else the environment variable PMESH_SEED, or 1.
    #[arg(long)]
    seed: Option<u64>,
    /// Messages in each measurement.
    #[arg(long, default_value_t = 2000)]
    messages: usize,
    /// Successors of a peer on the ring, if not as many as by default.
    #[arg(long)]
    successors: Option<usize>,
    /// Neighbours that a peer with buckets looks for, if not as many as by default.
    #[arg(long)]
    target: Option<usize>,
    /// Peers that a router remembers, if not as many as by default: what it remembers is most of its memory.
    #[arg(long)]
    remembered_peers: Option<usize>,
    /// Messages that a router remembers, if not as many as by default.
    #[arg(long)]
    remembered_messages: Option<usize>,
    /// Put rings together as they should be, instead of letting them grow.
    #[arg(long)]
    laid_out: bool,
    /// Only this size, and not smaller ones before.
    #[arg(long)]
    only: bool,
    /// The text with the tables that are plotted.
    #[arg(long, default_value = "docs/overlay.md")]
    from: PathBuf,
    /// Where the plot goes.
    #[arg(long, default_value = "docs/hops.svg")]
    svg: PathBuf,
}

impl Args {
    fn settings(&self) -> Vec<Settings> {
        let seed = pmesh_simulation::seed(self.seed);
        let mut chord = ChordConfig::default();
        chord.successors = self.successors.unwrap_or(chord.successors);
        let mut kademlia = KademliaConfig::default();
        kademlia.target = self.target.unwrap_or(kademlia.target);
        [(Routing::Kademlia, Table::Kademlia(kademlia)), (Routing::Chord, Table::Chord(chord))]
            .into_iter()
            .filter(|(routing, _)| self.routing.is_none_or(|wanted| wanted == *routing))
            .map(|(_, table)| {
                let mut settings = Settings::new(table, seed);
                let router = &mut settings.router;
                router.remembered_peers = self.remembered_peers.unwrap_or(router.remembered_peers);
                router.remembered_messages = self.remembered_messages.unwrap_or(router.remembered_messages);
                settings
            })
            .collect()
    }

    fn hops(&self) {
        let smaller = [100, 1_000, 10_000, 100_000].into_iter().filter(|size| *size < self.nodes && !self.only);
        let sizes: Vec<usize> = smaller.chain([self.nodes]).collect();
        let mut rows = Vec::new();
        for settings in self.settings() {
            for &nodes in &sizes {
                let idle = Duration::from_secs(if nodes > 20_000 { 60 } else { 120 });
                let (messages, joins, laid_out) = (self.messages, (nodes / 50).clamp(20, 200), self.laid_out);
                let effort = Effort { messages, joins, idle, laid_out };
                rows.push((settings.table.name(), hops::run(settings.clone(), nodes, effort)));
            }
        }
        println!("{}", report::hops(&rows));
    }

    fn plot(&self) -> std::io::Result<()> {
        let text = std::fs::read_to_string(&self.from)?;
        let line = |name, colour| Line { name, colour, points: points(&text, name) };
        let half_log = |peers: f64| (peers, peers.log2() / 2.0);
        let half = Line { name: "half of log2 N", colour: "#999", points: [1e2, 1e3, 1e4, 1e5].map(half_log).to_vec() };
        std::fs::write(&self.svg, svg(&[line("Kademlia", "#1f77b4"), line("Chord", "#d62728"), half]))
    }

    fn churn(&self) {
        let (mut failed, mut gone, mut apart) = (Vec::new(), Vec::new(), Vec::new());
        for settings in self.settings() {
            let name = settings.table.name();
            for share in [0.0, 0.1, 0.2, 0.3, 0.4, 0.5] {
                failed.push((name, churn::failures(settings.clone(), self.nodes, share, self.messages)));
            }
            for rate in [0.05, 0.1, 0.2, 0.4] {
                let time = Duration::from_secs(self.messages as u64 / 10);
                gone.push((name, churn::continuous(settings.clone(), self.nodes, rate, time, false)));
            }
            let time = Duration::from_secs(120);
            apart.push((name, churn::partition(settings, self.nodes, time, self.messages)));
        }
        println!("{}\n{}\n{}", report::failures(&failed), report::churn(&gone), report::partitions(&apart));
    }

    fn attacks(&self) {
        let mut rows = Vec::new();
        for settings in self.settings() {
            let name = settings.table.name();
            for attack in attacks::ATTACKS {
                rows.push((name, attacks::attack(settings.clone(), self.nodes, attack, self.messages)));
            }
            rows.extend(attacks::eclipse(settings, self.nodes, self.messages).map(|harm| (name, harm)));
        }
        println!("{}", report::attacks(&rows));
    }
}

fn main() -> std::io::Result<()> {
    let args = Args::parse();
    if matches!(args.what, What::Hops | What::All) {
        args.hops();
    }
    if matches!(args.what, What::Churn | What::All) {
        args.churn();
    }
    if matches!(args.what, What::Attacks | What::All) {
        args.attacks();
    }
    if args.what == What::Plot {
        args.plot()?;
    }
    Ok(())
}
