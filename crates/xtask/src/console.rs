//! The one place that prints.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "these tools are run by a person in a terminal")]

/// A line for the one who runs this.
pub(crate) fn say(line: &str) {
    println!("{line}");
}

/// A line about something that went wrong.
pub(crate) fn fail(line: &str) {
    eprintln!("{line}");
}
