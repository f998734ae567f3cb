//! Proofs, exports and kept checkpoints: what others can check of a log without trusting the database.

use std::path::PathBuf;
use std::time::Duration;

use bailiwick_audit::Problem;
use bailiwick_audit::checkpoint::{Checkpoint, SignedNote, Signer};
use bailiwick_audit::export::verify_export;
use bailiwick_audit::proof::{check_consistency, check_inclusion};
use bailiwick_auth::Scope;
use bailiwick_auth::access::verb::{ReadAccountAudit, ReadHostAudit};
use bailiwick_store::checkpoint::{FORK, Keeping};
use bailiwick_store::log::{EventFilter, ExportForm};
use bailiwick_types::RequestId;

use crate::event::{draft, queue_is_empty};
use crate::fixture::{Fixture, conflict, permit};
use crate::hood::Hood;
use crate::on_every_backend;

const NAME: &str = "test.example";

pub(crate) fn signer() -> Signer {
    Signer::new(NAME, &[9; 32]).unwrap()
}

/// Signs and keeps, from now on.
pub(crate) fn keep(f: &Fixture, least_age: Duration) {
    f.store.keep_checkpoints(Keeping { signer: signer(), dir: f.dir().join("kept"), least_age }).unwrap();
}

/// A log of some hundred events.
pub(crate) async fn grow(f: &Fixture, events: usize) {
    let scope = f.scope(&f.acme.admin).await;
    for _ in 0..events {
        f.store.observe(Some(scope.tenant()), draft("test.observed"));
    }
    queue_is_empty(f).await;
}

pub(crate) fn may(scope: &Scope) -> bailiwick_auth::Permit<ReadAccountAudit> {
    permit::<ReadAccountAudit>(scope, scope.account())
}

async fn checkpoint(f: &Fixture, scope: &Scope) -> Checkpoint {
    let (_, note) = f.store.event_checkpoint(may(scope)).await.unwrap();
    note.open(&signer().verifier_key()).unwrap()
}

pub(crate) async fn export(f: &Fixture, scope: &Scope, form: ExportForm) -> Vec<u8> {
    let mut export = f.store.event_export(may(scope), form).await.unwrap();
    let mut whole = Vec::new();
    while let Some(piece) = export.piece().await.unwrap() {
        whole.extend(piece);
    }
    whole
}

