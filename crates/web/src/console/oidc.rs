//! Signing in by an identity provider: there, back, and a second factor of ours where one is asked for.
//!
//! What comes back is believed only with the cookie of the browser that began, and what a provider says about
//! a failure is never shown: its words are whoever's who made the address.

use std::sync::Arc;

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use bailiwick_auth::authn::oidc::{Answer, Provider, ProviderError};
use bailiwick_auth::authn::sign_in::{Proven, SignInError};
use http::header::SET_COOKIE;
use http::{HeaderMap, HeaderValue};
use serde::Deserialize;

use super::frame::{ASSETS, Notice, again, go, local, mendable, page};
use super::login::{Asked, enter};
use crate::app::App;
use crate::caller::Visitor;
use crate::error::{Failure, Noted};
use crate::input::{Params, Segments, Unread};
use crate::presented::cookie_of;
use crate::route::routes;
use crate::sign_in::{LOGINS_OFF, NotSignedIn, admit, complete, device_name};

routes! {
    GET "/login/oidc/{provider}" begin, Public, [], Nothing, "Sign in by an identity provider: leads there";
    GET "/login/oidc/{provider}/callback" callback, Public, [], Nothing, "Where the provider sends one back";
    GET "/login/oidc/{provider}/code" code_form, Public, [], Nothing, "The page that asks for a second factor";
    POST "/login/oidc/{provider}/code" code, Public, [], Form, "Complete it by a second factor (totpCode)";
}

/// What the browser keeps while it is away.
const FLOW: Kept = Kept { name: "bailiwick_flow", seconds: 600 };
/// What it keeps while a second factor is asked for.
const HALF: Kept = Kept { name: "bailiwick_half", seconds: 300 };

/// A cookie of one sign-in.
struct Kept {
    name: &'static str,
    seconds: u32,
}

impl Kept {
    /// Where people come by TLS, no other server of the same domain can put one there (RFC 6265bis, section
    /// 4.1.3.2): else somebody could have one sign in as somebody else.
    fn name(&self, app: &App) -> String {
        let prefix = if app.settings().is_secure() { "__Host-" } else { "" };
        format!("{prefix}{}", self.name)
    }

    fn read(&self, app: &App, headers: &HeaderMap) -> Option<String> {
        cookie_of(headers, &self.name(app)).ok().flatten()
    }

    fn set(&self, app: &App, response: &mut Response, value: Option<&str>) -> Result<(), Failure> {
        let secure = if app.settings().is_secure() { "; Secure" } else { "" };
        let seconds = if value.is_some() { self.seconds } else { 0 };
        let (name, value) = (self.name(app), value.unwrap_or(""));
        // `Lax`: one comes back by a link of somebody else's page.
        let text = format!("{name}={value}; Path=/; HttpOnly; SameSite=Lax; Max-Age={seconds}{secure}");
        let mut value = HeaderValue::from_str(&text).map_err(|_| Failure::Defect("a cookie that is none"))?;
        value.set_sensitive(true);
        response.headers_mut().append(SET_COOKIE, value);
        Ok(())
    }
}

/// A way to sign in, for the login page.
pub(super) struct Button {
    pub(super) title: String,
    pub(super) href: String,
}

/// The providers' buttons.
pub(super) fn buttons(app: &App, next: &str) -> Vec<Button> {
    let next: String = form_urlencoded::byte_serialize(next.as_bytes()).collect();
    let href = |name: &str| format!("/login/oidc/{name}?next={next}");
    let admitted = app.providers().iter().filter(|_| app.walk().admits_logins());
    let button = |provider: &Provider| Button { title: provider.title().to_owned(), href: href(provider.name()) };
    admitted.map(button).collect()
}

#[derive(Template)]
#[template(path = "oidc.html")]
struct Page<'a> {
    server: &'a str,
    assets: &'static str,
    notice: Option<Notice>,
    half: Option<Half>,
}

/// A second factor is asked for.
struct Half {
    asked: Asked,
    /// Where a code is sent.
    action: String,
    /// Where a passkey leads.
    next: String,
}

