//! A jail with a way out: real programs inside, the gate's engine and a host outside.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bailiwick_egress::{
    Ask, Door, Entry, Gate, Lease, Limits, Line, Names, Opening, OwnAddresses, Placeholders, Settings,
};
use bailiwick_sandbox::linux::{Jail, Network, WayOut};
use bailiwick_testkit::far_side::{FarSide, Files};
use bailiwick_types::Egress;
use bailiwick_types::host::HostName;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::harness::{CARGO, Host, sh};

const TOKEN: &str = "tok-4f9a/7be2+c1d0";
const HOSTS: [&str; 3] = ["api.test", "plain.test", "other.test"];

pub(crate) struct World {
    gate: Gate,
    far: FarSide,
    lines: Arc<Mutex<Vec<(u64, Line)>>>,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(FarSide::start(&HOSTS).await)
    }

    fn with(far: FarSide) -> Self {
        let (asks, mut asked) = mpsc::channel::<Ask>(16);
        let (journal, mut entries) = mpsc::channel::<Entry>(16);
        let here = |name: &str| (HostName::parse(name).unwrap(), vec![IpAddr::V4(Ipv4Addr::LOCALHOST)]);
        let names = Names::new(BTreeMap::from(HOSTS.map(here)), OwnAddresses::of_host().unwrap());
        let gate = Gate::new(Settings { names, roots: vec![far.root.clone()], asks, journal }).unwrap();
        tokio::spawn(async move {
            while let Some(ask) = asked.recv().await {
                let lease = Lease { value: TOKEN.to_owned().into(), lasts: Duration::from_secs(60), call: None };
                let _ = ask.answer.send((ask.sandbox == 1).then_some(lease));
            }
        });
        let lines = Arc::<Mutex<Vec<(u64, Line)>>>::default();
        let into = Arc::clone(&lines);
        tokio::spawn(async move {
            while let Some(entry) = entries.recv().await {
                into.lock().unwrap().push(entry.taken());
            }
        });
        Self { gate, far, lines }
    }

    fn policy(&self, text: &Value) -> Egress {
        let text = text.to_string().replace("TLS", &self.far.tls.to_string());
        serde_json::from_str(&text.replace("HTTP", &self.far.http.to_string())).unwrap()
    }

    /// A way out with these rules.
    pub(crate) fn door(&self, number: u64, rules: &Value) -> Door {
        let operators = json!({ "allow": ["*", "*:TLS", "*:HTTP"], "subnets": { "allow": ["127.0.0.0/8"] } });
        let (own, ceiling) = (self.policy(rules), self.policy(&operators));
        self.open(number, own, ceiling)
    }

    /// The far side's port for plain requests.
    pub(crate) fn http(&self) -> u16 {
        self.far.http
    }

    /// Its port for TLS.
    pub(crate) fn tls(&self) -> u16 {
        self.far.tls
    }

    /// A jail with these rules; its way out lasts as long as the door.
    async fn jail(&self, host: &Host, number: u64, rules: &Value) -> (Jail, Door) {
        let (jail, _, door) = self.jail_in(host, number, rules).await;
        (jail, door)
    }

    fn open(&self, number: u64, egress: Egress, ceiling: Egress) -> Door {
        let (placeholders, limits) = (Placeholders::random(&egress).unwrap(), Limits::default());
        let opening = Opening { sandbox: number, tenant: number, egress, ceiling, limits, placeholders };
        self.gate.open(opening).unwrap()
    }

    /// The same, and where its workspace is.
    async fn jail_in(&self, host: &Host, number: u64, rules: &Value) -> (Jail, PathBuf, Door) {
        let door = self.door(number, rules);
        let (jail, folder) = Self::enter(host, &door).await;
        (jail, folder, door)
    }

    async fn enter(host: &Host, door: &Door) -> (Jail, PathBuf) {
        let mut space = host.space();
        space.network = Network::Gate(door.trust().cloned());
        let jail = host.jail(&space).await;
        door.attach(jail.listening().expect("sockets").into_listeners().unwrap());
        (jail, space.workspace)
    }

    pub(crate) async fn outcomes(&self, number: u64, count: usize) -> Vec<String> {
        for _ in 0..300 {
            let all: Vec<String> = {
                let lines = self.lines.lock().unwrap();
                lines.iter().filter(|(of, _)| *of == number).map(|(_, line)| line.outcome.clone()).collect()
            };
            if all.len() >= count {
                return all;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("fewer than {count} lines");
    }
}

pub(crate) fn rules() -> Value {
    json!({
        "allow": {
            "api.test": [{ "match": { "path": { "startsWith": "/v1/" } },
                           "transform": [{ "headers": { "authorization": "Bearer secret:token" } }] }],
            "api.test:TLS": [{ "match": { "path": { "startsWith": "/v1/" } },
                               "transform": [{ "headers": { "authorization": "Bearer secret:token" } }] }],
            "plain.test:HTTP": [],
            "plain.test": [],
        },
        "subnets": { "allow": ["127.0.0.1/32"] },
    })
}

#[tokio::test]
async fn g07_curl_reaches_what_the_rules_allow_and_nothing_else() {
    let (host, world) = (Host::new().await, World::new().await);
    let (jail, _door) = world.jail(&host, 1, &rules()).await;
    assert_eq!(jail.receipt().way_out, WayOut::Gate);
    assert_eq!(jail.receipt().network_devices, ["lo"]);
    let api = format!("https://api.test:{}", world.far.tls);
    let ran = sh(&jail, &format!("curl -sS {api}/v1/a")).await;
    let text = ran.stdout.text;
    assert!(text.contains("GET /v1/a") && text.contains("Bearer ****"), "{text} {}", ran.stderr.text);
    assert!(!text.contains(TOKEN));
    let ran =
        sh(&jail, &format!("curl -sS {api}/v2/a; curl -sS https://evil.test/; curl -sS http://169.254.169.254/")).await;
    let text = format!("{}{}", ran.stdout.text, ran.stderr.text);
    assert!(text.contains("no_rule"), "{text}");
    assert!(text.contains("403"), "{text}");
    assert!(text.contains("address_not_public"), "{text}");
    assert_eq!(world.outcomes(1, 4).await, ["allowed", "no_rule", "host_not_allowed", "address_not_public"]);
}

#[tokio::test]
async fn g01_a_program_that_knows_of_no_proxy_comes_to_the_same_gate() {
    let (host, world) = (Host::new().await, World::new().await);
    let (jail, _door) = world.jail(&host, 1, &rules()).await;
    // Port 80 and 443 of the host are nobody's here; what counts is who was asked for, and what was said of it.
    let bare = "env -u http_proxy -u https_proxy -u HTTP_PROXY -u HTTPS_PROXY -u ALL_PROXY -u all_proxy";
    let ran = sh(
        &jail,
        &format!(
            "{bare} curl -sS http://plain.test/; {bare} curl -sS https://api.test/v1/a; \
             {bare} curl -sS -m 5 https://evil.test/; {bare} curl -sS -m 5 http://1.1.1.1/; \
             {bare} curl -sS -m 5 http://169.254.169.254/; {bare} curl -sS -m 5 -k https://1.1.1.1/; \
             {bare} curl -sS -m 5 http://1.1.1.1:8080/; {bare} curl -sS -m 5 'http://[2606:4700::1111]/'"
        ),
    )
    .await;
    let text = format!("{}{}", ran.stdout.text, ran.stderr.text);
    assert!(text.contains("upstream_unreachable"), "{text}");
    assert!(text.contains("Could not resolve host: evil.test"), "{text}");
    assert!(text.contains("address_not_named") && text.contains("address_not_public"), "{text}");
    let all = world.outcomes(1, 6).await;
    assert!(all.iter().filter(|code| *code == "upstream_unreachable").count() >= 2, "{all:?}");
    assert!(all.iter().all(|code| code != "allowed"), "{all:?}");
}

#[tokio::test]
async fn g01_without_rules_nothing_leaves_by_any_way() {
    let (host, world) = (Host::new().await, World::new().await);
    let jail = host.jail(&host.space()).await;
    assert!(jail.listening().is_none());
    assert_eq!(jail.receipt().way_out, WayOut::Nothing);
    let script = format!(
        "env | grep -i proxy; cat /proc/net/tcp | wc -l; \
         for to in 127.0.0.1/3128 127.0.0.1/53 1.1.1.1/443 127.0.0.1/{}; do \
         (exec 3<>/dev/tcp/$to) 2>/dev/null && echo open $to; done; echo done",
        world.far.tls
    );
    assert_eq!(sh(&jail, &format!("bash -c '{script}'")).await.stdout.text, "1\ndone\n");
    // The control: the same question where there is a gate.
    let (jail, _door) = world.jail(&host, 1, &rules()).await;
    let text = sh(&jail, &format!("bash -c '{script}'")).await.stdout.text;
    assert!(text.contains("open 127.0.0.1/3128") && text.contains("https_proxy=http://127.0.0.1:3128"), "{text}");
    assert!(!text.contains(&format!("open 127.0.0.1/{}", world.far.tls)), "{text}");
}

#[tokio::test]
async fn g04_two_jails_have_their_own_ways_and_no_secret_is_inside() {
    let (host, world) = (Host::new().await, World::new().await);
    let (one, _one_door) = world.jail(&host, 1, &rules()).await;
    let (other, _other_door) = world.jail(&host, 2, &rules()).await;
    let api = format!("https://api.test:{}/v1/a", world.far.tls);
    assert!(sh(&one, &format!("curl -sS {api}")).await.stdout.text.contains("Bearer ****"));
    assert!(sh(&other, &format!("curl -sS {api}")).await.stdout.text.contains("no_secret"));
    // Each believes its own authority and not its neighbour's.
    let cert = "openssl x509 -in /etc/ssl/certs/ca-certificates.crt -noout -fingerprint";
    let (mine, theirs) = (sh(&one, cert).await.stdout.text, sh(&other, cert).await.stdout.text);
    assert!(mine.contains("Fingerprint") && mine != theirs, "{mine} {theirs}");
    // Written so that the search does not find itself.
    let token = TOKEN.replacen('a', "[a]", 1);
    let search = format!(
        "cat /proc/[0-9]*/environ /proc/[0-9]*/cmdline /etc/*.conf /etc/ssl/certs/* 2>/dev/null | grep -c '{token}'; \
         grep -rc 'PRIVATE KEY' /etc/ssl/certs | grep -v ':0'; env | grep -c '{token}'"
    );
    assert_eq!(sh(&one, &search).await.stdout.text, "0\n0\n");
}

#[tokio::test]
async fn g01_nothing_inside_can_widen_the_way_out() {
    let (host, world) = (Host::new().await, World::new().await);
    let (jail, door) = world.jail(&host, 1, &rules()).await;
    let ran = sh(&jail, WIDEN).await;
    assert_eq!(ran.stdout.text, "end\n", "{}", ran.stderr.text);
    // A gate that is gone opens nothing.
    drop(door);
    tokio::time::sleep(Duration::from_millis(50)).await;
    let ran = sh(&jail, "curl -sS -m 5 http://plain.test/; curl -sS -m 5 --noproxy '*' http://1.1.1.1/").await;
    assert_eq!(ran.stdout.text, "");
    assert!(ran.stderr.text.contains("3128"), "{}", ran.stderr.text);
}

/// What a program inside could try; it says what it managed.
const WIDEN: &str = r#"
ip link add dummy0 type dummy 2>/dev/null && echo link
ip route add default dev lo 2>/dev/null && echo route
ip route flush table local 2>/dev/null && echo flushed
python3 - <<'END'
import socket
families = [(socket.AF_INET, socket.SOCK_RAW), (socket.AF_PACKET, socket.SOCK_RAW),
            (socket.AF_NETLINK, socket.SOCK_RAW), (40, socket.SOCK_STREAM)]
for family, kind in families:
    try:
        socket.socket(family, kind)
        print("socket", family)
    except OSError:
        pass
for port in (80, 443, 53, 3128):
    for option in (None, socket.SO_REUSEADDR, socket.SO_REUSEPORT):
        bound = socket.socket()
        try:
            if option:
                bound.setsockopt(socket.SOL_SOCKET, option, 1)
            bound.bind(("127.0.0.1", port))
            bound.listen()
            print("bound", port)
        except OSError:
            pass
datagram = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagram.settimeout(1)
datagram.sendto(b"x", ("8.8.8.8", 53))
try:
    datagram.recv(10)
    print("answered")
except OSError:
    pass
print("end")
END
"#;

/// What people build with, as they come from a distribution, against registries and a repository that ask for a
/// credential: none of them is told of the proxy, of its certificates, or of the credential.
#[tokio::test]
async fn g07_git_pip_npm_and_cargo_work_without_a_setting() {
    let folder = tempfile::tempdir().unwrap();
    let authorization = format!("Basic {}", base64_of(&format!("bot:{TOKEN}")));
    let files = Files { folder: folder.path().to_owned(), authorization };
    let (host, world) = (Host::new().await, World::with(FarSide::start_with(&HOSTS, Some(files)).await));
    let at = format!("https://api.test:{}/files/private", world.far.tls);
    let made = std::process::Command::new("bash")
        .args(["-c", MAKE, "make", &at])
        .current_dir(folder.path())
        .env("HOME", folder.path())
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let rule = |user: &str| {
        json!({ "allow": { "api.test:TLS": [{
            "match": { "method": ["GET", "HEAD", "POST"] },
            "transform": [{ "headers": { "authorization": user } }],
        }] }, "subnets": { "allow": ["127.0.0.1/32"] } })
    };
    let (jail, space, _door) = world.jail_in(&host, 1, &rule("Basic bot:secret:token")).await;
    let cargo = std::env::var_os(CARGO).unwrap_or_else(|| env!("CARGO").into());
    std::fs::copy(cargo, space.join("cargo")).unwrap();
    for (tool, script, sign) in [
        ("git", format!("git clone -q {at}/tiny.git git && cat git/hello.txt"), "hello from git"),
        ("curl", format!("curl -sSf {at}/hello.txt"), "hello from a file"),
        (
            "pip",
            format!(
                "python3 -m venv v && v/bin/pip -q install --disable-pip-version-check --index-url {at}/simple/ \
                     tiny_thing && v/bin/python -c 'import tiny_thing; print(tiny_thing.HELLO)'"
            ),
            "hello from pip",
        ),
        (
            "npm",
            format!(
                "mkdir npm && cd npm && npm install --silent --no-audit --no-fund --registry {at}/npm/ tiny-thing \
                     && node -e 'console.log(require(\"tiny-thing\"))'"
            ),
            "hello from npm",
        ),
        (
            "cargo",
            format!(
                "mkdir -p crate/src crate/.cargo && cd crate && touch src/lib.rs && \
                     printf '[registries.tiny]\\nindex = \"sparse+{at}/cargo/\"\\n' > .cargo/config.toml && \
                     printf '[package]\\nname = \"x\"\\nversion = \"0.1.0\"\\n[dependencies]\\ntiny-thing = \
                     {{ version = \"1\", registry = \"tiny\" }}\\n' > Cargo.toml && \
                     CARGO_HOME=/tmp/c ../cargo -q vendor > /dev/null && cat vendor/tiny-thing/src/lib.rs"
            ),
            "hello from cargo",
        ),
    ] {
        let ran = sh(&jail, &script).await;
        assert!(ran.stdout.text.contains(sign), "{tool}: {} {}", ran.stdout.text, ran.stderr.text);
    }
    // The control: without the credential each of them is told so.
    let (jail, _, _door) = world.jail_in(&host, 2, &rule("Basic bot:secret:token")).await;
    for script in [format!("git clone -q {at}/tiny.git git"), format!("curl -sSf {at}/hello.txt")] {
        let ran = sh(&jail, &script).await;
        assert!(ran.stderr.text.contains("403"), "{} {}", ran.stdout.text, ran.stderr.text);
    }
}

fn base64_of(text: &str) -> String {
    let mut child = std::process::Command::new("base64")
        .arg("-w0")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), text.as_bytes()).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

