//! The store's suite. What is promised here holds on every database that the store can stand on; only
//! the tests that look into a file of SQLite's are for that one alone.
//!
//! No principal is made by hand: each test has a server's directory of its own with two tenants, and its
//! callers show keys to the same walk as in a running server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod account;
mod agent;
mod approval;
mod engine;
mod event;
mod fixture;
mod key;
mod reopen;
mod session;
mod space;
mod tamper;
mod turn;
mod user;

use fixture::Fixture;

/// A database that the suite runs on.
#[derive(Debug, Clone, Copy)]
enum Backend {
    /// One file an account.
    Sqlite,
}

const BACKENDS: [Backend; 1] = [Backend::Sqlite];

/// Runs a test once on each database, each time in a fresh directory with two tenants.
async fn on_every_backend(test: impl AsyncFn(Fixture)) {
    for backend in BACKENDS {
        test(Fixture::new(backend).await).await;
    }
}
