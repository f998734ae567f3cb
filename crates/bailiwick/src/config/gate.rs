//! What the operator says of the way out of sandboxes.

use std::path::Path;

use bailiwick_sandbox::gate::{GateSettings, Limits};
use bailiwick_types::Egress;
use bailiwick_types::egress::RuleAct;
use bailiwick_types::host::HostName;

use super::check::resolve;
use super::layers::Layers;
use super::raw::{Addresses, Gate};

/// Largest file of authorities, bytes: it goes to the gate in one message.
const LARGEST: u64 = 160 * 1024;

pub(super) fn check(layers: &mut Layers, raw: Gate, ceiling: Egress) -> GateSettings {
    if let Egress::List(list) = &ceiling
        && list.allow.values().flatten().any(|rule| rule.act != RuleAct::Pass)
    {
        let text = "this is what agents may reach at most: `transform` and `forwardURL` are for an agent's own rules";
        layers.wrong("egress.allow", text);
    }
    for (name, figure) in [
        ("connections", u64::from(raw.connections)),
        ("requests_per_minute", u64::from(raw.requests_per_minute)),
        ("traffic_mib", raw.traffic_mib),
    ] {
        let least = if name == "connections" { 8 } else { 1 };
        if figure < least {
            layers.wrong(&format!("gate.{name}"), format!("must be at least {least}"));
        }
    }
    let mut hosts = std::collections::BTreeMap::new();
    for (name, addresses) in raw.hosts {
        let addresses = match addresses {
            Addresses::One(address) => vec![address],
            Addresses::Several(addresses) => addresses,
        };
        match HostName::parse(&name) {
            Ok(host) => {
                hosts.insert(host, addresses);
            }
            Err(error) => layers.wrong("gate.hosts", format!("{name}: {error}")),
        }
    }
    let authorities = raw.ca_file.as_ref().map(|path| resolve(layers, "gate.ca_file", path));
    GateSettings {
        ceiling,
        hosts,
        authorities: authorities.map(|path| read(layers, "gate.ca_file", &path)).unwrap_or_default(),
        limits: Limits {
            connections: raw.connections,
            requests_per_minute: raw.requests_per_minute,
            bytes: raw.traffic_mib.saturating_mul(1 << 20),
        },
    }
}

/// Reads a file of authorities; `key` is the setting that names it.
pub(super) fn read(layers: &mut Layers, key: &str, path: &Path) -> String {
    let size = std::fs::metadata(path).map(|about| about.len());
    match size.and_then(|size| Ok((size, std::fs::read_to_string(path)?))) {
        Ok((size, _)) if size > LARGEST => {
            layers.wrong(key, format!("{}: has more than {LARGEST} bytes", path.display()));
            String::new()
        }
        Ok((_, text)) if !text.contains("-----BEGIN CERTIFICATE-----") => {
            layers.wrong(key, format!("{}: holds no certificate (PEM)", path.display()));
            String::new()
        }
        Ok((_, text)) => text,
        Err(error) => {
            layers.wrong(key, format!("{}: {error}", path.display()));
            String::new()
        }
    }
}
