//! The rounds: lives of a server under load that end badly, then a calm one in which everything is compared.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bailiwick_types::failpoint;
use tempfile::TempDir;

use crate::check::{self, Checking};
use crate::client::Client;
use crate::history::History;
use crate::process::{Begun, Running, Site, was_killed};
use crate::random::{self, Death, Random};
use crate::settle::settle;
use crate::work::Life;
use crate::world::World;

/// Rounds on one data directory: long enough that histories grow over several crashes, short enough that
/// reading all of them stays quick.
const EPOCH: u64 = 3;

/// How long a life may take to come to its fail-point.
const REACHED: Duration = Duration::from_secs(15);

/// What is to be done.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The server's binary.
    pub binary: PathBuf,
    /// Rounds.
    pub rounds: u64,
    /// Decides everything that chance decides.
    pub seed: u64,
    /// The database's URL; `None` for SQLite in the data directory.
    pub database: Option<String>,
    /// Workers at once, each with a session of its own.
    pub workers: u64,
    /// What each worker does in a life.
    pub acts: u64,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Report {
    /// Fail-points that ended a server.
    pub reached: BTreeSet<&'static str>,
    /// Times that a server was ended.
    pub deaths: u64,
    /// What is not as it must be, a sentence each, with its round.
    pub findings: Vec<String>,
    /// Folders that were kept to be looked at.
    pub kept: Vec<PathBuf>,
}

impl Report {
    /// Fail-points that were never reached: checks that could not fail.
    pub fn unreached(&self) -> Vec<&'static str> {
        failpoint::ALL.iter().copied().filter(|point| !self.reached.contains(point)).collect()
    }
}

/// A data directory with its server, its people and their history.
pub(crate) struct Epoch {
    dir: TempDir,
    site: Site,
    history: Arc<History>,
    tokens: Arc<AtomicU64>,
    world: Arc<World>,
    workers: u64,
}

impl Epoch {
    /// Makes everybody, and stops the server again.
    pub(crate) async fn begin(plan: &Plan) -> Result<Self, String> {
        let dir = tempfile::Builder::new().prefix("bailiwick-crash-").tempdir();
        let dir = dir.map_err(|error| format!("a folder: {error}"))?;
        open_to_others(dir.path())?;
        Self::within(plan, dir).await
    }

    /// The same in a folder that is there already.
    pub(crate) async fn within(plan: &Plan, dir: TempDir) -> Result<Self, String> {
        let site = Site::new(&plan.binary, dir.path(), plan.database.as_deref())?;
        let server = site.start().await?;
        let world = World::make(&Client::new(&server.url)?, &suffix(plan)).await?;
        server.kill().await?;
        Ok(Self {
            dir,
            site,
            history: Arc::default(),
            tokens: Arc::default(),
            world: Arc::new(world),
            workers: plan.workers,
        })
    }

    pub(crate) fn site(&self) -> &Site {
        &self.site
    }

    pub(crate) fn site_mut(&mut self) -> &mut Site {
        &mut self.site
    }

    pub(crate) fn world(&self) -> &World {
        &self.world
    }

    pub(crate) fn history(&self) -> &History {
        &self.history
    }

    /// A load on a server of this data directory.
    pub(crate) fn life(&self, client: Client, seed: u64, acts: u64) -> Life {
        let (world, history, tokens) = (Arc::clone(&self.world), Arc::clone(&self.history), Arc::clone(&self.tokens));
        Life::new(client, world, history, tokens).with(seed, self.workers, acts)
    }

    /// One life that ends badly.
    async fn die(&self, plan: &Plan, seed: u64, death: &Death, report: &mut Report) -> Result<(), String> {
        let point = match death {
            Death::Point(name, times) => Some(format!("{name}:{times}")),
            Death::After(_) => None,
        };
        let mut server = match self.site.begin(point.as_deref()).await? {
            Begun::Listens(server) => server,
            Begun::Ended(status) => return died(status, death, report),
        };
        let client = Client::new(&server.url)?;
        let load = async {
            // Again and again, so that a fail-point is not missed because the load was over.
            for pass in 0.. {
                let seed = Random::new(seed, &[5, pass]).draw();
                self.life(client.clone(), seed, plan.acts).work().await?;
                if client.get("/health", "").await.is_err() {
                    break;
                }
            }
            Ok::<(), String>(())
        };
        let dying = async {
            let patience = match death {
                Death::Point(..) => REACHED,
                Death::After(milliseconds) => Duration::from_millis(*milliseconds),
            };
            match server.ended(patience).await? {
                Some(status) => died(status, death, report),
                None => {
                    report.deaths += 1;
                    server.kill().await
                }
            }
        };
        let (loaded, died) = tokio::join!(load, dying);
        died.and(loaded)
    }

