//! The one HTTP client of this crate, built in one place: no redirects, no proxies taken from
//! the environment, no cookies, no decompression, HTTP/1.1, TLS by rustls on ring with the
//! system's certificates.
//!
//! It connects to whatever address a model's configuration names. When the guarded egress client
//! exists, this construction moves behind it; nothing outside this file builds a client, so
//! that the move is one change.

use std::sync::Arc;
use std::time::Duration;

use rustls_platform_verifier::BuilderVerifierExt as _;

/// The shared client. Clones share one connection pool.
#[derive(Clone, Debug)]
pub struct Http {
    client: reqwest::Client,
}

/// Why no client could be built.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The TLS settings contradict each other; a defect of this build.
    #[error("the TLS client cannot be set up")]
    Tls(#[source] rustls::Error),
    /// The client cannot be built.
    #[error("the HTTP client cannot be set up")]
    Client(#[source] reqwest::Error),
}

impl Http {
    /// The client with ten seconds for a connection.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn new() -> Result<Self, HttpError> {
        Self::with_connect_timeout(Duration::from_secs(10))
    }

    /// The client with a given time for name, connection and TLS together.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn with_connect_timeout(connect: Duration) -> Result<Self, HttpError> {
        let client = reqwest::Client::builder()
            .tls_backend_preconfigured(tls()?)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .referer(false)
            .retry(reqwest::retry::never())
            .connect_timeout(connect)
            .user_agent(concat!("bailiwick/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(HttpError::Client)?;
        Ok(Self { client })
    }

    pub(crate) fn post(&self, url: reqwest::Url) -> reqwest::RequestBuilder {
        self.client.post(url)
    }
}

fn tls() -> Result<rustls::ClientConfig, HttpError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = || {
        rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(HttpError::Tls)
    };
    match builder()?.with_platform_verifier() {
        Ok(config) => Ok(config.with_no_client_auth()),
        // A machine without certificates can still use a model on its own loopback. To others
        // it fails closed: with no roots, no certificate is ever valid.
        Err(error) => {
            tracing::warn!(%error, "no system certificates: every HTTPS call to a model will fail");
            Ok(builder()?.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
        }
    }
}
