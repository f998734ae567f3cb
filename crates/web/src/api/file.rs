//! Files of a space. A path is parsed before anything is opened; content goes out as an attachment
//! that no browser shows, and comes in as a stream that is bounded and never held whole. A change is
//! on record before it is made.

use std::io::{self, Read};
use std::time::{Duration, Instant, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bailiwick_audit::Verdict;
use bailiwick_auth::Permit;
use bailiwick_auth::access::record;
use bailiwick_auth::access::verb::{ReadSpace, WriteSpace};
use bailiwick_files::{Entry, EntryKind, Expect, FileError, WalkLimits, Workspace, Written};
use bailiwick_store::Store;
use bailiwick_store::storage::{Need, Room};
use bailiwick_types::limits::{PAGE_ROWS, UPLOAD_BYTES};
use bailiwick_types::{Timestamp, WorkspacePath};
use bytes::{Buf, Bytes};
use http::HeaderValue;
use http::header::{CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use serde::{Deserialize, Serialize};
use serde_json::{Map, json};
use tokio::io::AsyncReadExt;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::io::ReaderStream;

use crate::api::space::find;
use crate::app::App;
use crate::caller::Caller;
use crate::error::Failure;
use crate::input::{Params, Segments, Unread};
use crate::meters::{Scarce, Slot};
use crate::reply::{self, More};
use crate::route::routes;

routes! {
    GET "/api/v1/spaces/{space}/files" list, Known, [ReadSpace], Nothing, "What a folder of the space holds (path, recursive)";
    GET "/api/v1/spaces/{space}/files/content" read, Known, [ReadSpace], Nothing, "A file's bytes (path)";
    PUT "/api/v1/spaces/{space}/files/content" write, Known, [WriteSpace], File, "Create or replace a file (path); the body is its content";
    DELETE "/api/v1/spaces/{space}/files/content" remove, Known, [WriteSpace], Nothing, "Remove a file or an empty folder (path), or all below it (recursive)";
}

/// Folders below folders in one recursive listing.
const DEEPEST: usize = 16;
/// Pieces of an upload that may wait to be written.
const PIECES: usize = 8;
/// An upload that comes slower than this, bytes a second, is broken off,
const SLOWEST: u64 = 16 * 1024;
/// but not before so long.
const SLACK: Duration = Duration::from_secs(20);

#[derive(Deserialize)]
struct Place {
    path: Option<String>,
    #[serde(default)]
    recursive: bool,
}

impl Place {
    fn folder(&self) -> Result<WorkspacePath, Failure> {
        match self.path.as_deref() {
            None | Some("") => Ok(WorkspacePath::root()),
            Some(path) => Ok(WorkspacePath::parse(path)?),
        }
    }

    fn file(&self) -> Result<WorkspacePath, Failure> {
        Ok(WorkspacePath::parse(self.path.as_deref().unwrap_or(""))?)
    }
}

#[derive(Serialize)]
struct Shown {
    path: String,
    name: String,
    kind: &'static str,
    size: u64,
    modified: Timestamp,
}

fn shown(path: String, entry: Entry) -> Shown {
    let kind = match entry.kind {
        EntryKind::File => "file",
        EntryKind::Directory => "directory",
        EntryKind::Symlink => "symlink",
        EntryKind::Special => "special",
        EntryKind::Unnameable => "unnameable",
    };
    let since = entry.modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    let modified = Timestamp::from_micros(i64::try_from(since.as_micros()).unwrap_or(i64::MAX));
    Shown { path, name: entry.name, kind, size: entry.size, modified }
}

/// Files block their thread, and so get one of their own.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Failure::Defect("work on files panicked"))
}

async fn list(
    State(app): State<App>,
    caller: Caller,
    Segments(space): Segments<String>,
    Params(place): Params<Place>,
) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<ReadSpace>(find(&app, &scope, &space).await?)?;
    let path = place.folder()?;
    let files = app.store().space_files(&permit).await?;
    let within = path.clone();
    let entries = blocking(move || entries(&files, &within, place.recursive)).await?;
    let (rows, more) = entries.map_err(|error| Failure::of_file(error, &path))?;
    Ok(reply::page(rows, more))
}

