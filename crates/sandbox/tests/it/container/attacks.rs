//! B04: what the linux sandbox refuses, a container refuses as well, with the kernel's same answers.

use bailiwick_sandbox::linux::JailSpec;

use super::engine::{BARE, Engine, IMAGE, place_probe, start};
use crate::linux::harness::{Host, sh};
use crate::linux::probe::{probe_inside, probe_outside};

#[tokio::test(flavor = "multi_thread")]
async fn b04_system_calls_get_the_answers_of_a_jail() {
    let (engine, host) = (Engine::start(), Host::new().await);
    let spec = engine.spec();
    place_probe(&spec);
    let container = start(&engine.containers_of(IMAGE).await, &spec).await;
    // The jail's suite says what each answer must be, and has the controls.
    let jail = host.launcher.start(JailSpec { shared_tmp: None, ..spec.clone() }).await.unwrap();
    let (inside, in_jail, outside) =
        (probe_inside(&container, &[]).await, probe_inside(&jail, &[]).await, probe_outside(&[]));
    assert!(inside.len() > 80, "{inside:?}");
    assert_eq!(inside, in_jail);
    let refused = inside.iter().filter(|(_, answer)| answer.as_str() != "ok");
    let same: Vec<_> = refused.filter(|(name, answer)| outside.get(*name) == Some(answer)).collect();
    assert!(same.is_empty(), "no control: {same:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn b04_files_of_the_host_the_engine_and_the_first_process_are_closed() {
    let engine = Engine::start();
    let (spec, other) = (engine.spec(), engine.spec());
    place_probe(&spec);
    std::fs::write(other.workspace.join("secret"), "of another tenant").unwrap();
    let containers = engine.containers_of(IMAGE).await;
    let (container, _other) = (start(&containers, &spec).await, start(&containers, &other).await);
    let (secret, socket) = (other.workspace.join("secret"), engine.socket());
    let on_the_host = [format!("read:{}", secret.display()), format!("link:/proc/{}/exe", std::process::id())];
    let refused = [
        ("read:/proc/1/mem", &["13"][..]),
        ("write:/proc/1/mem", &["13"]),
        ("read:/proc/1/environ", &["13"]),
        ("read:/proc/1/maps", &["13"]),
        ("list:/proc/1/fd", &["13"]),
        ("link:/proc/1/root", &["13"]),
        ("create:/opt/x", &["13", "30"]),
        ("create:/etc/x", &["13", "30"]),
        ("create:/x", &["13", "30"]),
        ("mkdir:/dev/x", &["13"]),
        // Too many, for none may be made.
        ("create:/dev/mqueue/x", &["24"]),
        ("unlink:/etc/passwd", &["13", "16", "30"]),
        ("read:/run/bailiwick/closed", &["13"]),
        ("read:/run/bailiwick/bailiwick-container", &["13"]),
        ("list:/sys/class", &["2"]),
        ("read:/sys/fs/cgroup/memory/tasks", &["2"]),
        ("write:/proc/sys/kernel/core_pattern", &["13", "30"]),
        ("write:/proc/sys/vm/drop_caches", &["13", "30"]),
        (on_the_host[0].as_str(), &["2"]),
        (on_the_host[1].as_str(), &["2"]),
    ];
    let names: Vec<&str> = ["files"].into_iter().chain(refused.iter().map(|(name, _)| *name)).collect();
    let (inside, outside) = (probe_inside(&container, &names).await, probe_outside(&["files", &on_the_host[0]]));
    assert_eq!(outside.get(&on_the_host[0]).map(String::as_str), Some("ok"), "the control");
    for (name, expected) in refused {
        let answer = inside.get(name).map(String::as_str);
        assert!(answer.is_some_and(|answer| expected.contains(&answer)), "{name}: {answer:?}");
    }
    let allowed = ["files", "read:/opt/of-the-image", "read:/etc/passwd", "create:/tmp/x", "create:/workspace/x"];
    let allowed = probe_inside(&container, &[&allowed[..], &["create:/dev/shm/x", "read:/dev/urandom"]].concat()).await;
    assert!(allowed.len() == 6 && allowed.values().all(|answer| answer == "ok"), "{allowed:?}");
    for name in ["kallsyms", "cmdline", "config.gz", "keys", "timer_list"] {
        let ran = sh(&container, &format!("[ ! -e /proc/{name} ] || wc -c < /proc/{name}")).await;
        assert!(["", "0"].contains(&ran.stdout.text.trim()), "{name}: {ran:?}");
    }
    // The engine's socket is nowhere, nor is the path of anything of the host but opaque folders.
    assert!(socket.exists());
    let said =
        sh(&container, "find / -xdev -type s 2>/dev/null; cat /proc/1/cmdline; cat /proc/net/unix").await.stdout.text;
    assert!(!said.contains("api.sock") && !said.contains("podman"), "{said}");
    let open = probe_inside(&container, &["descriptors"]).await;
    let numbers: Vec<&str> = open["open"].split(' ').filter_map(|one| Some(one.split_once(':')?.0)).collect();
    assert_eq!(numbers, ["0", "1", "2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn b04_an_image_without_a_libc_runs_and_nothing_of_the_server_is_in_its_environment() {
    let engine = Engine::start();
    let container = start(&engine.containers_of(BARE).await, &engine.spec()).await;
    let ran = sh(&container, "echo out; echo err >&2; id -u; id -G; cat /opt/of-the-image; exit 3").await;
    let uid = container.receipt().user;
    assert_eq!(ran.stdout.text, format!("out\n{uid}\n{uid}\nthere\n"), "{ran:?}");
    assert_eq!((ran.stderr.text.as_str(), ran.status), ("err\n", bailiwick_sandbox::linux::ExitStatus::Exited(3)));
    let script = "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | cut -d= -f1 | sort -u";
    let known = "AI_AGENT HOME LANG LOGNAME OLDPWD PATH PWD SHELL SHLVL TERM TMPDIR USER _";
    let ran = sh(&container, script).await;
    let names: Vec<&str> = ran.stdout.text.split_whitespace().collect();
    assert!(names.contains(&"AI_AGENT"), "{names:?}");
    assert!(names.iter().all(|name| known.split(' ').any(|one| one == *name)), "{names:?}");
    assert!(std::env::vars().any(|(name, _)| name.starts_with("CARGO")), "the control: this process has more");
    // Only its own processes.
    let ran = sh(&container, "echo /proc/[0-9]* | wc -w; cat /proc/sys/kernel/hostname; ls -A /sys /run").await;
    let lines: Vec<&str> = ran.stdout.text.lines().collect();
    assert!(lines[0].trim().parse::<u32>().unwrap() <= 6 && lines[1] == "sandbox", "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn b04_nobody_connects_to_the_server_a_second_time() {
    let engine = Engine::start();
    let spec = engine.spec();
    let container = start(&engine.containers_of(BARE).await, &spec).await;
    let folder = engine.settings().folder.join(spec.name.as_str());
    assert!(folder.join("passwd").exists() && !folder.join("control").exists());
    // What is left inside is a name: the socket behind it is closed.
    let ran =
        sh(&container, "nc -U /run/bailiwick/control </dev/null; echo $?; nc local:/run/bailiwick/control; echo $?")
            .await;
    assert!(!ran.stdout.text.starts_with("0\n"), "{ran:?}");
    drop(container);
    for _ in 0..500 {
        if !folder.exists() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the folder is left");
}
