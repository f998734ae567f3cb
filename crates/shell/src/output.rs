//! What came of a command, and how to tell a whole result from a cut one.

use crate::receipt::Confinement;

/// Which of the two output streams bytes came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// With this exit code.
    Exited(i32),
    /// At the deadline. What it printed and wrote before is kept.
    TimedOut,
    /// Because the caller said so.
    Canceled,
    /// At a limit of [`crate::ShellLimits`]; the text says which.
    LimitReached(String),
}

/// The outcome of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// How it ended.
    pub status: Status,
    /// Standard output, cut at [`crate::ShellLimits::output_bytes`].
    pub stdout: Vec<u8>,
    /// Standard error, cut likewise.
    pub stderr: Vec<u8>,
    /// What was cut short although the command may have ended with 0. Must be
    /// shown to whoever acts on the result.
    pub warnings: Vec<String>,
    /// What the command ran in.
    pub confinement: Confinement,
}

impl Output {
    /// Whether the command ended with 0 and nothing was cut.
    #[must_use]
    pub fn succeeded(&self) -> bool {
        self.status == Status::Exited(0) && self.warnings.is_empty()
    }

    pub(crate) fn warn(&mut self, warning: String) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// Turns the interpreter's own remarks about caps into warnings: some
    /// built-in commands stop early, say so on standard error, and let the
    /// pipeline end with 0. A command may print such words itself; it then
    /// only makes its own result look worse.
    pub(crate) fn warn_of_caps(&mut self) {
        let text = String::from_utf8_lossy(&self.stderr).into_owned();
        for line in text.lines().filter(|line| tells_of_cap(line)).take(MAX_CAP_LINES) {
            self.warn(line.chars().take(MAX_CAP_LINE).collect());
        }
    }
}

const MAX_CAP_LINES: usize = 8;
const MAX_CAP_LINE: usize = 300;

fn tells_of_cap(line: &str) -> bool {
    let line = line.to_ascii_lowercase();
    let has = |words: &str| line.contains(words);
    has("output truncated")
        || has("may be truncated")
        || has("output capped")
        || has("bashkit dd limit")
        || has("limit exceeded")
        || has("too large (limit")
        || (has("limit") && (has("reached") || has("exceed")))
        || (has("maximum") && has("exceeded"))
}

#[cfg(test)]
mod tests {
    use super::tells_of_cap;

    #[test]
    fn remarks_about_caps_are_known() {
        for line in [
            "yes: output limit (10000 lines) exceeded; output truncated",
            "seq: line limit (100000) exceeded; output truncated",
            "sed: warning: branch/label loop limit (1000) reached on line 1; output may be truncated",
            "dd: stopped after 67108864 bytes (bashkit dd limit)",
            "bash: maximum function depth exceeded (16)",
            "awk: output limit exceeded (max 10MB)",
        ] {
            assert!(tells_of_cap(line), "{line}");
        }
        for line in ["", "cat: x: No such file or directory", "warning: unlimited", "maximum: 3"] {
            assert!(!tells_of_cap(line), "{line}");
        }
    }
}