fn entries(files: &Workspace, path: &WorkspacePath, recursive: bool) -> Result<(Vec<Shown>, More), FileError> {
    if recursive {
        let mut walk = files.walk(path, WalkLimits { depth: DEEPEST, entries: PAGE_ROWS })?;
        let rows = walk.by_ref().map(|walked| shown(walked.path.as_str().to_owned(), walked.entry)).collect();
        return Ok((rows, if walk.truncated() { More::Yes } else { More::No }));
    }
    let listing = files.list(path, PAGE_ROWS)?;
    let rows = listing
        .entries
        .into_iter()
        .map(|entry| {
            let full = path.join(&entry.name).map_or_else(|_| entry.name.clone(), |full| full.as_str().to_owned());
            shown(full, entry)
        })
        .collect();
    Ok((rows, if listing.truncated { More::Yes } else { More::No }))
}

async fn read(
    State(app): State<App>,
    caller: Caller,
    Segments(space): Segments<String>,
    Params(place): Params<Place>,
) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<ReadSpace>(find(&app, &scope, &space).await?)?;
    let path = place.file()?;
    let files = app.store().space_files(&permit).await?;
    let wanted = path.clone();
    let open = blocking(move || files.reader(&wanted)).await?.map_err(|error| Failure::of_file(error, &path))?;
    let size = open.stat().size;
    // The length is promised, so a file that grows meanwhile is cut at it.
    let content = tokio::fs::File::from_std(open.into_file()).take(size);
    let mut response = Body::from_stream(ReaderStream::with_capacity(content, 64 * 1024)).into_response();
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(size));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'; sandbox"));
    headers.insert(CONTENT_DISPOSITION, attachment(path.file_name().unwrap_or("file")));
    Ok(response)
}

/// `attachment` with the name in RFC 8187's form, in which every name can be written.
fn attachment(name: &str) -> HeaderValue {
    let mut text = String::from("attachment; filename*=UTF-8''");
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_') {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("attachment"))
}

async fn write(
    State(app): State<App>,
    caller: Caller,
    Segments(space): Segments<String>,
    Params(place): Params<Place>,
    body: Unread,
) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<WriteSpace>(find(&app, &scope, &space).await?)?;
    let path = place.file()?;
    let files = app.store().space_files_to_write(&permit).await?;
    let own = Slot::take(Scarce::Uploads, &app, &caller)?;
    // A place is waited for before anything is on record, and held until the file is written.
    let place = app.upload_place().await?;
    let (looking, at) = (files.clone(), path.clone());
    // What is replaced makes room for what comes.
    let replaced = blocking(move || looking.stat(&at).map_or(0, |stat| stat.size)).await?;
    let need = body.length().map_or(Need::UpTo(UPLOAD_BYTES), |length| Need::All(length.saturating_sub(replaced)));
    let room = app.store().storage_reserve(&permit, need).await?;
    let upload = receive(files, path.clone(), body, (room, replaced), (place, own));
    let written = change(app.store(), permit, "put", &path, upload).await?;
    let hash = bailiwick_audit::event::hex(&written.sha256);
    Ok(reply::done(json!({
        "path": path.as_str(), "size": written.size, "sha256": hash, "created": written.created,
    })))
}

async fn remove(
    State(app): State<App>,
    caller: Caller,
    Segments(space): Segments<String>,
    Params(place): Params<Place>,
) -> Result<Response, Failure> {
    let scope = caller.scope()?;
    let permit = scope.authorize::<WriteSpace>(find(&app, &scope, &space).await?)?;
    let path = place.file()?;
    if path.is_root() {
        return Err(Failure::NotAccepted {
            reason: "whole_space",
            message: "path: names the whole space. Remove what is in it by name, or delete the space itself.",
        });
    }
    let files = app.store().space_files_to_write(&permit).await?;
    // Held by the work and not by the request: it goes on when whoever asked has gone.
    let places = (Slot::take(Scarce::Uploads, &app, &caller)?, app.upload_place().await?);
    let (wanted, named) = (path.clone(), path.clone());
    let removing = async move {
        let removed = blocking(move || {
            let _held = places;
            if place.recursive { files.remove_all(&wanted) } else { files.remove(&wanted) }
        });
        removed.await?.map_err(|error| Failure::of_file(error, &named))
    };
    let action = if place.recursive { "delete-all" } else { "delete" };
    let removed = change(app.store(), permit, action, &path, removing).await;
    // Also after a failure: a part of it may be gone.
    app.store().storage_shrank(scope.tenant());
    removed?;
    Ok(reply::done(json!({ "path": path.as_str(), "deleted": true })))
}

