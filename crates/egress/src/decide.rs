//! What a policy means for a connection, an address and a request.

use std::net::IpAddr;

use bailiwick_types::address::{inner, is_nobodys, is_public};
use bailiwick_types::egress::{
    Egress, EgressList, EgressRule, EgressWord, PairMatcher, RequestMatch, RuleAct, Subnets,
};
use bailiwick_types::host::HostName;

use crate::path;

/// Why something may not leave. Each has a code that never changes, for the record, and a sentence for whoever
/// asked, who is an agent and should do something else next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// No rule has the host and port.
    #[error("this sandbox may not reach that host: only an admin can allow it, in the agent's `egress`")]
    Host,
    /// An address that no rule names, instead of a name.
    #[error("this sandbox reaches hosts by their names alone: use the name")]
    Literal,
    /// The name leads to an address that is not public.
    #[error("the name leads to an address that is not public")]
    NotPublic,
    /// An address that the policy refuses.
    #[error("the name leads to an address that this sandbox may not reach")]
    Subnet,
    /// No rule of the host fits the request.
    #[error("of that host this sandbox may only reach what the agent's `egress` describes, and this is not it")]
    Rule,
    /// The path can be read in two ways.
    #[error("the path can be read in two ways: write it without dot segments and doubled slashes")]
    Path,
}

impl Refused {
    /// The stable word.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Host => "host_not_allowed",
            Self::Literal => "address_not_named",
            Self::NotPublic => "address_not_public",
            Self::Subnet => "subnet_denied",
            Self::Rule => "no_rule",
            Self::Path => "path_ambiguous",
        }
    }
}

/// How deep one looks into a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// At the host's name alone.
    Tunnel,
    /// At each request.
    Requests,
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
        if self.allows(inner(address)) { Ok(()) } else { Err(Refused::Literal) }
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
