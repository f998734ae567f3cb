//! Applications: codes and refresh tokens that are good once, of one user of one tenant, on every database.

use std::net::{IpAddr, Ipv4Addr};

use bailiwick_auth::access::verb::{
    AllowApplication, CreateKey, DeleteUser, ListApplications, RevokeApplication, UseApplication,
};
use bailiwick_auth::authn::{Step, Walk};
use bailiwick_auth::key::{KeyHash, KeyRing, Kind, PresentedKey};
use bailiwick_auth::{Principal, Scope};
use bailiwick_store::StoreError;
use bailiwick_store::application::{Exchanged, NewApplication, NewTokens, Proof, Shown, Terms, Why};
use bailiwick_store::client::{NewClient, Registrar};
use bailiwick_store::key::KeyTerms;
use bailiwick_types::{ApplicationId, ClientId, KeyScope, RequestId, Timestamp};

use crate::fixture::{Fixture, Person, ROOT_KEY, conflict, login, not_found, permit};
use crate::on_every_backend;

fn by(counted: &str) -> Registrar {
    Registrar { address: "192.0.2.1".to_owned(), counted: counted.to_owned(), request: RequestId::new() }
}

async fn client(f: &Fixture, counted: &str) -> Result<ClientId, StoreError> {
    let id = f.walk.ring().make_secret().unwrap().id;
    let redirect_uris = vec!["https://app.example/cb".to_owned()];
    let new = NewClient { id: id.clone(), secret: None, name: "probe".to_owned(), redirect_uris };
    f.store.client_register(new, by(counted)).await.map(|_| id)
}

fn soon() -> Timestamp {
    Timestamp::from_micros(Timestamp::now().as_micros() + 60_000_000)
}

/// A consent of that person's. Gives the application and its code.
async fn allow(f: &Fixture, person: &Person, client: &ClientId) -> (ApplicationId, String) {
    allow_by(f, &f.scope(person).await, client).await.unwrap()
}

async fn allow_by(f: &Fixture, scope: &Scope, client: &ClientId) -> Result<(ApplicationId, String), StoreError> {
    let user = scope.user().unwrap().clone();
    let code = f.walk.ring().make_code().unwrap();
    let (id, hash) = (code.id.clone(), code.hash.clone());
    let terms = Terms {
        client: client.clone().into(),
        name: "probe".to_owned(),
        scopes: vec![KeyScope::Read],
        agent: None,
        space: None,
        resource: String::new(),
    };
    let new = NewApplication {
        terms,
        code: (id.clone(), hash),
        code_ends: soon(),
        redirect_uri: "https://app.example/cb".to_owned(),
        challenge: "challenge".to_owned(),
    };
    let may = permit::<AllowApplication>(scope, scope.user_named(user));
    f.store.application_allow(may, new).await?;
    Ok((id, code.into_text().to_string()))
}

fn tokens(f: &Fixture, id: &ApplicationId) -> (NewTokens, String, String) {
    let make = |kind| f.walk.ring().make_credential(kind, id.clone()).unwrap();
    let (access, refresh) = (make(Kind::Access), make(Kind::Refresh));
    let (access_hash, refresh_hash): (KeyHash, KeyHash) = (access.hash.clone(), refresh.hash.clone());
    let new = NewTokens { access: access_hash, access_ends: soon(), refresh: refresh_hash, refresh_ends: soon() };
    (new, access.into_text().to_string(), refresh.into_text().to_string())
}

/// Who is behind a code or a refresh token.
async fn holder(f: &Fixture, text: &str) -> Option<Principal> {
    let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let found = f.walk.holder(&f.store, &PresentedKey::new(text), address).await.unwrap();
    found.map(|(principal, ..)| principal)
}

fn shown(f: &Fixture, id: &ApplicationId, text: &str, client: &ClientId) -> Shown {
    let hash = f.walk.ring().hash_of(&PresentedKey::new(text));
    Shown { id: id.clone(), hash, client: client.clone().into(), resource: None }
}

fn using(scope: &Scope) -> bailiwick_auth::Permit<UseApplication> {
    permit::<UseApplication>(scope, scope.user_named(scope.user().unwrap().clone()))
}

async fn redeem(f: &Fixture, id: &ApplicationId, code: &str, client: &ClientId) -> (Exchanged, String, String) {
    let scope = holder(f, code).await.unwrap().scope(RequestId::new()).unwrap();
    let (new, access, refresh) = tokens(f, id);
    let proof = Proof { redirect_uri: "https://app.example/cb".to_owned(), challenge: "challenge".to_owned() };
    let done = f.store.application_redeem(using(&scope), shown(f, id, code, client), proof, new).await.unwrap();
    (done, access, refresh)
}

