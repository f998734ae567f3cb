//! The newcomer's first command, and the check of a host.

use crate::support::Home;

#[test]
fn the_demo_holds_and_shows_every_stage() {
    let home = Home::new();
    let said = home.run(&["demo"]).good();
    for stage in [
        "Two tenants",
        "A space and an agent",
        "A session",
        "A way out",
        "A rule that cannot be kept",
        "The other tenant",
        "The timeline",
        "The record",
        "checks held",
    ] {
        assert!(said.contains(stage), "{stage} is not in: {said}");
    }
    assert!(said.lines().all(|line| line.chars().count() <= 80), "{said}");
    assert!(!said.contains('\u{1b}'), "no colours where nobody sees them");
}

#[test]
fn the_demo_as_json_names_each_check_and_keeps_its_data_on_demand() {
    let home = Home::new();
    let mut command = home.command(&["demo", "--json", "--keep"]);
    let done: crate::support::Done = command.env("TMPDIR", home.path("")).output().unwrap().into();
    let said = done.json();
    assert_eq!(said["ok"], true, "{said}");
    let checks = said["checks"].as_array().unwrap();
    assert!(checks.len() >= 20 && checks.iter().all(|check| check["ok"] == true), "{said}");
    let whats: Vec<&str> = checks.iter().filter_map(|check| check["what"].as_str()).collect();
    assert!(whats.contains(&"a second decision is refused"), "{whats:?}");
    assert!(std::path::Path::new(said["data"].as_str().unwrap()).is_dir());
}

#[test]
fn u07_doctor_tells_failures_from_warnings() {
    let home = Home::new();
    home.run(&["init", "site"]).good();
    let rows = home.run(&["doctor", "-c", "site/bailiwick.toml", "--json"]).json();
    let result = |name: &str| {
        let rows = rows.as_array().unwrap();
        rows.iter().find(|row| row["check"] == name).unwrap_or_else(|| panic!("no {name} in {rows:?}"))["result"]
            .clone()
    };
    assert_eq!(result("callers"), "warning", "the placeholder");
    assert_eq!(result("models"), "warning");
    for good in ["kernel", "clock", "root key", "address", "self-test virtual"] {
        assert_eq!(result(good), "ok", "{good}: {rows}");
    }
    // As the server itself makes it, the data directory is right, and open to others it is not.
    let data = home.path("site/data");
    std::fs::create_dir(&data).unwrap();
    for (mode, good) in [(0o700, true), (0o711, true), (0o755, false), (0o722, false)] {
        std::fs::set_permissions(&data, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
        let told = home.run(&["doctor", "-c", "site/bailiwick.toml"]);
        if good {
            assert!(!told.good().contains("open to other users"), "{mode:o}");
        } else {
            told.failed(1, &["failed", "is open to other users"]);
        }
    }
    home.write("site/root.key", "short", 0o644);
    home.run(&["doctor", "-c", "site/bailiwick.toml"]).failed(1, &["failed", "can be read by others"]);
}
