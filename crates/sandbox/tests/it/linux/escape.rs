//! B04: what a jail's programs must not be able to do. The probe runs outside
//! as well, where the kernel's answer must be another one.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use bailiwick_sandbox::linux::{Exec, Jail};

use super::harness::{Host, Space, probe, run, sh};

const EPERM: &str = "1";
const EACCES: &str = "13";
const EINVAL: &str = "22";
const ENOSYS: &str = "38";
const SIGSYS: &str = "killed:31";

/// When the answer outside must differ.
#[derive(Clone, Copy, PartialEq)]
enum Control {
    Always,
    /// Users are refused by the kernel itself.
    AsRoot,
}
use Control::{Always, AsRoot};

#[rustfmt::skip]
const REFUSED: &[(&str, &str, Control)] = &[
    ("unshare", EPERM, Always), ("unshare_user", EPERM, Always),
    ("clone_newuser", EPERM, Always), ("clone_newns", EPERM, AsRoot),
    ("clone_newnet", EPERM, AsRoot), ("clone_newpid", EPERM, AsRoot),
    ("clone3", ENOSYS, Always), ("setns", EPERM, Always),
    ("mount", EPERM, AsRoot), ("umount2", EPERM, AsRoot), ("pivot_root", EPERM, AsRoot),
    ("chroot", EPERM, Always), ("fsopen", EPERM, AsRoot), ("fsconfig", EPERM, Always),
    ("fsmount", EPERM, AsRoot), ("open_tree", EPERM, Always), ("move_mount", EPERM, AsRoot),
    ("mount_setattr", EPERM, Always),
    ("ptrace_traceme", EPERM, Always), ("ptrace_seize_1", EPERM, Always),
    ("process_vm_readv", EPERM, Always), ("process_vm_writev", EPERM, Always),
    ("pidfd_getfd", EPERM, Always), ("kcmp", EPERM, Always),
    ("io_uring_setup", EPERM, Always), ("bpf", EPERM, AsRoot),
    ("perf_event_open", EPERM, Always), ("userfaultfd", EPERM, AsRoot),
    ("keyctl", EPERM, Always), ("add_key", EPERM, Always), ("request_key", EPERM, Always),
    ("kexec_load", EPERM, AsRoot), ("init_module", EPERM, AsRoot),
    ("finit_module", EPERM, AsRoot), ("delete_module", EPERM, AsRoot),
    ("quotactl", EPERM, Always), ("fanotify_init", EPERM, AsRoot),
    ("open_by_handle_at", EPERM, AsRoot), ("personality", EPERM, Always),
    ("acct", EPERM, AsRoot), ("swapon", EPERM, AsRoot), ("reboot", EPERM, AsRoot),
    ("syslog", EPERM, AsRoot), ("settimeofday", EPERM, AsRoot), ("sethostname", EPERM, AsRoot),
    ("prlimit_other", EPERM, Always), ("mknod_device", EPERM, Always),
    ("ioctl_tiocsti", EPERM, Always), ("ioctl_tiocsti_wide", EPERM, Always),
    ("ioctl_tioclinux", EPERM, Always), ("ioctl_tiocsetd", EPERM, Always),
    ("socket_netlink", EPERM, Always), ("socket_vsock", EPERM, Always),
    ("socket_packet", EPERM, AsRoot), ("socket_alg", EPERM, Always),
    ("socket_xdp", EPERM, AsRoot), ("socket_bluetooth", EPERM, Always),
    ("socket_can", EPERM, Always), ("socket_tipc", EPERM, Always),
    ("socket_key", EPERM, AsRoot), ("socket_raw_icmp", EPERM, AsRoot),
    ("socket_raw_tcp", EPERM, AsRoot), ("socket_ping", EPERM, Always),
    ("socket_sctp", EPERM, Always),
    ("setuid_root", EPERM, AsRoot), ("setgid_root", EPERM, AsRoot), ("setgroups", EPERM, AsRoot),
    ("clone_newipc", EPERM, AsRoot), ("clone_newuts", EPERM, AsRoot),
    ("clone_newcgroup", EPERM, AsRoot), ("fspick", EPERM, AsRoot),
    ("process_madvise", EPERM, Always), ("io_uring_enter", EPERM, Always),
    ("io_uring_register", EPERM, Always), ("name_to_handle_at", EPERM, Always),
    ("fanotify_mark", EPERM, Always), ("kexec_file_load", EPERM, AsRoot),
    ("swapoff", EPERM, AsRoot), ("clock_settime", EPERM, Always), ("adjtimex", EPERM, Always),
    ("iopl", EPERM, Always), ("ioperm", EPERM, Always),
    ("modify_ldt", EPERM, Always), ("x32", SIGSYS, Always), ("int80", SIGSYS, Always),
];

