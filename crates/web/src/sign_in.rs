//! Signing in, for the route and for the page: one way, so that no door leaves a stage out.

use std::net::IpAddr;

use axum::http::HeaderMap;
use bailiwick_audit::{Actor, Verdict};
use bailiwick_auth::Principal;
use bailiwick_auth::access::verb::SignIn;
use bailiwick_auth::authn::oidc::ProviderError;
use bailiwick_auth::authn::passkey::Begun;
use bailiwick_auth::authn::sign_in::{Claim, Factor, Identified, Proven, SignInError, Whose};
use bailiwick_auth::authn::{DirectoryError, Rejection};
use bailiwick_auth::lockout::{Held, Locked};
use bailiwick_auth::password::Password;
use bailiwick_auth::totp;
use bailiwick_store::StoreError;
use bailiwick_store::device::NewDevice;
use bailiwick_types::{AccountName, DeviceId, RequestId, Timestamp, UserName};
use bailiwick_vault::Purpose;
use http::header::USER_AGENT;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::app::App;
use crate::caller::Visitor;
use crate::error::Failure;
use crate::gate::unknown;
use crate::route::Route;

/// Longest name of a device, characters.
pub(crate) const LONGEST_DEVICE: usize = 100;

/// Nobody signs in where the walk takes no logins.
pub(crate) const LOGINS_OFF: Failure = Failure::NotAccepted {
    reason: "logins_off",
    message: "nobody signs in here: add `session` to auth.walk, or use a key",
};

/// What somebody shows to sign in.
pub(crate) struct Shown<'a> {
    /// `user`, or `user@account`.
    pub(crate) name: &'a str,
    /// The account, if it is said apart.
    pub(crate) account: Option<AccountName>,
    /// As typed.
    pub(crate) password: &'a str,
    /// A code of the app, or a recovery code.
    pub(crate) code: Option<&'a str>,
    /// What the list of logins is to call this one.
    pub(crate) device: String,
    /// From where.
    pub(crate) client: IpAddr,
}

/// A login that was made.
pub(crate) struct SignedIn {
    pub(crate) token: Zeroizing<String>,
    pub(crate) device: DeviceId,
    pub(crate) user: UserName,
}

/// Why somebody is not signed in. What stands in it is for the record, and not for the caller.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NotSignedIn {
    #[error("Invalid username or password.")]
    Credentials(Option<Whose>),
    #[error("A code of your authenticator app is needed: send it as totpCode.")]
    CodeWanted(Whose, Option<Box<Begun>>),
    #[error("This code is wrong, or was used already.")]
    Code(Whose),
    #[error("A passkey is needed as the second factor.")]
    PasskeyWanted(Whose, Option<Box<Begun>>),
    #[error("This passkey was not accepted.")]
    Passkey(Option<Whose>),
    #[error(transparent)]
    Provider(ProviderError),
    #[error("Too many failed attempts: this user can sign in again later.")]
    UserLocked(Locked),
    #[error("Too many failed attempts from your address: try again later.")]
    AddressLocked(Locked),
    #[error("Too many people are signing in just now: try again in a moment.")]
    Busy,
    #[error(transparent)]
    Directory(#[from] DirectoryError),
}

impl NotSignedIn {
    /// The stable word.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Credentials(_) => "invalid_credentials",
            Self::CodeWanted(..) => "totp_required",
            Self::Code(_) => "invalid_totp",
            Self::PasskeyWanted(..) => "passkey_required",
            Self::Passkey(_) => "invalid_passkey",
            Self::Provider(error) => error.code(),
            Self::UserLocked(_) => "locked",
            Self::AddressLocked(_) => "ip_locked",
            Self::Busy => "busy",
            Self::Directory(_) => "unavailable",
        }
    }

    /// Seconds until it is worth to try again; `None` where waiting does not help.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        match self {
            Self::UserLocked(locked) | Self::AddressLocked(locked) => Some(seconds_until(*locked)),
            Self::Busy => Some(1),
            _ => None,
        }
    }
}

/// Whole seconds until a lock opens, at least one.
pub(crate) fn seconds_until(Locked(until): Locked) -> u64 {
    let micros = until.as_micros().saturating_sub(Timestamp::now().as_micros());
    u64::try_from(micros).unwrap_or(0).div_ceil(1_000_000).max(1)
}

impl From<SignInError> for NotSignedIn {
    fn from(error: SignInError) -> Self {
        match error {
            SignInError::Wrong(whose) => Self::Credentials(whose),
            SignInError::Held(Held::User(locked)) => Self::UserLocked(locked),
            SignInError::Held(Held::Address(locked)) => Self::AddressLocked(locked),
            SignInError::Held(Held::Directory(error)) | SignInError::Directory(error) => Self::Directory(error),
            SignInError::Busy(_) => Self::Busy,
        }
    }
}

