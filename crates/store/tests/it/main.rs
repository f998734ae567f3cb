//! The store's suite. What is promised here holds on every database that the store can stand on; only
//! the tests that look into a file of SQLite's are for that one alone.
//!
//! No principal is made by hand: each test has a server's directory of its own with two tenants, and its
//! callers show keys to the same walk as in a running server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod account;
mod agent;
mod application;
mod approval;
mod data_key;
mod engine;
mod event;
mod fixture;
mod hood;
mod job;
mod key;
mod notification;
mod passkey;
mod postgres;
mod proof;
mod quota;
mod reopen;
mod retire;
mod secret;
mod session;
mod space;
mod tamper;
mod turn;
mod user;

use bailiwick_testkit::database::Postgres;
use fixture::Fixture;

/// A database that the suite runs on.
#[derive(Debug, Clone)]
enum Backend {
    /// One file an account.
    Sqlite,
    /// One database for all, with row-level security.
    Postgres(Box<Postgres>),
}

/// Runs a test once on each database, each time in a fresh directory with two tenants. PostgreSQL is one of
/// them where `cargo xtask test` (or `cargo xtask postgres COMMAND`) has started one.
async fn on_every_backend(test: impl AsyncFn(Fixture)) {
    test(Fixture::new(Backend::Sqlite).await).await;
    if let Some(fresh) = Postgres::fresh() {
        test(Fixture::new(Backend::Postgres(Box::new(fresh))).await).await;
    }
}
