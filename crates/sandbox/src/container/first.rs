//! How a container's first process finds its server: it connects to a socket in our folder, and is then the first
//! process of any jail. Nothing of a tenant runs before the server has closed that socket for others.

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::INSIDE;
use super::room::SOCKET;
use crate::linux::{raw, run_init, wire};

/// Plays the first process's role until the server closes the connection.
pub(crate) fn run() -> ! {
    match connect() {
        Ok(()) => run_init(),
        Err(errno) => raw::exit_now(errno.raw_os_error()),
    }
}

fn connect() -> Result<(), Errno> {
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    wire::make_room(&socket)?;
    rustix::net::connect(&socket, &SocketAddrUnix::new(format!("{INSIDE}/{SOCKET}").as_str())?)?;
    // Where the first process of a jail looks for it.
    rustix::stdio::dup2_stdin(&socket)
}
