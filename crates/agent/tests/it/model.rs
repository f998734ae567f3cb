//! What a real provider's wire format carries: exactly what a model sees, and where its key is.

use std::collections::BTreeMap;
use std::sync::Arc;

use bailiwick_agent::{Incoming, Models, Runtime, RuntimeLimits};
use bailiwick_model::{Config, Provider};
use bailiwick_outbound::Transport;
use bailiwick_sandbox::container::ContainerUse;
use bailiwick_sandbox::gate::GateSettings;
use bailiwick_sandbox::linux::{CgroupUse, HelperPath};
use bailiwick_sandbox::{HostUse, Sandboxes, Settings};
use bailiwick_store::session::SessionState::{Failed, Idle};
use bailiwick_testkit::fake_model::{FakeAnthropic, Reply};
use bailiwick_tools::run::Ceilings;
use bailiwick_tools::{Keeper, ToolManager};
use bailiwick_types::ModelName;
use bailiwick_vault::{HostKeys, ModelKeys, Secret};
use serde_json::json;

use crate::SCRIPT;
use crate::fixture::{Inside, message};

const KEY: &str = "sk-test-0123456789-abcdefghij";

/// The same inside, with a provider that is called over HTTP.
async fn with_provider(fake: &FakeAnthropic) -> Inside {
    let mut inside = Inside::new(SCRIPT).await;
    let config: Config = serde_json::from_value(json!({
        "provider": "anthropic", "base_url": fake.base_url(), "model": "test-model", "api_key_env": "NOT_READ_HERE",
    }))
    .unwrap();
    let provider = Provider::new(&config, Transport::new(std::time::Duration::from_secs(10)).unwrap()).unwrap();
    let mut keys = ModelKeys::new();
    keys.insert(ModelName::first(), Secret::new(KEY.to_owned()));
    let redactor = keys.redactor();
    let models = Models::new(BTreeMap::from([(ModelName::first(), provider)]), keys);
    let vault = Arc::new(HostKeys::load_or_make(&inside.dir.path().join("keys")).unwrap().vault());
    let settings = Settings {
        helper: HelperPath::At("/nonexistent".into()),
        cgroups: CgroupUse::Never,
        host: HostUse::Refused,
        tmp: inside.dir.path().to_owned(),
        gate: GateSettings::default(),
        container: ContainerUse::Off,
    };
    let sandboxes = Arc::new(Sandboxes::new(settings, Arc::new(Keeper::new(inside.store.clone(), vault))));
    let tools = ToolManager::new(inside.store.clone(), sandboxes, redactor, Ceilings::default());
    inside.runtime =
        Runtime::new(inside.store.clone(), Arc::clone(&inside.walk), Arc::new(tools), models, RuntimeLimits::default());
    inside
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_sees_what_it_should_and_nothing_else() {
    let fake = FakeAnthropic::start().await;
    fake.push(Reply::tool("write_file", json!({ "path": "k.txt", "content": KEY })));
    fake.push(Reply::tool("read_file", json!({ "path": "k.txt" })));
    fake.push(Reply::text("done"));
    let inside = with_provider(&fake).await;
    let incoming = Incoming { client_context: Some(json!({ "page": "orders" })), ..message("keep this") };
    let id = inside.begin_with("default", incoming).await;
    inside.until(id, Idle, 0).await;
    let requests = fake.requests();
    assert_eq!(requests.len(), 3);
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
