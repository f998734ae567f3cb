//! What the gate's process does: it confines itself, then lets sandboxes out as far as their rules go.

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use bailiwick_egress::{Ask, Door, Entry, Gate, Lease, Line, Names, Opening, OwnAddresses, RESOLVER_THREADS, Settings};
use bailiwick_types::Egress;
use rustix::io::Errno;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use super::confine;
use super::wire::{FromGate, ToGate};
use crate::linux::listeners::Listening;
use crate::linux::raw;
use crate::linux::role::{self, Errors};
use crate::linux::wire::{self as packets, PACKET_BYTES, Received, WireError};

/// Lines that wait for their turn.
const WAITING: usize = 1024;
/// What a thread has for its calls, bytes: a resolver needs some, and there are many.
const STACK: usize = 512 * 1024;
/// How long the last requests of a sandbox that is gone may take to be told.
const LAST_LINES: Duration = Duration::from_secs(1);
/// How long lines are gathered before they are told.
const GATHER: Duration = Duration::from_millis(100);
/// Most lines that are told at once; each has less than a kilobyte.
const MOST_LINES: usize = 128;

/// Plays the gate's role until the server closes the socket.
pub(crate) fn run() -> ! {
    raw::exit_now(i32::from(serve().is_err()))
}

fn serve() -> Result<(), WireError> {
    let socket = role::prepare(c"bw-gate", Errors::Kept, &[]).map_err(WireError::Socket)?;
    raw::close_from_on_exec(3).map_err(|_| WireError::Closed)?;
    let _ = rustix::process::setsid();
    let first: Received<ToGate> = role::configuration(&socket)?;
    let ToGate::Configure { hosts } = first.message else { return Err(WireError::Malformed) };
    let (asks, asked) = mpsc::channel(WAITING);
    let (journal, lines) = mpsc::channel(WAITING);
    // Certificates and resolver first: they are read from files that are out of reach afterwards.
    let made = CertificateDer::pem_slice_iter(&first.bytes)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| format!("the operator's authorities cannot be read: {error}"))
        .and_then(|roots| {
            let own = OwnAddresses::of_host();
            let own = own.map_err(|error| format!("this host's own addresses cannot be read: {error}"))?;
            let settings = Settings { names: Names::new(hosts, own), roots, asks, journal };
            Gate::new(settings).map_err(|error| error.to_string())
        })
        .and_then(|gate| confine::confine().map(|()| gate).map_err(|step| format!("it cannot {step}")));
    let failed = made.as_ref().err().cloned();
    packets::send(socket.as_fd(), &FromGate::Ready { failed }, &[], &[])?;
    let Ok(gate) = made else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(RESOLVER_THREADS)
        .thread_stack_size(STACK)
        .enable_all()
        .build();
    let runtime = runtime.map_err(|_| WireError::Closed)?;
    let ended = runtime.block_on(async {
        rustix::io::ioctl_fionbio(&socket, true).map_err(WireError::Socket)?;
        let socket = raw::watch(socket).map_err(|_| WireError::Closed)?;
        let (closed, done) = mpsc::channel(WAITING);
        let mut work = Work { socket, gate, doors: HashMap::new(), asks: HashMap::new(), next: 1, closed };
        work.attend(asked, lines, done).await
    });
    // Connections are dropped where they stand; nobody waits for the far side.
    runtime.shutdown_background();
    ended
}

struct Work {
    socket: AsyncFd<OwnedFd>,
    gate: Gate,
    doors: HashMap<u64, Door>,
    asks: HashMap<u64, oneshot::Sender<Option<Lease>>>,
    next: u64,
    /// Sandboxes whose connections have ended.
    closed: mpsc::Sender<u64>,
}

