//! Spaces: private until granted, invisible to strangers, gone when deleted.

use bailiwick_auth::access::verb::{
    CreateSpace, DeleteSpace, GrantSpace, ListSpaces, ReadSpace, SeeSpace, UpdateSpace, WriteSpace,
};
use bailiwick_store::StoreError;
use bailiwick_store::space::Personal;
use bailiwick_types::{GrantLevel, SpaceId, WorkspacePath};
use serde_json::json;

use crate::fixture::{Fixture, Person, conflict, not_found, permit};
use crate::on_every_backend;

async fn names(f: &Fixture, person: &Person) -> Vec<String> {
    let scope = f.scope(person).await;
    let rows = f.store.space_list(permit::<ListSpaces>(&scope, scope.account())).await.unwrap();
    let mut names: Vec<_> = rows.into_iter().map(|row| row.name).collect();
    names.sort();
    names
}

#[tokio::test(flavor = "multi_thread")]
async fn a02_a_list_of_spaces_holds_ones_own_and_those_granted_and_nothing_else() {
    on_every_backend(async |f| {
        let (bob, vera) = (&f.acme.member, &f.acme.viewer);
        f.space(bob, "mine").await;
        let shared = f.space(&f.acme.admin, "shared").await;
        f.space(&f.acme.admin, "hidden").await;
        f.space(&f.globex.member, "foreign").await;
        assert_eq!(names(&f, bob).await, ["Personal", "mine"]);
        f.grant(&f.acme.admin, &shared, bob, Some(GrantLevel::Read)).await;
        assert_eq!(names(&f, bob).await, ["Personal", "mine", "shared"]);
        assert_eq!(names(&f, vera).await, ["Personal"]);
        assert_eq!(names(&f, &f.globex.member).await, ["Personal", "foreign"]);
        f.grant(&f.acme.admin, &shared, bob, None).await;
        assert_eq!(names(&f, bob).await, ["Personal", "mine"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a03_another_tenants_space_is_not_there_under_any_verb() {
    on_every_backend(async |f| {
        let theirs = f.space(&f.globex.member, "theirs").await;
        for person in [&f.acme.member, &f.acme.admin] {
            let scope = f.scope(person).await;
            let found = f.store.space_find(&scope, theirs.id()).await.unwrap();
            assert!(found.is_none());
            let never = f.store.space_find(&scope, SpaceId::new()).await.unwrap();
            assert!(never.is_none(), "as one that never was");
            // Even with the resource in hand, as no caller of another tenant can have it.
            macro_rules! refused {
                ($($verb:ty),*) => {$(
                    assert_eq!(scope.authorize::<$verb>(theirs.clone()).err().unwrap().code(), None);
                )*};
            }
            refused!(SeeSpace, ReadSpace, WriteSpace, UpdateSpace, GrantSpace, DeleteSpace);
        }
        let owner = f.scope(&f.globex.member).await;
        assert!(f.store.space_find(&owner, theirs.id()).await.unwrap().is_some(), "the control");
        assert!(owner.authorize::<ReadSpace>(theirs).is_ok());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a03_a_colleagues_space_reads_as_missing_until_granted_and_each_level_opens_what_it_says() {
    on_every_backend(async |f| {
        let (owner, bob) = (&f.acme.admin, &f.acme.member);
        let space = f.space(owner, "work").await;
        let can = async || {
            let scope = f.scope(bob).await;
            // Not there at all, where the database knows users.
            let Some(space) = f.store.space_find(&scope, space.id()).await.unwrap() else { return [false; 5] };
            [
                scope.may::<SeeSpace>(&space),
                scope.may::<ReadSpace>(&space),
                scope.may::<WriteSpace>(&space),
                scope.may::<GrantSpace>(&space),
                scope.may::<DeleteSpace>(&space),
            ]
        };
        assert_eq!(can().await, [false; 5]);
        f.grant(owner, &space, bob, Some(GrantLevel::Read)).await;
        assert_eq!(can().await, [true, true, false, false, false]);
        f.grant(owner, &space, bob, Some(GrantLevel::Write)).await;
        assert_eq!(can().await, [true, true, true, false, false]);
        f.grant(owner, &space, bob, Some(GrantLevel::Manage)).await;
        assert_eq!(can().await, [true, true, true, true, false]);
        f.grant(owner, &space, bob, None).await;
        assert_eq!(can().await, [false; 5]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a11_the_owner_of_a_new_space_is_the_one_whose_key_was_shown() {
    on_every_backend(async |f| {
        let scope = f.scope(&f.acme.member).await;
        let create = permit::<CreateSpace>(&scope, scope.account());
        let row = f.store.space_create(create, "x".into(), "owner: alice".into()).await.unwrap();
        assert_eq!(row.owner, f.acme.member.name);
        assert_eq!(row.personal, Personal::No);
        let event = f.events(&f.acme).await.pop().unwrap();
        assert_eq!(event.draft.actor.user(), Some(&f.acme.member.name));
        assert_eq!(event.draft.space, Some(row.id));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a12_an_admin_sees_and_deletes_a_users_space_but_reads_it_only_after_a_grant_on_record() {
    on_every_backend(async |f| {
        let (admin, bob) = (&f.acme.admin, &f.acme.member);
        let space = f.space(bob, "private").await;
        let scope = f.scope(admin).await;
        assert!(names(&f, admin).await.contains(&"private".to_owned()));
        assert!(names(&f, &f.acme.viewer).await.iter().all(|name| name != "private"));
        let refused = scope.authorize::<ReadSpace>(space.clone()).err().unwrap();
        assert_eq!(refused.code(), Some("forbidden"), "it is no secret that it exists");
        f.grant(admin, &space, admin, Some(GrantLevel::Read)).await;
        let now = f.store.space_find(&scope, space.id()).await.unwrap().unwrap();
        assert!(scope.authorize::<ReadSpace>(now).is_ok());
        let event = f.events(&f.acme).await.pop().unwrap();
        assert_eq!((event.draft.action.as_str(), event.draft.actor.user()), ("space.grant", Some(&admin.name)));
        assert_eq!(event.draft.detail["user"], json!("alice"));
        f.store.space_delete(permit::<DeleteSpace>(&scope, space.clone())).await.unwrap();
        assert!(f.store.space_find(&scope, space.id()).await.unwrap().is_none());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a04_a_grant_reaches_only_users_of_the_same_account() {
    on_every_backend(async |f| {
        let space = f.space(&f.acme.admin, "work").await;
        let scope = f.scope(&f.acme.admin).await;
        let grant = permit::<GrantSpace>(&scope, space.clone());
        let stranger = "stranger".parse().unwrap();
        assert_eq!(not_found(f.store.grant_set(grant, stranger, Some(GrantLevel::Read)).await), "user");
        // `bob` is a user of both accounts: the grant is acme's.
        f.grant(&f.acme.admin, &space, &f.acme.member, Some(GrantLevel::Read)).await;
        assert!(names(&f, &f.acme.member).await.contains(&"work".to_owned()));
        assert!(!names(&f, &f.globex.member).await.contains(&"work".to_owned()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a09_a_plan_lives_in_its_space_and_survives_a_restart() {
    on_every_backend(async |f| {
        let (one, two) = (f.space(&f.acme.member, "one").await, f.space(&f.acme.member, "two").await);
        let plan = json!([{ "step": "read", "status": "done" }, { "step": "write", "status": "open" }]);
        let scope = f.scope(&f.acme.member).await;
        f.store.plan_write(permit::<WriteSpace>(&scope, one.clone()), plan.clone()).await.unwrap();
        let f = f.restart();
        let scope = f.scope(&f.acme.member).await;
        let one = f.store.space_find(&scope, one.id()).await.unwrap().unwrap();
        assert_eq!(f.store.plan_read(&permit::<ReadSpace>(&scope, one)).await.unwrap(), plan);
        assert_eq!(f.store.plan_read(&permit::<ReadSpace>(&scope, two)).await.unwrap(), json!([]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_space_is_renamed_and_deleted_with_its_files_and_sessions() {
    on_every_backend(async |f| {
        let session = f.session(&f.acme.member).await;
        let scope = f.scope(&f.acme.member).await;
        let space = session.space().clone();
        let update = permit::<UpdateSpace>(&scope, space.clone());
        let row = f.store.space_update(update, Some("renamed".into()), None).await.unwrap();
        assert_eq!((row.name.as_str(), row.description.as_str()), ("renamed", ""));
        let files = f.store.space_files_to_write(&permit(&scope, space.clone())).await.unwrap();
        files.write(&WorkspacePath::parse("a.txt").unwrap(), b"x").unwrap();
        let dir = crate::account::account_dir(&f, &scope).join("spaces").join(space.id().to_string());
        assert!(dir.join("a.txt").exists());

        let held = permit::<WriteSpace>(&scope, space.clone());
        f.store.space_delete(permit::<DeleteSpace>(&scope, space.clone())).await.unwrap();
        assert!(!dir.exists());
        assert!(f.store.session_find(&scope, session.id()).await.unwrap().is_none());
        not_found(f.store.space_files_to_write(&held).await);
        assert!(!dir.exists(), "a permit that outlived it makes no new folder");
        let events = f.actions(&f.acme).await.len();
        not_found(f.store.plan_write(held, json!([])).await);
        assert_eq!(f.actions(&f.acme).await.len(), events, "and nothing says that it was written to");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v06_the_words_of_a_deleted_space_are_in_no_file_of_a_running_server() {
    on_every_backend(async |f| {
        const WORDS: &str = "wolpertinger-48";
        let space = f.space(&f.acme.member, "work").await;
        let scope = f.scope(&f.acme.member).await;
        f.store.plan_write(permit::<WriteSpace>(&scope, space.clone()), json!([WORDS])).await.unwrap();
        let dir = crate::account::account_dir(&f, &scope);
        let hood = crate::hood::Hood::of(&f, &scope).await;
        assert_eq!(crate::account::holding(&dir, WORDS) + hood.mentions(WORDS).await, 1, "the control");
        f.store.space_delete(permit::<DeleteSpace>(&scope, space)).await.unwrap();
        assert_eq!(crate::account::holding(&dir, WORDS) + hood.mentions(WORDS).await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_personal_space_is_there_from_the_start_and_stays() {
    on_every_backend(async |f| {
        let scope = f.scope(&f.acme.member).await;
        let personal = f.store.space_personal(&scope).await.unwrap();
        let row = f.store.space_see(permit::<SeeSpace>(&scope, personal.clone())).await.unwrap();
        assert_eq!((row.owner, row.personal), (f.acme.member.name.clone(), Personal::Yes));
        let delete = f.store.space_delete(permit::<DeleteSpace>(&scope, personal.clone())).await;
        assert_eq!(conflict(delete), "personal_space");
        let other = f.scope(&f.globex.member).await;
        assert_ne!(f.store.space_personal(&other).await.unwrap().id(), personal.id());
        let operator = f.set_up(&f.acme).await;
        assert!(matches!(f.store.space_personal(&operator).await, Err(StoreError::NotFound { .. })));
    })
    .await;
}
