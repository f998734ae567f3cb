//! The client: rustls on ring with the system's certificates, as for models.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bailiwick_auth::authn::outbound::{Call, CallError, Calling, LedBy, Outbound, Reply};
use futures::StreamExt;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use reqwest::{Response, Url};
use rustls_platform_verifier::BuilderVerifierExt as _;

use crate::address::{Word, fits};

/// Longest answer, bytes. A provider's keys are a few thousand.
const LONGEST: usize = 256 * 1024;

/// How long a call may take.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// Name, connection and TLS.
    pub connect: Duration,
    /// All of it.
    pub whole: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { connect: Duration::from_secs(3), whole: Duration::from_secs(5) }
    }
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The TLS settings contradict each other; a defect of this build.
    #[error("the TLS client cannot be set up")]
    Tls(#[source] rustls::Error),
    /// The client cannot be built.
    #[error("the HTTP client cannot be set up")]
    Client(#[source] reqwest::Error),
}

/// Makes calls. One connection pool for hosts of the operator's word, another for those of providers', so that
/// no connection of the one kind is used for the other.
pub struct Client {
    named: reqwest::Client,
    found: reqwest::Client,
    patience: Patience,
}

impl Client {
    /// A client.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn new(patience: Patience) -> Result<Self, ClientError> {
        let tls = tls()?;
        let client = |word| {
            reqwest::Client::builder()
                .tls_backend_preconfigured(tls.clone())
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .referer(false)
                .retry(reqwest::retry::never())
                .dns_resolver(Arc::new(Judging(word)))
                .connect_timeout(patience.connect)
                .timeout(patience.whole)
                .user_agent(concat!("bailiwick/", env!("CARGO_PKG_VERSION")))
                .build()
                .map_err(ClientError::Client)
        };
        Ok(Self { named: client(Word::Operator)?, found: client(Word::Other)?, patience })
    }

    async fn made(&self, call: Call<'_>) -> Result<Reply, CallError> {
        let (url, word) = judged(call.url, call.led_by)?;
        let client = match word {
            Word::Operator => &self.named,
            Word::Other => &self.found,
        };
        let request = match call.form {
            None => client.get(url),
            Some(form) => {
                let request = client.post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded");
                let request = match &form.authorization {
                    Some(text) => {
                        let mut value = HeaderValue::from_str(text).map_err(|_| CallError::Address)?;
                        value.set_sensitive(true);
                        request.header(AUTHORIZATION, value)
                    }
                    None => request,
                };
                request.body(form.fields.to_string())
            }
        };
        let answer = request
            .header(ACCEPT, "application/json")
            .send()
            .await
            .map_err(|error| if refused_by_us(&error) { CallError::Network } else { CallError::Silent })?;
        read(answer).await
    }
}

impl Outbound for Client {
    fn call<'a>(&'a self, call: Call<'a>) -> Calling<'a> {
        // The client has a limit of its own; this one holds whatever it does.
        let whole = self.patience.whole;
        Box::pin(async move { tokio::time::timeout(whole, self.made(call)).await.unwrap_or(Err(CallError::Silent)) })
    }
}

async fn read(answer: Response) -> Result<Reply, CallError> {
    let status = answer.status().as_u16();
    let header = |name| answer.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let (cache_control, content_type) = (header(CACHE_CONTROL), header(CONTENT_TYPE));
    if answer.content_length().is_some_and(|length| length > LONGEST as u64) {
        return Err(CallError::TooLong);
    }
    let mut body = Vec::new();
    let mut stream = answer.bytes_stream();
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|_| CallError::Silent)?;
        if body.len() + piece.len() > LONGEST {
            return Err(CallError::TooLong);
        }
        body.extend_from_slice(&piece);
    }
    Ok(Reply { status, cache_control, content_type, body: body.into() })
}

/// Reads an address, and says whose word its host is.
fn judged(url: &str, led_by: LedBy<'_>) -> Result<(Url, Word), CallError> {
    let parse = |text: &str| Url::parse(text).ok().filter(Url::has_host).ok_or(CallError::Address);
    let url = parse(url)?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err(CallError::Address);
    }
    let word = match led_by {
        LedBy::Configuration(address) if parse(address)?.host() == url.host() => Word::Operator,
        LedBy::Configuration(_) | LedBy::Stranger => Word::Other,
    };
    let plain = url.scheme() == "http" && word == Word::Operator && is_loopback(&url);
    if url.scheme() != "https" && !plain {
        return Err(CallError::Address);
    }
    // The resolver sees names alone.
    if literal(&url).is_some_and(|address| !fits(address, word)) {
        return Err(CallError::Network);
    }
    Ok((url, word))
}

