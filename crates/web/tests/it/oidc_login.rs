//! People who sign in by an identity provider, as a browser without a script does it.

use std::collections::BTreeMap;

use bailiwick_auth::authn::Step;
use bailiwick_auth::authn::jwt::{Issuer, IssuerSettings};
use bailiwick_auth::authn::oidc::{self, ProviderSettings, Providers, SecondFactor};
use bailiwick_web::Settings;
use reqwest::Response;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use crate::oidc::{issuer_settings, outbound};
use crate::provider::{CLIENT, Lie, Provider, SECRET};
use crate::support::{PASSWORD, ROOT, Server, Terms, form, page_reason, settings, totp_code};

/// A browser with all its cookies.
struct Browser<'s> {
    server: &'s Server,
    jar: BTreeMap<String, String>,
}

impl<'s> Browser<'s> {
    fn new(server: &'s Server) -> Self {
        Self { server, jar: BTreeMap::new() }
    }

    async fn send(&mut self, method: &str, path: &str, fields: Option<Value>) -> Response {
        let cookies: Vec<String> = self.jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = self.server.request(method, path, "").header("sec-fetch-site", "same-origin");
        if !cookies.is_empty() {
            request = request.header("cookie", cookies.join("; "));
        }
        if let Some(fields) = fields {
            request = request.header("content-type", "application/x-www-form-urlencoded").body(form(&fields));
        }
        let response = request.send().await.unwrap();
        for set in response.headers().get_all("set-cookie") {
            let set = set.to_str().unwrap();
            let (name, rest) = set.split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            assert!(set.contains("; Path=/; HttpOnly; SameSite=Lax"), "{set}");
            if value.is_empty() {
                self.jar.remove(name);
            } else {
                self.jar.insert(name.to_owned(), value.to_owned());
            }
        }
        response
    }

    async fn get(&mut self, path: &str) -> Response {
        self.send("GET", path, None).await
    }

    /// Begins, and says where it was led.
    async fn begin(&mut self, next: &str) -> String {
        let next: String = form_urlencoded::byte_serialize(next.as_bytes()).collect();
        let led = self.get(&format!("/login/oidc/corp?next={next}")).await;
        assert_eq!(led.status(), 303, "{}", led.text().await.unwrap());
        place(&led).to_owned()
    }

    /// All of it but a second factor.
    async fn sign_in(&mut self, provider: &Provider, claims: &Value) -> Response {
        let location = self.begin("/spaces?x=1").await;
        let query = provider.sign_in(&location, claims);
        self.get(&format!("/login/oidc/corp/callback?{query}")).await
    }

    fn signed_in(&self) -> bool {
        self.jar.contains_key("vibe_session")
    }

    async fn me(&self) -> Value {
        self.server.done("GET", "/api/auth/me", &self.jar["vibe_session"], Value::Null).await
    }
}

fn place(response: &Response) -> &str {
    response.headers().get("location").map_or("", |to| to.to_str().unwrap())
}

fn providers(provider: &Provider, settings: IssuerSettings) -> (Vec<Issuer>, Providers) {
    assert_eq!(settings.issuer, provider.url());
    let issuer = Issuer::discovered(settings, outbound()).unwrap();
    let client = ProviderSettings {
        name: "corp".to_owned(),
        title: "Corp & <Sons>".to_owned(),
        client_id: CLIENT.to_owned(),
        client_secret: Some(Zeroizing::new(SECRET.to_owned())),
        scopes: vec!["profile".to_owned()],
    };
    let providers = Providers::new(vec![oidc::Provider::new(client, &issuer).unwrap()]);
    (vec![issuer], providers)
}

async fn server_of(provider: &Provider, settings_of: IssuerSettings) -> Server {
    let (issuers, providers) = providers(provider, settings_of);
    let public = Settings { public_url: Some("http://bailiwick.example/x".to_owned()), ..settings() };
    let terms = Terms { issuers, providers, ..Terms::default() };
    let server = Server::on(vec![Step::ApiKey, Step::Session], public, terms).await;
    let _ = server.people().await;
    server
}

async fn server(provider: &Provider) -> Server {
    server_of(provider, issuer_settings(provider, "corp")).await
}

