//! What tests need and production must never contain: fakes of the outside world. Only ever a
//! dev-dependency, so it may unwrap.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod database;
pub mod eve;
pub mod fake_model;
pub mod far_side;
pub mod podman;
pub mod services;
pub mod token_endpoint;
