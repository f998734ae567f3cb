//! What a policy means for a connection, an address and a request.

use std::collections::BTreeSet;
use std::net::IpAddr;

use bailiwick_types::SecretName;
use bailiwick_types::address::{inner, is_nobodys, is_public};
use bailiwick_types::egress::{
    Egress, EgressList, EgressRule, EgressWord, PairMatcher, RequestMatch, RuleAct, Subnets,
};
use bailiwick_types::host::{Destination, HostName};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Others {
    /// Some.
    Reachable,
    /// None.
    Closed,
}

/// What a sandbox may reach: what its agent says, as far as the operator lets any agent go.
#[derive(Debug, Clone)]
pub struct Policy {
    own: Egress,
    ceiling: Egress,
}

/// That a host and port may be reached, and under which rules.
#[derive(Debug, Clone, Copy)]
pub struct Passage<'p> {
    own: &'p [EgressRule],
    ceiling: &'p [EgressRule],
}

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
    /// What an agent's definition says, and the operator's ceiling, whose rules only choose and change nothing.
    pub fn new(own: Egress, ceiling: Egress) -> Self {
        Self { own, ceiling }
    }

    fn both(&self) -> [&Egress; 2] {
        [&self.own, &self.ceiling]
    }

    /// Whether a host may be reached at a port. The most specific destination counts, and no other: who writes
    /// rules for one host does not mean those of `*` as well.
    ///
    /// # Errors
    /// [`Refused::Host`].
    pub fn host(&self, host: &HostName, port: u16) -> Result<Passage<'_>, Refused> {
        let rules = |egress| rules(egress, host, port).ok_or(Refused::Host);
        Ok(Passage { own: rules(&self.own)?, ceiling: rules(&self.ceiling)? })
    }

    /// Whether a rule may send requests to a host and port: where the operator lets any agent go, unlooked.
    ///
    /// # Errors
    /// [`Refused::Host`].
    pub fn forward(&self, host: &HostName, port: u16) -> Result<(), Refused> {
        rules(&self.ceiling, host, port).filter(|rules| rules.is_empty()).map(drop).ok_or(Refused::Host)
    }

    /// Whether a name may be asked for: whether it may be reached at any port.
    pub fn knows(&self, host: &HostName) -> bool {
        self.both().into_iter().all(|egress| match egress {
            Egress::Word(word) => *word == EgressWord::AllowAll,
            Egress::List(list) => list.allow.keys().any(|destination| destination.hosts.fits(host)),
        })
    }

    /// Whether an address may be connected to, that the name of a host led to just now.
    ///
    /// # Errors
    /// [`Refused::Subnet`], [`Refused::NotPublic`].
    pub fn address(&self, address: IpAddr) -> Result<(), Refused> {
        let address = inner(address);
        if self.both().into_iter().any(|egress| has(egress, |subnets| &subnets.deny, address)) {
            return Err(Refused::Subnet);
        }
        // Where clouds keep their machines' credentials nobody has business, whatever an agent's file says.
        if is_nobodys(address) || !(is_public(address) || self.both().into_iter().all(|egress| allows(egress, address)))
        {
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
        let named =
            |egress: &Egress| matches!(egress, Egress::Word(EgressWord::AllowAll)) || allows(egress, inner(address));
        if self.both().into_iter().all(named) { Ok(()) } else { Err(Refused::Literal) }
    }

    /// Whether both have a subnet that allows an address.
    pub(crate) fn allows(&self, address: IpAddr) -> bool {
        self.both().into_iter().all(|egress| allows(egress, inner(address)))
    }

    /// Whether some rule puts a secret into requests to a host, at a port at which it may be reached. What nobody's
    /// rules name nobody has a reason to ask for.
    pub fn gives(&self, secret: &SecretName, host: &HostName) -> bool {
        let lists = self.both().into_iter().filter_map(|egress| match egress {
            Egress::List(list) => Some(list),
            Egress::Word(_) => None,
        });
        let named = lists.flat_map(|list| list.allow.keys()).filter_map(|destination| destination.port);
        let ports: BTreeSet<u16> = named.chain([80, 443]).collect();
        ports
            .into_iter()
            .filter_map(|port| self.host(host, port).ok())
            .any(|passage| passage.own.iter().any(|rule| rule.act.secrets().any(|named| named == secret)))
    }

    /// The destinations whose requests are looked at, and whether there are others.
    pub fn looked_into(&self) -> (Vec<&Destination>, Others) {
        let lists = self.both().into_iter().filter_map(|egress| match egress {
            Egress::List(list) => Some(list),
            Egress::Word(_) => None,
        });
        let ruled = lists.flat_map(|list| &list.allow).filter(|(_, rules)| !rules.is_empty()).map(|(to, _)| to);
        let plain = match &self.own {
            Egress::Word(word) => *word == EgressWord::AllowAll,
            Egress::List(list) => list.allow.values().any(Vec::is_empty),
        };
        (ruled.collect(), if plain { Others::Reachable } else { Others::Closed })
    }
}