impl Work {
    async fn attend(
        &mut self,
        mut asked: mpsc::Receiver<Ask>,
        mut lines: mpsc::Receiver<Entry>,
        mut closed: mpsc::Receiver<u64>,
    ) -> Result<(), WireError> {
        let mut buffer = vec![0; PACKET_BYTES];
        let mut gathered: Vec<(u64, Line, u32)> = Vec::new();
        let mut due = tokio::time::interval(GATHER);
        due.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                received = receive(&self.socket, &mut buffer) => {
                    if let Some(told) = self.handle(received?).await? {
                        self.tell_all(told, &mut lines, &mut gathered).await?;
                    }
                }
                Some(sandbox) = closed.recv() => {
                    self.tell_all(FromGate::Closed { sandbox }, &mut lines, &mut gathered).await?;
                }
                Some(ask) = asked.recv() => self.ask(ask).await?,
                Some(entry) = lines.recv(), if gathered.len() < MOST_LINES => gather(&mut gathered, entry),
                _ = due.tick(), if !gathered.is_empty() => self.tell_lines(&mut gathered).await?,
                () = std::future::ready(()), if gathered.len() >= MOST_LINES => self.tell_lines(&mut gathered).await?,
            }
        }
    }

    /// What is to be said once all lines that there are have been told.
    async fn handle(&mut self, received: Received<ToGate>) -> Result<Option<FromGate>, WireError> {
        match received.message {
            ToGate::Configure { .. } => return Err(WireError::Malformed),
            ToGate::Open { sandbox, tenant, rules, limits, placeholders } => {
                let (egress, ceiling): (Egress, Egress) = *rules;
                let opening = Opening { sandbox, tenant, egress, ceiling, limits, placeholders };
                let outcome = match self.gate.open(opening) {
                    Ok(door) => {
                        let trust = door.trust().cloned();
                        self.doors.insert(sandbox, door);
                        Ok(trust)
                    }
                    Err(error) => Err(error.to_string()),
                };
                self.tell(&FromGate::Opened { sandbox, outcome }).await?;
            }
            ToGate::Attach { sandbox } => {
                // Out of descriptors: this sandbox stays without a way out, and no other pays for it.
                let listening = Listening::received(received.fds).and_then(|all| all.into_listeners().ok());
                if let Some((door, listeners)) = self.doors.get(&sandbox).zip(listening) {
                    door.attach(listeners);
                }
            }
            ToGate::Admit { sandbox } => {
                // One that cannot be taken is closed, and whoever dialled sees that.
                let stream = received.fds.into_iter().next().and_then(|fd| {
                    let stream = std::os::unix::net::UnixStream::from(fd);
                    stream.set_nonblocking(true).ok()?;
                    tokio::net::UnixStream::from_std(stream).ok()
                });
                if let Some((door, stream)) = self.doors.get(&sandbox).zip(stream) {
                    door.admit(stream);
                }
            }
            ToGate::Close { sandbox } => {
                let Some(door) = self.doors.remove(&sandbox) else { return Ok(Some(FromGate::Closed { sandbox })) };
                let closed = self.closed.clone();
                tokio::spawn(async move {
                    // What was under way is broken off, and each of it has a line yet.
                    let _ = tokio::time::timeout(LAST_LINES, door.closed()).await;
                    let _ = closed.send(sandbox).await;
                });
            }
            ToGate::Tell { sandbox } => return Ok(Some(FromGate::Told { sandbox })),
            ToGate::Calls { sandbox, number } => {
                if let Some(door) = self.doors.get(&sandbox) {
                    door.calls(number);
                }
            }
            ToGate::Answer { ask, lasts, call } => {
                let bytes = Zeroizing::new(received.bytes);
                let value = std::str::from_utf8(&bytes).ok().map(|text| Zeroizing::new(text.to_owned()));
                if let Some(answer) = self.asks.remove(&ask) {
                    let lease = lasts.zip(value).map(|(lasts, value)| Lease { value, lasts, call });
                    let _ = answer.send(lease);
                }
            }
        }
        Ok(None)
    }

    /// Tells all lines that there are, and then that they were all.
    async fn tell_all(
        &self,
        told: FromGate,
        lines: &mut mpsc::Receiver<Entry>,
        gathered: &mut Vec<(u64, Line, u32)>,
    ) -> Result<(), WireError> {
        while let Ok(entry) = lines.try_recv() {
            gather(gathered, entry);
            if gathered.len() >= MOST_LINES {
                self.tell_lines(gathered).await?;
            }
        }
        self.tell_lines(gathered).await?;
        self.tell(&told).await
    }

    async fn ask(&mut self, ask: Ask) -> Result<(), WireError> {
        // Those whose asker has given up are forgotten.
        self.asks.retain(|_, answer| !answer.is_closed());
        let number = self.next;
        self.next += 1;
        self.asks.insert(number, ask.answer);
        let Ask { sandbox, secret, host, .. } = ask;
        self.tell(&FromGate::Ask { ask: number, sandbox, secret, host }).await
    }

    async fn tell_lines(&self, gathered: &mut Vec<(u64, Line, u32)>) -> Result<(), WireError> {
        if gathered.is_empty() {
            return Ok(());
        }
        let mut left = vec![std::mem::take(gathered)];
        while let Some(lines) = left.pop() {
            match self.tell(&FromGate::Lines(lines.clone())).await {
                // Long names: half of them at a time; one alone without the names of its secrets, which are many then.
                Err(WireError::TooLarge(_)) if lines.len() > 1 => {
                    let (first, rest) = lines.split_at(lines.len() / 2);
                    left.extend([rest.to_vec(), first.to_vec()]);
                }
                Err(WireError::TooLarge(_)) => {
                    let bare = |(sandbox, line, times): &(u64, Line, u32)| {
                        (*sandbox, Line { secrets: Vec::new(), ..line.clone() }, *times)
                    };
                    self.tell(&FromGate::Lines(lines.iter().map(bare).collect())).await?;
                }
                other => other?,
            }
        }
        Ok(())
    }

    async fn tell(&self, message: &FromGate) -> Result<(), WireError> {
        loop {
            let mut guard = self.socket.writable().await.map_err(|_| WireError::Closed)?;
            match packets::send(self.socket.as_fd(), message, &[], &[]) {
                Err(WireError::Socket(Errno::AGAIN)) => guard.clear_ready(),
                other => return other,
            }
        }
    }
}

/// Takes a line; one that is there already happened once more.
fn gather(gathered: &mut Vec<(u64, Line, u32)>, entry: Entry) {
    let (sandbox, line) = entry.taken();
    match gathered.iter_mut().find(|(of, same, _)| *of == sandbox && *same == line) {
        Some((_, _, times)) => *times = times.saturating_add(1),
        None => gathered.push((sandbox, line, 1)),
    }
}

async fn receive(socket: &AsyncFd<OwnedFd>, buffer: &mut [u8]) -> Result<Received<ToGate>, WireError> {
    loop {
        let mut guard = socket.readable().await.map_err(|_| WireError::Closed)?;
        match packets::receive_short(socket.get_ref(), buffer) {
            Err(WireError::Socket(Errno::AGAIN)) => guard.clear_ready(),
            other => return other,
        }
    }
}
