//! Jobs: begun once, ended once, and with room for so much of what they say.

use bailiwick_auth::access::verb::{CallTool, CancelJob, CreateJob, ListJobs, ReadJob, StartJob, UseAgent};
use bailiwick_auth::access::{Asks, Job, Space, ToolCall, ToolVerdict};
use bailiwick_auth::{Permit, Scope};
use bailiwick_store::job::{Ending, JOB_SILENT, JobKind, JobRow, JobState, NewJob};
use bailiwick_store::{Store, StoreError};
use bailiwick_types::CallId;
use serde_json::{Map, Value, json};

use crate::fixture::{Fixture, conflict, open, permit};
use crate::{Backend, on_every_backend};

/// The call of `bash` that a job is.
fn calling(scope: &Scope, job: &Job) -> Permit<CallTool> {
    let tool: bailiwick_types::ToolName = "bash".parse().unwrap();
    let arguments = json!({ "command": "true" });
    let call = ToolCall::asked(job.session().clone(), CallId::new(), tool.clone(), arguments, vec![tool], Asks::No);
    match scope.judge(call).unwrap() {
        ToolVerdict::Go(permit) => permit,
        ToolVerdict::Ask(_) => panic!("nobody is to be asked"),
    }
}

async fn create(f: &Fixture, scope: &Scope, space: &Space) -> Result<(Job, JobRow), StoreError> {
    let job = scope.new_job(space.clone(), "coder".parse().unwrap()).unwrap();
    let creating = permit::<CreateJob>(scope, space.clone());
    let using = permit::<UseAgent>(scope, scope.agent_named("coder".parse().unwrap()));
    let new = NewJob { job: job.clone(), kind: JobKind::Short, command: "true".to_owned(), timeout_seconds: 300 };
    let row = f.store.job_create(creating, using, calling(scope, &job), new).await?;
    Ok((job, row))
}

