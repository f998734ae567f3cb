//! `web_fetch`, through the whole server: by the gate, under the agent's rules, with its secrets, on its record.

use bailiwick_testkit::far_side::FarSide;

use crate::support::{Home, eventually};

const TOKEN: &str = "tok-71c2/0aa4+b9d3-f1";

#[tokio::test(flavor = "multi_thread")]
async fn g08_documents_are_fetched_under_the_agents_rules_and_each_hop_is_judged() {
    let far = FarSide::start(&["api.test", "plain.test", "other.test"]).await;
    tokio::task::spawn_blocking(move || {
        let home = Home::new();
        home.write("far.pem", &far.root_pem, 0o644);
        let (tls, http) = (far.tls, far.http);
        let hosts = r#"{ "api.test" = "127.0.0.1", "plain.test" = "127.0.0.1", "other.test" = "127.0.0.1", "inward.test" = "127.0.0.2" }"#;
        let more = format!(
            "[gate]\nca_file = \"far.pem\"\nhosts = {hosts}\n[egress.allow]\n\"*:{tls}\" = []\n\"*:{http}\" = []\n\
             [egress.subnets]\nallow = [\"127.0.0.1/32\"]\n"
        );
        let script = "turns:\n  - default: true\n    repeat: last\n    steps:\n      - tools: [{ name: web_fetch, input: \
                      { url: \"{{user}}\" } }]\n      - text: \"{{last_tool_result}}\"\n";
        let server = home.serve_with(script, &more);
        let (alice, bob) = (server.account(&home, "acme", "alice"), server.account(&home, "globex", "bob"));
        let agent = format!(
            "---\ntools: [web_fetch]\nsandbox: {{ backend: virtual }}\negress:\n  allow:\n    \"api.test:{tls}\":\n      \
             - match: {{ path: {{ startsWith: /v1/ }} }}\n        \
             transform: [{{ headers: {{ authorization: \"Bearer secret:api_token\" }} }}]\n    \
             \"plain.test:{tls}\": []\n    \"plain.test:{http}\": []\n    \"inward.test:{http}\": []\n  \
             subnets: {{ allow: [\"127.0.0.1/32\"] }}\n---\nRead.\n"
        );
        home.write("reader/AGENT.md", &agent, 0o644);
        home.write("shut/AGENT.md", "---\ntools: [web_fetch]\n---\nRead.\n", 0o644);
        for key in [&alice, &bob] {
            server.client(&home, key, &["agent", "put", "reader/AGENT.md"]).good();
            server.client(&home, key, &["agent", "put", "shut/AGENT.md"]).good();
        }
        server.talk(&home, &alice, &["secret", "set", "api_token"], TOKEN).good();
        let grant = ["secret", "grant", "api_token", "--agent", "reader", "--host", "api.test"];
        server.client(&home, &alice, &grant).good();
        let ask = |key: &str, agent: &str, url: &str| {
            server.talk(&home, key, &["chat", "--agent", agent], &format!("{url}\n")).good()
        };

        let page = ask(&alice, "reader", &format!("https://plain.test:{tls}/page"));
        assert!(page.contains("# The far side") && page.contains("[on](https://plain.test:"), "{page}");
        assert!(!page.contains("no()"), "{page}");
        let plain = ask(&alice, "reader", &format!("http://plain.test:{http}/onwards?/page"));
        assert!(plain.contains("# The far side"), "a redirect that may be followed: {plain}");
        // The secret goes out and does not come back; the neighbour's agent of the same words has none.
        let called = ask(&alice, "reader", &format!("https://api.test:{tls}/v1/x"));
        assert!(called.contains("GET /v1/x") && called.contains("Bearer ****") && !called.contains(TOKEN), "{called}");
        let neighbour = ask(&bob, "reader", &format!("https://api.test:{tls}/v1/x"));
        assert!(neighbour.contains("no_secret"), "{neighbour}");

        // Hops and hosts that no rule names, and an address inside behind a name that one does.
        for (url, code) in [
            (format!("https://other.test:{tls}/page"), "host_not_allowed"),
            (format!("http://plain.test:{http}/onwards?http://other.test:{http}/page"), "host_not_allowed"),
            (format!("http://plain.test:{http}/onwards?http://127.0.0.3:{http}/page"), "address_not_"),
            (format!("http://plain.test:{http}/onwards?http://169.254.169.254/latest"), "address_not_p"),
            (format!("http://inward.test:{http}/page"), "address_not_public"),
            (format!("https://api.test:{tls}/v2"), "no_rule"),
        ] {
            let said = ask(&alice, "reader", &url);
            assert!(said.contains(code) && !said.contains("The far side"), "{url}: {said}");
        }
        let round = ask(&alice, "reader", &format!("http://plain.test:{http}/onwards?/onwards?/onwards"));
        assert!(round.contains("more than 5 redirects") || round.contains("302"), "{round}");
        let shut = ask(&alice, "shut", &format!("https://plain.test:{tls}/page"));
        assert!(shut.contains("let nothing out") && !shut.contains("The far side"), "{shut}");
        for wrong in ["file:///etc/passwd", "https://user:pass@plain.test/"] {
            let said = ask(&alice, "reader", wrong);
            assert!(said.contains("only addresses with") || said.contains("must not hold a user"), "{said}");
        }

        let listed = |action: &str| {
            server.client(&home, &alice, &["audit", "list", "--action", action, "--limit", "100", "--json"]).json()
        };
        eventually("the lines of what was fetched and refused", || {
            let lines = listed("sandbox.connect").to_string();
            ["allowed", "host_not_allowed", "no_rule", "address_not_public"].iter().all(|code| lines.contains(code)).then_some(())
        });
        assert!(listed("secret.release").to_string().contains("OK"));
        assert!(!listed("tool.call").to_string().contains("far side"), "content is on no record");
        server.client(&home, &alice, &["audit", "verify"]).good();
    })
    .await
    .unwrap();
}
