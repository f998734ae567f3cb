//! Connections into which nobody looks, and those that do not come about.

use bailiwick_egress::Limits;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;

use crate::world::World;

fn policy() -> Value {
    json!({ "allow": ["plain.test:TLS", "inside.test:TLS", "metadata.test:TLS", "mapped.test:TLS", "nowhere.test:TLS"],
            "subnets": { "allow": ["127.0.0.1/32"] } })
}

#[tokio::test]
async fn g05_a_tunnel_ends_at_the_host_itself_and_names_it() {
    let world = World::new().await;
    let one = world.sandbox(1, policy(), Limits::default()).await;
    assert!(one.door.trust().is_none());
    let plain = format!("plain.test:{}", world.tls);
    let answer = one.get(&plain, "/a/../b").await;
    // Unread: a path that no rule would let through, and the certificate is the host's own.
    assert!(answer.status == 200 && answer.text.contains("GET /a/../b"), "{}", answer.text);
    assert!(one.tls(&plain, "other.test", &[]).await.is_err());
    assert!(one.tls(&plain, "inside.test", &[]).await.is_err());
    assert_eq!(world.outcomes(1, 3).await, ["allowed", "sni_mismatch", "sni_mismatch"]);
    assert_eq!(world.lines(1, 1).await[0].address, Some("127.0.0.1".parse().unwrap()));
}

#[tokio::test]
async fn g02_what_may_not_be_reached_is_refused_with_a_reason() {
    let world = World::new().await;
    let one = world.sandbox(1, policy(), Limits::default()).await;
    let nothing = world.sandbox(2, json!("deny-all"), Limits::default()).await;
    let tls = world.tls;
    for (to, code) in [
        (format!("other.test:{tls}"), "host_not_allowed"),
        ("plain.test:22".to_owned(), "host_not_allowed"),
        (format!("plain.test.other.test:{tls}"), "host_not_allowed"),
        (format!("inside.test:{tls}"), "address_not_public"),
        (format!("metadata.test:{tls}"), "address_not_public"),
        (format!("mapped.test:{tls}"), "address_not_public"),
        (format!("nowhere.test:{tls}"), "name_unknown"),
        ("169.254.169.254:80".to_owned(), "address_not_public"),
        ("[::ffff:169.254.169.254]:80".to_owned(), "address_not_public"),
        ("[64:ff9b::a9fe:a9fe]:80".to_owned(), "address_not_public"),
        ("10.0.0.1:443".to_owned(), "address_not_public"),
        ("1.1.1.1:443".to_owned(), "address_not_named"),
        ("2130706433:443".to_owned(), "name_invalid"),
        ("0x7f000001:443".to_owned(), "name_invalid"),
        ("0177.0.0.1:443".to_owned(), "name_invalid"),
        ("127.1:443".to_owned(), "name_invalid"),
        (format!("me@plain.test:{tls}"), "name_invalid"),
    ] {
        let refused = one.connect(&to).await.map(|_| ()).unwrap_err();
        assert_eq!(refused.code(), Some(code), "{to}: {}", refused.text);
        assert!(matches!(refused.status, 400 | 403 | 502), "{to}: {}", refused.text);
        assert!(nothing.connect(&to).await.is_err());
    }
    let refused = nothing.connect(&format!("plain.test:{tls}")).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.code(), Some("host_not_allowed"));
    assert!(one.connect(&format!("PLAIN.test.:{tls}")).await.is_ok());
    assert!(one.connect(&format!("127.0.0.1:{tls}")).await.is_ok());
}

#[tokio::test]
async fn g01_the_resolver_knows_what_may_be_reached_and_asks_nobody() {
    use simple_dns::{CLASS, Name, Packet, QCLASS, QTYPE, Question, RCODE, TYPE};

    let world = World::new().await;
    let one = world.sandbox(1, policy(), Limits::default()).await;
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let ask = async |name: &str, kind: TYPE| {
        let mut query = Packet::new_query(7);
        let name = Name::new(name).unwrap();
        query.questions.push(Question::new(name, QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false));
        socket.send_to(&query.build_bytes_vec().unwrap(), one.names).await.unwrap();
        let mut answer = vec![0; 1500];
        let length = socket.recv(&mut answer).await.unwrap();
        let answer = Packet::parse(&answer[..length]).unwrap();
        (answer.rcode(), answer.answers.len())
    };
    assert_eq!(ask("plain.test", TYPE::A).await, (RCODE::NoError, 1));
    assert_eq!(ask("PLAIN.test", TYPE::A).await, (RCODE::NoError, 1));
    assert_eq!(ask("plain.test", TYPE::AAAA).await, (RCODE::NoError, 0));
    assert_eq!(ask("plain.test", TYPE::TXT).await, (RCODE::NoError, 0));
    assert_eq!(ask("c2VjcmV0.evil.test", TYPE::A).await, (RCODE::NameError, 0));
    assert_eq!(ask("c2VjcmV0.plain.test", TYPE::TXT).await, (RCODE::NameError, 0));
    // What is no question is not answered, and the next one is.
    socket.send_to(b"\0\0nonsense", one.names).await.unwrap();
    assert_eq!(ask("plain.test", TYPE::A).await, (RCODE::NoError, 1));
    let lines = world.lines(1, 2).await;
    assert_eq!(lines[0].host, "c2VjcmV0.evil.test");
}

