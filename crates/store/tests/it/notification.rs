//! What targets of notifications are to be told: written with what it is about, taken by one at a time, and bounded.

use bailiwick_auth::access::verb::{
    CallTool, CancelJob, CreateJob, CreateNotification, DeleteNotification, ListNotifications, RotateDataKey,
    UpdateNotification, UseAgent,
};
use bailiwick_auth::access::{Asks, Job, Space, ToolCall, ToolVerdict};
use bailiwick_auth::{Permit, Scope};
use bailiwick_store::StoreError;
use bailiwick_store::data_key::{Sealed, StoredKey};
use bailiwick_store::job::{JobKind, NewJob};
use bailiwick_store::notification::{Leases, NewTarget, Outcome, Paused, TargetChange, TargetRow};
use bailiwick_store::secret::Sealing;
use bailiwick_types::CallId;
use bailiwick_types::SealedOf;
use bailiwick_types::notification::{Occasion, TRIES, TargetKind};
use serde_json::{Map, json};

use crate::fixture::{Fixture, House, conflict, permit};
use crate::on_every_backend;

fn sealing() -> Sealing {
    Box::new(|there, version| {
        let key = there.unwrap_or_else(|| StoredKey { by: "one".to_owned(), bytes: b"one:key".to_vec() });
        Ok((key, format!("sealed:{version}").into_bytes()))
    })
}

async fn add(f: &Fixture, house: &House, name: &str, events: &[Occasion]) -> Result<TargetRow, StoreError> {
    let scope = f.scope(&house.admin).await;
    let new = NewTarget {
        name: name.parse().unwrap(),
        kind: TargetKind::Slack,
        host: "hooks.slack.com".parse().unwrap(),
        chat: None,
        events: events.to_vec(),
        owner: scope.user().unwrap().clone(),
    };
    f.store.notification_create(permit::<CreateNotification>(&scope, scope.account()), new, sealing()).await
}

async fn target(f: &Fixture, house: &House, name: &str) -> TargetRow {
    let scope = f.scope(&house.admin).await;
    let listed = f.store.notification_list(permit::<ListNotifications>(&scope, scope.account())).await.unwrap();
    listed.into_iter().find(|row| row.name.as_str() == name).unwrap()
}

fn calling(scope: &Scope, job: &Job) -> Permit<CallTool> {
    let tool: bailiwick_types::ToolName = "bash".parse().unwrap();
    let arguments = json!({ "command": "true" });
    let call = ToolCall::asked(job.session().clone(), CallId::new(), tool.clone(), arguments, vec![tool], Asks::No);
    match scope.judge(call).unwrap() {
        ToolVerdict::Go(permit) => permit,
        ToolVerdict::Ask(_) => panic!("nobody is to be asked"),
    }
}

