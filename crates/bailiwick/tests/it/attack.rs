//! `bailiwick sandbox attack` on this machine, whole and with walls left out.

use serde_json::Value;

use crate::support::Home;

fn found<'a>(report: &'a Value, name: &str) -> &'a Value {
    let backends = report["backends"].as_array().unwrap();
    let attacks = backends.iter().flat_map(|one| one["attacks"].as_array().unwrap());
    attacks.into_iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("{name} was not tried"))
}

#[test]
fn b04_b05_g01_the_attacks_of_the_command_line_are_refused_on_this_machine() {
    let home = Home::new();
    let report = home.run(&["sandbox", "attack", "--json"]).json();
    assert_eq!(report["ok"], true, "{report:#}");
    for (backend, least) in [("linux", 180), ("virtual", 30)] {
        let all = report["backends"].as_array().unwrap().iter().find(|one| one["backend"] == backend).unwrap();
        let all = all["attacks"].as_array().unwrap();
        let held = all.iter().filter(|one| one["verdict"] == "held").count();
        assert!(held >= least, "{backend}: {held} of {}", all.len());
    }
    // One of each kind, as the kernel and the gate said it.
    assert_eq!(found(&report, "io_uring_setup")["inside"], "EPERM");
    assert_eq!(found(&report, "a tunnel to such a host")["inside"], "host_not_allowed");
    assert_eq!(found(&report, "one of IPv4 by NAT64")["group"], "way_out");
    // What is not tried is said.
    let of_virtual = report["backends"].as_array().unwrap().iter().find(|one| one["backend"] == "virtual").unwrap();
    let left_out: Vec<_> = of_virtual["left_out"].as_array().unwrap().iter().map(|one| &one["group"]).collect();
    assert_eq!(left_out, ["calls", "files", "namespaces", "way_out"]);
}

#[cfg(debug_assertions)]
#[test]
fn b04_b09_the_command_is_red_where_a_wall_is_missing() {
    let home = Home::new();
    for (wall, name) in [("Filters", "unshare_user"), ("Landlock", "read:/run/bailiwick/closed")] {
        let done = home.run(&["sandbox", "attack", "--backend", "linux", "--json", "--without", wall]);
        assert_eq!(done.code, 1, "{wall}");
        let report: Value = serde_json::from_str(&done.stdout).unwrap();
        assert_eq!(report["ok"], false, "{wall}");
        assert_eq!(found(&report, name)["verdict"], "escaped", "{wall}");
    }
    home.run(&["sandbox", "attack", "--without", "Roof"]).failed(1, &["there is no wall Roof"]);
}
