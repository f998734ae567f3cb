//! Sessions: begun once for each operation, private to their space, and ended for good.

use std::collections::HashSet;

use bailiwick_auth::access::Session;
use bailiwick_auth::access::verb::{ControlSession, ListSessions, ReadSession, ReadSpace, SendSession};
use bailiwick_store::StoreError;
use bailiwick_store::session::{Fresh, NewSession, SessionState};
use bailiwick_store::turn::Change;
use bailiwick_types::{GrantLevel, SessionId};
use serde_json::json;

use crate::fixture::{Fixture, Person, conflict, not_found, permit};
use crate::on_every_backend;

fn operation(name: &str) -> NewSession {
    NewSession { operation: Some(name.into()), first: Some(("dlv_1".into(), json!({ "kind": "message" }))) }
}

async fn send(f: &Fixture, by: &Person, session: &Session, id: &str) -> Result<(), StoreError> {
    let scope = f.scope(by).await;
    let permit = permit::<SendSession>(&scope, session.clone());
    f.store.session_send(permit, id.into(), json!({ "kind": "message", "text": "hello" })).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_begun_once_for_each_operation_of_a_user() {
    on_every_backend(async |f| {
        let (bob, admin) = (&f.acme.member, &f.acme.admin);
        let space = f.space(bob, "work").await;
        f.grant(bob, &space, admin, Some(GrantLevel::Write)).await;
        let scope = f.scope(bob).await;
        let space = f.store.space_find(&scope, space.id()).await.unwrap().unwrap();
        let one = f.session_in(&scope, &space, operation("op-1")).await.unwrap();
        let again = f.session_in(&scope, &space, operation("op-1")).await.unwrap();
        assert_eq!((one.fresh, again.fresh), (Fresh::Yes, Fresh::No));
        assert_eq!(one.session.id(), again.session.id());
        let elsewhere = f.space(bob, "elsewhere").await;
        let elsewhere = f.store.space_find(&scope, elsewhere.id()).await.unwrap().unwrap();
        let mixed = f.session_in(&scope, &elsewhere, operation("op-1")).await;
        assert!(matches!(mixed, Err(StoreError::Conflict { code: "operation_mismatch", .. })));
        let other = f.session_in(&scope, &space, operation("op-2")).await.unwrap();
        assert_ne!(one.session.id(), other.session.id());
        let theirs = f.session_in(&f.scope(admin).await, &space, operation("op-1")).await.unwrap();
        assert_eq!(theirs.fresh, Fresh::Yes, "another user's operation of that name is another operation");
        let lease = f.store.turn_lease(scope.tenant(), one.session.id()).await.unwrap();
        assert_eq!(f.store.turn_standing(&lease).await.unwrap().deliveries.len(), 1, "one first message");
        let created = f.actions(&f.acme).await.iter().filter(|action| *action == "session.create").count();
        assert_eq!(created, 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_begin_one_operation_at_once_all_get_the_same_session() {
    on_every_backend(async |f| {
        let space = f.space(&f.acme.member, "work").await;
        let scope = f.scope(&f.acme.member).await;
        let begun: Vec<_> = (0..50)
            .map(|_| {
                let (store, (space, agent)) = (f.store.clone(), f.session_permits(&scope, &space));
                tokio::spawn(async move { store.session_create(space, agent, operation("op")).await.unwrap() })
            })
            .collect();
        let mut ids = HashSet::new();
        let mut fresh = 0;
        for begun in begun {
            let created = begun.await.unwrap();
            ids.insert(created.session.id());
            fresh += usize::from(created.fresh == Fresh::Yes);
        }
        assert_eq!((ids.len(), fresh), (1, 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a04_a_session_of_another_tenant_or_another_users_space_is_not_there() {
    on_every_backend(async |f| {
        let theirs = f.session(&f.globex.member).await;
        for person in [&f.acme.admin, &f.acme.member] {
            let scope = f.scope(person).await;
            assert!(f.store.session_find(&scope, theirs.id()).await.unwrap().is_none());
            assert_eq!(scope.authorize::<ReadSession>(theirs.clone()).err().unwrap().code(), None);
        }
        let colleague = f.session(&f.acme.member).await;
        let scope = f.scope(&f.acme.viewer).await;
        assert_eq!(scope.authorize::<ReadSession>(colleague.clone()).err().unwrap().code(), None);
        assert!(f.scope(&f.acme.member).await.authorize::<ReadSession>(colleague).is_ok(), "the control");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a04_who_loses_the_grant_loses_the_sessions_in_that_space() {
    on_every_backend(async |f| {
        let (owner, bob) = (&f.acme.admin, &f.acme.member);
        let space = f.space(owner, "shared").await;
        f.grant(owner, &space, bob, Some(GrantLevel::Write)).await;
        let scope = f.scope(bob).await;
        let space = f.store.space_find(&scope, space.id()).await.unwrap().unwrap();
        let none = NewSession { operation: None, first: None };
        let session = f.session_in(&scope, &space, none).await.unwrap().session;
        let listed = async || {
            let scope = f.scope(bob).await;
            f.store.session_list(permit::<ListSessions>(&scope, scope.account()), 10).await.unwrap().len()
        };
        assert_eq!(listed().await, 1);
        let all = f.scope(owner).await;
        let reads = permit::<ReadSpace>(&all, f.store.space_find(&all, space.id()).await.unwrap().unwrap());
        assert_eq!(f.store.session_list_in(&reads, 10).await.unwrap().len(), 1, "the space's owner reads it");
        f.grant(owner, &space, bob, None).await;
        assert_eq!(listed().await, 0);
        // Not there at all, or, where the database does not know users, refused as if it were not.
        if let Some(now) = f.store.session_find(&f.scope(bob).await, session.id()).await.unwrap() {
            assert_eq!(f.scope(bob).await.authorize::<SendSession>(now).err().unwrap().code(), None);
        }
        assert!(f.store.session_find(&all, session.id()).await.unwrap().is_some(), "the control");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_sent_waits_in_order_up_to_a_bound() {
    on_every_backend(async |f| {
        let session = f.session(&f.acme.member).await;
        for n in 0..64 {
            send(&f, &f.acme.member, &session, &format!("dlv_{n}")).await.unwrap();
        }
        assert_eq!(conflict(send(&f, &f.acme.member, &session, "dlv_64").await), "session_not_ready");
        let scope = f.scope(&f.acme.member).await;
        let lease = f.store.turn_lease(scope.tenant(), session.id()).await.unwrap();
        let waiting = f.store.turn_standing(&lease).await.unwrap().deliveries;
        assert!(waiting.iter().enumerate().all(|(n, delivery)| delivery.id == format!("dlv_{n}")));
        assert_eq!(waiting[0].caller.user, f.acme.member.name);
        let taken = waiting.iter().map(|delivery| delivery.n).collect();
        f.store.turn_commit(&lease, Change { taken, ..Change::default() }).await.unwrap();
        send(&f, &f.acme.member, &session, "dlv_65").await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e08_a_message_is_not_on_record_but_that_it_was_sent_is() {
    on_every_backend(async |f| {
        let session = f.session(&f.acme.member).await;
        send(&f, &f.acme.member, &session, "dlv_1").await.unwrap();
        let event = f.events(&f.acme).await.pop().unwrap();
        assert_eq!(event.draft.action, "session.send");
        assert_eq!(event.draft.detail["delivery"], json!("dlv_1"));
        assert!(!format!("{event:?}").contains("hello"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ended_session_takes_nothing_more() {
    on_every_backend(async |f| {
        // Control: how the last turn ended does not end the session.
        for (state, takes) in
            [(SessionState::Failed, true), (SessionState::Canceled, true), (SessionState::Done, false)]
        {
            let session = f.session(&f.acme.member).await;
            send(&f, &f.acme.member, &session, "dlv_1").await.unwrap();
            let scope = f.scope(&f.acme.member).await;
            let lease = f.store.turn_lease(scope.tenant(), session.id()).await.unwrap();
            f.store.turn_commit(&lease, Change { state: Some(state), ..Change::default() }).await.unwrap();
            let sent = send(&f, &f.acme.member, &session, "dlv_2").await;
            let control = permit::<ControlSession>(&scope, session.clone());
            let control = f.store.session_control(control, "dlv_3".into(), json!({ "kind": "cancel" })).await;
            if takes {
                sent.unwrap();
                control.unwrap();
            } else {
                assert_eq!(conflict(sent), "session_not_active");
                assert_eq!(conflict(control), "session_not_active");
            }
            let row = f.store.session_read(&permit::<ReadSession>(&scope, session)).await.unwrap();
            assert_eq!(row.state, state);
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e02_a_stream_is_read_from_any_number_on_and_wakes_those_who_watch() {
    on_every_backend(async |f| {
        let session = f.session(&f.acme.member).await;
        let scope = f.scope(&f.acme.member).await;
        let read = permit::<ReadSession>(&scope, session.clone());
        let mut watch = f.store.session_watch(&read).unwrap();
        let lease = f.store.turn_lease(scope.tenant(), session.id()).await.unwrap();
        for n in 0..5 {
            let events = vec![("step.started", json!({ "n": n }))];
            f.store.turn_commit(&lease, Change { events, ..Change::default() }).await.unwrap();
        }
        tokio::time::timeout(std::time::Duration::from_secs(5), watch.changed()).await.unwrap().unwrap();
        let lines = f.store.session_events(&read, 3, 10).await.unwrap();
        let numbers: Vec<_> = lines
            .iter()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["data"]["n"].clone())
            .collect();
        assert_eq!(numbers, [json!(3), json!(4)]);
        assert_eq!(f.store.session_events(&read, 0, 2).await.unwrap().len(), 2);
        assert!(f.store.session_events(&read, 5, 10).await.unwrap().is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e02_a_page_of_a_stream_is_bounded_by_its_bytes_and_nothing_is_left_out() {
    on_every_backend(async |f| {
        const PAGE: usize = 512 * 1024;
        let (long, short) = (f.session(&f.acme.member).await, f.session(&f.globex.member).await);
        // Two bytes a character: it is bytes that are counted. One event is longer than a page.
        let texts = |session: &Session| match session.id() == long.id() {
            true => [50_000, 50_000, 50_000, 300_000, 10, 50_000, 200_000, 100_000].map(|n| "ä".repeat(n)),
            false => [1, 2, 3, 4, 5, 6, 7, 8].map(|n| "ä".repeat(n)),
        };
        for (person, session) in [(&f.acme.member, &long), (&f.globex.member, &short)] {
            let scope = f.scope(person).await;
            let lease = f.store.turn_lease(scope.tenant(), session.id()).await.unwrap();
            for text in texts(session) {
                let events = vec![("step.started", json!({ "text": text }))];
                f.store.turn_commit(&lease, Change { events, ..Change::default() }).await.unwrap();
            }
            let read = permit::<ReadSession>(&scope, session.clone());
            let (mut all, mut pages) = (Vec::new(), 0);
            loop {
                let page = f.store.session_events(&read, all.len() as u64, 1000).await.unwrap();
                if page.is_empty() {
                    break;
                }
                let bytes: usize = page.iter().map(String::len).sum();
                assert!(bytes <= PAGE || page.len() == 1, "{bytes} bytes in {} events", page.len());
                all.extend(page);
                pages += 1;
            }
            let seen = all.iter().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
            let seen: Vec<_> = seen.map(|event| event["data"]["text"].as_str().unwrap().to_owned()).collect();
            assert_eq!(seen.len(), 8);
            assert!(seen == texts(session), "every event once, in order");
            // Short ones are one page.
            assert_eq!(pages, if session.id() == long.id() { 4 } else { 1 });
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_begins_neither_in_a_space_that_is_gone_nor_with_an_agent_that_is_not_there() {
    on_every_backend(async |f| {
        let space = f.space(&f.acme.member, "work").await;
        let scope = f.scope(&f.acme.member).await;
        let (create, agent) = f.session_permits(&scope, &space);
        f.store.space_delete(permit(&scope, space)).await.unwrap();
        let none = NewSession { operation: None, first: None };
        assert_eq!(not_found(f.store.session_create(create, agent, none).await), "space");
        assert!(f.store.session_find(&scope, SessionId::new()).await.unwrap().is_none());
    })
    .await;
}
