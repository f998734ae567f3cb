//! The seam to the identity providers of others. What is asked there and what an answer is worth is decided
//! here; who opens the socket is crate `outbound`.

use std::future::Future;
use std::pin::Pin;

use zeroize::Zeroizing;

/// One call.
pub struct Call<'a> {
    /// Where to.
    pub url: &'a str,
    /// The address in the configuration that led here. Its host is the operator's own word; any other host is
    /// the word of whoever answers there, and may lie.
    pub configured: &'a str,
    /// What is sent, as `application/x-www-form-urlencoded`; without one it is a `GET`.
    pub form: Option<Form>,
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
    /// The body, whole.
    pub body: Zeroizing<Vec<u8>>,
}

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
