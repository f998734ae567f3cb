//! What the layers cost: each figure as a ratio to a bare peer that is measured beside it, in one table.
//!
//! The server is the release binary, as its users run it. The peers are the least that could do the same
//! work: an HTTP route that runs the same statements without key, policy, scope and record; a writer that
//! commits rows in groups; `bwrap … true`. It never says that an absolute time is good or bad but where a
//! limit was promised in such words, and then only on the machine whose description stands beside it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a measurement that cannot be made has nothing better to do than to stop"
)]

mod audit;
mod bare;
mod gate;
mod growth;
mod load;
mod many;
mod people;
mod report;
mod sandbox;
mod server;
mod sessions;
mod size;
mod spaces;

use std::path::PathBuf;

use report::Report;

const USAGE: &str =
    "bailiwick-bench --server PATH [--postgres URL] [--accounts N] [--events N] [--only PART,…] [--out FILE]";

/// What to measure, and with what.
pub(crate) struct Options {
    /// The release binary.
    pub(crate) server: PathBuf,
    /// A PostgreSQL server: superuser's address.
    pub(crate) postgres: Option<String>,
    /// Accounts in the larger of two populations.
    pub(crate) accounts: usize,
    /// Events in the longest log.
    pub(crate) events: u64,
    only: Vec<String>,
    out: Option<PathBuf>,
}

impl Options {
    fn parse(arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut options = Self {
            server: PathBuf::new(),
            postgres: None,
            accounts: 10_000,
            events: 1_000_000,
            only: Vec::new(),
            out: None,
        };
        let mut arguments = arguments.peekable();
        while let Some(name) = arguments.next() {
            let value = arguments.next()?;
            match name.as_str() {
                "--server" => options.server = value.into(),
                "--postgres" => options.postgres = Some(value),
                "--accounts" => options.accounts = value.parse().ok()?,
                "--events" => options.events = value.parse().ok()?,
                "--only" => options.only = value.split(',').map(str::to_owned).collect(),
                "--out" => options.out = Some(value.into()),
                _ => return None,
            }
        }
        (!options.server.as_os_str().is_empty()).then_some(options)
    }

    fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|only| only == part)
    }
}

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    // The bare peer is a process of its own, as the server is.
    if arguments.first().is_some_and(|first| first == "bare") {
        return runtime().block_on(bare::serve(&arguments.split_off(1)));
    }
    let Some(options) = Options::parse(arguments.into_iter()) else {
        eprintln!("{USAGE}");
        std::process::exit(2);
    };
    let mut report = Report::new();
    runtime().block_on(async {
        if options.wants("size") {
            size::measure(&options, &mut report).await;
        }
        if options.wants("audit") {
            audit::measure(&options, &mut report).await;
        }
        if options.wants("sessions") {
            sessions::measure(&options, &mut report).await;
        }
        if options.wants("sandbox") {
            sandbox::measure(&options, &mut report).await;
            many::measure(&options, &mut report).await;
        }
        if options.wants("gate") {
            gate::measure(&options, &mut report).await;
        }
        if options.wants("growth") {
            growth::measure(&options, &mut report).await;
        }
        if options.wants("spaces") {
            spaces::measure(&options, &mut report).await;
        }
        if options.wants("people") {
            people::measure(&options, &mut report).await;
        }
    });
    report.print();
    if let Some(out) = &options.out {
        std::fs::write(out, report.markdown()).unwrap();
    }
    if report.missed() > 0 {
        std::process::exit(1);
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}
