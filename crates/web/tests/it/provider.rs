//! An identity provider on the loopback that does what OpenID Connect asks for, and lies as it is told.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::signature::{Ed25519KeyPair, KeyPair};
use ring::{digest, hmac, rand};
use serde_json::{Value, json};

pub const CLIENT: &str = "bailiwick";
pub const SECRET: &str = "p+q/r: s";

/// What it answers where its document or its keys are asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Lie {
    #[default]
    None,
    /// The document is another issuer's.
    Issuer,
    /// The keys are elsewhere.
    Redirect,
    /// More than anybody reads.
    Huge,
    /// Nothing, ever.
    Silence,
    /// Its keys are in the operator's own network.
    Network,
    /// All keys are for something else.
    Enc,
    /// It has no good day.
    Broken,
    /// Its proof of the code is of no use.
    Plain,
}

type Change = Box<dyn Fn(&mut Value, &mut Value) + Send>;

/// A code that was given out.
struct Given {
    nonce: String,
    challenge: String,
    redirect_uri: String,
    claims: Value,
}

#[derive(Default)]
struct Inner {
    url: String,
    lie: Mutex<Lie>,
    /// Where its document says that its keys are, if that is elsewhere.
    keys_at: Mutex<Option<String>>,
    keys: Mutex<Vec<(String, Vec<u8>)>>,
    codes: Mutex<HashMap<String, Given>>,
    /// What is done to an identity token before it is signed.
    change: Mutex<Option<Change>>,
    documents: AtomicUsize,
    sets: AtomicUsize,
    exchanges: AtomicUsize,
    /// Whether `iss` comes back with the code, and the document says so.
    names_itself: std::sync::atomic::AtomicBool,
    by_post: std::sync::atomic::AtomicBool,
}

#[derive(Clone)]
pub struct Provider(Arc<Inner>);

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

fn encoded(value: &Value) -> String {
    URL_SAFE_NO_PAD.encode(value.to_string())
}

impl Provider {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let this = Self(Arc::new(Inner { url, ..Inner::default() }));
        this.rotate("first");
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(document))
            .route("/keys", get(keys))
            .route("/elsewhere", get(set))
            .route("/token", post(token))
            .with_state(this.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        this
    }

    pub fn url(&self) -> &str {
        &self.0.url
    }

    pub fn lies(&self, lie: Lie) {
        *self.0.lie.lock().unwrap() = lie;
    }

    pub fn has_its_keys_at(&self, url: String) {
        *self.0.keys_at.lock().unwrap() = Some(url);
    }

    pub fn names_itself(&self) {
        self.0.names_itself.store(true, Ordering::SeqCst);
    }

    pub fn wants_the_secret_in_the_form(&self) {
        self.0.by_post.store(true, Ordering::SeqCst);
    }

    pub fn changes(&self, change: impl Fn(&mut Value, &mut Value) + Send + 'static) {
        *self.0.change.lock().unwrap() = Some(Box::new(change));
    }

    /// Documents, sets of keys and exchanges that were asked for.
    pub fn counts(&self) -> (usize, usize, usize) {
        let read = |count: &AtomicUsize| count.load(Ordering::SeqCst);
        (read(&self.0.documents), read(&self.0.sets), read(&self.0.exchanges))
    }

    /// Signs with another key from now on, and publishes it alone.
    pub fn rotate(&self, kid: &str) {
        let pair = Ed25519KeyPair::generate_pkcs8(&rand::SystemRandom::new()).unwrap();
        *self.0.keys.lock().unwrap() = vec![(kid.to_owned(), pair.as_ref().to_vec())];
    }

    fn pair(&self) -> (String, Ed25519KeyPair) {
        let keys = self.0.keys.lock().unwrap();
        let (kid, pair) = keys.last().unwrap();
        (kid.clone(), Ed25519KeyPair::from_pkcs8(pair).unwrap())
    }

    fn jwks(&self) -> Value {
        let (kid, pair) = self.pair();
        let x = URL_SAFE_NO_PAD.encode(pair.public_key().as_ref());
        let used = if *self.0.lie.lock().unwrap() == Lie::Enc { "enc" } else { "sig" };
        json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": x, "kid": kid, "use": used }] })
    }

    /// Claims that are right.
    pub fn claims(&self, org: &str, user: &str) -> Value {
        json!({ "iss": self.url(), "aud": CLIENT, "sub": user, "org": org, "iat": now(), "exp": now() + 300 })
    }

    /// A token with these claims, and a header as it should be.
    pub fn token(&self, claims: &Value) -> String {
        self.signed(&json!({ "alg": "EdDSA", "kid": self.pair().0, "typ": "JWT" }), claims)
    }

    /// A token with a header that says anything; signed as it says, as far as that goes.
    pub fn signed(&self, head: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", encoded(head), encoded(claims));
        let (_, pair) = self.pair();
        let signature = match head["alg"].as_str() {
            Some("none") => Vec::new(),
            // The public key is no secret.
            Some("HS256") => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, pair.public_key().as_ref());
                hmac::sign(&key, message.as_bytes()).as_ref().to_vec()
            }
            _ => pair.sign(message.as_bytes()).as_ref().to_vec(),
        };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// What somebody does at the provider whom a server sent there: signs in. Gives the query with which they
    /// come back.
    pub fn sign_in(&self, location: &str, claims: &Value) -> String {
        let (endpoint, query) = location.split_once('?').unwrap();
        assert_eq!(endpoint, format!("{}/authorize", self.url()));
        let asked: HashMap<String, String> =
            form_urlencoded::parse(query.as_bytes()).map(|(k, v)| (k.into_owned(), v.into_owned())).collect();
        assert_eq!((asked["response_type"].as_str(), asked["client_id"].as_str()), ("code", CLIENT));
        assert_eq!(asked["code_challenge_method"], "S256");
        assert!(asked["scope"].split(' ').any(|scope| scope == "openid"));
        let code = URL_SAFE_NO_PAD.encode(rand::generate::<[u8; 16]>(&rand::SystemRandom::new()).unwrap().expose());
        let given = Given {
            nonce: asked["nonce"].clone(),
            challenge: asked["code_challenge"].clone(),
            redirect_uri: asked["redirect_uri"].clone(),
            claims: claims.clone(),
        };
        self.0.codes.lock().unwrap().insert(code.clone(), given);
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("code", &code).append_pair("state", &asked["state"]);
        if self.0.names_itself.load(Ordering::SeqCst) {
            query.append_pair("iss", self.url());
        }
        query.finish()
    }
}

