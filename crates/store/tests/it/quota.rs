//! Budgets and quotas: what is used up is refused on record, nothing that was spent is forgotten, and the
//! other account does not notice.

use bailiwick_audit::{Phase, Verdict};
use bailiwick_auth::access::verb::{
    CallModel, CallTool, DeleteUser, ReadAccount, ReadAccountLimits, ReadAccountUsage, ReadHostAudit, ReadUsage,
    SendSession, SetAccountLimits, WriteSpace,
};
use bailiwick_auth::access::{Asks, Session, ToolCall, ToolVerdict};
use bailiwick_auth::{Permit, Scope};
use bailiwick_store::log::EventFilter;
use bailiwick_store::session::{NewSession, SessionState, Tokens};
use bailiwick_store::storage::{Full, Need};
use bailiwick_store::turn::{CallChange, CallRow, CallState, Change, Lease};
use bailiwick_store::{Store, StoreError};
use bailiwick_types::quota::Resource;
use bailiwick_types::{CallId, Day, Exhausted, Quota, QuotaOverrides, Quotas, RequestId, Role};
use serde_json::{Map, json};

use crate::fixture::{self, Fixture, House, Person, conflict, permit};
use crate::on_every_backend;

const MIB: usize = 1024 * 1024;

async fn set(f: &Fixture, house: &House, limits: QuotaOverrides) {
    let scope = f.set_up(house).await;
    f.store.limits_set(permit::<SetAccountLimits>(&scope, scope.account()), limits).await.unwrap();
}

struct Work {
    scope: Scope,
    session: Session,
    lease: Lease,
}

async fn work(f: &Fixture, person: &Person) -> Work {
    let (scope, session) = (f.scope(person).await, f.session(person).await);
    let lease = f.store.turn_lease(scope.tenant(), session.id()).await.unwrap();
    Work { scope, session, lease }
}

impl Work {
    /// Asks a model that reads `read` tokens and writes as many.
    async fn ask(&self, f: &Fixture, read: u64) -> Result<(), StoreError> {
        self.ask_at(&f.store, read).await
    }

    async fn ask_at(&self, store: &Store, read: u64) -> Result<(), StoreError> {
        let said = Change { events: vec![("step.started", json!({}))], ..Change::default() };
        let permit = permit::<CallModel>(&self.scope, self.session.clone());
        let act = store.model_begin(&self.lease, permit, Map::new(), said).await?;
        let tokens = Tokens { input_tokens: read, output_tokens: read, ..Tokens::default() };
        let audit = vec![act.outcome(Verdict::Ok, Map::new())];
        store.turn_commit(&self.lease, Change { tokens, audit, ..Change::default() }).await
    }

    async fn call(&self, f: &Fixture) -> Result<(), StoreError> {
        let id = CallId::new();
        let tool: bailiwick_types::ToolName = "read_file".parse().unwrap();
        let row = CallRow {
            id,
            turn: 0,
            step: 0,
            place: 0,
            model_id: "toolu_1".into(),
            tool: tool.clone(),
            arguments: json!({ "path": "a" }),
            state: CallState::Requested,
            intent: None,
            output: None,
        };
        let calls = vec![CallChange::New(row)];
        f.store.turn_commit(&self.lease, Change { calls, ..Change::default() }).await.unwrap();
        let asked =
            ToolCall::asked(self.session.clone(), id, tool.clone(), json!({ "path": "a" }), vec![tool], Asks::No);
        let permit: Permit<CallTool> = match self.scope.judge(asked).unwrap() {
            ToolVerdict::Go(permit) => permit,
            ToolVerdict::Ask(_) => panic!("somebody was asked"),
        };
        let act = f.store.call_begin(&self.lease, permit, Map::new()).await?;
        act.settle(&f.store, Verdict::Ok, Map::new()).await.unwrap();
        Ok(())
    }

    async fn events(&self, f: &Fixture) -> usize {
        let read = permit::<bailiwick_auth::access::verb::ReadSession>(&self.scope, self.session.clone());
        f.store.session_events(&read, 0, 1000).await.unwrap().len()
    }
}

