//! The orderly end under load: what was acknowledged holds, and what ran goes on after the restart.

use std::time::Duration;

use super::{must, none};
use crate::client::Client;
use crate::rounds::{Epoch, Plan};

/// The server gives requests and turns ten seconds, and then ends.
const ENDED: Duration = Duration::from_secs(20);

/// SIGTERM in the middle of fifty sessions.
///
/// # Errors
/// What was not as it must be.
pub async fn drain(plan: &Plan) -> Result<(), String> {
    let epoch = Epoch::begin(plan).await?;
    let server = epoch.site().start().await?;
    let life = epoch.life(Client::new(&server.url)?, plan.seed, 100);
    let load = life.clone();
    let load = tokio::spawn(async move { load.work().await });
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let before = epoch.history().facts().sessions.len();
    must(before >= 10, || format!("only {before} sessions were there: the load was none"))?;
    let (status, took) = server.terminate(ENDED).await?;
    must(status.success(), || format!("the server ended with {status} after {took:?}"))?;
    life.end();
    load.await.map_err(|error| error.to_string())??;
    none(epoch.compare(plan.seed).await?)
}
