//! Tokens that nobody signed: nothing panics, and nothing passes but what the issuer signed, to the letter.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use proptest::prelude::*;
use proptest::sample::Index;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use ring::{hmac, signature};
use serde_json::json;

use super::*;

const SECRET: &[u8] = b"a secret that is long enough for it";

/// An issuer, and a token that it signed.
struct Signed {
    issuer: Issuer,
    token: String,
}

fn settings(algorithm: &str) -> IssuerSettings {
    IssuerSettings {
        name: "sso".to_owned(),
        algorithm: Some(algorithm.to_owned()),
        issuer: "https://sso.example".to_owned(),
        audiences: vec!["bailiwick".to_owned()],
        subjects: Vec::new(),
        account: AccountSource::Claim("org".to_owned()),
        user_claim: "sub".to_owned(),
        role_claim: None,
        clock_skew_seconds: 30,
        second_factor: SecondFactor::Provider,
    }
}

/// Reads a token. With keys that are there already it waits for nothing.
fn read(issuer: &Issuer, text: &str) -> Result<Option<Claimed>, Rejection> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match std::pin::pin!(issuer.read(text)).poll(&mut context) {
        std::task::Poll::Ready(read) => read,
        std::task::Poll::Pending => panic!("it waits"),
    }
}

fn claims() -> Value {
    let end = Timestamp::now().as_micros() / 1_000_000 + 24 * 3600;
    json!({ "iss": "https://sso.example", "aud": "bailiwick", "sub": "alice", "org": "acme", "exp": end })
}

fn token(header: &str, claims: &str, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signed = URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
    format!("{message}.{signed}")
}

fn by_secret(message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message).as_ref().to_vec()
}

