//! Calls of webhooks: a message goes out, and of the answer counts whether it was taken.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderValue};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use url::Url;

use crate::reach::Reach;
use crate::transport::{Bounds, Request, SendError, Transport, TransportError};

/// Name, connection and TLS.
const CONNECT: Duration = Duration::from_secs(5);
/// Until the answer begins, and for what is read of it.
const ANSWER: Duration = Duration::from_secs(10);
/// Most that is read of an answer, bytes.
const READ: usize = 16 * 1024;

/// What the operator says of these calls. No account has a part in it.
#[derive(Debug, Clone, Default)]
pub struct HookSettings {
    /// Names that lead elsewhere than a resolver says; port 0 is 443.
    pub hosts: BTreeMap<String, SocketAddr>,
    /// Authorities that are believed besides the system's (PEM).
    pub authorities: String,
}

/// Calls webhooks: public hosts by TLS alone, no redirects.
pub struct Hooks {
    transport: Transport,
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answered {
    /// The status.
    pub status: u16,
    /// How long the far side wants to be left alone, in seconds that it said.
    pub retry_after: Option<Duration>,
    /// The beginning of what it said.
    pub body: Vec<u8>,
}

impl Hooks {
    /// Reads the authorities, the system's too, which takes a while.
    ///
    /// # Errors
    /// If TLS cannot be set up, or what is said to be an authority is none.
    pub fn new(settings: HookSettings) -> Result<Self, TransportError> {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(settings.authorities.as_bytes()).collect();
        let authorities = found.map_err(|_| TransportError::Authorities)?;
        Ok(Self { transport: Transport::led(CONNECT, settings.hosts, authorities)? })
    }

    /// Sends a body of JSON.
    ///
    /// # Errors
    /// [`SendError`]. A status that is no success is an answer.
    pub async fn post(&self, url: &str, body: String) -> Result<Answered, SendError> {
        let url = Url::parse(url).map_err(|_| SendError::Address)?;
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/plain"));
        let request = Request::post(url, Bytes::from(body)).with(headers);
        let bounds = Bounds { first_byte: ANSWER, between: ANSWER, whole: ANSWER, body: READ };
        let answer = self.transport.send(request, &Reach::Public, bounds).await?;
        let retry_after = answer.headers().get(RETRY_AFTER).and_then(|value| seconds(value.to_str().ok()?));
        let status = answer.status();
        // What it says besides its status is of use alone; that it does not come to an end changes nothing.
        let body = answer.beginning(READ).await.unwrap_or_default();
        Ok(Answered { status, retry_after, body })
    }
}

/// Seconds, whole or not. A date is nobody's here.
fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.trim().parse().ok()?).ok()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use bailiwick_testkit::far_side::FarSide;

    use super::*;

    fn led(names: &[&str], far: &FarSide, authorities: &str) -> Hooks {
        let at = SocketAddr::from(([127, 0, 0, 1], far.tls));
        let hosts = names.iter().map(|name| ((*name).to_owned(), at)).collect();
        Hooks::new(HookSettings { hosts, authorities: authorities.to_owned() }).unwrap()
    }

    #[tokio::test]
    async fn g09_a_name_leads_where_the_operator_says_and_others_do_not() {
        let far = FarSide::start(&["hooks.slack.com"]).await;
        let hooks = led(&["hooks.slack.com"], &far, &far.root_pem);
        let sent = hooks.post("https://hooks.slack.com/services/x", "{}".to_owned()).await.unwrap();
        assert_eq!(sent.status, 200);
        // Another name is judged as ever, wherever it leads; and so is an address.
        for elsewhere in [format!("https://localhost:{}/", far.tls), format!("https://127.0.0.1:{}/", far.tls)] {
            assert_eq!(hooks.post(&elsewhere, "{}".to_owned()).await.err(), Some(SendError::Network), "{elsewhere}");
        }
        let plain = hooks.post("http://hooks.slack.com/services/x", "{}".to_owned()).await;
        assert_eq!(plain.err(), Some(SendError::Address));
        // A certificate that nobody said to believe is none.
        let strict = led(&["hooks.slack.com"], &far, "");
        let refused = strict.post("https://hooks.slack.com/services/x", "{}".to_owned()).await;
        assert_eq!(refused.err(), Some(SendError::Unreachable));
        // Nor does the operator's word lead to where clouds keep credentials.
        let hosts = BTreeMap::from([("hooks.slack.com".to_owned(), "169.254.169.254:443".parse().unwrap())]);
        let hooks = Hooks::new(HookSettings { hosts, authorities: String::new() }).unwrap();
        let refused = hooks.post("https://hooks.slack.com/services/x", "{}".to_owned()).await;
        assert_eq!(refused.err(), Some(SendError::Network));
    }

    #[tokio::test]
    async fn g09_a_redirect_is_an_answer() {
        let far = FarSide::start(&["hooks.slack.com"]).await;
        let hooks = led(&["hooks.slack.com"], &far, &far.root_pem);
        let url = format!("https://hooks.slack.com/onwards?http://127.0.0.1:{}/", far.http);
        assert_eq!(hooks.post(&url, "{}".to_owned()).await.unwrap().status, 302);
    }

    #[test]
    fn g09_seconds_are_believed_and_nothing_else() {
        for (text, expected) in [
            ("1", Some(Duration::from_secs(1))),
            (" 0.5 ", Some(Duration::from_millis(500))),
            ("-1", None),
            ("NaN", None),
            ("1e300", None),
            ("Fri, 31 Dec 1999 23:59:59 GMT", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }
}
