//! Refresh grants of OAuth clients (RFC 6749, section 6): what an admin sets, what lies sealed, what is sent to the
//! token endpoint and what its answer is worth.
//!
//! The refresh token and the client's secret leave by the request to the token endpoint alone, and that is had only
//! against the record of the refresh. What comes of a refresh is an access token; that alone is released.

use std::time::Duration;

use bailiwick_auth::Recorded;
use bailiwick_auth::access::verb::RefreshSecret;
use bailiwick_auth::authn::outbound::Form;
use bailiwick_types::Timestamp;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use url::{Host, Url};
use zeroize::Zeroizing;

use crate::Released;

/// Longest grant as it lies sealed, bytes.
const LONGEST: usize = 64 * 1024;
/// Longest token, bytes.
const LONGEST_TOKEN: usize = 8 * 1024;
/// Longest of the other fields, bytes.
const LONGEST_FIELD: usize = 2 * 1024;
/// How long before its end an access token is used no more, so that none ends on its way; of a short one a fifth.
const RESERVE: Duration = Duration::from_secs(30);
/// How long an access token is used whose answer does not say how long it is good.
const UNSAID: Duration = Duration::from_secs(5 * 60);
/// The longest that an access token is used, whatever its answer says.
const LONGEST_USE: Duration = Duration::from_secs(24 * 3600);

/// Errors by which a token endpoint says that this grant will not do (RFC 6749, section 5.2). Asking again changes
/// nothing: the grant has to be set again.
const FINAL: [&str; 6] = [
    "invalid_grant",
    "invalid_client",
    "unauthorized_client",
    "invalid_scope",
    "unsupported_grant_type",
    "invalid_request",
];

/// How the client says who it is (RFC 6749, section 2.3.1).
#[derive(Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ClientAuth {
    /// In the header `Authorization`.
    #[default]
    Basic,
    /// In the body.
    Body,
}

/// What an admin sets.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Given {
    token_url: String,
    client_id: String,
    client_secret: Option<Zeroizing<String>>,
    refresh_token: Zeroizing<String>,
    scope: Option<String>,
    #[serde(default)]
    auth: ClientAuth,
}

/// An access token and until when it is used.
struct Access {
    token: Zeroizing<String>,
    until: Timestamp,
}

/// A refresh grant in the clear.
pub struct RefreshGrant {
    given: Given,
    access: Option<Access>,
}

/// Why what was set is no refresh grant. The text never repeats any of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// Not JSON of the fields that a grant has.
    #[error(
        "is not a JSON object of token_url, client_id and refresh_token, with or without client_secret, scope and auth \
         (basic or body)"
    )]
    Shape,
    /// The token endpoint is no address.
    #[error("token_url: an https address without user, password and fragment (http on the loopback alone)")]
    TokenUrl,
    /// A field is empty, too long, or has letters that no such field has.
    #[error("{0}: has 1 to 8192 printable ASCII letters (2048, if it is no token or secret)")]
    Field(&'static str),
}

/// Why a refresh brought no access token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RefreshFailure {
    /// The endpoint says, in a word of the standard, that this grant will not do.
    #[error("the token endpoint refuses the grant: {0}")]
    Refused(&'static str),
    /// It says something else than a token: it may say another thing later.
    #[error("the token endpoint answers with status {0}")]
    Status(u16),
    /// It says that it is well, and what it sends is no access token that can be used.
    #[error("the token endpoint's answer cannot be used")]
    Unusable,
}

/// What a token endpoint gave.
pub struct Refreshed {
    access: Access,
    refresh_token: Option<Zeroizing<String>>,
}

/// As it lies sealed.
#[derive(Serialize)]
struct Kept<'a> {
    token_url: &'a str,
    client_id: &'a str,
    client_secret: Option<&'a str>,
    refresh_token: &'a str,
    scope: Option<&'a str>,
    auth: ClientAuth,
    access: Option<(&'a str, i64)>,
}

impl RefreshGrant {
    /// Reads what an admin sets.
    ///
    /// # Errors
    /// [`GrantError`].
    pub fn parse(text: &str) -> Result<Self, GrantError> {
        let given: Given = serde_json::from_str(text).map_err(|_| GrantError::Shape)?;
        let url = Url::parse(&given.token_url).map_err(|_| GrantError::TokenUrl)?;
        let plain = url.scheme() == "http" && is_loopback(&url);
        let bare = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
        if !(url.scheme() == "https" || plain) || !url.has_host() || !bare || url.as_str().len() > LONGEST_FIELD {
            return Err(GrantError::TokenUrl);
        }
        for (name, text, longest) in [
            ("client_id", Some(given.client_id.as_str()), LONGEST_FIELD),
            ("client_secret", given.client_secret.as_ref().map(|text| text.as_str()), LONGEST_TOKEN),
            ("refresh_token", Some(given.refresh_token.as_str()), LONGEST_TOKEN),
            ("scope", given.scope.as_deref(), LONGEST_FIELD),
        ] {
            if text.is_some_and(|text| !is_text(text, longest)) {
                return Err(GrantError::Field(name));
            }
        }
        Ok(Self { given, access: None })
    }

