//! The binary as a person, a script and an init system meet it: started as a process, talked to by its
//! own client, ended by signals.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod attack;
mod audit;
mod chat;
mod client;
mod configuration;
mod container;
mod crash;
mod demo;
mod gate;
mod job;
mod notification;
mod prove;
mod sandbox;
mod serve;
mod storage;
mod support;
mod vault;
mod walls;
mod web_fetch;
