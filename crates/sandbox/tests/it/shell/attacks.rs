//! B04 and B05: what a command may try in the virtual shell. Each attack stands beside its control, the
//! same act where it is allowed or where there is something to find: outside, by the host's own shell.

use std::process::Command;

use super::{Tenant, stderr, stdout};

/// What becomes of an attack.
enum Expected {
    /// These words are in what it printed, and none of the host's secret.
    Says(&'static str),
    /// It prints nothing but this.
    Prints(&'static str),
}
use Expected::{Prints, Says};

/// Name, script inside, what comes of it, and a script for the host's shell that must succeed and print
/// something: what is refused inside is there outside. `not found` is the refusal here where a program is
/// meant, for there are none; the control then is that the host has it.
#[rustfmt::skip]
const ATTACKS: &[(&str, &str, Expected, &str)] = &[
    // Files of the host.
    ("passwd of the host", "head -1 /etc/passwd", Says("agent:x:1000"), "head -1 /etc/passwd"),
    ("shadow", "cat /etc/shadow", Says("No such file"), "ls /etc/shadow"),
    ("dots out of the workspace", "cat ../../../../etc/passwd", Says("agent:x:1000"), "cat ../../../../../../../../etc/passwd"),
    ("the host's programs", "ls /usr/bin/setpriv /usr/lib", Says("No such file"), "ls /usr/bin/setpriv"),
    ("a path of the server", "ls {top}", Says("No such file"), "ls {top}"),
    ("a file beside the workspace", "cat {top}/outside.txt ../outside.txt", Says("No such file"), "cat {top}/outside.txt"),
    ("a link to the host", "cat link-to-passwd", Says("not followed"), "cat {top}/space/link-to-passwd"),
    ("a link made here", "ln -s /etc/passwd made && cat made", Says("cannot be made"), "ln -sf /etc/passwd {top}/made && cat {top}/made"),
    ("a hard link", "ln link-to-passwd hard", Says("ln:"), "ln -f {top}/outside.txt {top}/hard && cat {top}/hard"),
    ("a pipe that nobody writes", "timeout 5 cat fifo", Says("fifo"), "test -p {top}/space/fifo && echo there"),
    ("a device made here", "mknod dev c 1 3", Says("not found"), "command -v mknod"),
    // /proc and the environment.
    ("the server's environment", "cat /proc/self/environ /proc/1/environ", Says("No such file"), "grep -qz PATH /proc/self/environ && echo full"),
    ("the server's process", "cat /proc/{server}/status", Says("No such file"), "cat /proc/{server}/comm"),
    ("the kernel's settings", "cat /proc/sys/kernel/core_pattern", Says("No such file"), "cat /proc/sys/kernel/core_pattern"),
    ("variables of the server", "env | grep -c CARGO", Prints("0\n"), "env | grep CARGO"),
    ("the host's name", "hostname", Prints("sandbox\n"), "cat /proc/sys/kernel/hostname"),
    ("the host's user", "whoami", Prints("agent\n"), "id -un"),
    // Programs and processes.
    ("a program of the host", "/usr/bin/setpriv --dump", Says("setpriv: "), "/usr/bin/setpriv --dump"),
    ("a program in the workspace", "chmod +x program && ./program", Prints("interpreted\n"), "chmod +x {top}/space/program && {top}/space/program"),
    ("an interpreter", "python3 -c 'print(1)'", Says("not found"), "command -v python3"),
    ("a signal to everybody", "kill -9 -1; echo still", Says("still"), "command -v kill"),
    ("mounts", "mount -t tmpfs x /workspace; unshare -U true; chroot / true", Says("not found"), "command -v mount unshare chroot"),
    // Network.
    ("a port by its name", "exec 3<>/dev/tcp/127.0.0.1/{port} && echo connected", Says("/dev/tcp"), "exec 3<>/dev/tcp/127.0.0.1/{port} && echo connected"),
    ("curl", "curl -s --max-time 3 http://127.0.0.1:{port}/", Says("curl"), "exec 3<>/dev/tcp/127.0.0.1/{port} && echo connected"),
    ("wget", "wget -q -O - http://127.0.0.1:{port}/", Says("wget"), "exec 3<>/dev/tcp/127.0.0.1/{port} && echo connected"),
    ("ssh and nc", "ssh localhost; nc 127.0.0.1 {port}", Says("not found"), "exec 3<>/dev/tcp/127.0.0.1/{port} && echo connected"),
];

#[tokio::test]
async fn b04_attacks_on_the_virtual_shell_find_nothing_where_the_hosts_shell_does() {
    let tenant = Tenant::new();
    let space = tenant.top.path().join("space");
    std::os::unix::fs::symlink("/etc/passwd", space.join("link-to-passwd")).unwrap();
    std::fs::write(space.join("program"), "#!/bin/sh\necho interpreted\n").unwrap();
    assert!(Command::new("mkfifo").arg(space.join("fifo")).status().unwrap().success());
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let server = std::process::id().to_string();
    let fill = |script: &str| {
        script
            .replace("{top}", tenant.top.path().to_str().unwrap())
            .replace("{port}", &port)
            .replace("{server}", &server)
    };
    let secrets = ["root:x:0:0", super::SECRET, "connected", "uid="];
    let mut wrong = Vec::new();
    for (name, script, expected, control) in ATTACKS {
        let output = tenant.run(&fill(script)).await;
        let said = format!("{}{}", stdout(&output), stderr(&output));
        let held = match expected {
            Says(words) => said.contains(words),
            Prints(text) => stdout(&output) == **text,
        };
        if !held || secrets.iter().any(|secret| said.contains(secret)) {
            wrong.push(format!("{name}: {said:.300}"));
        }
        let outside = Command::new("bash").arg("-c").arg(fill(control)).output().unwrap();
        if !outside.status.success() || outside.stdout.is_empty() {
            wrong.push(format!("{name}: no control: {outside:?}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// What a command can use up; the same with less is let through.
#[tokio::test]
async fn b05_many_files_and_names_end_at_a_limit_and_a_few_do_not() {
    let tenant = Tenant::with(|spec| spec.limits.written_bytes = 4 << 20);
    let many =
        |count: u32| format!("mkdir -p d && for i in $(seq {count}); do echo $i > d/$i || exit 9; done; ls d | wc -l");
    assert_eq!(tenant.print(&many(200)).await, "200\n");
    let output = tenant.run(&many(20_000)).await;
    assert!(!output.succeeded(), "{output:?}");
    let made = std::fs::read_dir(tenant.file("d")).unwrap().count();
    assert!((200..20_000).contains(&made), "{made} files: each counts for a block");
    assert_eq!(tenant.print("rm -r d; echo still").await, "still\n");
}
