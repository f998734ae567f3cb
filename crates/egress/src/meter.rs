//! What one sandbox may use of the gate.

use std::io;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use http_body::{Body, Frame, SizeHint};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::shares::Taken;

/// What one sandbox may use of the gate, at once and altogether.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// Connections at once.
    pub connections: u32,
    /// Connections, names and requests in a minute.
    pub requests_per_minute: u32,
    /// Bytes, sent and received, in the sandbox's life.
    pub bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 256, requests_per_minute: 12_000, bytes: 16 << 30 }
    }
}

/// Counts one sandbox's use.
pub(crate) struct Meter {
    left: AtomicU64,
    rate: DefaultDirectRateLimiter,
}

impl Meter {
    pub(crate) fn new(limits: &Limits) -> Self {
        let rate = NonZeroU32::new(limits.requests_per_minute).unwrap_or(NonZeroU32::MIN);
        Self { left: AtomicU64::new(limits.bytes), rate: RateLimiter::direct(Quota::per_minute(rate)) }
    }

    /// Whether one more may be asked for.
    pub(crate) fn admits_one(&self) -> bool {
        self.left.load(Ordering::Relaxed) > 0 && self.rate.check().is_ok()
    }

    fn spend(&self, bytes: usize) -> io::Result<()> {
        let spent = self.left.try_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(bytes as u64));
        match spent {
            Ok(_) => Ok(()),
            Err(_) => {
                self.left.store(0, Ordering::Relaxed);
                Err(io::Error::new(io::ErrorKind::QuotaExceeded, "this sandbox has used up its bytes"))
            }
        }
    }
}

/// A stream whose bytes count, and that knows when the last one came.
pub(crate) struct Metered<S> {
    inner: S,
    meter: Arc<Meter>,
    own: Arc<Activity>,
}

/// When something last happened on a stream.
pub(crate) struct Activity {
    started: Instant,
    last: AtomicU64,
}

impl Activity {
    /// For how long nothing has come or gone.
    pub(crate) fn idle(&self) -> Duration {
        self.started.elapsed().saturating_sub(Duration::from_millis(self.last.load(Ordering::Relaxed)))
    }

    fn happened(&self) {
        let now = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.store(now, Ordering::Relaxed);
    }
}

impl<S> Metered<S> {
    pub(crate) fn new(inner: S, meter: Arc<Meter>) -> Self {
        Self { inner, meter, own: Arc::new(Activity { started: Instant::now(), last: AtomicU64::new(0) }) }
    }

    pub(crate) fn activity(&self) -> Arc<Activity> {
        Arc::clone(&self.own)
    }

    fn count(&self, bytes: usize) -> io::Result<()> {
        self.own.happened();
        self.meter.spend(bytes)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Metered<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(cx, into);
        if let Poll::Ready(Ok(())) = read {
            self.count(into.filled().len() - before)?;
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Metered<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wrote = Pin::new(&mut self.inner).poll_write(cx, bytes);
        if let Poll::Ready(Ok(length)) = wrote {
            self.count(length)?;
        }
        wrote
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// A body whose bytes count.
pub(crate) struct Counted<B> {
    inner: B,
    meter: Arc<Meter>,
}

impl<B> Counted<B> {
    pub(crate) fn new(inner: B, meter: Arc<Meter>) -> Self {
        Self { inner, meter }
    }
}

/// A body that holds a place for as long as it is on its way.
pub(crate) struct Holding<B> {
    inner: B,
    _place: Taken,
}

impl<B> Holding<B> {
    pub(crate) fn new(inner: B, place: Taken) -> Self {
        Self { inner, _place: place }
    }
}

impl<B: Body + Unpin> Body for Holding<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// What goes wrong with a body on its way.
pub(crate) type BodyError = Box<dyn std::error::Error + Send + Sync>;

impl<B: Body<Data = Bytes> + Unpin> Body for Counted<B>
where
    B::Error: Into<BodyError>,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        if let Poll::Ready(Some(Ok(frame))) = &frame
            && let Some(data) = frame.data_ref()
        {
            self.meter.spend(data.len())?;
        }
        frame.map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
