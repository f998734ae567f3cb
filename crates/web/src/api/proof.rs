//! What others can check of a log without trusting this server's database: its signed head, proofs, the
//! whole of it as a file; and retention. The routes stand with the log's others, in `audit`.

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bailiwick_audit::checkpoint::SignedNote;
use bailiwick_audit::event::hex;
use bailiwick_audit::{Hash, Head};
use bailiwick_auth::access::verb::{ReadAccountAudit, ReadHostAudit, RetireAudit, RetireHostAudit};
use bailiwick_store::log::{ConsistencyProof, Export, ExportForm, InclusionProof, Retired};
use bailiwick_types::Timestamp;
use bytes::Bytes;
use futures::stream;
use http::header::{ACCEPT, CONTENT_DISPOSITION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue};
use serde::Deserialize;
use serde_json::json;

use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::{Params, Unread};
use crate::reply;

#[derive(Deserialize)]
pub(crate) struct Included {
    seq: Option<u64>,
    size: Option<u64>,
}

#[derive(Deserialize)]
pub(crate) struct Continued {
    from: Option<u64>,
    to: Option<u64>,
}

#[derive(Deserialize)]
pub(crate) struct Wanted {
    format: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Older {
    before: Timestamp,
}

/// Asked for only once the right is there, like a body.
fn needed(name: &str, value: Option<u64>) -> Result<u64, Failure> {
    value.ok_or_else(|| Failure::Parameters(format!("query.{name}: is missing: give a number")))
}

fn texts(hashes: &[Hash]) -> Vec<String> {
    hashes.iter().map(|hash| hex(hash)).collect()
}

/// The note itself for who asks for text, else what it says with it.
fn signed(app: &App, headers: &HeaderMap, (head, note): (Head, SignedNote)) -> Result<Response, Failure> {
    let text = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).is_some_and(|it| it.starts_with("text/plain"));
    if text {
        return Ok(([(CONTENT_TYPE, "text/plain; charset=utf-8")], note.to_string()).into_response());
    }
    let said = note.read_unverified().map_err(|_| Failure::Defect("a checkpoint that cannot be read"))?;
    Ok(reply::done(json!({
        "origin": said.origin,
        "size": head.size,
        "root": hex(&head.root),
        "time": said.time(),
        "note": note.to_string(),
        "key": app.store().verifier_key()?.to_string(),
    })))
}

pub(crate) async fn checkpoint(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<ReadAccountAudit>(scope.account())?;
    signed(&app, &headers, app.store().event_checkpoint(permit).await?)
}

pub(crate) async fn checkpoint_host(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let permit = caller.host().authorize::<ReadHostAudit>()?;
    signed(&app, &headers, app.store().event_checkpoint_host(permit).await?)
}

fn included(proof: &InclusionProof) -> Response {
    reply::done(json!({
        "seq": proof.seq,
        "size": proof.head.size,
        "leaf_hash": hex(&proof.leaf),
        "root": hex(&proof.head.root),
        "hashes": texts(&proof.hashes),
    }))
}

pub(crate) async fn inclusion(
    State(app): State<App>,
    caller: Caller,
    Params(wanted): Params<Included>,
) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<ReadAccountAudit>(scope.account())?;
    let _place = app.verification_place().await?;
    Ok(included(&app.store().event_proof_inclusion(permit, needed("seq", wanted.seq)?, wanted.size).await?))
}

pub(crate) async fn inclusion_host(
    State(app): State<App>,
    caller: Caller,
    Params(wanted): Params<Included>,
) -> Result<Response, Failure> {
    let permit = caller.host().authorize::<ReadHostAudit>()?;
    let _place = app.verification_place().await?;
    Ok(included(&app.store().event_proof_inclusion_host(permit, needed("seq", wanted.seq)?, wanted.size).await?))
}

fn continued(proof: &ConsistencyProof) -> Response {
    reply::done(json!({
        "from": proof.from.size,
        "from_root": hex(&proof.from.root),
        "to": proof.to.size,
        "to_root": hex(&proof.to.root),
        "hashes": texts(&proof.hashes),
    }))
}

