//! A whole server on a free port, two accounts with their people, and a client.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bailiwick_agent::{Models, Notifier, NotifierParts, Runtime, RuntimeLimits};
use bailiwick_auth::authn::jwt::Issuer;
use bailiwick_auth::authn::oidc::Providers;
use bailiwick_auth::authn::passkey::Passkeys;
use bailiwick_auth::authn::sign_in::SignIns;
use bailiwick_auth::authn::{RootKeyUse, Step, Walk};
use bailiwick_auth::lockout::LockoutSettings;
use bailiwick_auth::password::{Algorithm, Passwords};
use bailiwick_model::{Provider, Script};
use bailiwick_outbound::HookSettings;
use bailiwick_sandbox::container::ContainerUse;
use bailiwick_sandbox::gate::GateSettings;
use bailiwick_sandbox::linux::{CgroupUse, HelperPath};
use bailiwick_sandbox::{HostUse, Sandboxes};
use bailiwick_store::Store;
use bailiwick_store::account::NewAccount;
use bailiwick_store::checkpoint::Keeping;
use bailiwick_tools::ToolManager;
use bailiwick_tools::run::Ceilings;
use bailiwick_types::{AccountName, AgentDefinition, ModelName, Role};
use bailiwick_vault::{HostKeys, ModelKeys, Redactor, Vault};
use bailiwick_web::{App, Documents, Parts, Settings};
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub const ROOT: &str = "your-secret-root-key";

const SCRIPT: &str = r#"
chunk_chars: 8
turns:
  - when: { user: "write-file" }
    steps:
      - tools: [{ name: write_file, input: { path: note.txt, content: "approved content" } }]
      - text: "the tool has answered"
  - when: { user: "slow please" }
    steps:
      - { text: "one two three four five six seven eight nine ten", delay_ms: 100 }
  - default: true
    repeat: last
    steps: [{ text: "plain answer" }]
"#;

pub const PASSWORD: &str = "correct horse";

/// Where the client of these tests wants its codes.
pub const CALLBACK: &str = "http://127.0.0.1:3000/callback";
/// What the client of these tests proves with that it asked.
pub const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";

/// What a user lets a client do, and what it got.
pub struct Application {
    pub id: String,
    pub access: String,
    pub refresh: String,
}

/// The fields of a request for consent; the challenge is RFC 7636's, appendix B.
pub fn consent(client: &str) -> Value {
    json!({
        "response_type": "code", "client_id": client, "redirect_uri": CALLBACK, "state": "st&te",
        "code_challenge": "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM", "code_challenge_method": "S256",
    })
}

/// The fields with which a code is exchanged.
pub fn redeeming(client: &str, code: &str) -> Value {
    json!({
        "grant_type": "authorization_code", "client_id": client, "code": code,
        "redirect_uri": CALLBACK, "code_verifier": VERIFIER,
    })
}

/// The fields with which a token is renewed.
pub fn renewing(client: &str, refresh: &str) -> Value {
    json!({ "grant_type": "refresh_token", "client_id": client, "refresh_token": refresh })
}

/// What a browser that is sent on takes with it.
pub fn answered(response: &Response) -> BTreeMap<String, String> {
    let to = response.headers()["location"].to_str().unwrap();
    let (_, query) = to.split_once('?').unwrap_or_else(|| panic!("{to}"));
    form_urlencoded::parse(query.as_bytes()).into_owned().collect()
}

pub struct Login {
    pub token: String,
    pub device: String,
}

pub struct Server {
    pub address: SocketAddr,
    pub client: reqwest::Client,
    pub stop: CancellationToken,
    pub serving: tokio::task::JoinHandle<std::io::Result<()>>,
    _dir: tempfile::TempDir,
}

/// What a test of signing in wants otherwise.
pub struct Terms {
    pub idle: Option<Duration>,
    pub lockout: LockoutSettings,
    pub root_use: RootKeyUse,
    pub issuers: Vec<Issuer>,
    pub providers: Providers,
    pub documents: Documents,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            idle: Some(Duration::from_secs(1800)),
            lockout: LockoutSettings::default(),
            root_use: RootKeyUse::Operator,
            issuers: Vec::new(),
            providers: Providers::default(),
            documents: Documents::Off,
        }
    }
}