/// Makes a repository and packages for four tools. `$1`: where they will be found.
const MAKE: &str = r#"
set -e
mkdir private && cd private
echo "hello from a file" > hello.txt
git init -q --bare tiny.git
git init -q work && cd work && echo "hello from git" > hello.txt && git add . &&
  git -c user.name=x -c user.email=x@example.com commit -q -m one && git push -q ../tiny.git HEAD:refs/heads/main && cd ..
git -C tiny.git symbolic-ref HEAD refs/heads/main
git -C tiny.git update-server-info
mkdir -p simple/tiny-thing
python3 - <<'END'
import zipfile
name = "tiny_thing-1.0.0"
with zipfile.ZipFile(f"simple/tiny-thing/{name}-py3-none-any.whl", "w") as wheel:
    wheel.writestr("tiny_thing.py", "HELLO = 'hello from pip'\n")
    wheel.writestr(f"{name}.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny-thing\nVersion: 1.0.0\n")
    wheel.writestr(f"{name}.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(f"{name}.dist-info/RECORD", "")
END
echo "<a href='tiny_thing-1.0.0-py3-none-any.whl'>tiny_thing-1.0.0-py3-none-any.whl</a>" > simple/tiny-thing/index
mkdir -p npm/tiny-thing package
echo 'module.exports = "hello from npm";' > package/index.js
echo '{ "name": "tiny-thing", "version": "1.0.0", "main": "index.js" }' > package/package.json
tar czf npm/tiny-thing/tiny-thing-1.0.0.tgz package
cat > npm/tiny-thing/index <<END
{ "name": "tiny-thing", "dist-tags": { "latest": "1.0.0" }, "versions": { "1.0.0": { "name": "tiny-thing",
  "version": "1.0.0", "main": "index.js", "dist": { "tarball": "$1/npm/tiny-thing/tiny-thing-1.0.0.tgz",
  "shasum": "$(sha1sum < npm/tiny-thing/tiny-thing-1.0.0.tgz | cut -d' ' -f1)" } } } }
END
mkdir -p cargo/ti/ny tiny-thing-1.0.0/src
echo '// hello from cargo' > tiny-thing-1.0.0/src/lib.rs
printf '[package]\nname = "tiny-thing"\nversion = "1.0.0"\n' > tiny-thing-1.0.0/Cargo.toml
tar czf cargo/tiny-thing.crate tiny-thing-1.0.0
echo '{ "dl": "'"$1"'/cargo/{crate}.crate" }' > cargo/config.json
sum=$(sha256sum < cargo/tiny-thing.crate | cut -d' ' -f1)
echo '{"name":"tiny-thing","vers":"1.0.0","deps":[],"cksum":"'"$sum"'","features":{},"yanked":false}' > cargo/ti/ny/tiny-thing
"#;

/// What makes every address lead to this host belongs into a jail's namespace. In the host's own it would take the
/// host's network away, so without that wall there is no jail with a way out at all.
#[cfg(debug_assertions)]
#[tokio::test]
async fn g01_a_way_out_is_never_made_in_the_hosts_own_network() {
    use bailiwick_sandbox::linux::{OnDifference, StartError, Wall};

    let routes = || std::fs::read_to_string("/proc/net/fib_trie").unwrap();
    let (host, world) = (Host::new().await, World::new().await);
    let door = world.door(1, &rules());
    let mut space = host.space();
    space.network = Network::Gate(door.trust().cloned());
    let before = routes();
    let started =
        host.launcher.start_without(host.spec(&space), &[Wall::Network], OnDifference::Tolerate).await.map(drop);
    if host.is_native() {
        let Err(StartError::Step { step, .. }) = started else { panic!("{started:?}") };
        assert_eq!(step, "leave the host's network namespace");
    }
    assert_eq!(routes(), before);
    // The control: with the wall it starts.
    assert!(host.launcher.start(host.spec(&space)).await.is_ok());
}