/// The probe's lines by name.
fn answers(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.rsplit_once('='))
        .map(|(name, answer)| (name.to_owned(), answer.to_owned()))
        .collect()
}

/// Puts the probe into a workspace.
pub(crate) fn place_probe(host: &Host, space: &Space) {
    let inside = space.workspace.join("probe");
    std::fs::copy(probe(), &inside).unwrap();
    host.give(&inside, space.user);
}

pub(crate) async fn probe_inside(jail: &Jail, arguments: &[&str]) -> BTreeMap<String, String> {
    let mut command = vec!["/workspace/probe".to_owned()];
    command.extend(arguments.iter().map(|one| (*one).to_owned()));
    let exec = Exec { command: bailiwick_sandbox::linux::CommandLine::Arguments(command), ..Exec::shell("") };
    let ran = run(jail, exec).await;
    assert_eq!(ran.stderr.text, "", "the probe itself ran: {:?}", ran.status);
    answers(&ran.stdout.text)
}

pub(crate) fn probe_outside(arguments: &[&str]) -> BTreeMap<String, String> {
    let ran = Command::new(probe()).args(arguments).output().unwrap();
    answers(&String::from_utf8(ran.stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn b04_the_kernels_dangerous_calls_are_refused_inside_and_answered_outside() {
    let host = Host::new().await;
    let space = host.space();
    place_probe(&host, &space);
    let jail = host.jail(&space).await;
    let inside = probe_inside(&jail, &[]).await;
    let outside = probe_outside(&[]);
    let mut wrong = Vec::new();
    for (name, expected, control) in REFUSED {
        let (here, there) = (inside.get(*name), outside.get(*name));
        // Without root there is no user 0 at all in the jail's user namespace.
        let absent = !host.is_native() && ["setuid_root", "setgid_root"].contains(name);
        let expected = if absent { &EINVAL } else { expected };
        if here.map(String::as_str) != Some(*expected) {
            wrong.push(format!("{name}: inside {here:?}, not {expected}"));
        }
        let controlled = *control == Always || host.is_native();
        if controlled && (there.is_none() || there == here) {
            wrong.push(format!("{name}: no control, outside {there:?}"));
        }
    }
    for (name, answer) in inside.iter().filter(|(name, _)| name.starts_with("allowed_")) {
        if answer != "ok" {
            wrong.push(format!("{name}: inside {answer}, not ok"));
        }
    }
    let allowed = inside.keys().filter(|name| name.starts_with("allowed_")).count();
    assert_eq!(inside.len(), REFUSED.len() + allowed, "every probe is in the table: {inside:?}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn b04_files_of_the_host_and_of_the_first_process_are_closed() {
    let host = Host::new().await;
    let space = host.space();
    place_probe(&host, &space);
    let jail = host.jail(&space).await;
    let refused = [
        ("read:/proc/1/mem", EACCES),
        ("write:/proc/1/mem", EACCES),
        ("read:/proc/1/environ", EACCES),
        ("read:/proc/1/maps", EACCES),
        ("list:/proc/1/fd", EACCES),
        ("link:/proc/1/root", EACCES),
        ("link:/proc/1/exe", EACCES),
        ("link:/proc/1/cwd", EACCES),
        ("create:/usr/x", "30"),
        ("create:/etc/x", "30"),
        ("create:/x", "30"),
        ("mkdir:/dev/x", "30"),
        ("unlink:/etc/passwd", "30"),
        // Its owner is asked for before the mount; by bubblewrap it is our own.
        ("truncate:/etc/passwd", if host.is_native() { EACCES } else { "30" }),
    ];
    let names: Vec<&str> = ["files"].into_iter().chain(refused.iter().map(|(name, _)| *name)).collect();
    let inside = probe_inside(&jail, &names).await;
    for (name, expected) in refused {
        assert_eq!(inside.get(name).map(String::as_str), Some(expected), "{name}");
    }
    // The same verbs work where they may.
    let allowed = [
        "files",
        "read:/proc/self/environ",
        "read:/proc/self/maps",
        "list:/proc/self/fd",
        "link:/proc/self/root",
        "link:/proc/self/exe",
        "create:/workspace/x",
        "truncate:/workspace/x",
        "unlink:/workspace/x",
        "mkdir:/workspace/d",
        "read:/etc/passwd",
        "read:/dev/urandom",
        "write:/dev/null",
        "create:/dev/shm/x",
        "create:/tmp/x",
    ];
    for (name, answer) in probe_inside(&jail, &allowed).await {
        assert_eq!(answer, "ok", "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b04_the_hosts_kernel_files_are_masked_or_frozen() {
    let host = Host::new().await;
    let space = host.space();
    place_probe(&host, &space);
    let jail = host.jail(&space).await;
    // What is in there may be read by name, but holds nothing of the host.
    for name in ["kallsyms", "cmdline", "config.gz", "keys", "timer_list", "kcore"] {
        let path = format!("/proc/{name}");
        if !Path::new(&path).exists() {
            continue;
        }
        let ran = sh(&jail, &format!("test -e {path} && cat {path} | wc -c")).await;
        assert_eq!(ran.stdout.text.trim(), "0", "{name}");
    }
    for path in [
        "/proc/sys/kernel/core_pattern",
        "/proc/sys/kernel/hostname",
        "/proc/sys/vm/drop_caches",
        "/proc/sysrq-trigger",
    ] {
        // Not every kernel has all of them; the first three always exist.
        if path == "/proc/sysrq-trigger" && !Path::new(path).exists() {
            continue;
        }
        assert!(Path::new(path).exists(), "the control exists outside: {path}");
        let verb = format!("write:{path}");
        let inside = probe_inside(&jail, &["files", &verb]).await;
        let answer = inside.get(&verb).map(String::as_str);
        assert!(matches!(answer, Some("13" | "30" | "1")), "{path}: {answer:?}");
    }
    let ran = sh(&jail, "ls /dev | sort | tr '\\n' ' '").await;
    for node in ran.stdout.text.split_whitespace() {
        let known = [
            "core", "console", "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout",
            "tty", "urandom", "zero",
        ];
        assert!(known.contains(&node), "/dev/{node}");
    }
    assert!(ran.stdout.text.contains("urandom"), "the list was made");
}

#[tokio::test(flavor = "multi_thread")]
async fn b04_nothing_of_the_server_is_visible() {
    let host = Host::new().await;
    let space = host.space();
    place_probe(&host, &space);
    // A file that this server can read, named by its full path.
    let canary = host.folder(space.user).join("canary");
    std::fs::write(&canary, "bailiwick-canary-71a0").unwrap();
    host.give(&canary, space.user);
    let jail = host.jail(&space).await;
    let path = canary.to_string_lossy().into_owned();
    assert_eq!(probe_outside(&["files", &format!("read:{path}")]).len(), 1);
    let verb = format!("read:{path}");
    let inside = probe_inside(&jail, &["files", &verb]).await;
    assert_eq!(inside.get(&verb).map(String::as_str), Some("2"), "absent, not forbidden");

    // The environment of every process is the small fixed one.
    let ran = sh(&jail, "cat /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n' | sort -u").await;
    let names: Vec<&str> = ran.stdout.text.lines().filter_map(|line| line.split_once('=')).map(|pair| pair.0).collect();
    assert!(names.contains(&"AI_AGENT"), "{names:?}");
    for name in names {
        let known = [
            "AI_AGENT", "HOME", "LANG", "LOGNAME", "OLDPWD", "PATH", "PWD", "SHELL", "SHLVL", "TERM", "TMPDIR", "USER",
            "_",
        ];
        assert!(known.contains(&name), "{name}");
    }
    // The test process has more than that, or the check above shows nothing.
    assert!(std::env::vars().any(|(name, _)| name.starts_with("CARGO") || name.starts_with("BAILIWICK")));

    // Only this jail's processes: the first one, this command, nothing else.
    let ran = sh(&jail, "echo /proc/[0-9]* | wc -w; cat /proc/1/cmdline | tr '\\0' ' '").await;
    let (count, first) = ran.stdout.text.split_once('\n').unwrap();
    assert!(count.trim().parse::<u32>().unwrap() <= 5, "{count}");
    assert!(!first.contains("bwrap") && !first.contains("/tmp"), "{first}");

    // No descriptor but the three.
    let open = probe_inside(&jail, &["descriptors"]).await;
    let open = open.get("open").unwrap();
    let numbers: Vec<&str> = open.split(' ').filter_map(|one| one.split_once(':')).map(|pair| pair.0).collect();
    assert_eq!(numbers, ["0", "1", "2"], "{open}");
}

#[tokio::test(flavor = "multi_thread")]
async fn b04_the_hosts_abstract_sockets_are_out_of_reach() {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixListener};
    let host = Host::new().await;
    let space = host.space();
    place_probe(&host, &space);
    let jail = host.jail(&space).await;
    let name = format!("bailiwick-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let outside = probe_outside(&["abstract", &name]);
    assert_eq!(outside.get(&name).map(String::as_str), Some("ok"));
    let inside = probe_inside(&jail, &["abstract", &name]).await;
    assert_eq!(inside.get(&name).map(String::as_str), Some("111"), "connection refused");
}

#[tokio::test(flavor = "multi_thread")]
async fn b04_a_setuid_program_gains_nothing_and_no_network_leaves() {
    let host = Host::new().await;
    let space = host.space();
    let jail = host.jail(&space).await;
    // A setuid bit on a program of another owner is the host's business; what
    // counts is that a jail's program never changes its user.
    let ran = sh(
        &jail,
        "cp /usr/bin/id /workspace/id && chmod 4755 /workspace/id && /workspace/id -u && id -u && \
         grep -E 'NoNewPrivs|CapEff|CapBnd' /proc/self/status",
    )
    .await;
    let lines: Vec<&str> = ran.stdout.text.lines().collect();
    assert_eq!(lines.len(), 5, "{ran:?}");
    assert_eq!(lines[0], lines[1]);
    assert_ne!(lines[0], "0");
    assert!(lines[2].ends_with("0000000000000000") && lines[3].ends_with("0000000000000000"));
    assert_eq!(lines[4].split_whitespace().nth(1), Some("1"));

    let ran = sh(&jail, "exec 3<>/dev/tcp/192.0.2.1/80").await;
    assert!(ran.stderr.text.contains("unreachable"), "{ran:?}");
    // The loopback device is the jail's own and works.
    let ran = sh(&jail, "exec 3<>/dev/tcp/127.0.0.1/9").await;
    assert!(ran.stderr.text.contains("refused"), "{ran:?}");
}