/// A walk that takes logins, and with them applications' tokens.
fn walk() -> Walk {
    Walk::new(vec![Step::ApiKey, Step::Session], KeyRing::new([7; 32]), Some(ROOT_KEY))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_code_that_comes_twice_ends_what_it_gave_and_of_two_at_once_one_is_too_late() {
    on_every_backend(async |f| {
        let client = client(&f, "one").await.unwrap();
        let (id, code) = allow(&f, &f.acme.member, &client).await;
        let (others, other_code) = allow(&f, &f.globex.member, &client).await;
        let (one, two) = tokio::join!(redeem(&f, &id, &code, &client), redeem(&f, &id, &code, &client));
        let given = Exchanged::Given(vec![KeyScope::Read]);
        let outcomes = [&one.0, &two.0];
        assert!(outcomes.contains(&&given) && outcomes.contains(&&Exchanged::Refused(Why::Replayed)), "{outcomes:?}");
        // Whichever was first: nothing of it is left.
        for text in [&one.1, &two.1] {
            assert!(login(&f.store, &walk(), text).await.is_err());
        }
        assert!(holder(&f, &code).await.is_none() && holder(&f, &one.2).await.is_none());
        let (done, access, _) = redeem(&f, &others, &other_code, &client).await;
        assert_eq!(done, given, "the other tenant's is as it was");
        let principal = login(&f.store, &walk(), &access).await.unwrap();
        assert_eq!(principal.tenant().unwrap().account(), &f.globex.account);
        assert_eq!(f.actions(&f.acme).await.iter().filter(|action| *action == "application.use").count(), 2);
        f.verify(&f.acme).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refresh_token_that_comes_twice_ends_the_application() {
    on_every_backend(async |f| {
        let client = client(&f, "one").await.unwrap();
        let (id, code) = allow(&f, &f.acme.member, &client).await;
        let (_, _, refresh) = redeem(&f, &id, &code, &client).await;
        let scope = holder(&f, &refresh).await.unwrap().scope(RequestId::new()).unwrap();
        let renew = async |text: &str| {
            let (new, access, next) = tokens(&f, &id);
            let shown = shown(&f, &id, text, &client);
            (f.store.application_renew(using(&scope), shown, None, new).await, access, next)
        };
        let (done, access, next) = renew(&refresh).await;
        assert_eq!(done.unwrap(), Exchanged::Given(vec![KeyScope::Read]));
        assert!(login(&f.store, &walk(), &access).await.is_ok(), "the control");
        assert_eq!(renew(&refresh).await.0.unwrap(), Exchanged::Refused(Why::Replayed));
        assert!(login(&f.store, &walk(), &access).await.is_err());
        assert_eq!(not_found(renew(&next).await.0), "application");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_application_is_its_users_alone_and_goes_with_them() {
    on_every_backend(async |f| {
        let client = client(&f, "one").await.unwrap();
        let (id, code) = allow(&f, &f.acme.member, &client).await;
        let listed = async |person: &Person| {
            let scope = f.scope(person).await;
            let may = permit::<ListApplications>(&scope, scope.user_named(person.name.clone()));
            f.store.application_list(may).await.unwrap().len()
        };
        assert_eq!(listed(&f.acme.member).await, 0, "until its code is exchanged it is nobody's");
        let (_, access, _) = redeem(&f, &id, &code, &client).await;
        assert_eq!((listed(&f.acme.member).await, listed(&f.acme.viewer).await), (1, 0));
        assert_eq!(listed(&f.globex.member).await, 0, "of the same name in another account");
        for other in [&f.acme.viewer, &f.globex.member] {
            let scope = f.scope(other).await;
            let may = permit::<RevokeApplication>(&scope, scope.user_named(other.name.clone()));
            assert_eq!(not_found(f.store.application_revoke(may, id.clone()).await), "application");
        }
        assert!(login(&f.store, &walk(), &access).await.is_ok());
        let scope = f.scope(&f.acme.admin).await;
        let may = permit::<DeleteUser>(&scope, scope.user_named(f.acme.member.name.clone()));
        f.store.user_delete(may).await.unwrap();
        assert!(login(&f.store, &walk(), &access).await.is_err());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i17_registrations_of_one_address_are_bounded_and_of_another_not() {
    on_every_backend(async |f| {
        for _ in 0..20 {
            client(&f, "one").await.unwrap();
        }
        assert_eq!(conflict(client(&f, "one").await), "too_many_registrations");
        client(&f, "two").await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i15_a_credential_that_has_ended_meanwhile_leaves_nothing_lasting() {
    on_every_backend(async |f| {
        let app = client(&f, "one").await.unwrap();
        let (bob, carol) = (&f.acme.member, &f.globex.member);
        // What bob asks for is on its way while his keys are replaced: he lost one.
        let (bobs, carols) = (f.scope(bob).await, f.scope(carol).await);
        let admin = f.scope(&f.acme.admin).await;
        let fresh = f.walk.ring().make().unwrap();
        let rotate = permit::<CreateKey>(&admin, admin.user_named(bob.name.clone()));
        f.store.key_rotate(rotate, &fresh).await.unwrap();
        assert_eq!(conflict(allow_by(&f, &bobs, &app).await), "sign_in_changed");
        // The same of whoever makes keys: of one admin by another credential.
        let late = permit::<CreateKey>(&admin, admin.user_named(bob.name.clone()));
        let owns = f.set_up(&f.acme).await;
        let rotate = permit::<CreateKey>(&owns, owns.user_named(f.acme.admin.name.clone()));
        f.store.key_rotate(rotate, &f.walk.ring().make().unwrap()).await.unwrap();
        let made = f.store.key_create(late, &f.walk.ring().make().unwrap(), KeyTerms::named("late")).await;
        assert_eq!(conflict(made), "sign_in_changed");
        // The controls: who still has theirs, and the new key.
        allow_by(&f, &carols, &app).await.unwrap();
        let again = login(&f.store, &f.walk, &fresh.into_text()).await.unwrap().scope(RequestId::new()).unwrap();
        allow_by(&f, &again, &app).await.unwrap();
    })
    .await;
}
