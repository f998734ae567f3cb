//! Authorities in the form in which Java wants them: a key store of the kind JKS, as `sun.security.provider.JavaKeyStore`
//! of OpenJDK describes it (version 2). There is no secret in it: its password is the one that every JDK has for its own,
//! and the digest below is against accidents.

use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sha1::{Digest, Sha1};

/// Where Debian's JDKs look.
pub(super) const INSIDE: &str = "ssl/certs/java/cacerts";

const MAGIC: u32 = 0xFEED_FEED;
const VERSION: u32 = 2;
const TRUSTED_CERTIFICATE: u32 = 2;
const PASSWORD: &str = "changeit";
const WHITENER: &str = "Mighty Aphrodite";

/// The certificates of a bundle (RFC 7468), as a key store. What cannot be read as one is left out, as programs that
/// read the bundle do.
pub(super) fn of_bundle(bundle: &str) -> Vec<u8> {
    let certificates: Vec<_> = CertificateDer::pem_slice_iter(bundle.as_bytes()).filter_map(Result::ok).collect();
    let named: Vec<_> = certificates.iter().enumerate().map(|(n, der)| (format!("authority-{n}"), &**der)).collect();
    of(&named, 0)
}

/// `made` is when the entries say that they were made, milliseconds since 1970.
fn of(entries: &[(String, &[u8])], made: u64) -> Vec<u8> {
    let mut store = Vec::new();
    let number = |store: &mut Vec<u8>, number: u32| store.extend(number.to_be_bytes());
    number(&mut store, MAGIC);
    number(&mut store, VERSION);
    number(&mut store, length(entries.len()));
    for (alias, der) in entries {
        number(&mut store, TRUSTED_CERTIFICATE);
        text(&mut store, alias);
        store.extend(made.to_be_bytes());
        text(&mut store, "X.509");
        number(&mut store, length(der.len()));
        store.extend(*der);
    }
    let mut digest = Sha1::new();
    for unit in PASSWORD.encode_utf16() {
        digest.update(unit.to_be_bytes());
    }
    digest.update(WHITENER);
    digest.update(&store);
    store.extend(digest.finalize());
    store
}

/// Modified UTF-8, which ASCII is.
fn text(store: &mut Vec<u8>, text: &str) {
    store.extend(u16::try_from(text.len()).unwrap_or(u16::MAX).to_be_bytes());
    store.extend(text.as_bytes());
}

fn length(of: usize) -> u32 {
    u32::try_from(of).unwrap_or(u32::MAX)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// What the JDK's own `keytool` makes of one certificate.
    const KEYTOOLS: &[u8] = include_bytes!("keystore/keytool.jks");
    const CERTIFICATE: &str = include_str!("keystore/certificate.pem");

    #[test]
    fn g07_a_key_store_is_the_one_that_keytool_makes() {
        let der = CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).unwrap();
        let made = u64::from_be_bytes(KEYTOOLS[27..35].try_into().unwrap());
        assert_eq!(of(&[("bailiwick".to_owned(), &der)], made), KEYTOOLS);
    }

    #[test]
    fn g07_a_bundle_is_read_to_its_end() {
        let bundle =
            format!("a comment\n{CERTIFICATE}-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----\n{CERTIFICATE}");
        let store = of_bundle(&bundle);
        let alone = of_bundle(CERTIFICATE);
        assert_eq!((store[11], alone[11], of_bundle("")[11]), (2, 1, 0));
        assert!(store.windows(11).any(|part| part == b"authority-0") && store.len() > alone.len());
    }
}
