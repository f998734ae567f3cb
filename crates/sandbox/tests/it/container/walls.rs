//! B03, B09: a container is what was declared, the receipt says so, and what is changed behind the server's back is
//! found.

use std::path::PathBuf;

use bailiwick_sandbox::linux::{
    Exec, ExecError, ExitStatus, Fact, JailSpec, LauncherKind, ReceiptError, WayOut, WorkspaceAccess, not_compared,
};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::engine::{BARE, Engine, IMAGE, place_probe, start};
use crate::linux::harness::{run, sh};
use crate::linux::probe::{probe_inside, probe_outside};

#[tokio::test(flavor = "multi_thread")]
async fn b09_the_receipt_of_a_container_is_the_kernels() {
    let engine = Engine::start();
    let spec = engine.spec();
    let containers = engine.containers_of(BARE).await;
    assert!(containers.engine().starts_with("podman 4"), "{}", containers.engine());
    let container = start(&containers, &spec).await;
    let receipt = container.receipt();
    assert_eq!((receipt.launcher, receipt.user, receipt.group), (LauncherKind::Engine, spec.user.uid, spec.user.gid));
    assert_eq!((receipt.capabilities, receipt.no_new_privileges, receipt.filter_mode), (0, 1, 2));
    assert!(receipt.filters >= 4 && receipt.landlock > 0, "{receipt:?}");
    assert_eq!((receipt.network_devices.as_slice(), receipt.way_out), (&["lo".to_owned()][..], WayOut::Nothing));
    assert_eq!(receipt.writable.len(), 5, "{:?}", receipt.writable);
    let groups: Vec<&str> = receipt.groups.iter().map(|(name, _)| *name).collect();
    assert_eq!(groups, ["memory", "pids", "cpu"]);
    for kind in ["ipc", "mnt", "net", "pid", "uts"] {
        let theirs = receipt.namespaces.iter().find(|one| one.kind == kind).unwrap();
        let ours = std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        assert_ne!(theirs.identity, ours.to_string_lossy(), "{kind}");
    }
    let record = receipt.record();
    assert_eq!((&record["backend"], &record["launcher"]), (&json!("container"), &json!("engine")));
    assert!(record["image"].as_str().unwrap().contains(|c: char| c.is_ascii_hexdigit()));
    let said: Vec<String> = not_compared(LauncherKind::Engine).map(|(fact, _)| fact.to_string()).collect();
    assert_eq!(record["not_compared"], json!(said));
    // No path of the host, nobody's name.
    let text = record.to_string();
    assert!(!text.contains(spec.name.as_str()) && !text.contains("bw-podman"), "{text}");
    let ran = sh(&container, "true").await;
    assert_eq!(*ran.receipt, *receipt);
}

