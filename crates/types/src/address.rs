//! Which addresses are public. A list of what is known not to be; it opens nothing by itself.
//!
//! The one place for these rules: whatever calls out, for itself or for a sandbox, asks here, after names were
//! resolved and at each connection.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address without its clothes: an IPv4 address that is written as one of IPv6 is that IPv4 address.
pub fn inner(address: IpAddr) -> IpAddr {
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

/// Where no machine answers for itself, or one answers whose word is another machine's credential. Nobody has
/// business there, whatever is configured. Of an [`inner`] address.
pub fn is_nobodys(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(four) => four.is_unspecified() || four.is_link_local() || four.is_multicast() || four.is_broadcast(),
        IpAddr::V6(six) => six.is_unspecified() || six.is_unicast_link_local() || six.is_multicast() || is_aws(six),
    }
}

/// The address at which one cloud keeps its machines' credentials besides the link-local one.
fn is_aws(six: Ipv6Addr) -> bool {
    six.segments() == [0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254]
}

/// Whether it is an address of the public network (the registries of RFC 6890). Of an [`inner`] address.
pub fn is_public(address: IpAddr) -> bool {
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
