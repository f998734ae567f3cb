//! Hosts, addresses and requests under policies as people write them.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn policy(written: Value) -> Policy {
    // An operator who lets everything through, inside as well.
    beneath(written, json!({ "allow": ["*", "*:22", "*:8443"], "subnets": { "allow": ["0.0.0.0/0", "::/0"] } }))
}

fn beneath(own: Value, ceiling: Value) -> Policy {
    Policy::new(serde_json::from_value(own).unwrap(), serde_json::from_value(ceiling).unwrap())
}

#[test]
fn g02_an_agent_reaches_no_more_than_the_operator_lets_any_agent_reach() {
    let own = json!({ "allow": ["*", "a.example:8443", "api.example"], "subnets": { "allow": ["10.0.0.0/8"] } });
    let rules = json!([{ "match": { "method": ["GET"] } }]);
    let ceiling = json!({ "allow": { "*.example": [], "api.example": rules },
        "subnets": { "allow": ["10.1.0.0/16"], "deny": ["10.1.9.0/24"] } });
    let policy = beneath(own.clone(), ceiling);
    for (name, port, may) in
        [("a.example", 443, true), ("a.example", 8443, false), ("b.test", 443, false), ("api.example", 443, true)]
    {
        assert_eq!(policy.host(&host(name), port).is_ok(), may, "{name}:{port}");
    }
    assert!(policy.knows(&host("a.example")) && !policy.knows(&host("b.test")));
    for (address, refused) in [
        ("10.1.0.1", None),
        ("10.2.0.1", Some(Refused::NotPublic)),
        ("10.1.9.1", Some(Refused::Subnet)),
        ("1.1.1.1", None),
    ] {
        assert_eq!(policy.address(address.parse().unwrap()).err(), refused, "{address}");
    }
    // The ceiling's rules choose: what it wants looked into is, and its own methods hold.
    let passage = policy.host(&host("api.example"), 443).unwrap();
    let asked = |method| Request { method, path: "/", query: &[], headers: &[] };
    assert_eq!(passage.depth(), Depth::Requests);
    assert!(passage.request(&asked("GET")).is_ok());
    assert_eq!(passage.request(&asked("POST")).err(), Some(Refused::Rule));
    // A rule that sends requests elsewhere sends them where agents may go.
    assert!(policy.forward(&host("a.example"), 443).is_ok() && policy.forward(&host("b.test"), 443).is_err());
    assert!(policy.forward(&host("api.example"), 443).is_err(), "there the ceiling has rules");
    // "allow-all" is what is public; its control is the same agent without a ceiling of names.
    let public = beneath(own.clone(), json!("allow-all"));
    assert!(public.host(&host("b.test"), 443).is_ok() && public.address("10.1.0.1".parse().unwrap()).is_err());
    let nothing = beneath(own, json!("deny-all"));
    assert!(nothing.host(&host("a.example"), 443).is_err() && !nothing.knows(&host("a.example")));
}

#[test]
fn g04_a_secret_is_for_the_hosts_whose_rules_name_it_and_for_no_others() {
    let with = |name: &str| json!([{ "transform": [{ "headers": { "x": format!("Bearer secret:{name}") } }] }]);
    let own = json!({ "allow": {
        "*.example": with("wide"), "api.example": with("narrow"), "open.example": [],
        "db.example:8443": with("port"), "out.test": with("wide"),
    } });
    let policy = beneath(own.clone(), json!({ "allow": ["*.example", "*.example:8443"] }));
    for (secret, to, gives) in [
        ("wide", "a.example", true),
        ("narrow", "api.example", true),
        ("port", "db.example", true),
        // The most specific destination counts, and no other.
        ("wide", "api.example", false),
        ("wide", "open.example", false),
        ("narrow", "a.example", false),
        ("wide", "db.example", true),
        ("port", "a.example", false),
        // Not beneath the ceiling, and in nobody's rules.
        ("wide", "out.test", false),
        ("wide", "b.test", false),
        ("other", "a.example", false),
    ] {
        assert_eq!(policy.gives(&secret.parse().unwrap(), &host(to)), gives, "{secret} {to}");
    }
    assert!(beneath(own, json!("allow-all")).gives(&"wide".parse().unwrap(), &host("out.test")), "the control");
}

fn host(text: &str) -> HostName {
    HostName::parse(text).unwrap()
}

#[test]
fn g04_of_two_values_of_one_name_both_have_to_fit() {
    let policy = policy(json!({ "allow": { "a.example": [
        { "match": { "queryString": [{ "key": { "exact": "op" }, "value": { "exact": "read" } }] } }] } }));
    let passage = policy.host(&host("a.example"), 443).unwrap();
    let fits = |pairs: &[(&str, &str)]| {
        let query: Vec<_> = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        passage.request(&Request { method: "GET", path: "/", query: &query, headers: &[] }).is_ok()
    };
    assert!(fits(&[("op", "read")]) && fits(&[("x", "y"), ("op", "read")]));
    assert!(!fits(&[("op", "read"), ("op", "delete")]) && !fits(&[("x", "read")]) && !fits(&[]));
}