/// That nobody is signed in, by that word; and that the page says what to do in our own words.
async fn refused(browser: &mut Browser<'_>, response: Response, word: &str) {
    assert_eq!(page_reason(&response), word);
    let status = response.status().as_u16();
    assert!(matches!(status, 401 | 429 | 503), "{status}");
    let text = response.text().await.unwrap();
    assert!(text.contains("role=\"alert\"") && text.contains("href=\"/login\""), "{text}");
    assert!(!text.contains("<script>alert") && !text.contains("evil"), "{text}");
    assert!(!browser.signed_in(), "{word}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i01_i12_people_of_two_accounts_sign_in_by_their_provider() {
    for (named, by_post) in [(false, false), (true, true)] {
        let corp = Provider::start().await;
        if named {
            corp.names_itself();
        }
        if by_post {
            corp.wants_the_secret_in_the_form();
        }
        let server = server(&corp).await;
        for (org, user) in [("acme", "alice"), ("globex", "bob")] {
            let mut browser = Browser::new(&server);
            let page = browser.get("/login?next=%2Fspaces").await.text().await.unwrap();
            assert!(page.contains("href=\"/login/oidc/corp?next=%2Fspaces\""), "{page}");
            assert!(page.contains("Sign in with Corp &#38; &#60;Sons&#62;"), "{page}");
            let location = browser.begin("/spaces?x=1").await;
            let redirect = "redirect_uri=http%3A%2F%2Fbailiwick.example%2Flogin%2Foidc%2Fcorp%2Fcallback";
            assert!(location.contains(redirect) && location.contains("scope=openid+profile"), "{location}");
            assert!(browser.jar.contains_key("bailiwick_flow") && !browser.signed_in());
            let query = corp.sign_in(&location, &corp.claims(org, user));
            let back = browser.get(&format!("/login/oidc/corp/callback?{query}")).await;
            assert_eq!((back.status().as_u16(), place(&back)), (303, "/spaces?x=1"));
            assert_eq!(browser.jar.keys().collect::<Vec<_>>(), ["vibe_session"]);
            let me = browser.me().await;
            assert_eq!((&me["username"], &me["account"]), (&json!(user), &json!(org)));
            assert_eq!(browser.get("/spaces").await.status(), 200);
            let token = browser.jar["vibe_session"].clone();
            let devices = server.done("GET", "/api/v1/devices", &token, Value::Null).await.to_string();
            assert!(devices.contains("\"oidc:corp\""), "{devices}");
            let login = |event: &Value| event["action"] == "auth.login" && event["user"] == user;
            let event = server.event("/api/v1/audit", &token, login).await;
            assert_eq!((&event["result"], &event["detail"]["by"]), (&json!("OK"), &json!("oidc:corp")), "{event}");
            // The other account is as far away as ever.
            let other = if org == "acme" { "globex" } else { "acme" };
            let path = format!("/api/v1/admin/accounts/{other}/users");
            assert_eq!(server.get(&path, &token).await.status(), 404);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i12_an_answer_is_believed_once_and_in_the_browser_that_began() {
    let corp = Provider::start().await;
    let server = server(&corp).await;
    let alice = corp.claims("acme", "alice");
    // Somebody else's answer, in a browser that has begun nothing, or something else (login CSRF).
    let mut thief = Browser::new(&server);
    let location = thief.begin("/").await;
    let query = corp.sign_in(&location, &corp.claims("acme", "carol"));
    let mut victim = Browser::new(&server);
    let path = format!("/login/oidc/corp/callback?{query}");
    let response = victim.get(&path).await;
    refused(&mut victim, response, "provider_gone").await;
    let _ = victim.begin("/").await;
    let response = victim.get(&path).await;
    refused(&mut victim, response, "provider_gone").await;
    // A cookie of somebody's making.
    for forged in ["", "x", "corp.99999999999.AAAA.Lw.AAAA", "a.b.c.d.e"] {
        victim.jar.insert("bailiwick_flow".to_owned(), forged.to_owned());
        let response = victim.get(&path).await;
        refused(&mut victim, response, "provider_gone").await;
    }
    assert_eq!(corp.counts().2, 0, "nothing was exchanged");
    // The control; and the same once more, with everything that the browser had.
    let kept = thief.jar.clone();
    assert_eq!(place(&thief.get(&path).await), "/");
    assert_eq!(thief.me().await["username"], "carol");
    let mut again = Browser { server: &server, jar: kept };
    let response = again.get(&path).await;
    refused(&mut again, response, "provider_gone").await;
    assert_eq!(corp.counts().2, 1);
    // The provider says no: in whatever words.
    let mut browser = Browser::new(&server);
    let location = browser.begin("/").await;
    let query = corp.sign_in(&location, &alice);
    let state = query.split('&').find(|part| part.starts_with("state=")).unwrap();
    let said = format!("error=access_denied&error_description=%3Cscript%3Ealert(1)%3C/script%3E+evil&{state}");
    let response = browser.get(&format!("/login/oidc/corp/callback?{said}")).await;
    refused(&mut browser, response, "provider_declined").await;
    // Another provider's answer (RFC 9207), a code of nobody's, a code of another flow.
    for change in ["&iss=https%3A%2F%2Fevil.example", "code"] {
        let mut browser = Browser::new(&server);
        let location = browser.begin("/").await;
        let query = corp.sign_in(&location, &alice);
        let query = if change == "code" {
            let state = query.split('&').find(|part| part.starts_with("state=")).unwrap();
            format!("code=guessed&{state}")
        } else {
            format!("{query}{change}")
        };
        let response = browser.get(&format!("/login/oidc/corp/callback?{query}")).await;
        refused(&mut browser, response, "provider_answer").await;
    }
    let mut one = Browser::new(&server);
    let mut two = Browser::new(&server);
    let stolen = corp.sign_in(&one.begin("/").await, &alice);
    let own = corp.sign_in(&two.begin("/").await, &corp.claims("acme", "carol"));
    let part = |query: &str, name: &str| query.split('&').find(|part| part.starts_with(name)).unwrap().to_owned();
    let mixed = format!("{}&{}", part(&stolen, "code="), part(&own, "state="));
    let response = two.get(&format!("/login/oidc/corp/callback?{mixed}")).await;
    refused(&mut two, response, "provider_answer").await;
    // It leads nowhere else.
    for evil in ["https://evil.example/", "//evil.example", "/\\evil.example", "/a\tb"] {
        let mut browser = Browser::new(&server);
        let query = corp.sign_in(&browser.begin(evil).await, &alice);
        assert_eq!(place(&browser.get(&format!("/login/oidc/corp/callback?{query}")).await), "/", "{evil}");
    }
    assert_eq!(Browser::new(&server).get("/login/oidc/nobody").await.status(), 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i12_an_identity_token_that_does_not_hold_signs_nobody_in() {
    let corp = Provider::start().await;
    let server = server(&corp).await;
    let alice = corp.claims("acme", "alice");
    type Change = fn(&mut Value, &mut Value);
    let lies: [(&str, Change, &str); 15] = [
        ("nonce", |_, claims| claims["nonce"] = json!("another"), "provider_refused"),
        ("no nonce", |_, claims| drop(claims.as_object_mut().unwrap().remove("nonce")), "provider_refused"),
        ("aud", |_, claims| claims["aud"] = json!("another"), "provider_refused"),
        ("azp", |_, claims| claims["azp"] = json!("another"), "provider_refused"),
        ("two, and no azp", |_, claims| claims["aud"] = json!([CLIENT, "another"]), "provider_refused"),
        ("iss", |_, claims| claims["iss"] = json!("https://evil.example"), "provider_refused"),
        ("over", |_, claims| claims["exp"] = json!(1), "provider_refused"),
        ("no end", |_, claims| drop(claims.as_object_mut().unwrap().remove("exp")), "provider_refused"),
        ("alg none", |head, _| head["alg"] = json!("none"), "provider_refused"),
        ("the public key as a secret", |head, _| head["alg"] = json!("HS256"), "provider_refused"),
        ("an unknown key", |head, _| head["kid"] = json!("unknown"), "provider_refused"),
        ("a logout", |_, claims| claims["events"] = json!({}), "provider_refused"),
        ("nobody", |_, claims| claims["sub"] = json!("nobody"), "provider_stranger"),
        ("no account", |_, claims| claims["org"] = json!("nowhere"), "provider_stranger"),
        ("no name", |_, claims| claims["sub"] = json!("<script>"), "provider_stranger"),
    ];
    for (what, lie, word) in lies {
        corp.changes(lie);
        let mut browser = Browser::new(&server);
        let response = browser.sign_in(&corp, &alice).await;
        assert_eq!(page_reason(&response), word, "{what}");
        refused(&mut browser, response, word).await;
    }
    // The control. What was no guess of anybody's has locked nobody out.
    corp.changes(|_, claims| {
        claims["aud"] = json!([CLIENT, "another"]);
        claims["azp"] = json!(CLIENT);
    });
    let mut browser = Browser::new(&server);
    assert_eq!(place(&browser.sign_in(&corp, &alice).await), "/spaces?x=1");
    assert_eq!(corp.counts().0, 1, "all of it with the document that was read once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i12_a_provider_that_is_away_is_told_on_a_page_and_passwords_go_on() {
    for lie in [Lie::Broken, Lie::Silence, Lie::Plain, Lie::Issuer] {
        let corp = Provider::start().await;
        corp.lies(lie);
        let server = server(&corp).await;
        server.password("acme", "alice").await;
        let mut browser = Browser::new(&server);
        let response = browser.get("/login/oidc/corp").await;
        let word = if lie == Lie::Plain { "provider_refused" } else { "provider_unavailable" };
        refused(&mut browser, response, word).await;
        let sent = json!({ "username": "alice@acme", "password": PASSWORD });
        assert_eq!(place(&browser.send("POST", "/login", Some(sent)).await), "/");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i05_i12_a_second_factor_of_ours_is_asked_for_unless_the_provider_is_trusted_with_it() {
    for second_factor in [SecondFactor::Own, SecondFactor::Provider] {
        let corp = Provider::start().await;
        let server = server_of(&corp, IssuerSettings { second_factor, ..issuer_settings(&corp, "corp") }).await;
        let token = server.login("acme", "alice").await.token;
        let body = json!({ "password": PASSWORD });
        let begun = server.done("POST", "/api/auth/2fa/totp", &token, body).await;
        let secret = begun["secret"].as_str().unwrap().to_owned();
        let used = totp_code(&secret, 0);
        let confirm = json!({ "code": used });
        let codes = server.done("POST", "/api/auth/2fa/totp/confirm", &token, confirm).await;
        let recovery = codes["recoveryCodes"][0].as_str().unwrap().to_owned();
        let mut browser = Browser::new(&server);
        let back = browser.sign_in(&corp, &corp.claims("acme", "alice")).await;
        if second_factor == SecondFactor::Provider {
            assert_eq!(place(&back), "/spaces?x=1");
            continue;
        }
        assert_eq!((back.status().as_u16(), place(&back)), (303, "/login/oidc/corp/code"));
        assert!(!browser.signed_in());
        assert_eq!(browser.get("/spaces").await.status(), 303, "half a login is none");
        let page = browser.get("/login/oidc/corp/code").await.text().await.unwrap();
        assert!(page.contains("name=\"totpCode\""), "{page}");
        for wrong in ["000000", "", &used] {
            let sent = json!({ "totpCode": wrong });
            let response = browser.send("POST", "/login/oidc/corp/code", Some(sent)).await;
            assert_eq!(response.status(), 401, "{wrong}");
            assert!(response.text().await.unwrap().contains("This code is wrong"), "{wrong}");
            assert!(!browser.signed_in());
        }
        // Half a login is of one user, one provider and a few minutes; nobody makes one.
        let half = browser.jar["bailiwick_half"].clone();
        let mut thief = Browser::new(&server);
        for forged in [half.replacen("corp", "corq", 1), format!("{half}x"), half.replacen('.', "..", 1)] {
            thief.jar.insert("bailiwick_half".to_owned(), forged);
            let sent = json!({ "totpCode": totp_code(&secret, 1) });
            let response = thief.send("POST", "/login/oidc/corp/code", Some(sent)).await;
            refused(&mut thief, response, "provider_gone").await;
        }
        let cross = server.request("POST", "/login/oidc/corp/code", "").header("sec-fetch-site", "cross-site");
        let cross = cross.header("cookie", format!("bailiwick_half={half}"));
        let cross = cross.header("content-type", "application/x-www-form-urlencoded").body("totpCode=1");
        assert_eq!(page_reason(&cross.send().await.unwrap()), "cross_site");
        let sent = json!({ "totpCode": totp_code(&secret, 1) });
        let done = browser.send("POST", "/login/oidc/corp/code", Some(sent)).await;
        assert_eq!((done.status().as_u16(), place(&done)), (303, "/spaces?x=1"));
        assert_eq!(browser.me().await["username"], "alice");
        assert!(!browser.jar.contains_key("bailiwick_half"));
        let token = browser.jar["vibe_session"].clone();
        let asked = |event: &Value| event["action"] == "auth.second_factor.asked";
        assert_eq!(server.event("/api/v1/audit", &token, asked).await["result"], "OK");
        let by = |event: &Value| event["detail"]["by"] == "oidc:corp+totp";
        server.event("/api/v1/audit", &token, by).await;
        // A recovery code does as well, once.
        for (place_then, status) in [("/spaces?x=1", 303), ("", 401)] {
            let mut browser = Browser::new(&server);
            browser.sign_in(&corp, &corp.claims("acme", "alice")).await;
            let sent = json!({ "totpCode": recovery });
            let done = browser.send("POST", "/login/oidc/corp/code", Some(sent)).await;
            assert_eq!((done.status().as_u16(), place(&done)), (status, place_then));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i03_i12_who_is_locked_out_or_less_at_the_provider_is_not_signed_in() {
    let corp = Provider::start().await;
    let by_role = IssuerSettings { role_claim: Some("role".to_owned()), ..issuer_settings(&corp, "corp") };
    let server = server_of(&corp, by_role).await;
    let with_role = |org: &str, user: &str, role: &str| {
        let mut claims = corp.claims(org, user);
        claims["role"] = json!(role);
        claims
    };
    for (user, role, word) in [
        ("alice", "viewer", "provider_narrowed"),
        ("carol", "viewer", "provider_narrowed"),
        ("carol", "root", "provider_stranger"),
        ("carol", "admin", ""),
        ("carol", "user", ""),
    ] {
        let mut browser = Browser::new(&server);
        let response = browser.sign_in(&corp, &with_role("acme", user, role)).await;
        assert_eq!(page_reason(&response), word, "{user} as {role}");
        assert_eq!(browser.signed_in(), word.is_empty(), "{user} as {role}");
        if word.is_empty() {
            // Never more than the user is.
            assert_eq!(browser.me().await["role"], "user");
        }
    }
    server.password("acme", "alice").await;
    for _ in 0..10 {
        let sent = json!({ "username": "alice", "account": "acme", "password": "wrong" });
        server.send("POST", "/api/auth/login", "", sent).await;
    }
    let mut browser = Browser::new(&server);
    let response = browser.sign_in(&corp, &with_role("acme", "alice", "admin")).await;
    refused(&mut browser, response, "locked").await;
    let mut other = Browser::new(&server);
    other.sign_in(&corp, &with_role("globex", "bob", "admin")).await;
    assert!(other.signed_in(), "the control");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i12_an_address_counts_only_if_the_provider_has_checked_it() {
    let corp = Provider::start().await;
    let by_mail = IssuerSettings { user_claim: "email".to_owned(), ..issuer_settings(&corp, "corp") };
    let server = server_of(&corp, by_mail).await;
    server.user("acme", "alice@acme.example", "user", ROOT).await;
    for (verified, word) in [
        (json!(true), ""),
        (json!(false), "provider_stranger"),
        (Value::Null, "provider_stranger"),
        (json!("true"), "provider_stranger"),
    ] {
        let mut claims = corp.claims("acme", "mallory");
        claims["email"] = json!("alice@acme.example");
        claims["email_verified"] = verified.clone();
        let mut browser = Browser::new(&server);
        let response = browser.sign_in(&corp, &claims).await;
        assert_eq!((page_reason(&response).as_str(), browser.signed_in()), (word, word.is_empty()), "{verified}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i12_where_people_come_by_tls_no_neighbour_plants_a_flow() {
    let corp = Provider::start().await;
    let (issuers, providers) = providers(&corp, issuer_settings(&corp, "corp"));
    let public = Settings { public_url: Some("https://bailiwick.example".to_owned()), ..settings() };
    let server =
        Server::on(vec![Step::ApiKey, Step::Session], public, Terms { issuers, providers, ..Terms::default() }).await;
    let _ = server.people().await;
    let mut browser = Browser::new(&server);
    let location = browser.begin("/").await;
    let flow = browser.jar.remove("__Host-bailiwick_flow").unwrap();
    let query = corp.sign_in(&location, &corp.claims("acme", "alice"));
    // The same, by the name that any page of the domain can set.
    browser.jar.insert("bailiwick_flow".to_owned(), flow.clone());
    let path = format!("/login/oidc/corp/callback?{query}");
    let response = browser.get(&path).await;
    refused(&mut browser, response, "provider_gone").await;
    let cookie = format!("__Host-bailiwick_flow={flow}; __Host-bailiwick_flow={flow}");
    let twice = server.request("GET", &path, "").header("cookie", cookie).send().await.unwrap();
    assert_eq!(page_reason(&twice), "provider_gone");
    browser.jar.insert("__Host-bailiwick_flow".to_owned(), flow);
    assert_eq!(place(&browser.get(&path).await), "/");
    // Who draws a login page is told which providers there are.
    let told = server.done("GET", "/api/auth/providers", "", Value::Null).await;
    let corp = json!({ "name": "corp", "title": "Corp & <Sons>", "path": "/login/oidc/corp" });
    assert_eq!(told, json!({ "providers": [corp] }));
}