fn provider<'a>(app: &'a App, name: &str) -> Result<&'a Provider, Failure> {
    if !app.walk().admits_logins() {
        return Err(LOGINS_OFF);
    }
    app.providers().named(name).ok_or_else(|| Failure::not_found("identity provider", name))
}

/// Where a provider sends people back to. It is registered there, to the letter.
fn redirect_uri(app: &App, provider: &Provider) -> Result<String, Failure> {
    let origin = app.settings().origin().ok_or(LOGINS_OFF)?;
    Ok(format!("{origin}/login/oidc/{}/callback", provider.name()))
}

/// A page that says what went wrong, and where to begin again; or a failure as of any page.
fn failed(app: &App, failure: Failure) -> Result<Response, Failure> {
    let unavailable = matches!(failure, Failure::SignIn(NotSignedIn::Provider(ProviderError::Unavailable)));
    if !mendable(&failure) && !unavailable {
        return Err(failure);
    }
    let notice = Some(Notice::Failed(failure.message()));
    let page = page(&Page { server: &app.settings().server_name, assets: &ASSETS, notice, half: None })?;
    Ok(again(page, failure))
}

#[derive(Deserialize)]
struct Next {
    next: Option<String>,
}

async fn begin(
    State(app): State<App>,
    Segments(name): Segments<String>,
    Params(Next { next }): Params<Next>,
) -> Result<Response, Failure> {
    let provider = provider(&app, &name)?;
    let next = next.as_deref().and_then(local).unwrap_or("/");
    match provider.begin(app.walk().ring(), &redirect_uri(&app, provider)?, next).await {
        Ok(begun) => {
            let mut response = go(&begun.location);
            FLOW.set(&app, &mut response, Some(&begun.cookie))?;
            Ok(response)
        }
        Err(error) => failed(&app, error.into()),
    }
}

#[derive(Deserialize)]
struct Brought {
    #[serde(default)]
    state: String,
    code: Option<String>,
    iss: Option<String>,
}

async fn callback(
    State(app): State<App>,
    visitor: Visitor,
    headers: HeaderMap,
    Segments(name): Segments<String>,
    Params(brought): Params<Brought>,
) -> Result<Response, Failure> {
    let provider = provider(&app, &name)?;
    let mut response = match returned(&app, provider, &visitor, &headers, &brought).await {
        Ok(response) => response,
        Err(failure) => failed(&app, failure)?,
    };
    FLOW.set(&app, &mut response, None)?;
    Ok(response)
}

async fn returned(
    app: &App,
    provider: &Provider,
    visitor: &Visitor,
    headers: &HeaderMap,
    brought: &Brought,
) -> Result<Response, Failure> {
    let cookie = FLOW.read(app, headers).ok_or(ProviderError::Gone)?;
    let Brought { state, code, iss } = brought;
    let answer = Answer { state, code: code.as_deref(), issuer: iss.as_deref() };
    let attempt = app.sign_ins().answer(app.store(), visitor.address).await?;
    let finished = provider.finish(app.walk().ring(), &cookie, &redirect_uri(app, provider)?, answer).await;
    // What does not hold by the provider's fault, or ours, is nobody's guess.
    if !matches!(finished, Err(ProviderError::Answer)) {
        app.sign_ins().no_failure(app.store(), attempt).await?;
    }
    let (vouched, next) = finished?;
    let role = vouched.role();
    let proven = app.sign_ins().by_provider(app.store(), vouched, visitor.address).await?;
    match complete(app, proven, None).await {
        Ok(identified) => {
            let made = admit(app, identified, device_name(headers), visitor.request).await?;
            enter(app, local(&next).unwrap_or("/"), &made)
        }
        Err(Failure::SignIn(asked)) => {
            let whose = match &asked {
                NotSignedIn::CodeWanted(whose, _) | NotSignedIn::PasskeyWanted(whose, _) => whose,
                _ => return Err(asked.into()),
            };
            let half = provider.keep(app.walk().ring(), whose, role, &next);
            let mut response = go(&format!("/login/oidc/{}/code", provider.name()));
            HALF.set(app, &mut response, Some(&half))?;
            response.extensions_mut().insert(Noted(Arc::new(asked.into())));
            Ok(response)
        }
        Err(failure) => Err(failure),
    }
}

