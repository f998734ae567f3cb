//! The isolation self-test: the attacks of `sandbox attack` that use nothing up, in each kind of sandbox that this
//! host has.

use bailiwick_sandbox::SandboxError;
use bailiwick_sandbox::attack::{Group, Kind, Verdict};
use bailiwick_sandbox::linux::{Enforcement, Promises, UserSeparation, WayOut, not_compared};

use super::Findings;
use crate::attack::{Field, Sandbox};
use crate::config::SandboxSettings;
use crate::failure::Failure;

/// What is attacked. Limits take time, and have a command of their own.
const GROUPS: [Group; 4] = [Group::Calls, Group::Files, Group::Namespaces, Group::Host];

pub(super) async fn check(findings: &mut Findings, sandbox: Option<SandboxSettings>) {
    match tried(findings, sandbox).await {
        Ok(()) => {}
        Err(failure) => findings.failed("self-test", failure.text(), "the sandboxes could not be tried"),
    }
}

async fn tried(findings: &mut Findings, sandbox: Option<SandboxSettings>) -> Result<(), Failure> {
    let field = Field::start(sandbox).await?;
    let linux = field.linux().await;
    promises(findings, &linux);
    let mut kinds = vec![Kind::Virtual];
    if linux.is_ok() {
        kinds.push(Kind::Linux);
    }
    if containers(findings, field.container().await) {
        kinds.push(Kind::Container);
    }
    for kind in kinds {
        let name = match kind {
            Kind::Linux => "self-test linux",
            Kind::Container => "self-test container",
            Kind::Virtual => "self-test virtual",
        };
        match field.attack(kind, &GROUPS).await {
            Ok(found) => judge(findings, name, &Sandbox { kind, findings: found, left_out: Vec::new() }),
            Err(error) => findings.failed(name, error.to_string(), ADVICE),
        }
    }
    field.stop().await;
    Ok(())
}

const ADVICE: &str = "do not run agents here before this is understood: bailiwick sandbox attack";

fn judge(findings: &mut Findings, name: &'static str, sandbox: &Sandbox) {
    let held = sandbox.count(Verdict::Held);
    let through: Vec<&str> =
        sandbox.findings.iter().filter(|one| one.verdict == Verdict::Escaped).map(|one| one.name.as_str()).collect();
    match (through.is_empty(), held) {
        (true, 0) => findings.failed(name, "no control held: the test proves nothing", ADVICE),
        (true, _) => findings.good(name, format!("{held} attacks from inside were refused")),
        (false, _) => findings.failed(name, format!("got through: {}", through.join(", ")), ADVICE),
    }
}

/// What the linux sandbox can enforce here.
fn promises(findings: &mut Findings, linux: &Result<Promises, String>) {
    let promises = match linux {
        Ok(promises) => promises,
        Err(reason) => {
            return findings.warning(
                "sandbox linux",
                format!("not available: {reason}; agents get the virtual shell"),
                "install bubblewrap, or allow user namespaces",
            );
        }
    };
    findings.good("sandbox linux", crate::serve::sandbox_line(linux));
    let limits = [("memory", promises.memory), ("processes", promises.pids), ("cpu", promises.cpu)];
    let words: Vec<String> = limits.iter().map(|(name, by)| format!("{name} by {}", enforced_by(*by))).collect();
    let weak = limits.iter().any(|(_, by)| matches!(by, Enforcement::RlimitPerProcess | Enforcement::Nothing));
    if weak {
        let advice = "give the server a delegated control group (Delegate=yes in systemd)";
        findings.warning("sandbox limits", words.join(", "), advice);
    } else {
        findings.good("sandbox limits", words.join(", "));
    }
    if promises.users == UserSeparation::ServersUser {
        let advice = "run the server as root for a user per account, if its host is its own";
        findings.warning("sandbox users", "sandboxes are the server's user in a namespace", advice);
    }
}

/// What the operator's container engine can enforce; whether it is worth a self-test.
fn containers(findings: &mut Findings, found: Result<(Promises, String), SandboxError>) -> bool {
    const NAME: &str = "sandbox container";
    match found {
        Ok((promises, engine)) => {
            let limits = [("memory", promises.memory), ("processes", promises.pids), ("cpu", promises.cpu)];
            let words: Vec<String> =
                limits.iter().map(|(name, by)| format!("{name} by {}", enforced_by(*by))).collect();
            let out = match promises.way_out {
                WayOut::Gate => "no way out but the gate",
                WayOut::Nothing => "no way out at all",
            };
            let landlock = promises.landlock_abi;
            let not_compared: Vec<String> = not_compared(promises.launcher).map(|(fact, _)| fact.to_string()).collect();
            let not_compared = not_compared.join(", ");
            let found = format!(
                "{engine}; Landlock {landlock}, {out}; {}; not in the receipt: {not_compared}",
                words.join(", ")
            );
            findings.good(NAME, found);
            true
        }
        // Nobody has asked for one.
        Err(SandboxError::NoBackend(_)) => false,
        Err(error) => {
            let reason = match error {
                SandboxError::ContainersUnavailable(reason) => reason,
                other => other.to_string(),
            };
            findings.failed(NAME, reason, "agents that ask for a container are refused until this works");
            false
        }
    }
}

fn enforced_by(by: Enforcement) -> &'static str {
    match by {
        Enforcement::CgroupV2 => "cgroup v2",
        Enforcement::CgroupV1 => "cgroup v1",
        Enforcement::RlimitPerUser => "a limit per user",
        Enforcement::RlimitPerProcess => "a limit per process",
        Enforcement::Mount => "a mount",
        Enforcement::Nothing => "nothing",
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use bailiwick_sandbox::attack::Finding;

    use super::super::Health;
    use super::*;

    #[test]
    fn u07_a_test_that_shows_nothing_or_found_a_way_out_is_no_good() {
        let health = |verdicts: &[Verdict]| {
            let one = |verdict: &Verdict| Finding {
                group: Group::Host,
                name: "the host's ports".to_owned(),
                verdict: *verdict,
                inside: String::new(),
                control: String::new(),
                everywhere: true,
            };
            let mut findings = Findings::default();
            let sandbox =
                Sandbox { kind: Kind::Linux, findings: verdicts.iter().map(one).collect(), left_out: Vec::new() };
            judge(&mut findings, "self-test linux", &sandbox);
            findings.0[0].health
        };
        assert_eq!(health(&[Verdict::Held, Verdict::Unproven]), Health::Good);
        assert_eq!(health(&[Verdict::Held, Verdict::Escaped]), Health::Failed);
        assert_eq!(health(&[Verdict::Unproven]), Health::Failed);
        assert_eq!(health(&[]), Health::Failed);
    }
}
