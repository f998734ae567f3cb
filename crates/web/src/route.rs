//! The one table of routes. What stands here is served, described in `/openapi.json` and walked by the
//! tests; nothing else is served.
//!
//! A route names the verbs that its handler asks for, as types, so that a verb that does not exist does
//! not compile. It must not name a right in any other way: who has one is the policy's to say.

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use axum::routing::MethodRouter;

use crate::app::App;
use crate::error::Failure;
use crate::{api, auth, console, eve, frame, gate, oauth, public};

/// Who may knock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anyone. No credential is looked at.
    Public,
    /// Anyone; who shows a credential must show a right one, and is told more.
    Greeting,
    /// Anyone may open the socket, and then has to say who they are before anything else is heard; who
    /// shows a credential at once must show a right one.
    Socket,
    /// Whoever is known. What they may do is asked of the policy.
    Known,
}

/// What a request's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// There is none.
    Nothing,
    /// JSON, up to the ordinary limit.
    Json,
    /// The fields of a page's form.
    Form,
    /// A file's bytes, streamed, up to the limit of uploads.
    File,
}

/// One route.
pub struct Route {
    /// The HTTP method.
    pub method: &'static str,
    /// The path, with `{name}` for its variable parts.
    pub path: &'static str,
    /// What it does, in a line.
    pub summary: &'static str,
    /// Who may knock.
    pub access: Access,
    /// What its handler asks of the policy: any of these, by what is asked for.
    pub verbs: &'static [&'static str],
    /// What a request's body is.
    pub body: Shape,
    pub(crate) handler: fn() -> MethodRouter<App>,
}

/// Rows of the table: `METHOD "path" handler, Access, [Verbs], Body, "summary";`
macro_rules! routes {
    ($($method:ident $path:literal $handler:expr, $access:ident, [$($verb:ident),*], $body:ident, $summary:literal;)*) => {
        pub(crate) static ROUTES: &[$crate::route::Route] = &[$(
            $crate::route::Route {
                method: stringify!($method),
                path: $path,
                summary: $summary,
                access: $crate::route::Access::$access,
                verbs: &[$(<bailiwick_auth::access::verb::$verb as bailiwick_auth::access::Verb>::NAME),*],
                body: $crate::route::Shape::$body,
                handler: || axum::routing::on(axum::routing::MethodFilter::$method, $handler),
            },
        )*];
    };
}
pub(crate) use routes;

/// Every route.
pub fn table() -> impl Iterator<Item = &'static Route> {
    programs().chain(pages())
}

/// The console's pages, which no program is told of.
pub fn pages() -> impl Iterator<Item = &'static Route> {
    console::tables().flatten()
}

/// The routes for programs, as `/openapi.json` describes them.
pub fn programs() -> impl Iterator<Item = &'static Route> {
    let own = [public::ROUTES, eve::public::ROUTES];
    own.into_iter().chain(auth::tables()).chain(oauth::tables()).chain(api::tables()).chain(eve::tables()).flatten()
}

/// The service: every route behind its gate, all of it in the frame.
pub fn router(app: App) -> Router {
    let mut router = Router::new();
    for route in table() {
        let gate = from_fn_with_state((app.clone(), route), gate::pass);
        router = router.route(route.path, (route.handler)().route_layer(gate));
    }
    router
        .fallback(async || Failure::NoRoute)
        .method_not_allowed_fallback(async || Failure::NoMethod)
        .layer(from_fn_with_state(app.clone(), frame::hold))
        .layer(from_fn(frame::number))
        .with_state(app)
}
