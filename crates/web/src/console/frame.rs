//! What every page has: its head and navigation, notices, the headers that hold it together, and what a
//! failure looks like to a person.

use std::sync::{Arc, LazyLock};

use askama::Template;
use axum::response::{IntoResponse, Redirect, Response};
use bailiwick_auth::Credential;
use bailiwick_auth::access::verb::{ListApprovals, ListUsers};
use bailiwick_types::{RequestId, Timestamp};
use http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER, SET_COOKIE};
use http::{HeaderValue, StatusCode};
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::asset;
use crate::app::App;
use crate::caller::Caller;
use crate::error::{Failure, Noted};
use crate::presented::COOKIE_NAME;

/// Our own files and nothing else; forms go to ourselves; nobody frames us.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// Names the stylesheet and the script as they are now, so that a browser keeps neither too long.
pub(super) static ASSETS: LazyLock<String> = LazyLock::new(|| {
    let digest = Sha256::digest([asset::STYLE, asset::SCRIPT].concat());
    digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
});

/// The frame of a page for somebody who is known.
pub(super) struct Frame {
    pub(super) server: String,
    pub(super) assets: &'static str,
    pub(super) user: String,
    pub(super) account: String,
    pub(super) role: String,
    pub(super) csrf: String,
    pub(super) signed_in: bool,
    pub(super) here: &'static str,
    pub(super) waiting: usize,
    sets_up: bool,
}

impl Frame {
    /// For `caller`, on the page of that path.
    pub(super) async fn of(app: &App, caller: &Caller, here: &'static str) -> Result<Self, Failure> {
        let scope = caller.scope()?;
        let waiting = match scope.authorize::<ListApprovals>(scope.account()) {
            Ok(permit) => app.store().approval_list(permit).await?.len(),
            Err(_) => 0,
        };
        let csrf = match caller.principal.credential() {
            Credential::Device(device) => app.walk().ring().form_token(device).to_string(),
            _ => String::new(),
        };
        Ok(Self {
            server: app.settings().server_name.clone(),
            assets: &ASSETS,
            user: scope.user().map(ToString::to_string).unwrap_or_default(),
            account: scope.tenant().account().to_string(),
            role: scope.role().map(|role| role.as_str().to_owned()).unwrap_or_default(),
            signed_in: !csrf.is_empty(),
            csrf,
            here,
            waiting,
            sets_up: scope.may::<ListUsers>(&scope.account()),
        })
    }

    /// The pages that this caller may open: path and name.
    pub(super) fn entries(&self) -> Vec<(&'static str, &'static str)> {
        let mut entries =
            vec![("/", "Dashboard"), ("/spaces", "Spaces"), ("/agents", "Agents"), ("/approvals", "Approvals")];
        if self.sets_up {
            entries.extend([("/users", "Users"), ("/secrets", "Secrets"), ("/notifications", "Notifications")]);
        }
        entries.extend([
            ("/sandboxes", "Sandboxes"),
            ("/network", "Network"),
            ("/audit", "Audit log"),
            ("/usage", "Usage"),
        ]);
        if self.signed_in {
            entries.push(("/2fa", "Second factors"));
        }
        entries.extend([
            ("/keys", "API keys"),
            ("/applications", "Applications"),
            ("/devices", "Devices"),
            ("/settings", "Settings"),
        ]);
        entries
    }
}

/// A line on top of a page: what was done, or why not.
pub(super) enum Notice {
    Done(&'static str),
    Failed(String),
}

impl Notice {
    pub(super) fn class(&self) -> &'static str {
        match self {
            Self::Done(_) => "good",
            Self::Failed(_) => "bad",
        }
    }

    /// Read out at once if it is bad news.
    pub(super) fn role(&self) -> &'static str {
        match self {
            Self::Done(_) => "status",
            Self::Failed(_) => "alert",
        }
    }

    pub(super) fn text(&self) -> &str {
        match self {
            Self::Done(text) => text,
            Self::Failed(text) => text,
        }
    }
}

