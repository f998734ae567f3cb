//! The seam to the servers of others: identity providers, and documents of clients. What is asked there and
//! what an answer is worth is decided by who asks; who opens the socket is crate `outbound`.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use zeroize::Zeroizing;

/// One call.
pub struct Call<'a> {
    /// Where to.
    pub url: &'a str,
    /// What led here.
    pub led_by: LedBy<'a>,
    /// What is sent, as `application/x-www-form-urlencoded`; without one it is a `GET`.
    pub form: Option<Form>,
}

/// What led to an address: by it is judged in which networks its host may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LedBy<'a> {
    /// That address in the configuration. Its host is the operator's own word; any other host is the word of
    /// whoever answers there, and may lie.
    Configuration(&'a str),
    /// Somebody who asks this server, and whom nobody vouches for. No host is the operator's word.
    Stranger,
}

/// What is sent to a token endpoint.
pub struct Form {
    /// The header `Authorization`, if the client has a secret that goes there.
    pub authorization: Option<Zeroizing<String>>,
    /// The fields, encoded.
    pub fields: Zeroizing<String>,
}

/// An answer, whatever its status.
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// `Cache-Control`, if it was there and could be read.
    pub cache_control: Option<String>,
    /// `Content-Type`, likewise.
    pub content_type: Option<String>,
    /// The body, whole.
    pub body: Zeroizing<Vec<u8>>,
}

impl Reply {
    /// How long it is good, within bounds (RFC 9111, section 5.2.2).
    pub fn lifetime(&self) -> Duration {
        let mut said = None;
        let words = self.cache_control.as_deref().unwrap_or("");
        for word in words.split(',').map(|word| word.trim().to_ascii_lowercase()) {
            if matches!(word.as_str(), "no-store" | "no-cache") {
                return BOUNDS.0;
            }
            if let Some(seconds) = word.strip_prefix("max-age=") {
                said = seconds.trim_matches('"').parse().ok().map(Duration::from_secs);
            }
        }
        said.unwrap_or(USUAL).clamp(BOUNDS.0, BOUNDS.1)
    }
}

/// How long an answer is good where nothing is said.
const USUAL: Duration = Duration::from_secs(3600);
/// The shortest and the longest time that somebody's word on it is followed.
const BOUNDS: (Duration, Duration) = (Duration::from_secs(5 * 60), Duration::from_secs(24 * 3600));

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Neither `https`, nor `http` on the loopback where the configuration itself is there.
    #[error("its address is no https address")]
    Address,
    /// The host is, or resolves to, a place where no such provider is, and which the operator did not name.
    #[error("its host is in a network that is not public, and the configuration does not name it")]
    Network,
    /// Nobody answers, or not in time.
    #[error("it does not answer")]
    Silent,
    /// It answers more than anybody needs.
    #[error("its answer is too long")]
    TooLong,
}

/// A call that is under way.
pub type Calling<'a> = Pin<Box<dyn Future<Output = Result<Reply, CallError>> + Send + 'a>>;

/// Makes calls: bounded in time and size, without redirects, by TLS.
pub trait Outbound: Send + Sync {
    /// Makes one.
    fn call<'a>(&'a self, call: Call<'a>) -> Calling<'a>;
}
