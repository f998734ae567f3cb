//! `/api/auth`: people sign in, out, and change how they do. One file a subject, as under `/api/v1`; errors
//! are `{code, message}`.

pub(crate) mod factor;
pub(crate) mod login;
pub(crate) mod passkey;
pub(crate) mod password;
pub(crate) mod provider;
pub(crate) mod setup;

use crate::route::Route;

/// The rows of every subject.
pub(crate) fn tables() -> impl Iterator<Item = &'static [Route]> {
    [login::ROUTES, factor::ROUTES, passkey::ROUTES, password::ROUTES, provider::ROUTES, setup::ROUTES].into_iter()
}