fn literal(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn is_loopback(url: &Url) -> bool {
    // The name `localhost` is the loopback on every supported system (RFC 6761).
    url.host_str() == Some("localhost") || literal(url).is_some_and(|address| address.is_loopback())
}

/// Resolves names, and keeps only addresses that may be called. It is what a connection is made with, so there
/// is no second look-up that could answer otherwise.
struct Judging(Word);

/// A name has no address that may be called.
#[derive(Debug, thiserror::Error)]
#[error("no address of this name may be called")]
struct NoFitting;

impl Resolve for Judging {
    fn resolve(&self, name: Name) -> Resolving {
        let word = self.0;
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let fitting: Vec<SocketAddr> = found.filter(|address| fits(address.ip(), word)).collect();
            if fitting.is_empty() {
                return Err(NoFitting.into());
            }
            let addresses: Addrs = Box::new(fitting.into_iter());
            Ok(addresses)
        })
    }
}

fn refused_by_us(error: &reqwest::Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if error.is::<NoFitting>() {
            return true;
        }
        cause = error.source();
    }
    false
}

fn tls() -> Result<rustls::ClientConfig, ClientError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = || {
        rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(ClientError::Tls)
    };
    match builder()?.with_platform_verifier() {
        Ok(config) => Ok(config.with_no_client_auth()),
        // With no roots no certificate is ever valid: it fails closed. A provider on the loopback still works.
        Err(error) => {
            tracing::warn!(%error, "no system certificates: every call to an identity provider will fail");
            Ok(builder()?.with_root_certificates(rustls::RootCertStore::empty()).with_no_client_auth())
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn i12_an_address_is_https_or_the_loopback_that_the_operator_named() {
        let told = |url: &str, configured: &str| judged(url, LedBy::Configuration(configured)).map(|(_, word)| word);
        let sso = "https://sso.example/tenant";
        for (url, configured, expected) in [
            ("https://sso.example/keys", sso, Ok(Word::Operator)),
            ("https://SSO.example:8443/keys", sso, Ok(Word::Operator)),
            ("https://keys.example/keys", sso, Ok(Word::Other)),
            ("https://10.0.0.7/keys", "https://10.0.0.7/", Ok(Word::Operator)),
            ("http://127.0.0.1:9/keys", "http://127.0.0.1:9", Ok(Word::Operator)),
            ("http://localhost:9/keys", "http://localhost:8", Ok(Word::Operator)),
            ("http://[::1]:9/keys", "http://[::1]:9", Ok(Word::Operator)),
            ("http://sso.example/keys", sso, Err(CallError::Address)),
            ("http://127.0.0.1:9/keys", sso, Err(CallError::Address)),
            ("http://127.0.0.2:9/keys", "http://127.0.0.1:9", Err(CallError::Address)),
            ("file:///etc/passwd", sso, Err(CallError::Address)),
            ("https://u:p@sso.example/", sso, Err(CallError::Address)),
            ("keys", sso, Err(CallError::Address)),
            ("https://10.0.0.7/keys", sso, Err(CallError::Network)),
            ("https://127.0.0.1/keys", sso, Err(CallError::Network)),
            ("https://[::ffff:10.0.0.7]/keys", sso, Err(CallError::Network)),
            ("https://0x0a000007/keys", sso, Err(CallError::Network)),
            ("https://169.254.169.254/latest", "https://169.254.169.254", Err(CallError::Network)),
        ] {
            assert_eq!(told(url, configured), expected, "{url} by {configured}");
        }
        // Nothing that a stranger names is the operator's word.
        let told = |url: &str| judged(url, LedBy::Stranger).map(|(_, word)| word);
        assert_eq!(told("https://sso.example/client"), Ok(Word::Other));
        assert_eq!(told("https://10.0.0.7/client"), Err(CallError::Network));
        assert_eq!(told("http://127.0.0.1:9/client"), Err(CallError::Address));
    }

    #[tokio::test]
    async fn i12_a_name_is_judged_by_what_it_resolves_to() {
        let client = Client::new(Patience::default()).unwrap();
        // `localhost` is not the operator's word here, and resolves to the loopback.
        for led_by in [LedBy::Configuration("https://sso.example"), LedBy::Stranger] {
            let call = Call { url: "https://localhost:9/keys", led_by, form: None };
            assert_eq!(client.call(call).await.err(), Some(CallError::Network));
        }
        // The control: of the operator's word it is called, and nobody listens there.
        let call =
            Call { url: "https://localhost:9/keys", led_by: LedBy::Configuration("https://localhost:9"), form: None };
        assert_eq!(client.call(call).await.err(), Some(CallError::Silent));
    }
}