async fn events(f: &Fixture, scope: &Scope, job: &Job) -> Vec<Value> {
    let permit = permit::<ReadJob>(scope, job.clone());
    let (mut found, mut after) = (Vec::new(), 0);
    loop {
        let page = f.store.job_events(&permit, after, 16).await.unwrap();
        let Some((last, _)) = page.last() else { return found };
        after = *last;
        found.extend(page.into_iter().map(|(_, line)| serde_json::from_str::<Value>(&line).unwrap()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b06_a_job_begins_once_and_its_end_is_its_last_event() {
    on_every_backend(async |f| {
        let scope = f.scope(&f.acme.member).await;
        let space = f.space(&f.acme.member, "work").await;
        let (job, row) = create(&f, &scope, &space).await.unwrap();
        assert_eq!((row.state, row.events), (JobState::Queued, 1));
        let begin = || f.store.job_begin(permit::<StartJob>(&scope, job.clone()), calling(&scope, &job));
        let act = begin().await.unwrap();
        assert_eq!(conflict(begin().await), "job_ended", "it does not begin again");
        let (other, _) = create(&f, &scope, &space).await.unwrap();
        let mixed = f.store.job_begin(permit::<StartJob>(&scope, other.clone()), calling(&scope, &job)).await;
        assert_eq!(conflict(mixed), "wrong_job", "a permit for one command is none for another");

        let said = |text: &str| json!({ "output": [{ "stdout": text }] });
        let first = f.store.job_say(&act, vec![said("one\n"), said("two\u{0}\n")], Vec::new()).await.unwrap();
        assert_eq!(first, [3, 4]);
        f.store.job_say(&act, vec![said("three\n")], vec![4]).await.unwrap();
        f.store.job_end(&act, JobState::Ok, Ending { exit: Some(0), ..Ending::default() }, Map::new()).await.unwrap();
        // Whatever comes later changes nothing.
        assert_eq!(conflict(f.store.job_say(&act, vec![said("late\n")], Vec::new()).await), "job_ended");
        f.store.job_end(&act, JobState::Failed, Ending::default(), Map::new()).await.unwrap();
        let lost = Ending::because("server_ended", "gone");
        f.store.job_give_up(scope.tenant(), job.id(), JobState::Failed, lost).await.unwrap();
        let row = f.store.job_cancel(permit::<CancelJob>(&scope, job.clone())).await.unwrap();
        assert_eq!((row.state, row.ending.unwrap().exit), (JobState::Ok, Some(0)));
        let events = events(&f, &scope, &job).await;
        let numbers: Vec<u64> = events.iter().map(|event| event["n"].as_u64().unwrap()).collect();
        assert_eq!(numbers, [1, 2, 3, 5, 6], "what there was no room for is gone, and its number stays its own");
        assert_eq!((&events[4]["type"], &events[4]["state"]), (&json!("done"), &json!("ok")));
        let done = f.actions(&f.acme).await.iter().filter(|action| *action == "job.done").count();
        assert_eq!(done, 1);
        assert!(f.verify(&f.acme).await.is_ok());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b06_a04_jobs_are_their_spaces_and_of_nobody_else() {
    on_every_backend(async |f| {
        let scope = f.scope(&f.acme.member).await;
        let space = f.space(&f.acme.member, "work").await;
        let elsewhere = f.space(&f.acme.member, "elsewhere").await;
        let (job, _) = create(&f, &scope, &space).await.unwrap();
        assert!(f.store.job_find(&scope, &space, job.id()).await.unwrap().is_some(), "positive control");
        assert!(f.store.job_find(&scope, &elsewhere, job.id()).await.unwrap().is_none());
        for stranger in [&f.globex.admin, &f.globex.member] {
            let theirs = f.scope(stranger).await;
            let own = f.space(stranger, "own").await;
            assert!(f.store.job_find(&theirs, &own, job.id()).await.unwrap().is_none());
            assert!(theirs.authorize::<ReadJob>(job.clone()).is_err());
            assert!(theirs.authorize::<CancelJob>(job.clone()).is_err());
            let listed = f.store.job_list(permit::<ListJobs>(&theirs, own), 100).await.unwrap();
            assert!(listed.is_empty());
        }
        // An admin of the account without a grant is a stranger to what is in a space, too.
        assert!(f.scope(&f.acme.admin).await.authorize::<ReadJob>(job.clone()).is_err());
        // Deleted with the space, and its end is on record, once; who runs it is told.
        let act = f.store.job_begin(permit::<StartJob>(&scope, job.clone()), calling(&scope, &job)).await.unwrap();
        f.store.space_delete(permit(&scope, space)).await.unwrap();
        let ended = f.store.job_end(&act, JobState::Canceled, Ending::default(), Map::new()).await;
        assert!(matches!(ended, Err(StoreError::NotFound { .. })));
        assert!(matches!(f.store.job_beat(&act).await, Err(StoreError::NotFound { .. })));
        let (waited, _) = create(&f, &scope, &elsewhere).await.unwrap();
        f.store.space_delete(permit(&scope, elsewhere)).await.unwrap();
        let done = f.events(&f.acme).await.into_iter().filter(|event| event.draft.action == "job.done");
        let of: Vec<_> = done.map(|event| (event.draft.resource, event.draft.detail["code"].clone())).collect();
        let resource = |job: &Job| format!("job:{}", job.id());
        assert_eq!(of, [(resource(&job), json!("deleted")), (resource(&waited), json!("deleted"))]);
        assert!(f.verify(&f.acme).await.is_ok());
    })
    .await;
}

/// What a server that is away has left is looked after; what another one works on is left alone.
#[tokio::test(flavor = "multi_thread")]
async fn b06_z03_of_several_servers_one_runs_a_job_and_another_ends_it_when_that_one_is_gone() {
    on_every_backend(async |mut f| {
        let scope = f.scope(&f.acme.member).await;
        let space = f.space(&f.acme.member, "work").await;
        let (job, _) = create(&f, &scope, &space).await.unwrap();
        let act = f.store.job_begin(permit::<StartJob>(&scope, job.clone()), calling(&scope, &job)).await.unwrap();
        assert_eq!(f.store.job_beat(&act).await.unwrap(), None);
        let listed = async |store: &Store| {
            let all = store.jobs_unfinished().await.unwrap();
            all.into_iter().map(|(tenant, job)| (tenant.account().clone(), job.id)).collect::<Vec<_>>()
        };
        let left = vec![(f.acme.account.clone(), job.id())];
        let server = f.store.server();
        assert_eq!(listed(&f.store).await, left, "its own");
        if let Backend::Postgres(database) = f.backend.clone() {
            let beside = tempfile::tempdir().unwrap();
            let other = open(beside.path(), &f.backend).unwrap();
            assert_ne!(other.server(), server);
            assert_eq!(listed(&other).await, [], "it beats");
            // Whoever wants it ended says so anywhere, and whoever runs it hears of it.
            let (waits, _) = create(&f, &scope, &space).await.unwrap();
            assert_eq!(listed(&other).await, [(f.acme.account.clone(), waits.id())], "what waits may begin anywhere");
            let row = other.job_cancel(permit::<CancelJob>(&scope, job.clone())).await.unwrap();
            assert_eq!(row.state, JobState::Running);
            assert_eq!(f.store.job_beat(&act).await.unwrap(), Some(f.acme.member.name.clone()));
            f.store.job_cancel(permit::<CancelJob>(&scope, waits)).await.unwrap();
            let silent = format!("UPDATE job SET beat_at = beat_at - {}", JOB_SILENT.as_micros());
            database.superuser().await.batch_execute(&silent).await.unwrap();
            assert_eq!(listed(&other).await, left, "it is silent");
            let lost = Ending::because("server_ended", "gone");
            other.job_give_up(scope.tenant(), job.id(), JobState::Failed, lost).await.unwrap();
            assert_eq!(conflict(f.store.job_beat(&act).await), "job_ended", "it must stop what it runs");
            assert_eq!(conflict(f.store.job_say(&act, vec![json!({})], Vec::new()).await), "job_ended");
            assert_eq!(listed(&f.store).await, []);
            other.close();
        } else {
            f = f.restart();
            assert_eq!((f.store.server(), listed(&f.store).await), (server, left), "the same server, started again");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b06_an_account_keeps_so_many_jobs_and_no_more_wait_than_fit() {
    on_every_backend(async |f| {
        let scope = f.scope(&f.acme.member).await;
        let space = f.space(&f.acme.member, "work").await;
        let mut first = None;
        for _ in 0..bailiwick_types::limits::JOBS_KEPT + 5 {
            let (job, _) = create(&f, &scope, &space).await.unwrap();
            let row = f.store.job_cancel(permit::<CancelJob>(&scope, job.clone())).await.unwrap();
            assert_eq!(row.state, JobState::Canceled, "what waits is canceled at once");
            first.get_or_insert(job);
        }
        let listed = f.store.job_list(permit::<ListJobs>(&scope, space.clone()), 1000).await.unwrap();
        assert_eq!(listed.len() as u64, bailiwick_types::limits::JOBS_KEPT);
        let oldest = f.store.job_find(&scope, &space, first.unwrap().id()).await.unwrap();
        assert!(oldest.is_none(), "the oldest went, with what it said");
        for _ in 0..bailiwick_types::limits::USER_JOBS_WAITING {
            create(&f, &scope, &space).await.unwrap();
        }
        assert_eq!(conflict(create(&f, &scope, &space).await), "job_queue_full");
        let unfinished = f.store.jobs_unfinished().await.unwrap();
        assert_eq!(unfinished.len() as u64, bailiwick_types::limits::USER_JOBS_WAITING);
        assert!(unfinished.is_sorted_by_key(|(_, job)| job.id), "in the order in which they came");
    })
    .await;
}
