//! Users: the first is admin, the last admin stays, nobody deletes themselves, a namesake is a stranger.

use bailiwick_auth::access::verb::{
    CreateSpace, CreateUser, DecideApproval, DeleteUser, ListUsers, ReadAudit, ReadUser, SetRole,
};
use bailiwick_store::StoreError;
use bailiwick_store::account::NewAccount;
use bailiwick_store::log::EventFilter;
use bailiwick_types::{RequestId, Role, UserName};

use crate::approval::{ask_in, asked};
use crate::fixture::{self, Fixture, Person, conflict, not_found, permit};
use crate::on_every_backend;

async fn set_role(f: &Fixture, by: &Person, name: &UserName, role: Role) -> Result<(), StoreError> {
    let scope = f.scope(by).await;
    f.store.user_role_set(permit::<SetRole>(&scope, scope.user_named(name.clone())), role).await
}

async fn delete(f: &Fixture, by: &Person, name: &UserName) -> Result<(), StoreError> {
    let scope = f.scope(by).await;
    f.store.user_delete(permit::<DeleteUser>(&scope, scope.user_named(name.clone()))).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn r01_the_first_user_of_an_account_is_its_admin_whatever_was_wanted() {
    on_every_backend(async |f| {
        let new = NewAccount { name: "initech".parse().unwrap(), admin: None, agents: Vec::new() };
        let operator = f.operator().await;
        f.store.account_create(operator.host_scope(RequestId::new()).authorize().unwrap(), new).await.unwrap();
        let tenant = {
            use bailiwick_auth::authn::Directory;
            f.store.tenant(&"initech".parse().unwrap()).await.unwrap().unwrap()
        };
        let scope = operator.scope_in(&tenant, RequestId::new()).unwrap();
        for (name, given) in [("first", Role::Admin), ("second", Role::Viewer)] {
            let create = permit::<CreateUser>(&scope, scope.account());
            let key = f.walk.ring().make().unwrap();
            let role = f.store.user_create(create, name.parse().unwrap(), Role::Viewer, &key, None).await.unwrap();
            assert_eq!(role, given, "{name}");
            assert_eq!(f.login(&key.into_text()).await.unwrap().role(), Some(given));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_of_the_same_name_is_refused_and_their_key_is_dead() {
    on_every_backend(async |f| {
        let again = fixture::user(&f.store, &f.walk, &f.acme.admin, "bob", Role::Admin).await;
        assert!(matches!(again, Err(StoreError::Exists { kind: "user", .. })));
        assert_eq!(f.login(&f.acme.member.key).await.unwrap().role(), Some(Role::Member));
        let elsewhere = fixture::user(&f.store, &f.walk, &f.globex.admin, "carol", Role::Member).await;
        assert!(elsewhere.is_ok(), "the control");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r04_the_last_admin_is_neither_demoted_nor_deleted_and_nobody_deletes_themselves() {
    on_every_backend(async |f| {
        let alice = &f.acme.admin;
        assert_eq!(conflict(set_role(&f, alice, &alice.name, Role::Member).await), "last_admin");
        assert_eq!(conflict(delete(&f, alice, &alice.name).await), "self_deletion");
        // By the operator, too.
        let scope = f.set_up(&f.acme).await;
        let one = permit::<DeleteUser>(&scope, scope.user_named(alice.name.clone()));
        assert_eq!(conflict(f.store.user_delete(one).await), "last_admin");
        let one = permit::<SetRole>(&scope, scope.user_named(alice.name.clone()));
        assert_eq!(conflict(f.store.user_role_set(one, Role::Viewer).await), "last_admin");
        // The control: with a second admin all of it works.
        set_role(&f, alice, &f.acme.member.name, Role::Admin).await.unwrap();
        set_role(&f, alice, &alice.name, Role::Member).await.unwrap();
        delete(&f, &f.acme.member, &alice.name).await.unwrap();
        assert!(f.login(&alice.key).await.is_err());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r04_of_two_admins_who_demote_each_other_at_once_one_stays() {
    on_every_backend(async |f| {
        let (alice, bob) = (&f.acme.admin, &f.acme.member);
        set_role(&f, alice, &bob.name, Role::Admin).await.unwrap();
        // Both are admins when they ask; the store must ask again when it acts.
        let (first, second) = (f.scope(alice).await, f.scope(bob).await);
        let first = permit::<SetRole>(&first, first.user_named(bob.name.clone()));
        let second = permit::<SetRole>(&second, second.user_named(alice.name.clone()));
        let (one, two) =
            tokio::join!(f.store.user_role_set(first, Role::Member), f.store.user_role_set(second, Role::Member));
        assert_eq!(usize::from(one.is_ok()) + usize::from(two.is_ok()), 1);
        assert_eq!(conflict(one.and(two)), "last_admin");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r05_a_role_holds_from_the_next_request_of_an_existing_key_on() {
    on_every_backend(async |f| {
        let before = f.scope(&f.acme.member).await;
        assert!(before.authorize::<CreateSpace>(before.account()).is_ok());
        set_role(&f, &f.acme.admin, &f.acme.member.name, Role::Viewer).await.unwrap();
        let after = f.scope(&f.acme.member).await;
        assert_eq!(after.authorize::<CreateSpace>(after.account()).err().unwrap().code(), Some("viewer_readonly"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v06_with_a_user_their_keys_spaces_sessions_and_grants_go() {
    on_every_backend(async |f| {
        let (admin, bob) = (&f.acme.admin, &f.acme.member);
        let own = f.session(bob).await;
        let shared = f.space(admin, "shared").await;
        f.grant(admin, &shared, bob, Some(bailiwick_types::GrantLevel::Write)).await;
        let scope = f.scope(bob).await;
        let shared_now = f.store.space_find(&scope, shared.id()).await.unwrap().unwrap();
        let new = bailiwick_store::session::NewSession { operation: None, first: None };
        let guest = f.session_in(&scope, &shared_now, new).await.unwrap().session;

        delete(&f, admin, &bob.name).await.unwrap();

        assert!(f.login(&bob.key).await.is_err());
        let scope = f.scope(admin).await;
        assert!(f.store.space_find(&scope, own.space().id()).await.unwrap().is_none());
        for session in [own.id(), guest.id()] {
            assert!(f.store.session_find(&scope, session).await.unwrap().is_none());
        }
        let space = f.store.space_find(&scope, shared.id()).await.unwrap().unwrap();
        assert!(f.store.grant_list(permit(&scope, space)).await.unwrap().is_empty());
        let list = f.store.user_list(permit::<ListUsers>(&scope, scope.account())).await.unwrap();
        assert!(list.iter().all(|user| user.name != bob.name));
        let read = permit::<ReadUser>(&scope, scope.user_named(bob.name.clone()));
        assert_eq!(not_found(f.store.user_read(read).await), "user");
        assert!(f.actions(&f.acme).await.contains(&"user.delete".to_owned()), "what was done stays on record");
        assert!(f.verify(&f.acme).await.is_ok());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v06_a_namesake_of_a_deleted_user_reads_none_of_the_earlier_ones_record() {
    on_every_backend(async |f| {
        let own = async |person: &Person| {
            let scope = f.scope(person).await;
            let filter = EventFilter { limit: 100, ..EventFilter::default() };
            f.store.event_list_own(permit::<ReadAudit>(&scope, scope.account()), filter).await.unwrap()
        };
        f.space(&f.acme.member, "secret plans").await;
        assert_eq!(own(&f.acme.member).await.len(), 1, "the control: the user reads their own");
        delete(&f, &f.acme.admin, &f.acme.member.name).await.unwrap();
        let again = fixture::user(&f.store, &f.walk, &f.acme.admin, "bob", Role::Member).await.unwrap();
        assert!(own(&again).await.is_empty());
        f.space(&again, "new").await;
        assert_eq!(own(&again).await.len(), 1);
        let all = f.events(&f.acme).await;
        assert_eq!(all.iter().filter(|event| event.draft.action == "space.create").count(), 2, "admins read both");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v06_a_namesake_of_an_approver_decides_nothing_that_the_earlier_one_was_asked() {
    on_every_backend(async |f| {
        let (admin, bob) = (&f.acme.admin, &f.acme.member);
        let session = f.session(admin).await;
        let lease = f.store.turn_lease(f.scope(admin).await.tenant(), session.id()).await.unwrap();
        let asked = ask_in(&f, &lease, asked(&session, admin, &[bob])).await;
        let may = async |person: &Person| {
            let scope = f.scope(person).await;
            let approval = f.store.approval_find(&scope, asked.id).await.unwrap().unwrap();
            scope.may::<DecideApproval>(&approval)
        };
        assert!(may(bob).await, "the control");
        delete(&f, admin, &bob.name).await.unwrap();
        let again = fixture::user(&f.store, &f.walk, admin, "bob", Role::Member).await.unwrap();
        assert!(!may(&again).await);
        assert!(may(admin).await, "the requester still may");
    })
    .await;
}
