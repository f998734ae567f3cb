//! Fail-points: named places at which a development build ends its own process as `kill -9` would.
//!
//! A crash between two writes is rare by chance and must be right every time, so the crash harness
//! (`cargo xtask crash`) makes it happen: `BAILIWICK_FAILPOINT=tool.effect:3` ends the process when it
//! comes to that place for the third time. No destructor runs and nothing is flushed.
//!
//! A release build has none of it: there [`reach`] is an empty function, and the variable is not read.

/// Every fail-point, in the order of a call's way. The harness goes through all of them, and fails if one
/// is never reached.
pub const ALL: &[&str] = &[
    "answer.made",
    "store.before_commit",
    "store.after_commit",
    "model.intent",
    "model.effect",
    "tool.intent",
    "tool.effect",
    "file.temporary",
    "file.renamed",
    "approval.decided",
];

/// Whether this build has fail-points.
pub const ENABLED: bool = cfg!(debug_assertions);

/// The variable that chooses a fail-point: its name, and after a colon at which time it acts.
pub const VARIABLE: &str = "BAILIWICK_FAILPOINT";

/// Ends the process if this fail-point was chosen, at the chosen time.
#[inline]
pub fn reach(name: &'static str) {
    #[cfg(debug_assertions)]
    chosen::reach(name);
    #[cfg(not(debug_assertions))]
    let _ = name;
}

#[cfg(debug_assertions)]
mod chosen {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    struct Chosen {
        name: String,
        left: AtomicU64,
    }

    pub(super) fn reach(name: &'static str) {
        debug_assert!(super::ALL.contains(&name), "a fail-point that is not in the list: {name}");
        // Read once: it is a matter of the process, not of the moment.
        static CHOSEN: OnceLock<Option<Chosen>> = OnceLock::new();
        let chosen = CHOSEN.get_or_init(|| {
            let (name, times) = parse(&std::env::var(super::VARIABLE).ok()?)?;
            Some(Chosen { name, left: AtomicU64::new(times) })
        });
        if let Some(chosen) = chosen
            && chosen.name == name
            && chosen.left.fetch_sub(1, Ordering::AcqRel) == 1
        {
            end();
        }
    }

    /// `name` or `name:times`. What is no number is no choice.
    pub(super) fn parse(text: &str) -> Option<(String, u64)> {
        let (name, times) = text.split_once(':').unwrap_or((text, "1"));
        let times = times.parse::<u64>().ok().filter(|times| *times > 0)?;
        super::ALL.contains(&name).then(|| (name.to_owned(), times))
    }

    fn end() -> ! {
        let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
        // The signal is on its way; nothing may happen before it comes.
        loop {
            std::thread::park();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_release_build_has_none() {
        assert_eq!(ENABLED, cfg!(debug_assertions));
        // Not chosen here, so this returns, in every build.
        ALL.iter().for_each(|name| reach(name));
        let source = include_str!("failpoint.rs");
        let gate = format!("#[cfg({})]\nmod chosen", "debug_assertions");
        assert!(source.contains(&gate), "what ends a process must not be compiled into a release");
    }

    #[cfg(debug_assertions)]
    #[test]
    fn what_is_no_choice_chooses_nothing() {
        assert_eq!(chosen::parse("tool.effect:3"), Some(("tool.effect".to_owned(), 3)));
        assert_eq!(chosen::parse("tool.effect"), Some(("tool.effect".to_owned(), 1)));
        for text in ["", "tool.effect:0", "tool.effect:x", "no.such.point"] {
            assert_eq!(chosen::parse(text), None, "{text}");
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names = ALL.to_vec();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ALL.len());
    }
}
