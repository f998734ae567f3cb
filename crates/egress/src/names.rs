//! From a name to an address, and from an address that stands for a name back to it.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

use bailiwick_types::address::inner;
use bailiwick_types::host::HostName;
use tokio::net::TcpStream;

use crate::decide::Policy;
use crate::own::OwnAddresses;
use crate::refused::Refused;
use crate::shares::Share;

/// How long one address may take to answer.
const CONNECT: Duration = Duration::from_secs(5);
/// How long a name may take to be resolved.
const RESOLVE: Duration = Duration::from_secs(10);
/// Questions to the system's resolver of one sandbox at once.
pub(crate) const QUESTIONS: usize = 16;
/// Most addresses of a name that are tried.
const MOST_TRIED: usize = 4;

/// Where somebody wants to go.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Target {
    /// To a host.
    Name(HostName),
    /// To an address in the place of a name.
    Address(IpAddr),
}

impl Target {
    /// What stands in the place of a host in an authority: a name, an IPv4 address, an IPv6 one in brackets.
    pub(crate) fn parse(text: &str) -> Result<Self, Refused> {
        let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        let address = match bracketed {
            Some(six) => six.parse().ok().map(IpAddr::V6),
            None => text.parse().ok().map(IpAddr::V4),
        };
        match address {
            Some(address) => Ok(Self::Address(address)),
            None => HostName::parse(text).map(Self::Name).map_err(|_| Refused::Name),
        }
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Name(name) => write!(f, "{name}"),
            Self::Address(IpAddr::V6(six)) => write!(f, "[{six}]"),
            Self::Address(address) => write!(f, "{address}"),
        }
    }
}

/// The system's resolver, with names of the operator's in front of it.
#[derive(Debug, Clone)]
pub struct Names {
    fixed: Arc<BTreeMap<HostName, Vec<IpAddr>>>,
    own: OwnAddresses,
}

/// The same, for one sandbox.
#[derive(Debug)]
pub(crate) struct Resolver {
    names: Names,
    /// Questions at once. Each holds a thread for as long as the system's resolver takes, and a name whose servers
    /// are silent takes long.
    places: Share,
}

impl Names {
    /// These names lead to these addresses, all others where the system says. Addresses of the host's `own` are
    /// for those whom a subnet allows it.
    pub fn new(fixed: BTreeMap<HostName, Vec<IpAddr>>, own: OwnAddresses) -> Self {
        Self { fixed: Arc::new(fixed), own }
    }

    /// The same, with places of its own.
    pub(crate) fn for_sandbox(&self, places: Share) -> Resolver {
        Resolver { names: self.clone(), places }
    }

    fn judge(&self, policy: &Policy, address: IpAddr) -> Result<(), Refused> {
        policy.address(address)?;
        if self.own.has(inner(address)) && !policy.allows(address) { Err(Refused::OwnAddress) } else { Ok(()) }
    }
}

impl Resolver {
    /// The addresses of a target that a policy lets through. Asked once for a connection, which then goes to one
    /// of them and never to the name again.
    pub(crate) async fn judged(&self, policy: &Policy, target: &Target) -> Result<Vec<IpAddr>, Refused> {
        let name = match target {
            Target::Address(address) => {
                policy.literal(*address)?;
                return self.names.judge(policy, *address).map(|()| vec![*address]);
            }
            Target::Name(name) => name,
        };
        let found = match self.names.fixed.get(name) {
            Some(addresses) => addresses.clone(),
            None => self.system(name).await?,
        };
        let mut refused = Refused::NoAddress;
        let mut through = Vec::new();
        for address in found {
            match self.names.judge(policy, address) {
                Ok(()) => through.push(address),
                Err(why) => refused = why,
            }
        }
        through.truncate(MOST_TRIED);
        if through.is_empty() { Err(refused) } else { Ok(through) }
    }

    async fn system(&self, name: &HostName) -> Result<Vec<IpAddr>, Refused> {
        // With the final dot no search list of the host's makes another name of it.
        let asked = format!("{name}.");
        let places = self.places.clone();
        let asking = async move {
            let place = places.take().await?;
            let resolving = tokio::task::spawn_blocking(move || {
                let found = (asked.as_str(), 0).to_socket_addrs().ok()?;
                let found = found.map(|address| address.ip()).collect::<Vec<_>>();
                // Held until the thread is free, also where nobody waits any more.
                drop(place);
                Some(found)
            });
            resolving.await.ok()?
        };
        tokio::time::timeout(RESOLVE, asking).await.ok().flatten().ok_or(Refused::NoAddress)
    }
}

/// Connects to the first address that answers.
pub(crate) async fn connect(addresses: &[IpAddr], port: u16) -> Result<(TcpStream, IpAddr), Refused> {
    for address in addresses {
        let connecting = TcpStream::connect(SocketAddr::new(*address, port));
        if let Ok(Ok(stream)) = tokio::time::timeout(CONNECT, connecting).await {
            let _ = stream.set_nodelay(true);
            return Ok((stream, *address));
        }
    }
    Err(Refused::Unreachable)
}