fn exhausted<T>(result: Result<T, StoreError>) -> Exhausted {
    match result {
        Err(StoreError::Exhausted(exhausted)) => exhausted,
        Err(other) => panic!("another error: {other:?}"),
        Ok(_) => panic!("it was let through"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn i17_a_used_up_budget_is_refused_on_record_and_the_other_account_does_not_notice() {
    on_every_backend(async |f| {
        set(&f, &f.acme, QuotaOverrides { tokens_per_day: Some(Quota::new(100)), ..Default::default() }).await;
        let (bobs, others) = (work(&f, &f.acme.member).await, work(&f, &f.globex.member).await);
        let alices = work(&f, &f.acme.admin).await;
        bobs.ask(&f, 49).await.unwrap();
        // Two tokens are left: what overshoots them is counted whole.
        alices.ask(&f, 500).await.unwrap();
        let before = bobs.events(&f).await;
        let refused = exhausted(bobs.ask(&f, 1).await);
        assert_eq!((refused.resource, refused.most), (Resource::TokensPerDay, 100));
        assert_eq!(refused.opens_at, Some(Day::today().end()));
        assert_eq!(bobs.events(&f).await, before + 1, "what the turn wrote before it is kept");
        let last = f.events(&f.acme).await.pop().unwrap().draft;
        assert_eq!((last.action.as_str(), last.phase, last.verdict), ("model.call", Phase::Act, Verdict::Denied));
        assert_eq!(last.detail["code"], "budget_exceeded");
        assert_eq!(last.detail["limit"], "tokens_per_day");
        // A budget of tokens is none of tool calls.
        bobs.call(&f).await.unwrap();
        others.ask(&f, 5_000).await.unwrap();
        assert!(f.events(&f.globex).await.iter().all(|event| event.draft.verdict != Verdict::Denied));
        // Positive control: with more of it, the same call goes through at once.
        set(&f, &f.acme, QuotaOverrides { tokens_per_day: Some(Quota::new(10_000)), ..Default::default() }).await;
        bobs.ask(&f, 1).await.unwrap();

        let scope = f.scope(&f.acme.member).await;
        let usage = f.store.usage_read(&permit::<ReadUsage>(&scope, scope.account())).await.unwrap();
        assert_eq!((usage.today.tokens_in, usage.today.model_calls, usage.today.tool_calls), (550, 3, 1));
        assert_eq!((usage.own[0].spent.tokens(), usage.own.len()), (100, 1), "the member's own share");
        let scope = f.scope(&f.acme.admin).await;
        let all = f.store.usage_read_account(&permit::<ReadAccountUsage>(&scope, scope.account())).await.unwrap();
        let users: Vec<_> =
            all.users.iter().map(|row| (row.user.as_ref().unwrap().as_str(), row.spent.tokens())).collect();
        assert_eq!(users, [("alice", 1000), ("bob", 100)]);
        assert_eq!(all.days.iter().map(|row| row.spent.tokens()).collect::<Vec<_>>(), [1100]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i17_calls_are_counted_when_they_begin_and_refused_when_they_are_used_up() {
    on_every_backend(async |f| {
        let two = Some(Quota::new(2));
        let limits = QuotaOverrides { model_calls_per_day: two, tool_calls_per_day: two, ..Default::default() };
        set(&f, &f.acme, limits).await;
        let (bobs, others) = (work(&f, &f.acme.member).await, work(&f, &f.globex.member).await);
        for _ in 0..2 {
            bobs.ask(&f, 1).await.unwrap();
            bobs.call(&f).await.unwrap();
        }
        assert_eq!(exhausted(bobs.ask(&f, 1).await).resource, Resource::ModelCallsPerDay);
        assert_eq!(exhausted(bobs.call(&f).await).resource, Resource::ToolCallsPerDay);
        let last = f.events(&f.acme).await.pop().unwrap().draft;
        assert_eq!((last.action.as_str(), last.verdict), ("tool.call", Verdict::Denied));
        assert_eq!(last.detail["code"], "budget_exceeded");
        for _ in 0..3 {
            others.ask(&f, 1).await.unwrap();
            others.call(&f).await.unwrap();
        }
        // Zero is no limit.
        let none = Some(Quota::NONE);
        set(&f, &f.acme, QuotaOverrides { model_calls_per_day: none, tool_calls_per_day: none, ..Default::default() })
            .await;
        bobs.ask(&f, 1).await.unwrap();
        bobs.call(&f).await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i17_of_many_turns_at_once_no_count_is_lost_and_no_call_is_let_through_twice() {
    on_every_backend(async |f| {
        set(&f, &f.acme, QuotaOverrides { model_calls_per_day: Some(Quota::new(10)), ..Default::default() }).await;
        let mut works = Vec::new();
        for _ in 0..8 {
            works.push(work(&f, &f.acme.member).await);
        }
        let asking: Vec<_> = works
            .into_iter()
            .map(|work| {
                let store = f.store.clone();
                tokio::spawn(async move {
                    let mut passed = 0;
                    for _ in 0..3 {
                        match work.ask_at(&store, 7).await {
                            Ok(()) => passed += 1,
                            refused => assert_eq!(exhausted(refused).resource, Resource::ModelCallsPerDay),
                        }
                    }
                    passed
                })
            })
            .collect();
        let mut passed = 0;
        for turn in asking {
            passed += turn.await.unwrap();
        }
        assert_eq!(passed, 10, "calls are counted as they begin, so that none is too many");
        let scope = f.scope(&f.acme.member).await;
        let usage = f.store.usage_read(&permit::<ReadUsage>(&scope, scope.account())).await.unwrap();
        assert_eq!((usage.today.model_calls, usage.today.tokens_in, usage.today.tokens_out), (10, 70, 70));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i17_a_turn_too_many_does_not_begin_and_one_that_is_under_way_goes_on() {
    on_every_backend(async |f| {
        set(&f, &f.acme, QuotaOverrides { concurrent_sessions: Some(Quota::new(2)), ..Default::default() }).await;
        let first = || NewSession {
            operation: None,
            first: Some(("d".to_owned(), json!({ "kind": "message", "text": "hello" }))),
        };
        let scope = f.scope(&f.acme.member).await;
        let space = f.space(&f.acme.member, "work").await;
        let one = f.session_in(&scope, &space, first()).await.unwrap().session;
        let two = f.session_in(&scope, &space, first()).await.unwrap().session;
        let sessions = f.events(&f.acme).await.len();
        let refused = exhausted(f.session_in(&scope, &space, first()).await);
        assert_eq!((refused.resource, refused.most, refused.opens_at), (Resource::ConcurrentSessions, 2, None));
        assert_eq!(f.events(&f.acme).await.len(), sessions, "nothing that did not happen is on record");
        // A session without work is none that is at work.
        let idle = f.session_in(&scope, &space, NewSession { operation: None, first: None }).await.unwrap().session;
        let say = async |session: &Session, kind: &str| {
            let permit = permit::<SendSession>(&scope, session.clone());
            f.store.session_send(permit, "d".to_owned(), json!({ "kind": kind })).await
        };
        assert_eq!(exhausted(say(&idle, "message").await).resource, Resource::ConcurrentSessions);
        assert_eq!(exhausted(say(&idle, "compact").await).resource, Resource::ConcurrentSessions);
        say(&idle, "cancel").await.unwrap();
        say(&one, "message").await.unwrap();
        // The other account begins as many as it likes.
        let (theirs, own) = (f.scope(&f.globex.member).await, f.space(&f.globex.member, "work").await);
        for _ in 0..4 {
            f.session_in(&theirs, &own, first()).await.unwrap();
        }
        // One turn ends, and its place is free; one that waits for a person keeps it.
        for (session, state) in [(&idle, SessionState::Idle), (&two, SessionState::AwaitingApproval)] {
            let lease = f.store.turn_lease(scope.tenant(), session.id()).await.unwrap();
            let change = Change { taken: vec![1], state: Some(state), ..Change::default() };
            f.store.turn_commit(&lease, change).await.unwrap();
        }
        exhausted(say(&idle, "message").await);
        let lease = f.store.turn_lease(scope.tenant(), two.id()).await.unwrap();
        f.store.turn_commit(&lease, Change { state: Some(SessionState::Idle), ..Change::default() }).await.unwrap();
        say(&idle, "message").await.unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i17_files_beyond_the_quota_find_no_room_and_deleting_makes_some() {
    on_every_backend(async |f| {
        set(&f, &f.acme, QuotaOverrides { storage_mib: Some(Quota::new(2)), ..Default::default() }).await;
        let (scope, space) = (f.scope(&f.acme.member).await, f.space(&f.acme.member, "files").await);
        let write = || permit::<WriteSpace>(&scope, space.clone());
        let files = f.store.space_files_to_write(&write()).await.unwrap();
        let put = |name: &str, bytes: usize| files.write(&name.parse().unwrap(), &vec![1; bytes]).unwrap();
        let room = f.store.storage_reserve(&write(), Need::All(MIB as u64)).await.unwrap();
        // Room that is held is taken, although nothing is there yet.
        let refused = exhausted(f.store.storage_reserve(&write(), Need::All(MIB as u64 + 1)).await);
        assert_eq!((refused.resource, refused.most), (Resource::StorageMib, 2));
        put("a", MIB);
        room.fill(MIB as u64);
        let rest = f.store.storage_reserve(&write(), Need::UpTo(10 * MIB as u64)).await.unwrap();
        assert_eq!(rest.bytes(), Some(MIB as u64 - 4096), "what is left beside the file and the space's folder");
        exhausted(f.store.storage_admit(scope.tenant()).await);
        drop(rest);
        f.store.storage_admit(scope.tenant()).await.unwrap();
        // What we did not write is found by measuring, when somebody would be refused or let in by it.
        put("b", 2 * MIB);
        f.store.storage_grew(scope.tenant(), 2 * MIB as u64);
        exhausted(f.store.storage_admit(scope.tenant()).await);
        let (theirs, own) = (f.scope(&f.globex.member).await, f.space(&f.globex.member, "files").await);
        let room = f.store.storage_reserve(&permit::<WriteSpace>(&theirs, own), Need::All(100 * MIB as u64)).await;
        assert_eq!(room.unwrap().bytes(), None, "no limit");
        let usage = permit::<ReadUsage>(&scope, scope.account());
        assert!(f.store.usage_storage(&usage).await.unwrap().bytes >= 3 * MIB as u64);
        files.remove(&"b".parse().unwrap()).unwrap();
        f.store.storage_shrank(scope.tenant());
        f.store.storage_admit(scope.tenant()).await.unwrap();
        let found = f.store.usage_storage(&usage).await.unwrap().bytes;
        assert!((MIB as u64..MIB as u64 + 65536).contains(&found), "{found}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b05_a_look_at_what_a_command_writes_finds_the_account_or_the_workspace_full() {
    on_every_backend(async |f| {
        set(&f, &f.acme, QuotaOverrides { storage_mib: Some(Quota::new(2)), ..Default::default() }).await;
        let (scope, space) = (f.scope(&f.acme.member).await, f.space(&f.acme.member, "files").await);
        let files = f.store.space_files_to_write(&permit::<WriteSpace>(&scope, space.clone())).await.unwrap();
        let folder = tempfile::tempdir().unwrap();
        let look = async |most| f.store.storage_look(scope.tenant(), folder.path(), most).await.unwrap();
        assert_eq!(look(Some(1)).await.full, None, "the control: there is room");
        // What nobody told us of is found by looking, a moment later.
        files.write(&"a".parse().unwrap(), &vec![1; 3 * MIB]).unwrap();
        std::fs::write(folder.path().join("b"), vec![1; 2 * MIB]).unwrap();
        f.store.storage_shrank(scope.tenant());
        let full = look(None).await.full.unwrap();
        assert!(matches!(&full, Full::Account(exhausted) if exhausted.most == 2), "{full:?}");
        let theirs = f.scope(&f.globex.member).await;
        let other = f.store.storage_look(theirs.tenant(), folder.path(), None).await.unwrap();
        assert_eq!(other.full, None, "the neighbour");
        files.remove(&"a".parse().unwrap()).unwrap();
        f.store.storage_shrank(scope.tenant());
        assert_eq!(look(None).await.full, None);
        // A workspace by itself: another folder than the one that was measured a moment ago.
        let second = tempfile::tempdir().unwrap();
        std::fs::write(second.path().join("b"), vec![1; 2 * MIB]).unwrap();
        let in_second = async |most| f.store.storage_look(scope.tenant(), second.path(), most).await.unwrap().full;
        assert_eq!((in_second(Some(1)).await, in_second(Some(3)).await), (Some(Full::Workspace(1)), None));
        let room = f.store.storage_reserve_in(second.path(), 3, Need::All(MIB as u64 - 8192)).await.unwrap();
        let more = f.store.storage_reserve_in(second.path(), 3, Need::All(16_384)).await.unwrap();
        assert_eq!(more.err(), Some(Full::Workspace(3)), "room that is held is taken");
        room.unwrap().fill(MIB as u64 - 8192);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i17_the_operator_alone_sets_limits_and_both_records_have_it() {
    on_every_backend(async |f| {
        let defaults = Quotas { tokens_per_day: Quota::new(7), storage_mib: Quota::new(9), ..Quotas::default() };
        f.store.limit_accounts(defaults);
        let admin = f.scope(&f.acme.admin).await;
        let refused = admin.authorize::<SetAccountLimits>(admin.account()).err().unwrap();
        assert_eq!(refused.code(), Some("operator_only"));
        assert_eq!(admin.authorize::<ReadAccountLimits>(admin.account()).err().unwrap().code(), Some("operator_only"));
        let read = async |house: &House| {
            let scope = f.scope(&house.viewer).await;
            f.store.quotas(&permit::<ReadAccount>(&scope, scope.account())).await.unwrap()
        };
        assert_eq!(read(&f.acme).await, defaults);
        let own = QuotaOverrides { tokens_per_day: Some(Quota::NONE), ..Default::default() };
        set(&f, &f.acme, own).await;
        assert_eq!(read(&f.acme).await, Quotas { tokens_per_day: Quota::NONE, ..defaults });
        assert_eq!(read(&f.globex).await, defaults, "the other account's are as they were");
        let scope = f.set_up(&f.acme).await;
        let limits = f.store.limits_read(permit::<ReadAccountLimits>(&scope, scope.account())).await.unwrap();
        assert_eq!((limits.set, limits.defaults), (own, defaults));
        let huge = QuotaOverrides { storage_mib: Some(Quota::new(u64::MAX)), ..Default::default() };
        let permit_to = permit::<SetAccountLimits>(&scope, scope.account());
        assert_eq!(conflict(f.store.limits_set(permit_to, huge).await), "limit_too_large");
        let last = f.events(&f.acme).await.pop().unwrap().draft;
        assert_eq!((last.action.as_str(), last.verdict), ("account.limits.set", Verdict::Ok));
        assert_eq!(last.detail["to"]["tokens_per_day"], 0);
        let host = f.operator().await.host_scope(RequestId::new());
        let filter = EventFilter { limit: 100, ..EventFilter::default() };
        let events = f.store.event_list_host(host.authorize::<ReadHostAudit>().unwrap(), filter).await.unwrap();
        assert_eq!(events.last().map(|event| event.draft.action.as_str()), Some("account.limits.set"));
        // They stay after a restart, and are gone with what is left out.
        let f = f.restart();
        f.store.limit_accounts(Quotas::default());
        set(&f, &f.acme, QuotaOverrides::default()).await;
        let scope = f.scope(&f.acme.viewer).await;
        let quotas = f.store.quotas(&permit::<ReadAccount>(&scope, scope.account())).await.unwrap();
        assert_eq!(quotas, Quotas::default());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn i17_what_a_user_spent_stays_spent_and_a_namesake_has_spent_nothing() {
    on_every_backend(async |f| {
        set(&f, &f.acme, QuotaOverrides { tokens_per_day: Some(Quota::new(10)), ..Default::default() }).await;
        work(&f, &f.acme.member).await.ask(&f, 5).await.unwrap();
        let scope = f.scope(&f.acme.admin).await;
        let gone = permit::<DeleteUser>(&scope, scope.user_named(f.acme.member.name.clone()));
        f.store.user_delete(gone).await.unwrap();
        let again = fixture::user(&f.store, &f.walk, &f.acme.admin, "bob", Role::Member).await.unwrap();
        let bob = f.scope(&again).await;
        let usage = f.store.usage_read(&permit::<ReadUsage>(&bob, bob.account())).await.unwrap();
        assert!(usage.own.is_empty());
        assert_eq!(usage.today.tokens(), 10);
        assert_eq!(exhausted(work(&f, &again).await.ask(&f, 1).await).resource, Resource::TokensPerDay);
        let all = f.store.usage_read_account(&permit::<ReadAccountUsage>(&scope, scope.account())).await.unwrap();
        let nobody: Vec<_> = all.users.iter().map(|row| (row.user.is_none(), row.spent.tokens())).collect();
        assert_eq!(nobody, [(true, 10)]);
    })
    .await;
}
