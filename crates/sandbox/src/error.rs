//! Why a sandbox was not entered, or a command not run.

use bailiwick_egress::fetch::FetchError;
use bailiwick_shell::ShellError;

use crate::gate::GateFailure;
use crate::host::HostError;
use crate::linux::{ExecError, ReceiptError, StartError};

/// No backend fits the demand, or the fitting one failed.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A kind that this server does not have.
    #[error("this server has no {0} sandbox: choose another backend in the agent's definition")]
    NoBackend(&'static str),
    /// The kind that was asked for does not work on this host.
    #[error("the linux sandbox is not available on this host; the operator finds out why with `bailiwick doctor`")]
    LinuxUnavailable(String),
    /// The operator's container engine does not work.
    #[error("the container sandbox is not available on this host; the operator finds out why with `bailiwick doctor`")]
    ContainersUnavailable(String),
    /// Rules for a way out, and a kind that has none.
    #[error("the {0} sandbox has no way out here: set the agent's egress to deny-all, or let its backend be linux")]
    NoWayOut(&'static str),
    /// There is no gate, or none for this sandbox.
    #[error("the sandbox has no way out at the moment: {0}")]
    Gate(#[source] GateFailure),
    /// A document was not fetched.
    #[error("{0}")]
    Fetch(#[source] FetchError),
    /// A certificate of the gate's, or of the operator's, cannot be read.
    #[error("the gate's certificates cannot be read")]
    Believed,
    /// A limit that the backend cannot enforce.
    #[error("the {backend} sandbox cannot enforce a limit on {limit} on this host")]
    Limit {
        /// The backend.
        backend: &'static str,
        /// The limit.
        limit: &'static str,
    },
    /// The definition wants the host, and the operator does not.
    #[error("tools may not run on the host: the operator has not set sandbox.allow_host")]
    HostRefused,
    /// The sandbox did not start.
    #[error("the sandbox did not start")]
    Start(#[source] StartError),
    /// The command could not be run.
    #[error("the command could not be run: {0}")]
    Exec(#[source] ExecError),
    /// The command could not be run.
    #[error("the command could not be run: {0}")]
    Shell(#[source] ShellError),
    /// The command could not be run.
    #[error("the command could not be run: {0}")]
    Host(#[source] HostError),
}

impl SandboxError {
    /// A stable word for the record.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoBackend(_) => "no_backend",
            Self::LinuxUnavailable(_) => "linux_unavailable",
            Self::ContainersUnavailable(_) => "containers_unavailable",
            Self::NoWayOut(_) => "egress_not_enforced",
            Self::Gate(_) | Self::Believed => "gate_failed",
            Self::Fetch(FetchError::Refused(_)) => "fetch_refused",
            Self::Fetch(_) => "fetch_failed",
            Self::Limit { .. } => "limit_not_enforced",
            Self::HostRefused => "host_refused",
            Self::Start(StartError::Receipt(_))
            | Self::Exec(ExecError::Receipt(_))
            | Self::Shell(ShellError::Receipt { .. }) => "receipt_differs",
            Self::Start(_) => "start_failed",
            Self::Exec(_) | Self::Shell(_) | Self::Host(_) => "exec_failed",
        }
    }

    /// The walls that the kernel shows otherwise than declared, for the record; empty for other errors.
    pub fn differs(&self) -> Vec<String> {
        match self {
            Self::Start(StartError::Receipt(error)) | Self::Exec(ExecError::Receipt(error)) => match error {
                ReceiptError::Differs(facts) => facts.iter().map(ToString::to_string).collect(),
                ReceiptError::Changed | ReceiptError::Unreadable(_) => vec![error.to_string()],
            },
            Self::Shell(ShellError::Receipt { differs }) => differs.iter().map(ToString::to_string).collect(),
            _ => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::linux::Fact;

    #[test]
    fn b09_a_receipt_that_differs_has_its_own_code_and_names_the_walls() {
        let differs = || ReceiptError::Differs(vec![Fact::Filters, Fact::Namespace("net")]);
        for error in [SandboxError::Start(differs().into()), SandboxError::Exec(differs().into())] {
            assert_eq!(error.code(), "receipt_differs");
            assert_eq!(error.differs(), ["system call filters", "net namespace"]);
        }
        let shell = SandboxError::Shell(ShellError::Receipt { differs: vec![bailiwick_shell::Fact::Landlock] });
        assert_eq!((shell.code(), shell.differs()), ("receipt_differs", vec!["Landlock".to_owned()]));
        assert_eq!(
            (SandboxError::NoWayOut("virtual").differs(), SandboxError::HostRefused.differs()),
            (vec![], vec![])
        );
    }
}
