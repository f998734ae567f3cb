//! The crate against fakes of the model APIs that are as strict as the real ones.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod anthropic;
mod bounds;
mod chat;
mod config;
mod responses;
mod retry;
mod scripted;
mod secrets;
mod support;