/// Puts a change on record, makes it, and puts its outcome on record; the last two even if the caller
/// goes away.
async fn change<T: Send + 'static>(
    store: &Store,
    permit: Permit<WriteSpace>,
    operation: &'static str,
    path: &WorkspacePath,
    effect: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    let detail = Map::from_iter([("file".to_owned(), json!(operation)), ("path".to_owned(), json!(path.as_str()))]);
    let act = record(store, permit, detail.clone()).await?;
    let store = store.clone();
    let done = tokio::spawn(async move {
        let done = effect.await;
        let verdict = if done.is_ok() { Verdict::Ok } else { Verdict::Fail };
        act.settle(&store, verdict, detail).await?;
        done
    });
    done.await.map_err(|_| Failure::Defect("work on files panicked"))?
}

/// A piece of an upload, or its honest end. A stream that stops without one was broken off.
enum Piece {
    Data(Bytes),
    End,
}

/// Writes a body to a file while it comes in. What is broken off or too long leaves no file.
async fn receive(
    files: Workspace,
    path: WorkspacePath,
    mut body: Unread,
    (room, replaced): (Room, u64),
    places: (OwnedSemaphorePermit, Option<Slot>),
) -> Result<Written, Failure> {
    let (pieces, waiting) = mpsc::channel(PIECES);
    let target = path.clone();
    let most = room.bytes().map_or(UPLOAD_BYTES, |room| room.saturating_add(replaced).min(UPLOAD_BYTES));
    let writing = tokio::task::spawn_blocking(move || {
        files.write_from(&target, Upload { waiting, rest: Bytes::new(), ended: false }, most, Expect::Anything)
    });
    let broken = pump(&mut body, pieces).await;
    let written = writing.await.map_err(|_| Failure::Defect("work on files panicked"))?;
    drop(places);
    broken?;
    match written {
        Ok(written) => {
            room.fill(written.size.saturating_sub(replaced));
            Ok(written)
        }
        Err(FileError::TooLarge { limit }) => Err(match room.exhausted().filter(|_| limit < UPLOAD_BYTES) {
            Some(exhausted) => Failure::Store(exhausted.into()),
            None => Failure::TooLong(limit),
        }),
        Err(other) => Err(Failure::of_file(other, &path)),
    }
}

/// Hands on what comes, as long as it comes fast enough: an upload holds a thread.
async fn pump(body: &mut Unread, pieces: mpsc::Sender<Piece>) -> Result<(), Failure> {
    let begun = Instant::now();
    let mut bytes = 0u64;
    loop {
        let piece = body.piece().await?;
        let end = piece.is_none();
        bytes += piece.as_ref().map_or(0, Bytes::len) as u64;
        if begun.elapsed() > SLACK + Duration::from_secs(bytes / SLOWEST) {
            return Err(Failure::BodyLate);
        }
        // A writer that is gone has said why.
        if pieces.send(piece.map_or(Piece::End, Piece::Data)).await.is_err() || end {
            return Ok(());
        }
    }
}

/// The writer's end of an upload.
struct Upload {
    waiting: mpsc::Receiver<Piece>,
    rest: Bytes,
    ended: bool,
}

impl Read for Upload {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() && !self.ended {
            match self.waiting.blocking_recv() {
                Some(Piece::Data(data)) => self.rest = data,
                Some(Piece::End) => self.ended = true,
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        let count = self.rest.len().min(buffer.len());
        self.rest.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}