/// Hashes that take no time; how much they should take is tested elsewhere.
const QUICK: Algorithm = Algorithm::Argon2id { memory: 64, passes: 1 };

/// The people: acme has an admin, a member, a viewer; globex an admin and a member.
pub struct People {
    pub alice: String,
    pub carol: String,
    pub vera: String,
    pub bob: String,
    pub dave: String,
}

fn agents() -> Vec<(bailiwick_types::AgentName, AgentDefinition)> {
    let tools = r#""tools":["read_file","write_file","plan","ask_question","bash"]"#;
    let define = |text: String| serde_json::from_str(&text).unwrap();
    vec![
        ("default".parse().unwrap(), define(format!("{{{tools}}}"))),
        (
            "careful".parse().unwrap(),
            define(format!("{{{tools},\"require_approval\":[\"write_file\"],\"sandbox\":{{\"scope\":\"agent\"}}}}")),
        ),
    ]
}

pub fn settings() -> Settings {
    Settings { first_agents: agents(), models: vec![ModelName::first()], ..Settings::default() }
}

impl Server {
    pub async fn start() -> Self {
        Self::with(vec![Step::ApiKey, Step::Session], settings()).await
    }

    pub async fn with(steps: Vec<Step>, settings: Settings) -> Self {
        Self::on(steps, settings, Terms::default()).await
    }

    pub async fn on(steps: Vec<Step>, settings: Settings, terms: Terms) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let dir = tempfile::tempdir().unwrap();
        let keys = HostKeys::load_or_make(&dir.path().join("keys")).unwrap();
        let store = Store::open(&dir.path().join("data"), &bailiwick_testkit::database::chosen()).unwrap();
        let signer = keys.checkpoint_signer("bailiwick.test").unwrap();
        let kept = Keeping { signer, dir: dir.path().join("kept"), least_age: Duration::ZERO };
        store.keep_checkpoints(kept).unwrap();
        let first = NewAccount { name: AccountName::first(), admin: None, agents: agents() };
        store.account_bootstrap(first).await.unwrap();
        store.user_bootstrap(&AccountName::first(), "default".parse().unwrap(), Role::Admin).await.unwrap();
        let passwords = Passwords::start(QUICK).unwrap();
        let sign_ins = Arc::new(SignIns::new(passwords, terms.lockout));
        let walk = Arc::new(
            Walk::new(steps, keys.ring(), Some(ROOT))
                .with_idle(terms.idle)
                .with_root_use(terms.root_use)
                .with_issuers(terms.issuers)
                .with_sign_ins(Arc::clone(&sign_ins)),
        );
        let vault = Arc::new(Vault::new(Box::new(HostKeys::vault_key(&dir.path().join("keys")).unwrap())));
        let endpoints = bailiwick_tools::TokenEndpoints::new(crate::oidc::outbound(), Vec::new());
        let keeper = Arc::new(bailiwick_tools::Keeper::new(store.clone(), Arc::clone(&vault), endpoints));
        let boxes = bailiwick_sandbox::Settings {
            helper: HelperPath::At("/nonexistent".into()),
            cgroups: CgroupUse::Never,
            ready: 0,
            host: HostUse::Refused,
            tmp: dir.path().to_owned(),
            gate: GateSettings::default(),
            container: ContainerUse::Off,
        };
        let sandboxes = Arc::new(Sandboxes::new(boxes, Arc::clone(&keeper) as _));
        let redactor = Redactor::new([("test".to_owned(), "very-secret-value")].into_iter());
        let tools = Arc::new(ToolManager::new(store.clone(), Arc::clone(&sandboxes), redactor, Ceilings::default()));
        let provider = Provider::scripted(Script::parse("test.yaml", SCRIPT).unwrap());
        let models = BTreeMap::from([(ModelName::first(), provider)]);
        let models = Models::new(models, ModelKeys::new(), BTreeMap::new(), keeper);
        let runtime = Runtime::new(store.clone(), Arc::clone(&walk), tools, models, RuntimeLimits::default());
        let passkeys = Passkeys::new(None, "bailiwick.test");
        let Terms { providers, documents, .. } = terms;
        let (store, seal) = (store.clone(), keys.seal());
        // Nobody is called: the one service whose targets tests make leads to where nobody listens.
        let hooks = HookSettings {
            hosts: BTreeMap::from([("discord.com".to_owned(), SocketAddr::from(([127, 0, 0, 1], 1)))]),
            ..HookSettings::default()
        };
        let (vaulted, walked) = (Arc::clone(&vault), Arc::clone(&walk));
        let notifier =
            Notifier::new(NotifierParts { store: store.clone(), walk: walked, vault: vaulted, console: None, hooks });
        let parts =
            Parts { passkeys, providers, documents, store, walk, sign_ins, seal, vault, runtime, notifier, sandboxes };
        let app = App::new(parts, settings);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stop = CancellationToken::new();
        let serving = tokio::spawn(bailiwick_web::serve(listener, app, stop.clone()));
        let client = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { address, client, stop, serving, _dir: dir }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub fn request(&self, method: &str, path: &str, key: &str) -> RequestBuilder {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let request = self.client.request(method, self.url(path));
        if key.is_empty() { request } else { request.header("x-api-key", key) }
    }

