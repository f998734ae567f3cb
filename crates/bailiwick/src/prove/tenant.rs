//! A throw-away account with one of everything, and a secret in each text of it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::ProveError;
use super::report::Report;
use crate::client::{Ask, Client, ClientError, Lines, SessionStream, Settings};
use crate::command::text;
use crate::failure::Failure;
use crate::out;

/// How long an agent may take to ask for its approval, and an event to come.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// The names of this run: random, so that they meet nobody's.
pub(super) struct Names {
    random: String,
    made: Mutex<Vec<String>>,
}

impl Names {
    pub(super) fn new() -> Result<Self, ProveError> {
        Ok(Self { random: random()?, made: Mutex::new(Vec::new()) })
    }

    /// An account's name, which is remembered so that it can be deleted.
    pub(super) fn account(&self, label: &str) -> String {
        let name = format!("prove-{}-{label}", self.random);
        self.made.lock().unwrap_or_else(PoisonError::into_inner).push(name.clone());
        name
    }

    /// All accounts that were to be made.
    pub(super) fn made(&self) -> Vec<String> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Sixteen random characters.
fn random() -> Result<String, ProveError> {
    let mut bytes = [0u8; 8];
    getrandom::fill(&mut bytes).map_err(|_| ProveError::Entropy)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// An account, its people, and what is in it.
pub(super) struct Tenant {
    pub(super) admin: Client,
    pub(super) member: Client,
    /// The admin's name.
    pub(super) chief: String,
    /// What stands in the variable parts of a path.
    pub(super) ids: BTreeMap<&'static str, String>,
    /// Stands in every text of this account, and nobody else ever sends it.
    pub(super) secret: String,
}

/// The host for which the account's secret is.
const HOST: &str = "api.example";

impl Tenant {
    /// Makes it, and fills it.
    pub(super) async fn make(
        operator: &Client,
        settings: &Settings,
        names: &Names,
        label: &str,
        report: &mut Report,
    ) -> Result<Self, Failure> {
        let account = names.account(label);
        let (chief, user) = (format!("chief-{}", random()?), format!("user-{}", random()?));
        let secret = format!("secret-{}{}", random()?, random()?);
        let body = json!({ "account_id": account, "admin_user_id": chief });
        let made = operator.api(Method::POST, &["admin", "accounts"], Ask::body(&body)).await?;
        let admin = with_key(settings, text(&made, "user_key")?)?;
        let users = ["admin", "accounts", &account, "users"];
        let made = admin.api(Method::POST, &users, Ask::body(&json!({ "user_id": user, "role": "user" }))).await?;
        let member = with_key(settings, text(&made, "user_key")?)?;
        let keys = [&users[..], &[user.as_str(), "keys"]].concat();
        let key = admin.api(Method::POST, &keys, Ask::body(&json!({ "name": secret }))).await?;
        let agent = format!("agent-{}", random()?);
        let definition = json!({
            "name": secret, "instructions": secret, "tools": ["read_file", "write_file", "bash"],
            "require_approval": ["write_file"],
            // So that it stays after the job.
            "sandbox": { "scope": "agent" },
        });
        admin.api(Method::PUT, &["agents", &agent], Ask::body(&definition)).await?;
        let space = json!({ "name": secret, "description": secret });
        let space = admin.api(Method::POST, &["spaces"], Ask::body(&space)).await?;
        let space = text(&space, "id")?.to_owned();
        for path in ["secret.txt", "folder/secret.txt"] {
            let content = ["api", "v1", "spaces", &space, "files", "content"];
            admin.upload(&content, &[("path", path.to_owned())], secret.clone().into_bytes()).await?;
        }
        let plan = json!({ "items": [{ "text": secret, "status": "pending" }] });
        admin.api(Method::PUT, &["spaces", &space, "plan"], Ask::body(&plan)).await?;
        let grant = json!({ "user": user, "level": "read" });
        admin.api(Method::PUT, &["spaces", &space, "grants"], Ask::body(&grant)).await?;
        // Before the rule, which it would break.
        let job = job(&admin, &space, &agent, &secret).await?;
        let running = admin.api(Method::GET, &["sandboxes"], Ask::NOTHING).await.unwrap_or_default();
        let sandbox = out::array(&running).iter().find_map(|row| row["id"].as_str()).map(str::to_owned);
        if sandbox.is_none() {
            report.note(format!("nothing runs in a sandbox of account {label}: ending one is not probed"));
        }
        let rule = json!({ "text": rule(&secret) });
        admin.api(Method::PUT, &["policies"], Ask::body(&rule)).await?;
        let token = format!("token-{}", random()?);
        let sealed = json!({ "value": secret, "note": secret });
        admin.api(Method::PUT, &["secrets", &token], Ask::body(&sealed)).await?;
        let granted = ["secrets", &token, "grants", &agent, HOST];
        admin.api(Method::PUT, &granted, Ask::NOTHING).await?;
        let notification = format!("target-{}", random()?);
        // Paused at once: nobody is to be called.
        let target = json!({
            "name": notification, "kind": "discord", "events": ["done"],
            "address": format!("https://discord.com/api/webhooks/1/{secret}"),
        });
        admin.api(Method::POST, &["notifications"], Ask::body(&target)).await?;
        let paused = json!({ "paused": true });
        admin.api(Method::PATCH, &["notifications", &notification], Ask::body(&paused)).await?;
        let mut ids = BTreeMap::from([
            ("notification", notification),
            ("secret", token),
            ("hosts", HOST.to_owned()),
            ("account", account),
            ("user", user),
            ("key", text(&key, "id")?.to_owned()),
            ("agent", agent),
            ("space", space),
            ("job", job),
        ]);
        ids.extend(sandbox.map(|id| ("sandbox", id)));
        ids.extend(logins(operator, &ids["account"], [&chief, &ids["user"].clone()], &secret, report).await?);
        ids.extend(application(operator, &admin, &secret, report).await?);
        if let Some((session, approval)) = begin(&admin, &ids, &secret, label, report).await? {
            ids.insert("child", session.clone());
            ids.insert("call", "call_1".to_owned());
            ids.insert("session", session);
            ids.extend(approval.map(|id| ("approval", id)));
        }
        Ok(Self { admin, member, chief, ids, secret })
    }

    /// An id of this account; nothing if there is no such thing in it.
    pub(super) fn id(&self, name: &str) -> &str {
        self.ids.get(name).map_or("", String::as_str)
    }

    /// Everything of this account that can be read, without what reading changes.
    pub(super) async fn snapshot(&self) -> Result<BTreeMap<String, String>, Failure> {
        let (account, user, space) = (self.id("account"), self.id("user"), self.id("space"));
        let mut targets = vec![
            format!("/api/v1/admin/accounts/{account}"),
            format!("/api/v1/admin/accounts/{account}/users"),
            format!("/api/v1/admin/accounts/{account}/users/{user}/keys"),
            format!("/api/v1/admin/accounts/{account}/users/{user}/devices"),
            "/api/v1/devices".to_owned(),
            "/api/v1/applications".to_owned(),
            format!("/api/v1/agents/{}", self.id("agent")),
            "/api/v1/policies".to_owned(),
            "/api/v1/secrets".to_owned(),
            "/api/v1/notifications".to_owned(),
            format!("/api/v1/spaces/{space}"),
            format!("/api/v1/spaces/{space}/grants"),
            format!("/api/v1/spaces/{space}/plan"),
            format!("/api/v1/spaces/{space}/jobs/{}", self.id("job")),
            format!("/api/v1/spaces/{space}/jobs/{}/log", self.id("job")),
            format!("/api/v1/spaces/{space}/files?recursive=true"),
            format!("/api/v1/spaces/{space}/files/content?path=secret.txt"),
            format!("/api/v1/spaces/{space}/files/content?path=folder/secret.txt"),
        ];
        if self.ids.contains_key("session") {
            targets.push(format!("/api/v1/sessions/{}", self.id("session")));
        }
        if self.ids.contains_key("approval") {
            targets.push(format!("/api/v1/approvals/{}", self.id("approval")));
        }
        let mut shown = BTreeMap::new();
        for target in targets {
            let answer = self.admin.raw(&Method::GET, &target, None).await?;
            let text = match serde_json::from_slice::<Value>(&answer.body) {
                Ok(mut value) => {
                    if let Some(rows) = value["result"].as_array_mut() {
                        rows.iter_mut().filter_map(Value::as_object_mut).for_each(|row| {
                            row.remove("last_used_at");
                            row.remove("last_seen_at");
                        });
                    }
                    value.to_string()
                }
                Err(_) => String::from_utf8_lossy(&answer.body).into_owned(),
            };
            shown.insert(target, format!("{} {text}", answer.status.as_u16()));
        }
        Ok(shown)
    }
}

/// A rule of the account's own that never applies.
pub(super) fn rule(secret: &str) -> String {
    format!(
        "@id(\"{secret}\") forbid (principal, action == Action::\"tool.call\", resource) when {{ \
         context.arguments has command && context.arguments.command like \"*{secret}*\" }};"
    )
}

/// A client with another key.
fn with_key(settings: &Settings, key: &str) -> Result<Client, ClientError> {
    let key = Some(Zeroizing::new(key.to_owned()));
    Client::new(&Settings { url: settings.url.clone(), key, account: None, user: None })
}

/// A job that says the secret, and has ended: well, or because this host has no sandbox for it.
async fn job(admin: &Client, space: &str, agent: &str, secret: &str) -> Result<String, Failure> {
    let body = json!({ "agent": agent, "command": format!("echo {secret}") });
    let made = admin.api(Method::POST, &["spaces", space, "jobs"], Ask::body(&body)).await?;
    let id = text(&made, "id")?.to_owned();
    let log = ["api", "v1", "spaces", space, "jobs", &id, "log"];
    // What is probed afterwards must not change by itself; the log ends with the job.
    if let Ok(response) = admin.open(&log, &[("follow", "true".to_owned())]).await {
        let mut lines = Lines::new(response);
        let ended = async { while let Ok(Some(_)) = lines.next().await {} };
        let _ = tokio::time::timeout(PATIENCE, ended).await;
    }
    Ok(id)
}

/// A login of each of the two: one's own is `device`, that of another is `login`.
async fn logins(
    operator: &Client,
    account: &str,
    users: [&str; 2],
    password: &str,
    report: &mut Report,
) -> Result<Vec<(&'static str, String)>, Failure> {
    let mut made = Vec::new();
    for (name, user) in ["device", "login"].into_iter().zip(users) {
        let path = ["admin", "accounts", account, "users", user, "password"];
        operator.api(Method::PUT, &path, Ask::body(&json!({ "password": password }))).await?;
        let body = json!({ "username": user, "account": account, "password": password, "deviceName": "prove" });
        let login = operator.json(Method::POST, &["api", "auth", "login"], Ask::body(&body)).await.ok();
        match login.as_ref().and_then(|login| login["deviceId"].as_str()) {
            Some(id) => made.push((name, id.to_owned())),
            None => {
                report.note("nobody can sign in with a password: logins are not probed".to_owned());
                break;
            }
        }
    }
    Ok(made)
}

/// A program that the admin lets act for them, with its tokens, as a browser and the program would do it.
async fn application(
    operator: &Client,
    admin: &Client,
    secret: &str,
    report: &mut Report,
) -> Result<Vec<(&'static str, String)>, Failure> {
    const FORM: &str = "application/x-www-form-urlencoded";
    // Of RFC 7636, appendix B: here it keeps nothing secret.
    const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
    const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
    let callback = "http://127.0.0.1:3000/callback";
    let metadata = json!({ "client_name": secret, "redirect_uris": [callback], "token_endpoint_auth_method": "none" });
    let client = operator.api(Method::POST, &["admin", "clients"], Ask::body(&metadata)).await.ok();
    let Some(client) = client.as_ref().and_then(|client| client["client_id"].as_str()).map(str::to_owned) else {
        report.note("no program could be registered: applications are not probed".to_owned());
        return Ok(Vec::new());
    };
    let redirect = "redirect_uri=http%3A%2F%2F127.0.0.1%3A3000%2Fcallback";
    let asked = format!(
        "response_type=code&client_id={client}&{redirect}&code_challenge={CHALLENGE}&code_challenge_method=S256&\
         decision=allow"
    );
    let back = admin.raw(&Method::POST, "/oauth/authorize", Some((FORM, asked.into_bytes()))).await?;
    let location = back.headers.get("location").and_then(|value| value.to_str().ok()).unwrap_or("");
    let code = location.split(['?', '&']).find_map(|pair| pair.strip_prefix("code="));
    let mut made = vec![("client", client.clone())];
    let Some((code, id)) = code.and_then(|code| Some((code, code.split('_').nth(1)?.to_owned()))) else {
        report.note("this server has no authorization server: applications are not probed".to_owned());
        return Ok(made);
    };
    let redeem =
        format!("grant_type=authorization_code&client_id={client}&code={code}&{redirect}&code_verifier={VERIFIER}");
    let tokens = operator.raw(&Method::POST, "/oauth/token", Some((FORM, redeem.into_bytes()))).await?;
    if tokens.status.is_success() {
        made.push(("application", id));
    }
    Ok(made)
}

/// A session whose agent asks for an approval. Without a model there is none of either.
async fn begin(
    admin: &Client,
    ids: &BTreeMap<&'static str, String>,
    secret: &str,
    label: &str,
    report: &mut Report,
) -> Result<Option<(String, Option<String>)>, Failure> {
    let client = admin.clone().with_header("x-bailiwick-agent", &ids["agent"])?;
    let client = client.with_header("x-bailiwick-space", &ids["space"])?;
    let message = format!("Please call the tool write_file with the path proof.txt and the content {secret}.");
    let made = client.eve(Method::POST, &["session"], Ask::body(&json!({ "message": message }))).await;
    let session = match made.as_ref().map(|made| text(made, "sessionId")) {
        Ok(Ok(id)) => id.to_owned(),
        Ok(Err(_)) | Err(_) => {
            report.note(format!("no session could be begun in account {label}: sessions and approvals are not probed"));
            return Ok(None);
        }
    };
    let mut stream = SessionStream::new(client, session.clone(), 0);
    let waiting = async {
        loop {
            match stream.next().await {
                Ok(event) if event.kind == "turn.waiting" => return true,
                Ok(event) if matches!(event.kind.as_str(), "session.waiting" | "turn.failed") => return false,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    };
    let approval = match tokio::time::timeout(PATIENCE, waiting).await {
        Ok(true) => {
            let pending = admin.api(Method::GET, &["approvals"], Ask::NOTHING).await?;
            let own = out::array(&pending).iter().find(|row| row["session_id"].as_str() == Some(session.as_str()));
            own.and_then(|row| row["id"].as_str()).map(str::to_owned)
        }
        _ => None,
    };
    if approval.is_none() {
        report.note(format!(
            "the model of account {label} asked for no approval (is one configured?): approvals are not probed"
        ));
    }
    Ok(Some((session, approval)))
}
