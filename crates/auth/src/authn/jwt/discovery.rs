//! What an OpenID provider says of itself (OpenID Connect Discovery 1.0, sections 3 and 4).

use serde::Deserialize;

/// Where its document is.
pub(super) fn address(issuer: &str) -> String {
    format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'))
}

/// The document, as far as it is used here.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(in crate::authn) struct Metadata {
    pub(in crate::authn) issuer: String,
    pub(in crate::authn) jwks_uri: String,
    pub(in crate::authn) authorization_endpoint: Option<String>,
    pub(in crate::authn) token_endpoint: Option<String>,
    /// `client_secret_basic`, if it says nothing.
    pub(in crate::authn) token_endpoint_auth_methods_supported: Option<Vec<String>>,
    pub(in crate::authn) code_challenge_methods_supported: Option<Vec<String>>,
    /// RFC 9207.
    #[serde(default)]
    pub(in crate::authn) authorization_response_iss_parameter_supported: bool,
}

/// Reads a document. It must be of this issuer, to the letter: else one provider could speak for another.
pub(super) fn read(text: &[u8], issuer: &str) -> Option<Metadata> {
    let metadata: Metadata = serde_json::from_slice(text).ok()?;
    (metadata.issuer == issuer).then_some(metadata)
}
