//! A disk that is full, and one that cannot be written at all. Both need root, to mount something.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use super::{Mounted, must, none};
use crate::client::{Client, Sent};
use crate::process::{Begun, Site};
use crate::rounds::{Epoch, Plan, open_to_others};

/// Fills the data directory's disk, and makes room again: clear answers, no panic, and no restart needed.
///
/// # Errors
/// What was not as it must be.
pub async fn full_disk(plan: &Plan) -> Result<(), String> {
    let dir = tempfile::tempdir().map_err(|error| error.to_string())?;
    open_to_others(dir.path())?;
    let data = dir.path().join("data");
    let _mounted = Mounted::new(&data, &["-t", "tmpfs", "-o", "size=64m,mode=711", "tmpfs"])?;
    let epoch = Epoch::within(plan, dir).await?;
    let server = epoch.site().start().await?;
    let client = Client::new(&server.url)?;
    let ballast = data.join("ballast");
    fill(&ballast)?;
    let refused = hindered(&client, &epoch).await;
    std::fs::remove_file(&ballast).map_err(|error| error.to_string())?;
    refused?;
    recovers(&client, &epoch).await?;
    // And a whole load on it, to see that nothing stayed behind.
    epoch.life(client, plan.seed, 1).work().await?;
    server.kill().await?;
    none(epoch.compare(plan.seed).await?)
}

fn fill(ballast: &Path) -> Result<(), String> {
    use std::io::Write;
    let mut file = std::fs::File::create(ballast).map_err(|error| error.to_string())?;
    for size in [1 << 20, 4096, 64] {
        while file.write(&vec![7; size]).is_ok_and(|written| written > 0) {}
    }
    Ok(())
}

/// Asks for changes while there is no room: none is acknowledged, each is refused in clear words, and what
/// needs no room goes on.
async fn hindered(client: &Client, epoch: &Epoch) -> Result<(), String> {
    let who = &epoch.world().people[0];
    let file = format!("/api/v1/spaces/{}/files/content?path=large.bin", who.space);
    for round in 0..4 {
        let large = Sent { key: &who.key, bytes: Some(vec![1; 2_000_000]), ..Sent::default() };
        let answer = client.send("PUT", &file, large).await?;
        must(matches!(answer.status, 503 | 507), || format!("a file on a full disk: {}", answer.shown()))?;
        // The database has a little room of its own before it needs more.
        for number in 0..40 {
            let name = format!("{round}-{number} {}", "x".repeat(180));
            let json = json!({ "name": name, "description": "y".repeat(1_900) });
            let sent = Sent { key: &who.key, json: Some(json), ..Sent::default() };
            let answer = client.send("POST", "/api/v1/spaces", sent).await?;
            let clear = answer.is_good() || matches!(answer.status, 503 | 507);
            must(clear, || format!("a space on a full disk: {}", answer.shown()))?;
            if !answer.is_good() {
                break;
            }
        }
    }
    let health = client.get("/health", "").await?;
    must(health.is_good(), || format!("health on a full disk: {}", health.shown()))?;
    let read = client.get("/api/v1/spaces", &who.key).await?;
    must(read.is_good(), || format!("reading on a full disk: {}", read.shown()))
}

/// With room again the same requests are answered well, by the same process.
async fn recovers(client: &Client, epoch: &Epoch) -> Result<(), String> {
    let who = &epoch.world().people[0];
    let begun = Instant::now();
    loop {
        let sent = Sent { key: &who.key, json: Some(json!({ "name": "room again" })), ..Sent::default() };
        let answer = client.send("POST", "/api/v1/spaces", sent).await?;
        if answer.is_good() {
            return Ok(());
        }
        let late = begun.elapsed() > Duration::from_secs(20);
        must(!late, || format!("there is room again, and still: {}", answer.shown()))?;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// A data directory that can be read only: a clear error, an exit code, no panic; and with the right to
/// write again, a start as if nothing had been.
///
/// # Errors
/// What was not as it must be.
pub async fn read_only(plan: &Plan) -> Result<(), String> {
    let epoch = Epoch::begin(plan).await?;
    let data = epoch.site().data();
    let source = data.to_string_lossy().into_owned();
    {
        let mounted = Mounted::new(&data, &["--bind", &source])?;
        mounted.again("remount,ro,bind")?;
        let text = refused(epoch.site()).await?;
        let clear = ["read-only", "Read-only", "data directory"].iter().any(|word| text.contains(word));
        must(clear && !text.contains("panicked"), || format!("on a read-only directory it said: {text}"))?;
    }
    none(epoch.compare(plan.seed).await?)
}

/// Starts a server that must not come up. What it said.
async fn refused(site: &Site) -> Result<String, String> {
    let log = site.path("server.log");
    let before = std::fs::read_to_string(&log).unwrap_or_default().len();
    match site.begin(None).await? {
        Begun::Listens(server) => {
            server.kill().await?;
            Err("the server listens on a directory that it cannot write".to_owned())
        }
        Begun::Ended(status) => {
            let code = status.code();
            must(matches!(code, Some(1 | 64)), || format!("it ended with {status}"))?;
            let text = std::fs::read_to_string(&log).unwrap_or_default();
            Ok(text.get(before..).unwrap_or_default().to_owned())
        }
    }
}