#[tokio::test(flavor = "multi_thread")]
async fn b09_a_limit_that_is_lifted_by_others_costs_the_container_before_the_next_command() {
    let engine = Engine::start();
    let container = start(&engine.containers_of(BARE).await, &engine.spec()).await;
    assert_eq!(sh(&container, "echo before").await.stdout.text, "before\n");
    let id = engine.has(1).await.remove(0);
    engine.podman(&["update", "--memory", "3g", "--memory-swap", "3g", &id]);
    let refused = container.exec(Exec::shell("echo after"), CancellationToken::new()).await;
    let Err(ExecError::Receipt(ReceiptError::Differs(facts))) = refused else { panic!("{refused:?}") };
    assert_eq!(facts, [Fact::ControlGroups]);
    engine.has(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b03_the_workspace_is_writable_or_not_and_tmp_is_shared_or_not() {
    let engine = Engine::start();
    let containers = engine.containers_of(BARE).await;
    let mut spec = engine.spec();
    std::fs::write(spec.workspace.join("file"), "mine\n").unwrap();
    spec.shared_tmp = Some(engine.folder("shared", spec.user));
    let first = start(&containers, &spec).await;
    let ran = sh(&first, "cat file; echo new > new; echo shared > /tmp/shared; pwd").await;
    assert_eq!((ran.status, ran.stdout.text.as_str()), (ExitStatus::Exited(0), "mine\n/workspace\n"), "{ran:?}");
    assert_eq!(std::fs::read_to_string(spec.workspace.join("new")).unwrap(), "new\n");
    let named = |name: &str| bailiwick_sandbox::linux::JailName::parse(name).unwrap();
    let read_only = JailSpec { name: named("read-only"), access: WorkspaceAccess::ReadOnly, ..spec.clone() };
    let second = start(&containers, &read_only).await;
    let ran = sh(&second, "cat /tmp/shared new; echo x > file").await;
    assert!(ran.stdout.text == "shared\nnew\n" && ran.stderr.text.contains("Read-only file system"), "{ran:?}");
    let own_tmp = JailSpec { name: named("own-tmp"), shared_tmp: None, ..spec.clone() };
    let third = start(&containers, &own_tmp).await;
    assert_eq!(sh(&third, "ls -A /tmp").await.stdout.text, "");
    // Set-user programs do not run as somebody else; what they would be owned by is root.
    let program = spec.workspace.join("id");
    std::fs::copy("/bin/busybox", &program).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o4755)).unwrap();
    let ran = sh(&third, "./id -u").await;
    assert_eq!(ran.stdout.text, format!("{}\n", spec.user.uid), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn b03_a_folder_that_is_a_link_or_has_a_colon_is_refused() {
    let engine = Engine::start();
    let containers = engine.containers_of(BARE).await;
    let spec = engine.spec();
    let link = spec.workspace.with_file_name("link");
    std::os::unix::fs::symlink("/etc", &link).unwrap();
    let colon: PathBuf = engine.folder("ws:etc", spec.user);
    for workspace in [link, colon] {
        let refused = containers.start(JailSpec { workspace, ..spec.clone() }).await;
        assert!(matches!(refused, Err(bailiwick_sandbox::linux::StartError::Folder(..))), "{:?}", refused.err());
    }
    engine.has(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn b09_a_volume_of_the_image_is_a_place_to_write_that_nobody_declared() {
    let engine = Engine::start();
    let id = engine.podman(&["create", BARE, "true"]);
    engine.podman(&["commit", "--change", "VOLUME /opt", &id, "localhost/volume"]);
    engine.podman(&["rm", &id]);
    let settings =
        bailiwick_sandbox::container::ContainerSettings { image: "localhost/volume".to_owned(), ..engine.settings() };
    let refused = engine.detect(&settings).await.err().map(|error| format!("{error:?}"));
    assert!(refused.as_deref().is_some_and(|why| why.contains("Mounts")), "{refused:?}");
    engine.has(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_warm_command_costs_no_call_of_the_engine() {
    let engine = Engine::start();
    let (containers, spec) = (engine.containers_of(BARE).await, engine.spec());
    let began = std::time::Instant::now();
    let container = start(&containers, &spec).await;
    let cold = began.elapsed();
    let mut times = Vec::new();
    for _ in 0..50 {
        let ran = run(&container, Exec::shell("true")).await;
        assert_eq!(ran.status, ExitStatus::Exited(0));
        times.push(ran.wall);
    }
    times.sort_unstable();
    eprintln!("cold {cold:?}, warm p50 {:?}", times[25]);
    // An engine's own exec takes 50 ms at the least.
    assert!(times[25] < std::time::Duration::from_millis(40), "{times:?}");
}

/// The engine's profile is a fence of its own: without our filters the calls are still refused, but for what the
/// engine's form cannot say.
#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread")]
async fn b09_b04_without_our_filters_the_receipt_differs_and_the_engines_profile_holds() {
    use bailiwick_sandbox::linux::{OnDifference, StartError, Wall};

    let engine = Engine::start();
    let containers = engine.containers_of(IMAGE).await;
    let spec = engine.spec();
    place_probe(&spec);
    let refused = containers.start_without(spec.clone(), &[Wall::Filters], OnDifference::Fail).await;
    let Err(StartError::Receipt(ReceiptError::Differs(facts))) = refused.map(drop) else { panic!("a whole container") };
    assert_eq!(facts, [Fact::Filters]);
    engine.has(0).await;
    let container = containers.start_without(spec, &[Wall::Filters], OnDifference::Tolerate).await.unwrap();
    let (inside, outside) = (probe_inside(&container, &[]).await, probe_outside(&[]));
    let refused = |name: &str| inside[name] == "1" || inside[name] == "38" || inside[name].starts_with("killed");
    let passed: Vec<&str> =
        inside.keys().map(String::as_str).filter(|name| !name.starts_with("allowed_") && !refused(name)).collect();
    // Those get the kernel's own answer.
    for name in &passed {
        assert_eq!(Some(&inside[*name]), outside.get(*name), "{name}");
    }
    assert_eq!(passed, ["ioctl_tioclinux", "ioctl_tiocsetd", "ioctl_tiocsti", "ioctl_tiocsti_wide"], "{inside:?}");
}

#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread")]
async fn b09_b04_without_landlock_the_receipt_differs_and_our_folder_can_be_read() {
    use bailiwick_sandbox::linux::{OnDifference, StartError, Wall};

    let engine = Engine::start();
    let containers = engine.containers_of(BARE).await;
    let spec = engine.spec();
    let refused = containers.start_without(spec.clone(), &[Wall::Landlock], OnDifference::Fail).await;
    let Err(StartError::Receipt(ReceiptError::Differs(facts))) = refused.map(drop) else { panic!("a whole container") };
    assert_eq!(facts, [Fact::Landlock]);
    engine.has(0).await;
    let script = "cat /run/bailiwick/closed && echo read";
    let open = containers.start_without(spec.clone(), &[Wall::Landlock], OnDifference::Tolerate).await.unwrap();
    assert_eq!(sh(&open, script).await.stdout.text, "read\n");
    drop(open);
    engine.has(0).await;
    let whole = start(&containers, &spec).await;
    let ran = sh(&whole, script).await;
    assert!(ran.stdout.text.is_empty() && ran.stderr.text.contains("Permission denied"), "{ran:?}");
}
