//! Retention: what the oldest events said is gone, and every proof of them still holds.

use std::time::Duration;

use bailiwick_audit::export::verify_export;
use bailiwick_audit::proof::check_inclusion;
use bailiwick_audit::{Actor, Problem};
use bailiwick_auth::access::verb::{RetireAudit, RetireHostAudit};
use bailiwick_store::log::ExportForm;
use bailiwick_types::{RequestId, Timestamp};

use crate::fixture::{conflict, permit};
use crate::hood::Hood;
use crate::on_every_backend;
use crate::proof::{export, grow, keep, may, signer};

#[tokio::test(flavor = "multi_thread")]
async fn e05_retired_events_say_nothing_and_the_log_is_whole() {
    on_every_backend(async |f| {
        keep(&f, Duration::ZERO);
        let scope = f.scope(&f.acme.admin).await;
        f.space(&f.acme.admin, "remembered-for-a-while").await;
        // More than one transaction's worth.
        grow(&f, 1_200).await;
        let (before, note) = f.store.event_checkpoint(may(&scope)).await.unwrap();
        let retire = permit::<RetireAudit>(&scope, scope.account());
        let done = f.store.event_retire(retire, Timestamp::now()).await.unwrap();
        assert_eq!((done.below, done.erased), (before.size, before.size));

        let verified = f.store.event_verify(may(&scope)).await.unwrap().unwrap();
        assert_eq!((verified.retired, verified.head.size), (before.size, before.size + 1));
        assert!(verified.continued > 0, "the head before was kept first");
        let events = f.events(&f.acme).await;
        let shown: Vec<_> = events.iter().map(|event| (event.seq, event.draft.action.as_str())).collect();
        assert_eq!(shown, [(before.size, "audit.retire")], "retired events are not listed");
        assert_eq!(events[0].draft.detail["below"], before.size);
        assert_eq!(events[0].draft.actor, Actor::User(f.acme.admin.name.clone()));

        let file = export(&f, &scope, ExportForm::JsonLines).await;
        let key = signer().verifier_key();
        let older = note.open(&key).unwrap();
        let report = verify_export(&*file, Some(&key), std::slice::from_ref(&older)).unwrap();
        assert_eq!((report.retired, report.older), (before.size, 1));
        assert!(!String::from_utf8(file).unwrap().contains("remembered-for-a-while"));
        let it = f.store.event_proof_inclusion(may(&scope), 7, None).await.unwrap();
        assert_eq!(check_inclusion(7, it.head.size, &it.leaf, &it.hashes, &verified.head.root), Ok(()));

        // A second time there is nothing to do but the statement itself.
        let again = permit::<RetireAudit>(&scope, scope.account());
        assert_eq!(f.store.event_retire(again, Timestamp::now()).await.unwrap().erased, 1);
        assert!(f.verify(&f.acme).await.is_ok());
        assert!(f.events(&f.globex).await.len() > 2, "another account keeps its own");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e05_what_is_retired_is_gone_from_the_disk() {
    on_every_backend(async |f| {
        keep(&f, Duration::ZERO);
        let scope = f.scope(&f.acme.admin).await;
        let words = "kept-in-the-record-alone";
        let mut draft = crate::event::draft("test.observed");
        draft.resource = format!("test:{words}");
        f.store.observe(Some(scope.tenant()), draft);
        grow(&f, 3).await;
        let hood = Hood::of(&f, &scope).await;
        let dir = f.dir().join("accounts").join(scope.tenant().incarnation().to_string());
        let on_disk = || {
            let files = std::fs::read_dir(&dir).unwrap().flatten().filter(|entry| entry.path().is_file());
            files
                .filter(|file| {
                    let bytes = std::fs::read(file.path()).unwrap();
                    bytes.windows(words.len()).any(|window| window == words.as_bytes())
                })
                .count()
        };
        assert!(on_disk() + hood.mentions(words).await > 0, "the control");
        let retire = permit::<RetireAudit>(&scope, scope.account());
        f.store.event_retire(retire, Timestamp::now()).await.unwrap();
        assert_eq!(on_disk() + hood.mentions(words).await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e05_only_old_events_are_retired_by_those_who_may_and_never_without_a_record() {
    on_every_backend(async |f| {
        keep(&f, Duration::from_secs(3600));
        let scope = f.scope(&f.acme.admin).await;
        grow(&f, 20).await;
        let retire = || permit::<RetireAudit>(&scope, scope.account());
        assert_eq!(conflict(f.store.event_retire(retire(), Timestamp::now()).await), "too_young");
        let old = Timestamp::from_micros(Timestamp::now().as_micros() - 3_601_000_000);
        let size = f.verify(&f.acme).await.unwrap().size;
        assert_eq!(f.store.event_retire(retire(), old).await.unwrap().erased, 0);
        let asked = f.verify(&f.acme).await.unwrap();
        assert_eq!(asked.size, size + 1, "that it was asked for is on record, and nothing else");
        let member = f.scope(&f.acme.member).await;
        let refused = member.authorize::<RetireAudit>(member.account()).err().unwrap();
        assert_eq!(refused.code(), Some("admin_only"));
        let host = f.login(&f.acme.admin.key).await.unwrap().host_scope(RequestId::new());
        assert_eq!(host.authorize::<RetireHostAudit>().err().unwrap().code(), Some("operator_only"));

        // The database lets a row be retired; without the record of it the log is not whole.
        let hood = Hood::of(&f, &scope).await;
        let account = scope.tenant().incarnation();
        let erase = "UPDATE event SET at = 0, actor = '', credential = '', address = '', request = NULL, \
             action = 'retired', resource = '', space = NULL, agent = NULL, phase = '', verdict = '', intent = NULL, \
             detail = '{}', untold = 1";
        hood.run(&format!("{erase} WHERE account = '{account}' AND seq < 2")).await;
        assert_eq!(f.verify(&f.acme).await, Err(Problem::Retired(0)));
        hood.run(&format!("{erase} WHERE account = '{account}' AND seq = 9")).await;
        assert_eq!(f.verify(&f.acme).await, Err(Problem::RetiredLate(9)));
        let partly = format!("UPDATE event SET detail = '{{}}' WHERE account = '{account}' AND seq = 4");
        assert!(hood.refused(&partly).await.contains("events are not changed"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e05_the_configured_retention_reaches_every_log() {
    on_every_backend(async |f| {
        keep(&f, Duration::ZERO);
        let gone = f.scope(&f.globex.admin).await;
        let operator = f.operator().await.host_scope(RequestId::new());
        let delete = operator.authorize().unwrap();
        f.store.account_delete(delete, f.globex.account.clone()).await.unwrap();
        assert_eq!(f.store.event_retire_all(Timestamp::from_micros(1)).await.unwrap(), 0, "the control");
        assert_eq!(f.store.event_retire_all(Timestamp::now()).await.unwrap(), 3, "two accounts and the host");
        let events = f.events(&f.acme).await;
        assert_eq!(events[0].draft.actor, Actor::Service("retention".to_owned()));
        assert_eq!(events[0].draft.action, "audit.retire");
        assert!(f.verify(&f.acme).await.is_ok());
        Hood::of(&f, &gone).await.verify(&gone).await;
        let verified = f.store.event_verify_host(operator.authorize().unwrap()).await.unwrap().unwrap();
        assert!(verified.retired > 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e05_an_export_during_a_retirement_breaks_off_and_is_never_half_of_each() {
    on_every_backend(async |f| {
        keep(&f, Duration::ZERO);
        let scope = f.scope(&f.acme.admin).await;
        grow(&f, 500).await;
        let mut begun = f.store.event_export(may(&scope), ExportForm::JsonLines).await.unwrap();
        assert!(begun.piece().await.unwrap().is_some(), "the control");
        let retire = permit::<RetireAudit>(&scope, scope.account());
        f.store.event_retire(retire, Timestamp::now()).await.unwrap();
        assert_eq!(conflict(begun.piece().await), "retired_meanwhile");
        let again = export(&f, &scope, ExportForm::JsonLines).await;
        assert!(verify_export(&*again, Some(&signer().verifier_key()), &[]).unwrap().retired > 500);
        // What grows meanwhile does not belong to it, and does not hinder it.
        let mut begun = f.store.event_export(may(&scope), ExportForm::JsonLines).await.unwrap();
        let mut file = begun.piece().await.unwrap().unwrap();
        grow(&f, 300).await;
        while let Some(piece) = begun.piece().await.unwrap() {
            file.extend(piece);
        }
        assert!(verify_export(&*file, Some(&signer().verifier_key()), &[]).is_ok());
    })
    .await;
}