fn answer(value: &Value) -> Response {
    ([(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "max-age=600")], value.to_string())
        .into_response()
}

async fn document(State(provider): State<Provider>) -> Response {
    let Inner { url, lie, keys_at, documents, .. } = &*provider.0;
    documents.fetch_add(1, Ordering::SeqCst);
    let lie = *lie.lock().unwrap();
    let issuer = if lie == Lie::Issuer { format!("{url}/") } else { url.clone() };
    let keys = if lie == Lie::Network { "https://10.0.0.7/keys".to_owned() } else { format!("{url}/keys") };
    let keys = keys_at.lock().unwrap().clone().unwrap_or(keys);
    let methods = if lie == Lie::Plain { ["plain"] } else { ["S256"] };
    let by = if provider.0.by_post.load(Ordering::SeqCst) { "client_secret_post" } else { "client_secret_basic" };
    if lie == Lie::Broken {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    answer(&json!({
        "issuer": issuer, "jwks_uri": keys, "authorization_endpoint": format!("{url}/authorize"),
        "token_endpoint": format!("{url}/token"), "code_challenge_methods_supported": methods,
        "token_endpoint_auth_methods_supported": [by],
        "authorization_response_iss_parameter_supported": provider.0.names_itself.load(Ordering::SeqCst),
    }))
}

async fn keys(State(provider): State<Provider>) -> Response {
    provider.0.sets.fetch_add(1, Ordering::SeqCst);
    let lie = *provider.0.lie.lock().unwrap();
    match lie {
        Lie::Redirect => Redirect::temporary("/elsewhere").into_response(),
        Lie::Silence => std::future::pending().await,
        Lie::Huge => {
            let endless = futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 4096]));
            Body::from_stream(endless).into_response()
        }
        _ => answer(&provider.jwks()),
    }
}

async fn set(State(provider): State<Provider>) -> Response {
    answer(&provider.jwks())
}

async fn token(State(provider): State<Provider>, headers: HeaderMap, body: String) -> Response {
    provider.0.exchanges.fetch_add(1, Ordering::SeqCst);
    let sent: HashMap<String, String> =
        form_urlencoded::parse(body.as_bytes()).map(|(k, v)| (k.into_owned(), v.into_owned())).collect();
    let word = |name: &str| sent.get(name).map_or("", String::as_str);
    let known = if provider.0.by_post.load(Ordering::SeqCst) {
        (word("client_id"), word("client_secret")) == (CLIENT, SECRET)
    } else {
        let encoded = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let wanted = format!("Basic {}", STANDARD.encode(format!("{}:{}", encoded(CLIENT), encoded(SECRET))));
        headers.get(header::AUTHORIZATION).is_some_and(|value| value.as_bytes() == wanted.as_bytes())
    };
    let refused = |status: StatusCode, error: &str| {
        let said = json!({ "error": error, "error_description": "<script>alert(1)</script>" });
        (status, answer(&said)).into_response()
    };
    if !known {
        return refused(StatusCode::UNAUTHORIZED, "invalid_client");
    }
    // A code is good once, whatever becomes of it.
    let given = provider.0.codes.lock().unwrap().remove(word("code"));
    let Some(given) = given.filter(|given| {
        let proof = digest::digest(&digest::SHA256, word("code_verifier").as_bytes());
        given.challenge == URL_SAFE_NO_PAD.encode(proof) && given.redirect_uri == word("redirect_uri")
    }) else {
        return refused(StatusCode::BAD_REQUEST, "invalid_grant");
    };
    let mut claims = given.claims;
    claims["nonce"] = json!(given.nonce);
    let mut head = json!({ "alg": "EdDSA", "kid": provider.pair().0 });
    if let Some(change) = &*provider.0.change.lock().unwrap() {
        change(&mut head, &mut claims);
    }
    let token = provider.signed(&head, &claims);
    answer(&json!({ "access_token": "opaque", "token_type": "Bearer", "id_token": token }))
}
