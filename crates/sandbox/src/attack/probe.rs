//! Tries what a jail must refuse and prints what the kernel answered.
//!
//! A role of this executable, so that the attacks can be tried wherever it is installed: it is copied into a
//! workspace and run there, and run outside for the control. Every call is made with arguments that change nothing
//! even where it is allowed, mostly invalid ones: an allowed call then answers something else than a refused one.
//! One line per try: `name=ok`, `name=<errno>` or `name=killed:<signal>`.
#![allow(unsafe_code, clippy::print_stdout)]

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::{Error, Read, Write};

/// One try and its answer.
type Try = dyn FnOnce() -> Result<(), Error>;

/// The `argv[0]` of the probe, and its name in a workspace.
pub const ROLE: &str = "bailiwick-probe";

/// Runs the probes whose group is the first argument, with its other ones; without a group, the system calls.
pub fn run(arguments: &[String]) {
    match arguments.split_first() {
        Some((group, rest)) if group == "files" => files(rest),
        Some((group, rest)) if group == "abstract" => abstract_socket(rest),
        Some((group, rest)) if group == "descriptors" => descriptors(rest),
        Some((group, rest)) if group == "listen" => listen(rest),
        _ => {
            syscalls();
            deadly();
        }
    }
}

fn say(name: &str, result: Result<(), Error>) {
    match result {
        Ok(()) => println!("{name}=ok"),
        Err(error) => println!("{name}={}", error.raw_os_error().unwrap_or(-1)),
    }
}

fn call(number: i64, arguments: [i64; 5]) -> Result<(), Error> {
    let [a, b, c, d, e] = arguments;
    // SAFETY: all arguments are numbers or null; the kernel checks them and
    // none of these calls writes to memory of this process.
    let answer = unsafe { libc::syscall(number, a, b, c, d, e, 0_i64) };
    if answer < 0 { Err(Error::last_os_error()) } else { Ok(()) }
}

/// Makes the call in a child, which ends at once.
fn in_child(try_it: impl FnOnce() -> Result<(), Error>) -> String {
    // SAFETY: this process has one thread, so the child may run anything.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let code = match try_it() {
            Ok(()) => 0,
            Err(error) => error.raw_os_error().unwrap_or(255),
        };
        // SAFETY: takes no pointers and does not return.
        unsafe { libc::_exit(code) }
    }
    let mut status = 0;
    // SAFETY: the status lives until the call returns.
    if child < 0 || unsafe { libc::waitpid(child, &raw mut status, 0) } != child {
        return "nofork".to_owned();
    }
    if libc::WIFSIGNALED(status) {
        return format!("killed:{}", libc::WTERMSIG(status));
    }
    match libc::WEXITSTATUS(status) {
        0 => "ok".to_owned(),
        errno => errno.to_string(),
    }
}

