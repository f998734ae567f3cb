//! Messages between the server, the launcher and the first process of a jail.
//!
//! One message is one packet of a `SOCK_SEQPACKET` socket: the length of a
//! JSON header (u32, little endian), the header, then raw bytes. Descriptors
//! travel beside it. A truncated packet is an error, never a shorter message.
//! What comes out of a jail is judged as hostile: it is parsed into these
//! types or the jail is dead.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sockopt,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::omit::Omitted;
use super::receipt::Told;
use super::spec::{JailName, Limits, Programs, WorkspaceAccess};

/// Largest packet in bytes: a command of the kernel's largest argument
/// (128 KiB) and its header fit.
pub(crate) const PACKET_BYTES: usize = 192 * 1024;

/// Most descriptors that one packet carries.
const PACKET_FDS: usize = 5;

/// What the server asks of the launcher.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToLauncher {
    /// First message: how this launcher builds jails.
    Configure(LauncherSetup),
    /// Keep a process ready that becomes the jail of this name when it is asked for. Native launchers alone.
    Prepare(JailName),
    /// Build a jail, by the process that was made ready under its name if there is one. Descriptors: control socket, standard error of the
    /// build, then (native) workspace and shared temporary folder if any.
    Start(StartRequest),
    /// Kill a jail at once, whatever its first process does.
    Kill {
        /// The number from `StartRequest::jail`.
        jail: u64,
    },
}

/// How jails are built.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Method {
    /// The launcher makes the namespaces itself; it is root.
    Native,
    /// An unprivileged launcher runs bubblewrap.
    Bubblewrap {
        /// Absolute path of `bwrap`.
        program: String,
        /// Absolute path of the executable that becomes the first process.
        init: String,
    },
}

/// The launcher's own settings.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct LauncherSetup {
    pub(crate) method: Method,
    pub(crate) cgroups: super::cgroup::Layout,
}

/// A jail to build.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct StartRequest {
    pub(crate) jail: u64,
    pub(crate) name: JailName,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) access: WorkspaceAccess,
    pub(crate) tmp: TmpSource,
    pub(crate) limits: Limits,
    /// Only bubblewrap takes paths; the native launcher uses descriptors.
    pub(crate) workspace_path: String,
    pub(crate) tmp_path: String,
    pub(crate) network: Network,
    pub(crate) omitted: Omitted,
}

/// What a jail's programs may reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Network {
    /// Nothing: the loopback device is all there is.
    Nothing,
    /// The gate; and what they have to believe in, besides what this host believes in.
    Gate(Option<Believed>),
}

/// Whose certificates a jail's programs believe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Believed {
    /// The certificate of the jail's own authority (RFC 7468).
    pub(crate) certificate: String,
    /// Whether this host's authorities are believed as well.
    pub(crate) hosts: bool,
}

/// Where `/tmp` comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum TmpSource {
    /// An own memory file system.
    Private,
    /// A folder that other jails may have too.
    Shared,
}

/// What the server asks of a jail's first process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToInit {
    /// First message; the raw bytes are the seccomp filters.
    Configure(InitSetup),
    /// Run a command. Descriptors: standard output, standard error. The raw
    /// bytes are the arguments, each ended by a zero byte.
    Exec(ExecRequest),
    /// Stop a command.
    Stop {
        /// The number from `ExecRequest::exec`.
        exec: u64,
        /// How.
        force: StopForce,
    },
}

/// The two ways to stop a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StopForce {
    /// `SIGTERM` to every process of the command.
    Terminate,
    /// `SIGKILL` to every process of the command until none is left.
    Kill,
}

/// What the first process takes upon itself before it runs anything.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct InitSetup {
    pub(crate) access: WorkspaceAccess,
    pub(crate) programs: Programs,
    pub(crate) landlock_abi: i32,
    pub(crate) rlimits: Vec<super::rlimits::Ceiling>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) omitted: Omitted,
}

/// A command to run.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExecRequest {
    pub(crate) exec: u64,
    pub(crate) program: Program,
    pub(crate) directory: String,
}

