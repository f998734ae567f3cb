//! Issuers of tokens, `[auth.jwt.<name>]` and `[auth.oidc.<name>]`, each with its key read and looked at, or the
//! address at which it publishes its keys. Nobody is asked here: a provider that is away stops no start.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bailiwick_auth::authn::Step;
use bailiwick_auth::authn::jwt::{AccountSource, Issuer, IssuerError, IssuerSettings, KeyMaterial};
use bailiwick_auth::authn::oidc::{self, ProviderSettings};
use bailiwick_types::AccountName;
use url::Url;
use zeroize::Zeroizing;

use super::check::resolve;
use super::layers::Layers;
use super::raw::{Jwt, Oidc, SecondFactor};
use super::{IssuerPlan, read_secret};

/// Clocks that differ by more are wrong.
const LONGEST_SKEW: u64 = 300;
/// Longest name of a provider: it stands in addresses and cookies.
const LONGEST_NAME: usize = 40;
/// Longest title of a button, characters.
const LONGEST_TITLE: usize = 60;

pub(super) fn check(
    layers: &mut Layers,
    jwt: BTreeMap<String, Jwt>,
    oidc: BTreeMap<String, Oidc>,
    walk: &[Step],
    public_url: Option<&str>,
) -> Vec<IssuerPlan> {
    for step in walk {
        let missing = match step {
            Step::Jwt(name) => (!jwt.contains_key(name)).then(|| format!("[auth.jwt.{name}]")),
            Step::Oidc(name) => (!oidc.contains_key(name)).then(|| format!("[auth.oidc.{name}]")),
            _ => None,
        };
        if let Some(section) = missing {
            layers.wrong("auth.walk", format!("`{step}` needs a section {section}"));
        }
    }
    let mut plans = Vec::new();
    for (name, jwt) in jwt {
        if !walk.contains(&Step::Jwt(name.clone())) {
            layers.warn(&format!("auth.jwt.{name}"), format!("is not used: add `jwt:{name}` to auth.walk"));
        }
        plans.extend(issuer(layers, name, jwt));
    }
    for (name, oidc) in oidc {
        if !walk.contains(&Step::Oidc(name.clone())) && oidc.client_id.is_none() {
            let text = format!("is not used: add `oidc:{name}` to auth.walk, or a client_id for the login page");
            layers.warn(&format!("auth.oidc.{name}"), text);
        }
        plans.extend(provider(layers, name, oidc, public_url));
    }
    plans
}

/// What both sections say of whose tokens are whose.
struct Mapping<'a> {
    issuer: &'a str,
    audiences: &'a [String],
    clock_skew_seconds: u64,
    account: Option<AccountName>,
    account_claim: Option<String>,
}

/// Looks at it; says where the account comes from.
fn mapping(layers: &mut Layers, section: &str, raw: Mapping<'_>) -> Option<AccountSource> {
    let key = |what: &str| format!("{section}.{what}");
    if raw.issuer.is_empty() {
        layers.wrong(&key("issuer"), "is missing: write what `iss` of its tokens is");
    }
    if raw.audiences.is_empty() || raw.audiences.iter().any(String::is_empty) {
        layers.wrong(&key("audiences"), "a token for somebody else must not pass: name what `aud` must be");
    }
    if raw.clock_skew_seconds > LONGEST_SKEW {
        layers.wrong(&key("clock_skew_seconds"), format!("at most {LONGEST_SKEW}"));
    }
    match (raw.account, raw.account_claim) {
        (Some(account), None) => Some(AccountSource::Fixed(account)),
        (None, Some(claim)) => Some(AccountSource::Claim(claim)),
        _ => {
            layers.wrong(&key("account"), "give either account or account_claim");
            None
        }
    }
}

