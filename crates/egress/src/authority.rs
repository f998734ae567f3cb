//! The certificate authority of one sandbox: for the hosts that its rules look into, for as long as it lives.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bailiwick_types::host::{Destination, HostName, HostPattern};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, GeneralSubtree, IsCa,
    KeyPair, KeyUsagePurpose, NameConstraints,
};
use rustls::ServerConfig;
use rustls::crypto::CryptoProvider;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use time::{Duration, OffsetDateTime};

/// How long a certificate is good for. A sandbox that lives longer has to be made anew.
const VALID: Duration = Duration::days(30);
/// Clocks differ.
const BEFORE: Duration = Duration::days(1);
/// Most hosts whose certificates are kept.
const MOST_KEPT: usize = 512;

/// Why there is no authority.
#[derive(Debug, thiserror::Error)]
#[error("the certificates of a sandbox cannot be made")]
pub struct AuthorityError(#[source] Box<dyn std::error::Error + Send + Sync>);

fn wrong(error: impl std::error::Error + Send + Sync + 'static) -> AuthorityError {
    AuthorityError(Box::new(error))
}

/// Signs for the hosts of one sandbox. Its key never leaves this process's memory.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// One key for all hosts; who has one of them has them all anyway.
    key: KeyPair,
    provider: Arc<CryptoProvider>,
    made: Mutex<HashMap<HostName, Arc<ServerConfig>>>,
}

impl Authority {
    /// An authority for these destinations and no others: its certificate says so (RFC 5280, section 4.2.1.10),
    /// and whoever believes it inside the sandbox believes it for those alone.
    pub(crate) fn new(destinations: &[&Destination], provider: Arc<CryptoProvider>) -> Result<Self, AuthorityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, "Bailiwick sandbox");
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let now = OffsetDateTime::now_utc();
        (params.not_before, params.not_after) = (now - BEFORE, now + VALID);
        let names: Option<Vec<GeneralSubtree>> = destinations
            .iter()
            .map(|destination| match &destination.hosts {
                HostPattern::Exact(name) | HostPattern::Beneath(name) => {
                    Some(GeneralSubtree::DnsName(name.as_str().to_owned()))
                }
                HostPattern::Any => None,
            })
            .collect();
        params.name_constraints =
            names.map(|names| NameConstraints { permitted_subtrees: names, excluded_subtrees: Vec::new() });
        let key = KeyPair::generate().map_err(wrong)?;
        let issuer = CertifiedIssuer::self_signed(params, key).map_err(wrong)?;
        Ok(Self { issuer, key: KeyPair::generate().map_err(wrong)?, provider, made: Mutex::default() })
    }

    /// Its certificate in the form in which trust stores keep it (RFC 7468).
    pub(crate) fn pem(&self) -> String {
        let der = STANDARD.encode(self.issuer.der());
        let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
        for line in der.as_bytes().chunks(64) {
            pem.push_str(&String::from_utf8_lossy(line));
            pem.push('\n');
        }
        pem.push_str("-----END CERTIFICATE-----\n");
        pem
    }

    /// How this process speaks TLS in a host's name.
    pub(crate) fn for_host(&self, host: &HostName) -> Result<Arc<ServerConfig>, AuthorityError> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(config) = made.get(host) {
            return Ok(Arc::clone(config));
        }
        if made.len() >= MOST_KEPT {
            made.clear();
        }
        let mut params = CertificateParams::new(vec![host.as_str().to_owned()]).map_err(wrong)?;
        // A subject has 64 letters at most; the name that counts stands beside it.
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let now = OffsetDateTime::now_utc();
        (params.not_before, params.not_after) = (now - BEFORE, now + VALID);
        let leaf = params.signed_by(&self.key, &self.issuer).map_err(wrong)?;
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let chain: Vec<CertificateDer<'static>> = vec![leaf.der().clone()];
        let mut config = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(wrong)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let config = Arc::new(config);
        made.insert(host.clone(), Arc::clone(&config));
        Ok(config)
    }
}
