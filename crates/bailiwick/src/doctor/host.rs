//! What the host gives: files and their modes, space, the kernel, the clock.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::Findings;
use crate::config::Config;

/// A disk with less than this is nearly full, bytes.
const SPACE_WARNING: u64 = 2 << 30;
/// With less than this the next write may fail, bytes.
const SPACE_FAILED: u64 = 200 << 20;
/// A server with many accounts wants to hold so many files open.
const OPEN_FILES: u64 = 4_096;
/// The clock of a running server is later than the day on which this was written (2026-01-01).
const LONG_AGO: u64 = 1_767_225_600;

pub(super) fn check(findings: &mut Findings, config: &Config) {
    data_dir(findings, &config.data_dir);
    space(findings, &config.data_dir);
}

fn data_dir(findings: &mut Findings, dir: &Path) {
    let Ok(facts) = std::fs::metadata(dir) else {
        return findings.good("data directory", format!("{}: will be made at the first start", dir.display()));
    };
    // To pass through is not to look: as root the accounts' users must come to their own folders below it.
    if facts.permissions().mode() & 0o066 != 0 {
        findings.failed("data directory", format!("{} is open to other users", dir.display()), "chmod 711 it");
    } else {
        findings.good("data directory", format!("{}, private", dir.display()));
    }
    let Ok(keys) = std::fs::read_dir(dir.join("keys")) else { return };
    let wide = keys.flatten().find(|key| key.metadata().is_ok_and(|facts| facts.permissions().mode() & 0o077 != 0));
    match wide {
        Some(key) => {
            findings.failed("host keys", format!("{} can be read by others", key.path().display()), "chmod 600 it")
        }
        None => findings.good("host keys", "readable by this user alone"),
    }
}

fn space(findings: &mut Findings, dir: &Path) {
    // The nearest folder that exists: the data directory may still have to be made.
    let there = dir.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    match rustix::fs::statvfs(there) {
        Ok(disk) => {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            let found = format!("{} MiB free", free >> 20);
            if free < SPACE_FAILED {
                findings.failed("disk", found, "make room: writes are about to fail");
            } else if free < SPACE_WARNING {
                findings.warning("disk", found, "make room");
            } else {
                findings.good("disk", found);
            }
        }
        Err(error) => findings.warning("disk", format!("free space cannot be read: {error}"), ""),
    }
}

/// What every configuration needs.
pub(super) fn kernel(findings: &mut Findings) {
    let tried = rustix::fs::openat2(
        rustix::fs::CWD,
        "..",
        OFlags::PATH | OFlags::CLOEXEC,
        Mode::empty(),
        ResolveFlags::BENEATH,
    );
    match tried {
        // The positive answer is the refusal: the kernel kept the path beneath its folder.
        Err(Errno::XDEV) => findings.good("kernel", "openat2 keeps paths beneath their folder"),
        Err(error) => findings.failed(
            "kernel",
            format!("openat2 does not work here: {error}"),
            "use Linux 5.6 or newer, without a filter that forbids it",
        ),
        Ok(_) => findings.failed("kernel", "openat2 lets a path leave its folder", "this kernel cannot be used"),
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_secs();
    if now < LONG_AGO {
        findings.failed("clock", "it is years behind: keys would not expire", "set the clock, and keep it set by NTP");
    } else {
        findings.good("clock", "plausible");
    }
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
    if files < OPEN_FILES {
        let advice = "raise the hard limit (LimitNOFILE in systemd)";
        findings.warning("open files", format!("at most {files}"), advice);
    } else {
        findings.good("open files", if files == u64::MAX { "unlimited".to_owned() } else { format!("up to {files}") });
    }
    if rustix::process::geteuid().is_root() {
        findings.good("user", "root: each account's sandboxes are a user of their own");
    } else {
        findings.good("user", "not root: sandboxes are built by bubblewrap, and are this user in a namespace");
    }
}