fn issuer(layers: &mut Layers, name: String, raw: Jwt) -> Option<IssuerPlan> {
    let section = format!("auth.jwt.{name}");
    let given = Mapping {
        issuer: &raw.issuer,
        audiences: &raw.audiences,
        clock_skew_seconds: raw.clock_skew_seconds,
        account: raw.account,
        account_claim: raw.account_claim,
    };
    let account = mapping(layers, &section, given);
    let (which, place) = match (raw.secret_file, raw.public_key_file, raw.jwks_url) {
        (Some(file), None, None) => ("secret_file", Place::Secret(file)),
        (None, Some(file), None) => ("public_key_file", Place::Public(file)),
        (None, None, Some(url)) => ("jwks_url", Place::Published(url)),
        _ => {
            let text = "give either secret_file or public_key_file or jwks_url";
            layers.wrong(&format!("{section}.secret_file"), text);
            return None;
        }
    };
    let settings = IssuerSettings {
        name,
        algorithm: raw.algorithm,
        issuer: raw.issuer,
        audiences: raw.audiences,
        subjects: raw.subjects,
        account: account?,
        user_claim: raw.user_claim,
        role_claim: raw.role_claim,
        clock_skew_seconds: raw.clock_skew_seconds,
        // A CI, or whoever else was handed a key, has nobody to ask for a second factor.
        second_factor: oidc::SecondFactor::Provider,
    };
    keyed(layers, &section, which, place, settings)
}

/// Where an issuer's keys are.
enum Place {
    Secret(PathBuf),
    Public(PathBuf),
    Published(String),
}

fn keyed(
    layers: &mut Layers,
    section: &str,
    which: &str,
    place: Place,
    settings: IssuerSettings,
) -> Option<IssuerPlan> {
    let key = format!("{section}.{which}");
    let made = match place {
        Place::Secret(file) => {
            let secret = secret(layers, &key, &file)?;
            Issuer::new(settings, &KeyMaterial::Secret(secret.as_bytes())).map(IssuerPlan::Fixed)
        }
        Place::Public(file) => {
            let path = resolve(layers, &key, &file);
            match std::fs::read(&path) {
                Ok(text) => Issuer::new(settings, &KeyMaterial::Public(&text)).map(IssuerPlan::Fixed),
                Err(error) => {
                    layers.wrong(&key, format!("{} cannot be read: {error}", path.display()));
                    return None;
                }
            }
        }
        Place::Published(url) => {
            address(layers, &key, &url);
            match &settings.algorithm {
                None => Err(IssuerError::Algorithm),
                Some(_) => settings.fit_published().map(|()| IssuerPlan::Publishing(settings, url)),
            }
        }
    };
    made.map_err(|error| wrong(layers, section, which, error)).ok()
}

fn wrong(layers: &mut Layers, section: &str, which: &str, error: IssuerError) {
    let at = if error == IssuerError::Algorithm { "algorithm" } else { which };
    layers.wrong(&format!("{section}.{at}"), error.to_string());
}

fn provider(layers: &mut Layers, name: String, mut raw: Oidc, public_url: Option<&str>) -> Option<IssuerPlan> {
    let section = format!("auth.oidc.{name}");
    let plain = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if name.is_empty() || name.len() > LONGEST_NAME || !plain {
        layers.wrong(&section, format!("its name is part of addresses: use up to {LONGEST_NAME} of a-z, 0-9 and -"));
    }
    if !raw.issuer.is_empty() {
        address(layers, &format!("{section}.issuer"), &raw.issuer);
    }
    if raw.audiences.is_empty() && raw.client_secret_file.is_some() {
        // Its tokens for this server name it by the client that it is there. Not where the client has no secret:
        // whoever has somebody's password there could have such a token made, past our second factor.
        raw.audiences.extend(raw.client_id.clone());
    }
    let client = client(layers, &name, &mut raw, public_url);
    let given = Mapping {
        issuer: &raw.issuer,
        audiences: &raw.audiences,
        clock_skew_seconds: raw.clock_skew_seconds,
        account: raw.account,
        account_claim: raw.account_claim,
    };
    let account = mapping(layers, &section, given);
    let settings = IssuerSettings {
        name,
        algorithm: raw.algorithm,
        issuer: raw.issuer,
        audiences: raw.audiences,
        subjects: raw.subjects,
        account: account?,
        user_claim: raw.user_claim,
        role_claim: raw.role_claim,
        clock_skew_seconds: raw.clock_skew_seconds,
        second_factor: counts(raw.second_factor),
    };
    if let Err(error) = settings.fit_published() {
        wrong(layers, &section, "algorithm", error);
    }
    Some(IssuerPlan::Discovered { settings, client })
}