impl From<SignInError> for Failure {
    fn from(error: SignInError) -> Self {
        Self::SignIn(error.into())
    }
}

/// Signs somebody in, and makes their login.
pub(crate) async fn sign_in(app: &App, shown: Shown<'_>, request: RequestId) -> Result<SignedIn, Failure> {
    if !app.walk().admits_logins() {
        return Err(LOGINS_OFF);
    }
    let claim = Claim {
        name: shown.name,
        account: shown.account,
        password: Password::new(shown.password),
        client: shown.client,
    };
    let proven = app.sign_ins().by_password(app.store(), claim).await?;
    let identified = complete(app, proven, shown.code).await?;
    admit(app, identified, shown.device, request).await
}

/// Completes a password by what else is asked for.
pub(crate) async fn complete(app: &App, proven: Proven, code: Option<&str>) -> Result<Identified, Failure> {
    let proven = match proven.alone() {
        Ok(identified) => return Ok(identified),
        Err(proven) => proven,
    };
    let whose = proven.whose();
    let code = code.map(str::trim).filter(|code| !code.is_empty());
    let Some(code) = code else {
        let wanted = if proven.totp().is_some() { NotSignedIn::CodeWanted } else { NotSignedIn::PasskeyWanted };
        let awaiting = app.sign_ins().awaiting(app.store(), proven).await.map_err(NotSignedIn::from)?;
        let begun = match app.passkeys() {
            Ok(passkeys) if !awaiting.passkeys().is_empty() => Some(Box::new(passkeys.begin_after_password(awaiting)?)),
            _ => None,
        };
        return Err(wanted(whose, begun).into());
    };
    if let Some(code) = totp::recovery_form(code) {
        return Ok(proven.with_recovery_code(app.walk().ring(), &code));
    }
    let Some(stored) = proven.totp() else { return Err(NotSignedIn::Code(whose).into()) };
    let secret = match app.seal().open(&Purpose::totp(&whose.tenant, &whose.user), &stored.sealed) {
        Ok(secret) => secret,
        Err(error) => {
            app.sign_ins().asked_for_more(app.store(), proven).await.map_err(NotSignedIn::from)?;
            return Err(error.into());
        }
    };
    proven.with_totp(&secret, code, unix_seconds()).map_err(|_| NotSignedIn::Code(whose).into())
}

/// Signs somebody in by the second half of a passkey's ceremony: after their password, or by it alone.
pub(crate) async fn sign_in_by_passkey(
    app: &App,
    shown: (&str, Value),
    device: String,
    visitor: &Visitor,
) -> Result<SignedIn, Failure> {
    if !app.walk().admits_logins() {
        return Err(LOGINS_OFF);
    }
    let identified = app.passkeys()?.finish(app.sign_ins(), app.store(), shown, visitor.address).await?;
    admit(app, identified, device, visitor.request).await
}

/// A passkey that was wrong is not a password that was.
pub(crate) fn by_passkey_failed(error: SignInError) -> NotSignedIn {
    match error {
        SignInError::Wrong(whose) => NotSignedIn::Passkey(whose),
        other => other.into(),
    }
}

/// Makes the login of somebody who showed all that was asked for.
pub(crate) async fn admit(
    app: &App,
    identified: Identified,
    device: String,
    request: RequestId,
) -> Result<SignedIn, Failure> {
    let Identified { principal, first, factor, attempt } = identified;
    let scope = principal.scope(request)?;
    let user = own_name(&principal)?;
    let permit = scope.authorize::<SignIn>(scope.user_named(user.clone()))?;
    let token = app.walk().ring().make_token()?;
    let spent = !matches!(factor, Factor::Alone);
    let by_passkey = matches!(factor, Factor::Passkey(_) | Factor::PasskeyAlone(_));
    let new = NewDevice { token: &token, name: device, first, factor };
    let made = app.store().device_create(permit, new).await;
    match made {
        // Two at once with one code, or a recovery code that is none.
        Err(StoreError::Conflict { code: "code_used", .. }) if spent => {
            let whose = Whose { tenant: scope.tenant().clone(), user };
            return Err(if by_passkey { NotSignedIn::Passkey(Some(whose)) } else { NotSignedIn::Code(whose) }.into());
        }
        Ok(()) => {}
        // A right password, and something of ours that failed: nobody guessed.
        Err(error) => {
            app.sign_ins().no_failure(app.store(), attempt).await.map_err(NotSignedIn::from)?;
            return Err(error.into());
        }
    }
    app.sign_ins().succeeded(app.store(), attempt).await.map_err(NotSignedIn::from)?;
    let device = token.id.clone();
    Ok(SignedIn { token: token.into_text(), device, user })
}

