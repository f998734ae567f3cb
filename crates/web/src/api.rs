//! `/api/v1`: the control plane. One file a resource, named as in the store: request and response
//! types, handlers, and the resource's rows of the table. A handler asks for the right first, then
//! reads the body, calls one act, and renders.

mod account;
mod agent;
mod application;
pub(crate) mod approval;
pub(crate) mod audit;
mod client;
mod device;
mod file;
mod grant;
mod job;
pub(crate) mod key;
pub(crate) mod notification;
mod plan;
mod policy;
mod proof;
pub(crate) mod quota;
pub(crate) mod sandbox;
pub(crate) mod secret;
pub(crate) mod session;
mod socket;
pub(crate) mod space;
pub(crate) mod stream;
mod system;
pub(crate) mod usage;
pub(crate) mod user;
mod vault;

use crate::route::Route;

/// The rows of every resource.
pub(crate) fn tables() -> impl Iterator<Item = &'static [Route]> {
    [
        system::ROUTES,
        account::ROUTES,
        quota::ROUTES,
        usage::ROUTES,
        user::ROUTES,
        vault::ROUTES,
        key::ROUTES,
        device::ROUTES,
        application::ROUTES,
        client::ROUTES,
        policy::ROUTES,
        agent::ROUTES,
        secret::ROUTES,
        notification::ROUTES,
        space::ROUTES,
        grant::ROUTES,
        plan::ROUTES,
        file::ROUTES,
        session::ROUTES,
        job::ROUTES,
        sandbox::ROUTES,
        approval::ROUTES,
        audit::ROUTES,
        stream::ROUTES,
        socket::ROUTES,
    ]
    .into_iter()
}
