//! Tokens that must pass and tokens that must not: made here, from RFC 7515, and Wycheproof's.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair};
use ring::{hmac, rand};
use serde_json::json;
use wycheproof_ng_core::TestResult;
use wycheproof_ng_kdf_jose::json_web::{TestName, TestSet};

use super::*;

const SECRET: &[u8] = b"a secret that is long enough for it";

fn settings(algorithm: &str) -> IssuerSettings {
    IssuerSettings {
        name: "sso".to_owned(),
        algorithm: Some(algorithm.to_owned()),
        issuer: "https://sso.example".to_owned(),
        audiences: vec!["bailiwick".to_owned(), "other".to_owned()],
        subjects: Vec::new(),
        account: AccountSource::Fixed("acme".parse().unwrap()),
        user_claim: "sub".to_owned(),
        role_claim: None,
        clock_skew_seconds: 30,
        second_factor: SecondFactor::Provider,
    }
}

fn hs256() -> Issuer {
    Issuer::new(settings("HS256"), &KeyMaterial::Secret(SECRET)).unwrap()
}

fn now() -> i64 {
    Timestamp::now().as_micros() / 1_000_000
}

fn good() -> Value {
    json!({ "iss": "https://sso.example", "aud": "bailiwick", "sub": "alice", "exp": now() + 300 })
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

/// A token, signed by whatever signs.
fn token(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let message = format!("{}.{}", encoded(header), encoded(claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

fn by_secret(secret: &[u8]) -> impl Fn(&[u8]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    move |message| hmac::sign(&key, message).as_ref().to_vec()
}

fn signed(claims: &Value) -> String {
    token(&json!({ "alg": "HS256", "typ": "JWT" }), claims, by_secret(SECRET))
}

#[derive(Debug, PartialEq, Eq)]
enum Told {
    Accepted,
    Skipped,
    Rejected,
}

/// Nothing is waited for where the keys are fixed.
fn read(issuer: &Issuer, text: &str) -> Result<Option<Claimed>, Rejection> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(issuer.read(text))
}

fn told(issuer: &Issuer, text: &str) -> Told {
    match read(issuer, text) {
        Ok(Some(_)) => Told::Accepted,
        Ok(None) => Told::Skipped,
        Err(_) => Told::Rejected,
    }
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = good();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = good();
    claims.as_object_mut().unwrap().remove(name);
    claims
}

#[test]
fn i12_what_a_token_claims_must_be_there_be_right_and_be_of_now() {
    let issuer = hs256();
    for accepted in [
        good(),
        with("aud", json!(["x", "other"])),
        with("exp", json!(now() - 10)),
        with("nbf", json!(now() + 10)),
        with("iat", json!(now() - 1000)),
        with("unknown", json!({ "deep": [1, 2] })),
    ] {
        assert_eq!(told(&issuer, &signed(&accepted)), Told::Accepted, "{accepted}");
    }
    for rejected in [
        without("exp"),
        without("aud"),
        without("sub"),
        with("exp", json!(now() - 100)),
        with("exp", json!("tomorrow")),
        with("exp", json!(-1)),
        with("nbf", json!(now() + 1000)),
        with("iat", json!(now() + 1000)),
        with("iat", json!("yesterday")),
        with("aud", json!("somebody else")),
        with("aud", json!([])),
        with("aud", json!(7)),
        with("sub", json!(7)),
        with("sub", json!("not a name")),
    ] {
        assert_eq!(told(&issuer, &signed(&rejected)), Told::Rejected, "{rejected}");
    }
    // Of somebody else, or no token at all: for another step.
    for skipped in [without("iss"), with("iss", json!("https://evil.example")), with("iss", json!({}))] {
        assert_eq!(told(&issuer, &signed(&skipped)), Told::Skipped, "{skipped}");
    }
    let huge = signed(&with("sub", json!("a".repeat(9_000))));
    for skipped in ["", "a.b", "a.b.c", "a.b.c.d", "not a token", huge.as_str()] {
        assert_eq!(told(&issuer, skipped), Told::Skipped);
    }
}

#[test]
fn i12_the_algorithm_is_the_configured_one_and_a_header_chooses_nothing() {
    let issuer = hs256();
    let header = |header: Value| told(&issuer, &token(&header, &good(), by_secret(SECRET)));
    assert_eq!(header(json!({ "alg": "HS256" })), Told::Accepted, "the control");
    assert_eq!(header(json!({ "alg": "HS256", "kid": "../../etc/passwd" })), Told::Accepted, "a kid is only a name");
    for bad in [
        json!({ "alg": "none" }),
        json!({ "alg": "None" }),
        json!({ "alg": "hs256" }),
        json!({ "alg": "HS384" }),
        json!({ "alg": "RS256" }),
        json!({ "typ": "JWT" }),
        json!({ "alg": "HS256", "crit": ["exp2"], "exp2": 1 }),
        json!({ "alg": "HS256", "crit": [] }),
        json!({ "alg": "HS256", "b64": false }),
        json!({ "alg": "HS256", "b64": false, "crit": ["b64"] }),
        json!({ "alg": "HS256", "jwk": { "kty": "oct", "k": "AAAA" } }),
        json!({ "alg": "HS256", "jku": "https://evil.example/keys" }),
        json!({ "alg": "HS256", "x5u": "https://evil.example/chain" }),
    ] {
        assert_ne!(header(bad.clone()), Told::Accepted, "{bad}");
    }
    let unsigned = format!("{}.{}.", encoded(&json!({ "alg": "none" })), encoded(&good()));
    assert_ne!(told(&issuer, &unsigned), Told::Accepted);
    let text = signed(&good());
    for at in 0..text.len() {
        let mut forged = text.clone().into_bytes();
        forged[at] = if forged[at] == b'A' { b'B' } else { b'A' };
        let forged = String::from_utf8(forged).unwrap();
        // The last letter has bits that say nothing.
        if at + 1 < text.len() {
            assert_ne!(told(&issuer, &forged), Told::Accepted, "changed at {at}");
        }
    }
    assert_eq!(told(&issuer, &token(&json!({ "alg": "HS256" }), &good(), by_secret(b"another"))), Told::Rejected);
}

#[test]
fn i12_public_keys_check_their_own_signatures_and_are_no_secrets() {
    let random = rand::SystemRandom::new();
    let made = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
    let ed = Ed25519KeyPair::from_pkcs8(made.as_ref()).unwrap();
    let x = URL_SAFE_NO_PAD.encode(ed.public_key().as_ref());
    let jwk = json!({ "kty": "OKP", "crv": "Ed25519", "x": x }).to_string();
    let issuer = Issuer::new(settings("EdDSA"), &KeyMaterial::Public(jwk.as_bytes())).unwrap();
    let by_ed = |message: &[u8]| ed.sign(message).as_ref().to_vec();
    assert_eq!(told(&issuer, &token(&json!({ "alg": "EdDSA" }), &good(), by_ed)), Told::Accepted);
    // The classic: the public key as the secret of HS256.
    for key in [ed.public_key().as_ref(), jwk.as_bytes()] {
        let forged = token(&json!({ "alg": "HS256" }), &good(), by_secret(key));
        assert_eq!(told(&issuer, &forged), Told::Rejected);
    }
    let made = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
    let ec = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, made.as_ref(), &random).unwrap();
    let (x, y) = ec.public_key().as_ref()[1..].split_at(32);
    let (x, y) = (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y));
    let jwk = json!({ "kty": "EC", "crv": "P-256", "x": x, "y": y, "use": "sig", "alg": "ES256" }).to_string();
    let es256 = Issuer::new(settings("ES256"), &KeyMaterial::Public(jwk.as_bytes())).unwrap();
    let by_ec = |message: &[u8]| ec.sign(&random, message).unwrap().as_ref().to_vec();
    assert_eq!(told(&es256, &token(&json!({ "alg": "ES256" }), &good(), by_ec)), Told::Accepted);
    assert_eq!(
        told(&es256, &token(&json!({ "alg": "ES256" }), &good(), |_| vec![0; 64])),
        Told::Rejected,
        "CVE-2022-21449"
    );
    assert_eq!(told(&es256, &token(&json!({ "alg": "EdDSA" }), &good(), by_ed)), Told::Rejected);
}

#[test]
fn i12_a_key_that_does_not_fit_is_told_at_the_start() {
    let new = |algorithm: &str, key: KeyMaterial<'_>| Issuer::new(settings(algorithm), &key).err();
    let ed = br#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    assert_eq!(new("EdDSA", KeyMaterial::Public(ed)), None, "the control: RFC 8037, A.2");
    assert_eq!(new("none", KeyMaterial::Secret(SECRET)), Some(IssuerError::Algorithm));
    assert_eq!(new("ES512", KeyMaterial::Public(ed)), Some(IssuerError::Algorithm));
    assert_eq!(new("HS256", KeyMaterial::Secret(b"short")), Some(IssuerError::Short));
    assert_eq!(new("HS512", KeyMaterial::Secret(SECRET)), Some(IssuerError::Short));
    assert_eq!(new("HS256", KeyMaterial::Public(ed)), Some(IssuerError::Kind));
    assert_eq!(new("RS256", KeyMaterial::Secret(SECRET)), Some(IssuerError::Kind));
    for bad in [
        &b"garbage"[..],
        br#"{"kty":"OKP","crv":"Ed25519","x":"AAAA"}"#,
        br#"{"kty":"OKP","crv":"X25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
        br#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo","use":"enc"}"#,
        br#"{"kty":"EC","crv":"P-521","x":"AA","y":"AA"}"#,
        b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    ] {
        assert_eq!(new("EdDSA", KeyMaterial::Public(bad)), Some(IssuerError::Key), "{}", String::from_utf8_lossy(bad));
    }
    assert_eq!(new("ES256", KeyMaterial::Public(ed)), Some(IssuerError::Key), "another curve");
}

#[test]
fn i12_claims_become_an_account_a_user_and_a_role() {
    let mapped = IssuerSettings {
        account: AccountSource::Claim("org".to_owned()),
        user_claim: "email".to_owned(),
        role_claim: Some("role".to_owned()),
        subjects: vec!["repo:acme/*:ref:refs/heads/main".to_owned(), "ci-*".to_owned()],
        ..settings("HS256")
    };
    let issuer = Issuer::new(mapped, &KeyMaterial::Secret(SECRET)).unwrap();
    let claims = |change: Value| {
        let mut claims = good();
        let base = json!({ "org": "globex", "email": "bob@globex.example", "role": "viewer", "sub": "ci-7" });
        for (name, value) in base.as_object().unwrap().iter().chain(change.as_object().unwrap()) {
            claims[name] = value.clone();
        }
        signed(&claims)
    };
    let read = read(&issuer, &claims(json!({}))).unwrap_or(None).unwrap();
    assert_eq!((read.account.as_str(), read.user.as_str()), ("globex", "bob@globex.example"));
    assert_eq!(read.role, Some(Role::Viewer));
    assert_eq!(told(&issuer, &claims(json!({ "sub": "repo:acme/site:ref:refs/heads/main" }))), Told::Accepted);
    for change in [
        json!({ "org": null }),
        json!({ "org": "../acme" }),
        json!({ "email": 7 }),
        json!({ "role": "root" }),
        json!({ "role": null }),
        json!({ "sub": "xci-7" }),
        json!({ "sub": "repo:acme/site:ref:refs/heads/main2" }),
        json!({ "sub": "repo:evil/site:ref:refs/heads/main" }),
    ] {
        assert_eq!(told(&issuer, &claims(change.clone())), Told::Rejected, "{change}");
    }
}

#[test]
fn patterns_fit_what_they_say() {
    for (pattern, text, fit) in [
        ("a", "a", true),
        ("a", "ab", false),
        ("*", "", true),
        ("a*", "a", true),
        ("a*b", "ab", true),
        ("a*b", "aab", true),
        ("a*b", "abc", false),
        ("a*b*c", "a-b-b-c", true),
        ("a*b*c", "a-c-b", false),
        ("ab*ba", "aba", false),
    ] {
        assert_eq!(fits(pattern, text), fit, "{pattern} {text}");
    }
}

/// A key as Wycheproof writes it, for an algorithm.
fn key_of(algorithm: Algorithm, jwk: &Value) -> Option<DecodingKey> {
    if jwk["kty"] == "oct" {
        let secret = URL_SAFE_NO_PAD.decode(jwk["k"].as_str()?).ok()?;
        return read_key(algorithm, &KeyMaterial::Secret(&secret)).ok();
    }
    read_key(algorithm, &KeyMaterial::Public(jwk.to_string().as_bytes())).ok()
}

/// Whether a JWS of any content is proven, as a token of that key's issuer would be.
fn proves(algorithm: Algorithm, key: &DecodingKey, text: &str) -> bool {
    let Some((message, signature)) = text.rsplit_once('.') else { return false };
    // Its content is none of a token's, but must be encoded as one.
    let content = message.split('.').nth(1).is_some_and(|content| URL_SAFE_NO_PAD.decode(content).is_ok());
    let fits = content && text.split('.').count() == 3 && header_fits(text);
    fits && decode_header(text).is_ok_and(|header| header.alg == algorithm)
        && crypto::verify(signature, message.as_bytes(), key, algorithm).unwrap_or(false)
}

#[test]
fn i12_wycheproofs_signatures_are_judged_as_it_says() {
    let _ = hs256();
    let set = TestSet::load(TestName::JsonWebSignature).unwrap();
    let (mut accepted, mut refused, mut left_out) = (0, 0, 0);
    for group in &set.test_groups {
        let Some(jwk) = group.public_key.as_ref().or(group.private_key.as_ref()) else { continue };
        for test in &group.tests {
            let Some(text) = test.jws.as_ref().and_then(Value::as_str) else {
                left_out += 1; // the JSON form, which no token has
                continue;
            };
            // The issuer's algorithm is what its key says, else what a right token of the group says.
            let named = jwk["alg"].as_str().and_then(|name| name.parse::<Algorithm>().ok());
            let of_group = || {
                let right = group.tests.iter().find(|test| test.result == TestResult::Valid)?;
                decode_header(right.jws.as_ref()?.as_str()?).ok().map(|header| header.alg)
            };
            let Some(algorithm) = named.or_else(of_group) else {
                left_out += 1; // ES512 and the like
                continue;
            };
            let proven = key_of(algorithm, jwk).is_some_and(|key| proves(algorithm, &key, text));
            if jwk["kty"] != "oct" {
                let set = json!({ "keys": [{ "kty": "unknown" }, jwk] }).to_string();
                let published = keys::read(set.as_bytes(), Some(algorithm)).unwrap();
                let by_set = published.iter().any(|found| proves(found.algorithm, &found.key, text));
                assert_eq!(by_set, proven, "{}: a key proves as much in a set", test.tc_id);
            }
            match test.result {
                TestResult::Invalid => {
                    // Two of them are, letter for letter, a valid one of the same group.
                    let erratum =
                        group.tests.iter().any(|other| other.result == TestResult::Valid && other.jws == test.jws);
                    assert!(!proven || erratum, "{}: {}", test.tc_id, test.comment);
                    refused += 1;
                }
                // Short secrets, for one, are refused here.
                TestResult::Valid if proven => accepted += 1,
                TestResult::Valid | TestResult::Acceptable => left_out += 1,
            }
        }
    }
    assert!(accepted >= 30 && refused >= 300 && left_out <= 40, "{accepted} {refused} {left_out}");
}

#[test]
fn i12_the_examples_of_rfc_7515_and_8037_are_proven() {
    let _ = hs256();
    let es256 = json!({ "kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0" });
    let a1 = json!({ "kty": "oct",
        "k": "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow" });
    let ed = json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" });
    let payload = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ";
    let hs = format!("eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.{payload}.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
    let es = format!(
        "eyJhbGciOiJFUzI1NiJ9.{payload}.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
    );
    let okp = "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg";
    for (algorithm, jwk, text) in
        [(Algorithm::HS256, a1, hs.as_str()), (Algorithm::ES256, es256, es.as_str()), (Algorithm::EdDSA, ed, okp)]
    {
        let key = key_of(algorithm, &jwk).unwrap();
        assert!(proves(algorithm, &key, text), "{algorithm:?}");
        let (message, signature) = text.rsplit_once('.').unwrap();
        assert!(!proves(algorithm, &key, &format!("{message}x.{signature}")), "{algorithm:?}");
    }
}

#[test]
fn i12_of_a_set_of_keys_what_cannot_be_used_is_left_out() {
    let _ = hs256();
    let ed = json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "ed" });
    let p256 = json!({ "kty": "EC", "crv": "P-256", "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
        "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0", "kid": "ec" });
    let rsa = |bits: usize| {
        let n = URL_SAFE_NO_PAD.encode([&[0xc1][..], &vec![0x55; bits / 8 - 1]].concat());
        json!({ "kty": "RSA", "n": n, "e": "AQAB", "kid": "rsa" })
    };
    let changed = |key: &Value, name: &str, value: Value| {
        let mut key = key.clone();
        key[name] = value;
        key
    };
    let usable = |key: &Value, wanted: Option<Algorithm>| {
        let set = json!({ "keys": [null, 7, {}, key] }).to_string();
        keys::read(set.as_bytes(), wanted).unwrap().pop().map(|found| found.algorithm)
    };
    for (key, algorithm) in [
        (ed.clone(), Algorithm::EdDSA),
        (p256.clone(), Algorithm::ES256),
        (rsa(2048), Algorithm::RS256),
        (changed(&rsa(3072), "alg", json!("PS384")), Algorithm::PS384),
        (changed(&ed, "use", json!("sig")), Algorithm::EdDSA),
        (changed(&p256, "key_ops", json!(["verify"])), Algorithm::ES256),
    ] {
        assert_eq!(usable(&key, None), Some(algorithm), "{key}");
        assert_eq!(usable(&key, Some(algorithm)), Some(algorithm), "{key}");
        assert_eq!(
            usable(&key, Some(Algorithm::RS512)).is_some(),
            key["kty"] == "RSA" && key["alg"].is_null(),
            "{key}"
        );
    }
    for key in [
        changed(&ed, "use", json!("enc")),
        changed(&ed, "crv", json!("X25519")),
        changed(&ed, "crv", json!("P-256")),
        changed(&ed, "x", json!("AAAA")),
        changed(&ed, "alg", json!("ES256")),
        changed(&ed, "kid", json!("k".repeat(2000))),
        changed(&p256, "crv", json!("P-521")),
        changed(&p256, "crv", json!("secp256k1")),
        changed(&p256, "key_ops", json!(["sign", "encrypt"])),
        changed(&rsa(2048), "alg", json!("HS256")),
        changed(&rsa(2048), "alg", json!("none")),
        changed(&rsa(2048), "alg", json!("RSA-OAEP")),
        rsa(1024),
        rsa(16384),
        json!({ "kty": "oct", "k": "c2VjcmV0IHNlY3JldCBzZWNyZXQgc2VjcmV0IHNlY3JldA", "alg": "HS256" }),
    ] {
        assert_eq!(usable(&key, None), None, "{key}");
        assert_eq!(usable(&key, Some(Algorithm::HS256)), None, "{key}");
    }
    for no_set in ["", "[]", "{}", r#"{"keys":7}"#, r#"{"keys":[],"keys":[]}"#] {
        assert!(keys::read(no_set.as_bytes(), None).is_none(), "{no_set}");
    }
    // By its name a key is chosen; a token that names none may be any one's.
    let both = keys::read(json!({ "keys": [ed, p256] }).to_string().as_bytes(), None).unwrap();
    let count = |kid: Option<&str>| keys::candidates(&both, kid).count();
    assert_eq!((count(Some("ed")), count(Some("other")), count(Some("")), count(None)), (1, 0, 0, 2));
}
