//! The five holes that were measured before this backend was designed, each as
//! a test that fails if it opens again, and what a host must refuse.

use std::process::Command;

use bailiwick_sandbox::linux::{
    CgroupUse, Enforcement, Exec, ExecError, Fact, HelperPath, Launcher, LauncherKind, ReceiptError, Source,
    Unavailable,
};
use tokio_util::sync::CancellationToken;

use super::harness::{Host, helper, probe, sh};
use super::probe::{place_probe, probe_inside, probe_outside};

#[tokio::test(flavor = "multi_thread")]
async fn finding_1_no_jail_is_the_hosts_root_and_the_kernels_settings_are_closed() {
    let host = Host::new().await;
    let space = host.space();
    place_probe(&host, &space);
    let jail = host.jail(&space).await;
    assert_ne!(jail.receipt().user, 0);
    let path = "/proc/sys/kernel/core_pattern";
    assert!(std::path::Path::new(path).exists());
    let verb = format!("write:{path}");
    let inside = probe_inside(&jail, &["files", &verb]).await;
    assert!(matches!(inside[&verb].as_str(), "13" | "30"), "{inside:?}");
    if host.is_native() {
        // Opening without writing changes nothing; for root it works outside.
        assert_eq!(probe_outside(&["files", &verb])[&verb], "ok");
    }
    // Root means the native launcher, never bubblewrap.
    let root = rustix::process::geteuid().is_root();
    assert_eq!(root, host.launcher.promises().launcher == LauncherKind::Native);
}