    pub async fn get(&self, path: &str, key: &str) -> Response {
        self.request("GET", path, key).send().await.unwrap()
    }

    pub async fn send(&self, method: &str, path: &str, key: &str, body: Value) -> Response {
        self.request(method, path, key).json(&body).send().await.unwrap()
    }

    /// Sends and expects to be answered well; gives the result.
    pub async fn done(&self, method: &str, path: &str, key: &str, body: Value) -> Value {
        let request = self.request(method, path, key);
        let request = if body.is_null() { request } else { request.json(&body) };
        let (status, body) = taken(request.send().await.unwrap()).await;
        assert!(status.is_success(), "{method} {path}: {status} {body}");
        body.get("result").cloned().unwrap_or(body)
    }

    /// Sends and expects to be refused; gives the status and the error.
    pub async fn refused(&self, method: &str, path: &str, key: &str, body: Value) -> (u16, Value) {
        let request = self.request(method, path, key);
        let request = if body.is_null() { request } else { request.json(&body) };
        let (status, body) = taken(request.send().await.unwrap()).await;
        assert!(!status.is_success(), "{method} {path}: {status} {body}");
        (status.as_u16(), body)
    }

    pub async fn people(&self) -> People {
        let mut admins = Vec::new();
        for (account, admin) in [("acme", "alice"), ("globex", "bob")] {
            let made = self
                .done("POST", "/api/v1/admin/accounts", ROOT, json!({ "account_id": account, "admin_user_id": admin }))
                .await;
            admins.push(made["user_key"].as_str().unwrap().to_owned());
        }
        let (alice, bob) = (admins[0].clone(), admins[1].clone());
        let carol = self.user("acme", "carol", "user", &alice).await;
        let vera = self.user("acme", "vera", "viewer", &alice).await;
        let dave = self.user("globex", "dave", "user", &bob).await;
        People { alice, carol, vera, bob, dave }
    }

    /// A client that the operator registered.
    pub async fn client(&self) -> String {
        let metadata = json!({ "client_name": "walker", "redirect_uris": [CALLBACK],
            "token_endpoint_auth_method": "none" });
        let made = self.done("POST", "/api/v1/admin/clients", ROOT, metadata).await;
        made["client_id"].as_str().unwrap().to_owned()
    }

    /// What the holder of this key lets that client do for them, with its tokens.
    pub async fn application(&self, client: &str, key: &str) -> Application {
        let mut asked = consent(client);
        asked["decision"] = json!("allow");
        let sent = self.request("POST", "/oauth/authorize", key);
        let sent = sent.header("content-type", "application/x-www-form-urlencoded").body(form(&asked));
        let sent = sent.send().await.unwrap();
        assert_eq!(sent.status(), 303, "{:?}", sent.text().await);
        let code = answered(&sent)["code"].clone();
        let (status, tokens) = self.tokens(&redeeming(client, &code)).await;
        assert_eq!(status, 200, "{tokens}");
        let text = |name: &str| tokens[name].as_str().unwrap().to_owned();
        let id = code.split('_').nth(1).unwrap().to_owned();
        Application { id, access: text("access_token"), refresh: text("refresh_token") }
    }