static BY_SECRET: LazyLock<Signed> = LazyLock::new(|| Signed {
    issuer: Issuer::new(settings("HS256"), &KeyMaterial::Secret(SECRET)).unwrap(),
    token: token(r#"{"alg":"HS256","typ":"JWT"}"#, &claims().to_string(), by_secret),
});
static BY_KEY: LazyLock<Signed> = LazyLock::new(|| {
    let made = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let pair = signature::Ed25519KeyPair::from_pkcs8(made.as_ref()).unwrap();
    let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": x }).to_string();
    Signed {
        issuer: Issuer::new(settings("EdDSA"), &KeyMaterial::Public(jwk.as_bytes())).unwrap(),
        token: token(r#"{"alg":"EdDSA"}"#, &claims().to_string(), |message| pair.sign(message).as_ref().to_vec()),
    }
});

/// One change to a text.
#[derive(Debug, Clone)]
enum Edit {
    Replace(Index, char),
    Insert(Index, char),
    Remove(Index),
    Cut(Index),
    Turn(Index),
    Repeat(Index),
    SwapParts,
    Pad,
}

fn edit() -> impl Strategy<Value = Edit> {
    // Letters of the alphabet, and those of others that careless readers take for them.
    let letter = || prop::sample::select("AZaz09-_+/=. \n\0\u{e9}".chars().collect::<Vec<char>>());
    prop_oneof![
        (any::<Index>(), letter()).prop_map(|(at, letter)| Edit::Replace(at, letter)),
        (any::<Index>(), letter()).prop_map(|(at, letter)| Edit::Insert(at, letter)),
        any::<Index>().prop_map(Edit::Remove),
        any::<Index>().prop_map(Edit::Cut),
        any::<Index>().prop_map(Edit::Turn),
        any::<Index>().prop_map(Edit::Repeat),
        Just(Edit::SwapParts),
        Just(Edit::Pad),
    ]
}

fn edited(token: &str, edits: &[Edit]) -> String {
    let mut letters: Vec<char> = token.chars().collect();
    for edit in edits {
        let last = letters.len().max(1);
        match edit {
            Edit::Replace(at, letter) if !letters.is_empty() => letters[at.index(last)] = *letter,
            Edit::Insert(at, letter) => letters.insert(at.index(letters.len() + 1), *letter),
            Edit::Remove(at) if !letters.is_empty() => drop(letters.remove(at.index(last))),
            Edit::Cut(at) => letters.truncate(at.index(letters.len() + 1)),
            // The next letter of the alphabet: in the last place of a part, bits that may say nothing.
            Edit::Turn(at) if !letters.is_empty() => {
                let letter = &mut letters[at.index(last)];
                *letter = char::from_u32(u32::from(*letter) ^ 1).unwrap();
            }
            Edit::Repeat(at) => {
                let tail = letters[at.index(letters.len() + 1)..].to_vec();
                letters.extend(tail);
            }
            Edit::SwapParts => {
                let text: String = letters.iter().collect();
                let mut parts: Vec<&str> = text.split('.').collect();
                parts.rotate_left(1);
                letters = parts.join(".").chars().collect();
            }
            Edit::Pad => letters.push('='),
            Edit::Replace(..) | Edit::Remove(_) | Edit::Turn(_) => {}
        }
    }
    letters.into_iter().collect()
}

/// Any value, with what claims are made of.
fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        prop::sample::select(&["bailiwick", "alice", "acme", "https://sso.example", "HS256", "none"])
            .prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| prop::collection::vec(inner, 0..4).prop_map(Value::from))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn i12_a_token_with_another_letter_is_no_token(edits in prop::collection::vec(edit(), 0..4)) {
        for signed in [&*BY_SECRET, &*BY_KEY] {
            let changed = edited(&signed.token, &edits);
            let accepted = matches!(read(&signed.issuer, &changed), Ok(Some(_)));
            prop_assert_eq!(accepted, changed == signed.token, "{}", changed);
        }
    }

    #[test]
    fn i12_any_text_is_survived_and_proves_nothing(text in prop_oneof![
        any::<String>(),
        "[A-Za-z0-9_=-]{0,40}(\\.[A-Za-z0-9_=-]{0,40}){0,3}",
        (value(), value(), "[A-Za-z0-9_-]{0,86}").prop_map(|(header, claims, signed)| {
            let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
            format!("{}.{}.{signed}", part(&header), part(&claims))
        }),
    ]) {
        for signed in [&*BY_SECRET, &*BY_KEY] {
            prop_assert!(!matches!(read(&signed.issuer, &text), Ok(Some(_))), "{text}");
        }
    }

    #[test]
    fn i12_what_an_issuer_signed_still_has_to_be_right(
        changes in prop::collection::vec(
            (prop::sample::select(&["iss", "aud", "sub", "org", "exp", "nbf", "iat"]), prop::option::of(value())),
            0..4,
        ),
        header in prop::collection::vec(
            (prop::sample::select(&["alg", "typ", "kid", "crit", "b64", "jwk", "jku", "x5c", "x5u", "cty"]), value()),
            0..3,
        ),
    ) {
        let (mut claims, mut head) = (claims(), json!({ "alg": "HS256" }));
        for (name, change) in changes {
            match change {
                Some(value) => claims[name] = value,
                None => drop(claims.as_object_mut().unwrap().remove(name)),
            }
        }
        for (name, value) in header {
            head[name] = value;
        }
        let text = token(&head.to_string(), &claims.to_string(), by_secret);
        if let Ok(Some(claimed)) = read(&BY_SECRET.issuer, &text) {
            prop_assert_eq!(&head["alg"], "HS256");
            let silent = |name: &str| head.get(name).is_none_or(Value::is_null);
            prop_assert!(["crit", "jwk", "jku", "x5c", "x5u"].into_iter().all(silent), "{head}");
            prop_assert!(head.get("b64").is_none());
            prop_assert_eq!(&claims["iss"], "https://sso.example");
            prop_assert_eq!(claims["sub"].as_str(), Some(claimed.user.as_str()));
            prop_assert_eq!(claims["org"].as_str(), Some(claimed.account.as_str()));
            let audiences = claims["aud"].as_array().cloned().unwrap_or_else(|| vec![claims["aud"].clone()]);
            prop_assert!(audiences.contains(&json!("bailiwick")));
            prop_assert!(claimed.expires_at > Timestamp::now());
            let now = Timestamp::now().as_micros() as f64 / 1e6;
            let begun = |name: &str| claims.get(name).is_none_or(|at| at.as_f64().is_some_and(|at| at <= now + 31.0));
            prop_assert!(begun("iat"), "{claims}");
            // The library takes a null for nothing said.
            prop_assert!(begun("nbf") || claims["nbf"].is_null(), "{claims}");
        }
    }

    #[test]
    fn i12_any_key_file_is_survived(
        algorithm in prop::sample::select(&["HS256", "RS256", "PS512", "ES256", "ES384", "EdDSA", "none", "ES512"]),
        file in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..100),
            value().prop_map(|value| value.to_string().into_bytes()),
            (prop::sample::select(&["RSA", "EC", "OKP", "oct"]), value(), value(), value()).prop_map(|(kty, crv, x, y)| {
                json!({ "kty": kty, "crv": crv, "x": x, "y": y, "n": x, "e": y, "k": x }).to_string().into_bytes()
            }),
            "-----BEGIN (RSA |EC )?(PUBLIC|PRIVATE) KEY-----\n[A-Za-z0-9+/=\n]{0,80}\n?(-----END PUBLIC KEY-----)?"
                .prop_map(String::into_bytes),
        ],
    ) {
        prop_assert!(Issuer::new(settings(algorithm), &KeyMaterial::Public(&file)).is_err());
        let secret = Issuer::new(settings(algorithm), &KeyMaterial::Secret(&file));
        prop_assert_eq!(secret.is_ok(), algorithm == "HS256" && file.len() >= 32);
    }
}
