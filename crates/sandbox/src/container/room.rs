//! What one container needs of the host: a folder of the server's with the files that we put into the container, and
//! the socket by which its first process finds us. The folder is open to root alone, and goes with the container.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bailiwick_types::SessionId;
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use rustix::process::Pid;
use tokio::io::unix::AsyncFd;

use crate::linux::launcher::as_sent;
use crate::linux::rootfs::{etc_files, own_certificates};
use crate::linux::{InvalidJailName, JailName, JailSpec, JailUser, raw, wire};

/// The socket's name, on the host and inside.
pub(super) const SOCKET: &str = "control";
/// The name of the file that Landlock alone closes.
const FENCE: &str = "closed";
/// An empty folder, for trials.
pub(super) const EMPTY: &str = "empty";

/// Makes the server's folder for containers, without what a predecessor left in it; the mark of this server among
/// others that use the same engine.
pub(super) fn prepare(folder: &Path) -> io::Result<String> {
    private(folder)?;
    for left in fs::read_dir(folder)? {
        let left = left?;
        if left.file_type()?.is_dir() {
            fs::remove_dir_all(left.path())?;
        }
    }
    fs::create_dir(folder.join(EMPTY))?;
    let about = fs::metadata(folder)?;
    Ok(format!("{:x}-{:x}", about.dev(), about.ino()))
}

/// Writes the system call profile for an engine that takes a path.
pub(super) fn write_profile(folder: &Path, profile: &str) -> io::Result<String> {
    let path = folder.canonicalize()?.join("seccomp.json");
    fs::write(&path, profile)?;
    path.into_os_string().into_string().map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// A name of its own for a container.
pub(super) fn fresh_name() -> Result<JailName, InvalidJailName> {
    JailName::parse(&SessionId::new().to_string().replace('_', "-").to_lowercase())
}

fn private(folder: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    fs::set_permissions(folder, PermissionsExt::from_mode(0o700))
}

/// The host's side of one container.
pub(super) struct Room {
    folder: PathBuf,
    /// Until the first process has connected.
    listener: Mutex<Option<AsyncFd<OwnedFd>>>,
    /// On the host, and inside.
    pub(super) files: Vec<(PathBuf, String)>,
}

impl Room {
    /// Makes the folder, its files and the socket.
    pub(super) fn make(folder: &Path, spec: &JailSpec) -> io::Result<Self> {
        let folder = folder.canonicalize()?.join(spec.name.as_str());
        fs::DirBuilder::new().mode(0o700).create(&folder)?;
        let mut room = Self { folder, listener: Mutex::default(), files: Vec::new() };
        let (uid, gid) = (spec.user.uid, spec.user.gid);
        let made = etc_files(uid, gid).into_iter().chain(own_certificates(&as_sent(&spec.network)));
        for (name, text) in made {
            room.file(&name.replace('/', "-"), &text, format!("/etc/{name}"))?;
        }
        room.file(FENCE, b"", crate::linux::confine::FENCE.to_owned())?;
        let listener = room.listen(spec.user)?;
        *room.listener.lock().unwrap_or_else(PoisonError::into_inner) = Some(listener);
        room.files.push((room.folder.join(SOCKET), format!("{}/{SOCKET}", super::INSIDE)));
        Ok(room)
    }

    /// A file that everybody inside may read.
    fn file(&mut self, name: &str, text: &[u8], inside: String) -> io::Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, PermissionsExt::from_mode(0o444))?;
        self.files.push((path, inside));
        Ok(())
    }

    /// Listens on a socket that only the container's user may connect to.
    fn listen(&self, user: JailUser) -> io::Result<AsyncFd<OwnedFd>> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        // The kernel then says who sent what, also of the first packet.
        sockopt::set_socket_passcred(&socket, true)?;
        // By a descriptor, because the path of a socket is short.
        let folder = rustix::fs::open(&self.folder, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let short = format!("/proc/self/fd/{}/{SOCKET}", folder.as_raw_fd());
        rustix::net::bind(&socket, &SocketAddrUnix::new(short.as_str())?)?;
        rustix::fs::chmodat(&folder, SOCKET, Mode::RUSR | Mode::WUSR, rustix::fs::AtFlags::empty())?;
        let owner = (Uid::from_raw(user.uid), Gid::from_raw(user.gid));
        rustix::fs::chownat(&folder, SOCKET, Some(owner.0), Some(owner.1), rustix::fs::AtFlags::empty())?;
        rustix::net::listen(&socket, 1)?;
        raw::watch(socket)
    }

    /// Waits for the first process; its number on the host. Somebody else at the socket is an error.
    pub(super) async fn connected(&self, user: JailUser) -> io::Result<(AsyncFd<OwnedFd>, Pid)> {
        let listener = self.listener.lock().unwrap_or_else(PoisonError::into_inner).take();
        let listener = listener.ok_or(io::ErrorKind::NotConnected)?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = loop {
            let mut guard = listener.readable().await?;
            match rustix::net::accept_with(listener.get_ref().as_fd(), flags) {
                Ok(socket) => break socket,
                Err(rustix::io::Errno::AGAIN) => guard.clear_ready(),
                Err(errno) => return Err(errno.into()),
            }
        };
        sockopt::set_socket_passcred(&socket, true)?;
        wire::make_room(&socket)?;
        let peer = sockopt::socket_peercred(&socket)?;
        if (peer.uid.as_raw(), peer.gid.as_raw()) != (user.uid, user.gid) {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        Ok((raw::watch(socket)?, peer.pid))
    }

    /// Takes the socket away: nobody else connects. What is mounted inside stays, and leads nowhere.
    pub(super) fn close(&self) {
        drop(self.listener.lock().unwrap_or_else(PoisonError::into_inner).take());
        let _ = fs::remove_file(self.folder.join(SOCKET));
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.folder) {
            tracing::warn!(%error, "a container's folder on the host could not be removed");
        }
    }
}

/// Which folder a descriptor is of, for comparison.
pub(super) fn identity(folder: &OwnedFd) -> io::Result<(u64, u64)> {
    let about = rustix::fs::fstat(folder)?;
    Ok((about.st_dev, about.st_ino))
}

/// Which folder is at a place within a process's root.
pub(super) fn identity_in(process: i32, place: &str) -> io::Result<(u64, u64)> {
    let about = File::open(PathBuf::from(format!("/proc/{process}/root")).join(place))?.metadata()?;
    Ok((about.dev(), about.ino()))
}
