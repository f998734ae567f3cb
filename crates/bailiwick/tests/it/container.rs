//! Agents that ask for a container, through the whole server, by a Podman service of the test's own.

use bailiwick_testkit::podman::{BARE, Podman};

use crate::support::{Home, eventually};
use crate::walls::{INSIDE, agent, outcome, server};

fn configured(podman: &Podman) -> String {
    let socket = podman.socket();
    format!("[sandbox.container]\nsocket = \"{}\"\nimage = \"{BARE}\"\nruntime = \"runc\"\n", socket.display())
}

#[test]
fn b08_without_an_engine_an_agent_that_asks_for_a_container_is_refused() {
    let home = Home::new();
    let (server, alice) = server(&home, "");
    agent(&server, &home, &alice, "contained", "sandbox: { backend: container }\n");
    let said = server.talk(&home, &alice, &["chat", "--agent", "contained"], "where\n").good();
    assert!(said.contains("this server has no container sandbox") && !said.contains("I am on "), "{said}");
    drop(server);
    // An engine that is configured and not there is no reason to take another sandbox either.
    let home = Home::new();
    let nobody = "[sandbox.container]\nsocket = \"/run/nobody.sock\"\nimage = \"localhost/image\"\n";
    let (server, alice) = self::server(&home, nobody);
    agent(&server, &home, &alice, "contained", "sandbox: { backend: container }\n");
    let said = server.talk(&home, &alice, &["chat", "--agent", "contained"], "where\n").good();
    assert!(said.contains("the container sandbox is not available") && !said.contains("I am on "), "{said}");
}

#[test]
fn b02_b07_b09_agents_that_ask_for_a_container_run_in_one_of_their_account_and_no_other_agent_does() {
    let (home, podman) = (Home::new(), Podman::start());
    let (server, alice) = server(&home, &configured(&podman));
    let carol = server.account(&home, "other", "carol");
    for key in [&alice, &carol] {
        agent(&server, &home, key, "contained", "sandbox: { backend: container, scope: shared }\n");
    }
    agent(&server, &home, &alice, "plain", "");
    let chat = ["chat", "--agent", "contained"];
    let said = server.talk(&home, &alice, &chat, "where\n").good();
    assert!(said.contains(INSIDE), "{said}");
    let event = outcome(&server, &home, &alice);
    let receipt = &event["detail"]["sandbox"];
    assert_eq!((&receipt["backend"], &receipt["seccomp"]["mode"]), (&"container".into(), &2.into()), "{event}");
    assert_eq!((&receipt["capabilities"], &receipt["no_new_privs"]), (&0.into(), &1.into()), "{event}");
    assert!(receipt["image"].is_string() && receipt["not_compared"].is_array(), "{event}");
    let text = receipt.to_string();
    for hidden in [home.path(".").canonicalize().unwrap().to_str().unwrap(), "acme", "alice", BARE] {
        assert!(!text.contains(hidden), "{hidden}: {text}");
    }
    // What one account leaves in a shared container is not another's.
    server.talk(&home, &alice, &chat, "leave\n").good();
    let looked = server.talk(&home, &alice, &chat, "look\n").good();
    assert!(looked.contains("left"), "the control: {looked}");
    let looked = server.talk(&home, &carol, &chat, "look\n").good();
    assert!(!looked.contains("left\\n"), "{looked}");
    assert_eq!(podman.containers().len(), 2, "one for each account");
    // Nobody who did not ask for one has one.
    server.talk(&home, &alice, &["chat", "--agent", "plain"], "where\n").good();
    assert_ne!(outcome(&server, &home, &alice)["detail"]["sandbox"]["backend"], "container");
    // With the server, however it ends, its containers end.
    server.end("-KILL");
    eventually("the containers go", || podman.containers().is_empty().then_some(()));
}

#[test]
fn u07_doctor_tries_a_container_where_an_engine_is_configured() {
    let (home, podman) = (Home::new(), Podman::start());
    home.run(&["init", "site"]).good();
    let written = std::fs::read_to_string(home.path("site/bailiwick.toml")).unwrap();
    home.write("site/bailiwick.toml", &format!("{written}\n{}", configured(&podman)), 0o600);
    let rows = |home: &Home| home.command(&["doctor", "-c", "site/bailiwick.toml", "--json"]).output().unwrap().stdout;
    let rows = |home: &Home| serde_json::from_slice::<Vec<serde_json::Value>>(&rows(home)).unwrap();
    let row = |rows: &[serde_json::Value], name: &str| {
        rows.iter().find(|row| row["check"] == name).unwrap_or_else(|| panic!("no {name} in {rows:?}")).clone()
    };
    let told = rows(&home);
    for name in ["sandbox container", "self-test container"] {
        assert_eq!(row(&told, name)["result"], "ok", "{told:?}");
    }
    assert!(row(&told, "sandbox container").to_string().contains("podman 4"), "{told:?}");
    podman.podman(&["rmi", "--force", BARE]);
    let told = rows(&home);
    let failed = row(&told, "sandbox container");
    assert!(failed["result"] == "failed" && failed.to_string().contains("has no image"), "{failed}");
    assert!(!told.iter().any(|row| row["check"] == "self-test container"), "{told:?}");
}

#[test]
fn b08_a_container_engine_that_is_half_configured_is_a_mistake_before_the_start() {
    let home = Home::new();
    let text =
        "[server]\nroot_api_key_file = \"root.key\"\n[sandbox.container]\nsocket = \"podman.sock\"\nruntime = \"\"\n";
    home.write("bailiwick.toml", text, 0o600);
    home.run(&["serve", "-c", "bailiwick.toml"]).failed(
        64,
        &[
            "sandbox.container.socket: must be an absolute path",
            "sandbox.container.image: must name",
            "runtime: must be a name",
        ],
    );
}
