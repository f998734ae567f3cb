//! A sample of a whole jail, and each fact of it changed once.
#![allow(clippy::unwrap_used)]

use super::super::rlimits::Limited;
use super::*;

const USER: u32 = 200_001;

fn declared() -> Declared {
    let namespaces = NAMESPACES.iter().map(|kind| ((*kind).to_owned(), format!("{kind}:[2]"))).collect();
    let descriptors = ["/dev/null", "/dev/null", "/dev/null", "socket:[9]"].map(str::to_owned).to_vec();
    Declared {
        launcher: LauncherKind::Native,
        name: JailName::parse("jail").unwrap(),
        user: Some((USER, USER)),
        filters: 3,
        landlock: 6,
        access: WorkspaceAccess::ReadOnly,
        gate: Some("net:[2]".to_owned()),
        ceilings: vec![Ceiling { resource: Limited::OpenFiles, value: 64 }],
        groups: vec![("memory", 1 << 20), ("pids", 7)],
        told: Told { namespaces, environment: Vec::new(), descriptors, fence: (0, libc::EACCES) },
        environment: Vec::new(),
        image: None,
        omitted: Omitted::default(),
    }
}

const MOUNTS: &str = "\
1 0 0:1 / / ro,nosuid,nodev - tmpfs tmpfs rw
2 1 8:1 /usr /usr ro,nosuid,nodev - ext4 /dev/root rw
3 1 0:2 / /dev ro,nosuid,nodev,noexec - tmpfs tmpfs rw
4 3 0:3 /null /dev/null rw,nosuid,noexec - devtmpfs dev rw
5 1 0:4 / /proc rw,nosuid,nodev,noexec - proc proc rw
6 5 0:4 /sys /proc/sys ro,nosuid,nodev,noexec - proc proc rw
7 1 8:1 /srv/some-workspace /workspace ro,nosuid,nodev - ext4 /dev/root rw
8 1 0:5 / /tmp rw,nosuid,nodev - tmpfs tmpfs rw
";

fn observed() -> Observed {
    let zero = "0000000000000000";
    Observed {
        status: format!(
            "Name:\tinit\nUid:\t{USER}\t{USER}\t{USER}\t{USER}\nGid:\t{USER}\t{USER}\t{USER}\t{USER}\nGroups:\t \n\
             CapInh:\t{zero}\nCapPrm:\t{zero}\nCapEff:\t{zero}\nCapBnd:\t{zero}\nCapAmb:\t{zero}\n\
             NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t3\n"
        ),
        limits: "Limit                     Soft Limit           Hard Limit           Units\n\
                 Max open files            64                   64                   files\n"
            .to_owned(),
        devices: "Inter-| Receive\n face |bytes\n    lo: 0 0\n".to_owned(),
        mounts: mountinfo::parse(MOUNTS),
        namespaces: NAMESPACES.map(|kind| (kind, format!("{kind}:[1]"), Some(format!("{kind}:[2]")))).to_vec(),
        groups: vec![
            GroupState { controller: "memory", member: true, limit: Some(1 << 20) },
            GroupState { controller: "pids", member: true, limit: Some(7) },
        ],
    }
}

fn differs(change: impl FnOnce(&mut Observed, &mut Declared)) -> Vec<Fact> {
    let (mut observed, mut declared) = (observed(), declared());
    change(&mut observed, &mut declared);
    judge(1, &observed, &declared).unwrap().1
}

fn in_status(from: &str, to: &str) -> Vec<Fact> {
    assert!(observed().status.contains(from), "{from}");
    differs(|seen, _| seen.status = seen.status.replacen(from, to, 1))
}

fn in_mounts(from: &str, to: &str) -> Vec<Fact> {
    assert!(MOUNTS.contains(from), "{from}");
    differs(|seen, _| seen.mounts = mountinfo::parse(&MOUNTS.replacen(from, to, 1)))
}

#[test]
fn b09_a_whole_jail_has_a_receipt_without_paths_or_names() {
    assert_eq!(differs(|_, _| {}), []);
    let record = judge(1, &observed(), &declared()).unwrap().0.record();
    assert_eq!(
        record,
        json!({
            "backend": "linux", "launcher": "native", "uid": USER, "gid": USER, "capabilities": 0, "no_new_privs": 1,
            "seccomp": { "mode": 2, "filters": 3 }, "landlock": 6, "network": ["lo"],
            "way_out": "gate", "writable": ["/proc", "/tmp"],
            "namespaces": { "cgroup": 2, "ipc": 2, "mnt": 2, "net": 2, "pid": 2, "uts": 2 },
            "cgroups": { "memory": 1 << 20, "pids": 7 }, "rlimits": { "Max open files": 64 },
        })
    );
}