    /// As it is sealed.
    ///
    /// # Errors
    /// [`GrantError::Shape`] if it is too long for that.
    pub fn kept(&self) -> Result<Zeroizing<String>, GrantError> {
        let given = &self.given;
        let kept = Kept {
            token_url: &given.token_url,
            client_id: &given.client_id,
            client_secret: given.client_secret.as_ref().map(|text| text.as_str()),
            refresh_token: &given.refresh_token,
            scope: given.scope.as_deref(),
            auth: given.auth,
            access: self.access.as_ref().map(|access| (access.token.as_str(), access.until.as_micros())),
        };
        // Not grown, so that no part of it is left where it was before.
        let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST));
        serde_json::to_writer(&mut *bytes, &kept).map_err(|_| GrantError::Shape)?;
        if bytes.len() > LONGEST {
            return Err(GrantError::Shape);
        }
        std::str::from_utf8(&bytes).map(|text| Zeroizing::new(text.to_owned())).map_err(|_| GrantError::Shape)
    }

    /// Reads what was sealed.
    pub(crate) fn read(text: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Found {
            token_url: String,
            client_id: String,
            client_secret: Option<Zeroizing<String>>,
            refresh_token: Zeroizing<String>,
            scope: Option<String>,
            auth: ClientAuth,
            access: Option<(Zeroizing<String>, i64)>,
        }
        let found: Found = serde_json::from_str(text).ok()?;
        let Found { token_url, client_id, client_secret, refresh_token, scope, auth, access } = found;
        let access = access.map(|(token, until)| Access { token, until: Timestamp::from_micros(until) });
        Some(Self { given: Given { token_url, client_id, client_secret, refresh_token, scope, auth }, access })
    }

    /// The access token, if there is one that can still be used, and for how long.
    pub fn access(&self, now: Timestamp) -> Option<(Released, Duration)> {
        let access = self.access.as_ref()?;
        let left = now.until(access.until);
        (!left.is_zero()).then(|| (Released(access.token.clone()), left))
    }

    /// Where a new one comes from.
    pub fn token_url(&self) -> &str {
        &self.given.token_url
    }

    /// The host of that address, for the record.
    pub fn token_host(&self) -> String {
        let url = Url::parse(&self.given.token_url).ok();
        url.and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
    }

    /// What is sent there for a new one, against the record of the refresh.
    pub fn request(&self, _act: &Recorded<RefreshSecret>) -> Form {
        self.form()
    }

    fn form(&self) -> Form {
        let Given { client_id, client_secret, refresh_token, scope, auth, .. } = &self.given;
        let mut authorization = None;
        // Room for all of it in escapes: not grown, as above.
        let room = 6 * (LONGEST_TOKEN + LONGEST_FIELD) + 256;
        let mut fields = Fields(Zeroizing::new(String::with_capacity(room)));
        fields.add("grant_type", "refresh_token");
        fields.add("refresh_token", refresh_token);
        if let Some(scope) = scope {
            fields.add("scope", scope);
        }
        match (client_secret, auth) {
            (Some(secret), ClientAuth::Basic) => authorization = Some(basic(client_id, secret)),
            (Some(secret), ClientAuth::Body) => {
                fields.add("client_id", client_id);
                fields.add("client_secret", secret);
            }
            // A public client (RFC 6749, section 3.2.1).
            (None, _) => fields.add("client_id", client_id),
        }
        Form { authorization, fields: fields.0 }
    }

    /// The grant after a refresh, and whether the refresh token is another one. Where none came, the one that was
    /// sent stays (RFC 6749, section 6).
    #[must_use]
    pub fn after(self, refreshed: Refreshed) -> (Self, bool) {
        let Refreshed { access, refresh_token } = refreshed;
        let rotated = refresh_token.as_ref().is_some_and(|new| **new != *self.given.refresh_token);
        let refresh_token = refresh_token.unwrap_or(self.given.refresh_token);
        (Self { given: Given { refresh_token, ..self.given }, access: Some(access) }, rotated)
    }
}

