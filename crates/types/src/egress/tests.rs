//! Rules as people write them, and as nobody should.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn read(value: Value) -> Result<Egress, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

#[test]
fn g02_the_shapes_of_the_protocol_are_read_and_written_again() {
    for (written, kept) in [
        (json!("deny-all"), json!("deny-all")),
        (json!("allow-all"), json!("allow-all")),
        (json!({}), json!({ "allow": {} })),
        (
            json!({ "allow": ["Example.com", "*.npmjs.org"] }),
            json!({ "allow": { "example.com": [], "*.npmjs.org": [] } }),
        ),
        (
            json!({ "allow": { "github.com": [{ "transform": [{ "headers": { "Authorization": "Basic x:secret:gh" } }] }] } }),
            json!({ "allow": { "github.com": [{ "transform": [{ "headers": { "authorization": "Basic x:secret:gh" } }] }] } }),
        ),
        (
            json!({ "allow": { "a.example": [{ "match": { "path": { "startsWith": "/v1/" }, "method": ["GET"],
                "queryString": [{ "key": { "exact": "page" } }], "headers": [{ "value": { "regex": "a+" } }] } }] } }),
            json!({ "allow": { "a.example": [{ "match": { "path": { "startsWith": "/v1/" }, "method": ["GET"],
                "queryString": [{ "key": { "exact": "page" } }], "headers": [{ "value": { "regex": "a+" } }] } }] } }),
        ),
        (
            json!({ "allow": { "a.example": [{ "transform": [
                { "placeholder": { "env": "API_TOKEN", "value": "secret:t", "headers": ["X-Key"], "body": true } },
                { "queryString": { "key": "secret:k", "v": "2" } },
                { "placeholder": { "env": "OTHER", "value": "secret:o", "queryString": ["q"], "body": false } },
                { "sigv4": { "accessKey": "AKIDEXAMPLE", "secretKey": "secret:aws", "region": "eu-west-1",
                    "service": "s3" } }] }] } }),
            json!({ "allow": { "a.example": [{ "transform": [
                { "queryString": { "key": "secret:k", "v": "2" }, "sigv4": { "accessKey": "AKIDEXAMPLE",
                    "secretKey": "secret:aws", "region": "eu-west-1", "service": "s3" } },
                { "placeholder": { "env": "API_TOKEN", "value": "secret:t", "headers": ["x-key"], "body": true } },
                { "placeholder": { "env": "OTHER", "value": "secret:o", "queryString": ["q"] } }] }] } }),
        ),
        (
            json!({ "allow": { "a.example": [{ "forwardURL": "https://B.example:8443/base/" }] } }),
            json!({ "allow": { "a.example": [{ "forwardURL": "https://b.example:8443/base" }] } }),
        ),
        (
            json!({ "allow": ["*"], "subnets": { "deny": ["10.0.0.0/8"], "allow": ["fd00::/8"] } }),
            json!({ "allow": { "*": [] }, "subnets": { "deny": ["10.0.0.0/8"], "allow": ["fd00::/8"] } }),
        ),
    ] {
        let policy = read(written.clone()).unwrap_or_else(|error| panic!("{written}: {error}"));
        assert_eq!(serde_json::to_value(&policy).unwrap(), kept);
        assert_eq!(read(kept).unwrap(), policy, "what is kept is read as the same");
    }
}

