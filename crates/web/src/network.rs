//! Addresses and ranges of them, as written in `server.ip_allow` and `server.trusted_proxies`.
//!
//! An address is compared in its canonical form, so that `::ffff:10.0.0.1` is `10.0.0.1`. A range that
//! cannot be read is an error; it must never become a range that allows everything or nothing.

use std::net::IpAddr;
use std::str::FromStr;

use http::HeaderMap;

/// A range of addresses: `10.0.0.0/8`, `2001:db8::/32`, or one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    first: u128,
    bits: u32,
    family: Family,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

/// The text is not a range of addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not an address or a range of addresses: write 10.0.0.1, 10.0.0.0/8 or 2001:db8::/32")]
pub struct NetworkError;

fn number(address: IpAddr) -> (u128, u32, Family) {
    match address.to_canonical() {
        IpAddr::V4(v4) => (u128::from(v4.to_bits()), 32, Family::V4),
        IpAddr::V6(v6) => (v6.to_bits(), 128, Family::V6),
    }
}

/// The leading `bits` of a number of `width` bits.
fn lead(number: u128, bits: u32, width: u32) -> u128 {
    // A shift by the whole width is not defined, and means that nothing is left to compare.
    number.checked_shr(width - bits).unwrap_or(0)
}

impl Network {
    /// Whether the address is in the range.
    pub fn contains(&self, address: IpAddr) -> bool {
        let (number, width, family) = number(address);
        family == self.family && lead(number, self.bits, width) == lead(self.first, self.bits, width)
    }
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, bits) = match text.split_once('/') {
            None => (text, None),
            Some((address, bits)) => (address, Some(bits)),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError)?;
        let (first, width, family) = number(address);
        let bits = match bits {
            None => width,
            Some(bits) if bits.bytes().all(|b| b.is_ascii_digit()) => {
                let bits: u32 = bits.parse().map_err(|_| NetworkError)?;
                // A mapped range is counted in 128 bits by who wrote it; the first 96 are the mapping.
                if address.is_ipv6() && family == Family::V4 { bits.checked_sub(96).ok_or(NetworkError)? } else { bits }
            }
            Some(_) => return Err(NetworkError),
        };
        if bits > width { Err(NetworkError) } else { Ok(Self { first, bits, family }) }
    }
}

/// The client's address: the socket's, or, behind trusted proxies, the last one in `X-Forwarded-For`
/// that is none of theirs. `None` if a trusted proxy sent something that cannot be read.
pub(crate) fn client(peer: IpAddr, headers: &HeaderMap, proxies: &[Network]) -> Option<IpAddr> {
    let trusted = |address: IpAddr| proxies.iter().any(|proxy| proxy.contains(address));
    if !trusted(peer) {
        return Some(peer);
    }
    let mut hops: Vec<&str> = Vec::new();
    for value in headers.get_all("x-forwarded-for") {
        hops.extend(value.to_str().ok()?.split(',').map(str::trim));
    }
    let mut last = peer;
    for hop in hops.into_iter().rev() {
        last = hop.parse().ok()?;
        if !trusted(last) {
            break;
        }
    }
    Some(last)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn within(range: &str, address: &str) -> bool {
        range.parse::<Network>().expect(range).contains(address.parse().expect(address))
    }

    #[test]
    fn ranges_hold_what_they_say() {
        assert!(within("10.0.0.0/8", "10.255.0.1"));
        assert!(!within("10.0.0.0/8", "11.0.0.1"));
        assert!(within("10.0.0.1", "::ffff:10.0.0.1"));
        assert!(within("::ffff:10.0.0.0/104", "10.1.2.3"));
        assert!(within("0.0.0.0/0", "1.2.3.4") && !within("0.0.0.0/0", "2001:db8::1"));
        assert!(within("2001:db8::/32", "2001:db8:1::1") && !within("2001:db8::/32", "2001:db9::1"));
        assert!(within("::/0", "2001:db8::1"));
        for text in ["", "*", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8", "10.0.0/8", "::1/129", "localhost"] {
            assert!(text.parse::<Network>().is_err(), "{text}");
        }
    }

    #[test]
    fn i13_forwarded_addresses_count_only_from_trusted_proxies() {
        let proxies = ["10.0.0.0/8".parse().unwrap()];
        let mut headers = HeaderMap::new();
        headers.insert("x-forwarded-for", "1.1.1.1, 203.0.113.9, 10.0.0.7".parse().unwrap());
        let at = |peer: &str| client(peer.parse().unwrap(), &headers, &proxies).map(|ip| ip.to_string());
        assert_eq!(at("10.0.0.1").as_deref(), Some("203.0.113.9"));
        assert_eq!(at("198.51.100.1").as_deref(), Some("198.51.100.1"), "a header of a stranger");
        headers.insert("x-forwarded-for", "garbage".parse().unwrap());
        assert_eq!(client("10.0.0.1".parse().unwrap(), &headers, &proxies), None);
    }
}