/// What the raw bytes of an exec request mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Program {
    /// One argument: a script for the jail's shell.
    Shell,
    /// The program, absolute or found in the jail's `PATH`, and its arguments.
    Arguments,
}

/// What a jail says to the server.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromJail {
    /// The jail could not be built.
    SetupFailed {
        /// What was tried.
        step: String,
        /// The kernel's answer.
        errno: i32,
    },
    /// The sockets that lead to the gate are bound; they come along. Only before `Ready`.
    Listening,
    /// Everything is in force; commands may come.
    Ready {
        /// What the process sees of itself.
        told: Told,
    },
    /// A command was not started.
    ExecFailed {
        /// The command.
        exec: u64,
        /// The kernel's answer.
        errno: i32,
    },
    /// A command and all its processes are gone.
    Ended {
        /// The command.
        exec: u64,
        /// How its main process ended.
        status: WireStatus,
    },
}

/// How a main process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum WireStatus {
    /// With this code.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
}

/// A message that could not be sent or read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WireError {
    /// The other side is gone.
    #[error("the other side closed the socket")]
    Closed,
    /// The socket said no.
    #[error("the socket failed")]
    Socket(#[source] Errno),
    /// The message does not fit a packet.
    #[error("the message has {0} bytes, more than a packet holds")]
    TooLarge(usize),
    /// The packet is not a message of this protocol.
    #[error("the packet is not a valid message")]
    Malformed,
}

/// A received message with its raw bytes and descriptors.
pub(crate) struct Received<M> {
    pub(crate) message: M,
    pub(crate) bytes: Vec<u8>,
    pub(crate) fds: Vec<OwnedFd>,
    /// The sender's process id in our namespace, if credentials are passed.
    pub(crate) sender: Option<i32>,
    /// Whether descriptors came that this process had no room for.
    pub(crate) short: bool,
}

/// Two connected packet sockets, closed on exec.
pub(crate) fn socket_pair() -> Result<(OwnedFd, OwnedFd), Errno> {
    let (left, right) =
        rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    for end in [&left, &right] {
        make_room(end)?;
    }
    Ok((left, right))
}

/// Makes a socket take our largest packet.
pub(crate) fn make_room(socket: impl AsFd) -> Result<(), Errno> {
    sockopt::set_socket_send_buffer_size(socket, PACKET_BYTES + 64 * 1024)
}

/// Sends one message.
pub(crate) fn send<M: Serialize>(
    socket: BorrowedFd<'_>,
    message: &M,
    bytes: &[u8],
    fds: &[BorrowedFd<'_>],
) -> Result<(), WireError> {
    let header = serde_json::to_vec(message).map_err(|_| WireError::Malformed)?;
    let total = 4 + header.len() + bytes.len();
    if total > PACKET_BYTES || fds.len() > PACKET_FDS {
        return Err(WireError::TooLarge(total));
    }
    let length = u32::try_from(header.len()).map_err(|_| WireError::TooLarge(total))?;
    let length = length.to_le_bytes();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PACKET_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(WireError::TooLarge(total));
    }
    let parts = [IoSlice::new(&length), IoSlice::new(&header), IoSlice::new(bytes)];
    loop {
        match rustix::net::sendmsg(socket, &parts, &mut control, SendFlags::NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::INTR) => {}
            Err(Errno::PIPE | Errno::CONNRESET) => return Err(WireError::Closed),
            Err(errno) => return Err(WireError::Socket(errno)),
        }
    }
}

/// Receives one message into `buffer`, which must have `PACKET_BYTES`.
pub(crate) fn receive<M: DeserializeOwned>(socket: impl AsFd, buffer: &mut [u8]) -> Result<Received<M>, WireError> {
    receive_short(socket, buffer).and_then(|got| if got.short { Err(WireError::Malformed) } else { Ok(got) })
}

