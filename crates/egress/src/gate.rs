//! The gate: the sockets of sandboxes on one side, the world on the other, and a policy between them.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bailiwick_types::Egress;
use rustls::ClientConfig;
use rustls::crypto::CryptoProvider;
use rustls_pki_types::CertificateDer;
use rustls_platform_verifier::Verifier;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::authority::{Authority, AuthorityError};
use crate::connection;
use crate::decide::{Others, Policy};
use crate::dns;
use crate::journal::{Entry, Journal};
use crate::lease::{Ask, Leases};
use crate::meter::{Limits, Meter};
use crate::names::{Names, QUESTIONS, Resolver, Stand};
use crate::placeholder::Placeholders;
use crate::shares::{Places, Share, Taken};
use crate::upstream::Upstream;

/// Most connections of all sandboxes at once, and most requests that are under way in them. Each may cost a third
/// of a megabyte: what is in the buffers between two sides that do not read.
const MOST_CONNECTIONS: usize = 8 * 1024;
/// Most requests of all sandboxes that are under way at once: a connection of HTTP/2 has many.
const MOST_REQUESTS: usize = 4 * 1024;
/// Most bodies of requests that are held whole, of all sandboxes and of one. Each may have some mebibytes.
const MOST_BODIES: usize = 256;
const BODIES: usize = 16;
/// Threads that ask the system's resolver, of all sandboxes.
pub const RESOLVER_THREADS: usize = 512;

/// What a gate is made of.
pub struct Settings {
    /// How names are resolved.
    pub names: Names,
    /// Authorities that are believed besides the system's.
    pub roots: Vec<CertificateDer<'static>>,
    /// Where secrets are asked for.
    pub asks: mpsc::Sender<Ask>,
    /// Where lines go.
    pub journal: mpsc::Sender<Entry>,
}

/// Why there is no gate, or none for a sandbox.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The system has no certificates, or TLS cannot be set up.
    #[error("the TLS client cannot be set up")]
    Tls(#[source] rustls::Error),
    /// The certificates cannot be made.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The rules name a placeholder, and there is no word for it.
    #[error("a placeholder of the rules has no word")]
    Placeholder,
}

/// Lets sandboxes out as far as their policies go.
pub struct Gate {
    names: Names,
    tls: ClientConfig,
    provider: Arc<CryptoProvider>,
    asks: mpsc::Sender<Ask>,
    journal: mpsc::Sender<Entry>,
    connections: Places,
    requests: Places,
    bodies: Places,
    questions: Places,
    lines: Places,
}

/// A sandbox that wants out.
pub struct Opening {
    /// A number for it.
    pub sandbox: u64,
    /// A number for its tenant, with whose other sandboxes it shares.
    pub tenant: u64,
    /// What it may reach.
    pub egress: Egress,
    /// What the operator lets through.
    pub ceiling: Egress,
    /// What it may use.
    pub limits: Limits,
    /// The words in its environment that stand for secrets.
    pub placeholders: Placeholders,
}

impl Gate {
    /// A gate without sandboxes.
    ///
    /// # Errors
    /// [`GateError::Tls`].
    pub fn new(settings: Settings) -> Result<Self, GateError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Verifier::new_with_extra_roots(settings.roots, Arc::clone(&provider)).map_err(GateError::Tls)?;
        let tls = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(GateError::Tls)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(Self {
            lines: Places::new(settings.journal.max_capacity()),
            names: settings.names,
            tls,
            provider,
            asks: settings.asks,
            journal: settings.journal,
            connections: Places::new(MOST_CONNECTIONS),
            requests: Places::new(MOST_REQUESTS),
            bodies: Places::new(MOST_BODIES),
            questions: Places::new(RESOLVER_THREADS),
        })
    }

    /// Makes ready for a sandbox. Nothing is open until it is attached.
    ///
    /// # Errors
    /// [`GateError::Authority`], [`GateError::Placeholder`].
    pub fn open(&self, opening: Opening) -> Result<Door, GateError> {
        let Opening { sandbox, tenant, egress, ceiling, limits, placeholders } = opening;
        if egress.variables().into_iter().any(|variable| placeholders.word(variable).is_none()) {
            return Err(GateError::Placeholder);
        }
        let policy = Arc::new(Policy::new(egress, ceiling));
        let (destinations, others) = policy.looked_into();
        let authority = if destinations.is_empty() {
            None
        } else {
            Some(Authority::new(&destinations, Arc::clone(&self.provider))?)
        };
        let names = Arc::new(self.names.for_sandbox(self.questions.share(tenant, QUESTIONS)));
        let own = usize::try_from(limits.connections).unwrap_or(usize::MAX).min(MOST_CONNECTIONS);
        let trust = authority.as_ref().map(|authority| Trust {
            certificate: authority.pem(),
            others,
            placeholders: placeholders.clone(),
        });
        let scene = Scene {
            upstream: Upstream::new(Arc::clone(&policy), Arc::clone(&names), &self.tls),
            policy,
            authority,
            names,
            journal: Journal::new(sandbox, self.journal.clone(), self.lines.share(tenant, self.journal.max_capacity())),
            leases: Leases::new(sandbox, self.asks.clone()),
            meter: Arc::new(Meter::new(&limits)),
            stand: Mutex::default(),
            connections: self.connections.share(tenant, own),
            requests: self.requests.share(tenant, own),
            bodies: self.bodies.share(tenant, BODIES),
            placeholders,
            closed: CancellationToken::new(),
        };
        Ok(Door { scene: Arc::new(scene), trust })
    }
}