impl Refreshed {
    /// Reads a token endpoint's answer (RFC 6749, sections 5.1 and 5.2) to a request that was sent at `sent`. What it
    /// says of an error is not kept: of that, one of the standard's own words is.
    ///
    /// # Errors
    /// [`RefreshFailure`].
    pub fn of_answer(status: u16, body: &[u8], sent: Timestamp) -> Result<Self, RefreshFailure> {
        #[derive(Deserialize)]
        struct Token {
            access_token: Zeroizing<String>,
            token_type: String,
            expires_in: Option<f64>,
            refresh_token: Option<Zeroizing<String>>,
        }
        #[derive(Deserialize)]
        struct Refusal {
            error: String,
        }
        if status != 200 {
            let said = serde_json::from_slice::<Refusal>(body).ok().filter(|_| matches!(status, 400 | 401 | 403));
            let word = said.and_then(|said| FINAL.into_iter().find(|word| *word == said.error));
            return Err(word.map_or(RefreshFailure::Status(status), RefreshFailure::Refused));
        }
        let token: Token = serde_json::from_slice(body).map_err(|_| RefreshFailure::Unusable)?;
        // Another type would have to be used in another way (section 7.1).
        if !token.token_type.eq_ignore_ascii_case("bearer") || !is_text(&token.access_token, LONGEST_TOKEN) {
            return Err(RefreshFailure::Unusable);
        }
        if token.refresh_token.as_ref().is_some_and(|text| !is_text(text, LONGEST_TOKEN)) {
            return Err(RefreshFailure::Unusable);
        }
        let said = token.expires_in.map_or(Ok(UNSAID), |seconds| Duration::try_from_secs_f64(seconds.min(1e9)));
        let good = said.map_err(|_| RefreshFailure::Unusable)?.min(LONGEST_USE);
        let used = good.saturating_sub(RESERVE.min(good / 5));
        let until = sent.after(used);
        if until <= sent {
            return Err(RefreshFailure::Unusable);
        }
        let access = Access { token: token.access_token, until };
        Ok(Self { access, refresh_token: token.refresh_token })
    }
}

/// Fields of a form, in memory that is not left behind.
struct Fields(Zeroizing<String>);

impl Fields {
    fn add(&mut self, name: &str, value: &str) {
        if !self.0.is_empty() {
            self.0.push('&');
        }
        self.0.push_str(name);
        self.0.push('=');
        self.0.extend(form_urlencoded::byte_serialize(value.as_bytes()));
    }
}

/// RFC 6749, section 2.3.1: both parts are encoded as in a form first.
fn basic(id: &str, secret: &str) -> Zeroizing<String> {
    let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
    let secret = Zeroizing::new(encoded(secret));
    let both = Zeroizing::new(format!("{}:{}", encoded(id), *secret));
    let both = Zeroizing::new(STANDARD.encode(both.as_bytes()));
    Zeroizing::new(format!("Basic {}", *both))
}

