//! What the server and a worker process say to each other: frames of one kind
//! byte, a length (u32, big endian) and so many bytes.
//!
//! The server must treat what a worker sends as hostile: the interpreter may
//! have been taken over by what it ran.

use std::io::{self, Read, Write};
use std::time::Duration;

use bailiwick_files::{Access, Owner};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt};

use crate::omit::Omitted;
use crate::spec::ShellLimits;

/// The one message to a worker, as JSON. Its directories come as descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Request {
    pub(crate) command: String,
    pub(crate) timeout: Duration,
    pub(crate) limits: ShellLimits,
    pub(crate) tmp_bytes: u64,
    pub(crate) workspace: Option<Terms>,
    pub(crate) omitted: Omitted,
}

/// How the workspace's descriptor may be used.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Terms {
    writable: bool,
    owner: Option<(u32, u32)>,
}

impl Terms {
    pub(crate) fn new(access: Access, owner: Option<Owner>) -> Self {
        Self { writable: access == Access::ReadWrite, owner: owner.map(|owner| (owner.uid, owner.gid)) }
    }

    pub(crate) fn access(&self) -> Access {
        if self.writable { Access::ReadWrite } else { Access::ReadOnly }
    }

    pub(crate) fn owner(&self) -> Option<Owner> {
        self.owner.map(|(uid, gid)| Owner { uid, gid })
    }
}

pub(crate) const REQUEST: u8 = b'r';
/// The worker is confined, and what it says of that.
pub(crate) const CONFINED: u8 = b'c';
/// The worker is what was declared: it may run its command.
pub(crate) const GO: u8 = b'g';
pub(crate) const STDOUT: u8 = b'o';
pub(crate) const STDERR: u8 = b'e';
pub(crate) const ENDING: u8 = b'x';

/// Longest frame from a worker.
pub(crate) const MAX_FRAME: usize = 256 * 1024;
/// Longest request: the longest script, escaped, and some more.
pub(crate) const MAX_REQUEST: usize = 64 * 1024 * 1024;

pub(crate) fn frame(kind: u8, payload: &[u8]) -> io::Result<Vec<u8>> {
    let length = u32::try_from(payload.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut bytes = Vec::with_capacity(payload.len() + 5);
    bytes.push(kind);
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(payload);
    Ok(bytes)
}

/// Writes output in frames that the other side accepts.
pub(crate) fn write_output(to: &mut impl Write, kind: u8, payload: &[u8]) -> io::Result<()> {
    payload.chunks(MAX_FRAME).try_for_each(|chunk| to.write_all(&frame(kind, chunk)?))
}

pub(crate) fn read_frame(from: &mut impl Read, max: usize) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    from.read_exact(&mut head)?;
    let mut payload = vec![0; length(head, max)?];
    from.read_exact(&mut payload)?;
    Ok((head[0], payload))
}

pub(crate) async fn receive_frame(from: &mut (impl AsyncRead + Unpin), max: usize) -> io::Result<(u8, Vec<u8>)> {
    let mut head = [0; 5];
    from.read_exact(&mut head).await?;
    let mut payload = vec![0; length(head, max)?];
    from.read_exact(&mut payload).await?;
    Ok((head[0], payload))
}

fn length(head: [u8; 5], max: usize) -> io::Result<usize> {
    let [_, a, b, c, d] = head;
    match u32::from_be_bytes([a, b, c, d]) as usize {
        length if length <= max => Ok(length),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
}
