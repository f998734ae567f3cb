//! `/eve/v1`: running sessions in the protocol of eve's clients, stream version 26. The texts of
//! errors are that protocol's own, because its clients show and match them.
//!
//! Nothing here trusts what the original trusts: a session of somebody else is not there, no address
//! that a caller names is called, and nobody speaks for another.

mod info;
mod message;
pub(crate) mod public;
pub(crate) mod session;
pub(crate) mod stream;

use crate::route::Route;

/// The rows of every part but the public one.
pub(crate) fn tables() -> impl Iterator<Item = &'static [Route]> {
    [info::ROUTES, session::ROUTES, stream::ROUTES].into_iter()
}