#[tokio::test]
async fn g10_what_a_sandbox_may_use_is_bounded_and_its_neighbour_does_not_notice() {
    let world = World::new().await;
    let few = Limits { connections: 4, requests_per_minute: 12, bytes: 64 * 1024 };
    let one = world.sandbox(1, policy(), few).await;
    let other = world.sandbox(2, policy(), few).await;
    let plain = format!("plain.test:{}", world.tls);
    // Bytes: the connection ends in the middle, and no other comes.
    let mut stream = one.connect(&plain).await.unwrap();
    let mut hello = vec![22, 3, 1, 0x40, 0];
    hello.extend(vec![0; 90_000]);
    let _ = stream.write_all(&hello).await;
    let _ = stream.read_u8().await;
    let tls = one.tls(&plain, "plain.test", &[]).await;
    if let Ok(mut tls) = tls {
        let _ = tls.write_all(&vec![b'a'; 200_000]).await;
        let mut rest = Vec::new();
        let _ = tls.read_to_end(&mut rest).await;
    }
    let refused = one.connect(&plain).await.map(|_| ()).unwrap_err();
    assert_eq!((refused.status, refused.code()), (429, Some("limit_reached")));
    // Requests: more than there are in a minute.
    let mut codes = Vec::new();
    for _ in 0..20 {
        codes.push(other.connect("evil.test:443").await.map(|_| ()).unwrap_err().code().map(str::to_owned));
    }
    assert_eq!(codes.first().cloned().flatten().as_deref(), Some("host_not_allowed"));
    assert_eq!(codes.last().cloned().flatten().as_deref(), Some("limit_reached"));
    // A third, with nothing of theirs.
    let third = world.sandbox(3, policy(), Limits::default()).await;
    assert_eq!(third.get(&plain, "/").await.status, 200);
}

#[tokio::test]
async fn g10_a_closed_door_cuts_what_is_open() {
    let world = World::new().await;
    let one = world.sandbox(1, policy(), Limits::default()).await;
    let other = world.sandbox(2, policy(), Limits::default()).await;
    let plain = format!("plain.test:{}", world.tls);
    let mut cut = one.tls(&plain, "plain.test", &[]).await.unwrap();
    let mut kept = other.tls(&plain, "plain.test", &[]).await.unwrap();
    let explicit = one.explicit;
    drop(one);
    assert!(matches!(cut.read(&mut [0; 16]).await, Ok(0) | Err(_)));
    for _ in 0..100 {
        if tokio::net::TcpStream::connect(explicit).await.is_err() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert!(tokio::net::TcpStream::connect(explicit).await.is_err());
    kept.write_all(format!("GET / HTTP/1.1\r\nHost: {plain}\r\nConnection: close\r\n\r\n").as_bytes()).await.unwrap();
    let mut text = String::new();
    let _ = kept.read_to_string(&mut text).await;
    assert!(text.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn g10_what_the_far_side_says_first_counts() {
    let mut world = World::new().await;
    let talker = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = talker.local_addr().unwrap().port();
    world.ports.push(port);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = talker.accept().await.unwrap();
            tokio::spawn(async move { while stream.write_all(&[b'x'; 4096]).await.is_ok() {} });
        }
    });
    let policy = json!({ "allow": [format!("plain.test:{port}")], "subnets": { "allow": ["127.0.0.1/32"] } });
    let one = world.sandbox(1, policy.clone(), Limits { bytes: 100_000, ..Limits::default() }).await;
    let heard = |one: crate::world::Sandbox| async move {
        let mut stream = one.connect(&format!("plain.test:{port}")).await.unwrap();
        let mut all = Vec::new();
        let _ = tokio::time::timeout(std::time::Duration::from_millis(500), stream.read_to_end(&mut all)).await;
        (one, all.len())
    };
    let (_one, length) = heard(one).await;
    assert!(length < 150_000, "{length}");
    assert_eq!(world.outcomes(1, 1).await, ["limit_reached"]);
    // The control: who may have more gets more of the same.
    let other = world.sandbox(2, policy, Limits::default()).await;
    assert!(heard(other).await.1 > 200_000);
}