fn syscalls() {
    let socket = |family: i32, kind: i32, protocol: i32| {
        let arguments = [i64::from(family), i64::from(kind), i64::from(protocol), 0, 0];
        move || call(libc::SYS_socket, arguments)
    };
    let clone = |flag: i32| {
        // Shared memory without shared signal handlers' table: invalid.
        let flags = i64::from(flag) | i64::from(libc::CLONE_SIGHAND);
        move || call(libc::SYS_clone, [flags, 0, 0, 0, 0])
    };
    let own = i64::from(std::process::id());
    let tries: Vec<(&str, Box<Try>)> = vec![
        ("unshare", Box::new(|| call(libc::SYS_unshare, [0; 5]))),
        ("unshare_user", Box::new(|| call(libc::SYS_unshare, [0x1000_0000, 0, 0, 0, 0]))),
        ("clone_newuser", Box::new(clone(libc::CLONE_NEWUSER))),
        ("clone_newns", Box::new(clone(libc::CLONE_NEWNS))),
        ("clone_newnet", Box::new(clone(libc::CLONE_NEWNET))),
        ("clone_newpid", Box::new(clone(libc::CLONE_NEWPID))),
        ("clone3", Box::new(|| call(libc::SYS_clone3, [0; 5]))),
        ("setns", Box::new(|| call(libc::SYS_setns, [-1, 0, 0, 0, 0]))),
        ("mount", Box::new(|| call(libc::SYS_mount, [1, 1, 1, 0, 0]))),
        ("umount2", Box::new(|| call(libc::SYS_umount2, [0; 5]))),
        ("pivot_root", Box::new(|| call(libc::SYS_pivot_root, [0; 5]))),
        ("chroot", Box::new(|| call(libc::SYS_chroot, [0; 5]))),
        ("fsopen", Box::new(|| call(libc::SYS_fsopen, [0; 5]))),
        ("fsconfig", Box::new(|| call(libc::SYS_fsconfig, [-1, 0, 0, 0, 0]))),
        ("fsmount", Box::new(|| call(libc::SYS_fsmount, [-1, 0, 0, 0, 0]))),
        ("open_tree", Box::new(|| call(libc::SYS_open_tree, [-1, 0, 0, 0, 0]))),
        ("move_mount", Box::new(|| call(libc::SYS_move_mount, [-1, 0, -1, 0, 0]))),
        ("mount_setattr", Box::new(|| call(libc::SYS_mount_setattr, [-1, 0, 0, 0, 0]))),
        ("ptrace_traceme", Box::new(|| call(libc::SYS_ptrace, [0; 5]))),
        ("ptrace_seize_1", Box::new(|| call(libc::SYS_ptrace, [0x4206, -1, 0, 0, 0]))),
        ("process_vm_readv", Box::new(move || call(libc::SYS_process_vm_readv, [own, 0, 0, 0, 0]))),
        ("process_vm_writev", Box::new(move || call(libc::SYS_process_vm_writev, [own, 0, 0, 0, 0]))),
        ("pidfd_getfd", Box::new(|| call(libc::SYS_pidfd_getfd, [-1, 0, 0, 0, 0]))),
        ("kcmp", Box::new(move || call(libc::SYS_kcmp, [own, own, 1, 0, 0]))),
        ("io_uring_setup", Box::new(|| call(libc::SYS_io_uring_setup, [0; 5]))),
        ("bpf", Box::new(|| call(libc::SYS_bpf, [-1, 0, 0, 0, 0]))),
        ("perf_event_open", Box::new(|| call(libc::SYS_perf_event_open, [0, -1, -1, -1, 0]))),
        ("userfaultfd", Box::new(|| call(libc::SYS_userfaultfd, [0x7fff_0000, 0, 0, 0, 0]))),
        ("keyctl", Box::new(|| call(libc::SYS_keyctl, [0, -3, 0, 0, 0]))),
        ("add_key", Box::new(|| call(libc::SYS_add_key, [0; 5]))),
        ("request_key", Box::new(|| call(libc::SYS_request_key, [0; 5]))),
        ("kexec_load", Box::new(|| call(libc::SYS_kexec_load, [0, 0, 0, 0x7fff, 0]))),
        ("init_module", Box::new(|| call(libc::SYS_init_module, [0; 5]))),
        ("finit_module", Box::new(|| call(libc::SYS_finit_module, [-1, 0, 0, 0, 0]))),
        ("delete_module", Box::new(|| call(libc::SYS_delete_module, [0; 5]))),
        ("quotactl", Box::new(|| call(libc::SYS_quotactl, [-1, 0, 0, 0, 0]))),
        ("fanotify_init", Box::new(|| call(libc::SYS_fanotify_init, [0x7fff_0000, 0, 0, 0, 0]))),
        ("open_by_handle_at", Box::new(|| call(libc::SYS_open_by_handle_at, [-1, 0, 0, 0, 0]))),
        ("personality", Box::new(|| call(libc::SYS_personality, [8, 0, 0, 0, 0]))),
        ("acct", Box::new(|| call(libc::SYS_acct, [1, 0, 0, 0, 0]))),
        ("swapon", Box::new(|| call(libc::SYS_swapon, [0, -1, 0, 0, 0]))),
        ("reboot", Box::new(|| call(libc::SYS_reboot, [0; 5]))),
        ("syslog", Box::new(|| call(libc::SYS_syslog, [-1, 0, 0, 0, 0]))),
        ("settimeofday", Box::new(|| call(libc::SYS_settimeofday, [1, 0, 0, 0, 0]))),
        ("sethostname", Box::new(|| call(libc::SYS_sethostname, [0, -1, 0, 0, 0]))),
        ("prlimit_other", Box::new(move || call(libc::SYS_prlimit64, [own, 7, 0, 0, 0]))),
        ("mknod_device", Box::new(|| call(libc::SYS_mknodat, [-1, 0, 0o020_600, 0x103, 0]))),
        ("ioctl_tiocsti", Box::new(|| call(libc::SYS_ioctl, [0, 0x5412, 0, 0, 0]))),
        ("ioctl_tiocsti_wide", Box::new(|| call(libc::SYS_ioctl, [0, 0x1_0000_5412, 0, 0, 0]))),
        ("ioctl_tioclinux", Box::new(|| call(libc::SYS_ioctl, [0, 0x541C, 0, 0, 0]))),
        ("ioctl_tiocsetd", Box::new(|| call(libc::SYS_ioctl, [0, 0x5423, 0, 0, 0]))),
        ("socket_netlink", Box::new(socket(libc::AF_NETLINK, libc::SOCK_RAW, 0))),
        ("socket_vsock", Box::new(socket(libc::AF_VSOCK, libc::SOCK_STREAM, 0))),
        ("socket_packet", Box::new(socket(libc::AF_PACKET, libc::SOCK_RAW, 0))),
        ("socket_alg", Box::new(socket(libc::AF_ALG, libc::SOCK_SEQPACKET, 0))),
        ("socket_xdp", Box::new(socket(libc::AF_XDP, libc::SOCK_RAW, 0))),
        ("socket_bluetooth", Box::new(socket(libc::AF_BLUETOOTH, libc::SOCK_RAW, 1))),
        ("socket_can", Box::new(socket(libc::AF_CAN, libc::SOCK_RAW, 1))),
        ("socket_tipc", Box::new(socket(libc::AF_TIPC, libc::SOCK_RDM, 0))),
        ("socket_key", Box::new(socket(15, libc::SOCK_RAW, 2))),
        ("socket_raw_icmp", Box::new(socket(libc::AF_INET, libc::SOCK_RAW, 1))),
        ("socket_raw_tcp", Box::new(socket(libc::AF_INET, libc::SOCK_RAW, 6))),
        ("socket_ping", Box::new(socket(libc::AF_INET, libc::SOCK_DGRAM, 1))),
        ("socket_sctp", Box::new(socket(libc::AF_INET, libc::SOCK_STREAM, 132))),
        ("setuid_root", Box::new(|| call(libc::SYS_setresuid, [0, 0, 0, 0, 0]))),
        ("setgid_root", Box::new(|| call(libc::SYS_setresgid, [0, 0, 0, 0, 0]))),
        ("setgroups", Box::new(|| call(libc::SYS_setgroups, [0; 5]))),
        ("clone_newipc", Box::new(clone(libc::CLONE_NEWIPC))),
        ("clone_newuts", Box::new(clone(libc::CLONE_NEWUTS))),
        ("clone_newcgroup", Box::new(clone(libc::CLONE_NEWCGROUP))),
        ("fspick", Box::new(|| call(libc::SYS_fspick, [-1, 0, 0x7fff_0000, 0, 0]))),
        ("process_madvise", Box::new(|| call(libc::SYS_process_madvise, [-1, 0, 0, 0, 0]))),
        ("io_uring_enter", Box::new(|| call(libc::SYS_io_uring_enter, [-1, 0, 0, 0, 0]))),
        ("io_uring_register", Box::new(|| call(libc::SYS_io_uring_register, [-1, 0, 0, 0, 0]))),
        ("name_to_handle_at", Box::new(|| call(libc::SYS_name_to_handle_at, [-1, 0, 0, 0, 0]))),
        ("fanotify_mark", Box::new(|| call(libc::SYS_fanotify_mark, [-1, 0, 0, -1, 0]))),
        ("kexec_file_load", Box::new(|| call(libc::SYS_kexec_file_load, [-1, -1, 0, 0, 0x7fff_0000]))),
        ("swapoff", Box::new(|| call(libc::SYS_swapoff, [0; 5]))),
        ("clock_settime", Box::new(|| call(libc::SYS_clock_settime, [0, 1, 0, 0, 0]))),
        ("adjtimex", Box::new(|| call(libc::SYS_adjtimex, [1, 0, 0, 0, 0]))),
        // What a jail must allow.
        ("allowed_getpid", Box::new(|| call(libc::SYS_getpid, [0; 5]))),
        ("allowed_socket_tcp", Box::new(socket(libc::AF_INET, libc::SOCK_STREAM, 6))),
        ("allowed_socket_udp6", Box::new(socket(libc::AF_INET6, libc::SOCK_DGRAM, 17))),
        ("allowed_socket_unix", Box::new(socket(libc::AF_UNIX, libc::SOCK_STREAM, 0))),
        ("allowed_prlimit_self", Box::new(|| call(libc::SYS_prlimit64, [0, 7, 0, 0, 0]))),
        ("allowed_personality", Box::new(|| call(libc::SYS_personality, [0xffff_ffff, 0, 0, 0, 0]))),
    ];
    for (name, try_it) in tries {
        println!("{name}={}", in_child(try_it));
    }
    #[cfg(target_arch = "x86_64")]
    for (name, number, arguments) in [
        ("modify_ldt", libc::SYS_modify_ldt, [0; 5]),
        ("iopl", libc::SYS_iopl, [4, 0, 0, 0, 0]),
        ("ioperm", libc::SYS_ioperm, [0x10000, 1, 1, 0, 0]),
    ] {
        println!("{name}={}", in_child(|| call(number, arguments)));
    }
}

