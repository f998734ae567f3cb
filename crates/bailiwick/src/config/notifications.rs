//! What the operator says of calls to services of notifications. No account has a part in it.

use std::net::{IpAddr, SocketAddr};

use bailiwick_outbound::HookSettings;

use super::check::resolve;
use super::gate;
use super::layers::Layers;
use super::raw::Notifications;

/// The services that are ever called.
const SERVICES: [&str; 4] = ["hooks.slack.com", "discord.com", "discordapp.com", "api.telegram.org"];

pub(super) fn check(layers: &mut Layers, raw: Notifications) -> HookSettings {
    let mut settings = HookSettings::default();
    for (name, at) in raw.hosts {
        // 0: the port that https has anyway.
        let at = at.parse::<SocketAddr>().or_else(|_| at.parse::<IpAddr>().map(|address| (address, 0).into()));
        match at {
            _ if !SERVICES.contains(&name.as_str()) => {
                let text = format!("{name}: is none of {}", SERVICES.join(", "));
                layers.wrong("notifications.hosts", text);
            }
            Ok(at) => drop(settings.hosts.insert(name, at)),
            Err(_) => {
                let text = format!("{name}: write an address, with or without a port: \"10.1.0.7\", \"10.1.0.7:8443\"");
                layers.wrong("notifications.hosts", text);
            }
        }
    }
    if let Some(path) = &raw.ca_file {
        let path = resolve(layers, "notifications.ca_file", path);
        settings.authorities = gate::read(layers, "notifications.ca_file", &path);
    }
    settings
}
