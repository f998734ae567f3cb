//! Tokens of an OpenID provider at the doors, and people who sign in by it.

use std::sync::Arc;

use bailiwick_auth::authn::Step;
use bailiwick_auth::authn::jwt::{AccountSource, Issuer, IssuerSettings};
use bailiwick_auth::authn::oidc::SecondFactor;
use bailiwick_auth::authn::outbound::Outbound;
use bailiwick_outbound::{Client, Patience};
use serde_json::{Value, json};

use crate::provider::{CLIENT, Lie, Provider};
use crate::support::{PASSWORD, Server, Terms, reason, settings, taken, totp_code};

pub fn outbound() -> Arc<dyn Outbound> {
    let whole = std::time::Duration::from_millis(500);
    Arc::new(Client::new(Patience { connect: whole, whole }).unwrap())
}

pub fn issuer_settings(provider: &Provider, name: &str) -> IssuerSettings {
    IssuerSettings {
        name: name.to_owned(),
        algorithm: None,
        issuer: provider.url().to_owned(),
        audiences: vec![CLIENT.to_owned()],
        subjects: Vec::new(),
        account: AccountSource::Claim("org".to_owned()),
        user_claim: "sub".to_owned(),
        role_claim: None,
        clock_skew_seconds: 0,
        second_factor: SecondFactor::Own,
    }
}

fn discovered(provider: &Provider, name: &str) -> Issuer {
    Issuer::discovered(issuer_settings(provider, name), outbound()).unwrap()
}

async fn server(issuers: Vec<Issuer>) -> Server {
    let steps = [Step::ApiKey, Step::Session].into_iter().chain(issuers.iter().map(|issuer| issuer.step().clone()));
    Server::on(steps.collect(), settings(), Terms { issuers, ..Terms::default() }).await
}