pub(crate) async fn consistency(
    State(app): State<App>,
    caller: Caller,
    Params(wanted): Params<Continued>,
) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<ReadAccountAudit>(scope.account())?;
    let _place = app.verification_place().await?;
    Ok(continued(&app.store().event_proof_consistency(permit, needed("from", wanted.from)?, wanted.to).await?))
}

pub(crate) async fn consistency_host(
    State(app): State<App>,
    caller: Caller,
    Params(wanted): Params<Continued>,
) -> Result<Response, Failure> {
    let permit = caller.host().authorize::<ReadHostAudit>()?;
    let _place = app.verification_place().await?;
    Ok(continued(&app.store().event_proof_consistency_host(permit, needed("from", wanted.from)?, wanted.to).await?))
}

impl Wanted {
    fn form(&self) -> Result<ExportForm, Failure> {
        match self.format.as_deref() {
            None | Some("jsonl") => Ok(ExportForm::JsonLines),
            Some("csv") => Ok(ExportForm::Table),
            Some(_) => Err(Failure::Parameters("query.format: use jsonl or csv".to_owned())),
        }
    }
}

/// A file that is read while it is sent. Each piece waits for its turn among those who read whole logs; a
/// slow reader holds no place and no transaction.
async fn download(app: App, form: ExportForm, mut export: Export) -> Result<Response, Failure> {
    let (ending, media) = match form {
        ExportForm::JsonLines => ("jsonl", "application/jsonl; charset=utf-8"),
        ExportForm::Table => ("csv", "text/csv; charset=utf-8"),
    };
    let name = format!("attachment; filename=\"{}.{ending}\"", export.log());
    // The first piece before the status is sent: what fails at once is told as a failure.
    let first = export.piece().await?.map(Bytes::from);
    let rest = stream::try_unfold((app, export), |(app, mut export)| async move {
        let piece = {
            let _place = app.verification_place().await?;
            export.piece().await?
        };
        Ok::<_, Failure>(piece.map(|piece| (Bytes::from(piece), (app, export))))
    });
    let whole = futures::StreamExt::chain(stream::iter(first.map(Ok)), rest);
    let mut response = Body::from_stream(whole).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(media));
    headers.insert(CONTENT_DISPOSITION, HeaderValue::try_from(name).unwrap_or(HeaderValue::from_static("attachment")));
    Ok(response)
}

pub(crate) async fn export(
    State(app): State<App>,
    caller: Caller,
    Params(wanted): Params<Wanted>,
) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<ReadAccountAudit>(scope.account())?;
    let form = wanted.form()?;
    let export = app.store().event_export(permit, form).await?;
    download(app, form, export).await
}

pub(crate) async fn export_host(
    State(app): State<App>,
    caller: Caller,
    Params(wanted): Params<Wanted>,
) -> Result<Response, Failure> {
    let permit = caller.host().authorize::<ReadHostAudit>()?;
    let form = wanted.form()?;
    let export = app.store().event_export_host(permit, form).await?;
    download(app, form, export).await
}

fn retired(done: Retired) -> Response {
    reply::done(json!({ "below": done.below, "retired": done.erased }))
}

pub(crate) async fn retire(State(app): State<App>, caller: Caller, body: Unread) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<RetireAudit>(scope.account())?;
    let older: Older = body.json().await?;
    let store = app.store().clone();
    // It goes on if the caller goes away: what was begun is better ended.
    let done = tokio::spawn(async move { store.event_retire(permit, older.before).await });
    Ok(retired(done.await.map_err(|_| Failure::Defect("a retirement panicked"))??))
}

pub(crate) async fn retire_host(State(app): State<App>, caller: Caller, body: Unread) -> Result<Response, Failure> {
    let permit = caller.host().authorize::<RetireHostAudit>()?;
    let older: Older = body.json().await?;
    let store = app.store().clone();
    let done = tokio::spawn(async move { store.event_retire_host(permit, older.before).await });
    Ok(retired(done.await.map_err(|_| Failure::Defect("a retirement panicked"))??))
}