/// The caller's own name; the operator without a tenant has none.
pub(crate) fn own_name(principal: &Principal) -> Result<UserName, Failure> {
    principal.user().cloned().ok_or_else(|| Failure::NoTenant(bailiwick_auth::NoTenant))
}

/// Seconds since 1970, as codes of apps count them.
pub(crate) fn unix_seconds() -> u64 {
    u64::try_from(Timestamp::now().as_micros() / 1_000_000).unwrap_or(0)
}

/// What a browser's or a program's own name for itself comes to, for the list of logins.
pub(crate) fn device_name(headers: &HeaderMap) -> String {
    let agent = headers.get(USER_AGENT).and_then(|value| value.to_str().ok()).unwrap_or("");
    // The order matters: most of them claim to be others, too.
    let program = [
        ("Edg/", "Edge"),
        ("OPR/", "Opera"),
        ("Firefox/", "Firefox"),
        ("FxiOS/", "Firefox"),
        ("CriOS/", "Chrome"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
        ("curl/", "curl"),
    ];
    let system = [
        ("iPhone", "iPhone"),
        ("iPad", "iPad"),
        ("Android", "Android"),
        ("CrOS", "ChromeOS"),
        ("Windows", "Windows"),
        ("Mac OS X", "macOS"),
        ("Linux", "Linux"),
    ];
    let find =
        |known: &[(&str, &'static str)]| known.iter().find(|(sign, _)| agent.contains(sign)).map(|(_, name)| *name);
    match (find(&program), find(&system)) {
        (Some(program), Some(system)) => format!("{program} on {system}"),
        (Some(name), None) | (None, Some(name)) => name.to_owned(),
        (None, None) => {
            let word: String =
                agent.chars().take_while(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).take(40).collect();
            if word.is_empty() { "unnamed".to_owned() } else { word }
        }
    }
}

/// Puts a failed attempt on record: in the account's log if it was somebody's, else in the host's.
pub(crate) fn observe(app: &App, route: &Route, refused: &NotSignedIn, from: Option<IpAddr>, request: RequestId) {
    let (action, verdict, whose) = match refused {
        // Asked for as it should be: a step, and no failure.
        NotSignedIn::CodeWanted(whose, _) | NotSignedIn::PasskeyWanted(whose, _) => {
            ("auth.second_factor.asked", Verdict::Ok, Some(whose))
        }
        NotSignedIn::Credentials(Some(whose)) | NotSignedIn::Code(whose) | NotSignedIn::Passkey(Some(whose)) => {
            ("auth.login", Verdict::Denied, Some(whose))
        }
        NotSignedIn::Credentials(None)
        | NotSignedIn::Passkey(None)
        | NotSignedIn::Provider(_)
        | NotSignedIn::UserLocked(_)
        | NotSignedIn::AddressLocked(_)
        | NotSignedIn::Busy
        | NotSignedIn::Directory(_) => ("auth.login", Verdict::Denied, None),
    };
    // A guess costs a hash; what is refused without one costs nothing, and must not fill the log.
    let cheap = refused.retry_after().is_some() || matches!(refused, NotSignedIn::Provider(_));
    if cheap && app.meters().rejection().is_none() {
        return;
    }
    let mut draft = unknown(action, route, from, request);
    draft.verdict = verdict;
    draft.actor = Actor::Unknown;
    draft.detail.insert("code".to_owned(), json!(refused.code()));
    if let Some(whose) = whose {
        draft.resource = format!("user:{}", whose.user);
    }
    app.store().observe(whose.map(|whose| &whose.tenant), draft);
}

impl From<DirectoryError> for Failure {
    fn from(error: DirectoryError) -> Self {
        Self::Rejected(Rejection::Directory(error))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_called_by_what_it_says_of_itself() {
        let name = |agent: &str| device_name(&HeaderMap::from_iter([(USER_AGENT, agent.parse().unwrap())]));
        let chrome =
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36";
        assert_eq!(name(chrome), "Chrome on Linux");
        let phone = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Version/18.5 Mobile/15E148 Safari/604.1";
        assert_eq!(name(phone), "Safari on iPhone");
        assert_eq!(name("curl/8.14.1"), "curl");
        assert_eq!(name("my-client/2 <b>"), "my-client");
        assert_eq!(name("<script>"), "unnamed");
        assert_eq!(device_name(&HeaderMap::new()), "unnamed");
    }
}
