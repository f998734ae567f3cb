//! The configuration of a model.

use bailiwick_model::{BuildError, Config, KeySource, Provider};
use serde_json::{Value, json};

use crate::support::transport;

fn config(value: Value) -> Config {
    serde_json::from_value(value).unwrap()
}

fn keys(value: Value) -> Vec<&'static str> {
    config(value).problems().iter().map(|problem| problem.key).collect()
}

#[test]
fn good_configurations_have_no_problems() {
    for value in [
        json!({ "provider": "anthropic", "model": "m", "api_key_file": "/run/key" }),
        json!({ "provider": "openai", "model": "m", "api": "responses", "api_key_env": "KEY", "effort": "low" }),
        json!({ "provider": "openai", "model": "m", "base_url": "http://localhost:8000/v1/" }),
        json!({ "provider": "openai", "model": "m", "base_url": "http://gpu.lan:8000", "plain_http": "anywhere" }),
        json!({ "provider": "scripted", "script": "demo.yaml" }),
        json!({ "provider": "anthropic", "model": "m", "timeouts": { "idle_seconds": 5 }, "retry": { "attempts": 1 } }),
    ] {
        assert_eq!(keys(value.clone()), Vec::<&str>::new(), "{value}");
    }
}

#[test]
fn all_mistakes_are_reported_together() {
    let bad = json!({
        "provider": "openai", "base_url": "http://far.example", "api_key_file": "a", "api_key_env": "b", "script": "s",
        "thinking_budget_tokens": 5, "max_output_tokens": 0, "timeouts": { "idle_seconds": 0 },
        "retry": { "attempts": 0 },
    });
    assert_eq!(
        keys(bad.clone()),
        [
            "model",
            "script",
            "api_key_file",
            "thinking_budget_tokens",
            "max_output_tokens",
            "timeouts",
            "retry",
            "base_url",
        ]
    );
    let Err(BuildError::Config(problems)) = Provider::new(&config(bad), transport()) else { panic!() };
    assert_eq!(problems.len(), 8);
    assert_eq!(keys(json!({ "provider": "scripted", "api": "responses" })), ["script", "api"]);
}

#[test]
fn unknown_keys_and_values_are_errors() {
    for value in [
        json!({ "provider": "openai", "model": "m", "baseurl": "x" }),
        json!({ "provider": "openai", "model": "m", "timeouts": { "idle": 1 } }),
        json!({ "provider": "gemini" }),
    ] {
        assert!(serde_json::from_value::<Config>(value.clone()).is_err(), "{value}");
    }
}

#[test]
fn a_refused_address_is_not_repeated() {
    let problems =
        config(json!({ "provider": "openai", "model": "m", "base_url": "https://u:hunter2@a.example" })).problems();
    assert_eq!(problems[0].key, "base_url");
    assert!(!problems[0].to_string().contains("hunter2"), "{}", problems[0]);
}

#[test]
fn g08_a_model_is_not_where_clouds_keep_credentials() {
    let at = |url: &str| keys(json!({ "provider": "openai", "model": "m", "base_url": url, "plain_http": "anywhere" }));
    for url in
        ["http://169.254.169.254/v1", "https://[fd00:ec2::254]", "http://[::ffff:169.254.169.254]", "http://0:8000"]
    {
        assert_eq!(at(url), ["base_url"], "{url}");
    }
    // The control: it may be anywhere else, in a private network too.
    for url in ["http://10.0.0.7:8000/v1", "http://127.0.0.1:8000", "http://[fd12:3456::1]", "https://api.example"] {
        assert_eq!(at(url), Vec::<&str>::new(), "{url}");
    }
}

#[test]
fn the_keys_place_is_told() {
    let source = |value| config(value).key_source();
    assert_eq!(source(json!({ "provider": "openai", "api_key_file": "/k" })), KeySource::File("/k".into()));
    assert_eq!(source(json!({ "provider": "openai", "api_key_env": "K" })), KeySource::Env("K".into()));
    assert_eq!(source(json!({ "provider": "openai" })), KeySource::NotConfigured);
    assert_eq!(source(json!({ "provider": "scripted" })), KeySource::NotNeeded);
}
