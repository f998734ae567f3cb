//! Signature Version 4, as AWS documents it for requests with an `Authorization` header.
//!
//! What is signed is what is sent: the query goes out in the spelling that was signed, and whatever the sandbox signed
//! itself, with whatever it took for a key, is gone.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use bailiwick_types::egress::SigV4;
use hmac::{Hmac, Mac};
use http::header::{AUTHORIZATION, CONTENT_TYPE, DATE, HeaderName};
use http::{HeaderMap, HeaderValue};
use sha2::{Digest, Sha256};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use crate::query;
use crate::refused::Refused;

const ALGORITHM: &str = "AWS4-HMAC-SHA256";
const AMZ_DATE: HeaderName = HeaderName::from_static("x-amz-date");
const AMZ_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
const AMZ_CONTENT: HeaderName = HeaderName::from_static("x-amz-content-sha256");
/// The family of services whose paths are encoded once, and which take bodies whose hash is not signed.
const S3: &str = "s3";
/// A body whose hash is not signed: TLS keeps it whole, and it need not be held here.
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
/// The same in chunks, with a checksum after them.
const UNSIGNED_TRAILER: &str = "STREAMING-UNSIGNED-PAYLOAD-TRAILER";
/// Parameters of a request that carries its signature in the query.
const IN_QUERY: [&str; 7] = [
    "x-amz-algorithm",
    "x-amz-credential",
    "x-amz-date",
    "x-amz-expires",
    "x-amz-signedheaders",
    "x-amz-signature",
    "x-amz-security-token",
];

/// What signs.
pub(crate) struct Keys<'k> {
    pub(crate) access_key: &'k str,
    pub(crate) secret_key: &'k str,
    pub(crate) session_token: Option<&'k str>,
}

/// A request that is to be signed.
pub(crate) struct Unsigned<'r> {
    pub(crate) method: &'r str,
    /// As it goes out: `host`, or `host:port`.
    pub(crate) authority: &'r str,
    /// As it goes out, without the query.
    pub(crate) path: &'r str,
    /// As the sandbox wrote it.
    pub(crate) query: &'r str,
    /// The body, where it has to be signed ([`wants_body`]).
    pub(crate) body: &'r [u8],
}

/// Whether a body has to be here whole before it can be signed.
pub(crate) fn wants_body(rule: &SigV4) -> bool {
    !rule.service.as_str().starts_with(S3)
}

/// Signs a request at this moment. Gives the query as it has to go out.
///
/// # Errors
/// [`Refused::Request`] for a body that the sandbox has signed itself, chunk by chunk, or a text that cannot be signed;
/// [`Refused::Secret`] for a key that cannot stand in a header.
pub(crate) fn sign(
    rule: &SigV4,
    keys: &Keys<'_>,
    request: &Unsigned<'_>,
    headers: &mut HeaderMap,
) -> Result<String, Refused> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_err(|_| Refused::Request)?;
    let now = i64::try_from(now.as_secs()).ok().and_then(|now| OffsetDateTime::from_unix_timestamp(now).ok());
    sign_at(now.ok_or(Refused::Request)?, rule, keys, request, headers)
}

fn sign_at(
    now: OffsetDateTime,
    rule: &SigV4,
    keys: &Keys<'_>,
    request: &Unsigned<'_>,
    headers: &mut HeaderMap,
) -> Result<String, Refused> {
    let (region, service) = (rule.region.as_str(), rule.service.as_str());
    let day = format!("{:04}{:02}{:02}", now.year(), u8::from(now.month()), now.day());
    let moment = format!("{day}T{:02}{:02}{:02}Z", now.hour(), now.minute(), now.second());
    for name in [AUTHORIZATION, DATE, AMZ_DATE, AMZ_TOKEN] {
        headers.remove(name);
    }
    let content = content(service, request.body, headers)?;
    let secret = |text: &str| {
        let mut value = HeaderValue::from_str(text).map_err(|_| Refused::Secret)?;
        value.set_sensitive(true);
        Ok::<_, Refused>(value)
    };
    headers.insert(AMZ_DATE, HeaderValue::from_str(&moment).map_err(|_| Refused::Request)?);
    if let Some(token) = keys.session_token {
        headers.insert(AMZ_TOKEN, secret(token)?);
    }
    let query = canonical_query(request.query);
    let (signed, lines) = canonical_headers(request.authority, headers)?;
    let path = canonical_path(service, request.path);
    let whole = Zeroizing::new(format!("{}\n{path}\n{query}\n{}\n{signed}\n{content}", request.method, *lines));
    let scope = format!("{day}/{region}/{service}/aws4_request");
    let to_sign = format!("{ALGORITHM}\n{moment}\n{scope}\n{}", hash(whole.as_bytes()));
    let mut key = Zeroizing::new(format!("AWS4{}", keys.secret_key).into_bytes());
    for word in [day.as_str(), region, service, "aws4_request"] {
        key = Zeroizing::new(mac(&key, word)?);
    }
    let signature = hex(&mac(&key, &to_sign)?);
    let credential = keys.access_key;
    let text = format!("{ALGORITHM} Credential={credential}/{scope}, SignedHeaders={signed}, Signature={signature}");
    headers.insert(AUTHORIZATION, secret(&text)?);
    Ok(query)
}