fn rules<'p>(egress: &'p Egress, host: &HostName, port: u16) -> Option<&'p [EgressRule]> {
    let list = match egress {
        Egress::Word(EgressWord::AllowAll) => return Some(&[]),
        Egress::Word(EgressWord::DenyAll) => return None,
        Egress::List(list) => list,
    };
    let fitting = list.allow.iter().filter(|(destination, _)| destination.fits(host, port));
    let rules = fitting.max_by_key(|(destination, _)| (destination.hosts.specificity(), destination.port.is_some()));
    rules.map(|(_, rules)| rules.as_slice())
}

fn has(egress: &Egress, which: fn(&Subnets) -> &Vec<IpNet>, address: IpAddr) -> bool {
    let Egress::List(EgressList { subnets, .. }) = egress else { return false };
    which(subnets).iter().any(|subnet| subnet.contains(&address))
}

fn allows(egress: &Egress, address: IpAddr) -> bool {
    has(egress, |subnets| &subnets.allow, address)
}

impl<'p> Passage<'p> {
    /// How deep one has to look.
    pub fn depth(&self) -> Depth {
        if self.own.is_empty() && self.ceiling.is_empty() { Depth::Tunnel } else { Depth::Requests }
    }

    /// What becomes of a request: the first rule that fits.
    ///
    /// # Errors
    /// [`Refused::Rule`], [`Refused::Path`].
    pub fn request(&self, request: &Request<'_>) -> Result<&'p RuleAct, Refused> {
        if self.depth() == Depth::Tunnel {
            return Ok(&RuleAct::Pass);
        }
        let path = path::plain(request.path).ok_or(Refused::Path)?;
        let first = |rules: &'p [EgressRule]| match rules {
            [] => Some(&RuleAct::Pass),
            rules => rules
                .iter()
                .find(|rule| rule.matches.as_ref().is_none_or(|wanted| fits(wanted, &path, request)))
                .map(|rule| &rule.act),
        };
        first(self.ceiling).and_then(|_| first(self.own)).ok_or(Refused::Rule)
    }
}

fn fits(wanted: &RequestMatch, path: &str, request: &Request<'_>) -> bool {
    let every = |wanted: &[PairMatcher], pairs: &[(String, String)]| {
        wanted.iter().all(|wanted| {
            // All of that name have to fit: whoever reads the request may take any of them.
            let named = || pairs.iter().filter(|(key, _)| wanted.key.as_ref().is_none_or(|name| name.fits(key)));
            let every = wanted.key.is_none() || named().all(|(key, value)| wanted.fits(key, value));
            every && named().any(|(key, value)| wanted.fits(key, value))
        })
    };
    wanted.path.as_ref().is_none_or(|wanted| wanted.fits(path))
        && (wanted.method.is_empty() || wanted.method.iter().any(|method| method == request.method))
        && every(&wanted.query_string, request.query)
        && every(&wanted.headers, request.headers)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests;