/// Letters that tokens, secrets and scopes have (RFC 6749, appendix A: VSCHAR).
fn is_text(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len()) && text.bytes().all(|byte| (0x20..=0x7e).contains(&byte)) && text.trim() == text
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(four)) => four.is_loopback(),
        Some(Host::Ipv6(six)) => six.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WHOLE: &str = r#"{"token_url":"https://sso.example/token","client_id":"a client","client_secret":"s&c:r+t",
        "refresh_token":"first/one","scope":"read write"}"#;

    fn kind(text: &str) -> Option<GrantError> {
        RefreshGrant::parse(text).err()
    }

    fn with(field: &str, value: &str) -> String {
        let mut grant: serde_json::Value = serde_json::from_str(WHOLE).unwrap();
        grant[field] = serde_json::Value::String(value.to_owned());
        grant.to_string()
    }

    #[test]
    fn g04_what_is_no_refresh_grant_is_refused_where_it_is_set() {
        assert_eq!(kind(WHOLE), None, "the control");
        assert_eq!(kind(&with("token_url", "http://127.0.0.1:9/token")), None);
        for text in ["", "[]", "{}", "\"x\"", r#"{"token_url":"https://a.example","client_id":"x"}"#] {
            assert_eq!(kind(text), Some(GrantError::Shape), "{text}");
        }
        assert_eq!(kind(&with("access", "x")), Some(GrantError::Shape), "nobody sets an access token");
        assert_eq!(kind(&with("auth", "none")), Some(GrantError::Shape));
        for url in
            ["http://sso.example/token", "ftp://a.example", "https://u:p@a.example/", "https://a.example/#x", "x"]
        {
            assert_eq!(kind(&with("token_url", url)), Some(GrantError::TokenUrl), "{url}");
        }
        for field in ["client_id", "client_secret", "refresh_token", "scope"] {
            for value in ["", " x", "x\r\ny", "ä", &"x".repeat(9000)] {
                assert_eq!(kind(&with(field, value)), Some(GrantError::Field(field)));
            }
        }
    }

    #[test]
    fn g04_a_client_says_who_it_is_in_the_header_or_in_the_body_or_has_no_secret() {
        let form = |text: &str| RefreshGrant::parse(text).unwrap().form();
        let sent = form(WHOLE);
        let basic = STANDARD.encode("a+client:s%26c%3Ar%2Bt");
        assert_eq!(sent.authorization.as_deref().map(String::as_str), Some(format!("Basic {basic}").as_str()));
        assert_eq!(*sent.fields, "grant_type=refresh_token&refresh_token=first%2Fone&scope=read+write");
        let sent = form(&with("auth", "body"));
        assert!(sent.authorization.is_none());
        assert!(sent.fields.ends_with("&client_id=a+client&client_secret=s%26c%3Ar%2Bt"), "{}", *sent.fields);
        let public = r#"{"token_url":"https://sso.example/token","client_id":"me","refresh_token":"one"}"#;
        let sent = form(public);
        assert!(sent.authorization.is_none());
        assert_eq!(*sent.fields, "grant_type=refresh_token&refresh_token=one&client_id=me");
    }

    #[test]
    fn g04_an_answer_is_a_token_or_a_word_of_the_standard() {
        let now = Timestamp::from_micros(1_000_000);
        let of = |status, body: &str| Refreshed::of_answer(status, body.as_bytes(), now);
        let failed = |status, body: &str| of(status, body).err();
        let grant = || RefreshGrant::parse(WHOLE).unwrap();
        let good = r#"{"access_token":"at-1","token_type":"bearer","expires_in":100,"refresh_token":"second"}"#;
        let (after, rotated) = grant().after(of(200, good).ok().unwrap());
        assert!(rotated && after.form().fields.contains("refresh_token=second&"));
        // What is kept is what was, and the token is used until shortly before its end.
        let read = RefreshGrant::read(&after.kept().unwrap()).unwrap();
        let (token, left) = read.access(now).unwrap();
        assert_eq!((token.expose(), left), ("at-1", Duration::from_secs(80)));
        assert!(read.access(now.after(Duration::from_secs(80))).is_none());
        assert_eq!(*read.form().fields, *after.form().fields);
        assert!(grant().access(now).is_none());
        // No new refresh token: the old one stays.
        let (after, rotated) = grant().after(of(200, r#"{"access_token":"x","token_type":"Bearer"}"#).ok().unwrap());
        assert!(!rotated && after.form().fields.contains("refresh_token=first%2Fone&"));
        assert_eq!(after.access(now).unwrap().1, Duration::from_secs(270));

        for word in FINAL {
            let said = format!(r#"{{"error":"{word}","error_description":"very secret"}}"#);
            assert_eq!(failed(400, &said), Some(RefreshFailure::Refused(word)));
            assert_eq!(failed(503, &said), Some(RefreshFailure::Status(503)), "a broken server's word is none");
        }
        assert_eq!(failed(401, r#"{"error":"invalid_client"}"#), Some(RefreshFailure::Refused("invalid_client")));
        assert_eq!(failed(400, r#"{"error":"first/one"}"#), Some(RefreshFailure::Status(400)), "not a word of ours");
        assert_eq!(failed(400, "invalid_grant"), Some(RefreshFailure::Status(400)));
        assert_eq!(failed(302, "{}"), Some(RefreshFailure::Status(302)));
        for body in [
            "",
            "{}",
            r#"{"access_token":"x"}"#,
            r#"{"access_token":"x","token_type":"mac"}"#,
            r#"{"access_token":"","token_type":"bearer"}"#,
            r#"{"access_token":"x\r\ny","token_type":"bearer"}"#,
            r#"{"access_token":"x","token_type":"bearer","expires_in":0}"#,
            r#"{"access_token":"x","token_type":"bearer","expires_in":-5}"#,
            r#"{"access_token":"x","token_type":"bearer","expires_in":6e-7}"#,
            r#"{"access_token":"x","token_type":"bearer","expires_in":"soon"}"#,
            r#"{"access_token":"x","token_type":"bearer","refresh_token":""}"#,
            r#"{"error":"invalid_grant"}"#,
        ] {
            assert_eq!(failed(200, body), Some(RefreshFailure::Unusable), "{body}");
        }
    }

    proptest! {
        #[test]
        fn g04_no_answer_breaks_its_reader(status in 100_u16..600, body in ".{0,200}", seconds in any::<f64>()) {
            let now = Timestamp::from_micros(0);
            let _ = Refreshed::of_answer(status, body.as_bytes(), now);
            let body = format!(r#"{{"access_token":"x","token_type":"bearer","expires_in":{seconds}}}"#);
            if let Ok(refreshed) = Refreshed::of_answer(200, body.as_bytes(), now) {
                prop_assert!(refreshed.access.until > now && refreshed.access.until <= now.after(LONGEST_USE));
            }
            let _ = RefreshGrant::parse(&body);
        }
    }
}