#[tokio::test(flavor = "multi_thread")]
async fn e07_proofs_over_several_tiles_hold_and_prove_nothing_else() {
    on_every_backend(async |f| {
        keep(&f, Duration::ZERO);
        let scope = f.scope(&f.acme.admin).await;
        grow(&f, 100).await;
        let early = checkpoint(&f, &scope).await;
        grow(&f, 600).await;
        let now = checkpoint(&f, &scope).await;
        assert!(early.size > 100 && now.size > 700);
        for (seq, size) in
            [(0, 1), (0, 256), (255, 256), (255, 257), (256, 513), (600, now.size), (now.size - 1, now.size)]
        {
            let it = f.store.event_proof_inclusion(may(&scope), seq, Some(size)).await.unwrap();
            assert_eq!(check_inclusion(seq, size, &it.leaf, &it.hashes, &it.head.root), Ok(()), "{seq} of {size}");
            assert!(check_inclusion(seq, size, &[0; 32], &it.hashes, &it.head.root).is_err());
        }
        let last = f.store.event_proof_inclusion(may(&scope), 3, None).await.unwrap();
        assert_eq!(last.head.root, now.root, "the root is the one that is signed");
        for (from, to) in
            [(early.size, now.size), (1, 256), (256, 512), (255, 700), (512, now.size), (now.size, now.size)]
        {
            let it = f.store.event_proof_consistency(may(&scope), from, Some(to)).await.unwrap();
            assert_eq!(check_consistency(from, to, &it.from.root, &it.to.root, &it.hashes), Ok(()), "{from} to {to}");
        }
        let since = f.store.event_proof_consistency(may(&scope), early.size, None).await.unwrap();
        assert_eq!((since.from.root, since.to.root), (early.root, now.root));
        assert!(check_consistency(early.size, now.size, &[7; 32], &now.root, &since.hashes).is_err());

        let (seq, size) = (now.size, now.size + 1);
        assert_eq!(conflict(f.store.event_proof_inclusion(may(&scope), 0, Some(size)).await), "log_is_shorter");
        assert_eq!(conflict(f.store.event_proof_inclusion(may(&scope), seq, Some(seq)).await), "no_such_event");
        assert_eq!(conflict(f.store.event_proof_consistency(may(&scope), 0, None).await), "no_such_sizes");

        let host = f.operator().await.host_scope(RequestId::new());
        let may_host = || host.authorize::<ReadHostAudit>().unwrap();
        let it = f.store.event_proof_inclusion_host(may_host(), 1, None).await.unwrap();
        let (head, note) = f.store.event_checkpoint_host(may_host()).await.unwrap();
        assert_eq!(note.open(&signer().verifier_key()).unwrap().origin, format!("{NAME}/host"));
        assert_eq!(check_inclusion(1, head.size, &it.leaf, &it.hashes, &head.root), Ok(()));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e07_a_log_that_began_before_its_tiles_is_proven_and_a_false_tile_is_found() {
    on_every_backend(async |f| {
        grow(&f, 700).await;
        let scope = f.scope(&f.acme.admin).await;
        let hood = Hood::of(&f, &scope).await;
        let account = scope.tenant().incarnation();
        assert_eq!(hood.rows(&scope, "tree_tile").await, 2, "the control: they are kept as the log grows");
        hood.run(&format!("DELETE FROM tree_tile WHERE account = '{account}'")).await;
        let it = f.store.event_proof_inclusion(may(&scope), 699, None).await.unwrap();
        assert_eq!(check_inclusion(699, it.head.size, &it.leaf, &it.hashes, &it.head.root), Ok(()));
        assert_eq!(it.head.root, f.verify(&f.acme).await.unwrap().root);
        queue_is_empty(&f).await;
        assert_eq!(hood.rows(&scope, "tree_tile").await, 2, "what was computed once is kept");

        let other = "(SELECT hash FROM tree_tile WHERE n = 0)";
        hood.run(&format!("UPDATE tree_tile SET hash = {other} WHERE account = '{account}' AND n = 1")).await;
        let it = f.store.event_proof_inclusion(may(&scope), 699, None).await.unwrap();
        let root = match f.verify(&f.acme).await {
            Err(Problem::Tile { level: 1, index: 1 }) => it.head.root,
            other => panic!("{other:?}"),
        };
        hood.run(&format!("DELETE FROM tree_tile WHERE account = '{account}' AND n = 1")).await;
        assert_ne!(f.verify(&f.acme).await.unwrap().root, root, "a false tile leads to no root of the log");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e07_an_export_verifies_with_the_key_alone() {
    on_every_backend(async |f| {
        keep(&f, Duration::ZERO);
        let scope = f.scope(&f.acme.admin).await;
        // Exactly at the end of a piece, and in the middle of one.
        for more in [180, 200, 321] {
            grow(&f, more).await;
            let older = checkpoint(&f, &scope).await;
            grow(&f, 3).await;
            let file = export(&f, &scope, ExportForm::JsonLines).await;
            let report = verify_export(&*file, Some(&signer().verifier_key()), std::slice::from_ref(&older)).unwrap();
            assert_eq!(Ok(report.head), f.verify(&f.acme).await);
            let table = String::from_utf8(export(&f, &scope, ExportForm::Table).await).unwrap();
            assert_eq!(table.lines().count() as u64, checkpoint(&f, &scope).await.size + 1);
            assert!(!String::from_utf8(file).unwrap().contains("globex"));
        }
        let host = f.operator().await.host_scope(RequestId::new());
        let permit = host.authorize::<ReadHostAudit>().unwrap();
        let mut whole = f.store.event_export_host(permit, ExportForm::JsonLines).await.unwrap();
        let file = whole.piece().await.unwrap().unwrap();
        assert!(whole.piece().await.unwrap().is_none());
        assert_eq!(verify_export(&*file, Some(&signer().verifier_key()), &[]).unwrap().log, "host");
    })
    .await;
}

fn kept(f: &Fixture, log: &str) -> (PathBuf, Vec<Checkpoint>) {
    let path = f.dir().join(format!("kept/{log}.txt"));
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let parts: Vec<&str> = text.split_terminator("\n\n").collect();
    let open = |pair: &[&str]| {
        let note: SignedNote = format!("{}\n\n{}\n", pair[0], pair[1]).parse().unwrap();
        note.open(&signer().verifier_key()).unwrap()
    };
    (path, parts.chunks(2).map(open).collect())
}

#[tokio::test(flavor = "multi_thread")]
async fn e07_heads_are_kept_of_logs_that_grew_and_of_no_others() {
    on_every_backend(async |f| {
        keep(&f, Duration::ZERO);
        let (acme, globex) = (f.scope(&f.acme.admin).await, f.scope(&f.globex.admin).await);
        let of = |scope: &Scope| scope.tenant().incarnation().to_string();
        f.store.checkpoint_grown().await.unwrap();
        f.store.checkpoint_grown().await.unwrap();
        assert_eq!((kept(&f, &of(&acme)).1.len(), kept(&f, "host").1.len()), (1, 1), "what does not grow is kept once");
        grow(&f, 5).await;
        f.store.checkpoint_grown().await.unwrap();
        let (path, of_acme) = kept(&f, &of(&acme));
        assert_eq!((of_acme.len(), kept(&f, &of(&globex)).1.len()), (2, 1));
        assert_eq!(of_acme[1].size, f.verify(&f.acme).await.unwrap().size);
        let verified = f.store.event_verify(may(&acme)).await.unwrap().unwrap();
        assert_eq!(verified.continued, 2);

        // The server ended in the middle of a line; the next ones can be read all the same.
        let text = std::fs::read_to_string(&path).unwrap();
        std::fs::write(&path, format!("{text}{}", &text[..40])).unwrap();
        let f = f.restart();
        keep(&f, Duration::ZERO);
        grow(&f, 1).await;
        f.store.checkpoint_grown().await.unwrap();
        assert_eq!(f.store.event_verify(may(&acme)).await.unwrap().unwrap().continued, 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn e07_a_log_rewritten_with_its_head_is_found_against_the_kept_checkpoint() {
    on_every_backend(async |f| {
        keep(&f, Duration::ZERO);
        grow(&f, 300).await;
        f.store.checkpoint_grown().await.unwrap();
        let scope = f.scope(&f.acme.admin).await;
        let of_acme = scope.tenant().incarnation().to_string();
        let signed = kept(&f, &of_acme).1[0].clone();
        let file = export(&f, &scope, ExportForm::JsonLines).await;
        let key = signer().verifier_key();
        assert!(verify_export(&*file, Some(&key), std::slice::from_ref(&signed)).is_ok(), "the control");

        let hood = Hood::of(&f, &scope).await;
        hood.unguard().await;
        hood.rewind(&scope, 280).await;
        assert_eq!(
            f.verify(&f.acme).await,
            Err(Problem::Shrunk { size: 280, older: signed.size }),
            "a log that was cut with its head"
        );
        // It grows on, past where it was, and everything in the database fits.
        grow(&f, 100).await;
        assert!(matches!(f.verify(&f.acme).await, Err(Problem::Fork { size, .. }) if size == signed.size));
        let forged = export(&f, &scope, ExportForm::JsonLines).await;
        assert!(verify_export(&*forged, Some(&key), &[]).is_ok(), "signed by the same key, it looks whole");
        assert_eq!(verify_export(&*forged, Some(&key), std::slice::from_ref(&signed)).unwrap_err().code(), "fork");

        // The server itself notices when it meets the log anew, says so, and leaves the evidence alone.
        let f = f.restart();
        keep(&f, Duration::ZERO);
        grow(&f, 1).await;
        for _ in 0..2 {
            f.store.checkpoint_grown().await.unwrap();
        }
        assert_eq!(kept(&f, &of_acme).1, [signed]);
        let host = f.operator().await.host_scope(RequestId::new());
        let filter = EventFilter { action: Some(FORK.to_owned()), limit: 10, ..EventFilter::default() };
        let told = f.store.event_list_host(host.authorize::<ReadHostAudit>().unwrap(), filter).await.unwrap();
        let told: Vec<_> = told.iter().map(|event| event.draft.resource.as_str()).collect();
        assert_eq!(told, [format!("log:{of_acme}")], "once");
        assert!(matches!(f.verify(&f.acme).await, Err(Problem::Fork { .. })));
        assert!(f.verify(&f.globex).await.is_ok());
        // Without what was kept outside, nothing would have told.
        std::fs::remove_dir_all(f.dir().join("kept")).unwrap();
        assert!(f.verify(&f.acme).await.is_ok());
    })
    .await;
}
