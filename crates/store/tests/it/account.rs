//! Accounts: made once, gone for good, and never confused with a namesake.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bailiwick_auth::access::verb::{
    CreateAccount, CreateSpace, CreateUser, DeleteAccount, ListAccounts, PutPolicy, ReadAccountAudit, ReadHostAudit,
    ReadPolicy, ReadSpace, SendSession, WriteSpace,
};
use bailiwick_auth::access::{Journal, record};
use bailiwick_auth::authn::Rejection;
use bailiwick_store::account::NewAccount;
use bailiwick_store::log::EventFilter;
use bailiwick_store::{DatabaseUrl, StoreError};
use bailiwick_types::{RequestId, Role, WorkspacePath};
use serde_json::{Map, json};

use crate::fixture::{self, Fixture, ROOT_KEY, not_found, permit};
use crate::hood::Hood;
use crate::on_every_backend;

async fn names(f: &Fixture) -> Vec<(String, u64)> {
    let list = f.operator().await.host_scope(RequestId::new()).authorize::<ListAccounts>().unwrap();
    let rows = f.store.account_list(list).await.unwrap();
    rows.into_iter().map(|row| (row.name.to_string(), row.users)).collect()
}

async fn delete(f: &Fixture, name: &str) -> Result<(), StoreError> {
    let permit = f.operator().await.host_scope(RequestId::new()).authorize::<DeleteAccount>().unwrap();
    f.store.account_delete(permit, name.parse().unwrap()).await.map(drop)
}

