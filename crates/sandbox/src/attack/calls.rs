//! System calls, tried by the probe: the kernel's own answers, inside and outside.

use std::collections::BTreeMap;

use super::{Control, Finding, Group, Inside, Kind, LIBRARIES, Places, answers, brief, outside, probe, verdict};
use crate::linux::LauncherKind;
use Control::{Always, AsRoot};

const EPERM: &str = "1";
const EINVAL: &str = "22";
const ENOSYS: &str = "38";
const SIGSYS: &str = "killed:31";

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

pub(super) async fn run<I: Inside>(kind: Kind, places: &Places, inside: &I) -> Result<Vec<Finding>, String> {
    let (mut findings, native) = (Vec::new(), places.launcher == Some(LauncherKind::Native));
    let (here, there) = (tried(kind, inside, "").await?, control(places, "").await);
    for (name, expected, control) in REFUSED {
        // Without root there is no user 0 at all in the jail's user namespace.
        let absent = !native && kind == Kind::Linux && ["setuid_root", "setgid_root"].contains(name);
        let expected = if absent { EINVAL } else { expected };
        let answer = here.get(*name).map_or("nothing", String::as_str);
        let outside = there.get(*name).map_or("nothing", String::as_str);
        // A number that this processor's kernel does not have is tried nowhere.
        if (answer, outside) == ("nothing", "nothing") {
            continue;
        }
        findings.push(Finding {
            group: Group::Calls,
            name: (*name).to_owned(),
            verdict: verdict(answer == expected, outside != answer && outside != "nothing"),
            inside: spoken(answer),
            control: spoken(outside),
            everywhere: *control == Always,
        });
    }
    for (name, answer) in here.iter().filter(|(name, _)| name.starts_with("allowed_")) {
        findings.push(Finding {
            group: Group::Works,
            name: name.trim_start_matches("allowed_").to_owned(),
            verdict: verdict(answer == "ok", there.get(name).is_some_and(|answer| answer == "ok")),
            inside: spoken(answer),
            control: spoken(there.get(name).map_or("nothing", String::as_str)),
            everywhere: true,
        });
    }
    Ok(findings)
}

/// What the probe says inside.
pub(super) async fn tried<I: Inside>(
    kind: Kind,
    inside: &I,
    arguments: &str,
) -> Result<BTreeMap<String, String>, String> {
    let by = match kind {
        Kind::Container => format!("/workspace/{LIBRARIES}/ld-* --library-path /workspace/{LIBRARIES} "),
        Kind::Linux | Kind::Virtual => String::new(),
    };
    let said = inside.run(&format!("{by}/workspace/{} {arguments}", probe::ROLE)).await?;
    let found = answers(&said.stdout);
    if found.is_empty() { Err(format!("the probe did not run: {}", brief(&said.all()))) } else { Ok(found) }
}

/// What it says outside.
pub(super) async fn control(places: &Places, arguments: &str) -> BTreeMap<String, String> {
    let arguments = super::fill(arguments, places);
    answers(&outside(&format!("exec -a {} '{}' {arguments}", probe::ROLE, places.probe.display())).await)
}

/// What the kernel said, as people read it.
pub(super) fn spoken(answer: &str) -> String {
    if let Some(signal) = answer.strip_prefix("killed:") {
        return if signal == "31" { "killed (SIGSYS)".to_owned() } else { format!("killed by signal {signal}") };
    }
    match answer.parse::<i32>().map(rustix::io::Errno::from_raw_os_error) {
        Ok(errno) => errno_name(errno),
        Err(_) => answer.to_owned(),
    }
}

fn errno_name(errno: rustix::io::Errno) -> String {
    use rustix::io::Errno;
    match errno {
        Errno::PERM => "EPERM",
        Errno::NOENT => "ENOENT",
        Errno::ACCESS => "EACCES",
        Errno::FAULT => "EFAULT",
        Errno::BADF => "EBADF",
        Errno::INVAL => "EINVAL",
        Errno::NOSYS => "ENOSYS",
        Errno::ROFS => "EROFS",
        Errno::CONNREFUSED => "ECONNREFUSED",
        Errno::AFNOSUPPORT => "EAFNOSUPPORT",
        Errno::PROTONOSUPPORT => "EPROTONOSUPPORT",
        Errno::NODEV => "ENODEV",
        Errno::NOTTY => "ENOTTY",
        Errno::IO => "EIO",
        other => return format!("errno {}", other.raw_os_error()),
    }
    .to_owned()
}
