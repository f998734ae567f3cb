//! B04: what a script may try from inside, beside what the same act gives outside. System calls are in
//! `escape`, exhaustion in `limits`; together they are the list of attacks of `docs/sandbox.md`.

use std::process::Command;

use super::harness::{Host, sh};

/// Who must succeed with the control.
#[derive(Clone, Copy, PartialEq)]
enum Control {
    /// Everybody.
    Always,
    /// Root; a user is refused by the kernel itself.
    AsRoot,
}
use Control::{Always, AsRoot};

/// One attack.
struct Attack {
    name: &'static str,
    script: &'static str,
    /// One of these is in what it says.
    says: &'static [&'static str],
    /// A script that must succeed outside and say `control`.
    outside: &'static str,
    control: Control,
}

const fn attack(
    name: &'static str,
    script: &'static str,
    says: &'static [&'static str],
    outside: &'static str,
    control: Control,
) -> Attack {
    Attack { name, script, says, outside, control }
}

const ABSENT: &[&str] = &["No such file"];
const REFUSED: &[&str] =
    &["Permission denied", "permission denied", "Operation not permitted", "Read-only file system"];

/// `{server}` is this process, `{other}` another tenant's workspace with a file `secret`, `{own}` a folder
/// of the host that everybody here may write, `{port}` a port that listens on the host's loopback.
#[rustfmt::skip]
const ATTACKS: &[Attack] = &[
    // Processes.
    attack("signal the server", "kill -0 {server}", &["No such process"], "kill -0 {server} && echo control", Always),
    attack("read the server's memory map", "cat /proc/{server}/maps", ABSENT, "grep -q . /proc/{server}/comm && echo control", Always),
    attack("signal the first process", "kill -9 1; sleep 0.1; echo alive", &["alive"], "bash -c 'kill -9 $$' || echo control", Always),
    attack("be spared when memory runs out", "cat /proc/self/oom_score_adj; echo -1000 > /proc/self/oom_score_adj", REFUSED, "(echo 500 > /proc/self/oom_score_adj && echo 400 > /proc/self/oom_score_adj) && echo control", Always),
    attack("leave a core file", "ulimit -c; ulimit -c unlimited; sh -c 'kill -SEGV $$'; ls core*", &["Operation not permitted", "cannot modify limit"], "ulimit -c unlimited && echo control", AsRoot),
    attack("raise the priority", "nice -n -5 true", REFUSED, "nice -n -5 true && echo control", AsRoot),
    attack("enter the host's namespaces", "nsenter -t 1 -n -m true", REFUSED, "nsenter -t {server} -n -m true && echo control", AsRoot),
    // Namespaces and mounts.
    attack("a user namespace", "unshare -U true", REFUSED, "unshare -Ur true && echo control", Always),
    attack("mount", "mount -t tmpfs x /tmp", &["Operation not permitted", "permission denied", "must be superuser"], "unshare -Urm mount -t tmpfs x /mnt && echo control", Always),
    attack("remount the programs", "mount -o remount,rw,bind /usr", &["Operation not permitted", "permission denied", "must be superuser"], "unshare -Urm sh -c 'mount -t tmpfs x /mnt && umount /mnt' && echo control", Always),
    attack("change the root", "chroot /workspace true", REFUSED, "unshare -Ur /usr/sbin/chroot / true && echo control", Always),
    // Files.
    attack("another tenant's files", "cat {other}/secret", ABSENT, "test -s {other}/secret && echo control", Always),
    attack("the way up from the workspace", "cat /workspace/../../../../../{other}/secret", ABSENT, "test -s /proc/../../../../{other}/secret && echo control", Always),
    attack("a link to another tenant's file", "ln -s {other}/secret s && cat s", ABSENT, "ln -sf {other}/secret {own}/s && test -s {own}/s && echo control", Always),
    attack("the host's passwords", "cat /etc/shadow", ABSENT, "test -e /etc/shadow && echo control", Always),
    attack("the host's users", "grep -c . /etc/passwd", &["3"], "test $(grep -c . /etc/passwd) -gt 3 && echo control", Always),
    attack("the host's folders", "ls /root /home /boot /srv /opt /sys", ABSENT, "test -d /root -a -d /home -a -d /sys && echo control", Always),
    attack("write among the programs", "echo x > /usr/bin/x", REFUSED, "echo x > {own}/x && echo control", Always),
    attack("write into the root folder", "echo x > /x", REFUSED, "echo x > {own}/x && echo control", Always),
    attack("add a user", "echo evil::0:0::: >> /etc/passwd", REFUSED, "echo x >> {own}/x && echo control", Always),
    attack("a hard link to a program", "ln /usr/bin/id id", &["ln:"], "cd {own} && echo a > a && ln -f a b && echo control", Always),
    attack("a device", "mknod disk b 8 1", REFUSED, "mknod {own}/null c 1 3 && echo control", AsRoot),
    attack("own a program of root's", "cp /usr/bin/id i && chown 0:0 i", &["ermitted", "Invalid argument"], "cp /usr/bin/id {own}/i && chown 0:0 {own}/i && echo control", AsRoot),
    // Devices and sockets.
    attack("devices", "for d in mem kmem port vda sda nvme0 kvm vsock vhost-vsock fuse net/tun kmsg userfaultfd loop-control mapper/control; do [ ! -e /dev/$d ] || echo HAVE $d; done; echo none", &["none"], "for d in mem kvm vsock fuse kmsg net/tun vda; do [ ! -e /dev/$d ] || echo control; done", Always),
    attack("sockets of daemons", "find /run /var/run /tmp -type s; ls -A /run", &["bailiwick"], "ls -A /run | grep -q . && echo control", Always),
    attack("the kernel's log", "dmesg; cat /proc/kmsg | wc -c", &["0"], "test -e /proc/kmsg && echo control", Always),
    attack("the host's ports", "exec 3<>/dev/tcp/127.0.0.1/{port} && echo connected", &["refused"], "exec 3<>/dev/tcp/127.0.0.1/{port} && echo control", Always),
    // The machine.
    attack("the host's name", "cat /proc/sys/kernel/hostname", &["sandbox"], "grep -qvx sandbox /proc/sys/kernel/hostname && echo control", Always),
    attack("a setting of the kernel", "echo 1 > /proc/sys/vm/drop_caches", REFUSED, "test -w /proc/sys/vm/drop_caches && echo control", AsRoot),
];