/// As [`receive`], also where descriptors were lost: for whoever can fail one request instead of all.
pub(crate) fn receive_short<M: DeserializeOwned>(
    socket: impl AsFd,
    buffer: &mut [u8],
) -> Result<Received<M>, WireError> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PACKET_FDS), ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let got = loop {
        let mut parts = [IoSliceMut::new(buffer)];
        match rustix::net::recvmsg(&socket, &mut parts, &mut control, RecvFlags::CMSG_CLOEXEC) {
            Ok(got) => break got,
            // A side that closes without having read everything is reported
            // before its last messages, once; the next try reads those.
            Err(Errno::INTR | Errno::CONNRESET) => {}
            Err(errno) => return Err(WireError::Socket(errno)),
        }
    };
    // The descriptors are taken first, so that a refused message closes them.
    let mut fds = Vec::new();
    let mut sender = None;
    for item in control.drain() {
        match item {
            RecvAncillaryMessage::ScmRights(rights) => fds.extend(rights),
            RecvAncillaryMessage::ScmCredentials(who) => sender = Some(who.pid.as_raw_nonzero().get()),
            _ => {}
        }
    }
    if got.bytes == 0 {
        return Err(WireError::Closed);
    }
    if got.flags.contains(ReturnFlags::TRUNC) {
        return Err(WireError::Malformed);
    }
    let short = got.flags.contains(ReturnFlags::CTRUNC);
    let packet = buffer.get(..got.bytes).ok_or(WireError::Malformed)?;
    let (length, rest) = packet.split_first_chunk::<4>().ok_or(WireError::Malformed)?;
    let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| WireError::Malformed)?;
    let (header, bytes) = rest.split_at_checked(length).ok_or(WireError::Malformed)?;
    let message = serde_json::from_slice(header).map_err(|_| WireError::Malformed)?;
    Ok(Received { message, bytes: bytes.to_vec(), fds, sender, short })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use proptest::prelude::*;

    use super::*;

    fn through_a_socket(packet: &[u8]) -> Result<Received<FromJail>, WireError> {
        let (ours, theirs) = socket_pair().unwrap();
        rustix::net::send(&theirs, packet, SendFlags::NOSIGNAL).unwrap();
        drop(theirs);
        receive(&ours, &mut vec![0; 4096])
    }

    #[test]
    fn a_message_arrives_with_its_bytes_and_descriptors() {
        let (ours, theirs) = socket_pair().unwrap();
        let message = FromJail::Ended { exec: 7, status: WireStatus::Exited(3) };
        send(theirs.as_fd(), &message, b"\0raw", &[ours.as_fd()]).unwrap();
        let got: Received<FromJail> = receive(&ours, &mut vec![0; PACKET_BYTES]).unwrap();
        assert!(matches!(got.message, FromJail::Ended { exec: 7, status: WireStatus::Exited(3) }));
        assert_eq!((got.bytes.as_slice(), got.fds.len()), (b"\0raw".as_slice(), 1));
    }

    #[test]
    fn truncated_and_empty_packets_are_no_messages() {
        assert!(matches!(through_a_socket(&[b' '; 5000]), Err(WireError::Malformed)));
        assert!(matches!(through_a_socket(&[]), Err(WireError::Closed)));
        assert!(matches!(through_a_socket(&[255; 4]), Err(WireError::Malformed)));
    }

    #[test]
    fn the_last_message_of_a_side_that_read_nothing_arrives() {
        let (ours, theirs) = socket_pair().unwrap();
        send(ours.as_fd(), &ToInit::Stop { exec: 1, force: StopForce::Kill }, &[], &[]).unwrap();
        let message = FromJail::ExecFailed { exec: 1, errno: 11 };
        send(theirs.as_fd(), &message, &[], &[]).unwrap();
        drop(theirs);
        let got: Received<FromJail> = receive(&ours, &mut vec![0; PACKET_BYTES]).unwrap();
        assert!(matches!(got.message, FromJail::ExecFailed { exec: 1, errno: 11 }));
    }

    proptest! {
        #[test]
        fn hostile_packets_are_errors_not_panics(
            packet in proptest::collection::vec(any::<u8>(), 1..200),
            header in "[{}\\[\\]\":a-zA-Z0-9,]{0,80}",
        ) {
            prop_assert!(through_a_socket(&packet).is_err());
            let mut framed = u32::try_from(header.len()).unwrap().to_le_bytes().to_vec();
            framed.extend_from_slice(header.as_bytes());
            let _ = through_a_socket(&framed);
        }
    }
}
