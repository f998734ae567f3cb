//! The first words of a TLS client, read without answering (RFC 8446, section 4.1.2).

use std::io::{self, Cursor};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use rustls::server::Acceptor;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};

use crate::refused::Refused;

/// Longest greeting, bytes. Those with keys that withstand quantum computers have two thousand.
const LONGEST: usize = 32 * 1024;
/// How long a client may take to say it.
const PATIENCE: Duration = Duration::from_secs(10);
/// The kind of a TLS record that greets.
const HANDSHAKE: u8 = 22;

/// A stream that begins with bytes that somebody has read already.
pub(crate) struct Begun<S> {
    read: Bytes,
    inner: S,
}

impl<S> Begun<S> {
    pub(crate) fn new(read: Bytes, inner: S) -> Self {
        Self { read, inner }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Begun<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read.has_remaining() {
            let length = self.read.len().min(into.remaining());
            into.put_slice(&self.read.split_to(length));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_read(cx, into)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Begun<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// How a client begins.
pub(crate) enum Begins {
    /// With a greeting, and the name in it as it was written.
    Tls(Option<String>),
    /// With something else.
    Otherwise,
}

/// Reads how a client begins; the stream that comes back has it before it again.
///
/// # Errors
/// [`Refused::NotTls`] for a greeting that is none, [`Refused::Broken`] if nothing came.
pub(crate) async fn begin<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S) -> Result<(Begins, Begun<S>), Refused> {
    let mut read = BytesMut::with_capacity(4096);
    let begins = tokio::time::timeout(PATIENCE, greet(&mut stream, &mut read)).await.map_err(|_| Refused::Broken)??;
    Ok((begins, Begun::new(read.freeze(), stream)))
}

async fn greet<S: AsyncRead + Unpin>(stream: &mut S, read: &mut BytesMut) -> Result<Begins, Refused> {
    let mut acceptor = Acceptor::default();
    loop {
        let before = read.len();
        if before >= LONGEST {
            return Err(Refused::NotTls);
        }
        let got = stream.read_buf(read).await.map_err(|_| Refused::Broken)?;
        if got == 0 {
            return Err(Refused::Broken);
        }
        if read.first() != Some(&HANDSHAKE) {
            return Ok(Begins::Otherwise);
        }
        let mut fresh = Cursor::new(read.get(before..).unwrap_or_default());
        while fresh.has_remaining() {
            acceptor.read_tls(&mut fresh).map_err(|_| Refused::NotTls)?;
            match acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => {
                    return Ok(Begins::Tls(accepted.client_hello().server_name().map(str::to_owned)));
                }
                Err(_) => return Err(Refused::NotTls),
            }
        }
    }
}
