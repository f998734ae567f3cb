//! `prove-isolation` against a real server, where it must hold, and against one that lets everything
//! through, where it must not.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use bailiwick_testkit::database;
use serde_json::json;

use crate::support::{Done, Home, ROOT_KEY, Running};

/// A model that asks for an approval as soon as it is told to.
const SCRIPT: &str = "turns:\n\
    \x20 - when: { user: write_file }\n\
    \x20   repeat: last\n\
    \x20   steps:\n\
    \x20     - tools: [{ name: write_file, input: { path: proof.txt, content: \"proof\" } }]\n\
    \x20     - text: \"done\"\n\
    \x20 - default: true\n\
    \x20   repeat: last\n\
    \x20   steps: [{ text: \"I heard: {{user}}\" }]\n";

/// A server on the database that the run is for.
fn server(home: &Home) -> Running {
    if std::env::var(database::CHOICE).as_deref() != Ok("postgres") {
        return home.serve(SCRIPT);
    }
    let made = database::Postgres::fresh().unwrap();
    home.serve_with(SCRIPT, &format!("[database]\nurl = \"{}\"\n", made.url()))
}

fn accounts(server: &Running, home: &Home) -> String {
    server.client(home, ROOT_KEY, &["account", "list", "--json"]).good()
}

#[test]
fn a13_a_server_holds_and_nothing_of_the_proof_stays() {
    let home = Home::new();
    let server = server(&home);
    server.account(&home, "bystander", "alice");
    let before = accounts(&server, &home);
    let said = server.client(&home, ROOT_KEY, &["prove-isolation", "--json"]).json();
    assert_eq!((said["ok"].as_bool(), said["crossings"].as_u64()), (Some(true), Some(0)), "{said}");
    assert!(said["probes"].as_u64().unwrap() > 2_000, "{}", said["probes"]);
    let groups = said["groups"].as_array().unwrap();
    for group in groups {
        assert!(group["probes"].as_u64() > Some(0) && group["controls"].as_u64() > Some(0), "{group}");
    }
    let named: Vec<&str> = groups.iter().map(|group| group["name"].as_str().unwrap()).collect();
    for group in [
        "the audit stream",
        "session streams",
        "sandboxes",
        "routes of sandboxes",
        "routes of spaces",
        "routes of approvals",
        "routes of eve",
        "routes of admin accounts",
        "ids in bodies",
        "ids in headers",
        "paths of files",
        "links",
        "A's things, before and after",
    ] {
        assert!(named.contains(&group), "{group} is not in {named:?}");
    }
    // Some routes answer nobody, or ask for what a proof has not; whatever else is not probed is a gap.
    let notes = said["notes"].as_array().unwrap();
    let known = |note: &str| note.contains("answers nobody") || note.contains("there is no passkey");
    assert!(notes.len() <= 20 && notes.iter().all(|note| known(note.as_str().unwrap())), "{notes:#?}");
    assert_eq!(accounts(&server, &home), before, "the accounts are gone again");

    // Only the operator makes accounts.
    let alice = server.client(&home, ROOT_KEY, &["account", "create", "acme"]).good();
    server.client(&home, alice.trim(), &["prove-isolation"]).failed(1, &["Requires role: root"]);
}

#[test]
fn a13_without_a_model_it_says_what_it_left_out() {
    let home = Home::new();
    let silent = "turns: [{ default: true, repeat: last, steps: [{ text: \"no tools\" }] }]\n";
    let server = home.serve(silent);
    let said = server.client(&home, ROOT_KEY, &["prove-isolation"]).good();
    assert!(said.contains(" probes, 0 crossings, in "), "{said}");
    for left_out in ["asked for no approval", "/api/v1/approvals/{approval} is not probed"] {
        assert!(said.contains(left_out), "{left_out} is not in: {said}");
    }
}

#[test]
fn a13_a_stopped_proof_leaves_nothing_behind() {
    let home = Home::new();
    let server = server(&home);
    let before = accounts(&server, &home);
    let mut command = server.client_command(&home, ROOT_KEY, &["prove-isolation"]);
    let mut child = command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped()).spawn().unwrap();
    crate::support::eventually("its accounts are there", || {
        (accounts(&server, &home).matches("prove-").count() >= 2).then_some(())
    });
    let sent = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let mut told = String::new();
    child.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    assert!(told.contains("stopped before its end"), "{told}");
    assert_eq!(accounts(&server, &home), before);
}

