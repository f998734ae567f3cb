//! The listener: connections, their limits in time and number, and the end of the server.

use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use bailiwick_types::failpoint;
use bailiwick_types::limits::{HEADER_BYTES, URI_BYTES};
use http::header::EXPECT;
use http::{HeaderMap, Request};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;
use tower::ServiceExt;

use crate::app::App;
use crate::body::{Lingering, Waits};
use crate::frame::Peer;
use crate::route::router;

/// What a connection may hold of a head that is not whole yet; the frame bounds the head to the byte.
const HEAD_BUFFER: usize = HEADER_BYTES + 2 * URI_BYTES;
/// Fields in a request's head.
const HEADER_FIELDS: usize = 128;
/// How long sent bytes may wait to be taken by the far end, before its connection is given up.
const UNTAKEN: Duration = Duration::from_secs(60);
/// How long to wait when the host cannot accept, for example because files have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `shutdown` is cancelled, then lets what is under way come to its end: no new
/// connections, streams end, answers are finished. What is not done in time is cut.
///
/// # Errors
/// If the listener is of no use at all.
pub async fn serve(listener: TcpListener, app: App, shutdown: CancellationToken) -> io::Result<()> {
    app.listens_on(listener.local_addr()?);
    let router = router(app.clone());
    let places = Arc::new(Semaphore::new(app.settings().connections));
    let connections = TaskTracker::new();
    let cut = CancellationToken::new();
    loop {
        let place = tokio::select! {
            () = shutdown.cancelled() => break,
            place = Arc::clone(&places).acquire_owned() => place.map_err(io::Error::other)?,
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
            Ok((socket, peer)) => {
                let (router, app, cut) = (router.clone(), app.clone(), cut.clone());
                let held = Held(Arc::new((place, connections.token())));
                connections.spawn(async move {
                    let served = connection(socket, (Peer(peer.ip()), held), router, &app);
                    tokio::select! {
                        () = cut.cancelled() => {}
                        () = served => {}
                    }
                });
            }
        }
    }
    drop(listener);
    app.closing().cancel();
    connections.close();
    if tokio::time::timeout(app.settings().times.drain, connections.wait()).await.is_err() {
        tracing::warn!(left = connections.len(), "connections were cut at the end of the server");
        cut.cancel();
        connections.wait().await;
    }
    Ok(())
}

/// A connection's place among those that there may be. A socket keeps it when HTTP has let go of it.
#[derive(Clone)]
pub(crate) struct Held(#[expect(dead_code, reason = "kept, and given back by being dropped")] Arc<HeldPlace>);

type HeldPlace = (OwnedSemaphorePermit, TaskTrackerToken);

async fn connection(socket: TcpStream, (peer, held): (Peer, Held), router: Router, app: &App) {
    prepare(&socket);
    let service = service_fn(move |request: Request<Incoming>| {
        let (router, held) = (router.clone(), held.clone());
        async move {
            let waits = waits(request.headers());
            let mut request = request.map(|body| Body::new(Lingering::new(body, waits)));
            request.extensions_mut().insert(peer);
            request.extensions_mut().insert(held);
            let answer = router.oneshot(request).await;
            failpoint::reach("answer.made");
            answer
        }
    });
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(app.settings().times.head)
        .max_buf_size(HEAD_BUFFER)
        .max_headers(HEADER_FIELDS)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    let mut serving = pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = app.closing().cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Small answers go out at once, and a far end that takes nothing does not hold its connection for ever.
fn prepare(socket: &TcpStream) {
    let untaken = u32::try_from(UNTAKEN.as_millis()).unwrap_or(u32::MAX);
    let limited = rustix::net::sockopt::set_tcp_user_timeout(socket.as_fd(), untaken);
    if let Err(error) = socket.set_nodelay(true).and(limited.map_err(io::Error::from)) {
        tracing::debug!(%error, "a socket's options could not be set");
    }
}

fn waits(headers: &HeaderMap) -> Waits {
    let asks = headers.get(EXPECT).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"100-continue"));
    if asks { Waits::Yes } else { Waits::No }
}
