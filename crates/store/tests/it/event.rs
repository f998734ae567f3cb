//! The log: gapless, in the transaction of its act, readable by those who may, and never in the way.

use std::time::{Duration, Instant};

use bailiwick_audit::{Actor, Draft, Phase, Verdict};
use bailiwick_auth::access::verb::{
    CreateSpace, DeleteSpace, GrantSpace, ReadAccountAudit, ReadAudit, ReadHostAudit, ReadSpace,
};
use bailiwick_auth::access::{Journal, record};
use bailiwick_store::StoreError;
use bailiwick_store::log::{EventFilter, Order};
use bailiwick_types::RequestId;
use serde_json::Map;

use crate::fixture::{Fixture, permit};
use crate::hood::Hood;
use crate::on_every_backend;

pub(crate) fn draft(action: &str) -> Draft {
    Draft {
        actor: Actor::Service("test".into()),
        credential: "none".into(),
        address: "127.0.0.1".into(),
        request: None,
        action: action.into(),
        resource: "host:this".into(),
        space: None,
        agent: None,
        phase: Phase::Observation,
        verdict: Verdict::Ok,
        intent: None,
        detail: Map::new(),
    }
}

/// Waits until everything queued before this has been written.
pub(crate) async fn queue_is_empty(f: &Fixture) {
    let scope = f.scope(&f.acme.admin).await;
    f.store.append(&scope, draft("test.fence")).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn e03_two_hundred_writers_at_once_leave_no_gap_and_no_double() {
    on_every_backend(async |f| {
        let before = f.events(&f.acme).await.len();
        let scope = f.scope(&f.acme.member).await;
        let writers: Vec<_> = (0..200)
            .map(|n| {
                let (store, scope) = (f.store.clone(), scope.clone());
                tokio::spawn(async move {
                    let create = permit::<CreateSpace>(&scope, scope.account());
                    store.space_create(create, format!("space {n}"), String::new()).await.unwrap()
                })
            })
            .collect();
        for writer in writers {
            writer.await.unwrap();
        }
        let events = f.events(&f.acme).await;
        assert_eq!(events.len(), before + 200);
        assert!(events.iter().enumerate().all(|(n, event)| event.seq == n as u64));
        let head = f.verify(&f.acme).await.unwrap();
        assert_eq!(head.size, events.len() as u64);
        assert!(f.verify(&f.globex).await.is_ok());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e06_an_act_that_fails_leaves_no_event_and_an_act_whose_event_fails_is_not_done() {
    on_every_backend(async |f| {
        let scope = f.scope(&f.acme.admin).await;
        let personal = f.store.space_personal(&scope).await.unwrap();
        let before = f.events(&f.acme).await.len();
        let delete = permit::<DeleteSpace>(&scope, personal.clone());
        assert!(f.store.space_delete(delete).await.is_err());
        let grant = permit::<GrantSpace>(&scope, personal);
        assert!(f.store.grant_set(grant, "nobody".parse().unwrap(), None).await.is_ok(), "taking nothing is no error");
        assert_eq!(f.events(&f.acme).await.len(), before + 1);

        // Now the log cannot be written at all.
        let hood = Hood::of(&f, &scope).await;
        hood.run("ALTER TABLE event RENAME TO hidden").await;
        let member = f.scope(&f.acme.member).await;
        let create = permit::<CreateSpace>(&member, member.account());
        let made = f.store.space_create(create, "unrecorded".into(), String::new()).await;
        assert!(matches!(made, Err(StoreError::Database(_) | StoreError::Server(_))), "{made:?}");
        let read = permit::<ReadSpace>(&member, f.store.space_personal(&member).await.unwrap());
        assert!(f.store.plan_read(&read).await.is_ok(), "a read goes on");
        let effect = record(&f.store, read, Map::new()).await;
        assert!(effect.is_err(), "no record, no effect");
        hood.run("ALTER TABLE hidden RENAME TO event").await;
        let spaces = f.store.space_list(permit(&member, member.account())).await.unwrap();
        assert!(spaces.iter().all(|space| space.name != "unrecorded"));
        assert!(f.verify(&f.acme).await.is_ok());
        let create = permit::<CreateSpace>(&member, member.account());
        assert!(f.store.space_create(create, "recorded".into(), String::new()).await.is_ok(), "the control");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e06_an_observation_that_cannot_be_written_is_counted() {
    on_every_backend(async |f| {
        let scope = f.scope(&f.acme.admin).await;
        let hood = Hood::of(&f, &scope).await;
        hood.run("ALTER TABLE event RENAME TO hidden").await;
        for _ in 0..3 {
            f.store.observe(Some(scope.tenant()), draft("test.observed"));
        }
        // A failing act stands behind them in the same line.
        assert!(f.store.append(&scope, draft("test.fence")).await.is_err());
        assert_eq!(f.store.lost_observations(), 3);
        hood.run("ALTER TABLE hidden RENAME TO event").await;
        f.store.observe(Some(scope.tenant()), draft("test.observed"));
        f.store.observe(None, draft("test.observed"));
        queue_is_empty(&f).await;
        assert_eq!(f.store.lost_observations(), 3);
        assert_eq!(f.actions(&f.acme).await.iter().filter(|action| *action == "test.observed").count(), 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e06_observation_never_waits_and_never_blocks_a_read() {
    on_every_backend(async |f| {
        let scope = f.scope(&f.acme.member).await;
        let personal = f.store.space_personal(&scope).await.unwrap();
        f.space(&f.acme.member, "on record").await;
        // Somebody else holds the file's write lock.
        let hood = Hood::of(&f, &scope).await;
        hood.hold_up(&scope).await;
        let begun = Instant::now();
        for _ in 0..10_500 {
            f.store.observe(Some(scope.tenant()), draft("test.observed"));
        }
        let read = permit::<ReadSpace>(&scope, personal.clone());
        f.store.plan_read(&read).await.unwrap();
        // The log itself is read while it cannot be written, and then above all.
        let own = permit::<ReadAudit>(&scope, scope.account());
        let filter = EventFilter { limit: 10, ..EventFilter::default() };
        assert!(!f.store.event_list_own(own, filter).await.unwrap().is_empty());
        assert!(begun.elapsed() < Duration::from_secs(3), "{:?}", begun.elapsed());
        assert!(f.store.lost_observations() > 0, "what does not fit the queue is counted, not waited for");
        // Another tenant's acts are not held up.
        f.space(&f.globex.member, "free").await;
        assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
        hood.let_go().await;
        queue_is_empty(&f).await;
        let kept = f.actions(&f.acme).await.iter().filter(|action| *action == "test.observed").count();
        assert_eq!(kept as u64 + f.store.lost_observations(), 10_500, "each one is kept or counted");
        assert!(f.verify(&f.acme).await.is_ok());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn accounts_that_somebody_holds_do_not_hold_up_the_others() {
    on_every_backend(async |f| {
        let mut held = Vec::new();
        for n in 0..4 {
            let name = format!("held-{n}");
            let admin = crate::fixture::account(&f.store, &f.walk, &name).await.unwrap();
            let scope = f.scope(&admin).await;
            let hood = Hood::of(&f, &scope).await;
            hood.hold_up(&scope).await;
            let create = permit::<CreateSpace>(&scope, scope.account());
            let store = f.store.clone();
            let waiting = tokio::spawn(async move { store.space_create(create, "late".into(), String::new()).await });
            held.push((hood, waiting));
        }
        let begun = Instant::now();
        f.space(&f.globex.member, "free").await;
        assert!(held.iter().all(|(_, waiting)| !waiting.is_finished()), "the control: they are held");
        // With a thread for each that is held this would be the time that they may be held.
        assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
        for (hood, waiting) in held {
            hood.let_go().await;
            // It goes on; or it was told that it waited too long, if this machine is slow.
            let ended = waiting.await.unwrap();
            assert!(ended.as_ref().is_ok_and(|row| row.name == "late") || ended.is_err_and(|error| error.may_pass()));
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e05_filters_order_and_paging() {
    on_every_backend(async |f| {
        for name in ["one", "two", "three"] {
            f.space(&f.acme.member, name).await;
        }
        let space = f.space(&f.acme.admin, "four").await;
        let scope = f.scope(&f.acme.admin).await;
        let list = async |filter: EventFilter| {
            let permit = permit::<ReadAccountAudit>(&scope, scope.account());
            let rows = f.store.event_list(permit, EventFilter { limit: 100, ..filter }).await.unwrap();
            rows.into_iter().map(|event| (event.seq, event.draft.action)).collect::<Vec<_>>()
        };
        let all = list(EventFilter::default()).await;
        let any = EventFilter::default;
        assert_eq!(list(EventFilter { action: Some("space".into()), ..any() }).await.len(), 4, "a family of actions");
        assert!(list(EventFilter { action: Some("spac".into()), ..any() }).await.is_empty());
        assert_eq!(list(EventFilter { user: Some("bob".parse().unwrap()), ..any() }).await.len(), 3);
        assert_eq!(list(EventFilter { space: Some(space.id()), ..any() }).await.len(), 1);
        assert!(list(EventFilter { verdict: Some(Verdict::Denied), ..any() }).await.is_empty());
        let mut newest = list(EventFilter { order: Order::Newest, ..any() }).await;
        newest.reverse();
        assert_eq!(newest, all);
        let permit = permit::<ReadAccountAudit>(&scope, scope.account());
        let page = EventFilter { from_seq: 2, limit: 2, ..any() };
        let page = f.store.event_list(permit, page).await.unwrap();
        assert_eq!(page.iter().map(|event| event.seq).collect::<Vec<_>>(), [2, 3]);
        let (from, to) = (page[0].at, page[1].at);
        assert!(list(EventFilter { from: Some(from), to: Some(to), ..any() }).await.iter().all(|(seq, _)| *seq <= 2));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e02_a_watcher_of_the_log_is_woken() {
    on_every_backend(async |f| {
        let scope = f.scope(&f.acme.admin).await;
        let mut watch = f.store.event_watch(scope.tenant()).unwrap();
        watch.mark_unchanged();
        f.space(&f.globex.member, "elsewhere").await;
        assert!(!watch.has_changed().unwrap(), "another tenant's log does not wake it");
        f.space(&f.acme.member, "here").await;
        tokio::time::timeout(Duration::from_secs(5), watch.changed()).await.unwrap().unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r03_a_member_reads_their_own_record_and_only_an_admin_the_accounts() {
    on_every_backend(async |f| {
        f.space(&f.acme.member, "mine").await;
        f.space(&f.acme.admin, "theirs").await;
        f.space(&f.globex.member, "foreign").await;
        let member = f.scope(&f.acme.member).await;
        let refused = member.authorize::<ReadAccountAudit>(member.account()).err().unwrap();
        assert_eq!(refused.code(), Some("admin_only"));
        let filter = EventFilter { limit: 100, ..EventFilter::default() };
        let own = f.store.event_list_own(permit::<ReadAudit>(&member, member.account()), filter).await.unwrap();
        assert_eq!(own.len(), 1);
        assert_eq!(own[0].draft.actor.user(), Some(&f.acme.member.name));
        let all = f.events(&f.acme).await;
        assert!(all.iter().any(|event| event.draft.actor.user() == Some(&f.acme.admin.name)));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r08_what_the_operator_does_is_on_the_hosts_record_and_on_the_accounts() {
    on_every_backend(async |f| {
        let host = f.operator().await.host_scope(RequestId::new());
        let filter = EventFilter { limit: 100, ..EventFilter::default() };
        let events = f.store.event_list_host(host.authorize::<ReadHostAudit>().unwrap(), filter).await.unwrap();
        let resources: Vec<_> = events.iter().map(|event| event.draft.resource.as_str()).collect();
        assert_eq!(resources, ["account:acme", "account:globex"]);
        assert!(events.iter().all(|event| event.draft.actor == Actor::Operator));
        assert_eq!(f.events(&f.acme).await[0].draft.actor, Actor::Operator, "the tenant sees it, too");
        let verified = f.store.event_verify_host(host.authorize::<ReadHostAudit>().unwrap()).await.unwrap();
        assert_eq!(verified.unwrap().head.size, 2);
        let user = f.login(&f.acme.admin.key).await.unwrap().host_scope(RequestId::new());
        assert_eq!(user.authorize::<ReadHostAudit>().err().unwrap().code(), Some("operator_only"));
    })
    .await;
}
