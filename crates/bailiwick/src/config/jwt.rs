//! Issuers of tokens, `[auth.jwt.<name>]`, each with its key read and looked at.

use std::collections::BTreeMap;

use bailiwick_auth::authn::Step;
use bailiwick_auth::authn::jwt::{AccountSource, Issuer, IssuerSettings, KeyMaterial};

use super::check::resolve;
use super::layers::Layers;
use super::raw::Jwt;
use super::read_secret;

/// Clocks that differ by more are wrong.
const LONGEST_SKEW: u64 = 300;

pub(super) fn check(layers: &mut Layers, raw: BTreeMap<String, Jwt>, walk: &[Step]) -> Vec<Issuer> {
    for step in walk {
        if let Step::Jwt(name) = step
            && !raw.contains_key(name)
        {
            layers.wrong("auth.walk", format!("`jwt:{name}` needs a section [auth.jwt.{name}]"));
        }
    }
    let mut issuers = Vec::new();
    for (name, jwt) in raw {
        if !walk.contains(&Step::Jwt(name.clone())) {
            layers.warn(&format!("auth.jwt.{name}"), format!("is not used: add `jwt:{name}` to auth.walk"));
        }
        issuers.extend(issuer(layers, name, jwt));
    }
    issuers
}

fn issuer(layers: &mut Layers, name: String, raw: Jwt) -> Option<Issuer> {
    let key = |what: &str| format!("auth.jwt.{name}.{what}");
    if raw.jwks_url.is_some() {
        layers.wrong(&key("jwks_url"), "not supported in this version: give public_key_file");
    }
    if raw.issuer.is_empty() {
        layers.wrong(&key("issuer"), "is missing: write what `iss` of its tokens is");
    }
    if raw.audiences.is_empty() || raw.audiences.iter().any(String::is_empty) {
        layers.wrong(&key("audiences"), "a token for somebody else must not pass: name what `aud` must be");
    }
    if raw.clock_skew_seconds > LONGEST_SKEW {
        layers.wrong(&key("clock_skew_seconds"), format!("at most {LONGEST_SKEW}"));
    }
    let account = match (raw.account, raw.account_claim) {
        (Some(account), None) => Some(AccountSource::Fixed(account)),
        (None, Some(claim)) => Some(AccountSource::Claim(claim)),
        _ => {
            layers.wrong(&key("account"), "give either account or account_claim");
            None
        }
    };
    let (file, which) = match (&raw.secret_file, &raw.public_key_file) {
        (Some(file), None) => (file, "secret_file"),
        (None, Some(file)) => (file, "public_key_file"),
        _ => {
            layers.wrong(&key("secret_file"), "give either secret_file or public_key_file");
            return None;
        }
    };
    let path = resolve(layers, &key(which), file);
    let settings = IssuerSettings {
        name: name.clone(),
        algorithm: raw.algorithm,
        issuer: raw.issuer,
        audiences: raw.audiences,
        subjects: raw.subjects,
        account: account?,
        user_claim: raw.user_claim,
        role_claim: raw.role_claim,
        clock_skew_seconds: raw.clock_skew_seconds,
    };
    let made = if which == "secret_file" {
        match read_secret(&path) {
            Ok(secret) => Issuer::new(settings, &KeyMaterial::Secret(secret.as_bytes())),
            Err(error) => {
                layers.wrong(&key(which), error.to_string());
                return None;
            }
        }
    } else {
        match std::fs::read(&path) {
            Ok(text) => Issuer::new(settings, &KeyMaterial::Public(&text)),
            Err(error) => {
                layers.wrong(&key(which), format!("{} cannot be read: {error}", path.display()));
                return None;
            }
        }
    };
    made.map_err(|error| layers.wrong(&key(which), error.to_string())).ok()
}
