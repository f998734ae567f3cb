//! The console: pages for people, over the same acts, permits and gate as the routes for programs. There
//! is no second way to anything: a page's handler asks for a permit and calls one act, as a route's does.
//!
//! No inline script or style, no page in a frame of somebody else, and nothing that needs a script to work.
//! What a form sends is believed only with the token that a page of this login was given (the gate looks).

mod agent;
mod application;
mod approval;
mod asset;
mod audit;
mod consent;
mod dashboard;
mod device;
mod factor;
mod frame;
mod key;
mod login;
mod network;
mod notification;
mod oidc;
mod passkey;
mod sandbox;
mod secret;
mod settings;
mod space;
mod usage;
mod user;

use crate::route::Route;

pub(crate) use frame::failed;

/// The rows of every page.
pub(crate) fn tables() -> impl Iterator<Item = &'static [Route]> {
    [
        dashboard::ROUTES,
        login::ROUTES,
        oidc::ROUTES,
        asset::ROUTES,
        space::ROUTES,
        agent::ROUTES,
        approval::ROUTES,
        user::ROUTES,
        device::ROUTES,
        application::ROUTES,
        consent::ROUTES,
        key::ROUTES,
        factor::ROUTES,
        passkey::ROUTES,
        secret::ROUTES,
        sandbox::ROUTES,
        network::ROUTES,
        notification::ROUTES,
        audit::ROUTES,
        usage::ROUTES,
        settings::ROUTES,
    ]
    .into_iter()
}

/// Whether a path is that of a page, by its first part.
pub(crate) fn is_page(path: &str) -> bool {
    const PAGES: [&str; 20] = [
        "",
        "login",
        "logout",
        "setup",
        "spaces",
        "agents",
        "approvals",
        "users",
        "devices",
        "applications",
        "keys",
        "secrets",
        "sandboxes",
        "network",
        "notifications",
        "2fa",
        "audit",
        "settings",
        "usage",
        "sessions",
    ];
    let first = path.trim_start_matches('/').split('/').next().unwrap_or("");
    // Beside this one page, `/oauth` is for programs.
    PAGES.contains(&first) || path == "/oauth/authorize"
}
