//! What the server and the gate say to each other, in the packets of the launcher's protocol.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use bailiwick_egress::{Limits, Line, Placeholders, Trust};
use bailiwick_types::host::HostName;
use bailiwick_types::{Egress, SecretName};
use serde::{Deserialize, Serialize};

/// What the server says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToGate {
    /// First message. The raw bytes are certificates of authorities (PEM).
    Configure {
        /// Names that lead where the operator says.
        hosts: BTreeMap<HostName, Vec<IpAddr>>,
    },
    /// Make ready for a sandbox.
    Open {
        /// Its number.
        sandbox: u64,
        /// A number for its account, which means nothing anywhere else.
        tenant: u64,
        /// Its own rules, and the operator's.
        rules: Box<(Egress, Egress)>,
        /// What it may use.
        limits: Limits,
        /// The words in its environment that stand for secrets.
        placeholders: Placeholders,
    },
    /// Begin. Descriptors: its sockets.
    Attach {
        /// Its number.
        sandbox: u64,
    },
    /// A connection to the proxy, from the server itself. Descriptor: its end of it.
    Admit {
        /// The sandbox's number.
        sandbox: u64,
    },
    /// Tell what there is of it by now.
    Tell {
        /// Its number.
        sandbox: u64,
    },
    /// Calls began or ended in it: leases for calls of another number are over.
    Calls {
        /// Its number.
        sandbox: u64,
        /// The number of the calls; it grows.
        number: u64,
    },
    /// It is gone.
    Close {
        /// Its number.
        sandbox: u64,
    },
    /// A secret. The raw bytes are its value.
    Answer {
        /// The number from `FromGate::Ask`.
        ask: u64,
        /// How long it may be used; nothing: it may not.
        lasts: Option<Duration>,
        /// The number of the calls during which it may be used, if it is for calls.
        call: Option<u64>,
    },
}

/// What the gate says.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromGate {
    /// First message: everything is in force, or why not.
    Ready {
        /// Why not.
        failed: Option<String>,
    },
    /// A sandbox may come.
    Opened {
        /// Its number.
        sandbox: u64,
        /// What its programs have to believe in, or why it may not.
        outcome: Result<Option<Trust>, String>,
    },
    /// All is said of a sandbox up to now.
    Told {
        /// Its number.
        sandbox: u64,
    },
    /// All is said of a sandbox.
    Closed {
        /// Its number.
        sandbox: u64,
    },
    /// A request needs a secret.
    Ask {
        /// A number for the answer.
        ask: u64,
        /// The sandbox's number.
        sandbox: u64,
        /// Which secret.
        secret: SecretName,
        /// For which host.
        host: HostName,
    },
    /// What happened: the sandbox's number, the line, how often.
    Lines(Vec<(u64, Line, u32)>),
}