#[tokio::test(flavor = "multi_thread")]
async fn b04_attacks_from_inside_find_nothing_and_the_same_acts_outside_succeed() {
    let host = Host::new().await;
    let (space, other) = (host.space(), host.space());
    std::fs::write(other.workspace.join("secret"), "SECRET-OF-ANOTHER-TENANT\n").unwrap();
    let own = host.folder(space.user);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let fill = |script: &str| {
        script
            .replace("{server}", &std::process::id().to_string())
            .replace("{other}", other.workspace.to_str().unwrap())
            .replace("{own}", own.to_str().unwrap())
            .replace("{port}", &port)
    };
    let jail = host.jail(&space).await;
    let mut wrong = Vec::new();
    for Attack { name, script, says, outside, control } in ATTACKS {
        let ran = sh(&jail, &fill(script)).await;
        let said = format!("{}{}", ran.stdout.text, ran.stderr.text);
        // "Not found" is no refusal: the program must be there for the attack to be one.
        let missing = said.contains("command not found");
        let found = ["SECRET", "connected", "HAVE", "docker", "uid=0"].iter().any(|word| said.contains(word));
        if missing || found || !says.iter().any(|words| said.contains(words)) {
            wrong.push(format!("{name}: {said:.300}"));
        }
        if *control == Always || host.is_native() {
            let ran = Command::new("bash").arg("-c").arg(fill(outside)).output().unwrap();
            if !String::from_utf8_lossy(&ran.stdout).contains("control") {
                wrong.push(format!("{name}: no control: {ran:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(sh(&jail, "echo still").await.stdout.text, "still\n");
}
