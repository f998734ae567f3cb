//! Request bodies on the wire.
//!
//! An answer may be ready before its request's body has come: too long, not let in, not allowed. If
//! the connection were closed then, the client's kernel would throw the answer away with the bytes
//! that nobody read. So a body that is dropped unread is read on for a while, into nothing.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use hyper::body::Incoming;

/// How much of an unwanted body is read into nothing.
const LINGER_BYTES: usize = 64 * 1024 * 1024;
/// For how long.
const LINGER: Duration = Duration::from_secs(10);

/// Whether the client waits for a word before it sends its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Waits {
    /// It does (`Expect: 100-continue`); reading on would ask it to begin.
    Yes,
    /// It sends anyway.
    No,
}

/// A request's body that is read on when it is dropped.
pub(crate) struct Lingering {
    inner: Option<Incoming>,
    waits: Waits,
    begun: bool,
}

impl Lingering {
    pub(crate) fn new(inner: Incoming, waits: Waits) -> Self {
        Self { inner: Some(inner), waits, begun: false }
    }
}

impl Body for Lingering {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.begun = true;
        match &mut self.inner {
            None => Poll::Ready(None),
            Some(inner) => Pin::new(inner).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Drop for Lingering {
    fn drop(&mut self) {
        let Some(inner) = self.inner.take() else { return };
        if inner.is_end_stream() || (self.waits == Waits::Yes && !self.begun) {
            return;
        }
        // Without a runtime there is no connection left to care for.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(tokio::time::timeout(LINGER, discard(inner)));
        }
    }
}

async fn discard(mut body: Incoming) {
    let mut left = LINGER_BYTES;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(length) {
            Some(rest) => left = rest,
            None => return,
        }
    }
}
