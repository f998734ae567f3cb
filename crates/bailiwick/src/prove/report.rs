//! What was tried, and what came of it: a line for each group of probes, and a sum.

use std::time::Duration;

use serde_json::{Value, json};

use crate::out::{self, Format, Style};

/// What is shown of one group to a person: the first few say what the rest do.
const SHOWN: usize = 12;

/// Probes of one kind.
#[derive(Default)]
struct Group {
    name: String,
    probes: usize,
    controls: usize,
    crossings: Vec<String>,
    faults: Vec<String>,
}

/// What is known so far.
pub(super) struct Report {
    format: Format,
    groups: Vec<Group>,
    notes: Vec<String>,
}

impl Report {
    pub(super) fn new(format: Format) -> Self {
        Self { format, groups: Vec::new(), notes: Vec::new() }
    }

    fn group(&mut self, name: &str) -> &mut Group {
        let at = self.groups.iter().position(|group| group.name == name).unwrap_or_else(|| {
            self.groups.push(Group { name: name.to_owned(), ..Group::default() });
            self.groups.len() - 1
        });
        &mut self.groups[at]
    }

    /// A probe was sent.
    pub(super) fn probed(&mut self, group: &str) {
        self.group(group).probes += 1;
    }

    /// Something of A reached B.
    pub(super) fn crossing(&mut self, group: &str, what: &str) {
        self.group(group).crossings.push(out::brief(what, 300));
    }

    /// The server failed, or a control did not hold: the probes of the group prove nothing.
    pub(super) fn fault(&mut self, group: &str, what: &str) {
        self.group(group).faults.push(out::brief(what, 300));
    }

    /// Whether the same works for those who may. `what` says what did not.
    pub(super) fn control(&mut self, group: &str, held: bool, what: impl FnOnce() -> String) {
        self.group(group).controls += 1;
        if !held {
            self.fault(group, &format!("the control did not hold: {}", what()));
        }
    }

    /// Something that was not tried, and why.
    pub(super) fn note(&mut self, text: String) {
        if !self.notes.contains(&text) {
            self.notes.push(text);
        }
    }

    pub(super) fn probes(&self) -> usize {
        self.groups.iter().map(|group| group.probes).sum()
    }

    pub(super) fn crossings(&self) -> usize {
        self.groups.iter().map(|group| group.crossings.len()).sum()
    }

    pub(super) fn faults(&self) -> usize {
        self.groups.iter().map(|group| group.faults.len() + usize::from(group.unproven())).sum()
    }

    /// Whether there were probes, and not one of them shows a way.
    pub(super) fn held(&self) -> bool {
        self.probes() > 0 && self.crossings() == 0 && self.faults() == 0
    }

    /// Says it all.
    pub(super) fn finish(&self, url: &str, ended: bool, took: Duration) {
        if self.format == Format::Json {
            return out::json(&self.as_json(url, ended, took));
        }
        for group in &self.groups {
            let good = group.crossings.is_empty() && group.faults.is_empty() && !group.unproven();
            let mark = if good { out::paint(Style::Good, "ok") } else { out::paint(Style::Bad, "no") };
            let (name, probes, controls) = (&group.name, group.probes, group.controls);
            out::line(&format!("{mark}  {name}: {probes} probes, {controls} controls"));
            for crossing in group.crossings.iter().take(SHOWN) {
                out::line(&out::paint(Style::Bad, &format!("    CROSSING {crossing}")));
            }
            for fault in group.faults.iter().take(SHOWN) {
                out::line(&out::paint(Style::Warn, &format!("    {fault}")));
            }
            let more = group.crossings.len().saturating_sub(SHOWN) + group.faults.len().saturating_sub(SHOWN);
            if more > 0 {
                out::line(&out::paint(Style::Dim, &format!("    and {more} more of the kind; --json shows all")));
            }
            if group.unproven() {
                out::line(&out::paint(Style::Warn, "    nothing shows that these probes could have found anything"));
            }
        }
        for note in &self.notes {
            out::line(&out::paint(Style::Dim, &out::clean(&format!("--  {note}"))));
        }
        let sum = format!("{} probes, {} crossings", self.probes(), self.crossings());
        let (style, rest) = match (self.held() && ended, self.faults(), ended) {
            (true, ..) => (Style::Good, String::new()),
            (false, _, false) => (Style::Bad, ", not ended".to_owned()),
            (false, faults, true) => (Style::Bad, format!(", {faults} faults")),
        };
        out::line(&out::paint(style, &format!("{sum}{rest}, in {:.1} s", took.as_secs_f64())));
    }

    fn as_json(&self, url: &str, ended: bool, took: Duration) -> Value {
        let groups: Vec<Value> = self
            .groups
            .iter()
            .map(|group| {
                json!({
                    "name": group.name, "probes": group.probes, "controls": group.controls,
                    "crossings": group.crossings, "faults": group.faults, "unproven": group.unproven(),
                })
            })
            .collect();
        json!({
            "ok": self.held() && ended, "url": url, "ended": ended, "probes": self.probes(),
            "crossings": self.crossings(), "faults": self.faults(), "groups": groups, "notes": self.notes,
            "ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        })
    }
}

impl Group {
    /// Probes without a single control show nothing.
    fn unproven(&self) -> bool {
        self.probes > 0 && self.controls == 0
    }
}