/// How people sign in by it, if they do.
fn client(layers: &mut Layers, name: &str, raw: &mut Oidc, public_url: Option<&str>) -> Option<ProviderSettings> {
    let key = |what: &str| format!("auth.oidc.{name}.{what}");
    let (title, scopes) = (raw.title.take(), std::mem::take(&mut raw.scopes));
    let file = raw.client_secret_file.take();
    let Some(client_id) = raw.client_id.take() else {
        if file.is_some() || title.is_some() || !scopes.is_empty() {
            layers.wrong(&key("client_id"), "is missing: what this server is called at the provider");
        }
        return None;
    };
    if client_id.is_empty() || client_id.chars().any(char::is_control) {
        layers.wrong(&key("client_id"), "is empty, or has control characters");
    }
    if public_url.is_none() {
        let text = format!(
            "is missing: auth.oidc.{name} has a client_id, and the provider sends people back to \
             PUBLIC_URL/login/oidc/{name}/callback"
        );
        layers.wrong("server.public_url", text);
    }
    let title = title.unwrap_or_else(|| name.to_owned());
    if title.trim().is_empty() || title.chars().count() > LONGEST_TITLE || title.chars().any(char::is_control) {
        layers.wrong(&key("title"), format!("stands on a button: 1 to {LONGEST_TITLE} characters"));
    }
    let fits = |scope: &String| !scope.is_empty() && scope.bytes().all(|byte| byte.is_ascii_graphic());
    if !scopes.iter().all(fits) {
        layers.wrong(&key("scopes"), "one scope each, such as \"profile\"");
    }
    Some(ProviderSettings {
        name: name.to_owned(),
        title,
        client_id,
        client_secret: file.and_then(|file| secret(layers, &key("client_secret_file"), &file)),
        scopes: scopes.into_iter().filter(|scope| scope != "openid").collect(),
    })
}

/// Whose second factor counts, as it is written.
fn counts(raw: SecondFactor) -> oidc::SecondFactor {
    match raw {
        SecondFactor::Own => oidc::SecondFactor::Own,
        SecondFactor::Provider => oidc::SecondFactor::Provider,
    }
}

fn secret(layers: &mut Layers, key: &str, file: &Path) -> Option<Zeroizing<String>> {
    let path = resolve(layers, key, file);
    read_secret(&path).map_err(|error| layers.wrong(key, error.to_string())).ok()
}

/// An address that is called: by TLS, or on this machine.
fn address(layers: &mut Layers, key: &str, text: &str) {
    let Some(url) = Url::parse(text).ok().filter(Url::has_host) else {
        return layers.wrong(key, "not a URL: write for example \"https://sso.example.com\"");
    };
    if !url.username().is_empty() || url.password().is_some() {
        layers.wrong(key, "holds a credential, which logs would show");
    }
    let host = url.host_str().unwrap_or("").trim_start_matches('[').trim_end_matches(']');
    let here = host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    if url.scheme() != "https" && !(url.scheme() == "http" && here) {
        layers.wrong(key, "must be https: whoever is between could give out keys of their own");
    }
    if url.fragment().is_some() || (key.ends_with(".issuer") && url.query().is_some()) {
        layers.wrong(key, "must have no query and no fragment");
    }
}