async fn me(server: &Server, token: &str) -> (u16, Value) {
    let (status, body) =
        taken(server.request("GET", "/api/auth/me", "").bearer_auth(token).send().await.unwrap()).await;
    (status.as_u16(), body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i11_i12_a_providers_token_is_its_user_in_their_account_alone() {
    let (corp, other) = (Provider::start().await, Provider::start().await);
    let by_role = IssuerSettings { role_claim: Some("role".to_owned()), ..issuer_settings(&corp, "corp") };
    let by_role = Issuer::discovered(by_role, outbound()).unwrap();
    let fixed = AccountSource::Fixed("globex".parse().unwrap());
    let published =
        IssuerSettings { algorithm: Some("EdDSA".to_owned()), account: fixed, ..issuer_settings(&other, "ci") };
    let published = Issuer::publishing(published, format!("{}/keys", other.url()), outbound()).unwrap();
    let server = server(vec![by_role, published]).await;
    let people = server.people().await;
    assert_eq!((corp.counts().0, other.counts().1), (0, 0), "a start asks nobody");
    let with_role = |org: &str, user: &str, role: &str| {
        let mut claims = corp.claims(org, user);
        claims["role"] = json!(role);
        corp.token(&claims)
    };
    let alice = with_role("acme", "alice", "admin");
    let (status, told) = me(&server, &alice).await;
    assert_eq!((status, &told["username"], &told["account"]), (200, &json!("alice"), &json!("acme")), "{told}");
    let ask = async |path: &str, token: &str| {
        let (status, body) = taken(server.request("GET", path, "").bearer_auth(token).send().await.unwrap()).await;
        (status.as_u16(), reason(&body).to_owned())
    };
    assert_eq!(ask("/api/v1/admin/accounts/acme/users", &alice).await.0, 200);
    assert_eq!(ask("/api/v1/admin/accounts/globex/users", &alice).await.0, 404);
    // A claim narrows what the user is, and never widens it.
    for (user, role) in [("alice", "viewer"), ("carol", "admin")] {
        let told = ask("/api/v1/admin/accounts/acme/users", &with_role("acme", user, role)).await;
        assert_eq!(told, (403, "admin_only".to_owned()), "{user}");
    }
    // Of another issuer: skipped by the first step, taken by the second, in whose account its users are.
    let dave = other.token(&other.claims("acme", "dave"));
    let (status, told) = me(&server, &dave).await;
    assert_eq!((status, &told["account"]), (200, &json!("globex")), "{told}");
    // Each issuer's word is its own: with the other's name it is nobody's.
    let mut claims = corp.claims("acme", "alice");
    claims["iss"] = json!(other.url());
    assert_eq!(me(&server, &corp.token(&claims)).await.0, 401);
    claims["iss"] = json!([corp.url()]);
    assert_eq!(me(&server, &corp.token(&claims)).await.0, 401);
    let by_token =
        |event: &Value| event["credential"].as_str().unwrap().starts_with("oidc:corp:") && event["user"] == "alice";
    server.event("/api/v1/audit", &people.alice, by_token).await;
    assert_eq!((corp.counts().0, corp.counts().1, other.counts().1), (1, 1, 1), "the keys are kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i12_a_token_that_does_not_hold_is_nobody() {
    let corp = Provider::start().await;
    let server = server(vec![discovered(&corp, "corp")]).await;
    server.people().await;
    let good = corp.claims("acme", "alice");
    let head = json!({ "alg": "EdDSA", "kid": "first" });
    assert_eq!(me(&server, &corp.signed(&head, &good)).await.0, 200, "the control");
    let changed = |value: &Value, name: &str, to: Value| {
        let mut value = value.clone();
        value[name] = to;
        value
    };
    for (name, to) in [
        ("aud", json!("somebody else")),
        ("aud", Value::Null),
        ("exp", json!(1)),
        ("exp", Value::Null),
        ("iat", json!(99_999_999_999u64)),
        ("sub", json!("nobody")),
        ("org", json!("nowhere")),
        ("org", json!(["acme"])),
        ("events", json!({ "http://schemas.openid.net/event/backchannel-logout": {} })),
    ] {
        let wrong = changed(&good, name, to.clone());
        assert_eq!(me(&server, &corp.signed(&head, &wrong)).await.0, 401, "{name}: {to}");
    }
    for (name, to) in [
        ("alg", json!("none")),
        ("alg", json!("HS256")),
        ("alg", json!("ES256")),
        ("typ", json!("logout+jwt")),
        ("crit", json!(["exp"])),
        ("jwk", corp.claims("acme", "alice")),
        ("jku", json!("https://evil.example/keys")),
    ] {
        let wrong = changed(&head, name, to.clone());
        assert_eq!(me(&server, &corp.signed(&wrong, &good)).await.0, 401, "{name}: {to}");
    }
    for fits in [changed(&head, "typ", json!("at+jwt")), json!({ "alg": "EdDSA" })] {
        assert_eq!(me(&server, &corp.signed(&fits, &good)).await.0, 200, "{fits}");
    }
    // Whoever sends how many keys that nobody knows: the provider is asked no more.
    for n in 0..40 {
        let unknown = changed(&head, "kid", json!(format!("unknown-{n}")));
        assert_eq!(me(&server, &corp.signed(&unknown, &good)).await.0, 401);
    }
    assert_eq!(corp.counts(), (1, 1, 0));
    // A key that is not published any more proves until the kept ones expire; a new one that nobody asked for
    // yet does not.
    let old = corp.token(&good);
    corp.rotate("second");
    assert_eq!((me(&server, &old).await.0, me(&server, &corp.token(&good)).await.0), (200, 401));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i12_a_provider_that_is_away_or_lies_opens_nothing_and_holds_nobody_up() {
    for lie in [Lie::Issuer, Lie::Redirect, Lie::Huge, Lie::Silence, Lie::Network, Lie::Enc, Lie::Broken] {
        let (corp, well) = (Provider::start().await, Provider::start().await);
        corp.lies(lie);
        let server = server(vec![discovered(&corp, "corp"), discovered(&well, "well")]).await;
        let people = server.people().await;
        let token = corp.token(&corp.claims("acme", "alice"));
        let asked = me(&server, &token);
        let others = async {
            assert_eq!(server.get("/api/auth/me", &people.bob).await.status(), 200);
            assert_eq!(me(&server, &well.token(&well.claims("globex", "bob"))).await.0, 200);
        };
        let ((status, body), ()) = tokio::join!(asked, others);
        assert_eq!((status, reason(&body)), (503, "provider_unavailable"), "{lie:?}: {body}");
        // Nobody is asked again at once, and whoever comes is answered at once.
        let before = corp.counts();
        assert_eq!(me(&server, &token).await.0, 503, "{lie:?}");
        assert_eq!(corp.counts(), before, "{lie:?}");
    }
    // Nobody there at all.
    let gone = Provider::start().await;
    let claims = gone.claims("acme", "alice");
    let nowhere = IssuerSettings { issuer: "http://127.0.0.1:9".to_owned(), ..issuer_settings(&gone, "corp") };
    let server = server(vec![Issuer::discovered(nowhere, outbound()).unwrap()]).await;
    server.people().await;
    let mut claims = claims;
    claims["iss"] = json!("http://127.0.0.1:9");
    assert_eq!(me(&server, &gone.token(&claims)).await.0, 503);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn g08_i12_a_providers_document_leads_to_no_other_service_of_its_machine() {
    let (corp, well) = (Provider::start().await, Provider::start().await);
    // What listens there is another account's; it could be anything that trusts this machine.
    corp.has_its_keys_at(format!("{}/keys", well.url()));
    let server = server(vec![discovered(&corp, "corp"), discovered(&well, "well")]).await;
    server.people().await;
    let (status, body) = me(&server, &corp.token(&corp.claims("acme", "alice"))).await;
    assert_eq!((status, reason(&body)), (503, "provider_unavailable"), "{body}");
    assert_eq!((corp.counts().0, well.counts().1), (1, 0));
    // The control: the same address is called by the operator's word.
    assert_eq!(me(&server, &well.token(&well.claims("globex", "bob"))).await.0, 200);
    assert_eq!(well.counts().1, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i05_i12_a_providers_token_is_not_enough_for_who_has_a_second_factor_here() {
    for (second_factor, status) in [(SecondFactor::Own, 401), (SecondFactor::Provider, 200)] {
        let corp = Provider::start().await;
        let issuer = IssuerSettings { second_factor, ..issuer_settings(&corp, "corp") };
        let server = server(vec![Issuer::discovered(issuer, outbound()).unwrap()]).await;
        let _ = server.people().await;
        let mine = corp.token(&corp.claims("acme", "alice"));
        let others = corp.token(&corp.claims("acme", "carol"));
        let next_door = corp.token(&corp.claims("globex", "bob"));
        assert_eq!(me(&server, &mine).await.0, 200, "before there is one");
        let login = server.login("acme", "alice").await.token;
        let begun = server.done("POST", "/api/auth/2fa/totp", &login, json!({ "password": PASSWORD })).await;
        assert_eq!(me(&server, &mine).await.0, 200, "one that was begun and never shown is none");
        let code = json!({ "code": totp_code(begun["secret"].as_str().unwrap(), 0) });
        server.done("POST", "/api/auth/2fa/totp/confirm", &login, code).await;
        assert_eq!(me(&server, &mine).await.0, status, "{second_factor:?}");
        for free in [&others, &next_door] {
            assert_eq!(me(&server, free).await.0, 200, "who has none is asked for none");
        }
    }
}
