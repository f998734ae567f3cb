//! What a call may reach. There is no call without one, so that nobody calls out who has not said whose word
//! the host is.

use std::net::IpAddr;

use url::{Host, Url};

use crate::address::{Place, fits};

/// What a call may reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Public addresses, by TLS: for whatever somebody else named.
    Public,
    /// This origin alone, which the operator named. It may be in a private network, or on this machine.
    Named(Origin),
}

/// An origin that the operator wrote into the configuration: scheme, host and port (RFC 6454).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    origin: url::Origin,
    place: Place,
}

/// Where plain HTTP is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plain {
    /// To this machine.
    Loopback,
    /// To any machine: the network between sees everything.
    Anywhere,
}

/// Why an address is no origin that can be called. The text never repeats the address, which may hold a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OriginError {
    /// Neither HTTP nor HTTPS, or without a host.
    #[error("is not an http or https URL")]
    NotHttp,
    /// It has a user or a password.
    #[error("has a user or password")]
    HasUser,
    /// Plain HTTP to another machine.
    #[error("is plain http to another machine")]
    Plain,
    /// Where no machine answers for itself.
    #[error("is an address where no such server is: link-local, multicast, or where clouds keep credentials")]
    Nobodys,
}

/// Why a call is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Its address is none that this call may have.
    Address,
    /// Its host is where this call may not go.
    Network,
}

impl Origin {
    /// The origin of an address.
    ///
    /// # Errors
    /// [`OriginError`].
    pub fn of(url: &Url, plain: Plain) -> Result<Self, OriginError> {
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(OriginError::NotHttp);
        }
        if has_user(url) {
            return Err(OriginError::HasUser);
        }
        // What goes in the clear to this machine must not leave it, whatever a resolver says of its name.
        let place = match (url.scheme(), plain) {
            ("http", Plain::Loopback) if !is_loopback(url) => return Err(OriginError::Plain),
            ("http", Plain::Loopback) => Place::Loopback,
            _ => Place::Machine,
        };
        if literal(url).is_some_and(|address| !fits(address, place)) {
            return Err(OriginError::Nobodys);
        }
        Ok(Self { origin: url.origin(), place })
    }

    /// Whether an address is of this origin.
    pub fn has(&self, url: &Url) -> bool {
        url.origin() == self.origin
    }
}

impl Reach {
    /// Where the host of an address may be, if it may be called at all.
    pub(crate) fn judge(&self, url: &Url) -> Result<Place, Refusal> {
        let place = match self {
            Self::Public if url.scheme() == "https" => Place::Public,
            Self::Named(origin) if origin.has(url) => origin.place,
            Self::Public | Self::Named(_) => return Err(Refusal::Address),
        };
        if has_user(url) || !url.has_host() {
            return Err(Refusal::Address);
        }
        // The resolver sees names alone.
        if literal(url).is_some_and(|address| !fits(address, place)) {
            return Err(Refusal::Network);
        }
        Ok(place)
    }
}

fn has_user(url: &Url) -> bool {
    !url.username().is_empty() || url.password().is_some()
}

/// The address that stands in the place of a name, whatever its notation was.
fn literal(url: &Url) -> Option<IpAddr> {
    match url.host()? {
        Host::Ipv4(four) => Some(four.into()),
        Host::Ipv6(six) => Some(six.into()),
        Host::Domain(_) => None,
    }
}