/// How a fake server behaves towards strangers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fake {
    /// Shows everybody everything that anybody ever sent.
    Leaks,
    /// Answers everything well, with nothing in it.
    SaysYes,
    /// Refuses everybody, the owner too, once things are set up.
    Refuses,
}

/// A server that describes three routes and answers as it likes.
fn fake(kind: Fake) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Arc::new(Mutex::new(String::new()));
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let seen = Arc::clone(&seen);
            std::thread::spawn(move || answer(&socket.unwrap(), kind, &seen));
        }
    });
    address
}

fn answer(socket: &TcpStream, kind: Fake, seen: &Mutex<String>) -> Option<()> {
    let mut reader = BufReader::new(socket);
    loop {
        let (mut line, mut length) = (String::new(), 0);
        reader.read_line(&mut line).ok()?;
        let asked = line.split(' ').take(2).collect::<Vec<_>>().join(" ");
        if asked.is_empty() {
            return None;
        }
        loop {
            let mut field = String::new();
            reader.read_line(&mut field).ok()?;
            if let Some(value) = field.to_ascii_lowercase().strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if field.trim().is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        let mut seen = seen.lock().unwrap();
        seen.push_str(&String::from_utf8_lossy(&body));
        let names = String::from_utf8_lossy(&body);
        let sets_up = !["space_id", "agent_id", "manage"].iter().any(|word| names.contains(word));
        let (status, body) = replied(kind, &asked, &seen, sets_up);
        drop(seen);
        let head =
            format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        (&mut &*socket).write_all(format!("{head}{body}").as_bytes()).ok()?;
    }
}

fn replied(kind: Fake, asked: &str, seen: &str, sets_up: bool) -> (u16, String) {
    if asked.ends_with("/openapi.json") {
        let space = json!({ "get": {}, "delete": {} });
        return (
            200,
            json!({ "paths": { "/api/v1/spaces/{space}": space, "/api/v1/spaces": { "get": {} } } }).to_string(),
        );
    }
    // No sessions and no streams here.
    if asked.contains("/eve/") || asked.ends_with("/stream") {
        return (404, json!({ "ok": false, "error": "Session not found." }).to_string());
    }
    let made = json!({ "user_key": "bwk_aaaaaaaaaaaaaaaa_x", "id": "spc_01ARZ3NDEKTSV4RRFFQ69G5FAV" });
    let sets_up = sets_up && ["POST", "PUT", "PATCH"].iter().any(|method| asked.starts_with(method))
        || asked.starts_with("DELETE /api/v1/admin/");
    match kind {
        Fake::Leaks => (200, json!({ "status": "ok", "result": made, "seen": seen }).to_string()),
        Fake::Refuses if !sets_up => (404, json!({ "status": "error" }).to_string()),
        Fake::SaysYes | Fake::Refuses => (200, json!({ "status": "ok", "result": made }).to_string()),
    }
}

fn proof_of(kind: Fake) -> Done {
    let home = Home::new();
    let url = format!("http://{}", fake(kind));
    home.command(&["--url", &url, "--api-key", "x", "prove-isolation"]).output().unwrap().into()
}

#[test]
fn a13_a_server_that_shows_everything_does_not_pass() {
    let said = proof_of(Fake::Leaks);
    said.failed(1, &["CROSSING", "GET /api/v1/spaces/spc_01ARZ3NDEKTSV4RRFFQ69G5FAV", "was answered with what is A's"]);
}

#[test]
fn a13_a_server_that_says_yes_to_everything_does_not_pass() {
    let said = proof_of(Fake::SaysYes);
    said.failed(1, &["CROSSING", "DELETE /api/v1/spaces/spc_01ARZ3NDEKTSV4RRFFQ69G5FAV", "was done (200 OK)"]);
}

#[test]
fn a13_a_server_that_refuses_everybody_proves_nothing() {
    let said = proof_of(Fake::Refuses).failed(1, &["0 crossings", "the control did not hold"]);
    assert!(!said.contains("CROSSING"), "{said}");
    assert!(said.contains("GET /api/v1/spaces/"), "{said}");
}
