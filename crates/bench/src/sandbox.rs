//! Sandboxes: a new one against bare `bwrap … true`, a command in a warm one against fork and exec.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Options;
use crate::load::{Ask, Connection};
use crate::report::{Report, Target, median};
use crate::server::Site;

const ROUNDS: usize = 60;

pub(crate) async fn measure(options: &Options, report: &mut Report) {
    let site = Site::new(&options.server, "sqlite:");
    let server = site.start();
    let mut connection = server.connect().await;
    let key = server.account(&mut connection, "acme").await;
    let agent = "{\"tools\":[\"bash\"],\"sandbox\":{\"mode\":\"all\",\"backend\":\"linux\"}}";
    let put = Ask { method: "PUT", ..Ask::post("/api/v1/agents/jailed", &key, agent) };
    connection.good(&put).await;
    let plain = Ask { method: "PUT", ..Ask::post("/api/v1/agents/plain", &key, "{\"tools\":[]}") };
    connection.good(&plain).await;
    let (mut first, mut warm, mut none, mut bwrap, mut exec) = (vec![], vec![], vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        // A session without a tool, one with a new sandbox, and a second turn in the warm one.
        none.push(two_turns(&mut connection, &key, "plain", "hello").await.0);
        let (cold, again) = two_turns(&mut connection, &key, "jailed", "run").await;
        first.push(cold);
        warm.push(again);
        bwrap.push(timed(Command::new("bwrap").args(BWRAP)));
        exec.push(timed(&mut Command::new("/bin/true")));
    }
    let base = median(&mut none);
    let (first, warm) = (median(&mut first), median(&mut warm));
    let (bwrap, exec) = (median(&mut bwrap), median(&mut exec));
    // What a turn costs besides: one without a tool, which has one model call fewer.
    let over = |time: Duration| time.saturating_sub(base).as_secs_f64() * 1e3;
    let bare = bwrap.as_secs_f64() * 1e3;
    report.add(
        "a call in a new linux sandbox, beyond a turn without a tool, p50",
        format!("{:.2} ms", over(first)),
        format!("bwrap … true {bare:.2} ms"),
        over(first) / bare,
        Target::AtMost(1.5),
    );
    let forked = exec.as_secs_f64() * 1e3;
    report.add(
        "a call in a warm linux sandbox over fork and exec, p50",
        format!("{:.2} ms", over(warm) - forked),
        format!("3 ms over {forked:.2} ms"),
        (over(warm) - forked) / 3.0,
        Target::AtMost(1.0),
    );
}

/// The flags of a comparable jail.
const BWRAP: &[&str] = &[
    "--unshare-all",
    "--die-with-parent",
    "--new-session",
    "--ro-bind",
    "/usr",
    "/usr",
    "--symlink",
    "usr/bin",
    "/bin",
    "--symlink",
    "usr/lib",
    "/lib",
    "--symlink",
    "usr/lib64",
    "/lib64",
    "--proc",
    "/proc",
    "--dev",
    "/dev",
    "--tmpfs",
    "/tmp",
    "--clearenv",
    "--",
    "/bin/true",
];

fn timed(command: &mut Command) -> Duration {
    let begun = Instant::now();
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(status.success(), "{command:?}");
    begun.elapsed()
}

async fn two_turns(connection: &mut Connection, key: &str, agent: &str, message: &str) -> (Duration, Duration) {
    let begun = Instant::now();
    let ask = Ask::post("/eve/v1/session", key, format!("{{\"message\":\"{message}\"}}"));
    let made = connection.good(&ask.with("x-bailiwick-agent", agent)).await;
    let id = made["sessionId"].as_str().unwrap().to_owned();
    let stream = Ask::get(format!("/eve/v1/session/{id}/stream"), key);
    Connection::open(connection.address).await.read_until(&stream, b"\"session.waiting\"").await;
    let first = begun.elapsed();
    let events = connection.good(&Ask::get(format!("/api/v1/sessions/{id}"), key)).await;
    let next = events["events"].as_u64().unwrap();
    let begun = Instant::now();
    let body = format!("{{\"message\":\"{message}\"}}");
    connection.good(&Ask::post(format!("/eve/v1/session/{id}"), key, body)).await;
    let stream = Ask::get(format!("/eve/v1/session/{id}/stream?startIndex={next}"), key);
    Connection::open(connection.address).await.read_until(&stream, b"\"session.waiting\"").await;
    (first, begun.elapsed())
}
