//! B04, B05: what may be tried from inside, beside what the same act gives outside: the lists of
//! `bailiwick_sandbox::attack`, in whole jails and in such that lack a wall.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use bailiwick_sandbox::attack::{self, Finding, Group, Inside, Kind, Places, Said, Verdict};
use bailiwick_sandbox::linux::{Exec, ExitStatus, Jail};

use super::harness::{Host, Space, probe, run};

/// A jail, and the folder in which its commands begin.
pub(super) struct InJail(Jail, &'static str);

impl Inside for InJail {
    async fn run(&self, script: &str) -> Result<Said, String> {
        let ran = run(&self.0, Exec { directory: self.1.to_owned(), ..Exec::shell(script) }).await;
        Ok(Said { stdout: ran.stdout.text, stderr: ran.stderr.text, well: ran.status == ExitStatus::Exited(0) })
    }
}

/// Two tenants' spaces, and what there is around them.
pub(super) struct Field {
    pub(super) space: Space,
    neighbour: InJail,
    places: Places,
    _open: (std::net::TcpListener, std::net::TcpListener, UnixListener),
}

impl Field {
    pub(super) async fn new(host: &Host) -> Self {
        let (mut space, other) = (host.space(), host.space());
        space.limits.memory_bytes = 96 << 20;
        space.limits.tmp_bytes = 16 << 20;
        space.limits.pids = 64;
        let own = host.folder(space.user);
        let listening = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let (one, two) = (listening(), listening());
        let abstract_name = format!("bailiwick-attack-{}-{}", std::process::id(), own.display());
        let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        let places = Places {
            launcher: Some(host.launcher.promises().launcher),
            limits: space.limits,
            workspace: space.workspace.clone(),
            other: other.workspace.clone(),
            own,
            port: one.local_addr().unwrap().port(),
            server_port: two.local_addr().unwrap().port(),
            abstract_name,
            probe: probe(),
        };
        attack::prepare(&places).unwrap();
        let neighbour = InJail(host.jail(&other).await, "/workspace");
        Self { space, neighbour, places, _open: (one, two, UnixListener::bind_addr(&address).unwrap()) }
    }

    pub(super) async fn attack(&self, jail: InJail, groups: &[Group]) -> Vec<Finding> {
        attack::run(Kind::Linux, groups, &self.places, &jail, &self.neighbour).await.unwrap()
    }
}

/// What did not hold, and what holds on every host and has no control.
fn wrong<'a>(host: &Host, findings: &'a [Finding]) -> Vec<&'a Finding> {
    let proven = |one: &&Finding| match one.verdict {
        Verdict::Held => true,
        Verdict::Unproven => !one.everywhere && (!host.is_native() || one.control == "not on this kernel"),
        Verdict::Escaped => false,
    };
    findings.iter().filter(|one| !proven(one)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn b04_attacks_from_inside_find_nothing_and_the_same_acts_outside_succeed() {
    let host = Host::new().await;
    let field = Field::new(&host).await;
    let groups = [Group::Calls, Group::Files, Group::Namespaces, Group::Host];
    let findings = field.attack(InJail(host.jail(&field.space).await, "/workspace"), &groups).await;
    assert!(wrong(&host, &findings).is_empty(), "{:#?}", wrong(&host, &findings));
    for (group, least) in [(Group::Calls, 80), (Group::Files, 25), (Group::Namespaces, 6), (Group::Host, 30)] {
        let count = findings.iter().filter(|one| one.group == group).count();
        assert!(count >= least, "{group:?}: {count}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn b05_what_is_used_up_is_ones_own() {
    let host = Host::new().await;
    let field = Field::new(&host).await;
    let findings = field.attack(InJail(host.jail(&field.space).await, "/workspace"), &[Group::Limits]).await;
    assert!(wrong(&host, &findings).is_empty(), "{:#?}", wrong(&host, &findings));
    assert!(findings.len() >= 7);
}

/// Each wall is left out once, and the lists must say so: by which attack is in the table.
#[cfg(debug_assertions)]
#[tokio::test(flavor = "multi_thread")]
async fn b04_b09_without_a_wall_the_lists_are_red() {
    use Group::{Calls, Files, Limits, Namespaces};
    use bailiwick_sandbox::linux::{OnDifference, Wall};

    /// What only the native launcher can leave out.
    const NATIVE: [Wall; 6] =
        [Wall::User, Wall::Capabilities, Wall::Processes, Wall::Mounts, Wall::ControlGroups, Wall::Descriptors];
    let host = Host::new().await;
    for (wall, group, name) in [
        (Wall::Filters, Calls, "unshare_user"),
        (Wall::Landlock, Files, "read:/run/bailiwick/closed"),
        (Wall::Network, Group::Host, "the host's ports"),
        (Wall::Ipc, Namespaces, "ipc"),
        (Wall::HostName, Group::Host, "the host's name"),
        (Wall::ControlGroupView, Namespaces, "cgroup"),
        (Wall::ResourceLimits, Limits, "open files"),
        (Wall::Environment, Files, "variables of the environment"),
        (Wall::User, Group::Host, "be root"),
        (Wall::Processes, Group::Host, "signal the server"),
        (Wall::Mounts, Group::Host, "the host's folders"),
        (Wall::ControlGroups, Limits, "memory"),
        (Wall::Descriptors, Files, "descriptors of the host"),
    ] {
        if NATIVE.contains(&wall) && !host.is_native() {
            continue;
        }
        let field = Field::new(&host).await;
        let spec = host.spec(&field.space);
        let jail = host.launcher.start_without(spec, &[wall], OnDifference::Tolerate).await.unwrap();
        // Without mounts there is no such folder as the workspace's.
        let jail = InJail(jail, if wall == Wall::Mounts { "/" } else { "/workspace" });
        let findings = field.attack(jail, &[group]).await;
        let found = findings.iter().find(|one| one.name == name).unwrap();
        assert_eq!(found.verdict, Verdict::Escaped, "without {wall:?}: {found:?}");
    }
}
