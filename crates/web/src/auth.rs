//! `/api/auth`: people sign in, out, and change how they do. One file a subject, as under `/api/v1`; errors
//! are `{code, message}`.

mod login;
mod password;
mod setup;

use crate::route::Route;

/// The rows of every subject.
pub(crate) fn tables() -> impl Iterator<Item = &'static [Route]> {
    [login::ROUTES, password::ROUTES, setup::ROUTES].into_iter()
}