    /// A calm life: everything comes to rest, and is compared.
    pub(crate) async fn compare(&self, seed: u64) -> Result<Vec<String>, String> {
        let server = self.site.start().await?;
        let client = Client::new(&server.url)?;
        settle(&client, &self.world, &self.history, seed).await?;
        let findings = self.check(&client).await?;
        server.kill().await?;
        Ok(findings)
    }

    async fn check(&self, client: &Client) -> Result<Vec<String>, String> {
        let facts = std::mem::take(&mut *self.history.facts());
        let data = self.site.data();
        let checking = Checking { client, world: &self.world, facts: &facts, data: &data };
        let findings = check::check(&checking).await;
        *self.history.facts() = facts;
        let mut findings = findings?;
        let log = std::fs::read_to_string(self.site.path("server.log")).unwrap_or_default();
        findings.extend(log.lines().filter(|line| line.contains("panicked")).map(|line| format!("a panic: {line}")));
        Ok(findings)
    }
}

/// What tells the accounts of one epoch from another's, if they share a database.
fn suffix(plan: &Plan) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if plan.database.is_some() { format!("-{:x}", now.as_millis()) } else { String::new() }
}

/// Tools run as other users, who must be able to come to their workspace.
pub(crate) fn open_to_others(dir: &std::path::Path) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o711)).map_err(|error| error.to_string())
}

fn died(status: std::process::ExitStatus, death: &Death, report: &mut Report) -> Result<(), String> {
    report.deaths += 1;
    match death {
        Death::Point(name, _) if was_killed(status) => {
            report.reached.insert(name);
            Ok(())
        }
        _ => Err(format!("the server ended by itself: {status}")),
    }
}

/// Runs the rounds. Each is told as it ends.
///
/// # Errors
/// If the harness itself cannot go on.
pub async fn run(plan: &Plan, tell: &mut dyn FnMut(&str)) -> Result<Report, String> {
    let mut report = Report::default();
    let mut epoch = None;
    for (round, lives) in (0..).zip(random::deaths(plan.seed, plan.rounds)) {
        let begun = Instant::now();
        // With a database server there is one data directory and one database for the whole run.
        if epoch.is_none() || (round % EPOCH == 0 && plan.database.is_none()) {
            epoch = Some(Epoch::begin(plan).await?);
        }
        let Some(now) = &epoch else { continue };
        let mut problems = Vec::new();
        for (life, death) in (0..).zip(&lives) {
            let seed = Random::new(plan.seed, &[round, life]).draw();
            problems.extend(now.die(plan, seed, death, &mut report).await.err());
        }
        match now.compare(Random::new(plan.seed, &[round, 99]).draw()).await {
            Ok(findings) => problems.extend(findings),
            Err(problem) => problems.push(problem),
        }
        let took = begun.elapsed().as_secs_f64();
        let counted = now.history.counted();
        tell(&format!("round {round}: {lives:?}; {counted}; {} findings; {took:.1} s", problems.len()));
        if !problems.is_empty() {
            let seed = plan.seed;
            for problem in &problems {
                report.findings.push(format!("seed {seed}, round {round}: {problem}"));
            }
            // Kept, and not built upon: what follows would only say it again.
            if let Some(Epoch { dir, .. }) = epoch.take() {
                report.kept.push(dir.keep());
            }
        }
    }
    Ok(report)
}

/// One calm epoch for the checks' own tests: a load that comes to its end, at rest, and the server stopped.
pub struct Calm {
    epoch: Epoch,
}

impl Calm {
    /// Makes it.
    ///
    /// # Errors
    /// If anything goes wrong, or the checks find something in it.
    pub async fn make(plan: &Plan) -> Result<Self, String> {
        let epoch = Epoch::begin(plan).await?;
        let server = epoch.site.start().await?;
        let client = Client::new(&server.url)?;
        let life = epoch.life(client.clone(), plan.seed, plan.acts);
        life.work().await?;
        epoch.life(client.clone(), plan.seed, 1).some_of_each().await?;
        settle(&client, &epoch.world, &epoch.history, plan.seed).await?;
        server.terminate(Duration::from_secs(30)).await?;
        Ok(Self { epoch })
    }

    /// The data directory.
    pub fn data(&self) -> PathBuf {
        self.epoch.site.data()
    }

    /// What was acknowledged.
    pub fn history(&self) -> &History {
        &self.epoch.history
    }

    /// Starts the server, compares, and stops it.
    ///
    /// # Errors
    /// If it cannot be done.
    pub async fn compare(&self) -> Result<Vec<String>, String> {
        let server: Running = self.epoch.site.start().await?;
        let findings = self.epoch.check(&Client::new(&server.url)?).await;
        server.terminate(Duration::from_secs(30)).await?;
        findings
    }
}
