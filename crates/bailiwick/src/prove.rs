//! `bailiwick prove-isolation`: two throw-away accounts on a running server, and every way over HTTP, and from inside
//! a sandbox, in which the one could reach the other.
//!
//! B asks for A's things by every route that the server describes, in every place that an id can stand.
//! A probe holds if nothing of A came back and the answer is the one about things that never were. It
//! counts only beside its positive control: A itself, asking the same, is answered. A server that
//! refuses everybody proves nothing, and does not pass.

mod example;
mod paths;
mod places;
mod probe;
mod report;
mod routes;
mod sandboxes;
mod streams;
mod tenant;

use std::time::Instant;

use reqwest::Method;
use tokio::signal::unix::{SignalKind, signal};

use crate::client::{Client, Given, Settings};
use crate::failure::Failure;
use crate::out::{self, Format};
use probe::Prober;
use report::Report;
use tenant::{Names, Tenant};

/// The proof could not be made, or did not come out well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProveError {
    #[error("no random bytes for names")]
    Entropy,
    #[error("the signals cannot be listened for")]
    Signal(#[source] std::io::Error),
    #[error("stopped before its end; the accounts that were made are deleted")]
    Stopped,
    #[error("the server describes no routes: /openapi.json has no paths")]
    NoRoutes,
    #[error("{crossings} crossings and {faults} faults in {probes} probes")]
    DidNotHold {
        /// What reached the other account.
        crossings: usize,
        /// Controls that did not hold, and failures of the server.
        faults: usize,
        /// Of how many.
        probes: usize,
    },
}

/// Runs the command.
pub(crate) async fn run(given: Given, format: Format) -> Result<(), Failure> {
    let began = Instant::now();
    // Two accounts are to be deleted at the end, whoever has stopped reading.
    out::go_on_unread();
    // The operator as such: an account and a user in the settings would make them somebody's deputy.
    let mut settings = Settings::load(given)?;
    (settings.account, settings.user) = (None, None);
    let operator = Client::new(&settings)?;
    let names = Names::new()?;
    let mut report = Report::new(format);
    let mut terminate = signal(SignalKind::terminate()).map_err(ProveError::Signal)?;
    let played = tokio::select! {
        played = play(&operator, &settings, &names, &mut report) => played,
        _ = terminate.recv() => Err(ProveError::Stopped.into()),
        _ = tokio::signal::ctrl_c() => Err(ProveError::Stopped.into()),
    };
    // Whatever came of it, nothing is left behind. An account that is gone already is no news.
    for account in names.made() {
        let gone = operator.raw(&Method::DELETE, &format!("/api/v1/admin/accounts/{account}"), None).await;
        let status = gone.map(|answer| answer.status.as_u16());
        if !matches!(status, Ok(200..=299 | 404)) {
            report.fault("clearing up", &format!("the account {account} could not be deleted; delete it yourself"));
        }
    }
    report.finish(operator.url(), played.is_ok(), began.elapsed());
    played?;
    if report.held() {
        return Ok(());
    }
    Err(ProveError::DidNotHold { crossings: report.crossings(), faults: report.faults(), probes: report.probes() }
        .into())
}

async fn play(operator: &Client, settings: &Settings, names: &Names, report: &mut Report) -> Result<(), Failure> {
    let routes = routes::described(operator).await?;
    let a = Tenant::make(operator, settings, names, "a", report).await?;
    let b = Tenant::make(operator, settings, names, "b", report).await?;
    let mut prober = Prober::new(a, b, report);
    prober.b_is_somebody().await?;
    streams::probe(&mut prober).await?;
    sandboxes::probe(&mut prober).await?;
    let before = prober.a.snapshot().await?;
    routes::probe(&mut prober, &routes).await?;
    places::probe(&mut prober).await?;
    paths::probe(&mut prober).await?;
    let after = prober.a.snapshot().await?;
    prober.unchanged(&before, &after);
    routes::control(&mut prober, &routes, operator, names).await
}
