//! A server's inside without its doors: store, walk, tools, a scripted model, and two accounts.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bailiwick_agent::message::TurnPolicy;
use bailiwick_agent::{Incoming, IncomingPart, Models, Runtime, RuntimeLimits};
use bailiwick_auth::access::verb;
use bailiwick_auth::authn::{Presented, Step, Walk};
use bailiwick_auth::key::PresentedKey;
use bailiwick_auth::{Permit, Principal, Scope};
use bailiwick_model::{Provider, Script};
use bailiwick_outbound::{Lazy, Patience};
use bailiwick_sandbox::container::ContainerUse;
use bailiwick_sandbox::gate::GateSettings;
use bailiwick_sandbox::linux::{CgroupUse, HelperPath};
use bailiwick_sandbox::{HostUse, Sandboxes, Settings};
use bailiwick_store::Store;
use bailiwick_store::account::NewAccount;
use bailiwick_store::session::{SessionRow, SessionState};
use bailiwick_tools::run::Ceilings;
use bailiwick_tools::{Keeper, TokenEndpoints, ToolManager};
use bailiwick_types::{AgentDefinition, ModelName, RequestId, SessionId};
use bailiwick_vault::{HostKeys, ModelKeys, Redactor, Vault};
use serde_json::Value;

const ROOT: &str = "a-root-key-for-tests";

pub struct Inside {
    pub dir: tempfile::TempDir,
    pub store: Store,
    pub walk: Arc<Walk>,
    pub runtime: Runtime,
    pub alice: String,
    pub bob: String,
    script: String,
}

fn parts(dir: &Path, script: &str) -> (Store, Arc<Walk>, Runtime) {
    let keys = HostKeys::load_or_make(&dir.join("keys")).unwrap();
    let store = Store::open(&dir.join("data"), &bailiwick_testkit::database::chosen()).unwrap();
    let walk = Arc::new(Walk::new(vec![Step::ApiKey], keys.ring(), Some(ROOT)));
    let runtime = runtime(dir, &store, &walk, script);
    (store, walk, runtime)
}

pub fn vault(dir: &Path) -> Vault {
    let keys = dir.join("keys");
    HostKeys::load_or_make(&keys).unwrap();
    Vault::new(Box::new(HostKeys::vault_key(&keys).unwrap()))
}

pub fn keeper(dir: &Path, store: &Store) -> Arc<Keeper> {
    keeper_with(dir, store, Vec::new())
}

/// One that gets access tokens from these origins.
pub fn keeper_with(dir: &Path, store: &Store, origins: Vec<String>) -> Arc<Keeper> {
    let endpoints = TokenEndpoints::new(Arc::new(Lazy::new(Patience::default())), origins);
    Arc::new(Keeper::new(store.clone(), Arc::new(vault(dir)), endpoints))
}

fn runtime(dir: &Path, store: &Store, walk: &Arc<Walk>, script: &str) -> Runtime {
    let keeper = keeper(dir, store);
    let settings = Settings {
        helper: HelperPath::At("/nonexistent".into()),
        cgroups: CgroupUse::Never,
        ready: 0,
        host: HostUse::Refused,
        tmp: dir.to_owned(),
        gate: GateSettings::default(),
        container: ContainerUse::Off,
    };
    let sandboxes = Arc::new(Sandboxes::new(settings, Arc::clone(&keeper) as _));
    let redactor = Redactor::new([("test".to_owned(), "very-secret-value")].into_iter());
    let tools = Arc::new(ToolManager::new(store.clone(), sandboxes, redactor, Ceilings::default()));
    let provider = Provider::scripted(Script::parse("test.yaml", script).unwrap());
    let models = BTreeMap::from([(ModelName::first(), provider)]);
    let models = Models::new(models, ModelKeys::new(), BTreeMap::new(), keeper);
    Runtime::new(store.clone(), Arc::clone(walk), tools, models, RuntimeLimits::default())
}

pub fn agent(text: &str) -> AgentDefinition {
    serde_json::from_str(text).unwrap()
}

impl Inside {
    /// Two accounts, acme with alice and globex with bob, each with agents `default` and `careful`.
    pub async fn new(script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (store, walk, runtime) = parts(dir.path(), script);
        let mut keys = Vec::new();
        let operator = principal(&store, &walk, ROOT).await;
        for (account, user) in [("acme", "alice"), ("globex", "bob")] {
            let key = walk.ring().make().unwrap();
            let permit = operator.host_scope(RequestId::new()).authorize::<verb::CreateAccount>().unwrap();
            let tools = r#""tools":["read_file","write_file","edit_file","glob","grep","plan","ask_question"]"#;
            let agents = vec![
                ("default".parse().unwrap(), agent(&format!("{{{tools}}}"))),
                ("careful".parse().unwrap(), agent(&format!("{{{tools},\"require_approval\":[\"write_file\"]}}"))),
                (
                    "hasty".parse().unwrap(),
                    agent(&format!(
                        "{{{tools},\"require_approval\":[\"write_file\"],\"limits\":{{\"approval_timeout_seconds\":1}}}}"
                    )),
                ),
            ];
            let new = NewAccount { name: account.parse().unwrap(), admin: Some((user.parse().unwrap(), &key)), agents };
            store.account_create(permit, new).await.unwrap();
            keys.push(key.into_text().to_string());
        }
        let bob = keys.pop().unwrap();
        let alice = keys.pop().unwrap();
        Self { dir, store, walk, runtime, alice, bob, script: script.to_owned() }
    }