/// What is signed in the place of the body.
fn content(service: &str, body: &[u8], headers: &mut HeaderMap) -> Result<String, Refused> {
    if !service.starts_with(S3) {
        headers.remove(AMZ_CONTENT);
        return Ok(hash(body));
    }
    let mut all = headers.get_all(AMZ_CONTENT).iter();
    let content = match (all.next(), all.next()) {
        (None, _) => UNSIGNED.to_owned(),
        (Some(one), None) => one.to_str().map_err(|_| Refused::Request)?.to_owned(),
        (Some(_), Some(_)) => return Err(Refused::Request),
    };
    let digits = |text: &str| text.len() == 64 && text.bytes().all(|letter| letter.is_ascii_hexdigit());
    if content != UNSIGNED && content != UNSIGNED_TRAILER && !digits(&content) {
        return Err(Refused::Request);
    }
    headers.insert(AMZ_CONTENT, HeaderValue::from_str(&content).map_err(|_| Refused::Request)?);
    Ok(content)
}

/// The headers that are signed, as a list of names and as lines: those that say what a request is about.
fn canonical_headers(authority: &str, headers: &HeaderMap) -> Result<(String, Zeroizing<String>), Refused> {
    let mut all: BTreeMap<&str, String> = BTreeMap::from([("host", authority.to_owned())]);
    for name in headers.keys().filter(|name| **name == CONTENT_TYPE || name.as_str().starts_with("x-amz-")) {
        let mut values = Vec::new();
        for value in headers.get_all(name) {
            let text = value.to_str().map_err(|_| Refused::Request)?;
            values.push(text.split_ascii_whitespace().collect::<Vec<_>>().join(" "));
        }
        all.insert(name.as_str(), values.join(","));
    }
    let names = all.keys().copied().collect::<Vec<_>>().join(";");
    let lines: String = all.iter().map(|(name, text)| format!("{name}:{text}\n")).collect();
    Ok((names, Zeroizing::new(lines)))
}

/// Parameters in one spelling, in order, without those of another signature.
fn canonical_query(query: &str) -> String {
    let mut all: Vec<(String, String)> = form_urlencoded::parse(query.as_bytes())
        .filter(|(name, _)| !IN_QUERY.contains(&name.to_ascii_lowercase().as_str()))
        .map(|(name, value)| (query::escaped(&name), query::escaped(&value)))
        .collect();
    all.sort();
    all.into_iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// The path: that of S3 encoded once, whatever is encoded in it, that of others as it is and once more.
fn canonical_path(service: &str, path: &str) -> String {
    let bytes: Vec<u8> = if service.starts_with(S3) { query::unescaped(path) } else { path.as_bytes().to_vec() };
    let escaped = bytes.iter().map(|byte| match byte {
        b'/' => "/".to_owned(),
        byte => query::escaped_byte(*byte),
    });
    escaped.collect()
}

fn mac(key: &[u8], text: &str) -> Result<Vec<u8>, Refused> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).map_err(|_| Refused::Secret)?;
    mac.update(text.as_bytes());
    Ok(mac.finalize().into_bytes().to_vec())
}