/// The first of the addresses that stand for names: a network for measurements (RFC 2544), which nothing public
/// answers for.
const FIRST: u32 = u32::from_be_bytes([198, 18, 0, 1]);
/// Most names of one sandbox. There are 131,072 addresses.
const MOST_NAMES: u32 = 8192;

/// Which address stands for which name, in one sandbox.
#[derive(Debug, Default)]
pub(crate) struct Stand {
    names: HashMap<HostName, u32>,
    order: Vec<HostName>,
}

impl Stand {
    /// The address that stands for a name, from now on.
    pub(crate) fn for_name(&mut self, name: &HostName) -> Result<Ipv4Addr, Refused> {
        let place = match self.names.get(name) {
            Some(place) => *place,
            None => {
                let place = u32::try_from(self.order.len()).ok().filter(|place| *place < MOST_NAMES);
                let place = place.ok_or(Refused::Limit)?;
                self.names.insert(name.clone(), place);
                self.order.push(name.clone());
                place
            }
        };
        Ok(Ipv4Addr::from(FIRST + place))
    }

    /// What is meant by an address that somebody connected to.
    pub(crate) fn meant(&self, address: IpAddr) -> Target {
        let name = match address {
            IpAddr::V4(four) => u32::from(four).checked_sub(FIRST).and_then(|place| usize::try_from(place).ok()),
            IpAddr::V6(_) => None,
        };
        let name = name.and_then(|place| self.order.get(place));
        name.map_or(Target::Address(address), |name| Target::Name(name.clone()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn g03_an_address_in_any_notation_is_an_address_or_nothing() {
        let address = |text: &str| Target::Address(text.parse().unwrap());
        assert_eq!(Target::parse("10.0.0.1"), Ok(address("10.0.0.1")));
        assert_eq!(Target::parse("[::1]"), Ok(address("::1")));
        assert!(matches!(Target::parse("a.example"), Ok(Target::Name(_))));
        for text in ["::1", "0x7f000001", "2130706433", "0177.0.0.1", "127.1", "10.0.0.1.", "[10.0.0.1]", "", "a b"] {
            assert_eq!(Target::parse(text), Err(Refused::Name), "{text}");
        }
    }

    #[tokio::test]
    async fn g03_the_hosts_own_public_address_is_reached_where_a_subnet_has_it_and_nowhere_else() {
        let (folder, own) = crate::own::tests::told("judged", crate::own::tests::ONE, "");
        let name = HostName::parse("me.example").unwrap();
        let fixed = BTreeMap::from([(name.clone(), vec!["8.8.4.4".parse().unwrap(), "8.8.4.5".parse().unwrap()])]);
        let resolver = Names::new(fixed, own).for_sandbox(crate::shares::Places::new(4).share(1, 4));
        let policy = |text: &str| Policy::new(serde_json::from_str(text).unwrap(), serde_json::from_str(text).unwrap());
        let all = policy(r#""allow-all""#);
        let judged = |policy: Policy, target: Target| {
            let resolver = &resolver;
            async move { resolver.judged(&policy, &target).await }
        };
        // Of two addresses the one that is somebody else's is left.
        let found = judged(all.clone(), Target::Name(name.clone())).await;
        assert_eq!(found, Ok(vec!["8.8.4.5".parse().unwrap()]));
        for text in ["8.8.4.4", "::ffff:8.8.4.4", "64:ff9b::808:404"] {
            let found = judged(all.clone(), Target::Address(text.parse().unwrap())).await;
            assert_eq!(found, Err(Refused::OwnAddress), "{text}");
        }
        let named = policy(r#"{ "allow": ["*"], "subnets": { "allow": ["8.8.4.4/32"] } }"#);
        assert_eq!(judged(named, Target::Name(name)).await.map(|all| all.len()), Ok(2));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn g03_an_address_stands_for_the_name_that_was_asked_for_and_no_other() {
        let mut stand = Stand::default();
        let (one, other) = (HostName::parse("a.example").unwrap(), HostName::parse("b.example").unwrap());
        let first = stand.for_name(&one).unwrap();
        assert_ne!(first, stand.for_name(&other).unwrap());
        assert_eq!(first, stand.for_name(&one).unwrap());
        assert_eq!(stand.meant(first.into()), Target::Name(one));
        for text in ["198.18.0.3", "198.18.0.0", "0.0.0.0", "169.254.169.254", "255.255.255.255", "::1"] {
            let address = text.parse().unwrap();
            assert_eq!(stand.meant(address), Target::Address(address));
        }
        for number in 2..MOST_NAMES {
            stand.for_name(&HostName::parse(&format!("n{number}.example")).unwrap()).unwrap();
        }
        assert_eq!(stand.for_name(&HostName::parse("more.example").unwrap()), Err(Refused::Limit));
    }
}
