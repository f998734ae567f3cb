//! Bytes from a sandbox to the gate, and what of them a host is told: requests of the allowed methods under the allowed
//! path, for the host that was asked for, which no two readers could take for two things. `HOST` in an input stands for
//! that host. The reader of what comes is the one of the gate's own tests.

#![no_main]

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use bailiwick_egress::{Door, Gate, Limits, Names, Opening, OwnAddresses, Placeholders, Settings};
use bailiwick_types::Egress;
use bailiwick_types::host::HostName;
use libfuzzer_sys::fuzz_target;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

#[path = "../../crates/egress/tests/it/told.rs"]
mod told;

struct World {
    runtime: Runtime,
    door: Door,
    host: String,
    heard: Heard,
}

type Heard = Arc<Mutex<Vec<Result<told::Told, String>>>>;

static WORLD: LazyLock<World> = LazyLock::new(|| {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let heard = Heard::default();
    let there = Arc::clone(&heard);
    let (door, host) = runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = format!("plain.test:{}", listener.local_addr().unwrap().port());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(listen(stream, Arc::clone(&there)));
            }
        });
        (door(&host), host)
    });
    World { runtime, door, host, heard }
});

fn door(host: &str) -> Door {
    let names = BTreeMap::from([(HostName::parse("plain.test").unwrap(), vec![IpAddr::V4(Ipv4Addr::LOCALHOST)])]);
    let (asks, mut asked) = mpsc::channel(16);
    let (journal, mut lines) = mpsc::channel(16);
    tokio::spawn(async move { while lines.recv().await.map(bailiwick_egress::Entry::taken).is_some() {} });
    tokio::spawn(async move {
        while asked.recv().await.is_some() {
            panic!("a secret was asked for");
        }
    });
    let names = Names::new(names, OwnAddresses::of_host().unwrap());
    let gate = Gate::new(Settings { names, roots: Vec::new(), asks, journal }).unwrap();
    let allowed = json!([{ "match": { "path": { "startsWith": "/v1/" }, "method": ["GET", "POST"] } }]);
    let egress = |allow: serde_json::Value| -> Egress {
        serde_json::from_value(json!({ "allow": allow, "subnets": { "allow": ["127.0.0.1/32"] } })).unwrap()
    };
    let rules = egress(json!({ host: allowed }));
    let placeholders = Placeholders::random(&rules).unwrap();
    let limits = Limits { connections: 256, requests_per_minute: u32::MAX, bytes: u64::MAX };
    gate.open(Opening { sandbox: 1, tenant: 1, egress: rules, ceiling: egress(json!([host])), limits, placeholders })
        .unwrap()
}

async fn listen(mut stream: TcpStream, heard: Heard) {
    let mut bytes = Vec::new();
    loop {
        let read = told::first(&bytes);
        match read {
            Ok(None) => {
                if !matches!(stream.read_buf(&mut bytes).await, Ok(1..)) {
                    return;
                }
            }
            Ok(Some((told, length))) => {
                bytes.drain(..length);
                heard.lock().unwrap().push(Ok(told));
                if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.is_err() {
                    return;
                }
            }
            Err(why) => return heard.lock().unwrap().push(Err(why)),
        }
    }
}

fuzz_target!(|data: &[u8]| {
    let world = &*WORLD;
    let mut request = Vec::with_capacity(data.len());
    let mut rest = data;
    while let Some(at) = rest.windows(4).position(|four| four == b"HOST") {
        request.extend(&rest[..at]);
        request.extend(world.host.as_bytes());
        rest = &rest[at + 4..];
    }
    request.extend(rest);
    let ended = world.runtime.block_on(async {
        let (mut ours, theirs) = tokio::io::duplex(1 << 16);
        world.door.admit(theirs);
        let _ = ours.write_all(&request).await;
        let _ = ours.shutdown().await;
        let mut answer = Vec::new();
        tokio::time::timeout(Duration::from_secs(5), ours.read_to_end(&mut answer)).await.is_ok()
    });
    assert!(ended, "the gate keeps a connection that said all");
    for told in world.heard.lock().unwrap().drain(..) {
        let told = told.unwrap();
        let allowed = told::lies_under(&told.target, &["/v1/"]) && ["GET", "POST"].contains(&told.method.as_str());
        assert!(allowed && told.host == world.host, "{told:?}");
    }
});