/// Something happens: a job ends.
async fn happen(f: &Fixture, scope: &Scope, space: &Space) {
    let job = scope.new_job(space.clone(), "coder".parse().unwrap()).unwrap();
    let creating = permit::<CreateJob>(scope, space.clone());
    let using = permit::<UseAgent>(scope, scope.agent_named("coder".parse().unwrap()));
    let new = NewJob { job: job.clone(), kind: JobKind::Short, command: "true".to_owned(), timeout_seconds: 300 };
    f.store.job_create(creating, using, calling(scope, &job), new).await.unwrap();
    f.store.job_cancel(permit::<CancelJob>(scope, job)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn g09_what_waits_is_taken_by_one_and_told_once() {
    on_every_backend(async |f| {
        let scope = f.scope(&f.acme.member).await;
        let space = f.space(&f.acme.member, "work").await;
        add(&f, &f.acme, "ops", &[Occasion::Done]).await.unwrap();
        add(&f, &f.acme, "other", &[Occasion::Approval]).await.unwrap();
        add(&f, &f.globex, "ops", &[Occasion::Done]).await.unwrap();
        assert_eq!(conflict(add(&f, &f.acme, "ops", &[Occasion::Done]).await), "notification_exists");
        happen(&f, &scope, &space).await;
        let (acme, globex) = (scope.tenant().incarnation(), f.scope(&f.globex.admin).await.tenant().incarnation());
        assert!(f.store.notices_told().contains(&acme));
        let (one, two) =
            tokio::join!(f.store.notices_claim(acme, Leases::Held), f.store.notices_claim(acme, Leases::Held));
        let mut claims = [one.unwrap().0, two.unwrap().0].concat();
        assert_eq!(claims.len(), 1, "one of them has it, and the other target wanted to know of something else");
        let claim = claims.remove(0);
        assert_eq!((claim.notices().len(), claim.row().name.as_str()), (1, "ops"));
        let (held, next) = f.store.notices_claim(acme, Leases::Held).await.unwrap();
        assert!(held.is_empty() && next.is_some(), "until the lease ends");
        assert!(
            f.store.notices_claim(globex, Leases::Held).await.unwrap().0.is_empty(),
            "the neighbour has nothing to tell"
        );
        // It is told when the intent is on record, and then it waits no more.
        let order = f.walk.standing(&f.store, claim.tenant().account(), &claim.row().owner).await.unwrap();
        let (act, address) =
            f.store.notification_begin(order.send(claim.target()).unwrap(), Some(&claim)).await.unwrap();
        assert_eq!(address.bytes, b"sealed:1");
        // What happens meanwhile waits for the next time.
        happen(&f, &scope, &space).await;
        f.store.notification_done(&act, Some(&claim), Outcome::Delivered, Map::new()).await.unwrap();
        let row = target(&f, &f.acme, "ops").await;
        assert_eq!((row.waiting, row.last_state.as_deref()), (1, Some("delivered")));
        // The claim is spent: nothing more is sent by it.
        let again = f.store.notification_begin(order.send(claim.target()).unwrap(), Some(&claim)).await;
        assert!(matches!(again, Err(StoreError::Fenced)));
        // A second apart.
        let (soon, next) = f.store.notices_claim(acme, Leases::Held).await.unwrap();
        assert!(soon.is_empty() && next.is_some());
        assert!(f.verify(&f.acme).await.is_ok());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g09_what_waits_is_bounded_and_given_up_after_so_many_tries() {
    on_every_backend(async |f| {
        let scope = f.scope(&f.acme.member).await;
        let space = f.space(&f.acme.member, "work").await;
        add(&f, &f.acme, "ops", &[Occasion::Done]).await.unwrap();
        for _ in 0..103 {
            happen(&f, &scope, &space).await;
        }
        let row = target(&f, &f.acme, "ops").await;
        assert_eq!((row.waiting, row.dropped), (100, 3));
        // Each try in vain, with the pause taken away by whoever lets the target go on; the count begins anew then.
        let admin = f.scope(&f.acme.admin).await;
        let acme = scope.tenant().incarnation();
        let later = || Outcome::Later { state: "http_500".to_owned(), after: None };
        let change = async |paused| {
            let permit = permit::<UpdateNotification>(&admin, admin.account());
            let change = TargetChange { paused, ..TargetChange::default() };
            let owner = admin.user().unwrap().clone();
            f.store.notification_update(permit, "ops".parse().unwrap(), owner, change).await.unwrap()
        };
        let claim = f.store.notices_claim(acme, Leases::Held).await.unwrap().0.remove(0);
        f.store.notification_unsent(claim, later()).await.unwrap();
        assert!(f.store.notices_claim(acme, Leases::Held).await.unwrap().0.is_empty(), "it waits for its next try");
        assert!(TRIES > 1 && target(&f, &f.acme, "ops").await.waiting == 100);
        change(Some(Paused::No)).await;
        let claim = f.store.notices_claim(acme, Leases::Held).await.unwrap().0.remove(0);
        assert_eq!(claim.notices().len(), 100);
        // Paused in the middle: what was taken is not sent any more.
        change(Some(Paused::Yes)).await;
        let order = f.walk.standing(&f.store, claim.tenant().account(), &claim.row().owner).await.unwrap();
        let begun = f.store.notification_begin(order.send(claim.target()).unwrap(), Some(&claim)).await;
        assert!(matches!(begun, Err(StoreError::Fenced)));
        happen(&f, &scope, &space).await;
        assert_eq!(target(&f, &f.acme, "ops").await.waiting, 0, "nothing is kept for one that is paused");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn g09_z04_an_address_goes_with_the_data_key_and_an_order_with_its_owner() {
    on_every_backend(async |f| {
        add(&f, &f.acme, "ops", &[Occasion::Done]).await.unwrap();
        let scope = f.scope(&f.acme.admin).await;
        let rotated = f.store.data_key_rotate(
            permit::<RotateDataKey>(&scope, scope.account()),
            Box::new(|key, values: Vec<Sealed>| {
                assert_eq!(key.by, "one");
                assert_eq!(values.len(), 1);
                assert!(matches!(&values[0].of, SealedOf::Target(name) if name.as_str() == "ops"));
                let anew = |value: Sealed| Sealed { bytes: b"anew".to_vec(), ..value };
                Ok((
                    StoredKey { by: "two".to_owned(), bytes: b"two:key".to_vec() },
                    values.into_iter().map(anew).collect(),
                ))
            }),
        );
        assert_eq!(rotated.await.unwrap(), 0, "no secrets");
        let member = f.scope(&f.acme.member).await;
        let space = f.space(&f.acme.member, "work").await;
        happen(&f, &member, &space).await;
        let claim = f.store.notices_claim(scope.tenant().incarnation(), Leases::Held).await.unwrap().0.remove(0);
        let order = f.walk.standing(&f.store, claim.tenant().account(), &claim.row().owner).await.unwrap();
        let (_, address) = f.store.notification_begin(order.send(claim.target()).unwrap(), Some(&claim)).await.unwrap();
        assert_eq!((address.bytes.as_slice(), address.key.by.as_str()), (&b"anew"[..], "two"));
        // A member's order is none, and nobody's neither.
        let order = f.walk.standing(&f.store, claim.tenant().account(), member.user().unwrap()).await.unwrap();
        assert!(order.send(claim.target()).is_err());
        assert!(f.walk.standing(&f.store, claim.tenant().account(), &"nobody".parse().unwrap()).await.is_err());
        // Another account's order tells this target nothing.
        let bob = f.scope(&f.globex.admin).await;
        let order = f.walk.standing(&f.store, bob.tenant().account(), bob.user().unwrap()).await.unwrap();
        assert!(order.send(claim.target()).is_err());
        // Gone with what waits for it.
        let gone = permit::<DeleteNotification>(&scope, scope.account());
        f.store.notification_delete(gone, "ops".parse().unwrap()).await.unwrap();
        assert!(f.store.notices_claim(scope.tenant().incarnation(), Leases::Held).await.unwrap().0.is_empty());
    })
    .await;
}
