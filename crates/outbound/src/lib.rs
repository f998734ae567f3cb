//! The server's own calls: to models, to identity providers, for documents of clients, of webhooks. The only crate of the
//! server that opens a socket to the world for itself; the way out of sandboxes is the gate's (crate `egress`).
//!
//! Every call says what it may reach ([`Reach`]): the one origin that the operator wrote into the configuration,
//! which may be in a private network or on this machine, because that is where a company's own provider stands; or
//! the public network, by TLS, for whatever a provider's answer or a stranger names. A name is resolved once for a
//! connection, each address is judged, and the connection goes to one that passed: neither may become a way into
//! the operator's network. Nothing is ever called where no server is (link-local, where clouds keep their machines'
//! credentials, and multicast). No redirect is followed, no proxy of the environment is asked, and every call has
//! an end: to connect, to the first byte, between two pieces, of all of it, and of its length.
//!
//! What this does not defend against: a server that is reached by the operator's own word and is hostile can see
//! that it is asked, and when. The public addresses of this host count as public.

mod address;
mod client;
mod hooks;
mod lazy;
mod names;
mod reach;
mod transport;

pub use client::{Client, Patience};
pub use hooks::{Answered, HookSettings, Hooks};
pub use lazy::Lazy;
pub use reach::{Origin, OriginError, Plain, Reach};
pub use transport::{Answer, Bounds, Request, SendError, Transport, TransportError, Waited};