fn hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    /// The example credentials of AWS's documentation, which are nobody's.
    const KEY: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

    struct Case {
        scope: (&'static str, &'static str),
        asked: (&'static str, &'static str, &'static str),
        headers: &'static [(&'static str, &'static str)],
        body: &'static str,
        token: Option<&'static str>,
    }

    fn signed(case: &Case) -> (String, HeaderMap) {
        let (region, service) = case.scope;
        let rule = format!(
            r#"{{ "accessKey": "AKIDEXAMPLE", "secretKey": "secret:k", "region": "{region}", "service": "{service}" }}"#
        );
        let rule: SigV4 = serde_json::from_str(&rule).unwrap();
        let (method, authority, target) = case.asked;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let request = Unsigned { method, authority, path, query, body: case.body.as_bytes() };
        let mut headers = HeaderMap::new();
        for (name, value) in case.headers {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        let keys = Keys { access_key: "AKIDEXAMPLE", secret_key: KEY, session_token: case.token };
        // 2015-08-30T12:36:00Z, the moment of AWS's examples.
        let now = OffsetDateTime::from_unix_timestamp(1_440_938_160).unwrap();
        let query = sign_at(now, &rule, &keys, &request, &mut headers).unwrap();
        (query, headers)
    }

    fn case(scope: (&'static str, &'static str), asked: (&'static str, &'static str, &'static str)) -> Case {
        Case { scope, asked, headers: &[], body: "", token: None }
    }

    const SUITE: (&str, &str) = ("us-east-1", "service");

    #[test]
    fn g04_signatures_are_those_of_the_published_examples_and_of_another_implementation() {
        let get = |target| ("GET", "example.amazonaws.com", target);
        for (case, names, signature) in [
            // The published suite: get-vanilla, get-vanilla-query-order-key-case, post-vanilla.
            (
                case(SUITE, get("/")),
                "host;x-amz-date",
                "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31",
            ),
            (
                case(SUITE, get("/?Param2=value2&Param1=value1")),
                "host;x-amz-date",
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            (
                case(SUITE, ("POST", "example.amazonaws.com", "/")),
                "host;x-amz-date",
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
            // What botocore 1.43 says of the same.
            (
                Case {
                    headers: &[("content-type", "application/json"), ("x-amz-target", "Svc.Op  two")],
                    body: r#"{"a":1}"#,
                    ..case(
                        ("eu-west-1", "lambda"),
                        (
                            "POST",
                            "example.amazonaws.com",
                            "/2015-03-31/functions/f%3A1/invocations?Qualifier=%24LATEST&b=&a=x%20y",
                        ),
                    )
                },
                "content-type;host;x-amz-date;x-amz-target",
                "a326fa93a44c3f8f0d4d17cbab8da6fe8884aeb0032d991f41fb334fdfd00c7d",
            ),
            (
                Case {
                    headers: &[
                        ("x-amz-acl", "private"),
                        ("x-amz-content-sha256", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
                    ],
                    ..case(("eu-west-1", "s3"), ("PUT", "bucket.s3.amazonaws.com", "/a%20b/c%2Bd%3De"))
                },
                "host;x-amz-acl;x-amz-content-sha256;x-amz-date",
                "1412de0541326b18ceba16ca6a223984be7d4a58352cabf3a98824d06eb532a3",
            ),
            (
                Case {
                    headers: &[("content-type", "application/x-www-form-urlencoded; charset=utf-8")],
                    body: "Action=GetCallerIdentity&Version=2011-06-15",
                    token: Some("session-token-value/=="),
                    ..case(("us-east-1", "sts"), ("POST", "sts.amazonaws.com", "/"))
                },
                "content-type;host;x-amz-date;x-amz-security-token",
                "25a356efb3bfd36fa1ba90dc6d159805806257dffc6d0d10ded613bdca4b4f2c",
            ),
        ] {
            let (region, service) = case.scope;
            let (_, headers) = signed(&case);
            let wanted = format!(
                "{ALGORITHM} Credential=AKIDEXAMPLE/20150830/{region}/{service}/aws4_request, \
                 SignedHeaders={names}, Signature={signature}"
            );
            assert_eq!(headers[AUTHORIZATION], wanted.as_str(), "{:?}", case.asked);
            assert_eq!(headers[AMZ_DATE], "20150830T123600Z");
        }
    }

    #[test]
    fn g04_what_the_sandbox_signed_itself_is_gone() {
        let plain = case(SUITE, ("GET", "example.amazonaws.com", "/?a=1"));
        let (query, headers) = signed(&plain);
        let own = Case {
            asked: ("GET", "example.amazonaws.com", "/?X-Amz-Signature=00&a=1&x%2Damz-credential=ME&X-Amz-Date=1"),
            headers: &[
                ("authorization", "AWS4-HMAC-SHA256 Credential=ME"),
                ("authorization", "Basic bWU6bWU="),
                ("x-amz-date", "19700101T000000Z"),
                ("x-amz-security-token", "mine"),
                ("date", "Thu, 01 Jan 1970 00:00:00 GMT"),
            ],
            ..case(SUITE, plain.asked)
        };
        assert_eq!((query.as_str(), signed(&own)), ("a=1", ("a=1".to_owned(), headers)));
        // What goes out is what was signed, however it was spelled.
        let spelled = case(SUITE, ("GET", "example.amazonaws.com", "/?b=%7e&a=x+y%2f&c"));
        assert_eq!(signed(&spelled).0, "a=x%20y%2F&b=~&c=");
    }

    #[test]
    fn g04_a_body_that_the_sandbox_signed_in_chunks_is_not_signed_again() {
        let rule: SigV4 = serde_json::from_str(
            r#"{ "accessKey": "A", "secretKey": "secret:k", "region": "eu-west-1", "service": "s3" }"#,
        )
        .unwrap();
        let request = Unsigned { method: "PUT", authority: "b.s3.amazonaws.com", path: "/k", query: "", body: b"" };
        let keys = Keys { access_key: "A", secret_key: KEY, session_token: None };
        let with = |text: &'static str| {
            let mut headers = HeaderMap::from_iter([(AMZ_CONTENT, HeaderValue::from_static(text))]);
            sign(&rule, &keys, &request, &mut headers).map(|_| headers[AMZ_CONTENT].clone())
        };
        assert_eq!(with("STREAMING-AWS4-HMAC-SHA256-PAYLOAD"), Err(Refused::Request));
        assert_eq!(with("nonsense"), Err(Refused::Request));
        for text in [UNSIGNED, UNSIGNED_TRAILER] {
            assert_eq!(with(text).unwrap(), text);
        }
        let mut none = HeaderMap::new();
        sign(&rule, &keys, &request, &mut none).unwrap();
        assert_eq!(none[AMZ_CONTENT], UNSIGNED);
    }
}
