//! G01: a container's only way out is the gate, by sockets in its own network namespace.

use bailiwick_sandbox::linux::{Network, WayOut};

use super::engine::{Engine, IMAGE, start};
use crate::linux::gate::{World, rules};
use crate::linux::harness::sh;

#[tokio::test]
async fn g01_a_container_reaches_what_the_rules_allow_and_nothing_else() {
    let (engine, world) = (Engine::start(), World::new().await);
    let containers = engine.containers_of(IMAGE).await;
    assert_eq!(containers.promises().way_out, WayOut::Gate);
    let mut spec = engine.spec();
    let door = world.door(1, &rules());
    spec.network = Network::Gate(door.trust().cloned());
    let container = start(&containers, &spec).await;
    door.attach(container.listening().expect("sockets").into_listeners().unwrap());
    assert_eq!((container.receipt().way_out, container.receipt().network_devices.len()), (WayOut::Gate, 1));
    let plain = format!("http://plain.test:{}/a", world.http());
    let api = format!("https://api.test:{}/v1/a", world.tls());
    let ran = sh(&container, &format!("curl -sS {plain}; curl -sS {api}")).await;
    let said = format!("{}{}", ran.stdout.text, ran.stderr.text);
    // The second with a secret that the container does not get to see, even where it comes back.
    assert!(said.contains("GET /a") && said.contains("GET /v1/a") && said.contains("Bearer ****"), "{said}");
    // Programs that know of no proxy come to the same gate: names that are not allowed do not exist, addresses are
    // refused.
    let bare = "env -u http_proxy -u https_proxy -u HTTP_PROXY -u HTTPS_PROXY -u ALL_PROXY -u all_proxy";
    let script = format!(
        "curl -sS http://evil.test/; {bare} curl -sS -m 5 http://evil.test/; \
         {bare} curl -sS -m 5 http://169.254.169.254/; {bare} curl -sS -m 5 http://1.1.1.1:8080/"
    );
    let ran = sh(&container, &script).await;
    let said = format!("{}{}", ran.stdout.text, ran.stderr.text);
    for word in ["host_not_allowed", "Could not resolve host: evil.test", "address_not_public", "Connection refused"] {
        assert!(
            said.contains(word) || said.contains("Couldn't connect") && word.ends_with("refused"),
            "{word}: {said}"
        );
    }
    assert_eq!(world.outcomes(1, 3).await[..3], ["allowed", "allowed", "host_not_allowed"]);
    // The certificate of the sandbox's own authority is where programs look for it.
    let ran = sh(&container, "grep -c BEGIN /etc/ssl/certs/ca-certificates.crt; echo $SSL_CERT_FILE").await;
    let trusted = ran.stdout.text.lines().next().and_then(|count| count.parse::<u32>().ok());
    assert!(trusted.is_some_and(|count| count >= 1) && ran.stdout.text.ends_with(".crt\n"), "{ran:?}");
    // Another container has another namespace, and no way out of its own accord.
    let other = start(&containers, &engine.spec()).await;
    let ran = sh(&other, &format!("curl -sS -m 5 {plain}; curl -sS -m 5 http://127.0.0.1:3128/")).await;
    assert!(!ran.stdout.text.contains("GET") && ran.stderr.text.contains("connect"), "{ran:?}");
}
