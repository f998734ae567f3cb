//! A database that another program holds, and one that is cut off: a forwarder between the server and its
//! PostgreSQL can break every connection and refuse new ones.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{must, none};
use crate::client::{Answer, Client, Sent};
use crate::rounds::{Epoch, Plan};
use crate::tamper::Held;

/// How long others may take while one account's file is held.
const UNAFFECTED: Duration = Duration::from_secs(3);

/// Another program holds one account's file: for a while, then for longer than the server waits. Requests of
/// that account wait, or fail in clear words; the other account does not notice.
///
/// # Errors
/// What was not as it must be.
pub async fn busy(plan: &Plan) -> Result<(), String> {
    let epoch = Epoch::begin(plan).await?;
    let server = epoch.site().start().await?;
    let client = Client::new(&server.url)?;
    for (seconds, outlasts) in [(3, true), (13, false)] {
        let held = Held::of_user(&epoch.site().data(), "alice")?;
        let hindered = {
            let (client, key) = (client.clone(), epoch.world().people[0].key.clone());
            tokio::spawn(async move { space(&client, &key).await })
        };
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(seconds) {
            let asked = Instant::now();
            let answer = space(&client, &epoch.world().people[1].key).await?;
            let took = asked.elapsed();
            must(answer.is_good() && took < UNAFFECTED, || {
                format!("another account was answered {} after {took:?}", answer.shown())
            })?;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        held.let_go()?;
        let answer = hindered.await.map_err(|error| error.to_string())??;
        let fits = if outlasts { answer.is_good() } else { answer.status == 503 };
        must(fits, || format!("the account's own request, {seconds} s held: {}", answer.shown()))?;
    }
    let answer = space(&client, &epoch.world().people[0].key).await?;
    must(answer.is_good(), || format!("let go, and still: {}", answer.shown()))?;
    server.kill().await?;
    none(epoch.compare(plan.seed).await?)
}

async fn space(client: &Client, key: &str) -> Result<Answer, String> {
    let sent = Sent { key, json: Some(json!({ "name": "busy" })), ..Sent::default() };
    client.send("POST", "/api/v1/spaces", sent).await
}

/// Forwards connections, until it is told to cut them.
pub struct Forwarder {
    address: SocketAddr,
    cut: watch::Sender<bool>,
}

impl Forwarder {
    /// Listens, and forwards to this host and port.
    ///
    /// # Errors
    /// If it cannot listen.
    pub async fn to(target: &str) -> Result<Self, String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(|error| format!("the forwarder: {error}"))?;
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        let cut = watch::Sender::new(false);
        let (target, state): (Arc<str>, _) = (target.into(), cut.subscribe());
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                // Whoever comes now is sent away by the closing of the socket.
                if *state.borrow() {
                    continue;
                }
                let (target, mut state) = (Arc::clone(&target), state.clone());
                tokio::spawn(async move {
                    let Ok(mut far) = TcpStream::connect(&*target).await else { return };
                    tokio::select! {
                        _ = copy_bidirectional(&mut near, &mut far) => {}
                        _ = state.wait_for(|cut| *cut) => {}
                    }
                });
            }
        });
        Ok(Self { address, cut })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Breaks every connection, and refuses new ones.
    pub fn cut(&self) {
        self.cut.send_replace(true);
    }

    /// Forwards again.
    pub fn mend(&self) {
        self.cut.send_replace(false);
    }
}

/// Host and port of a database's URL, and the URL with another in their place.
fn redirected(url: &str, to: &str) -> Result<(String, String), String> {
    let wrong = || "the database's URL is not postgres://USER:PASSWORD@HOST:PORT/NAME".to_owned();
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let (place, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (user, host) = place.rsplit_once('@').map_or(("", place), |(user, host)| (user, host));
    let target = if host.contains(':') { host.to_owned() } else { format!("{host}:5432") };
    let user = if user.is_empty() { String::new() } else { format!("{user}@") };
    Ok((target, format!("{scheme}://{user}{to}/{path}")))
}

/// The database server restarts under load (every connection breaks), and is then cut off for thirty seconds.
/// Requests fail in clear words meanwhile; afterwards all goes on, without a restart of ours.
///
/// # Errors
/// What was not as it must be.
pub async fn cut_off(plan: &Plan, url: &str) -> Result<(), String> {
    let (target, _) = redirected(url, "")?;
    let forwarder = Forwarder::to(&target).await?;
    let (_, through) = redirected(url, &forwarder.address().to_string())?;
    let plan = Plan { database: Some(through), ..plan.clone() };
    let epoch = Epoch::begin(&plan).await?;
    let server = epoch.site().start().await?;
    let client = Client::new(&server.url)?;
    let life = epoch.life(client.clone(), plan.seed, 1_000);
    let load = life.clone();
    let load = tokio::spawn(async move { load.work().await });
    tokio::time::sleep(Duration::from_secs(2)).await;
    forwarder.cut();
    tokio::time::sleep(Duration::from_millis(500)).await;
    forwarder.mend();
    tokio::time::sleep(Duration::from_secs(2)).await;
    forwarder.cut();
    let key = &epoch.world().people[0].key;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(30) {
        let asked = Instant::now();
        let answer = space(&client, key).await?;
        must(answer.status == 503, || format!("cut off from the database: {}", answer.shown()))?;
        must(asked.elapsed() < Duration::from_secs(25), || format!("it took {:?} to say so", asked.elapsed()))?;
        let health = client.get("/health", "").await?;
        must(health.is_good(), || format!("health without the database: {}", health.shown()))?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    forwarder.mend();
    life.end();
    load.await.map_err(|error| error.to_string())??;
    let begun = Instant::now();
    while !space(&client, key).await?.is_good() {
        must(begun.elapsed() < Duration::from_secs(30), || "the database is back, and nothing goes on".to_owned())?;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    server.kill().await?;
    none(epoch.compare(plan.seed).await?)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn the_urls_place_is_taken_out_and_replaced() {
        let (target, url) = redirected("postgres://u:p@db.example:6000/x?a=b", "127.0.0.1:1").unwrap();
        assert_eq!((target.as_str(), url.as_str()), ("db.example:6000", "postgres://u:p@127.0.0.1:1/x?a=b"));
        assert_eq!(redirected("postgres://db/x", "h:1").unwrap().0, "db:5432");
        assert!(redirected("nothing", "h:1").is_err());
    }

    #[tokio::test]
    async fn what_is_cut_breaks_and_what_is_mended_goes_on() {
        let echo = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = echo.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((mut socket, _)) = echo.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = socket.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        let forwarder = Forwarder::to(&target).await.unwrap();
        let echoes = async |socket: &mut TcpStream| {
            let mut byte = [0];
            socket.write_all(b"x").await.is_ok() && socket.read_exact(&mut byte).await.is_ok() && byte == *b"x"
        };
        let mut before = TcpStream::connect(forwarder.address()).await.unwrap();
        assert!(echoes(&mut before).await);
        forwarder.cut();
        assert!(!echoes(&mut before).await, "an old connection breaks");
        let mut during = TcpStream::connect(forwarder.address()).await.unwrap();
        assert!(!echoes(&mut during).await, "a new one is sent away");
        forwarder.mend();
        let mut after = TcpStream::connect(forwarder.address()).await.unwrap();
        assert!(echoes(&mut after).await);
    }
}
