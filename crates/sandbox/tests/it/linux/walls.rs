//! Each wall left out once: the receipt must name it, and an attack must then
//! get further than in a whole jail. Where another wall still covers the hole,
//! that one is left out as well, and the case says so.

use std::collections::BTreeMap;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use bailiwick_sandbox::linux::{Exec, Fact, Jail, OnDifference, ReceiptError, StartError, Wall};

use super::harness::{Host, Space, run};
use super::probe::{place_probe, probe_inside};

/// Which walls are left out, and what the receipt must say.
struct Case {
    walls: &'static [Wall],
    named: &'static [Fact],
}

/// What an attacker gets: in a whole jail, and in one without the walls.
struct Answers {
    whole: String,
    open: String,
}

impl Case {
    /// The receipt fails the start and names the walls; then the same attack in both jails.
    async fn attack(&self, host: &Host, space: &Space, script: &str) -> Answers {
        let refused = host.launcher.start_without(host.spec(space), self.walls, OnDifference::Fail).await;
        let Err(StartError::Receipt(ReceiptError::Differs(facts))) = refused.map(drop) else {
            panic!("a jail without {:?} was started", self.walls);
        };
        for fact in self.named {
            assert!(facts.contains(fact), "{fact} is not among {facts:?}");
        }
        let whole = host.jail(space).await;
        let open = host.launcher.start_without(host.spec(space), self.walls, OnDifference::Tolerate).await.unwrap();
        Answers { whole: said(&whole, script).await, open: said(&open, script).await }
    }

    async fn differs(&self, host: &Host, space: &Space, script: &str) -> Answers {
        let answers = self.attack(host, space, script).await;
        assert_ne!(answers.whole, answers.open, "without {:?} nothing changed: {script}", self.walls);
        answers
    }
}

/// Both streams of a script. Where there is no workspace it runs in the host's root folder.
async fn said(jail: &Jail, script: &str) -> String {
    let ran = run(jail, Exec { directory: "/".to_owned(), ..Exec::shell(script) }).await;
    format!("{}{}", ran.stdout.text, ran.stderr.text)
}

async fn probed(host: &Host, space: &Space, walls: &[Wall], arguments: &[&str]) -> [BTreeMap<String, String>; 2] {
    place_probe(host, space);
    let whole = host.jail(space).await;
    let open = host.launcher.start_without(host.spec(space), walls, OnDifference::Tolerate).await.unwrap();
    [probe_inside(&whole, arguments).await, probe_inside(&open, arguments).await]
}

