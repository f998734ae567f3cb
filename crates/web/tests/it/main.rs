//! The edge, driven over real sockets: two accounts, each server with its own data and port.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs, unreachable_pub)]

mod admin;
mod audit;
mod authenticator;
mod console;
mod document;
mod doors;
mod eve;
mod jwt;
mod limits;
mod metadata_document;
mod oauth;
mod oidc;
mod oidc_login;
mod pages;
mod passkey;
mod proof;
mod provider;
mod quota;
mod secret;
mod sign_in;
mod socket;
mod space;
mod support;
mod tenants;
mod trusted;
mod walk;