/// What an earlier page says in the address of this one: a word that we know, never a text.
#[derive(Deserialize)]
pub(super) struct Said {
    ok: Option<String>,
    err: Option<String>,
}

impl Said {
    pub(super) fn notice(&self) -> Option<Notice> {
        let done = |word: &str| {
            Some(Notice::Done(match word {
                "made" => "It is made.",
                "changed" => "It is changed.",
                "removed" => "It is removed.",
                "target_made" => "It is told from now on. Send it a test to see that it works.",
                "sandbox_ended" => "It has ended, with whatever ran in it.",
                "ended" => "That login has ended.",
                "application_ended" => "That program can do nothing for you any more.",
                "revoked" => "That key is revoked.",
                "secret_set" => "The secret has its value. Nothing can use it but the agents it is granted to.",
                "secret_granted" => "Granted. It holds at once.",
                "secret_taken" => "Taken back. It is over after a minute at most.",
                "password" => "Your password is changed, and your other logins have ended.",
                "given" => "They have a new password, and their logins have ended.",
                "unlocked" => "They can sign in again.",
                "reset" => "Their second factors are gone, and their logins have ended.",
                "deleted" => "They are deleted.",
                "approved" => "Approved. The call runs once.",
                "denied" => "Denied. The agent is told.",
                "passkey_made" => "The passkey is kept. You can sign in with it from now on.",
                "passkey_removed" => "The passkey is removed.",
                "totp_removed" => "The app is removed. Your password alone opens this account now.",
                "set_up" => "You are the admin. Sign in to begin.",
                "signed_out" => "You are signed out.",
                _ => return None,
            }))
        };
        let failed = |word: &str| {
            let text = match word {
                "session_timeout" => "You were signed out because nothing happened for a while.",
                "admin_only" => "That page is for admins of this account.",
                "operator_only" => "That page is for the operator of this server.",
                _ => return None,
            };
            Some(Notice::Failed(text.to_owned()))
        };
        self.err.as_deref().and_then(failed).or_else(|| self.ok.as_deref().and_then(done))
    }
}

/// The query of a form's filled fields.
pub(super) fn query(fields: &[(&str, &str)]) -> String {
    let mut query = form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(fields.iter().filter(|(_, value)| !value.is_empty()));
    query.finish()
}

/// A page.
pub(super) fn page(template: &impl Template) -> Result<Response, Failure> {
    let text = template.render().map_err(|_| Failure::Defect("a page could not be rendered"))?;
    Ok(html(StatusCode::OK, text))
}

/// A page that says why what was sent was not done. The gate puts the failure on record.
pub(super) fn again(page: Response, failure: Failure) -> Response {
    let mut response = page;
    *response.status_mut() = failure.status();
    retry(&mut response, &failure);
    told(&mut response, &failure);
    response.extensions_mut().insert(Noted(Arc::new(failure)));
    response
}

fn told(response: &mut Response, failure: &Failure) {
    if let Ok(reason) = HeaderValue::from_str(failure.reason().unwrap_or("")) {
        response.headers_mut().insert(REASON, reason);
    }
}

