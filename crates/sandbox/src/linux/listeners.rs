//! The sockets by which a jail reaches the gate, and nothing else.
//!
//! They are bound inside the jail's network namespace before anything of a tenant runs there, and then belong to
//! the gate: there is no process inside that could be ended, no file, no interface but the loopback. One route
//! makes every IPv4 address local, so that a connection to any of them arrives at a listener or is refused.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use bailiwick_egress::Listeners;
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustix::thread::LinkNameSpaceType;

use super::native::{SetupError, attempt};
use super::raw;
use super::wire::{self, FromJail};

/// The port at which programs find the proxy.
pub(crate) const PROXY_PORT: u16 = 3128;
/// How many connections wait until they are accepted.
const WAITING: i32 = 128;

/// Where the sockets are, in the order in which they travel.
pub(crate) const PLACES: [(SocketType, SocketAddrV4); 5] = [
    (SocketType::STREAM, SocketAddrV4::new(Ipv4Addr::LOCALHOST, PROXY_PORT)),
    (SocketType::STREAM, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 443)),
    (SocketType::STREAM, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 80)),
    (SocketType::DGRAM, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 53)),
    (SocketType::STREAM, SocketAddrV4::new(Ipv4Addr::LOCALHOST, 53)),
];

/// The sockets by which one jail reaches the gate.
#[derive(Debug)]
pub struct Listening(pub(crate) [OwnedFd; 5]);

/// The network namespace that this thread leaves for a jail's. What makes every address lead to this host must
/// never be done in it: the host would have no network.
pub(crate) struct Outer(PathBuf);

impl Outer {
    /// To be asked before the thread enters another.
    pub(crate) fn of_this_thread() -> Result<Self, SetupError> {
        namespace().map(Self)
    }

    fn is_left(&self) -> Result<(), SetupError> {
        if namespace()? == self.0 {
            return Err(SetupError { step: "leave the host's network namespace", errno: libc::EEXIST });
        }
        Ok(())
    }
}

fn namespace() -> Result<PathBuf, SetupError> {
    attempt("tell the network namespace", std::fs::read_link("/proc/thread-self/ns/net"))
}

/// Makes this network namespace lead to the gate, and sends the sockets to the server.
pub(crate) fn open(control: BorrowedFd<'_>, outer: &Outer) -> Result<(), SetupError> {
    let sockets = bind(outer)?;
    let sockets: Vec<BorrowedFd<'_>> = sockets.iter().map(AsFd::as_fd).collect();
    wire::send(control, &FromJail::Listening, &[], &sockets)
        .map_err(|_| SetupError { step: "pass the listeners", errno: libc::EPIPE })
}

/// Makes the network namespace of another process lead to the gate. The calling thread stays in that namespace, so
/// it must be one that ends afterwards.
pub(crate) fn open_in(process: i32) -> Result<Listening, SetupError> {
    let place = format!("/proc/{process}/ns/net");
    let namespace = attempt("find the network namespace", std::fs::File::open(place))?;
    let outer = Outer::of_this_thread()?;
    let kind = Some(LinkNameSpaceType::Network);
    attempt("enter the network namespace", rustix::thread::move_into_link_name_space(namespace.as_fd(), kind))?;
    attempt("bring up the loopback device", raw::loopback_up())?;
    Listening::received(bind(&outer)?).ok_or(SetupError { step: "bind the listeners", errno: 0 })
}

/// Binds the sockets in this thread's network namespace.
fn bind(outer: &Outer) -> Result<Vec<OwnedFd>, SetupError> {
    outer.is_left()?;
    attempt("make every address local", raw::every_address_local())?;
    let mut sockets = Vec::with_capacity(PLACES.len());
    for (kind, place) in PLACES {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let made = rustix::net::socket_with(AddressFamily::INET, kind, flags, None);
        let socket = attempt("make a listener", made)?;
        attempt("bind a listener", rustix::net::bind(&socket, &SocketAddr::V4(place)))?;
        if kind == SocketType::STREAM {
            attempt("listen", rustix::net::listen(&socket, WAITING))?;
        }
        sockets.push(socket);
    }
    Ok(sockets)
}

impl Listening {
    /// For a gate in this process.
    ///
    /// # Errors
    /// If they cannot be watched.
    pub fn into_listeners(self) -> io::Result<Listeners> {
        let [explicit, https, http, names, names_stream] = self.0;
        let stream = |fd: OwnedFd| tokio::net::TcpListener::from_std(fd.into());
        Ok(Listeners {
            explicit: stream(explicit)?,
            https: stream(https)?,
            http: stream(http)?,
            names: tokio::net::UdpSocket::from_std(names.into())?,
            names_stream: stream(names_stream)?,
        })
    }

    /// The sockets that came with a message.
    pub(crate) fn received(fds: Vec<OwnedFd>) -> Option<Self> {
        <[OwnedFd; 5]>::try_from(fds).ok().map(Self)
    }

    /// The network namespace in which they all are, if they are what was asked for.
    pub(crate) fn namespace(&self) -> Option<String> {
        let mut all = None;
        for (socket, (kind, place)) in self.0.iter().zip(PLACES) {
            let listens = kind != SocketType::STREAM || sockopt::socket_acceptconn(socket).ok()?;
            let at = SocketAddr::try_from(rustix::net::getsockname(socket).ok()?).ok()?;
            if sockopt::socket_type(socket).ok()? != kind || !listens || at != SocketAddr::V4(place) {
                return None;
            }
            let namespace = raw::socket_namespace(socket).ok()?;
            if *all.get_or_insert_with(|| namespace.clone()) != namespace {
                return None;
            }
        }
        all
    }
}