/// What programs in a sandbox have to believe in, and what they get in the place of secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    /// The certificate of the sandbox's own authority (RFC 7468).
    pub certificate: String,
    /// Whether they need the system's authorities as well.
    pub others: Others,
    /// What stands in their environment.
    pub placeholders: Placeholders,
}

/// The sockets of a sandbox. Each is bound in its network namespace, before anything of a tenant runs there.
pub struct Listeners {
    /// `127.0.0.1:3128`: programs that know of a proxy.
    pub explicit: TcpListener,
    /// `0.0.0.0:443`: programs that do not.
    pub https: TcpListener,
    /// `0.0.0.0:80`.
    pub http: TcpListener,
    /// `127.0.0.1:53`, datagrams.
    pub names: UdpSocket,
    /// `127.0.0.1:53`, connections.
    pub names_stream: TcpListener,
}

/// One sandbox's way out. Dropping it closes every connection.
pub struct Door {
    scene: Arc<Scene>,
    trust: Option<Trust>,
}

impl Door {
    /// What programs in the sandbox have to believe in; nothing if nobody looks into their connections.
    pub fn trust(&self) -> Option<&Trust> {
        self.trust.as_ref()
    }

    /// Takes a connection of somebody who knows of the proxy, as if it had come by [`Listeners::explicit`]. One that
    /// finds no place waits for it.
    pub fn admit<S>(&self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let scene = Arc::clone(&self.scene);
        self.scene.spawn(async move {
            if let Some(held) = scene.place().await {
                connection::explicit(Arc::clone(&scene), stream, held).await;
            }
        });
    }

    /// Other calls run in the sandbox now, and this is their number; it grows. Leases for calls of another number are
    /// over.
    pub fn calls(&self, number: u64) {
        self.scene.leases.calls(number);
    }

    /// Begins to listen.
    pub fn attach(&self, listeners: Listeners) {
        let scene = &self.scene;
        accept(scene, listeners.explicit, |scene, stream, _, held| Box::pin(connection::explicit(scene, stream, held)));
        accept(scene, listeners.https, |scene, stream, to, held| {
            Box::pin(connection::transparent(scene, stream, to, 443, held))
        });
        accept(scene, listeners.http, |scene, stream, to, held| {
            Box::pin(connection::transparent(scene, stream, to, 80, held))
        });
        accept(scene, listeners.names_stream, |scene, stream, _, held| {
            Box::pin(async move {
                dns::stream(scene, stream).await;
                drop(held);
            })
        });
        scene.spawn(dns::datagrams(Arc::clone(scene), listeners.names));
    }
}

impl Door {
    /// Closes every connection, and comes back once all lines of theirs are in the queue.
    pub async fn closed(self) {
        let journal = self.scene.journal.clone();
        drop(self);
        journal.ended().await;
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.scene.closed.cancel();
    }
}

/// A connection's place. Held by whatever goes on with the connection, also where that is another task than the one
/// that read its first request.
pub(crate) struct Held {
    _place: Taken,
}

type Handling = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

fn accept(scene: &Arc<Scene>, listener: TcpListener, handle: fn(Arc<Scene>, TcpStream, IpAddr, Arc<Held>) -> Handling) {
    let own = Arc::clone(scene);
    scene.spawn(async move {
        loop {
            let accepted = listener.accept().await.and_then(|(stream, _)| Ok((stream.local_addr()?, stream)));
            let Ok((to, stream)) = accepted else {
                // Out of descriptors, most likely; they come back.
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            };
            let _ = stream.set_nodelay(true);
            // What comes after it waits in the kernel, at the sandbox's cost, until there is a place for this one.
            let Some(held) = own.place().await else { return };
            let scene = Arc::clone(&own);
            own.spawn(handle(scene, stream, SocketAddr::ip(&to), held));
        }
    });
}

/// All that belongs to one sandbox.
pub(crate) struct Scene {
    pub(crate) policy: Arc<Policy>,
    pub(crate) authority: Option<Authority>,
    pub(crate) names: Arc<Resolver>,
    pub(crate) upstream: Upstream,
    pub(crate) journal: Journal,
    pub(crate) leases: Leases,
    pub(crate) meter: Arc<Meter>,
    stand: Mutex<Stand>,
    connections: Share,
    /// Requests that are under way.
    pub(crate) requests: Share,
    /// Bodies that are held whole.
    pub(crate) bodies: Share,
    pub(crate) placeholders: Placeholders,
    closed: CancellationToken,
}

impl Scene {
    pub(crate) fn stand(&self) -> MutexGuard<'_, Stand> {
        self.stand.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for a connection, once there is one.
    async fn place(&self) -> Option<Arc<Held>> {
        let place = self.connections.take().await?;
        Some(Arc::new(Held { _place: place }))
    }

    /// Waits for something, but no longer than the sandbox is there. Requests of HTTP/2 are tasks of their own: one
    /// that waits for a place must not go out in the place of one that was just cut.
    pub(crate) async fn until_closed<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            biased;
            () = self.closed.cancelled() => None,
            done = work => Some(done),
        }
    }

    /// Runs something that ends with the sandbox.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let closed = self.closed.clone();
        tokio::spawn(async move { closed.run_until_cancelled_owned(work).await });
    }
}
