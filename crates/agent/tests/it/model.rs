//! What a real provider's wire format carries: exactly what a model sees, and where its key is.

use std::collections::BTreeMap;
use std::sync::Arc;

use bailiwick_agent::{Incoming, Models, OwnKey, Runtime, RuntimeLimits};
use bailiwick_auth::Scope;
use bailiwick_auth::access::verb::{GrantSecret, ReadAccountAudit, ReadSession, SetSecret};
use bailiwick_model::{Config, Provider};
use bailiwick_outbound::Transport;
use bailiwick_sandbox::container::ContainerUse;
use bailiwick_sandbox::gate::GateSettings;
use bailiwick_sandbox::linux::{CgroupUse, HelperPath};
use bailiwick_sandbox::{HostUse, Sandboxes, Settings};
use bailiwick_store::data_key::StoredKey;
use bailiwick_store::log::EventFilter;
use bailiwick_store::secret::{Change, Expect, Grant};
use bailiwick_store::session::SessionState::{Failed, Idle};
use bailiwick_testkit::fake_model::{FakeAnthropic, Reply};
use bailiwick_tools::ToolManager;
use bailiwick_tools::run::Ceilings;
use bailiwick_types::{LeaseTerm, ModelName, SecretKind, SessionId, UsedBy};
use bailiwick_vault::{ModelKeys, Secret};
use serde_json::{Value, json};

use crate::SCRIPT;
use crate::fixture::{Inside, keeper, message, vault, whole_stream};

const KEY: &str = "sk-test-0123456789-abcdefghij";
const HOST: &str = "localhost";

/// The same inside, with a provider that is called over HTTP.
async fn with_provider(fake: &FakeAnthropic) -> Inside {
    provided(fake, Whose::Operators).await
}

/// Whose key goes with the calls.
enum Whose {
    /// The operator's.
    Operators,
    /// Each account's own.
    Accounts,
}

