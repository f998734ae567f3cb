//! The file system of a native jail.
//!
//! A memory file system with the host's programs bound read-only, an own
//! `/dev`, `/proc` with the host's parts covered, and three places to write:
//! `/workspace`, `/tmp` and `/dev/shm`. Everything is `nosuid`, everything but
//! the bound device nodes is `nodev`. It must never bind a host folder that may
//! hold a secret: `/etc` is made file by file.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::Path;

use rustix::fs::{CWD, StatVfsMountFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};

use super::keystore;
use super::native::{SetupError, attempt};
use super::spec::{Limits, WorkspaceAccess};
use super::wire::{Network, StartRequest};

/// Where the new root is put before it becomes the root. It only has to exist;
/// the mount is seen by nobody else.
const STAGE: &str = "/tmp";

/// Host folders that programs live in.
const PROGRAM_FOLDERS: [&str; 7] = ["usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// What is bound from the host's `/etc`. None of it holds a secret.
const ETC_FROM_HOST: [&str; 18] = [
    "alternatives",
    "ca-certificates",
    // Without its settings a JDK of Debian's does not start.
    "java-8-openjdk",
    "java-11-openjdk",
    "java-17-openjdk",
    "java-21-openjdk",
    "java-25-openjdk",
    "ld.so.cache",
    "ld.so.conf",
    "ld.so.conf.d",
    "magic",
    "mime.types",
    "pki/tls/certs",
    "protocols",
    "rpc",
    "services",
    "ssl/certs",
    "ssl/openssl.cnf",
];

/// Which of these hold certificates.
const CERTIFICATES: [&str; 2] = ["pki/tls/certs", "ssl/certs"];

/// Where a host keeps all its authorities in one file.
const HOSTS_BUNDLES: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Files of `/proc` that tell of the host or reach into it.
pub(crate) const MASKED: [&str; 20] = [
    "cmdline",
    "config.gz",
    "iomem",
    "ioports",
    "kallsyms",
    "kcore",
    "key-users",
    "keys",
    "kmsg",
    "kpagecgroup",
    "kpagecount",
    "kpageflags",
    "latency_stats",
    "modules",
    "mtrr",
    "sched_debug",
    "slabinfo",
    "sysrq-trigger",
    "timer_list",
    "vmallocinfo",
];

/// Folders of `/proc` that are emptied.
pub(crate) const EMPTIED: [&str; 4] = ["acpi", "driver", "scsi", "tty"];
/// Folders of `/proc` that stay readable but may not be written.
const FROZEN: [&str; 4] = ["bus", "fs", "irq", "sys"];

/// The folders of the caller, as mounts detached from the host's tree.
pub(crate) struct Folders {
    workspace: OwnedFd,
    shared_tmp: Option<OwnedFd>,
}

impl Folders {
    /// Copies the mounts. This must happen in the mount namespace in which the
    /// descriptors were opened, so before the jail gets its own.
    pub(crate) fn detach(workspace: &OwnedFd, tmp: Option<&OwnedFd>) -> Result<Self, SetupError> {
        let copy = |folder: &OwnedFd| {
            let flags =
                OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_EMPTY_PATH;
            rustix::mount::open_tree(folder, "", flags)
        };
        Ok(Self {
            workspace: attempt("copy the workspace's mount", copy(workspace))?,
            shared_tmp: attempt("copy the shared folder's mount", tmp.map(copy).transpose())?,
        })
    }
}

/// Builds the tree and makes it this process's root.
pub(crate) fn build(folders: &Folders, request: &StartRequest) -> Result<(), SetupError> {
    let (access, limits) = (request.access, &request.limits);
    attempt(
        "make all mounts private",
        rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC),
    )?;
    memory(STAGE, "mode=755,size=2m,nr_inodes=2k", MountFlags::empty())?;
    attempt("enter the new root", rustix::process::chdir(STAGE))?;
    programs()?;
    etc((request.uid, request.gid), &request.network)?;
    dev(limits)?;
    proc()?;
    writable(folders, access, limits)?;
    attempt("enter the new root", rustix::process::pivot_root(".", "."))?;
    attempt("leave the old root", rustix::mount::unmount(".", UnmountFlags::DETACH))?;
    attempt("enter the new root", rustix::process::chdir("/"))?;
    freeze("/dev", MountFlags::NOEXEC)?;
    freeze("/", MountFlags::empty())
}

fn programs() -> Result<(), SetupError> {
    for name in PROGRAM_FOLDERS {
        let host = Path::new("/").join(name);
        match fs::symlink_metadata(&host) {
            Ok(about) if about.is_symlink() => {
                let target = attempt("read a program folder's link", fs::read_link(&host))?;
                attempt("link a program folder", symlink(target, name))?;
            }
            Ok(about) if about.is_dir() => {
                folder(name)?;
                bind_read_only(&host, name, MountFlags::empty())?;
            }
            _ => {}
        }
    }
    Ok(())
}

