//! From a name to the addresses that a connection may go to.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::address::{Place, fits};

/// Most addresses of one name that are tried.
const MOST_TRIED: usize = 8;

/// A name has no address that may be called.
#[derive(Debug, thiserror::Error)]
#[error("no address of this name may be called")]
pub(crate) struct NoFitting;

/// Who is asked for a name's addresses.
#[derive(Debug, Clone)]
pub(crate) enum Names {
    /// The system.
    System,
    /// These lead where the operator says, whatever their place; for others the system is asked.
    Led(Arc<BTreeMap<String, SocketAddr>>),
    /// A test, in which public addresses have somebody who stands in for them.
    #[cfg(test)]
    Told(std::sync::Arc<tests::Told>),
}

impl Names {
    async fn ask(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        match self {
            Self::System | Self::Led(_) => {
                let found = tokio::net::lookup_host((name, 0)).await?;
                Ok(found.map(|address| address.ip()).collect())
            }
            #[cfg(test)]
            Self::Told(told) => told.answer(name),
        }
    }

    /// Where the operator says that a name leads. A port of 0 is the one that the address has anyway.
    fn led(&self, name: &str) -> Option<SocketAddr> {
        match self {
            Self::Led(hosts) => hosts.get(name).copied(),
            _ => None,
        }
    }

    /// Where to connect for an address that was judged.
    fn place_of(&self, address: IpAddr) -> IpAddr {
        match self {
            Self::System | Self::Led(_) => address,
            #[cfg(test)]
            Self::Told(told) => told.stand_in(address),
        }
    }
}

/// Resolves a name, and keeps only the addresses that may be called. It is what a connection is made with, so
/// there is no second look-up that could answer otherwise.
pub(crate) struct Judging {
    names: Names,
    place: Place,
}

impl Judging {
    pub(crate) fn new(names: Names, place: Place) -> Self {
        Self { names, place }
    }
}

impl Resolve for Judging {
    fn resolve(&self, name: Name) -> Resolving {
        let (names, place) = (self.names.clone(), self.place);
        Box::pin(async move {
            if let Some(at) = names.led(name.as_str()) {
                // The operator's word; and still nobody is called where no server is.
                if !fits(at.ip(), Place::Machine) {
                    return Err(NoFitting.into());
                }
                let addresses: Addrs = Box::new(std::iter::once(at));
                return Ok(addresses);
            }
            let found = names.ask(name.as_str()).await?;
            let fitting = found.into_iter().filter(|address| fits(*address, place)).take(MOST_TRIED);
            let fitting: Vec<SocketAddr> = fitting.map(|address| (names.place_of(address), 0).into()).collect();
            if fitting.is_empty() {
                return Err(NoFitting.into());
            }
            let addresses: Addrs = Box::new(fitting.into_iter());
            Ok(addresses)
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
pub(crate) mod tests {
    use std::collections::{BTreeMap, VecDeque};
    use std::net::Ipv4Addr;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A public address for which this machine stands in.
    pub(crate) const PUBLIC: &str = "93.184.215.14";

    /// A resolver that says what a test tells it. The last answer for a name is repeated.
    #[derive(Debug, Default)]
    pub(crate) struct Told {
        answers: Mutex<BTreeMap<String, VecDeque<Vec<IpAddr>>>>,
        asked: Mutex<Vec<String>>,
    }

    impl Told {
        /// A resolver with these answers, one after the other.
        pub(crate) fn new(answers: &[(&str, &[&[&str]])]) -> Arc<Self> {
            let parsed = |all: &&[&str]| all.iter().map(|text| text.parse().unwrap()).collect();
            let answers = answers.iter().map(|(name, all)| ((*name).to_owned(), all.iter().map(parsed).collect()));
            Arc::new(Self { answers: Mutex::new(answers.collect()), asked: Mutex::default() })
        }

        /// What was asked.
        pub(crate) fn asked(&self) -> Vec<String> {
            self.asked.lock().unwrap().clone()
        }

        pub(super) fn answer(&self, name: &str) -> io::Result<Vec<IpAddr>> {
            self.asked.lock().unwrap().push(name.to_owned());
            let mut answers = self.answers.lock().unwrap();
            let all = answers.get_mut(name).ok_or(io::ErrorKind::NotFound)?;
            let next = if all.len() > 1 { all.pop_front() } else { all.front().cloned() };
            next.ok_or(io::ErrorKind::NotFound.into())
        }

        pub(super) fn stand_in(&self, address: IpAddr) -> IpAddr {
            if address == PUBLIC.parse::<IpAddr>().unwrap() { Ipv4Addr::LOCALHOST.into() } else { address }
        }
    }
}
