//! A request for a user's consent, parsed once (RFC 6749, section 4.1.1; RFC 7636; RFC 8707).
//!
//! Before the client and its address are known nobody is sent anywhere; and what is wrong after that is told
//! on a page as well, with a link: anybody can register a client, and a server that sends on whoever comes
//! would be a way to anywhere (RFC 9700, section 4.11.2).

use bailiwick_auth::Permit;
use bailiwick_auth::access::verb::AllowApplication;
use bailiwick_store::client::Source;
use bailiwick_types::{ClientIdentifier, KeyScope};
use serde::Deserialize;

use super::redirect::RedirectUri;
use super::{OAuthError, resource, scopes};
use crate::app::App;
use crate::error::Failure;

/// Longest `state`, bytes: it comes back in an address.
const LONGEST_STATE: usize = 2_000;

/// The fields of a request, as sent. A field that comes twice is refused before this.
#[derive(Deserialize, Default)]
pub(crate) struct Asking {
    #[serde(default)]
    pub(crate) response_type: String,
    #[serde(default)]
    pub(crate) client_id: String,
    #[serde(default)]
    pub(crate) redirect_uri: String,
    #[serde(default)]
    pub(crate) scope: String,
    #[serde(default)]
    pub(crate) state: Option<String>,
    #[serde(default)]
    pub(crate) code_challenge: String,
    #[serde(default)]
    pub(crate) code_challenge_method: String,
    #[serde(default)]
    pub(crate) resource: Option<String>,
    #[serde(default)]
    request: Option<String>,
    #[serde(default)]
    request_uri: Option<String>,
}

/// What may be asked of the user.
pub(crate) struct Asked {
    pub(crate) scopes: Vec<KeyScope>,
    pub(crate) challenge: String,
    pub(crate) resource: String,
}

/// The client of a request, as it is shown to whom it asks.
pub(crate) struct Client {
    pub(crate) id: ClientIdentifier,
    pub(crate) name: String,
    pub(crate) known: KnownBy,
}

/// Whose word a client's name is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum KnownBy {
    /// The operator has registered it.
    Operator,
    /// Its own: it has registered itself.
    Itself,
    /// That of a document at this host.
    Document(String),
}

/// The client of a request, and where it is to be sent back to. Asked in the name of a user who may let it in:
/// for nobody else is a client's document fetched.
pub(crate) async fn client_of(
    app: &App,
    permit: &Permit<AllowApplication>,
    asking: &Asking,
) -> Result<(Client, RedirectUri), Failure> {
    const UNKNOWN: Failure = Failure::NotAccepted {
        reason: "unknown_client",
        message: "no program of this client_id is registered here: let it register again, or ask the operator",
    };
    const ELSEWHERE: Failure = Failure::NotAccepted {
        reason: "redirect_uri",
        message: "this program wants to be sent to an address that it has not registered: nothing was sent there",
    };
    let id: ClientIdentifier = asking.client_id.parse().map_err(|_| UNKNOWN)?;
    // Looked at before anything is fetched.
    let redirect = RedirectUri::parse(&asking.redirect_uri).ok_or(ELSEWHERE)?;
    let (name, redirect_uris, known) = match &id {
        ClientIdentifier::Registered(id) => {
            let row = app.store().client_read(id).await?.ok_or(UNKNOWN)?;
            let known = match row.source {
                Source::Operator => KnownBy::Operator,
                Source::Itself => KnownBy::Itself,
            };
            (row.name, row.redirect_uris, known)
        }
        ClientIdentifier::Document(url) => {
            let document = app.documents().read(app.store(), permit, url).await?.ok_or(UNKNOWN)?;
            (document.name.clone(), document.redirect_uris.clone(), KnownBy::Document(url.host().to_owned()))
        }
    };
    if !redirect_uris.iter().any(|registered| redirect.fits(registered)) {
        return Err(ELSEWHERE);
    }
    Ok((Client { id, name, known }, redirect))
}

impl Asking {
    /// The rest of it.
    pub(crate) fn check(&self, issuer: &str) -> Result<Asked, OAuthError> {
        if self.request.is_some() || self.request_uri.is_some() {
            return Err(OAuthError::new("request_not_supported", "send the fields themselves, not as an object"));
        }
        if self.response_type != "code" {
            return Err(OAuthError::new("unsupported_response_type", "response_type: code"));
        }
        let sign = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        // A hash of SHA-256 has 43 signs.
        let challenge = self.code_challenge.len() == 43 && self.code_challenge.bytes().all(sign);
        if !challenge || self.code_challenge_method != "S256" {
            let told = "code_challenge: is needed, with code_challenge_method S256 (RFC 7636)";
            return Err(OAuthError::new("invalid_request", told));
        }
        if self.state.as_ref().is_some_and(|state| state.len() > LONGEST_STATE) {
            return Err(OAuthError::new("invalid_request", "state: at most 2000 bytes"));
        }
        let scopes = match self.scope.trim() {
            "" => KeyScope::ALL.to_vec(),
            text => scopes(text).ok_or(OAuthError::new("invalid_scope", "scope: read, write"))?,
        };
        let resource = match self.resource.as_deref() {
            None => String::new(),
            Some(address) => {
                let foreign = OAuthError::new("invalid_target", "resource: not an address of this server");
                resource(issuer, address).ok_or(foreign)?
            }
        };
        Ok(Asked { scopes, challenge: self.code_challenge.clone(), resource })
    }
}
