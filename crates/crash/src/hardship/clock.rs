//! A clock that jumps an hour, to and fro, while fifty sessions run. Order is by number and not by time, so
//! nothing may break; what has an end in time must end, and not before the clock says so.

use std::path::Path;
use std::time::{Duration, Instant};

use bailiwick_types::Timestamp;
use serde_json::json;

use super::{must, none};
use crate::client::{Client, Sent};
use crate::history::Clock;
use crate::rounds::{Epoch, Plan};
use crate::world::{CAREFUL, text};

const HOUR: i64 = 3600;

fn jump(file: &Path, seconds: i64) -> Result<(), String> {
    // Renamed into place: the server reads it at any moment.
    let fresh = file.with_extension("new");
    std::fs::write(&fresh, seconds.to_string()).map_err(|error| error.to_string())?;
    std::fs::rename(&fresh, file).map_err(|error| error.to_string())
}

/// Jumps under load, then the ends of a key and of an approval.
///
/// # Errors
/// What was not as it must be.
pub async fn clock(plan: &Plan) -> Result<(), String> {
    let mut epoch = Epoch::begin(plan).await?;
    let file = epoch.site().path("clock");
    jump(&file, 0)?;
    epoch.site_mut().set("BAILIWICK_CLOCK_OFFSET", &file.to_string_lossy());
    let server = epoch.site().start().await?;
    let client = Client::new(&server.url)?;
    let life = epoch.life(client.clone(), plan.seed, 2);
    let load = life.clone();
    let load = tokio::spawn(async move { load.work().await });
    for seconds in [HOUR, 0, -HOUR, HOUR, -HOUR, 0, HOUR, -HOUR, 0] {
        jump(&file, seconds)?;
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    jump(&file, 0)?;
    load.await.map_err(|error| error.to_string())??;
    ends_of_keys(&client, &epoch, &file).await?;
    ends_of_approvals(&client, &epoch, &file).await?;
    jump(&file, 0)?;
    server.kill().await?;
    // An hour on, so that whatever was given a time by a clock that was ahead has come to its end.
    jump(&file, 2 * HOUR)?;
    epoch.history().facts().clock = Clock::Jumped;
    none(epoch.compare(plan.seed).await?)
}

/// A key lives until its end by the clock: dead an hour later, alive if that hour was an error.
async fn ends_of_keys(client: &Client, epoch: &Epoch, file: &Path) -> Result<(), String> {
    let admin = &epoch.world().people[0];
    let path = format!("/api/v1/admin/accounts/{}/users/{}/keys", admin.account, admin.name);
    let end = Timestamp::now().after(Duration::from_secs(600));
    let json = json!({ "name": "short", "expires_at": end });
    let made = client.done("POST", &path, &admin.key, Some(json)).await?;
    let key = text(&made, "key")?;
    for (seconds, expected) in [(0, 200), (HOUR, 401), (-HOUR, 200), (0, 200)] {
        jump(file, seconds)?;
        let status = client.get("/api/v1/spaces", &key).await?.status;
        must(status == expected, || format!("a key of ten minutes, {seconds} s on: {status}, not {expected}"))?;
    }
    Ok(())
}

/// An approval waits while its time is not over, and is over soon after the clock says so: a session does not
/// wait on for something that nobody can decide any more.
async fn ends_of_approvals(client: &Client, epoch: &Epoch, file: &Path) -> Result<(), String> {
    let who = &epoch.world().people[0];
    let headers = [("x-bailiwick-agent", CAREFUL), ("x-bailiwick-space", who.space.as_str())];
    let json = Some(json!({ "message": "talk-about-the-clock append-clock" }));
    let sent = Sent { key: &who.key, headers: &headers, json, ..Sent::default() };
    let answer = client.send("POST", "/eve/v1/session", sent).await?;
    let path = format!("/api/v1/sessions/{}", text(&answer.json(), "sessionId")?);
    until(client, &path, &who.key, "awaiting-approval", Duration::from_secs(10)).await?;
    // Back an hour: it waits on.
    jump(file, -HOUR)?;
    until(client, &path, &who.key, "awaiting-approval", Duration::from_secs(1)).await?;
    jump(file, HOUR)?;
    until(client, &path, &who.key, "idle", Duration::from_secs(45)).await
}

async fn until(client: &Client, path: &str, key: &str, wanted: &str, patience: Duration) -> Result<(), String> {
    let begun = Instant::now();
    loop {
        let row = client.done("GET", path, key, None).await?;
        if row["state"] == wanted {
            return Ok(());
        }
        let late = begun.elapsed() > patience;
        must(!late, || format!("a session is {} and not {wanted} after {patience:?}", row["state"]))?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