/// Calls that kill: by the x32 number and by the 32-bit entry.
fn deadly() {
    #[cfg(target_arch = "x86_64")]
    {
        println!("x32={}", in_child(|| call(0x4000_0000 + libc::SYS_getpid, [0; 5])));
        println!("int80={}", in_child(int80));
    }
}

#[cfg(target_arch = "x86_64")]
fn int80() -> Result<(), Error> {
    let mut answer: i64 = 20; // getpid by its 32-bit number
    // SAFETY: the 32-bit getpid takes no arguments; the entry may clobber
    // r8 to r11, which are declared.
    unsafe {
        std::arch::asm!(
            "int 0x80",
            inout("rax") answer,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    if answer < 0 { Err(Error::from_raw_os_error(1)) } else { Ok(()) }
}

/// `read:PATH`, `write:PATH` (opens only), `content:PATH`, `list:PATH`.
fn files(tries: &[String]) {
    for one in tries {
        let Some((verb, path)) = one.split_once(':') else {
            continue;
        };
        let result = match verb {
            "read" => OpenOptions::new().read(true).open(path).and_then(|mut file| file.read(&mut [0; 16]).map(drop)),
            "write" => OpenOptions::new().write(true).open(path).map(drop),
            "create" => {
                OpenOptions::new().write(true).create_new(true).open(path).and_then(|mut file| file.write_all(b"x"))
            }
            "list" => std::fs::read_dir(path).map(drop),
            "link" => std::fs::read_link(path).map(drop),
            "mkdir" => std::fs::create_dir(path),
            "unlink" => std::fs::remove_file(path),
            "truncate" => CString::new(path.as_bytes()).map_err(Error::from).and_then(|path| {
                // SAFETY: the path lives until the call returns.
                let answer = unsafe { libc::truncate(path.as_ptr(), 0) };
                if answer < 0 { Err(Error::last_os_error()) } else { Ok(()) }
            }),
            _ => continue,
        };
        say(one, result);
    }
}

/// Connects to an abstract socket by name.
fn abstract_socket(names: &[String]) {
    use std::os::linux::net::SocketAddrExt;
    use std::os::unix::net::{SocketAddr, UnixStream};
    for name in names {
        let result =
            SocketAddr::from_abstract_name(name).and_then(|address| UnixStream::connect_addr(&address)).map(drop);
        say(name, result);
    }
}

/// Listens on ports of the loopback, beside whoever listens there, if they let it.
fn listen(ports: &[String]) {
    use rustix::net::{AddressFamily, SocketType, bind, socket, sockopt};
    for port in ports {
        let address = std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, port.parse().unwrap_or(0));
        let result = socket(AddressFamily::INET, SocketType::STREAM, None).and_then(|socket| {
            sockopt::set_socket_reuseaddr(&socket, true)?;
            sockopt::set_socket_reuseport(&socket, true)?;
            bind(&socket, &address)?;
            rustix::net::listen(&socket, 1)
        });
        say(&format!("listen:{port}"), result.map_err(Error::from));
    }
}

/// Lists this process's open descriptors but the one for listing.
fn descriptors(_: &[String]) {
    let entries = std::fs::read_dir("/proc/self/fd").into_iter().flatten().flatten();
    let open: Vec<String> = entries
        .filter_map(|entry| {
            let target = std::fs::read_link(entry.path()).ok()?;
            let name = entry.file_name().into_string().ok()?;
            let target = target.to_string_lossy().into_owned();
            (!target.contains("/fd")).then(|| format!("{name}:{target}"))
        })
        .collect();
    println!("open={}", open.join(" "));
}