fn is_loopback(url: &Url) -> bool {
    // The name `localhost` is the loopback on every supported system (RFC 6761).
    url.host_str() == Some("localhost") || literal(url).is_some_and(|address| fits(address, Place::Loopback))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn g08_an_origin_is_https_or_this_machine_or_the_operators_decision() {
        let of = |text: &str, plain| Origin::of(&url(text), plain).map(|origin| origin.place);
        for (text, loopback, anywhere) in [
            ("https://a.example/v1", Ok(Place::Machine), Ok(Place::Machine)),
            ("https://10.0.0.7", Ok(Place::Machine), Ok(Place::Machine)),
            ("http://127.0.0.1:9", Ok(Place::Loopback), Ok(Place::Machine)),
            ("http://[::1]:9", Ok(Place::Loopback), Ok(Place::Machine)),
            ("http://localhost:9", Ok(Place::Loopback), Ok(Place::Machine)),
            ("http://10.0.0.7", Err(OriginError::Plain), Ok(Place::Machine)),
            ("http://localhost.a.example", Err(OriginError::Plain), Ok(Place::Machine)),
            ("https://169.254.169.254", Err(OriginError::Nobodys), Err(OriginError::Nobodys)),
            ("https://[fd00:ec2::254]", Err(OriginError::Nobodys), Err(OriginError::Nobodys)),
            ("https://[::ffff:169.254.169.254]", Err(OriginError::Nobodys), Err(OriginError::Nobodys)),
            ("https://0.0.0.0", Err(OriginError::Nobodys), Err(OriginError::Nobodys)),
            ("https://u:p@a.example", Err(OriginError::HasUser), Err(OriginError::HasUser)),
            ("file:///etc/passwd", Err(OriginError::NotHttp), Err(OriginError::NotHttp)),
            ("ftp://a.example", Err(OriginError::NotHttp), Err(OriginError::NotHttp)),
        ] {
            assert_eq!((of(text, Plain::Loopback), of(text, Plain::Anywhere)), (loopback, anywhere), "{text}");
        }
    }

    #[test]
    fn g08_a_call_goes_to_the_operators_origin_alone_or_to_the_public_network_by_tls() {
        let named = |text: &str, configured: &str| {
            Reach::Named(Origin::of(&url(configured), Plain::Loopback).unwrap()).judge(&url(text))
        };
        let inside = "https://10.0.0.7/v1";
        for (text, configured, expected) in [
            ("https://10.0.0.7/v1/messages", inside, Ok(Place::Machine)),
            ("https://10.0.0.7:443/", inside, Ok(Place::Machine)),
            ("https://10.7/", inside, Ok(Place::Machine)),
            ("https://10.0.0.7:8443/", inside, Err(Refusal::Address)),
            ("http://10.0.0.7/", inside, Err(Refusal::Address)),
            ("https://10.0.0.8/", inside, Err(Refusal::Address)),
            ("https://u@10.0.0.7/", inside, Err(Refusal::Address)),
            ("http://localhost:9/x", "http://localhost:9", Ok(Place::Loopback)),
            ("http://localhost:8/x", "http://localhost:9", Err(Refusal::Address)),
            ("http://127.0.0.1:9/x", "http://localhost:9", Err(Refusal::Address)),
            ("https://a.example.evil/", "https://a.example", Err(Refusal::Address)),
        ] {
            assert_eq!(named(text, configured), expected, "{text} by {configured}");
        }
        for (text, expected) in [
            ("https://a.example/", Ok(Place::Public)),
            ("https://93.184.215.14/", Ok(Place::Public)),
            ("http://a.example/", Err(Refusal::Address)),
            ("http://127.0.0.1:9/", Err(Refusal::Address)),
            ("ftp://a.example/", Err(Refusal::Address)),
            ("https://u:p@a.example/", Err(Refusal::Address)),
            ("https://10.0.0.7/", Err(Refusal::Network)),
            ("https://0x0a000007/", Err(Refusal::Network)),
            ("https://012.0.0.7/", Err(Refusal::Network)),
            ("https://167772167/", Err(Refusal::Network)),
            ("https://127.1/", Err(Refusal::Network)),
            ("https://[::ffff:10.0.0.7]/", Err(Refusal::Network)),
            ("https://[64:ff9b::7f00:1]/", Err(Refusal::Network)),
            ("https://169.254.169.254/latest", Err(Refusal::Network)),
        ] {
            assert_eq!(Reach::Public.judge(&url(text)), expected, "{text}");
        }
    }
}
