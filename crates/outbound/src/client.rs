//! Calls to identity providers and for documents of clients.

use std::time::Duration;

use bailiwick_auth::authn::outbound::{Call, CallError, Calling, LedBy, Outbound, Reply};
use http::header::{ACCEPT, AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

use crate::reach::{Origin, OriginError, Plain, Reach};
use crate::transport::{Bounds, Request, SendError, Transport, TransportError};

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

/// Makes these calls.
pub struct Client {
    transport: Transport,
    bounds: Bounds,
}

impl Client {
    /// A client.
    ///
    /// # Errors
    /// If TLS cannot be set up.
    pub fn new(patience: Patience) -> Result<Self, TransportError> {
        let Patience { connect, whole } = patience;
        let bounds = Bounds { first_byte: whole, between: whole, whole, body: LONGEST };
        Ok(Self { transport: Transport::new(connect)?, bounds })
    }

    async fn made(&self, call: Call<'_>) -> Result<Reply, CallError> {
        let url = parse(call.url)?;
        let reach = reach(&url, call.led_by)?;
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let request = match call.form {
            None => Request::get(url),
            Some(form) => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
                if let Some(text) = &form.authorization {
                    let mut value = HeaderValue::from_str(text).map_err(|_| CallError::Address)?;
                    value.set_sensitive(true);
                    headers.insert(AUTHORIZATION, value);
                }
                Request::post(url, form.fields.to_string().into())
            }
        };
        let answer = self.transport.send(request.with(headers), &reach, self.bounds).await.map_err(said)?;
        let header = |name: HeaderName| answer.headers().get(name)?.to_str().ok().map(str::to_owned);
        let (cache_control, content_type) = (header(CACHE_CONTROL), header(CONTENT_TYPE));
        let status = answer.status();
        Ok(Reply { status, cache_control, content_type, body: answer.whole().await.map_err(said)?.into() })
    }
}

impl Outbound for Client {
    fn call<'a>(&'a self, call: Call<'a>) -> Calling<'a> {
        Box::pin(self.made(call))
    }
}

/// What a caller may know.
fn said(error: SendError) -> CallError {
    match error {
        SendError::Address => CallError::Address,
        SendError::Network => CallError::Network,
        SendError::Unreachable | SendError::TimedOut(_) | SendError::Broken => CallError::Silent,
        SendError::TooLong => CallError::TooLong,
    }
}

fn parse(text: &str) -> Result<Url, CallError> {
    Url::parse(text).map_err(|_| CallError::Address)
}

/// Whose word an address is: the operator's, if it is of the origin that they configured.
fn reach(url: &Url, led_by: LedBy<'_>) -> Result<Reach, CallError> {
    let LedBy::Configuration(configured) = led_by else { return Ok(Reach::Public) };
    let origin = Origin::of(&parse(configured)?, Plain::Loopback).map_err(|error| match error {
        OriginError::Nobodys => CallError::Network,
        OriginError::NotHttp | OriginError::HasUser | OriginError::Plain => CallError::Address,
    })?;
    Ok(if origin.has(url) { Reach::Named(origin) } else { Reach::Public })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    /// Whether an address may be called, and whether as the operator's word.
    fn told(url: &str, led_by: LedBy<'_>) -> Result<bool, CallError> {
        let url = parse(url)?;
        let reach = reach(&url, led_by)?;
        reach.judge(&url).map_err(|refusal| said(refusal.into()))?;
        Ok(reach != Reach::Public)
    }

    #[test]
    fn i12_an_address_is_https_or_the_loopback_that_the_operator_named() {
        const OPERATOR: Result<bool, CallError> = Ok(true);
        const OTHER: Result<bool, CallError> = Ok(false);
        let sso = "https://sso.example/tenant";
        for (url, configured, expected) in [
            ("https://sso.example/keys", sso, OPERATOR),
            ("https://SSO.example:443/keys", sso, OPERATOR),
            // Another port is another service, and only the provider's word.
            ("https://sso.example:8443/keys", sso, OTHER),
            ("https://keys.example/keys", sso, OTHER),
            ("https://10.0.0.7/keys", "https://10.0.0.7/", OPERATOR),
            ("https://10.0.0.7:6379/keys", "https://10.0.0.7/", Err(CallError::Network)),
            ("http://127.0.0.1:9/keys", "http://127.0.0.1:9", OPERATOR),
            ("http://localhost:9/keys", "http://localhost:9/realm", OPERATOR),
            ("http://[::1]:9/keys", "http://[::1]:9", OPERATOR),
            ("http://localhost:9/keys", "http://localhost:8", Err(CallError::Address)),
            ("http://sso.example/keys", sso, Err(CallError::Address)),
            ("http://sso.example/keys", "http://sso.example", Err(CallError::Address)),
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
            assert_eq!(told(url, LedBy::Configuration(configured)), expected, "{url} by {configured}");
        }
        // Nothing that a stranger names is the operator's word.
        assert_eq!(told("https://sso.example/client", LedBy::Stranger), OTHER);
        assert_eq!(told("https://10.0.0.7/client", LedBy::Stranger), Err(CallError::Network));
        assert_eq!(told("http://127.0.0.1:9/client", LedBy::Stranger), Err(CallError::Address));
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
