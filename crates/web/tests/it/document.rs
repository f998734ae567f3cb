//! The list of routes in `docs/api.md` is the table that is served.

use std::fmt::Write as _;

use bailiwick_web::route::{Access, programs, table};

const BEGIN: &str = "<!-- routes: made by a test -->\n";
const END: &str = "<!-- end of routes -->\n";

fn rows() -> String {
    let mut text = String::from("| route | does | needs |\n|---|---|---|\n");
    for route in programs() {
        let needs = match route.access {
            Access::Public => "nothing".to_owned(),
            Access::Greeting => "nothing; a credential is told more".to_owned(),
            Access::Known if route.verbs.is_empty() => "a credential".to_owned(),
            Access::Known => verbs(route),
            Access::Socket => format!("who says in the first frame who they are; by frame: {}", verbs(route)),
        };
        let _ = writeln!(text, "| `{} {}` | {} | {needs} |", route.method, route.path, route.summary);
    }
    text
}

fn verbs(route: &bailiwick_web::route::Route) -> String {
    route.verbs.iter().map(|verb| format!("`{verb}`")).collect::<Vec<_>>().join(", ")
}

#[test]
fn the_document_lists_the_routes_that_are_served() {
    let path = std::path::PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("../../docs/api.md");
    let document = std::fs::read_to_string(&path).unwrap();
    let (before, rest) = document.split_once(BEGIN).unwrap();
    let (listed, after) = rest.split_once(END).unwrap();
    let rows = rows();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(path, format!("{before}{BEGIN}{rows}{END}{after}")).unwrap();
        return;
    }
    assert!(listed == rows, "docs/api.md does not list the routes that are served: run with UPDATE_EXPECT=1");
}

#[test]
fn u04_no_route_runs_a_command() {
    // A command runs as a tool call of a turn, through the gate; no route may ask for that right itself.
    let asking = |verb: &str| table().filter(|route| route.verbs.contains(&verb)).count();
    assert_eq!(asking("tool.call"), 0);
    assert_eq!(asking("sandbox.start"), 0);
    assert!(asking("session.send") > 0, "positive control");
    for word in ["exec", "shell", "terminal", "console"] {
        assert!(!table().any(|route| route.path.contains(word)), "{word}");
    }
}