    /// Asks for tokens.
    pub async fn tokens(&self, fields: &Value) -> (StatusCode, Value) {
        taken(self.posted("/oauth/token", fields).await).await
    }

    /// A form of nobody's.
    pub async fn posted(&self, path: &str, fields: &Value) -> Response {
        let sent = self.request("POST", path, "").header("content-type", "application/x-www-form-urlencoded");
        sent.body(form(fields)).send().await.unwrap()
    }

    pub async fn user(&self, account: &str, name: &str, role: &str, by: &str) -> String {
        let path = format!("/api/v1/admin/accounts/{account}/users");
        let made = self.done("POST", &path, by, json!({ "user_id": name, "role": role })).await;
        made["user_key"].as_str().unwrap().to_owned()
    }

    /// Gives a user the password of the tests.
    pub async fn password(&self, account: &str, user: &str) {
        let path = format!("/api/v1/admin/accounts/{account}/users/{user}/password");
        self.done("PUT", &path, ROOT, json!({ "password": PASSWORD })).await;
    }

    /// Signs a user in, with the password of the tests.
    pub async fn login(&self, account: &str, user: &str) -> Login {
        self.password(account, user).await;
        self.login_again(account, user).await
    }

    /// Signs a user in who has that password already.
    pub async fn login_again(&self, account: &str, user: &str) -> Login {
        let body = json!({ "username": user, "account": account, "password": PASSWORD, "deviceName": "test" });
        let made = self.done("POST", "/api/auth/login", "", body).await;
        let text = |name: &str| made[name].as_str().unwrap().to_owned();
        Login { token: text("token"), device: text("deviceId") }
    }

    pub async fn space(&self, key: &str, name: &str) -> String {
        let made = self.done("POST", "/api/v1/spaces", key, json!({ "name": name })).await;
        made["id"].as_str().unwrap().to_owned()
    }

    /// Asks again and again until an event is there; observations are written a little later.
    pub async fn event(&self, path: &str, key: &str, fits: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..200 {
            let events = self.done("GET", path, key, Value::Null).await;
            if let Some(found) = events.as_array().unwrap().iter().find(|event| fits(event)) {
                return found.clone();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("no such event under {path}");
    }
}

pub async fn taken(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let text = response.text().await.unwrap();
    (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
}

/// An error without what differs from request to request.
pub fn without_id(mut body: Value) -> String {
    if let Some(details) = body.pointer_mut("/error/details").and_then(Value::as_object_mut) {
        assert!(details.remove("request_id").is_some_and(|id| id.as_str().unwrap().starts_with("req_")));
    }
    if let Some(fields) = body.as_object_mut() {
        fields.remove("requestId");
    }
    body.to_string()
}

/// The stable word of a refusal.
pub fn reason(body: &Value) -> &str {
    let plain = body.get("code").filter(|_| body.get("ok").is_none());
    body.pointer("/error/details/reason").or(plain).and_then(Value::as_str).unwrap_or("")
}

pub fn code(body: &Value) -> &str {
    body.pointer("/error/code").and_then(Value::as_str).unwrap_or("")
}

/// What an authenticator app that was given this secret shows, some steps from now.
pub fn totp_code(secret: &str, steps: i64) -> String {
    use totp_rs::{Algorithm, Builder, Secret};
    let secret = Secret::try_from_base32(secret).unwrap();
    let app = Builder::new().with_algorithm(Algorithm::SHA1).with_digits(6).with_step_duration(30).with_secret(secret);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    app.build().unwrap().generate(now.checked_add_signed(steps * 30).unwrap()).to_string()
}

/// The word of a page's failure.
pub fn page_reason(response: &Response) -> String {
    response.headers().get("x-bailiwick-reason").map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

/// The fields of a form, as a browser sends them.
pub fn form(fields: &Value) -> String {
    let mut form = form_urlencoded::Serializer::new(String::new());
    for (name, value) in fields.as_object().into_iter().flatten() {
        form.append_pair(name, value.as_str().unwrap_or(""));
    }
    form.finish()
}