fn etc((uid, gid): (u32, u32), network: &Network) -> Result<(), SetupError> {
    folder("etc")?;
    for (name, text) in etc_files(uid, gid) {
        attempt("write a file of /etc", fs::write(Path::new("etc").join(name), text))?;
    }
    let own = own_certificates(network);
    for (name, text) in &own {
        let inside = Path::new("etc").join(name);
        let parent = inside.parent().unwrap_or(Path::new("etc"));
        attempt("make a folder of /etc", fs::create_dir_all(parent))?;
        attempt("write a file of /etc", fs::write(&inside, text))?;
    }
    for name in etc_from_host(network) {
        let host = Path::new("/etc").join(name);
        let inside = Path::new("etc").join(name);
        let Ok(about) = fs::metadata(&host) else {
            continue;
        };
        if about.is_dir() {
            attempt("make a folder of /etc", fs::create_dir_all(&inside))?;
        } else {
            let parent = inside.parent().unwrap_or(Path::new("etc"));
            attempt("make a folder of /etc", fs::create_dir_all(parent))?;
            attempt("make a file of /etc", fs::write(&inside, ""))?;
        }
        bind_read_only(&host, &inside, MountFlags::NOEXEC)?;
    }
    if let Ok(zone) = fs::read_link("/etc/localtime") {
        attempt("link the time zone", symlink(zone, "etc/localtime"))?;
    }
    Ok(())
}

/// What is bound from the host's `/etc` into a jail: not its certificates where the jail has its own.
pub(crate) fn etc_from_host(network: &Network) -> impl Iterator<Item = &'static str> + use<> {
    let own = matches!(network, Network::Gate(Some(_)));
    ETC_FROM_HOST.into_iter().filter(move |name| !(own && CERTIFICATES.contains(name)))
}

/// The certificates of a jail that has its own, at the places where programs look for them.
pub(crate) fn own_certificates(network: &Network) -> Vec<(&'static str, Vec<u8>)> {
    let Network::Gate(Some(believed)) = network else { return Vec::new() };
    let mut bundle = believed.certificate.clone();
    if believed.hosts {
        let hosts = HOSTS_BUNDLES.iter().find_map(|path| fs::read_to_string(path).ok());
        bundle.push_str(&hosts.unwrap_or_default());
    }
    let keystore = keystore::of_bundle(&bundle);
    let bundle = bundle.into_bytes();
    vec![
        ("ssl/certs/ca-certificates.crt", bundle.clone()),
        ("ssl/certs/ca-bundle.crt", bundle.clone()),
        ("pki/tls/certs/ca-bundle.crt", bundle),
        (keystore::INSIDE, keystore),
    ]
}