#[test]
fn g01_what_no_rule_names_does_not_leave() {
    let nothing = policy(json!("deny-all"));
    let some = policy(json!({ "allow": ["a.example", "*.b.example", "c.example:8443"] }));
    let all = policy(json!("allow-all"));
    for (name, port, may) in [
        ("a.example", 443, true),
        ("a.example", 80, true),
        ("a.example", 22, false),
        ("x.a.example", 443, false),
        ("b.example", 443, false),
        ("x.y.b.example", 443, true),
        ("c.example", 8443, true),
        ("c.example", 443, false),
        ("evil.example", 443, false),
    ] {
        assert_eq!(some.host(&host(name), port).is_ok(), may, "{name}:{port}");
        assert_eq!(nothing.host(&host(name), port).err(), Some(Refused::Host));
        assert!(all.host(&host(name), port).is_ok());
        assert!(!nothing.knows(&host(name)) && all.knows(&host(name)));
    }
    assert!(some.knows(&host("c.example")) && !some.knows(&host("b.example")));
}

#[test]
fn g02_subnets_that_are_denied_win_over_all() {
    let policy = policy(
        json!({ "allow": ["*"], "subnets": { "allow": ["10.0.0.0/8", "fd00::/8"], "deny": ["10.1.0.0/16", "93.184.0.0/16"] } }),
    );
    for (address, named, literal) in [
        ("1.1.1.1", None, Some(Refused::Literal)),
        ("93.184.215.14", Some(Refused::Subnet), Some(Refused::Subnet)),
        ("10.0.0.1", None, None),
        ("10.1.0.1", Some(Refused::Subnet), Some(Refused::Subnet)),
        ("::ffff:10.1.0.1", Some(Refused::Subnet), Some(Refused::Subnet)),
        ("64:ff9b::10.1.0.1", Some(Refused::Subnet), Some(Refused::Subnet)),
        ("::ffff:10.0.0.1", None, None),
        ("fd12::1", None, None),
        ("192.168.0.1", Some(Refused::NotPublic), Some(Refused::NotPublic)),
        ("127.0.0.1", Some(Refused::NotPublic), Some(Refused::NotPublic)),
    ] {
        let address: IpAddr = address.parse().unwrap();
        assert_eq!((policy.address(address).err(), policy.literal(address).err()), (named, literal), "{address}");
    }
}

#[test]
fn g03_where_clouds_keep_credentials_nobody_gets_by_any_rule() {
    let open = policy(json!({ "allow": ["*"], "subnets": { "allow": ["0.0.0.0/0", "::/0"] } }));
    for address in [
        "169.254.169.254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "fe80::1",
        "fd00:ec2::254",
        "0.0.0.0",
        "224.0.0.1",
    ] {
        assert_eq!(open.address(address.parse().unwrap()), Err(Refused::NotPublic), "{address}");
    }
    assert!(open.address("127.0.0.1".parse().unwrap()).is_ok(), "the control: named by the operator's own subnet");
}

fn asked<'a>(method: &'a str, path: &'a str, query: &'a [(String, String)]) -> Request<'a> {
    Request { method, path, query, headers: &[] }
}

#[test]
fn g04_of_the_rules_of_a_host_the_first_that_fits_holds_and_no_other_hosts() {
    let policy = policy(json!({ "allow": {
        "a.example": [
            { "match": { "path": { "startsWith": "/v1/" }, "method": ["GET", "HEAD"] }, "transform": [{ "headers": { "x": "secret:a" } }] },
            { "match": { "path": { "exact": "/login" }, "queryString": [{ "key": { "exact": "page" }, "value": { "regex": "[0-9]+" } }] } },
        ],
        "*.example": [],
        "*": [{ "match": { "method": ["GET"] } }],
    } }));
    let at = |name: &str| policy.host(&host(name), 443).unwrap();
    assert_eq!(at("a.example").depth(), Depth::Requests);
    assert_eq!(at("b.example").depth(), Depth::Tunnel);
    let page = [("page".to_owned(), "12".to_owned())];
    let word = [("page".to_owned(), "x".to_owned()), ("other".to_owned(), "12".to_owned())];
    for (request, says) in [
        (asked("GET", "/v1/x", &[]), Ok(true)),
        (asked("GET", "/%761/x", &[]), Ok(true)),
        (asked("POST", "/v1/x", &[]), Err(Refused::Rule)),
        (asked("GET", "/v1", &[]), Err(Refused::Rule)),
        (asked("GET", "/v1/../admin", &[]), Err(Refused::Path)),
        (asked("GET", "/v1/%2e%2e/admin", &[]), Err(Refused::Path)),
        (asked("POST", "/login", &page), Ok(false)),
        (asked("POST", "/login", &word), Err(Refused::Rule)),
        (asked("POST", "/login", &[]), Err(Refused::Rule)),
    ] {
        let said = at("a.example").request(&request).map(|act| matches!(act, RuleAct::Transform(_)));
        assert_eq!(said, says, "{} {}", request.method, request.path);
    }
    assert!(at("c.other").request(&asked("GET", "/", &[])).is_ok());
    assert_eq!(at("c.other").request(&asked("POST", "/", &[])).err(), Some(Refused::Rule));
    // What is not looked into passes.
    assert!(at("b.example").request(&asked("POST", "/v1/../x", &[])).is_ok());
}

proptest! {
    /// A name gets through only if it is an allowed one, or lies beneath one.
    #[test]
    fn g02_no_name_gets_through_that_is_not_named(text in "[a-z*.:0-9-]{1,30}") {
        let policy = policy(json!({ "allow": ["a.example", "*.b.example"] }));
        if let Ok(name) = HostName::parse(&text) {
            let may = name.as_str() == "a.example" || name.as_str().ends_with(".b.example");
            prop_assert_eq!(policy.host(&name, 443).is_ok(), may);
        }
    }
}
