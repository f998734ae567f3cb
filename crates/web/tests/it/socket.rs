//! The WebSocket `/api/v1/ws`, as a client that nobody here wrote speaks it.

use std::time::Duration;

use bailiwick_auth::authn::Step;
use bailiwick_web::{Settings, Times};
use futures::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use crate::support::{ROOT, Server, Terms, settings, taken};

struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    /// Opens one with these headers; the status, where it is refused.
    async fn open(server: &Server, headers: &[(&'static str, String)]) -> Result<Self, u16> {
        Self::at(server, "/api/v1/ws", headers).await
    }

    async fn at(server: &Server, path: &str, headers: &[(&'static str, String)]) -> Result<Self, u16> {
        let mut request = format!("ws://{}{path}", server.address).into_client_request().unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        match connect_async(request).await {
            Ok((socket, _)) => Ok(Self(socket)),
            Err(tokio_tungstenite::tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    }

    /// One of somebody with a key, who said so in the first frame.
    async fn of(server: &Server, token: &str) -> Self {
        let mut socket = Self::open(server, &[]).await.unwrap();
        socket.say(json!({ "type": "auth", "token": token })).await;
        let ready = socket.next().await;
        assert_eq!(ready["type"], "ready", "{ready}");
        socket
    }

    async fn say(&mut self, frame: Value) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    /// The next message that is not a sign of life; the close's code and word as an object.
    async fn next(&mut self) -> Value {
        let reading = async {
            loop {
                match self.0.next().await {
                    Some(Ok(Message::Text(text))) => return serde_json::from_str(&text).unwrap(),
                    Some(Ok(Message::Close(Some(frame)))) => {
                        return json!({ "closed": u16::from(frame.code), "word": frame.reason.as_str() });
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                    other => return json!({ "broken": format!("{other:?}") }),
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(20), reading).await.expect("a message in time")
    }

    /// Reads until a message fits.
    async fn until(&mut self, fits: impl Fn(&Value) -> bool) -> Value {
        loop {
            let message = self.next().await;
            if fits(&message) {
                return message;
            }
            assert!(message.get("closed").is_none() && message.get("broken").is_none(), "{message}");
        }
    }

    /// Asks, and gives the answer of that id.
    async fn ask(&mut self, frame: Value) -> Value {
        let id = frame["id"].clone();
        self.say(frame).await;
        self.until(|message| message["id"] == id && matches!(message["type"].as_str(), Some("done" | "error"))).await
    }
}

async fn session(server: &Server, key: &str, agent: &str, space: &str, message: &str) -> String {
    let request = server
        .request("POST", "/eve/v1/session", key)
        .header("x-bailiwick-agent", agent)
        .header("x-bailiwick-space", space)
        .json(&json!({ "message": message }));
    let (status, begun) = taken(request.send().await.unwrap()).await;
    assert_eq!(status, 202, "{begun}");
    begun["sessionId"].as_str().unwrap().to_owned()
}

/// A key's server where one principal may ask so often in a second.
async fn rated(principal: u32) -> Server {
    let rates = bailiwick_web::Rates { principal: std::num::NonZeroU32::new(principal), address: None };
    Server::with(vec![Step::ApiKey], Settings { rates, ..settings() }).await
}

fn cookie(token: &str) -> (&'static str, String) {
    ("cookie", format!("vibe_session={token}"))
}

fn quick(times: Times) -> Settings {
    Settings { times, ..settings() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i10_pages_of_other_sites_open_no_socket() {
    let server = Server::start().await;
    server.people().await;
    let login = server.login("acme", "alice").await;
    let own = ("origin", format!("http://{}", server.address));
    for foreign in ["http://evil.example", "null", "https://127.0.0.1:1"] {
        let origin = ("origin", foreign.to_owned());
        assert_eq!(Socket::open(&server, &[cookie(&login.token), origin.clone()]).await.err(), Some(403), "{foreign}");
        assert_eq!(Socket::open(&server, &[origin]).await.err(), Some(403), "{foreign}, without a cookie");
    }
    let site = ("sec-fetch-site", "cross-site".to_owned());
    assert_eq!(Socket::open(&server, &[cookie(&login.token), own.clone(), site]).await.err(), Some(403));
    // The cookie alone is not enough: every browser says whose page it is.
    assert_eq!(Socket::open(&server, &[cookie(&login.token)]).await.err(), Some(403));
    assert_eq!(Socket::open(&server, &[cookie("bwl_wrong"), own.clone()]).await.err(), Some(401));
    let line = server.event("/api/v1/audit", &login.token, |event| event["action"] == "csrf.refused").await;
    assert_eq!(line["resource"], "route:/api/v1/ws");
    // One of our own pages.
    let mut socket = Socket::open(&server, &[cookie(&login.token), own]).await.unwrap();
    let ready = socket.next().await;
    assert_eq!((&ready["type"], &ready["account"], &ready["user"]), (&json!("ready"), &json!("acme"), &json!("alice")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i10_who_does_not_say_who_they_are_in_time_is_closed() {
    let times = Times { hello: Duration::from_millis(300), ..Times::default() };
    let server = Server::with(vec![Step::ApiKey, Step::Session], quick(times)).await;
    let people = server.people().await;
    // A token in the address is nobody's credential.
    let mut silent = Socket::at(&server, &format!("/api/v1/ws?token={}", people.alice), &[]).await.unwrap();
    assert_eq!(silent.next().await, json!({ "closed": 4408, "word": "auth_timeout" }));
    for (first, code) in [
        (json!({ "type": "subscribe", "id": "1", "session": "ses_x" }), 4400),
        (json!({ "type": "auth", "token": "x", "more": 1 }), 4400),
        (json!({ "type": "auth", "token": "line\nbreak" }), 4400),
        (json!(["auth"]), 4400),
        (json!({ "type": "auth", "token": "wrong" }), 4401),
        (json!({ "type": "auth" }), 4401),
        (json!({ "type": "auth", "token": ROOT }), 4401),
    ] {
        let mut socket = Socket::open(&server, &[]).await.unwrap();
        socket.say(first.clone()).await;
        let closed = socket.until(|message| message.get("closed").is_some()).await;
        assert_eq!(closed["closed"], code, "{first}");
    }
    // The operator says for whom; a user's key needs no more than itself, by the frame or by a header.
    let mut operator = Socket::open(&server, &[]).await.unwrap();
    operator.say(json!({ "type": "auth", "token": ROOT, "account": "globex", "user": "bob" })).await;
    assert_eq!(operator.next().await["account"], "globex");
    let mut user = Socket::of(&server, &people.alice).await;
    user.say(json!({ "type": "ping" })).await;
    assert_eq!(user.next().await, json!({ "type": "pong" }));
    let mut header = Socket::open(&server, &[("x-api-key", people.alice.clone())]).await.unwrap();
    assert_eq!(header.next().await["user"], "alice");
    let without = server.get("/api/v1/ws", &people.alice).await;
    assert_eq!(without.status(), 426, "without the handshake");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i10_ending_a_login_closes_its_sockets_and_no_others() {
    let server = Server::start().await;
    let people = server.people().await;
    let (ended, kept) = (server.login("acme", "carol").await, server.login_again("acme", "carol").await);
    let (mut first, mut second) = (Socket::of(&server, &ended.token).await, Socket::of(&server, &kept.token).await);
    let mut keyed = Socket::of(&server, &people.dave).await;
    let begun = std::time::Instant::now();
    server.done("DELETE", &format!("/api/v1/devices/{}", ended.device), &kept.token, Value::Null).await;
    assert_eq!(first.next().await["closed"], 4401);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    second.say(json!({ "type": "ping" })).await;
    assert_eq!(second.next().await["type"], "pong");
    // A user who is removed, with a key: nothing of them stays open.
    server.done("DELETE", "/api/v1/admin/accounts/globex/users/dave", &people.bob, Value::Null).await;
    assert_eq!(keyed.next().await["closed"], 4401);
    // And the server's end.
    server.stop.cancel();
    assert_eq!(second.next().await, json!({ "closed": 1001, "word": "stopping" }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i10_a_viewer_sees_live_and_writes_nothing_while_the_socket_stays() {
    let server = Server::start().await;
    let people = server.people().await;
    let space = server.space(&people.alice, "shown").await;
    let grant = json!({ "user": "vera", "level": "manage" });
    server.done("PUT", &format!("/api/v1/spaces/{space}/grants"), &people.alice, grant).await;
    let session = session(&server, &people.alice, "default", &space, "hello").await;
    let (mut vera, mut alice) = (Socket::of(&server, &people.vera).await, Socket::of(&server, &people.alice).await);
    for socket in [&mut vera, &mut alice] {
        let done = socket.ask(json!({ "type": "subscribe", "id": "s", "session": session })).await;
        assert_eq!(done["type"], "done", "{done}");
        let over = socket.until(|message| message["event"]["type"] == "turn.completed").await;
        assert_eq!(over["id"], "s");
    }
    for write in [
        json!({ "type": "send", "id": "w", "session": session, "body": { "message": "from the viewer" } }),
        json!({ "type": "cancel", "id": "w", "session": session }),
    ] {
        let refused = vera.ask(write).await;
        assert_eq!((&refused["type"], &refused["code"]), (&json!("error"), &json!("viewer_readonly")), "{refused}");
    }
    // The same from who may; the viewer sees it come.
    let sent =
        alice.ask(json!({ "type": "send", "id": "w", "session": session, "body": { "message": "again" } })).await;
    assert_eq!((&sent["type"], &sent["sessionId"]), (&json!("done"), &json!(session)), "{sent}");
    for socket in [&mut vera, &mut alice] {
        socket
            .until(|message| {
                message["event"]["type"] == "message.received" && message["event"].to_string().contains("again")
            })
            .await;
    }
    let line = server
        .event("/api/v1/audit", &people.alice, |e| {
            e["user"] == "vera" && e["action"] == "ws.request" && e["detail"]["type"] == "send"
        })
        .await;
    assert_eq!(line["result"], "DENIED");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a04_i10_what_is_anothers_is_not_there_by_the_socket_either() {
    let server = Server::start().await;
    let people = server.people().await;
    let space = server.space(&people.alice, "mine").await;
    let waiting = session(&server, &people.alice, "careful", &space, "write-file").await;
    let approval = server.event("/api/v1/approvals", &people.alice, |row| row["session_id"] == json!(waiting)).await;
    let never = "ses_01ARZ3NDEKTSV4RRFFQ69G5FAV";
    let mut strangers = [
        Socket::of(&server, &people.bob).await,
        Socket::of(&server, &people.carol).await,
        Socket::of(&server, &people.vera).await,
    ];
    for stranger in &mut strangers {
        let frames = |session: &str, approval: &str| {
            [
                json!({ "type": "subscribe", "id": "x", "session": session }),
                json!({ "type": "send", "id": "x", "session": session, "body": { "message": "hi" } }),
                json!({ "type": "cancel", "id": "x", "session": session }),
                json!({ "type": "decide", "id": "x", "approval": approval, "decision": "approve" }),
            ]
        };
        let there = frames(&waiting, approval["id"].as_str().unwrap());
        let nowhere = frames(never, "apr_01ARZ3NDEKTSV4RRFFQ69G5FAV");
        for (there, nowhere) in there.into_iter().zip(nowhere) {
            let kind = there["type"].clone();
            let (there, nowhere) = (stranger.ask(there).await, stranger.ask(nowhere).await);
            assert_eq!((&there["type"], &there["code"]), (&json!("error"), &json!("NOT_FOUND")), "{kind}: {there}");
            assert_eq!(there["code"], nowhere["code"], "{kind}");
        }
    }
    // Whose it is, decides, over the socket.
    let mut alice = Socket::of(&server, &people.alice).await;
    let decided = alice
        .ask(json!({ "type": "decide", "id": "d", "approval": approval["id"], "decision": "deny", "reason": "no" }))
        .await;
    assert_eq!(decided["state"], "denied", "{decided}");
    // The log: an admin's is the account's, and nothing of another account is in it.
    let mut bob = Socket::of(&server, &people.bob).await;
    bob.ask(json!({ "type": "subscribe", "id": "log", "audit": { "after": 0 } })).await;
    alice.ask(json!({ "type": "subscribe", "id": "log", "audit": { "after": 0, "action": "approval.decide", "result": "OK" } })).await;
    let seen = alice.until(|message| message["type"] == "audit").await;
    assert_eq!((&seen["event"]["action"], &seen["event"]["user"]), (&json!("approval.decide"), &json!("alice")));
    server.space(&people.bob, "marker").await;
    let mut all = Vec::new();
    loop {
        let message = bob.next().await;
        let done = message["event"]["action"] == "space.create" && message["event"]["user"] == "bob";
        all.push(message.to_string());
        if done {
            break;
        }
    }
    assert!(all.iter().all(|text| !text.contains("alice")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i07_i10_to_watch_is_no_use_of_a_login() {
    let terms = Terms { idle: Some(Duration::from_millis(1_500)), ..Terms::default() };
    let times = Times { heartbeat: Duration::from_millis(200), ..Times::default() };
    let server = Server::on(vec![Step::ApiKey, Step::Session], quick(times), terms).await;
    let people = server.people().await;
    let login = server.login("acme", "alice").await;
    let mut socket = Socket::of(&server, &login.token).await;
    // Commands are use, for longer than the limit in all.
    for n in 0..6 {
        tokio::time::sleep(Duration::from_millis(400)).await;
        let done = socket.ask(json!({ "type": "unsubscribe", "id": n.to_string() })).await;
        assert_eq!(done["type"], "done");
    }
    assert_eq!(socket.next().await, json!({ "closed": 4401, "word": "session_timeout" }));
    let line = server.event("/api/v1/audit", &people.alice, |event| event["action"] == "auth.session.timeout").await;
    assert_eq!(line["detail"]["device"], json!(login.device));
    assert_eq!(server.done("GET", "/api/v1/devices", &people.alice, Value::Null).await, json!([]), "the row is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i10_hostile_frames_are_told_or_end_the_socket_and_nothing_else() {
    let server = Server::start().await;
    let people = server.people().await;
    let mut socket = Socket::of(&server, &people.alice).await;
    for bad in [
        "",
        "{",
        "[]",
        "null",
        r#"{"type":"auth","token":"x"}"#,
        r#"{"type":"nothing","id":"1"}"#,
        r#"{"type":"ping","id":"1"}"#,
        r#"{"type":"send","id":"1"}"#,
        r#"{"type":"subscribe","id":"1","id":"2","session":"x"}"#,
        r#"{"type":"subscribe","id":"1","session":"x","admin":true}"#,
    ] {
        socket.0.send(Message::text(bad)).await.unwrap();
        let told = socket.next().await;
        assert_eq!(told["type"], "error", "{bad}: {told}");
        assert!(!told.to_string().contains("src/"), "{told}");
    }
    let deep = format!("{}{}", "[".repeat(5_000), "]".repeat(5_000));
    socket.0.send(Message::text(deep)).await.unwrap();
    assert_eq!(socket.next().await["type"], "error");
    for both in [
        json!({ "type": "subscribe", "id": "b" }),
        json!({ "type": "subscribe", "id": "b", "session": "x", "audit": {} }),
        json!({ "type": "subscribe", "id": "b", "audit": {}, "startIndex": 1 }),
        json!({ "type": "subscribe", "id": "long".repeat(50), "audit": {} }),
        json!({ "type": "subscribe", "id": "b", "audit": { "result": "perhaps" } }),
    ] {
        socket.say(both.clone()).await;
        assert_eq!(socket.next().await["type"], "error", "{both}");
    }
    // A name is in use once, and there is an end to how many.
    assert_eq!(
        socket.ask(json!({ "type": "subscribe", "id": "0", "audit": { "action": "none" } })).await["type"],
        "done"
    );
    assert_eq!(socket.ask(json!({ "type": "subscribe", "id": "0", "audit": {} })).await["type"], "error");
    for n in 1..32 {
        assert_eq!(
            socket.ask(json!({ "type": "subscribe", "id": n.to_string(), "audit": { "action": "none" } })).await["type"],
            "done"
        );
    }
    let many = socket.ask(json!({ "type": "subscribe", "id": "33", "audit": {} })).await;
    assert_eq!(many["code"], "too_many_streams", "{many}");
    assert_eq!(socket.ask(json!({ "type": "unsubscribe", "id": "5" })).await["type"], "done");
    assert_eq!(
        socket.ask(json!({ "type": "subscribe", "id": "33", "audit": { "action": "none" } })).await["type"],
        "done"
    );
    // Bytes, and frames beyond the limit, end it.
    let mut binary = Socket::of(&server, &people.alice).await;
    binary.0.send(Message::binary(vec![0u8; 4])).await.unwrap();
    assert_eq!(binary.next().await["closed"], u16::from(CloseCode::Policy));
    let mut long = Socket::of(&server, &people.alice).await;
    long.say(json!({ "type": "unsubscribe", "id": "x".repeat(300_000) })).await;
    let ended = long.next().await;
    assert!(ended.get("closed").is_some() || ended.get("broken").is_some(), "{ended}");
    // Others noticed nothing; and one user has only so many sockets.
    let mut held = Vec::new();
    for _ in 0..31 {
        held.push(Socket::of(&server, &people.alice).await);
    }
    let mut more = Socket::open(&server, &[("x-api-key", people.alice.clone())]).await.unwrap();
    assert_eq!(more.next().await["code"], "too_many_sockets");
    Socket::of(&server, &people.bob).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i17_frames_that_come_too_fast_end_the_socket_and_do_not_fill_the_record() {
    let server = rated(20).await;
    let people = server.people().await;
    let begun = std::time::Instant::now();
    let mut refused = 0;
    while refused < 160 {
        // To open one counts, too: whoever was just closed comes no further than the first frame.
        let mut socket = Socket::open(&server, &[]).await.unwrap();
        socket.say(json!({ "type": "auth", "token": people.carol })).await;
        let first = socket.next().await;
        if first["type"] != "ready" {
            assert_eq!(first["code"], "rate_limited", "{first}");
            assert_eq!(socket.next().await, json!({ "closed": 1008, "word": "rate_limited" }));
            continue;
        }
        for n in 0..400 {
            // What was sent after the close is nobody's.
            let _ =
                socket.0.feed(Message::text(json!({ "type": "unsubscribe", "id": n.to_string() }).to_string())).await;
        }
        let _ = socket.0.flush().await;
        loop {
            let answer = socket.next().await;
            match answer["type"].as_str() {
                Some("done") => {}
                Some("error") => {
                    assert_eq!(answer["code"], "rate_limited", "{answer}");
                    assert!(answer["id"].is_string(), "it says which: {answer}");
                    refused += 1;
                }
                _ => break assert!(answer.get("closed").is_some() || answer.get("broken").is_some(), "{answer}"),
            }
        }
    }
    // Two seconds more than were seen: the clock's second begins where it likes.
    let most = 20 * (usize::try_from(begun.elapsed().as_secs()).unwrap() + 2);
    // Whoever is held back holds back nobody else, here or elsewhere.
    for key in [&people.alice, &people.bob] {
        let mut other = Socket::of(&server, key).await;
        assert_eq!(other.ask(json!({ "type": "unsubscribe", "id": "x" })).await["type"], "done");
    }
    let wrote =
        |event: &Value| event["action"] == "ws.request" && event["user"] == "carol" && event["detail"]["status"] == 429;
    let line = server.event("/api/v1/audit", &people.alice, wrote).await;
    assert_eq!(line["detail"]["type"], "unsubscribe");
    let log = server.done("GET", "/api/v1/audit?action=ws.request&limit=1000", &people.alice, Value::Null).await;
    let written = log.as_array().unwrap().iter().filter(|event| wrote(event)).count();
    assert!((1..=most).contains(&written), "{written} of {refused} refusals, at most {most}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i17_signs_of_life_and_what_is_no_frame_are_counted_too() {
    let server = rated(20).await;
    let people = server.people().await;
    let life = || Message::Ping(vec![1].into());
    for (key, frame) in
        [(&people.carol, life()), (&people.bob, Message::text("{")), (&people.vera, Message::text("[]"))]
    {
        let mut socket = Socket::of(&server, key).await;
        for _ in 0..400 {
            let _ = socket.0.feed(frame.clone()).await;
        }
        let _ = socket.0.flush().await;
        let ended = socket.until(|message| message.get("type").is_none()).await;
        assert_eq!(ended, json!({ "closed": 1008, "word": "rate_limited" }), "{frame:?}");
    }
    // The control: without a rate they are answered, all of them, and the socket stays.
    let server = Server::start().await;
    let people = server.people().await;
    let mut socket = Socket::of(&server, &people.carol).await;
    for _ in 0..400 {
        socket.0.feed(life()).await.unwrap();
        socket.0.feed(Message::text("{")).await.unwrap();
    }
    socket.0.flush().await.unwrap();
    for _ in 0..400 {
        assert_eq!(socket.next().await["type"], "error");
    }
    assert_eq!(socket.ask(json!({ "type": "unsubscribe", "id": "x" })).await["type"], "done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i10_who_talks_without_a_pause_is_closed_like_everybody() {
    let times = Times { heartbeat: Duration::from_secs(60), ..Times::default() };
    let server = Server::with(vec![Step::ApiKey, Step::Session], quick(times)).await;
    let people = server.people().await;
    for (person, admin, path) in [
        (&people.dave, &people.bob, "/api/v1/admin/accounts/globex/users/dave"),
        (&people.carol, &people.alice, "/api/v1/admin/accounts/acme/users/carol"),
    ] {
        let mut socket = Socket::of(&server, person).await;
        socket.say(json!({ "type": "ping" })).await;
        assert_eq!(socket.next().await["type"], "pong", "the control");
        // At once, so that the look is due some time after it.
        server.done("DELETE", path, admin, Value::Null).await;
        let removed = std::time::Instant::now();
        let ended = loop {
            if socket.0.send(Message::text(json!({ "type": "ping" }).to_string())).await.is_err() {
                break socket.next().await;
            }
            let answer = socket.next().await;
            if answer["type"] != "pong" {
                break answer;
            }
            assert!(removed.elapsed() < Duration::from_secs(10), "still answered after {:?}", removed.elapsed());
        };
        assert!(ended["closed"] == 4401 || ended.get("broken").is_some(), "{ended}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i17_a_long_message_is_refused_by_every_door_and_long_streams_come_whole() {
    let server = Server::start().await;
    let people = server.people().await;
    let most = 256 * 1024;
    let limits = server.done("GET", "/api/v1/limits", &people.alice, Value::Null).await;
    assert_eq!(limits["message_bytes"], most);
    let space = server.space(&people.alice, "long").await;
    let session = session(&server, &people.alice, "default", &space, &"x".repeat(most)).await;
    let path = format!("/eve/v1/session/{session}");
    for (path, allowed) in [(path.as_str(), 202), ("/eve/v1/session", 202)] {
        for (length, expected) in [(most, allowed), (most + 1, 400), (9 * 1024 * 1024, 400)] {
            let body = json!({ "message": [{ "type": "text", "text": "x".repeat(length) }] });
            let (status, answer) =
                taken(server.request("POST", path, &people.alice).json(&body).send().await.unwrap()).await;
            assert_eq!(status, expected, "{path} {length}: {answer}");
            if expected == 400 {
                assert!(answer.to_string().contains("at most 262144"), "{answer}");
            }
        }
    }
    // By the socket the frame is what has an end, and it is no longer than a message.
    let mut alice = Socket::of(&server, &people.alice).await;
    let sent = alice
        .ask(json!({ "type": "send", "id": "s", "session": session, "body": { "message": "x".repeat(200 * 1024) } }))
        .await;
    assert_eq!(sent["type"], "done", "{sent}");
    // More than a page, to a reader who reads nothing until eight subscriptions wait for it, and a stranger
    // with one of their own. Each gets each event once, in order.
    for n in 0..8 {
        alice.say(json!({ "type": "subscribe", "id": n.to_string(), "session": session })).await;
    }
    let mut bob = Socket::of(&server, &people.bob).await;
    let refused = bob.ask(json!({ "type": "subscribe", "id": "x", "session": session })).await;
    assert_eq!(refused["code"], "NOT_FOUND");
    let mut next = [0u64; 8];
    let mut long = [0; 8];
    while long.iter().any(|seen| *seen < 3) {
        let message = alice.until(|message| message["type"] == "event").await;
        let who: usize = message["id"].as_str().unwrap().parse().unwrap();
        assert_eq!(message["index"], next[who]);
        next[who] += 1;
        let text = message["event"]["data"]["message"].as_str().unwrap_or_default();
        long[who] += usize::from(message["event"]["type"] == "message.received" && text.len() >= 200 * 1024);
    }
    // As lines, too, to the end.
    let lines = server.get(&format!("{path}/stream?follow=false"), &people.alice).await.text().await.unwrap();
    let long = lines.lines().filter(|line| line.contains("message.received") && line.len() >= 200 * 1024);
    assert_eq!(long.count(), 3);
}
