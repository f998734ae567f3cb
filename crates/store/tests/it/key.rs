//! Keys: hashes at rest, bounds that hold, and death at once.

use std::net::{IpAddr, Ipv4Addr};

use bailiwick_auth::Credential;
use bailiwick_auth::access::verb::{
    CreateKey, CreateSpace, ListAgents, ListKeys, ListSpaces, ReadSpace, RevokeKey, UseAgent,
};
use bailiwick_auth::authn::{Browser, Presented, Rejection, Step, Walk};
use bailiwick_auth::key::{KeyRing, PresentedKey};
use bailiwick_store::StoreError;
use bailiwick_store::key::{KeyRow, KeyTerms};
use bailiwick_types::{AccountName, KeyScope, Timestamp};

use crate::fixture::{Fixture, Person, ROOT_KEY, not_found, permit};
use crate::on_every_backend;

/// Makes a key for that person, by that person.
async fn make(f: &Fixture, person: &Person, terms: KeyTerms) -> Result<Person, StoreError> {
    let scope = f.scope(person).await;
    let key = f.walk.ring().make().unwrap();
    let create = permit::<CreateKey>(&scope, scope.user_named(person.name.clone()));
    f.store.key_create(create, &key, terms).await?;
    Ok(Person { name: person.name.clone(), key: key.into_text().to_string() })
}

async fn list(f: &Fixture, person: &Person) -> Vec<KeyRow> {
    let scope = f.scope(person).await;
    f.store.key_list(permit::<ListKeys>(&scope, scope.user_named(person.name.clone()))).await.unwrap()
}

fn terms(name: &str) -> KeyTerms {
    KeyTerms::named(name)
}

#[tokio::test(flavor = "multi_thread")]
async fn i02_no_key_is_in_any_file_of_the_store_and_no_listing_shows_one() {
    on_every_backend(async |f| {
        let made = make(&f, &f.acme.member, terms("ci")).await.unwrap();
        let keys = list(&f, &f.acme.member).await;
        let secret = made.key.rsplit('_').next().unwrap();
        assert_eq!(secret.len(), 43);
        let shown = format!("{keys:?}");
        assert!(!shown.contains(secret));
        let id = made.key.split('_').nth(1).unwrap();
        assert!(shown.contains(id), "the control: the listing shows the public half");
        let mut found = 0;
        crate::account::walk_tree(f.dir(), &mut |path| {
            if path.is_file() {
                let bytes = std::fs::read(path).unwrap();
                assert!(!contains(&bytes, secret), "{}", path.display());
                found += usize::from(contains(&bytes, id));
            }
        });
        let hood = crate::hood::Hood::of(&f, &f.scope(&f.acme.member).await).await;
        assert_eq!(hood.mentions(secret).await, 0);
        assert!(found + hood.mentions(id).await > 0, "the control: the public half is in the files, or in the rows");
        let detail = format!("{:?}", f.events(&f.acme).await);
        assert!(!detail.contains(secret) && detail.contains(id));
    })
    .await;
}

