//! Which addresses may be called. A list of what is known to be no place for a provider; it opens nothing by
//! itself.

use std::net::IpAddr;

use bailiwick_types::address::{inner, is_nobodys, is_public};

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