#[test]
fn b09_each_identity_that_differs_is_found() {
    let id = format!("Uid:\t{USER}");
    assert_eq!(in_status(&id, "Uid:\t0"), [Fact::User]);
    assert_eq!(in_status(&id, "Uid:\t200002"), [Fact::User]);
    assert_eq!(in_status(&format!("\t{USER}\nGid"), "\t0\nGid"), [Fact::User], "one of the four ids");
    assert_eq!(in_status(&format!("Gid:\t{USER}"), "Gid:\t0"), [Fact::User]);
    assert_eq!(in_status("Groups:\t ", "Groups:\t27 "), [Fact::SupplementaryGroups]);
    assert_eq!(in_status("Groups:", "Other:"), [Fact::SupplementaryGroups]);
}

#[test]
fn b09_each_privilege_that_differs_is_found() {
    for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
        let one = format!("{set}:\t0000000000000001");
        assert_eq!(in_status(&format!("{set}:\t0000000000000000"), &one), [Fact::Capabilities], "{set}");
        assert_eq!(in_status(&format!("{set}:"), "Other:"), [Fact::Capabilities], "{set}");
    }
    assert_eq!(in_status("NoNewPrivs:\t1", "NoNewPrivs:\t0"), [Fact::NoNewPrivileges]);
    for mode in ["0", "1"] {
        assert_eq!(in_status("Seccomp:\t2", &format!("Seccomp:\t{mode}")), [Fact::Filters]);
    }
    assert_eq!(in_status("Seccomp_filters:\t3", "Seccomp_filters:\t2"), [Fact::Filters]);
    assert_eq!(in_status("Seccomp_filters:\t3", "Seccomp_filters:\t4"), [], "one of the server's own is no harm");
    for fence in [(0, 0), (libc::ENOENT, libc::ENOENT), (libc::EACCES, libc::EACCES)] {
        assert_eq!(differs(|_, declared| declared.told.fence = fence), [Fact::Landlock], "{fence:?}");
    }
}

#[test]
fn b09_each_namespace_that_differs_is_found() {
    for (at, kind) in NAMESPACES.into_iter().enumerate() {
        // The sockets that lead to the gate are in another namespace then.
        let way_out = (kind == "net").then_some(Fact::WayOut);
        let expected: Vec<Fact> = [Fact::Namespace(kind)].into_iter().chain(way_out).collect();
        // The server's own, and another than the first process told.
        for link in [format!("{kind}:[1]"), format!("{kind}:[3]")] {
            assert_eq!(differs(|seen, _| seen.namespaces[at].2 = Some(link)), expected);
        }
        // Not readable, and told to be the server's own.
        let told = differs(|seen, declared| {
            seen.namespaces[at].2 = None;
            declared.told.namespaces[at].1 = format!("{kind}:[1]");
        });
        assert_eq!(told, expected);
        let (mut seen, mut untold) = (observed(), declared());
        seen.namespaces[at].2 = None;
        untold.told.namespaces.remove(at);
        assert!(matches!(judge(1, &seen, &untold), Err(ReceiptError::Unreadable("namespaces"))));
    }
    let found = differs(|seen, _| seen.devices = "  eth0: 0 0\n".to_owned());
    assert_eq!(found, [Fact::NetworkDevices]);
    for elsewhere in ["net:[1]", "net:[3]", ""] {
        let moved = differs(|_, declared| declared.gate = Some(elsewhere.to_owned()));
        assert_eq!(moved, [Fact::WayOut], "{elsewhere}");
    }
    assert_eq!(differs(|_, declared| declared.gate = None), []);
}

#[test]
fn b09_each_mount_that_differs_is_found() {
    for (from, to) in [
        ("/ / ro", "/ / rw"),
        ("/usr /usr ro", "/usr /usr rw"),
        ("/usr ro,nosuid", "/usr ro,suid"),
        ("/workspace ro", "/workspace rw"),
        ("/workspace ro,nosuid,nodev", "/workspace ro,nosuid,dev"),
        ("/proc/sys ro", "/proc/sys rw"),
        ("/ /tmp", "/ /other"),
        ("/ /dev ro", "/ /dev/../etc ro"),
    ] {
        assert_eq!(in_mounts(from, to), [Fact::Mounts], "{from} {to}");
    }
    let more = |line: &str| differs(|seen, _| seen.mounts.extend(mountinfo::parse(line)));
    assert_eq!(more("9 1 8:1 /home /home rw,nosuid,nodev - ext4 /dev/root rw"), [Fact::Mounts]);
    assert_eq!(more("9 1 8:1 /home /dev/a/b rw,nosuid,nodev - ext4 /dev/root rw"), [Fact::Mounts]);
    // Where writing was declared it is no difference.
    let writes = differs(|seen, declared| {
        declared.access = WorkspaceAccess::ReadWrite;
        seen.mounts = mountinfo::parse(&MOUNTS.replace("/workspace ro", "/workspace rw"));
    });
    assert_eq!(writes, []);
}