async fn code_form(
    State(app): State<App>,
    visitor: Visitor,
    headers: HeaderMap,
    Segments(name): Segments<String>,
) -> Result<Response, Failure> {
    let provider = provider(&app, &name)?;
    let notice = Notice::Done("Your identity provider signed you in. One more thing:");
    match asks(&app, provider, &visitor, &headers, notice).await {
        Ok(page) => Ok(page),
        Err(failure) => failed(&app, failure),
    }
}

/// Takes up what the provider said, for a second factor.
async fn taken_up(
    app: &App,
    provider: &Provider,
    visitor: &Visitor,
    headers: &HeaderMap,
) -> Result<(Proven, String), Failure> {
    let half = HALF.read(app, headers).ok_or(ProviderError::Gone)?;
    let (vouched, next) = provider.kept(app.walk().ring(), &half)?;
    Ok((app.sign_ins().by_provider(app.store(), vouched, visitor.address).await?, next))
}

/// The page that asks for it.
async fn asks(
    app: &App,
    provider: &Provider,
    visitor: &Visitor,
    headers: &HeaderMap,
    notice: Notice,
) -> Result<Response, Failure> {
    let (proven, next) = taken_up(app, provider, visitor, headers).await?;
    let asked = match complete(app, proven, None).await {
        Err(failure @ Failure::SignIn(NotSignedIn::CodeWanted(..) | NotSignedIn::PasskeyWanted(..))) => {
            Asked::by(&failure)
        }
        Err(failure) => return Err(failure),
        // They have none any more: what the provider says has to be asked again.
        Ok(identified) => {
            app.sign_ins().no_failure(app.store(), identified.attempt).await?;
            return Err(ProviderError::Gone.into());
        }
    };
    let action = format!("/login/oidc/{}/code", provider.name());
    let half = Some(Half { asked, action, next: local(&next).unwrap_or("/").to_owned() });
    page(&Page { server: &app.settings().server_name, assets: &ASSETS, notice: Some(notice), half })
}

#[derive(Deserialize)]
struct Code {
    #[serde(rename = "totpCode")]
    totp_code: String,
}

async fn code(
    State(app): State<App>,
    visitor: Visitor,
    headers: HeaderMap,
    Segments(name): Segments<String>,
    body: Unread,
) -> Result<Response, Failure> {
    let provider = provider(&app, &name)?;
    let Code { totp_code } = body.form().await?;
    match completed(&app, provider, &visitor, &headers, &totp_code).await {
        Ok(response) => Ok(response),
        Err(failure @ Failure::SignIn(NotSignedIn::Code(_) | NotSignedIn::CodeWanted(..))) => {
            let notice = Notice::Failed("This code is wrong, or was used already.".to_owned());
            // Who guessed too often is told so here, and not asked again.
            match asks(&app, provider, &visitor, &headers, notice).await {
                Ok(page) => Ok(again(page, failure)),
                Err(failure) => failed(&app, failure),
            }
        }
        Err(failure) => failed(&app, failure),
    }
}

async fn completed(
    app: &App,
    provider: &Provider,
    visitor: &Visitor,
    headers: &HeaderMap,
    code: &str,
) -> Result<Response, Failure> {
    let (proven, next) = taken_up(app, provider, visitor, headers).await?;
    let identified = complete(app, proven, Some(code)).await?;
    let made = admit(app, identified, device_name(headers), visitor.request).await?;
    let mut response = enter(app, local(&next).unwrap_or("/"), &made)?;
    HALF.set(app, &mut response, None)?;
    Ok(response)
}

impl From<ProviderError> for Failure {
    fn from(error: ProviderError) -> Self {
        match error {
            ProviderError::SignIn(error) => SignInError::into(error),
            ProviderError::Entropy(error) => Self::Entropy(error),
            told => Self::SignIn(NotSignedIn::Provider(told)),
        }
    }
}
