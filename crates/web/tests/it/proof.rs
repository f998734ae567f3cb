//! What the API gives to those who do not trust it: checkpoints, proofs and exports that verify with the
//! library alone, and retention that they still verify after.

use bailiwick_audit::Hash;
use bailiwick_audit::checkpoint::{Checkpoint, SignedNote, VerifierKey};
use bailiwick_audit::export::verify_export;
use bailiwick_audit::proof::{check_consistency, check_inclusion};
use serde_json::{Value, json};

use crate::support::{ROOT, Server, reason};

fn hash(value: &Value) -> Hash {
    let text = value.as_str().unwrap();
    let byte = |at| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..64).step_by(2).map(byte).collect::<Vec<_>>().try_into().unwrap()
}

fn hashes(proof: &Value) -> Vec<Hash> {
    proof["hashes"].as_array().unwrap().iter().map(hash).collect()
}

async fn checkpoint(server: &Server, at: &str, key: &str) -> (Checkpoint, VerifierKey) {
    let said = server.done("GET", &format!("{at}/checkpoint"), key, Value::Null).await;
    let verifier: VerifierKey = said["key"].as_str().unwrap().parse().unwrap();
    let note: SignedNote = said["note"].as_str().unwrap().parse().unwrap();
    let open = note.open(&verifier).unwrap();
    assert_eq!((said["size"].as_u64(), hash(&said["root"])), (Some(open.size), open.root));
    assert_eq!(said["origin"], open.origin.as_str());
    (open, verifier)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e07_proofs_of_the_api_verify_with_the_library_over_several_tiles() {
    let server = Server::start().await;
    let people = server.people().await;
    for _ in 0..300 {
        assert_eq!(server.get("/api/v1/spaces", &people.carol).await.status(), 200);
    }
    let (early, _) = checkpoint(&server, "/api/v1/audit", &people.alice).await;
    for _ in 0..400 {
        assert_eq!(server.get("/api/v1/spaces", &people.carol).await.status(), 200);
    }
    let observed = |event: &Value| event["seq"].as_u64() >= Some(690);
    server.event("/api/v1/audit", &people.alice, observed).await;
    let (now, _) = checkpoint(&server, "/api/v1/audit", &people.alice).await;
    assert!(now.size > 690, "{}", now.size);
    let get = async |path: String| server.done("GET", &path, &people.alice, Value::Null).await;
    for (seq, size) in [(0, 1), (255, 256), (256, 600), (511, 513), (600, now.size)] {
        let it = get(format!("/api/v1/audit/proof/inclusion?seq={seq}&size={size}")).await;
        let (leaf, root) = (hash(&it["leaf_hash"]), hash(&it["root"]));
        assert_eq!(check_inclusion(seq, size, &leaf, &hashes(&it), &root), Ok(()), "{seq} of {size}");
        assert!(check_inclusion(seq, size, &[7; 32], &hashes(&it), &root).is_err());
        if size == now.size {
            assert_eq!(root, now.root, "the root is the signed one");
        }
    }
    for (from, to) in [(early.size, now.size), (256, 512), (1, 690)] {
        let it = get(format!("/api/v1/audit/proof/consistency?from={from}&to={to}")).await;
        let (old, new) = (hash(&it["from_root"]), hash(&it["to_root"]));
        assert_eq!(check_consistency(from, to, &old, &new, &hashes(&it)), Ok(()), "{from} to {to}");
        if (from, to) == (early.size, now.size) {
            assert_eq!((old, new), (early.root, now.root));
        }
    }
    let beyond = format!("/api/v1/audit/proof/inclusion?seq=0&size={}", now.size + 1_000_000);
    let (status, body) = server.refused("GET", &beyond, &people.alice, Value::Null).await;
    assert_eq!((status, reason(&body)), (409, "log_is_shorter"));
    for path in ["inclusion", "inclusion?seq=x", "consistency?to=3"] {
        let path = format!("/api/v1/audit/proof/{path}");
        assert_eq!(server.refused("GET", &path, &people.alice, Value::Null).await.0, 400, "{path}");
        assert_eq!(server.get("/api/v1/audit/proof/inclusion", &people.carol).await.status(), 403);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e07_exports_and_checkpoints_verify_and_reading_them_is_on_record() {
    let server = Server::start().await;
    let people = server.people().await;
    server.space(&people.alice, "in-the-export").await;
    let note = server.request("GET", "/api/v1/audit/checkpoint", &people.alice).header("accept", "text/plain");
    let note = note.send().await.unwrap();
    assert_eq!(note.headers()["content-type"], "text/plain; charset=utf-8");
    let note: SignedNote = note.text().await.unwrap().parse().unwrap();
    let (_, key) = checkpoint(&server, "/api/v1/audit", &people.alice).await;
    let older = note.open(&key).unwrap();

    let file = server.get("/api/v1/audit/export", &people.alice).await;
    assert!(file.headers()["content-disposition"].to_str().unwrap().contains("acc_"));
    let file = file.bytes().await.unwrap();
    let report = verify_export(&*file, Some(&key), &[older]).unwrap();
    assert_eq!(report.older, 1);
    assert!(String::from_utf8_lossy(&file).contains("in-the-export"));
    let table = server.get("/api/v1/audit/export?format=csv", &people.alice).await.text().await.unwrap();
    assert!(table.starts_with("seq,at,") && table.contains("in-the-export"));
    assert_eq!(server.refused("GET", "/api/v1/audit/export?format=xml", &people.alice, Value::Null).await.0, 400);
    for path in ["checkpoint", "export", "proof/inclusion?seq=0"] {
        assert_eq!(server.get(&format!("/api/v1/audit/{path}"), &people.carol).await.status(), 403, "{path}");
        let admin = server.get(&format!("/api/v1/admin/audit/{path}"), &people.alice).await;
        assert_eq!(admin.status(), 403, "{path}");
        assert_eq!(server.get(&format!("/api/v1/admin/audit/{path}"), ROOT).await.status(), 200, "{path}");
        let foreign = server.get(&format!("/api/v1/audit/{path}"), &people.bob).await.text().await.unwrap();
        assert!(!foreign.contains("in-the-export"));
    }
    let (_, host_key) = checkpoint(&server, "/api/v1/admin/audit", ROOT).await;
    assert_eq!(host_key, key, "one key signs all logs");
    let host = server.get("/api/v1/admin/audit/export?format=jsonl", ROOT).await.bytes().await.unwrap();
    assert_eq!(verify_export(&*host, Some(&key), &[]).unwrap().log, "host");
    for route in ["/api/v1/audit/export", "/api/v1/audit/checkpoint"] {
        let read = |event: &Value| event["resource"] == format!("route:{route}") && event["actor"] == "user:alice";
        server.event("/api/v1/audit", &people.alice, read).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn e05_an_admin_retires_old_events_and_the_rest_verifies() {
    let server = Server::start().await;
    let people = server.people().await;
    server.space(&people.alice, "soon-forgotten").await;
    let (older, key) = checkpoint(&server, "/api/v1/audit", &people.alice).await;
    let body = json!({ "before": bailiwick_types::Timestamp::now() });
    for (caller, told) in [(&people.carol, "admin_only"), (&people.vera, "viewer_readonly")] {
        let (status, refused) = server.refused("POST", "/api/v1/audit/retire", caller, body.clone()).await;
        assert_eq!((status, reason(&refused)), (403, told));
    }
    let (_, refused) = server.refused("POST", "/api/v1/admin/audit/retire", &people.alice, body.clone()).await;
    assert_eq!(reason(&refused), "operator_only");
    assert_eq!(server.refused("POST", "/api/v1/audit/retire", &people.alice, json!({})).await.0, 400);
    let done = server.done("POST", "/api/v1/audit/retire", &people.alice, body.clone()).await;
    assert!(done["retired"].as_u64().unwrap() >= older.size, "{done}");
    let verified = server.done("GET", "/api/v1/audit/verify", &people.alice, Value::Null).await;
    assert_eq!((verified["ok"].as_bool(), &verified["retired"]), (Some(true), &done["below"]));
    assert!(verified["continues"].as_u64() > Some(0));
    let file = server.get("/api/v1/audit/export", &people.alice).await.text().await.unwrap();
    assert!(!file.contains("soon-forgotten"));
    assert!(verify_export(file.as_bytes(), Some(&key), &[older]).unwrap().retired > 0);
    let done = server.done("POST", "/api/v1/admin/audit/retire", ROOT, body).await;
    assert!(done["retired"].as_u64() > Some(0));
    assert_eq!(server.done("GET", "/api/v1/admin/audit/verify", ROOT, Value::Null).await["ok"], true);
}
