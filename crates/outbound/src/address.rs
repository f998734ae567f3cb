//! Which addresses may be called. It asks the one list of what is not public, and has none of its own.

use std::net::IpAddr;

use bailiwick_types::address::{inner, is_nobodys, is_public};

/// Where a host may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// In the public network.
    Public,
    /// On any machine, of a private network too.
    Machine,
    /// On this machine.
    Loopback,
}

/// Whether an address is in that place.
pub(crate) fn fits(address: IpAddr, place: Place) -> bool {
    // An IPv4 address in IPv6 clothes is that IPv4 address.
    let address = inner(address);
    match place {
        Place::Public => !is_nobodys(address) && is_public(address),
        Place::Machine => !is_nobodys(address),
        Place::Loopback => address.is_loopback(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn g08_i12_a_host_that_anybody_names_is_public_and_one_that_the_operator_names_is_a_machine() {
        for (text, machine, public) in [
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
            assert_eq!((fits(address, Place::Machine), fits(address, Place::Public)), (machine, public), "{text}");
        }
    }

    #[test]
    fn g08_this_machine_is_its_loopback_in_any_clothes_and_nothing_else() {
        for (text, loopback) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("0.0.0.0", false),
            ("10.0.0.7", false),
            ("::2", false),
            ("93.184.215.14", false),
            ("::ffff:10.0.0.7", false),
        ] {
            assert_eq!(fits(text.parse().unwrap(), Place::Loopback), loopback, "{text}");
        }
    }
}