/// The files of `/etc` that are made, also for bubblewrap.
pub(crate) fn etc_files(uid: u32, gid: u32) -> [(&'static str, Vec<u8>); 6] {
    let files: [(&'static str, String); 6] = [
        (
            "passwd",
            format!(
                "root:x:0:0:root:/:/usr/sbin/nologin\n\
                 agent:x:{uid}:{gid}:agent:/workspace:/bin/sh\n\
                 nobody:x:65534:65534:nobody:/:/usr/sbin/nologin\n"
            ),
        ),
        ("group", format!("root:x:0:\nagent:x:{gid}:\nnogroup:x:65534:\n")),
        ("hosts", "127.0.0.1 localhost sandbox\n::1 localhost\n".to_owned()),
        ("hostname", "sandbox\n".to_owned()),
        // There is no resolver; an empty file would mean 127.0.0.1 as well.
        ("resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n".to_owned()),
        ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\nservices: files\n".to_owned()),
    ];
    files.map(|(name, text)| (name, text.into_bytes()))
}

fn dev(limits: &Limits) -> Result<(), SetupError> {
    folder("dev")?;
    memory("dev", "mode=755,size=64k,nr_inodes=64", MountFlags::NOEXEC)?;
    for name in DEVICES {
        let inside = Path::new("dev").join(name);
        attempt("make a device's file", fs::write(&inside, ""))?;
        let host = Path::new("/dev").join(name);
        attempt("bind a device", rustix::mount::mount_bind(&host, &inside))?;
        // Without `nodev` here only: a device is the point of these mounts.
        let flags = MountFlags::BIND | MountFlags::NOSUID | MountFlags::NOEXEC;
        attempt("harden a device", rustix::mount::mount_remount(&inside, flags, ""))?;
    }
    for (link, target) in [
        ("dev/fd", "/proc/self/fd"),
        ("dev/stdin", "/proc/self/fd/0"),
        ("dev/stdout", "/proc/self/fd/1"),
        ("dev/stderr", "/proc/self/fd/2"),
        ("dev/ptmx", "pts/ptmx"),
    ] {
        attempt("link in /dev", symlink(target, link))?;
    }
    folder("dev/pts")?;
    attempt(
        "mount the terminals",
        rustix::mount::mount(
            "devpts",
            "dev/pts",
            "devpts",
            MountFlags::NOSUID | MountFlags::NOEXEC,
            Some(c"newinstance,ptmxmode=0666,mode=0620,max=64"),
        ),
    )?;
    folder("dev/shm")?;
    let size = super::bwrap::shm_bytes(limits);
    memory("dev/shm", &format!("mode=1777,size={size},nr_inodes=4k"), MountFlags::NOEXEC)
}

fn proc() -> Result<(), SetupError> {
    folder("proc")?;
    let closed = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    attempt("mount /proc", rustix::mount::mount("proc", "proc", "proc", closed, None))?;
    for name in MASKED {
        let inside = Path::new("proc").join(name);
        if inside.exists() {
            attempt("cover a file of /proc", rustix::mount::mount_bind("dev/null", &inside))?;
            let flags = MountFlags::BIND | MountFlags::RDONLY | closed;
            attempt("cover a file of /proc", rustix::mount::mount_remount(&inside, flags, ""))?;
        }
    }
    for name in EMPTIED {
        let inside = Path::new("proc").join(name);
        if inside.is_dir() {
            memory(&inside, "mode=555,size=4k,nr_inodes=2", MountFlags::RDONLY)?;
        }
    }
    for name in FROZEN {
        let inside = Path::new("proc").join(name);
        if inside.is_dir() {
            bind_read_only(&inside, &inside, MountFlags::NOEXEC)?;
        }
    }
    Ok(())
}

fn writable(folders: &Folders, access: WorkspaceAccess, limits: &Limits) -> Result<(), SetupError> {
    let careful = MountFlags::NOSUID | MountFlags::NODEV;
    folder("workspace")?;
    attach(&folders.workspace, "workspace")?;
    let mode = match access {
        WorkspaceAccess::ReadOnly => MountFlags::RDONLY,
        WorkspaceAccess::ReadWrite => MountFlags::empty(),
    };
    let flags = MountFlags::BIND | careful | mode | host_flags("workspace")?;
    attempt("harden the workspace", rustix::mount::mount_remount("workspace", flags, ""))?;
    folder("tmp")?;
    if let Some(shared) = &folders.shared_tmp {
        attach(shared, "tmp")?;
        let flags = MountFlags::BIND | careful | host_flags("tmp")?;
        attempt("harden the shared folder", rustix::mount::mount_remount("tmp", flags, ""))?;
    } else {
        let size = limits.tmp_bytes;
        memory("tmp", &format!("mode=1777,size={size},nr_inodes=64k"), MountFlags::empty())?;
    }
    for name in ["run", "run/bailiwick", "var", "var/lib"] {
        folder(name)?;
    }
    attempt("make the fence's file", fs::write(super::confine::FENCE.trim_start_matches('/'), ""))?;
    attempt("link /var/tmp", symlink("/tmp", "var/tmp"))
}

fn attach(mount: &OwnedFd, inside: &str) -> Result<(), SetupError> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    attempt("attach a folder", rustix::mount::move_mount(mount, "", CWD, inside, flags))
}

/// What the host's mount forbids already; a remount would lift it.
fn host_flags(path: &str) -> Result<MountFlags, SetupError> {
    let about = attempt("read a mount's flags", rustix::fs::statvfs(path))?;
    let mut flags = MountFlags::empty();
    for (theirs, ours) in
        [(StatVfsMountFlags::RDONLY, MountFlags::RDONLY), (StatVfsMountFlags::NOEXEC, MountFlags::NOEXEC)]
    {
        if about.f_flag.contains(theirs) {
            flags |= ours;
        }
    }
    Ok(flags)
}

fn folder(path: &str) -> Result<(), SetupError> {
    attempt("make a folder", fs::create_dir(path))
}

fn memory(target: impl AsRef<Path>, options: &str, more: MountFlags) -> Result<(), SetupError> {
    let options = std::ffi::CString::new(options).unwrap_or_default();
    let flags = MountFlags::NOSUID | MountFlags::NODEV | more;
    attempt(
        "mount a memory file system",
        rustix::mount::mount("tmpfs", target.as_ref(), "tmpfs", flags, Some(options.as_c_str())),
    )
}

fn bind_read_only(host: &Path, inside: impl AsRef<Path>, more: MountFlags) -> Result<(), SetupError> {
    let inside = inside.as_ref();
    attempt("bind a host folder", rustix::mount::mount_bind(host, inside))?;
    freeze(inside, more)
}

fn freeze(path: impl AsRef<Path>, more: MountFlags) -> Result<(), SetupError> {
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NOSUID | MountFlags::NODEV | more;
    attempt("make a mount read-only", rustix::mount::mount_remount(path.as_ref(), flags, ""))
}
