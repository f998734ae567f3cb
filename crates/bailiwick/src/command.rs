//! The commands that are clients of the HTTP API, one file a resource as in every other layer. A
//! command sends a request and prints the answer; it decides nothing, for the server decides.

pub(crate) mod account;
pub(crate) mod agent;
pub(crate) mod approval;
pub(crate) mod audit;
pub(crate) mod database;
pub(crate) mod job;
pub(crate) mod key;
pub(crate) mod notification;
pub(crate) mod policy;
pub(crate) mod sandbox;
pub(crate) mod secret;
pub(crate) mod session;
pub(crate) mod space;
pub(crate) mod usage;
pub(crate) mod user;
pub(crate) mod vault;

use reqwest::Method;
use serde_json::Value;

use crate::client::{Ask, Client, ClientError, Given, Settings};
use crate::failure::Failure;
use crate::out::{self, Format};

/// What every command works with.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) format: Format,
    account: Option<String>,
}

impl Context {
    /// Reads the client's settings.
    pub(crate) fn new(given: Given, format: Format) -> Result<Self, Failure> {
        let settings = Settings::load(given)?;
        let client = Client::new(&settings)?;
        Ok(Self { client, format, account: settings.account })
    }

    /// The account that admin commands are about: the named one, else the caller's own.
    pub(crate) async fn account(&self) -> Result<String, Failure> {
        if let Some(account) = &self.account {
            return Ok(account.clone());
        }
        let me = self.get(&["system", "status"]).await?;
        me["account"].as_str().map(str::to_owned).ok_or(Failure::Usage {
            text: "your key belongs to no account".to_owned(),
            hint: "name the account with --account",
        })
    }

    /// The caller's own name.
    pub(crate) async fn user(&self) -> Result<String, Failure> {
        let me = self.get(&["system", "status"]).await?;
        me["user"]
            .as_str()
            .map(str::to_owned)
            .ok_or(Failure::Usage { text: "your key belongs to no user".to_owned(), hint: "name the user" })
    }

    pub(crate) async fn get(&self, path: &[&str]) -> Result<Value, ClientError> {
        self.client.api(Method::GET, path, Ask::NOTHING).await
    }

    pub(crate) async fn get_with(&self, path: &[&str], query: &[(&str, String)]) -> Result<Value, ClientError> {
        self.client.api(Method::GET, path, Ask::query(query)).await
    }

    pub(crate) async fn post(&self, path: &[&str], body: &Value) -> Result<Value, ClientError> {
        self.client.api(Method::POST, path, Ask::body(body)).await
    }

    pub(crate) async fn put(&self, path: &[&str], body: &Value) -> Result<Value, ClientError> {
        self.client.api(Method::PUT, path, Ask::body(body)).await
    }

    pub(crate) async fn patch(&self, path: &[&str], body: &Value) -> Result<Value, ClientError> {
        self.client.api(Method::PATCH, path, Ask::body(body)).await
    }

    pub(crate) async fn delete(&self, path: &[&str]) -> Result<Value, ClientError> {
        self.client.api(Method::DELETE, path, Ask::NOTHING).await
    }

    /// Says that something was done: a sentence, or the server's answer as JSON.
    pub(crate) fn done(&self, answer: &Value, sentence: &str) {
        match self.format {
            Format::Json => out::json(answer),
            Format::Text => out::line(&out::clean(sentence)),
        }
    }

    /// Shows a new key: alone on standard output, so that it can be caught in a variable, with the
    /// warning beside it.
    pub(crate) fn new_key(&self, answer: &Value, key: &str, sentence: &str) {
        if self.format == Format::Json {
            return out::json(answer);
        }
        out::note(&out::clean(sentence));
        out::note("The key is shown this once; keep it where only you can read it:");
        out::line(&out::clean(key));
    }
}

/// A field that the server's answer must have.
pub(crate) fn text<'a>(answer: &'a Value, field: &'static str) -> Result<&'a str, ClientError> {
    answer[field].as_str().ok_or(ClientError::Incomplete(field))
}
