//! Clients that nobody here wrote, against the real server: the eve client, Chromium, and
//! a certified OpenID provider. What they do
//! stands in `conformance`; this only starts the two ends. `cargo xtask test` installs them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, missing_docs, unreachable_pub)]

mod console;
mod eve;
mod mcp;
mod oidc;
mod server;