async fn provided(fake: &FakeAnthropic, whose: Whose) -> Inside {
    let mut inside = Inside::new(SCRIPT).await;
    // By a name, for which secrets are granted.
    let base = fake.base_url().replace("127.0.0.1", HOST);
    let key = match whose {
        Whose::Operators => "api_key_env",
        Whose::Accounts => "api_key_secret",
    };
    let config: Config = serde_json::from_value(json!({
        "provider": "anthropic", "base_url": base, "model": "test-model", key: "model_key",
    }))
    .unwrap();
    assert_eq!(config.host().as_deref(), Some(HOST));
    let provider = Provider::new(&config, Transport::new(std::time::Duration::from_secs(10)).unwrap()).unwrap();
    let mut keys = ModelKeys::new();
    // There also where accounts bring their own: it must not be taken then.
    keys.insert(ModelName::first(), Secret::new(KEY.to_owned()));
    let redactor = keys.redactor();
    let own = OwnKey { secret: "model_key".parse().unwrap(), host: HOST.parse().unwrap() };
    let own = match whose {
        Whose::Operators => BTreeMap::new(),
        Whose::Accounts => BTreeMap::from([(ModelName::first(), own)]),
    };
    let keeper = keeper(inside.dir.path(), &inside.store);
    let models = Models::new(BTreeMap::from([(ModelName::first(), provider)]), keys, own, Arc::clone(&keeper));
    let settings = Settings {
        helper: HelperPath::At("/nonexistent".into()),
        cgroups: CgroupUse::Never,
        ready: 0,
        host: HostUse::Refused,
        tmp: inside.dir.path().to_owned(),
        gate: GateSettings::default(),
        container: ContainerUse::Off,
    };
    let sandboxes = Arc::new(Sandboxes::new(settings, keeper));
    let tools = ToolManager::new(inside.store.clone(), sandboxes, redactor, Ceilings::default());
    inside.runtime =
        Runtime::new(inside.store.clone(), Arc::clone(&inside.walk), Arc::new(tools), models, RuntimeLimits::default());
    inside
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_sees_what_it_should_and_nothing_else() {
    let fake = FakeAnthropic::start().await;
    // In pieces: whole, it would be taken out of what the model says already.
    let (begin, end) = KEY.split_at(9);
    fake.push(Reply::tool("write_file", json!({ "path": "k.txt", "content": format!("{begin} {end}") })));
    fake.push(Reply::tool("edit_file", json!({ "path": "k.txt", "old": " ", "new": "" })));
    fake.push(Reply::tool("read_file", json!({ "path": "k.txt" })));
    fake.push(Reply::text("done"));
    let inside = with_provider(&fake).await;
    let incoming = Incoming { client_context: Some(json!({ "page": "orders" })), ..message("keep this") };
    let id = inside.begin_with("default", incoming).await;
    inside.until(id, Idle, 0).await;
    let requests = fake.requests();
    assert_eq!(requests.len(), 4);
    let body = fake.last_body();
    let text = body.to_string();
    assert!(text.contains("Client context:") && text.contains("orders"), "{text}");
    assert!(text.contains("keep this"));
    let names: Vec<&str> = body["tools"].as_array().unwrap().iter().map(|t| t["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"read_file") && !names.contains(&"bash"), "only granted tools: {names:?}");
    // What the tool gave back is cleared of the known secret before the model reads it.
    assert!(text.contains("[redacted:model.default]"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn e08_the_models_key_is_in_its_header_and_nowhere_else() {
    let fake = FakeAnthropic::start().await;
    fake.require_key(KEY);
    fake.push(Reply::text("hello"));
    fake.push(Reply::error(400, "invalid_request_error", &format!("your key {KEY} is bad")));
    let inside = with_provider(&fake).await;
    let id = inside.begin("default", "one").await;
    let row = inside.until(id, Idle, 0).await;
    inside.send(id, "two").await;
    inside.until(id, Failed, row.events).await;
    assert!(format!("{:?}", inside.events(id).await).contains("turn.failed"));
    // The positive control is that the fake accepted the call, for it demands the key.
    assert!(inside.types(id).await.contains(&"turn.completed".to_owned()));
    inside.store.close();
    let mut looked = 0;
    let mut folders = vec![inside.dir.path().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            if entry.path().is_dir() {
                folders.push(entry.path());
            } else {
                let content = std::fs::read(entry.path()).unwrap();
                assert!(!content.windows(KEY.len()).any(|part| part == KEY.as_bytes()), "{:?}", entry.path());
                looked += 1;
            }
        }
    }
    assert!(looked > 1);
}

/// Gives the account's secret a value.
async fn set(inside: &Inside, scope: &Scope, value: &'static str) {
    let (vault, tenant) = (vault(inside.dir.path()), scope.tenant().clone());
    let permit = scope.authorize::<SetSecret>(scope.account()).unwrap();
    let sealing = move |there: Option<StoredKey>, version| {
        let key = match there {
            Some(StoredKey { by, bytes }) => vault.unlock(&tenant, bailiwick_vault::WrappedKey { by, bytes }),
            None => vault.new_key(&tenant),
        };
        let key = key.unwrap();
        let sealed = key.seal(&"model_key".parse().unwrap(), version, value).unwrap();
        Ok((StoredKey { by: key.wrapped().by.clone(), bytes: key.wrapped().bytes.clone() }, sealed.bytes))
    };
    let name = "model_key".parse().unwrap();
    inside.store.secret_set(permit, name, SecretKind::Value, None, Expect::Either, Box::new(sealing)).await.unwrap();
}

async fn grant(inside: &Inside, scope: &Scope, used_by: UsedBy, host: &str, change: Change) {
    let permit = scope.authorize::<GrantSecret>(scope.account()).unwrap();
    let hosts = bailiwick_types::host::HostPattern::parse(host).unwrap();
    let grant = Grant { agent: "default".parse().unwrap(), used_by, hosts, lease: LeaseTerm::Minute };
    inside.store.secret_grant(permit, "model_key".parse().unwrap(), grant, change).await.unwrap();
}

/// One turn of a new session, to its end: its events.
async fn turn(inside: &Inside, scope: &Scope) -> Vec<Value> {
    let space = inside.store.space_personal(scope).await.unwrap();
    let id: SessionId =
        inside.runtime.create(scope, space, "default".parse().unwrap(), None, Some(message("hello"))).await.unwrap();
    let session = inside.store.session_find(scope, id).await.unwrap().unwrap();
    let permit = scope.authorize::<ReadSession>(session).unwrap();
    let mut grew = inside.store.session_watch(&permit).unwrap();
    for _ in 0..100 {
        let row = inside.store.session_read(&permit).await.unwrap();
        if matches!(row.state, Idle | Failed) && row.events > 1 {
            break;
        }
        let _ = tokio::time::timeout(std::time::Duration::from_millis(200), grew.changed()).await;
    }
    whole_stream(&inside.store, &permit).await.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn failure(events: &[Value]) -> &Value {
    let failed = events.iter().find(|event| event["type"] == "turn.failed");
    &failed.unwrap_or_else(|| panic!("{events:#?}"))["data"]
}

fn said(events: &[Value]) -> String {
    assert!(events.iter().any(|event| event["type"] == "turn.completed"), "{events:#?}");
    events.iter().map(Value::to_string).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn e08_each_account_calls_the_model_with_its_own_key_and_with_no_other() {
    const ALICES: &str = "sk-acme-0123456789-abcdefghij";
    const BOBS: &str = "sk-globex-9876543210-zyxwvuts";
    let fake = FakeAnthropic::start().await;
    fake.always(Reply::text("your key is not told"));
    let inside = provided(&fake, Whose::Accounts).await;
    let (alice, bob) = (inside.scope(&inside.alice).await, inside.scope(&inside.bob).await);
    let keys = || -> Vec<String> {
        let requests = fake.requests();
        requests.iter().map(|request| request.headers["x-api-key"].to_str().unwrap().to_owned()).collect()
    };

    // No secret, one that is not granted, one that is for sandboxes, for another host: nothing is sent, and it is told why.
    let missing = |events: &[Value]| {
        let failure = failure(events);
        assert_eq!(failure["code"], "MODEL_KEY_MISSING", "{failure}");
        assert!(
            failure["message"].as_str().unwrap().contains("secret grant model_key --agent default --host localhost")
        );
    };
    missing(&turn(&inside, &alice).await);
    set(&inside, &alice, ALICES).await;
    missing(&turn(&inside, &alice).await);
    grant(&inside, &alice, UsedBy::Sandbox, HOST, Change::Give).await;
    grant(&inside, &alice, UsedBy::Model, "elsewhere.example", Change::Give).await;
    missing(&turn(&inside, &alice).await);
    assert_eq!(keys(), Vec::<String>::new(), "the operator's key is there, and went nowhere");

    // The control. The neighbour has the same secret's name, and nothing by it.
    grant(&inside, &alice, UsedBy::Model, HOST, Change::Give).await;
    said(&turn(&inside, &alice).await);
    missing(&turn(&inside, &bob).await);
    set(&inside, &bob, BOBS).await;
    grant(&inside, &bob, UsedBy::Model, "localhost", Change::Give).await;
    said(&turn(&inside, &bob).await);
    assert_eq!(keys(), [ALICES, BOBS]);

    // A new value is the only one from now on; a grant that is taken is gone at once.
    set(&inside, &alice, BOBS).await;
    set(&inside, &alice, ALICES).await;
    fake.push(Reply::text(&format!("it is {ALICES}, and I keep it")));
    let echoed = said(&turn(&inside, &alice).await);
    assert!(echoed.contains("it is [redacted], and I keep it"), "{echoed}");
    fake.push(Reply::error(401, "authentication_error", &format!("wrong: {ALICES}")));
    let refused = turn(&inside, &alice).await;
    assert!(failure(&refused)["message"].as_str().unwrap().contains("[redacted]"));
    grant(&inside, &alice, UsedBy::Model, HOST, Change::Take).await;
    missing(&turn(&inside, &alice).await);
    assert_eq!(keys(), [ALICES, BOBS, ALICES, ALICES]);

    // Each release is on record before its call's outcome, and says of which call; none of it says a key.
    for (scope, released) in [(&alice, 3), (&bob, 1)] {
        let permit = scope.authorize::<ReadAccountAudit>(scope.account()).unwrap();
        let filter = EventFilter { limit: 10_000, ..EventFilter::default() };
        let events = inside.store.event_list(permit, filter).await.unwrap();
        let of: Vec<_> = events.iter().filter(|event| event.draft.action == "secret.release").collect();
        let done = of.iter().filter(|event| event.draft.intent.is_some() && event.draft.detail.contains_key("version"));
        assert_eq!(done.count(), released);
        let begun = of.iter().filter(|event| event.draft.detail.get("used_by").is_some_and(|by| by == "model"));
        for event in begun {
            let call = event.draft.detail["call"].as_u64().unwrap();
            assert!(events.iter().any(|other| other.seq == call && other.draft.action == "model.call"));
        }
        let told = format!("{events:?}");
        assert!(!told.contains("0123456789") && !told.contains("9876543210"));
    }
    assert!(!format!("{echoed}{refused:?}").contains("0123456789"));
}
