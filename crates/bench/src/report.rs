//! The table.

use std::fmt::Write as _;
use std::time::Duration;

/// What a figure must be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Target {
    /// Not more.
    AtMost(f64),
    /// Not less.
    AtLeast(f64),
    /// For the reader.
    None,
}

struct Line {
    what: String,
    ours: String,
    peer: String,
    ratio: f64,
    target: Target,
}

/// Lines, in the order in which they were measured.
pub(crate) struct Report {
    lines: Vec<Line>,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self { lines: Vec::new() }
    }

    /// A figure, what it is compared with, and their ratio.
    pub(crate) fn add(
        &mut self,
        what: impl Into<String>,
        ours: impl Into<String>,
        peer: impl Into<String>,
        ratio: f64,
        target: Target,
    ) {
        let line = Line { what: what.into(), ours: ours.into(), peer: peer.into(), ratio, target };
        println!("{}", line.text());
        self.lines.push(line);
    }

    pub(crate) fn print(&self) {
        println!();
        for line in &self.lines {
            println!("{}", line.text());
        }
        println!("{} of {} targets met", self.lines.iter().filter(|line| line.has_target() && line.met()).count(), {
            self.lines.iter().filter(|line| line.has_target()).count()
        });
    }

    pub(crate) fn missed(&self) -> usize {
        self.lines.iter().filter(|line| !line.met()).count()
    }

    pub(crate) fn markdown(&self) -> String {
        let mut text = "| what | ours | beside it | ratio | target | |\n|---|---|---|---|---|---|\n".to_owned();
        for line in &self.lines {
            let met = match (line.has_target(), line.met()) {
                (false, _) => "",
                (true, true) => "met",
                (true, false) => "**missed**",
            };
            let _ = writeln!(
                text,
                "| {} | {} | {} | {} | {} | {met} |",
                line.what,
                line.ours,
                line.peer,
                // Without a peer there is no ratio.
                if line.peer.is_empty() { String::new() } else { format!("{:.2}", line.ratio) },
                line.target.text()
            );
        }
        text
    }
}

impl Target {
    fn text(self) -> String {
        match self {
            Self::AtMost(limit) => format!("≤ {limit}"),
            Self::AtLeast(limit) => format!("≥ {limit}"),
            Self::None => String::new(),
        }
    }
}

impl Line {
    fn has_target(&self) -> bool {
        !matches!(self.target, Target::None)
    }

    fn met(&self) -> bool {
        match self.target {
            Target::AtMost(limit) => self.ratio <= limit,
            Target::AtLeast(limit) => self.ratio >= limit,
            Target::None => true,
        }
    }

    fn text(&self) -> String {
        let mark = if !self.has_target() {
            "      "
        } else if self.met() {
            "met   "
        } else {
            "MISSED"
        };
        format!(
            "{mark} {:<66} {:>22} {:>26} {:>9.2} {}",
            self.what,
            self.ours,
            self.peer,
            self.ratio,
            self.target.text()
        )
    }
}

/// A rate, for people.
pub(crate) fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

pub(crate) fn per_second(rate: f64) -> String {
    format!("{rate:.0}/s")
}

pub(crate) fn micros(time: Duration) -> String {
    format!("{:.0} µs", time.as_secs_f64() * 1e6)
}

/// The middle of what was measured.
pub(crate) fn median(times: &mut [Duration]) -> Duration {
    times.sort();
    times[times.len() / 2]
}
