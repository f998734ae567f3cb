//! Exported logs, whole and spoilt, before two verifiers: ours, and one in Python that shares no code with
//! it. Both must come to the same verdict.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod fixture;
mod hostile;
mod table;
mod verdicts;