#[tokio::test(flavor = "multi_thread")]
async fn finding_2_the_first_process_has_no_environment_and_no_host_paths() {
    let host = Host::new().await;
    let space = host.space();
    let jail = host.jail(&space).await;
    let first = jail.receipt().process;
    let command = std::fs::read_to_string(format!("/proc/{first}/cmdline")).unwrap();
    let expected = ["bailiwick-init\0", "/run/bailiwick/bailiwick-init\0"];
    assert!(expected.contains(&command.as_str()), "{command:?}");
    if host.is_native() {
        assert_eq!(std::fs::read(format!("/proc/{first}/environ")).unwrap(), b"");
        // Its parent, the launcher, has none either, though this process has.
        let status = std::fs::read_to_string(format!("/proc/{first}/status")).unwrap();
        let parent = status.lines().find_map(|line| line.strip_prefix("PPid:")).unwrap().trim();
        assert_eq!(std::fs::read(format!("/proc/{parent}/environ")).unwrap(), b"");
        assert!(!std::fs::read("/proc/self/environ").unwrap().is_empty());
    }
    let ran = sh(&jail, "cat /proc/1/environ /proc/1/cmdline | tr '\\0' ' '").await;
    assert!(ran.stderr.text.contains("/proc/1/environ: Permission denied"), "{ran:?}");
    assert!(ran.stdout.text.contains("bailiwick-init"), "{ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn finding_3_the_first_process_is_confined_and_its_memory_closed() {
    let host = Host::new().await;
    let space = host.space();
    place_probe(&host, &space);
    let jail = host.jail(&space).await;
    // `receipt` was checked already; these are the values themselves.
    assert!(jail.receipt().filters >= 2);
    let first = jail.receipt().process;
    let status = std::fs::read_to_string(format!("/proc/{first}/status")).unwrap();
    assert!(status.contains("Seccomp:\t2") && status.contains("NoNewPrivs:\t1"), "{status}");
    let tries = ["files", "read:/proc/1/mem", "write:/proc/1/mem", "write:/proc/self/mem"];
    let inside = probe_inside(&jail, &tries).await;
    assert_eq!(inside["read:/proc/1/mem"], "13");
    assert_eq!(inside["write:/proc/1/mem"], "13");
    // The control of this try: one's own memory can be opened for reading.
    let own = probe_inside(&jail, &["files", "read:/proc/self/maps"]).await;
    assert_eq!(own["read:/proc/self/maps"], "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn finding_4_vsock_is_refused_although_it_ignores_namespaces() {
    let host = Host::new().await;
    let space = host.space();
    place_probe(&host, &space);
    let jail = host.jail(&space).await;
    assert_eq!(probe_inside(&jail, &[]).await["socket_vsock"], "1");
    // Without the module it would be EAFNOSUPPORT, which is no refusal.
    assert_ne!(probe_outside(&[])["socket_vsock"], "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn finding_5_no_new_namespaces_mounts_keys_or_tracing() {
    let host = Host::new().await;
    let space = host.space();
    place_probe(&host, &space);
    let jail = host.jail(&space).await;
    let (inside, outside) = (probe_inside(&jail, &[]).await, probe_outside(&[]));
    for name in ["unshare_user", "setns", "keyctl", "ptrace_traceme"] {
        assert_eq!(inside[name], "1", "{name}");
        assert_ne!(outside[name], "1", "{name}");
    }
    let ran = sh(&jail, "unshare -Ur true").await;
    assert!(ran.stderr.text.contains("Operation not permitted"), "{ran:?}");
    let outside = Command::new("unshare").args(["-Ur", "true"]).status().unwrap();
    assert!(outside.success(), "user namespaces work outside");
}

#[tokio::test(flavor = "multi_thread")]
async fn b09_each_execution_has_a_receipt_from_the_kernel() {
    let host = Host::new().await;
    let space = host.space();
    let jail = host.jail(&space).await;
    let ran = sh(&jail, "readlink /proc/self/ns/net; grep Seccomp: /proc/self/status").await;
    let receipt = &ran.receipt;
    // Without root there is a user namespace as well.
    assert_eq!(receipt.namespaces.len(), if host.is_native() { 6 } else { 7 });
    let net = receipt.namespaces.iter().find(|one| one.kind == "net").unwrap();
    assert_eq!(ran.stdout.text.lines().next(), Some(net.identity.as_str()));
    assert_ne!(std::fs::read_link("/proc/self/ns/net").unwrap().to_string_lossy(), net.identity);
    assert_eq!(net.source, Source::Host);
    assert!(receipt.network_devices.contains(&"lo".to_owned()));
    assert!(receipt.limits.contains(&("Max open files".to_owned(), space.limits.open_files)));
    let user = if host.is_native() { space.user.uid } else { rustix::process::getuid().as_raw() };
    assert_eq!(receipt.user, user);
    assert_eq!((receipt.capabilities, receipt.no_new_privileges, receipt.filter_mode), (0, 1, 2));
    assert_eq!(receipt.landlock, host.launcher.promises().landlock_abi);
    assert!(receipt.writable.contains(&"/workspace".to_owned()), "{:?}", receipt.writable);
    let groups: Vec<&str> = receipt.groups.iter().map(|(controller, _)| *controller).collect();
    assert_eq!(groups.contains(&"memory"), host.launcher.promises().memory != Enforcement::RlimitPerProcess);
    // What goes on record names no place of the host and no jail.
    let record = receipt.record().to_string();
    assert!(record.contains("\"network\":[\"lo\"]"), "{record}");
    let folder = space.workspace.file_name().unwrap().to_string_lossy().into_owned();
    for hidden in [folder.as_str(), "bailiwick-jails", "/usr", "test-"] {
        assert!(!record.contains(hidden), "{hidden}: {record}");
    }
    assert!(record.len() < 1200, "{} bytes", record.len());
}

/// Changed from outside, for nobody inside can: a limit of the control group where there is one, else a
/// resource limit, which a user may lower.
#[tokio::test(flavor = "multi_thread")]
async fn b09_a_jail_that_changes_after_its_start_runs_nothing_more() {
    let host = Host::new().await;
    let space = host.space();
    let declared = space.limits.pids;
    let grouped = host.launcher.promises().pids != Enforcement::RlimitPerUser;
    let changes = if grouped { vec![declared, declared + 1, declared - 1] } else { vec![17] };
    for now in changes {
        let spec = host.spec(&space);
        let group = format!("*/bailiwick-jails/{}/pids.max", spec.name.as_str());
        let jail = host.launcher.start(spec).await.unwrap();
        assert_eq!(sh(&jail, "echo before").await.stdout.text, "before\n");
        if grouped {
            let found = Command::new("find").args(["/sys/fs/cgroup", "-path", &group]).output().unwrap();
            let file = String::from_utf8(found.stdout).unwrap();
            std::fs::write(file.lines().next().unwrap(), now.to_string()).unwrap();
        } else {
            let process = jail.receipt().process.to_string();
            let limit = format!("--nofile={now}:{now}");
            assert!(Command::new("prlimit").args(["--pid", &process, &limit]).status().unwrap().success());
        }
        let ran = jail.exec(Exec::shell("touch /workspace/ran"), CancellationToken::new()).await;
        let written = std::fs::remove_file(space.workspace.join("ran")).is_ok();
        if grouped && now == declared {
            assert!(written && ran.is_ok(), "the control: {ran:?}");
            continue;
        }
        match ran {
            Err(ExecError::Receipt(ReceiptError::Differs(facts))) => {
                assert!(now > declared && facts == [Fact::ControlGroups], "{now}: {facts:?}");
            }
            Err(ExecError::Receipt(ReceiptError::Changed)) => assert!(now < declared, "{now}"),
            other => panic!("{now}: {other:?}"),
        }
        assert!(!written, "{now}");
        let again = jail.exec(Exec::shell("true"), CancellationToken::new()).await;
        assert!(again.is_err(), "it was killed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b08_a_missing_helper_is_a_clear_error() {
    let gone = HelperPath::At("/nonexistent/helper".into());
    let refused = Launcher::detect(gone, CgroupUse::WherePossible).await.err();
    assert!(matches!(refused, Some(Unavailable::Launcher(_))), "{refused:?}");
}

#[test]
fn b08_root_without_capabilities_is_a_clear_error_and_never_bubblewrap() {
    if !rustix::process::geteuid().is_root() {
        // Covered by the run as root; here the same program must find bwrap.
        let ran = Command::new(probe()).arg("detect").arg(helper()).output().unwrap();
        assert_eq!(String::from_utf8(ran.stdout).unwrap(), "detect=Bubblewrap\n");
        return;
    }
    let detect = |bounding: &str| {
        let ran =
            Command::new("setpriv").args([bounding, "--"]).arg(probe()).arg("detect").arg(helper()).output().unwrap();
        String::from_utf8(ran.stdout).unwrap()
    };
    assert_eq!(detect("--bounding-set=+all"), "detect=Native\n");
    let refused = detect("--bounding-set=-sys_admin");
    assert!(refused.contains("lacks these capabilities: SYS_ADMIN"), "{refused}");
}
