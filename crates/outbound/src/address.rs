//! Which addresses may be called. A list of what is known to be no place for a provider; it opens nothing by
//! itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whose word the host is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Word {
    /// The operator's: it stands in the configuration.
    Operator,
    /// A provider's answer, or anybody who asks this server.
    Other,
}

/// Whether an address may be called.
pub(crate) fn fits(address: IpAddr, word: Word) -> bool {
    // An IPv4 address in IPv6 clothes is that IPv4 address.
    let address = inner(address);
    match word {
        Word::Operator => !is_nobodys(address),
        Word::Other => !is_nobodys(address) && is_public(address),
    }
}

fn inner(address: IpAddr) -> IpAddr {
    let IpAddr::V6(six) = address else { return address };
    let [a, b, c, d, e, f, g, h] = six.segments();
    let low = || IpAddr::V4(Ipv4Addr::from((u32::from(g) << 16) | u32::from(h)));
    match [a, b, c, d, e, f] {
        // Mapped, translated (RFC 6052, RFC 8215) and the old compatible form.
        [0, 0, 0, 0, 0, 0xffff] | [0x64, 0xff9b, 0, 0, 0, 0] | [0x64, 0xff9b, 1, 0, 0, 0] => low(),
        [0, 0, 0, 0, 0, 0] if g != 0 => low(),
        // 6to4 (RFC 3056).
        [0x2002, ..] => IpAddr::V4(Ipv4Addr::from((u32::from(b) << 16) | u32::from(c))),
        _ => address,
    }
}

/// Where no machine answers for itself, or one answers whose word is another machine's credential.
fn is_nobodys(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => four.is_unspecified() || four.is_link_local() || four.is_multicast() || four.is_broadcast(),
        IpAddr::V6(six) => six.is_unspecified() || six.is_unicast_link_local() || six.is_multicast() || is_aws(six),
    }
}

/// The address at which one cloud keeps its machines' credentials besides the link-local one.
fn is_aws(six: Ipv6Addr) -> bool {
    six.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
}

/// Whether it is an address of the public network (the registries of RFC 6890).
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => {
            let [a, b, c, _] = four.octets();
            !matches!(
                (a, b, c),
                (0 | 10 | 127 | 240.., ..)
                    | (100, 64..=127, _)
                    | (172, 16..=31, _)
                    | (192, 168, _)
                    | (192, 0, 0 | 2)
                    | (192, 88, 99)
                    | (198, 18 | 19, _)
                    | (198, 51, 100)
                    | (203, 0, 113)
            )
        }
        IpAddr::V6(six) => {
            let [a, b, ..] = six.segments();
            // Global unicast is 2000::/3; of it not the documentation's, nor what tunnels (Teredo, ORCHID).
            let global = (0x2000..0x4000).contains(&a);
            global && !matches!((a, b), (0x2001, 0..=0x01ff | 0x0db8) | (0x3fff, 0..=0x0fff))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn i12_a_host_that_a_provider_names_is_public_and_one_that_the_operator_names_is_a_machine() {
        for (text, operator, provider) in [
            ("93.184.215.14", true, true),
            ("2606:2800:21f:cb07:6820:80da:af6b:8b2c", true, true),
            ("10.0.0.7", true, false),
            ("172.16.0.1", true, false),
            ("172.32.0.1", true, true),
            ("192.168.1.1", true, false),
            ("100.64.0.1", true, false),
            ("100.128.0.1", true, true),
            ("127.0.0.1", true, false),
            ("127.9.9.9", true, false),
            ("::1", true, false),
            ("fd12:3456::1", true, false),
            ("::ffff:10.0.0.7", true, false),
            ("64:ff9b::10.0.0.7", true, false),
            ("2002:0a00:0007::1", true, false),
            ("::10.0.0.7", true, false),
            ("198.18.0.1", true, false),
            ("192.0.2.1", true, false),
            ("2001:db8::1", true, false),
            ("2001::1", true, false),
            ("0.0.0.0", false, false),
            ("255.255.255.255", false, false),
            ("240.0.0.1", true, false),
            ("169.254.169.254", false, false),
            ("::ffff:169.254.169.254", false, false),
            ("64:ff9b::169.254.169.254", false, false),
            ("fd00:ec2::254", false, false),
            ("fe80::1", false, false),
            ("224.0.0.1", false, false),
            ("ff02::1", false, false),
            ("::", false, false),
        ] {
            let address = text.parse().unwrap();
            assert_eq!((fits(address, Word::Operator), fits(address, Word::Other)), (operator, provider), "{text}");
        }
    }
}