#[tokio::test(flavor = "multi_thread")]
async fn b09_b04_without_the_filters_the_kernel_answers() {
    let host = Host::new().await;
    let space = host.space();
    let case = Case { walls: &[Wall::Filters], named: &[Fact::Filters] };
    let answers = case.differs(&host, &space, "grep -w Seccomp: /proc/self/status").await;
    assert!(answers.whole.contains('2') && answers.open.contains('0'), "{}", answers.open);
    let [whole, open] = probed(&host, &space, case.walls, &[]).await;
    for name in ["unshare", "keyctl", "ptrace_traceme", "socket_netlink", "io_uring_setup", "x32", "int80", "clone3"] {
        assert_ne!(whole[name], open[name], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b09_b04_without_landlock_its_fence_is_open() {
    let host = Host::new().await;
    let space = host.space();
    let case = Case { walls: &[Wall::Landlock], named: &[Fact::Landlock] };
    let answers = case.differs(&host, &space, "cat /run/bailiwick/closed && echo open").await;
    assert!(answers.whole.contains("Permission denied"), "{}", answers.whole);
    assert_eq!(answers.open, "open\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn b09_b04_without_the_network_namespace_the_hosts_ports_answer() {
    let host = Host::new().await;
    let space = host.space();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let case = Case { walls: &[Wall::Network], named: &[Fact::Namespace("net")] };
    let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port} && echo connected");
    let answers = case.differs(&host, &space, &script).await;
    assert!(answers.whole.contains("refused"), "{}", answers.whole);
    assert_eq!(answers.open, "connected\n");
}

/// Landlock's scope covers abstract sockets too (since its sixth version), so both walls go.
#[tokio::test(flavor = "multi_thread")]
async fn b09_b04_without_network_namespace_and_landlock_the_hosts_abstract_sockets_answer() {
    let host = Host::new().await;
    let space = host.space();
    let name = format!("bailiwick-walls-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let [whole, net] = probed(&host, &space, &[Wall::Network], &["abstract", &name]).await;
    assert_eq!(whole[&name], "111");
    let scoped = host.launcher.promises().landlock_abi >= 6;
    assert_eq!(net[&name], if scoped { "1" } else { "ok" }, "Landlock alone");
    let [_, both] = probed(&host, &space, &[Wall::Network, Wall::Landlock], &["abstract", &name]).await;
    assert_eq!(both[&name], "ok");
}

#[tokio::test(flavor = "multi_thread")]
async fn b09_b04_without_the_ipc_namespace_the_hosts_segments_are_listed() {
    let host = Host::new().await;
    let space = host.space();
    let made = std::process::Command::new("ipcmk").args(["-M", "4096", "-p", "0666"]).output().unwrap();
    let text = String::from_utf8(made.stdout).unwrap();
    let id = text.trim().rsplit(' ').next().unwrap().to_owned();
    let case = Case { walls: &[Wall::Ipc], named: &[Fact::Namespace("ipc")] };
    let answers = case.differs(&host, &space, &format!("awk '$2 == {id}' /proc/sysvipc/shm | wc -l")).await;
    let removed = std::process::Command::new("ipcrm").args(["-m", &id]).status().unwrap();
    assert!(removed.success());
    assert_eq!((answers.whole.trim(), answers.open.trim()), ("0", "1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn b09_b04_without_the_views_the_hosts_name_and_groups_show() {
    let host = Host::new().await;
    let space = host.space();
    let name = Case { walls: &[Wall::HostName], named: &[Fact::Namespace("uts")] };
    let answers = name.differs(&host, &space, "cat /proc/sys/kernel/hostname").await;
    assert_eq!(answers.whole, "sandbox\n");
    assert_eq!(answers.open, std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap());
    let groups = Case { walls: &[Wall::ControlGroupView], named: &[Fact::Namespace("cgroup")] };
    let script = "readlink /proc/self/ns/cgroup";
    let answers = groups.differs(&host, &space, script).await;
    let own = std::fs::read_link("/proc/self/ns/cgroup").unwrap();
    assert_eq!(answers.open.trim(), own.to_string_lossy());
    if host.is_native() {
        let answers = groups.differs(&host, &space, "cat /proc/self/cgroup").await;
        assert!(answers.open.contains("/bailiwick-jails/test-") && !answers.whole.contains("bailiwick"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b09_b05_without_resource_limits_a_file_grows() {
    let host = Host::new().await;
    let mut space = host.space();
    space.limits.file_bytes = 1 << 20;
    let case = Case { walls: &[Wall::ResourceLimits], named: &[Fact::ResourceLimits] };
    let script = "head -c 2M /dev/zero > /workspace/big; echo $?; rm /workspace/big";
    let answers = case.differs(&host, &space, script).await;
    assert!(answers.whole.starts_with("153\n"), "{}", answers.whole);
    assert_eq!(answers.open, "0\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn b09_b04_without_an_empty_environment_it_is_read() {
    let host = Host::new().await;
    let case = Case { walls: &[Wall::Environment], named: &[Fact::Environment] };
    let answers = case.differs(&host, &host.space(), "echo ${BAILIWICK_LEFT_IN:-empty}").await;
    assert_eq!((answers.whole.as_str(), answers.open.as_str()), ("empty\n", "1\n"));
}

/// What bubblewrap cannot leave out: it makes its own mounts, process namespace and user namespace, and
/// forbids new privileges itself. Without root there are no control groups to leave here either.
#[tokio::test(flavor = "multi_thread")]
async fn b09_b04_b07_without_the_own_user_its_files_are_roots() {
    let host = Host::new().await;
    if !host.is_native() {
        return;
    }
    let space = host.space();
    let user = Case { walls: &[Wall::User], named: &[Fact::User] };
    let answers = user.differs(&host, &space, "id -u").await;
    assert_eq!(answers.open, "0\n");
    // Capabilities alone are covered by the change of user, which clears them; without both they are had.
    let [whole, without_user] = probed(&host, &space, user.walls, &[]).await;
    assert_eq!((whole["setuid_root"].as_str(), without_user["setuid_root"].as_str()), ("1", "ok"));
    assert_eq!(without_user["setgroups"], "1", "no capability is left");
    let both = Case { walls: &[Wall::User, Wall::Capabilities], named: &[Fact::User, Fact::Capabilities] };
    let answers = both.differs(&host, &space, "grep CapEff /proc/self/status").await;
    assert!(answers.whole.ends_with("0000000000000000\n") && !answers.open.ends_with("0000000000000000\n"));
    let [_, without_both] = probed(&host, &space, both.walls, &[]).await;
    assert_eq!(without_both["setgroups"], "ok");
    let alone = Case { walls: &[Wall::Capabilities], named: &[Fact::Capabilities] };
    let answers = alone.differs(&host, &space, "grep -E 'CapEff|CapBnd' /proc/self/status").await;
    assert!(answers.open.lines().next().unwrap().ends_with("0000000000000000"), "{}", answers.open);
}

#[tokio::test(flavor = "multi_thread")]
async fn b09_b04_without_the_process_namespace_the_hosts_processes_show() {
    let host = Host::new().await;
    if !host.is_native() {
        return;
    }
    let case = Case { walls: &[Wall::Processes], named: &[Fact::Namespace("pid")] };
    let own = std::process::id();
    let answers = case.differs(&host, &host.space(), &format!("cat /proc/{own}/comm")).await;
    assert!(answers.whole.contains("No such file"), "{}", answers.whole);
    assert_eq!(answers.open, std::fs::read_to_string("/proc/self/comm").unwrap());
}

#[tokio::test(flavor = "multi_thread")]
async fn b09_b04_without_the_mounts_the_hosts_files_are_there() {
    let host = Host::new().await;
    if !host.is_native() {
        return;
    }
    let space = host.space();
    let canary = host.folder(space.user).join("canary");
    std::fs::write(&canary, "of the host\n").unwrap();
    host.give(&canary, space.user);
    // Landlock knows `/tmp`, where the canary may be; elsewhere it covers the hole, so both go.
    let case =
        Case { walls: &[Wall::Mounts, Wall::Landlock], named: &[Fact::Mounts, Fact::Namespace("mnt"), Fact::Landlock] };
    let answers = case.differs(&host, &space, &format!("cat {}", canary.display())).await;
    assert!(answers.whole.contains("No such file"), "{}", answers.whole);
    assert_eq!(answers.open, "of the host\n");
}

/// Landlock and the filters need it, and the mounts forbid setuid as well, so all four go.
#[tokio::test(flavor = "multi_thread")]
async fn b09_b04_without_no_new_privileges_a_setuid_program_gains() {
    const COVER: [Wall; 3] = [Wall::Mounts, Wall::Landlock, Wall::Filters];
    let host = Host::new().await;
    if !host.is_native() {
        return;
    }
    let space = host.space();
    let program = host.folder(space.user).join("id");
    std::fs::copy("/usr/bin/id", &program).unwrap();
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o4755)).unwrap();
    let script = format!("{} -u", program.display());
    let covered = Case { walls: &COVER, named: &[Fact::Mounts, Fact::Landlock, Fact::Filters] };
    let open = covered.differs(&host, &space, &script).await.open;
    assert_eq!(open, format!("{}\n", space.user.uid), "no new privileges holds alone");
    let all = &[Wall::Mounts, Wall::Landlock, Wall::Filters, Wall::NoNewPrivileges];
    let case = Case { walls: all, named: &[Fact::NoNewPrivileges] };
    assert_eq!(case.differs(&host, &space, &script).await.open, "0\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn b09_b05_without_control_groups_memory_is_not_counted() {
    let host = Host::new().await;
    if !host.is_native() {
        return;
    }
    let mut space = host.space();
    space.limits.memory_bytes = 64 << 20;
    let case = Case { walls: &[Wall::ControlGroups], named: &[Fact::ControlGroups] };
    let answers = case.differs(&host, &space, "head -c 200M /dev/zero | tail | wc -c").await;
    assert_ne!(answers.whole.trim(), (200 << 20).to_string());
    assert_eq!(answers.open.trim(), (200 << 20).to_string());
}

/// Landlock covers a folder that was left open, so both go before its files can be read.
#[tokio::test(flavor = "multi_thread")]
async fn b09_b04_without_closed_descriptors_the_hosts_root_is_open() {
    let host = Host::new().await;
    if !host.is_native() {
        return;
    }
    let space = host.space();
    let case = Case { walls: &[Wall::Descriptors], named: &[Fact::Descriptors] };
    let answers = case.differs(&host, &space, "ls -l /proc/self/fd | grep -c -- '-> /$'").await;
    assert_eq!((answers.whole.trim(), answers.open.trim()), ("0", "1"));
    let fenced = host.launcher.start_without(host.spec(&space), case.walls, OnDifference::Tolerate).await.unwrap();
    let tried = said(&fenced, "for fd in /proc/self/fd/*; do cat $fd/etc/shells; done").await;
    assert!(tried.contains("Permission denied"), "Landlock alone: {tried}");
    let both = Case { walls: &[Wall::Descriptors, Wall::Landlock], named: &[Fact::Descriptors, Fact::Landlock] };
    let answers =
        both.differs(&host, &space, "for fd in /proc/self/fd/*; do cat $fd/etc/shells 2>/dev/null; done").await;
    assert_eq!(answers.whole, "");
    assert_eq!(answers.open, std::fs::read_to_string("/etc/shells").unwrap());
}