fn retry(response: &mut Response, failure: &Failure) {
    if let Some(seconds) = failure.retry_after() {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
}

/// Whether a failure is the sender's own to mend, on the page that they sent it from.
pub(super) fn mendable(failure: &Failure) -> bool {
    let told = matches!(failure, Failure::Refused(_) | Failure::Rejected(_) | Failure::Forged(_));
    !told && failure.missing().is_none() && failure.status().is_client_error()
}

/// Shows the page again with what went wrong, or fails as routes do.
pub(super) fn notice_of(failure: Failure) -> Result<(Notice, Failure), Failure> {
    if mendable(&failure) { Ok((Notice::Failed(failure.message()), failure)) } else { Err(failure) }
}

fn html(status: StatusCode, text: String) -> Response {
    let mut response = text.into_response();
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    // Not `no-referrer`: with it a browser hides even from us that a form is our own.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert("x-frame-options", HeaderValue::from_static("DENY"));
    headers.insert("cross-origin-opener-policy", HeaderValue::from_static("same-origin"));
    response
}

/// A page whose form leads on to somebody else's address, which its policy has to name.
pub(super) fn leads_to(mut page: Response, source: &str) -> Result<Response, Failure> {
    let policy = POLICY.replace("form-action 'self'", &format!("form-action 'self' {source}"));
    let policy = HeaderValue::from_str(&policy).map_err(|_| Failure::Defect("a policy that is none"))?;
    page.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    Ok(page)
}

/// To another page, after something was done (RFC 9110, section 15.4.4).
pub(super) fn go(to: &str) -> Response {
    Redirect::to(to).into_response()
}

/// The cookie of a login, or its end.
pub(super) fn cookie(app: &App, token: Option<&str>) -> Result<HeaderValue, Failure> {
    let secure = if app.settings().is_secure() { "; Secure" } else { "" };
    let end = if token.is_none() { "; Max-Age=0" } else { "" };
    let text = format!("{COOKIE_NAME}={}; Path=/; HttpOnly; SameSite=Lax{secure}{end}", token.unwrap_or(""));
    let mut value = HeaderValue::from_str(&text).map_err(|_| Failure::Defect("a cookie that is none"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[derive(Template)]
#[template(path = "failed.html")]
struct Failed<'a> {
    server: &'a str,
    assets: &'a str,
    title: &'a str,
    message: &'a str,
    status: u16,
    reason: &'a str,
    request: String,
}

/// The word of a failure, for tests and scripts that follow redirects.
const REASON: &str = "x-bailiwick-reason";

/// A failure as a person sees it. Who is not signed in is led to the login page, and to the dashboard who
/// opened what is for others.
pub(crate) fn failed(app: &App, failure: &Failure, target: &str, request: RequestId) -> Response {
    use bailiwick_auth::authn::Rejection;
    let reason = failure.reason().unwrap_or("");
    let mut response = match failure {
        Failure::Rejected(Rejection::TimedOut) => go("/login?err=session_timeout"),
        Failure::Rejected(Rejection::Missing | Rejection::Invalid) => go(&login_for(target)),
        // `placeholder` ends the walk; who comes with a browser can sign in all the same.
        Failure::Rejected(Rejection::NotConfigured) if app.walk().admits_logins() => go(&login_for(target)),
        Failure::Refused(_) if matches!(reason, "admin_only" | "operator_only") => go(&format!("/?err={reason}")),
        _ => {
            let status = failure.status();
            let title = match status {
                StatusCode::NOT_FOUND => "There is nothing here",
                StatusCode::FORBIDDEN => "Not allowed",
                StatusCode::TOO_MANY_REQUESTS => "Not so fast",
                status if status.is_server_error() => "The server failed",
                _ => "That did not work",
            };
            let (server, message) = (&app.settings().server_name, failure.message());
            let (assets, status_code) = (ASSETS.as_str(), status.as_u16());
            let request = request.to_string();
            let page = Failed { server, assets, title, message: &message, status: status_code, reason, request };
            html(status, page.render().unwrap_or_default())
        }
    };
    retry(&mut response, failure);
    told(&mut response, failure);
    let headers = response.headers_mut();
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    let gone = matches!(failure, Failure::Rejected(Rejection::TimedOut | Rejection::Invalid));
    if let (true, Ok(end)) = (gone, cookie(app, None)) {
        headers.insert(SET_COOKIE, end);
    }
    response
}

fn login_for(target: &str) -> String {
    if target == "/" || local(target).is_none() {
        return "/login".to_owned();
    }
    let next: String = form_urlencoded::byte_serialize(target.as_bytes()).collect();
    format!("/login?next={next}")
}

/// A path on this server, and nothing that a browser would take for another one.
pub(super) fn local(path: &str) -> Option<&str> {
    let plain = path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    (plain && path.starts_with('/') && !path.starts_with("//")).then_some(path)
}

/// A moment, to the second, as a table shows it.
pub(super) fn moment(at: Timestamp) -> String {
    let text = at.to_string();
    let (date, time) = text.split_once('T').unwrap_or((&text, ""));
    format!("{date} {}", time.get(..8).unwrap_or(time))
}