#[test]
fn g02_a_rule_that_cannot_be_kept_is_refused_with_its_place() {
    let host = |rule: Value| json!({ "allow": { "a.example": [rule] } });
    let header = |name: &str, text: &str| host(json!({ "transform": [{ "headers": { name: text } }] }));
    let transform = |one: Value| host(json!({ "transform": [one] }));
    let placeholder =
        |env: &str, value: &str| transform(json!({ "placeholder": { "env": env, "value": value, "headers": ["x"] } }));
    let signed = |more: Value| {
        let keys = json!({ "accessKey": "secret:a", "secretKey": "secret:b", "region": "eu-west-1", "service": "s3" });
        host(json!({ "transform": [{ "sigv4": keys }, more] }))
    };
    for (written, says) in [
        (transform(json!({})), "`transform` has"),
        (transform(json!({ "query": { "a": "b" } })), "query"),
        (transform(json!({ "queryString": { "a b": "secret:a" } })), "parameter"),
        (transform(json!({ "queryString": { "a": "Bearer secret:a" } })), "nothing around it"),
        (transform(json!({ "queryString": { "a": "x\r\ny" } })), "printable"),
        (json!({ "allow": { "*": [{ "transform": [{ "queryString": { "x": "secret:a" } }] }] } }), "needs a host"),
        (placeholder("path", "secret:a"), "capital"),
        (placeholder("PATH", "secret:a"), "taken"),
        (placeholder("LD_PRELOAD", "secret:a"), "taken"),
        (placeholder("HTTPS_PROXY", "secret:a"), "taken"),
        (placeholder("1A", "secret:a"), "capital"),
        (placeholder("TOKEN", "plain"), "no rule"),
        (transform(json!({ "placeholder": { "env": "A", "value": "secret:a" } })), "say where"),
        (transform(json!({ "placeholder": { "env": "A", "value": "secret:a", "headers": ["host"] } })), "carried"),
        (
            transform(json!({ "headers": { "x": "1" },
                "placeholder": { "env": "A", "value": "secret:a", "headers": ["X"] } })),
            "has a placeholder",
        ),
        (signed(json!({ "headers": { "Authorization": "x" } })), "signature"),
        (signed(json!({ "headers": { "x-amz-date": "x" } })), "signature"),
        (
            signed(json!({ "sigv4": { "accessKey": "A", "secretKey": "secret:b", "region": "r", "service": "s" } })),
            "one signature",
        ),
        (
            transform(json!({ "sigv4": { "accessKey": "A", "secretKey": "b", "region": "r", "service": "s" } })),
            "no rule",
        ),
        (
            transform(
                json!({ "sigv4": { "accessKey": "A", "secretKey": "secret:b", "region": "r/", "service": "s" } }),
            ),
            "small letters",
        ),
        (json!("allow"), "egress"),
        (json!(true), "egress"),
        (json!({ "allowed": [] }), "allowed"),
        (json!({ "allow": ["10.0.0.1"] }), "subnets"),
        (json!({ "allow": ["a.example:https"] }), "port"),
        (json!({ "allow": ["a.example", "A.example."] }), "twice"),
        (json!({ "allow": { "*": [{ "transform": [{ "headers": { "x": "secret:a" } }] }] } }), "needs a host"),
        (json!({ "subnets": { "allow": ["10.0.0.7/8"] } }), "10.0.0.0/8"),
        (json!({ "subnets": { "allow": ["10.0.0.7"] } }), "length"),
        (header("host", "a"), "carried"),
        (header("Transfer-Encoding", "chunked"), "carried"),
        (header("a b", "a"), "no name"),
        (header("x", "a\r\nb: c"), "printable"),
        (header("x", "token=secret:a"), "write `secret:NAME`"),
        (header("x", "secret:"), "secret"),
        (host(json!({ "transform": [{ "headers": { "x": "1" } }], "forwardURL": "https://b.example" })), "not both"),
        (host(json!({ "transform": [{ "headers": { "x": "1" } }, { "headers": { "X": "2" } }] })), "twice"),
        (host(json!({ "forwardURL": "http://b.example" })), "https"),
        (host(json!({ "forwardURL": "https://u@b.example" })), "letters"),
        (host(json!({ "forwardURL": "https://b.example/../x" })), "forwardURL"),
        (host(json!({ "match": { "path": { "exact": "/a", "startsWith": "/" } } })), "a.example"),
        (host(json!({ "match": { "path": { "regex": "(" } } })), "regex"),
        (host(json!({ "match": { "path": { "regex": "a)|(?:b" } } })), "regex"),
        (host(json!({ "match": { "path": { "regex": "(a{1000}){1000}" } } })), "size"),
        (host(json!({ "match": { "method": ["get"] } })), "method"),
        (host(json!({ "mitm": true })), "mitm"),
    ] {
        let error = read(written.clone()).expect_err(&written.to_string());
        assert!(error.contains(says), "{written}: {error}");
    }
}

#[test]
fn g04_an_expression_describes_all_of_a_text() {
    let matcher: Matcher = serde_json::from_value(json!({ "regex": "/a|/b" })).unwrap();
    for (text, fits) in
        [("/a", true), ("/b", true), ("/ab", false), ("/a/../b", false), ("x/b", false), ("/b\n", false)]
    {
        assert_eq!(matcher.fits(text), fits, "{text:?}");
    }
}

#[test]
fn g04_the_secrets_of_a_policy_are_known_before_it_is_used() {
    let policy = read(json!({ "allow": {
        "a.example": [{ "transform": [{ "headers": { "x": "secret:one", "y": "Bearer secret:two" } }] }],
        "b.example": [{ "transform": [{ "headers": { "x": "plain", "y": "Basic u:secret:one" } }] }],
        "c.example": [{ "transform": [
            { "queryString": { "k": "secret:three" } },
            { "placeholder": { "env": "T", "value": "secret:four", "body": true } },
            { "sigv4": { "accessKey": "secret:five", "secretKey": "secret:six", "sessionToken": "secret:seven",
                "region": "r", "service": "s" } } ] }],
    } }));
    let policy = policy.unwrap();
    assert_eq!(policy.variables().into_iter().map(VariableName::as_str).collect::<Vec<_>>(), ["T"]);
    let names: Vec<String> = policy.secrets().map(ToString::to_string).collect();
    assert_eq!(names, ["one", "two", "one", "three", "five", "six", "seven", "four"]);
}

proptest! {
    #[test]
    fn g02_any_json_is_survived_and_what_is_read_is_kept(text in "[\\x20-\\x7e]{0,60}", n in 0usize..6) {
        let written = match n {
            0 => json!({ "allow": [text] }),
            1 => json!({ "allow": { text: [] } }),
            2 => json!({ "allow": { "a.example": [{ "forwardURL": text }] } }),
            3 => json!({ "allow": { "a.example": [{ "match": { "path": { "regex": text } } }] } }),
            4 => json!({ "allow": { "a.example": [{ "transform": [{ "headers": { "x": text } }] }] } }),
            _ => json!({ "subnets": { "deny": [text] } }),
        };
        if let Ok(policy) = read(written) {
            prop_assert_eq!(read(serde_json::to_value(&policy).unwrap()).unwrap(), policy);
        }
    }
}