fn contains(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn i15_several_keys_with_names_expiry_scopes_and_bindings_read_back() {
    on_every_backend(async |f| {
        let space = f.space(&f.acme.member, "work").await;
        let until = Timestamp::now().after(std::time::Duration::from_secs(3600));
        let bound = KeyTerms {
            name: "bound".into(),
            scopes: vec![KeyScope::Read],
            agent: Some("helper".parse().unwrap()),
            space: Some(space.id()),
            expires_at: Some(until),
        };
        make(&f, &f.acme.member, bound).await.unwrap();
        make(&f, &f.acme.member, terms("plain")).await.unwrap();
        let keys = list(&f, &f.acme.member).await;
        let names: Vec<_> = keys.iter().map(|key| key.terms.name.as_str()).collect();
        assert_eq!(names, ["first", "bound", "plain"]);
        let bound = &keys[1].terms;
        assert_eq!(bound.scopes, [KeyScope::Read]);
        assert_eq!(bound.agent.as_ref().unwrap().as_str(), "helper");
        assert_eq!((bound.space, bound.expires_at), (Some(space.id()), Some(until)));
        assert!(list(&f, &f.globex.member).await.len() == 1, "the namesake of the other account has one");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i15_an_expired_key_lets_nobody_in() {
    on_every_backend(async |f| {
        let later = Timestamp::now().after(std::time::Duration::from_secs(60));
        let good = make(&f, &f.acme.member, KeyTerms { expires_at: Some(later), ..terms("good") }).await.unwrap();
        let past = Timestamp::from_micros(Timestamp::now().as_micros() - 1);
        let over = make(&f, &f.acme.member, KeyTerms { expires_at: Some(past), ..terms("over") }).await.unwrap();
        assert!(f.login(&good.key).await.is_ok());
        assert!(matches!(f.login(&over.key).await, Err(Rejection::Invalid)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i15_a_key_to_read_changes_nothing() {
    on_every_backend(async |f| {
        let read = KeyTerms { scopes: vec![KeyScope::Read], ..terms("read") };
        let scope = f.scope(&make(&f, &f.acme.member, read).await.unwrap()).await;
        assert_eq!(scope.authorize::<CreateSpace>(scope.account()).err().unwrap().code(), Some("key_scope"));
        assert!(scope.authorize::<ListSpaces>(scope.account()).is_ok(), "the control");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i15_a_bound_key_stays_in_its_space_and_with_its_agent() {
    on_every_backend(async |f| {
        let (here, there) = (f.space(&f.acme.member, "here").await, f.space(&f.acme.member, "there").await);
        let agent = "helper".parse().unwrap();
        let bound = KeyTerms { space: Some(here.id()), agent: Some(agent), ..terms("bound") };
        let scope = f.scope(&make(&f, &f.acme.member, bound).await.unwrap()).await;
        assert!(scope.authorize::<ReadSpace>(here).is_ok(), "the control");
        assert_eq!(scope.authorize::<ReadSpace>(there).err().unwrap().code(), None, "not there for this key");
        assert!(scope.authorize::<UseAgent>(scope.agent_named("helper".parse().unwrap())).is_ok());
        let other = scope.agent_named("other".parse().unwrap());
        assert_eq!(scope.authorize::<UseAgent>(other).err().unwrap().code(), None);
        let spaces = f.store.space_list(permit(&scope, scope.account())).await.unwrap();
        assert_eq!(spaces.len(), 1);
        let agents = f.store.agent_list(permit::<ListAgents>(&scope, scope.account())).await.unwrap();
        assert_eq!(agents.len(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i15_a_key_cannot_be_bound_to_what_its_holder_does_not_see() {
    on_every_backend(async |f| {
        for (owner, what) in [(&f.acme.admin, "a colleague's"), (&f.globex.member, "another tenant's")] {
            let foreign = f.space(owner, "theirs").await;
            let bound = KeyTerms { space: Some(foreign.id()), ..terms("bound") };
            assert_eq!(not_found(make(&f, &f.acme.member, bound).await), "space", "{what}");
        }
        let bound = KeyTerms { agent: Some("nobody".parse().unwrap()), ..terms("bound") };
        assert_eq!(not_found(make(&f, &f.acme.member, bound).await), "agent");
        assert_eq!(list(&f, &f.acme.member).await.len(), 1);
        let own = f.space(&f.acme.member, "mine").await;
        let bound = KeyTerms { space: Some(own.id()), ..terms("bound") };
        make(&f, &f.acme.member, bound).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i15_rotation_kills_every_earlier_key_at_once() {
    on_every_backend(async |f| {
        let second = make(&f, &f.acme.member, terms("second")).await.unwrap();
        let scope = f.scope(&f.acme.admin).await;
        let key = f.walk.ring().make().unwrap();
        let rotate = permit::<CreateKey>(&scope, scope.user_named(f.acme.member.name.clone()));
        f.store.key_rotate(rotate, &key).await.unwrap();
        assert!(f.login(&f.acme.member.key).await.is_err());
        assert!(f.login(&second.key).await.is_err());
        assert!(f.login(&key.into_text()).await.is_ok());
        let f = f.restart();
        assert!(f.login(&second.key).await.is_err());
        assert!(f.login(&f.globex.member.key).await.is_ok(), "another tenant's namesake keeps theirs");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i15_a_revoked_key_dies_at_once_and_only_by_its_holder_or_an_admin() {
    on_every_backend(async |f| {
        let key = make(&f, &f.acme.member, terms("ci")).await.unwrap();
        let id = list(&f, &f.acme.member).await[1].id.clone();
        let revoke = async |by: &Person, of: &Person| {
            let scope = f.scope(by).await;
            let permit = scope.authorize::<RevokeKey>(scope.user_named(of.name.clone())).map_err(|_| ())?;
            f.store.key_revoke(permit, id.clone()).await.map_err(|_| ())
        };
        assert!(revoke(&f.acme.viewer, &f.acme.member).await.is_err(), "a colleague");
        assert!(revoke(&f.globex.admin, &f.globex.member).await.is_err(), "the admin of another tenant");
        assert!(revoke(&f.acme.admin, &f.acme.viewer).await.is_err(), "as if it were another user's");
        assert!(f.login(&key.key).await.is_ok());
        revoke(&f.acme.admin, &f.acme.member).await.unwrap();
        assert!(f.login(&key.key).await.is_err());
        assert!(f.login(&f.acme.member.key).await.is_ok(), "the holder's other key lives");
        assert!(revoke(&f.acme.admin, &f.acme.member).await.is_err(), "once");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i15_the_last_use_is_noted() {
    on_every_backend(async |f| {
        let key = make(&f, &f.acme.member, terms("ci")).await.unwrap();
        let last = async || list(&f, &f.acme.member).await.pop().unwrap().last_used_at;
        assert_eq!(last().await, None);
        let before = Timestamp::now();
        f.login(&key.key).await.unwrap();
        // An act in the same file stands behind the note in line.
        f.space(&f.acme.member, "fence").await;
        assert!(last().await.unwrap() >= before);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_one_directory_opens_nothing_in_another() {
    on_every_backend(async |f| {
        let other = Fixture::new(crate::Backend::Sqlite).await;
        assert!(matches!(other.login(&f.acme.admin.key).await, Err(Rejection::Invalid)));
        assert!(f.login(&f.acme.admin.key).await.is_ok(), "the control");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i15_what_a_root_key_began_ends_with_that_root_key() {
    on_every_backend(async |f| {
        let account: AccountName = "acme".parse().unwrap();
        let shown = Presented {
            path: "/".to_owned(),
            key: Some(PresentedKey::new(ROOT_KEY)),
            account: Some(account.clone()),
            user: Some(f.acme.member.name.clone()),
            peer: IpAddr::V4(Ipv4Addr::LOCALHOST),
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            basic: None,
            gateway: bailiwick_auth::authn::Gateway::Anybody,
            browser: Browser::Own,
        };
        let begun = f.walk.authenticate(&f.store, &shown).await.unwrap();
        // As the record and a session's row keep it.
        let credential = Credential::parse(&begun.credential().to_text()).unwrap();
        let again = async |steps: Vec<Step>, root: Option<&str>| {
            let walk = Walk::new(steps, KeyRing::new([7; 32]), root);
            walk.resume(&f.store, &account, &f.acme.member.name, &credential, shown.peer).await.is_ok()
        };
        assert!(again(vec![Step::ApiKey], Some(ROOT_KEY)).await, "the control");
        assert!(!again(vec![Step::ApiKey], Some("another-root-key-which-is-long-enough")).await);
        assert!(!again(vec![Step::ApiKey], None).await);
        assert!(!again(vec![Step::Anonymous], Some(ROOT_KEY)).await);
    })
    .await;
}
