//! The server's own calls, to identity providers and for documents of clients: one client, bounded in
//! everything.
//!
//! Only `https`, or `http` on the loopback where the operator configured it so; no redirects, no proxies of
//! the environment, no cookies. A host that the operator wrote into the configuration may be in a private
//! network, because that is where a company's own provider stands. A host that only a provider's answer names,
//! or a stranger, must have a public address, judged after the name was resolved, at each connection: neither
//! may become a way into the operator's network. Nothing is ever called in the networks where no provider is
//! (link-local, where clouds keep their machines' credentials, and multicast).
//!
//! What this does not defend against: a provider that is reached by the operator's own word and is hostile
//! can see that it is asked, and when.

mod address;
mod client;
mod lazy;

pub use client::{Client, ClientError, Patience};
pub use lazy::Lazy;