#[test]
fn b09_each_limit_that_differs_is_found() {
    assert_eq!(differs(|seen, _| seen.limits = seen.limits.replace("64", "65")), [Fact::ResourceLimits]);
    assert_eq!(differs(|seen, _| seen.limits = seen.limits.replacen("64  ", "65  ", 1)), [Fact::ResourceLimits]);
    assert_eq!(differs(|seen, _| seen.limits = seen.limits.replace("64", "unlimited")), [Fact::ResourceLimits]);
    assert_eq!(differs(|seen, _| seen.limits.clear()), [Fact::ResourceLimits]);
    for at in 0..2 {
        assert_eq!(differs(|seen, _| seen.groups[at].member = false), [Fact::ControlGroups]);
        assert_eq!(differs(|seen, _| seen.groups[at].limit = None), [Fact::ControlGroups]);
        assert_eq!(differs(|seen, _| seen.groups[at].limit = Some(1 << 21)), [Fact::ControlGroups]);
        let gone = differs(|seen, _| {
            seen.groups.remove(at);
        });
        assert_eq!(gone, [Fact::ControlGroups]);
    }
}

#[test]
fn b09_what_a_first_process_inherits_is_found() {
    let variable = |launcher, name: &str| {
        let found = differs(|_, declared| {
            declared.launcher = launcher;
            declared.told.environment.push(name.to_owned());
        });
        found.contains(&Fact::Environment)
    };
    assert!(variable(LauncherKind::Native, "PWD"));
    assert!(!variable(LauncherKind::Bubblewrap, "PWD") && variable(LauncherKind::Bubblewrap, "PATH"));
    for open in ["/", "/srv/data.db", "anon_inode:[eventpoll]", "pipe:[7]"] {
        let found = differs(|_, declared| declared.told.descriptors.push(open.to_owned()));
        assert_eq!(found, [Fact::Descriptors], "{open}");
    }
}

#[test]
fn b09_what_an_engine_makes_otherwise_is_compared_by_its_own_rules_and_the_rest_as_ever() {
    let container = |change: &dyn Fn(&mut Observed, &mut Declared)| {
        differs(|seen, declared| {
            declared.launcher = LauncherKind::Engine;
            let fence = "9 1 8:1 /srv/closed /run/bailiwick/closed ro - ext4 /dev/root rw\n";
            seen.mounts.extend(mountinfo::parse(fence));
            change(seen, declared);
        })
    };
    assert_eq!(container(&|_, _| {}), []);
    let groups = |text: &'static str| {
        container(&move |seen, _| seen.status = seen.status.replace("Groups:\t ", &format!("Groups:\t{text} ")))
    };
    assert_eq!((groups("200001"), groups("200001 0")), (vec![], vec![Fact::SupplementaryGroups]));
    assert_eq!(in_status("Groups:\t ", "Groups:\t200001 "), [Fact::SupplementaryGroups], "in a jail there are none");
    let named = |name: &'static str| {
        container(&move |_, declared| {
            declared.environment = vec!["PATH".to_owned()];
            declared.told.environment.push(name.to_owned());
        })
    };
    assert_eq!((named("PATH"), named("SECRET")), (vec![], vec![Fact::Environment]));
    let device = |name: &'static str| container(&move |seen, _| seen.devices.push_str(&format!("{name}: 0 0\n")));
    assert_eq!((device("sit0"), device("eth0")), (vec![], vec![Fact::NetworkDevices]));
    assert_eq!(container(&|seen, _| seen.namespaces[0].2 = Some("cgroup:[1]".to_owned())), []);
    assert_eq!(container(&|seen, _| seen.namespaces[1].2 = Some("ipc:[1]".to_owned())), [Fact::Namespace("ipc")]);
    assert_eq!(container(&|_, declared| declared.filters = 4), [Fact::Filters]);
}

#[test]
fn b09_a_process_that_is_in_no_jail_has_no_receipt() {
    let own = i32::try_from(std::process::id()).unwrap();
    let ids = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    for user in [None, Some(ids), Some((ids.0 + 1, ids.1))] {
        let declared = Declared { user, ..declared() };
        let Err(ReceiptError::Differs(facts)) = read(own, &|_| Vec::new(), &declared) else {
            unreachable!("{user:?}");
        };
        for fact in [Fact::NoNewPrivileges, Fact::Filters, Fact::Mounts, Fact::Namespace("net"), Fact::ControlGroups] {
            assert!(facts.contains(&fact), "{fact}: {facts:?}");
        }
    }
    assert!(matches!(read(-1, &|_| Vec::new(), &declared()), Err(ReceiptError::Unreadable(_))));
}

#[test]
fn mixed_ids_are_no_id() {
    assert_eq!(one_id("Uid:\t7\t7\t7\t7\n", "Uid:"), Some(7));
    assert_eq!(one_id("Uid:\t7\t0\t7\t7\n", "Uid:"), None);
}
