//! What a policy means for a connection, an address and a request.

use std::net::IpAddr;

use bailiwick_types::address::{inner, is_nobodys, is_public};
use bailiwick_types::egress::{
    Egress, EgressList, EgressRule, EgressWord, PairMatcher, RequestMatch, RuleAct, Subnets,
};
use bailiwick_types::host::{Destination, HostName};

use crate::path;
use crate::refused::Refused;

/// How deep one looks into a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// At the host's name alone.
    Tunnel,
    /// At each request.
    Requests,
}

/// Whether a sandbox may reach hosts into whose connections nobody looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Others {
    /// Some.
    Reachable,
    /// None.
    Closed,
}

/// What a sandbox may reach.
#[derive(Debug, Clone)]
pub struct Policy(Egress);

/// That a host and port may be reached, and under which rules.
#[derive(Debug, Clone, Copy)]
pub struct Passage<'p>(&'p [EgressRule]);

/// A request to a host that may be reached.
pub struct Request<'r> {
    /// `GET`, …
    pub method: &'r str,
    /// As it was sent, without the query.
    pub path: &'r str,
    /// The parameters of the query, decoded.
    pub query: &'r [(String, String)],
    /// The headers; names in lower case.
    pub headers: &'r [(String, String)],
}

impl Policy {
    /// What an agent's definition says.
    pub fn new(egress: Egress) -> Self {
        Self(egress)
    }

    /// Whether a host may be reached at a port. The most specific destination counts, and no other: who writes
    /// rules for one host does not mean those of `*` as well.
    ///
    /// # Errors
    /// [`Refused::Host`].
    pub fn host(&self, host: &HostName, port: u16) -> Result<Passage<'_>, Refused> {
        let list = match &self.0 {
            Egress::Word(EgressWord::AllowAll) => return Ok(Passage(&[])),
            Egress::Word(EgressWord::DenyAll) => return Err(Refused::Host),
            Egress::List(list) => list,
        };
        let fitting = list.allow.iter().filter(|(destination, _)| destination.fits(host, port));
        let rules =
            fitting.max_by_key(|(destination, _)| (destination.hosts.specificity(), destination.port.is_some()));
        rules.map(|(_, rules)| Passage(rules)).ok_or(Refused::Host)
    }

    /// Whether a name may be asked for: whether it may be reached at any port.
    pub fn knows(&self, host: &HostName) -> bool {
        match &self.0 {
            Egress::Word(word) => *word == EgressWord::AllowAll,
            Egress::List(list) => list.allow.keys().any(|destination| destination.hosts.fits(host)),
        }
    }

    /// Whether an address may be connected to, that the name of a host led to just now.
    ///
    /// # Errors
    /// [`Refused::Subnet`], [`Refused::NotPublic`].
    pub fn address(&self, address: IpAddr) -> Result<(), Refused> {
        let address = inner(address);
        if self.denies(address) {
            return Err(Refused::Subnet);
        }
        // Where clouds keep their machines' credentials nobody has business, whatever an agent's file says.
        if is_nobodys(address) || !(is_public(address) || self.allows(address)) {
            return Err(Refused::NotPublic);
        }
        Ok(())
    }

    /// Whether an address may be connected to that stands in the place of a name.
    ///
    /// # Errors
    /// As [`Policy::address`], and [`Refused::Literal`] for one that no subnet has.
    pub fn literal(&self, address: IpAddr) -> Result<(), Refused> {
        self.address(address)?;
        let all = matches!(self.0, Egress::Word(EgressWord::AllowAll));
        if all || self.allows(inner(address)) { Ok(()) } else { Err(Refused::Literal) }
    }

    /// The destinations whose requests are looked at, and whether there are others.
    pub fn looked_into(&self) -> (Vec<&Destination>, Others) {
        let Egress::List(list) = &self.0 else { return (Vec::new(), Others::Reachable) };
        let (plain, ruled): (Vec<_>, Vec<_>) = list.allow.iter().partition(|(_, rules)| rules.is_empty());
        let others = if plain.is_empty() { Others::Closed } else { Others::Reachable };
        (ruled.into_iter().map(|(destination, _)| destination).collect(), others)
    }

    fn subnets(&self) -> Option<&Subnets> {
        if let Egress::List(EgressList { subnets, .. }) = &self.0 { Some(subnets) } else { None }
    }

    fn denies(&self, address: IpAddr) -> bool {
        self.subnets().is_some_and(|subnets| subnets.deny.iter().any(|subnet| subnet.contains(&address)))
    }

    fn allows(&self, address: IpAddr) -> bool {
        self.subnets().is_some_and(|subnets| subnets.allow.iter().any(|subnet| subnet.contains(&address)))
    }
}

impl<'p> Passage<'p> {
    /// How deep one has to look.
    pub fn depth(&self) -> Depth {
        if self.0.is_empty() { Depth::Tunnel } else { Depth::Requests }
    }

    /// What becomes of a request: the first rule that fits.
    ///
    /// # Errors
    /// [`Refused::Rule`], [`Refused::Path`].
    pub fn request(&self, request: &Request<'_>) -> Result<&'p RuleAct, Refused> {
        if self.0.is_empty() {
            return Ok(&RuleAct::Pass);
        }
        let path = path::plain(request.path).ok_or(Refused::Path)?;
        let found = self.0.iter().find(|rule| rule.matches.as_ref().is_none_or(|wanted| fits(wanted, &path, request)));
        found.map(|rule| &rule.act).ok_or(Refused::Rule)
    }
}

fn fits(wanted: &RequestMatch, path: &str, request: &Request<'_>) -> bool {
    let every = |wanted: &[PairMatcher], pairs: &[(String, String)]| {
        wanted.iter().all(|wanted| pairs.iter().any(|(key, value)| wanted.fits(key, value)))
    };
    wanted.path.as_ref().is_none_or(|wanted| wanted.fits(path))
        && (wanted.method.is_empty() || wanted.method.iter().any(|method| method == request.method))
        && every(&wanted.query_string, request.query)
        && every(&wanted.headers, request.headers)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