    /// The scope of the holder of a key.
    pub async fn scope(&self, key: &str) -> Scope {
        principal(&self.store, &self.walk, key).await.scope(RequestId::new()).unwrap()
    }

    /// Begins a session of alice's with a message.
    pub async fn begin(&self, agent: &str, text: &str) -> SessionId {
        self.begin_with(agent, message(text)).await
    }

    pub async fn begin_with(&self, agent: &str, message: Incoming) -> SessionId {
        let scope = self.scope(&self.alice).await;
        let space = self.store.space_personal(&scope).await.unwrap();
        self.runtime.create(&scope, space, agent.parse().unwrap(), None, Some(message)).await.unwrap()
    }

    pub async fn session(&self, id: SessionId) -> bailiwick_auth::access::Session {
        self.store.session_find(&self.scope(&self.alice).await, id).await.unwrap().unwrap()
    }

    pub async fn row(&self, id: SessionId) -> SessionRow {
        let scope = self.scope(&self.alice).await;
        let permit = scope.authorize::<verb::ReadSession>(self.session(id).await).unwrap();
        self.store.session_read(&permit).await.unwrap()
    }

    pub async fn events(&self, id: SessionId) -> Vec<Value> {
        let scope = self.scope(&self.alice).await;
        let permit = scope.authorize::<verb::ReadSession>(self.session(id).await).unwrap();
        let lines = whole_stream(&self.store, &permit).await;
        lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    pub async fn types(&self, id: SessionId) -> Vec<String> {
        self.events(id).await.iter().map(|event| event["type"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until the session has come to `state` with more than `events` events.
    pub async fn until(&self, id: SessionId, state: SessionState, events: u64) -> SessionRow {
        let scope = self.scope(&self.alice).await;
        let permit = scope.authorize::<verb::ReadSession>(self.session(id).await).unwrap();
        let mut grew = self.store.session_watch(&permit).unwrap();
        let wait = async {
            loop {
                let row = self.store.session_read(&permit).await.unwrap();
                if row.state == state && row.events > events {
                    return row;
                }
                let _ = tokio::time::timeout(Duration::from_millis(200), grew.changed()).await;
            }
        };
        match tokio::time::timeout(Duration::from_secs(20), wait).await {
            Ok(row) => row,
            Err(_) => panic!("stayed {:?}: {:#?}", self.row(id).await.state, self.types(id).await),
        }
    }

    pub async fn send(&self, id: SessionId, text: &str) -> String {
        let scope = self.scope(&self.alice).await;
        self.runtime.send(&scope, self.session(id).await, message(text)).await.unwrap()
    }

    /// The server dies without a word, and another one starts on the same data.
    pub async fn restart(self) -> Self {
        let Self { dir, store, walk, runtime, alice, bob, script } = self;
        runtime.stop(Duration::from_millis(1)).await;
        drop(runtime);
        let runtime = self::runtime(dir.path(), &store, &walk, &script);
        runtime.recover().await;
        Self { dir, store, walk, runtime, alice, bob, script }
    }
}

pub fn message(text: &str) -> Incoming {
    Incoming {
        parts: vec![IncomingPart::Text(text.to_owned())],
        client_context: None,
        output_schema: None,
        policy: TurnPolicy::Steer,
    }
}

async fn principal(store: &Store, walk: &Walk, key: &str) -> Principal {
    let shown = Presented {
        path: "/".to_owned(),
        key: Some(PresentedKey::new(key)),
        account: None,
        user: None,
        peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        basic: None,
        gateway: bailiwick_auth::authn::Gateway::Anybody,
        browser: bailiwick_auth::authn::Browser::Own,
    };
    walk.authenticate(store, &shown).await.unwrap()
}

/// Every event of a session, page by page.
pub async fn whole_stream(store: &Store, permit: &Permit<verb::ReadSession>) -> Vec<String> {
    let mut lines = Vec::new();
    loop {
        let page = store.session_events(permit, lines.len() as u64, 1000).await.unwrap();
        if page.is_empty() {
            return lines;
        }
        lines.extend(page);
    }
}