#[tokio::test(flavor = "multi_thread")]
async fn r08_the_operator_lists_accounts_and_sees_how_many_users_they_have() {
    on_every_backend(async |f| {
        assert_eq!(names(&f).await, [("acme".to_owned(), 3), ("globex".to_owned(), 3)]);
        let user = f.login(&f.acme.admin.key).await.unwrap().host_scope(RequestId::new());
        let refused = user.authorize::<ListAccounts>().err().unwrap();
        assert_eq!(refused.code(), Some("operator_only"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_account_of_the_same_name_is_refused_and_leaves_nothing() {
    on_every_backend(async |f| {
        let before = std::fs::read_dir(f.dir().join("accounts")).unwrap().count();
        let again = fixture::account(&f.store, &f.walk, "acme").await;
        assert!(matches!(again, Err(StoreError::Exists { kind: "account", .. })));
        assert_eq!(std::fs::read_dir(f.dir().join("accounts")).unwrap().count(), before);
        assert!(f.login(&f.acme.admin.key).await.is_ok());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_create_one_account_at_once_one_wins_and_the_others_leave_nothing() {
    on_every_backend(async |f| {
        let before = std::fs::read_dir(f.dir().join("accounts")).unwrap().count();
        let attempts: Vec<_> = (0..12)
            .map(|_| {
                let store = f.store.clone();
                tokio::spawn(async move { fixture::account(&store, &fixture::walk(), "initech").await })
            })
            .collect();
        let mut won = Vec::new();
        for attempt in attempts {
            match attempt.await.unwrap() {
                Ok(admin) => won.push(admin),
                Err(error) => assert!(matches!(error, StoreError::Exists { .. }), "{error:?}"),
            }
        }
        assert_eq!(won.len(), 1);
        assert!(f.login(&won[0].key).await.is_ok());
        assert_eq!(std::fs::read_dir(f.dir().join("accounts")).unwrap().count(), before + 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_account_of_a_server_is_made_once() {
    on_every_backend(async |f| {
        let new = || NewAccount { name: "default".parse().unwrap(), admin: None, agents: Vec::new() };
        f.store.account_bootstrap(new()).await.unwrap();
        f.store.account_bootstrap(new()).await.unwrap();
        let account = "default".parse().unwrap();
        for _ in 0..2 {
            f.store.user_bootstrap(&account, "default".parse().unwrap(), Role::Admin).await.unwrap();
        }
        assert!(names(&f).await.contains(&("default".to_owned(), 1)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v06_with_an_account_its_keys_rows_and_files_go_and_its_log_stays() {
    on_every_backend(async |f| {
        const SECRET: &str = "wolpertinger-47";
        let session = f.session(&f.acme.member).await;
        let scope = f.scope(&f.acme.member).await;
        let send = permit::<SendSession>(&scope, session.clone());
        let message = json!({ "kind": "message", "text": SECRET });
        f.store.session_send(send, "dlv_1".into(), message).await.unwrap();
        let path = WorkspacePath::parse("notes.txt").unwrap();
        let files = f.store.space_files_to_write(&permit(&scope, session.space().clone())).await.unwrap();
        files.write(&path, SECRET.as_bytes()).unwrap();
        let dir = account_dir(&f, &scope);
        let hood = Hood::of(&f, &scope).await;
        assert_eq!(
            holding(&dir, SECRET) + hood.mentions(SECRET).await,
            2,
            "the control: the words are in the database's files and in the file"
        );
        let events = f.events(&f.acme).await.len();

        delete(&f, "acme").await.unwrap();

        for key in [&f.acme.admin.key, &f.acme.member.key, &f.acme.viewer.key] {
            assert!(matches!(f.login(key).await, Err(Rejection::Invalid)));
        }
        assert_eq!(names(&f).await, [("globex".to_owned(), 3)]);
        assert!(f.login(&f.globex.admin.key).await.is_ok(), "the neighbour lives");
        assert_eq!(
            holding(&dir, SECRET) + hood.mentions(SECRET).await,
            0,
            "nothing of it is left, in a file's free pages neither"
        );
        assert!(!dir.join("spaces").exists());

        let log = hood.rows(&scope, "event").await;
        assert_eq!(
            log,
            i64::try_from(events).unwrap() + 1,
            "the log is all that is left, with the deletion as its last line"
        );
        for table in ["account_user", "api_key", "space", "session", "delivery", "agent", "space_grant"] {
            assert_eq!(hood.rows(&scope, table).await, 0, "{table}");
        }
        hood.verify(&scope).await;
        let host = f.operator().await.host_scope(RequestId::new()).authorize::<ReadHostAudit>().unwrap();
        let filter = EventFilter { limit: 100, action: Some("account.delete".into()), ..EventFilter::default() };
        let deletions = f.store.event_list_host(host, filter).await.unwrap();
        assert_eq!(deletions[0].draft.resource, "account:acme");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v06_a_namesake_of_a_deleted_account_inherits_nothing() {
    on_every_backend(async |f| {
        f.session(&f.acme.member).await;
        let first = f.scope(&f.acme.admin).await;
        delete(&f, "acme").await.unwrap();
        let alice = fixture::account(&f.store, &f.walk, "acme").await.unwrap();
        let bob = fixture::user(&f.store, &f.walk, &alice, "bob", Role::Member).await.unwrap();
        assert!(f.login(&bob.key).await.is_ok());
        let second = f.scope(&alice).await;
        assert!(first.tenant() != second.tenant());
        assert_ne!(first.tenant().jail_user(), second.tenant().jail_user(), "files left behind are nobody's");
        assert!(f.login(&f.acme.admin.key).await.is_err(), "an old key opens nothing of the new one");
        let list = f.store.space_list(permit(&second, second.account())).await.unwrap();
        assert!(list.iter().all(|space| space.name == "Personal"), "{list:?}");
        let log = permit::<ReadAccountAudit>(&second, second.account());
        let log = f.store.event_list(log, EventFilter { limit: 100, ..EventFilter::default() }).await.unwrap();
        let actions: Vec<_> = log.iter().map(|event| event.draft.action.as_str()).collect();
        assert_eq!(actions, ["account.create", "user.create"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v06_who_still_holds_a_permit_of_a_deleted_account_changes_nothing() {
    on_every_backend(async |f| {
        let scope = f.scope(&f.acme.member).await;
        let admin = f.scope(&f.acme.admin).await;
        let space = f.space(&f.acme.member, "work").await;
        let dir = account_dir(&f, &scope);
        delete(&f, "acme").await.unwrap();

        let create = permit::<CreateSpace>(&scope, scope.account());
        assert_eq!(not_found(f.store.space_create(create, "late".into(), String::new()).await), "account");
        let key = f.walk.ring().make().unwrap();
        let user = permit::<CreateUser>(&admin, admin.account());
        not_found(f.store.user_create(user, "mallory".parse().unwrap(), Role::Admin, &key, None).await);
        assert!(f.login(&key.into_text()).await.is_err());
        not_found(f.store.space_files_to_write(&permit::<WriteSpace>(&scope, space.clone())).await);
        not_found(f.store.space_files(&permit::<ReadSpace>(&scope, space.clone())).await);
        assert!(!dir.join("spaces").exists());
        let hood = Hood::of(&f, &scope).await;
        for table in ["account_user", "space"] {
            assert_eq!(hood.rows(&scope, table).await, 0, "{table}");
        }
        // What was begun outside the database may still end on record.
        let write = permit::<WriteSpace>(&scope, space);
        let recorded = record(&f.store, write, Map::new()).await.unwrap();
        let outcome = recorded.outcome(bailiwick_audit::Verdict::Fail, Map::new());
        f.store.append(&scope, outcome).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v06_a_deletion_that_a_crash_cut_short_is_finished_at_the_next_start() {
    on_every_backend(async |f| {
        let session = f.session(&f.acme.member).await;
        let scope = f.scope(&f.acme.member).await;
        let files = f.store.space_files_to_write(&permit(&scope, session.space().clone())).await.unwrap();
        files.write(&WorkspacePath::parse("a.txt").unwrap(), b"left").unwrap();
        let dir = account_dir(&f, &scope);
        drop(files);
        // As if the server had died right after the host's row was gone.
        let (host, life) = (Hood::of_host(&f).await, scope.tenant().incarnation());
        host.run("DELETE FROM account WHERE name = 'acme'").await;
        host.run(&format!("DELETE FROM key_locator WHERE incarnation = '{life}'")).await;
        drop(host);
        let f = f.restart();
        assert!(f.login(&f.acme.member.key).await.is_err(), "it is gone before anything is cleaned up");
        assert!(dir.join("spaces").exists(), "the control");
        f.store.purge_leftovers().await.unwrap();
        assert!(!dir.join("spaces").exists());
        let hood = Hood::of(&f, &scope).await;
        assert_eq!(hood.rows(&scope, "session").await, 0);
        assert!(hood.rows(&scope, "event").await > 0);
        f.store.purge_leftovers().await.unwrap();
        assert!(f.login(&f.globex.member.key).await.is_ok());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn v06_an_account_that_was_never_made_does_not_keep_others_from_being_cleaned() {
    on_every_backend(async |f| {
        let scope = f.scope(&f.acme.member).await;
        let left = account_dir(&f, &scope).join("spaces").join(bailiwick_types::SpaceId::new().to_string());
        std::fs::create_dir(&left).unwrap();
        // As if the server had died between the folder and its database; several, whatever the order.
        let unmade: Vec<_> =
            (0..8).map(|_| f.dir().join("accounts").join(bailiwick_types::Incarnation::new().to_string())).collect();
        for dir in &unmade {
            std::fs::create_dir_all(dir.join("spaces")).unwrap();
        }
        let f = f.restart();
        assert!(left.exists(), "the control");
        f.store.purge_leftovers().await.unwrap();
        assert!(!left.exists());
        assert_eq!(unmade.iter().filter(|dir| dir.exists()).count(), 0);
        assert!(f.login(&f.acme.member.key).await.is_ok());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_what_is_not_there_says_so() {
    on_every_backend(async |f| {
        assert_eq!(not_found(delete(&f, "initech").await), "account");
        delete(&f, "acme").await.unwrap();
        assert_eq!(not_found(delete(&f, "acme").await), "account");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_accounts_policy_holds_from_the_next_request_on_and_only_there() {
    on_every_backend(async |f| {
        let admin = f.scope(&f.acme.admin).await;
        let text = r#"@id("no-new-spaces") forbid (principal, action == Action::"space.create", resource);"#;
        let put = permit::<PutPolicy>(&admin, admin.account());
        f.store.policy_put(put, text.into()).await.unwrap().unwrap();
        let member = f.scope(&f.acme.member).await;
        assert_eq!(member.authorize::<CreateSpace>(member.account()).err().unwrap().code(), Some("account_policy"));
        let other = f.scope(&f.globex.member).await;
        assert!(other.authorize::<CreateSpace>(other.account()).is_ok());
        let read = f.store.policy_read(permit::<ReadPolicy>(&admin, admin.account())).await.unwrap();
        assert_eq!(read, text);

        let wider = r#"permit (principal, action, resource);"#;
        let put = permit::<PutPolicy>(&admin, admin.account());
        assert!(f.store.policy_put(put, wider.into()).await.unwrap().is_err(), "an account cannot permit");
        let f = f.restart();
        let member = f.scope(&f.acme.member).await;
        assert!(member.authorize::<CreateSpace>(member.account()).is_err(), "it outlives a restart");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b07_all_files_of_the_store_are_the_servers_alone_in_a_directory_that_is_not() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let store = bailiwick_store::Store::open(dir.path(), &DatabaseUrl::Sqlite).unwrap();
    fixture::account(&store, &fixture::walk(), "acme").await.unwrap();
    let mut seen = 0;
    walk_tree(dir.path(), &mut |path| {
        let metadata = path.symlink_metadata().unwrap();
        let mode = metadata.permissions().mode() & 0o777;
        // A folder may be passed through, by its full name; nothing can be listed, read or written.
        let others = if metadata.is_dir() { 0o066 } else { 0o077 };
        assert_eq!(mode & others, 0, "{} is {mode:o}", path.display());
        seen += usize::from(metadata.is_file());
    });
    assert!(seen >= 5, "control.db, account.db, their logs, and the lock: {seen}");
}

#[tokio::test(flavor = "multi_thread")]
async fn v01_the_root_key_is_not_a_user_of_any_account() {
    on_every_backend(async |f| {
        let operator = f.login(ROOT_KEY).await.unwrap();
        assert!(operator.scope(RequestId::new()).is_err());
        let scope = f.set_up(&f.acme).await;
        assert!(scope.authorize::<CreateSpace>(scope.account()).is_err(), "the operator sets up, and works nowhere");
        let made = f.operator().await.host_scope(RequestId::new()).authorize::<CreateAccount>();
        assert!(made.is_ok(), "the control");
    })
    .await;
}

pub(crate) fn account_dir(f: &Fixture, scope: &bailiwick_auth::Scope) -> PathBuf {
    f.dir().join("accounts").join(scope.tenant().incarnation().to_string())
}

pub(crate) fn walk_tree(dir: &Path, see: &mut impl FnMut(&Path)) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        see(&path);
        if path.is_dir() {
            walk_tree(&path, see);
        }
    }
}

/// Files of the database, taken as one, and other files that hold these words.
pub(crate) fn holding(dir: &Path, words: &str) -> usize {
    let (mut database, mut files) = (0, 0);
    walk_tree(dir, &mut |path| {
        if path.is_file() && std::fs::read(path).unwrap().windows(words.len()).any(|w| w == words.as_bytes()) {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if name.starts_with("account.db") { database = 1 } else { files += 1 }
        }
    });
    database + files
}
