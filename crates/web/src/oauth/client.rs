//! Which client asks for tokens (RFC 6749, section 2.3): one that can keep a secret proves it; one that
//! cannot has its code's verifier, and its refresh tokens that are good once.

use bailiwick_auth::key::PresentedKey;
use bailiwick_types::ClientIdentifier;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use http::header::AUTHORIZATION;
use zeroize::Zeroizing;

use super::OAuthError;
use crate::app::App;
use crate::error::Failure;

/// The ways in which a client says who it is.
pub(crate) const METHODS: [&str; 3] = ["none", "client_secret_basic", "client_secret_post"];

/// One answer for a client that is not there and for a wrong secret.
const UNKNOWN: OAuthError =
    OAuthError::new("invalid_client", "there is no such client, or this is not how it proves itself: register again");

/// The client of a request, as its header or its form has it.
pub(super) async fn client(
    app: &App,
    headers: &HeaderMap,
    id: Option<&str>,
    secret: Option<Zeroizing<String>>,
) -> Result<ClientIdentifier, Failure> {
    let (id, secret) = match basic(headers)? {
        Some(_) if secret.is_some() => {
            return Err(OAuthError::new("invalid_request", "the client's secret comes in one way, not in two").into());
        }
        Some((name, _)) if id.is_some_and(|id| id != name) => {
            return Err(OAuthError::new("invalid_request", "the header and the form name two clients").into());
        }
        Some((name, secret)) => (name, Some(secret)),
        None => (id.unwrap_or_default().to_owned(), secret),
    };
    let id: ClientIdentifier = id.parse().map_err(|_| UNKNOWN)?;
    let kept = match &id {
        ClientIdentifier::Registered(id) => app.store().client_read(id).await?.ok_or(UNKNOWN)?.secret,
        // Nothing is fetched for whoever asks here. What it shows was given to that very address, or not; and
        // what its user allowed holds on when the document is gone.
        ClientIdentifier::Document(_) if app.documents().are_taken() => None,
        ClientIdentifier::Document(_) => return Err(UNKNOWN.into()),
    };
    let proven = match (&kept, &secret) {
        (None, None) => true,
        (Some(kept), Some(shown)) => app.walk().ring().matches(&PresentedKey::new(shown), kept),
        // A secret that was never given is somebody else's.
        (None, Some(shown)) => shown.is_empty(),
        (Some(_), None) => false,
    };
    if proven { Ok(id) } else { Err(UNKNOWN.into()) }
}

/// The id and the secret of `Authorization: Basic`, which are each encoded as in a form before. Another scheme
/// is no client's way to prove itself, and says nothing here.
fn basic(headers: &HeaderMap) -> Result<Option<(String, Zeroizing<String>)>, Failure> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return if headers.contains_key(AUTHORIZATION) { Err(UNKNOWN.into()) } else { Ok(None) };
    };
    let (scheme, text) = value.to_str().ok().and_then(|value| value.split_once(' ')).ok_or(UNKNOWN)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Ok(None);
    }
    let read = || {
        let pair = Zeroizing::new(STANDARD.decode(text.trim()).ok()?);
        let (id, secret) = std::str::from_utf8(&pair).ok()?.split_once(':')?;
        let decoded = |text: &str| {
            let form = Zeroizing::new(format!("x={text}"));
            form_urlencoded::parse(form.as_bytes()).next().map(|(_, value)| value.into_owned())
        };
        Some((decoded(id)?, Zeroizing::new(decoded(secret)?)))
    };
    read().map(Some).ok_or_else(|| UNKNOWN.into())
}
