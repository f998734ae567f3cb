//! Seams that Rust's visibility cannot close: what may be named, and built, by one crate alone.

use super::{Finding, Module};
use crate::rust::has_word;

/// The makers of resources, tenants and records. Their home, and the one crate that calls them.
const MAKERS: (&str, &[&str]) = ("for_store", &["auth", "store"]);

/// Traits whose implementor decides who is let in and what counts as recorded.
const TRUSTED: &[&str] = &["Directory", "Journal"];

/// Who may open sockets or make clients, in the product's code. Tests may.
const CONNECTS: &[(&str, &[&str])] = &[
    ("TcpListener::bind", &["bailiwick", "testkit", "crash", "bench", "xtask"]),
    ("TcpStream::connect", &["egress", "bailiwick", "testkit", "crash", "bench"]),
    ("TcpSocket::new", &["bench"]),
    ("UdpSocket::bind", &["bench"]),
    ("UnixListener::bind", &["bailiwick"]),
    ("UnixStream::connect", &["sandbox", "testkit"]),
    ("UnixDatagram::bind", &[]),
    ("net::socket", &["sandbox"]),
    ("reqwest::Client::", &["model", "outbound", "bailiwick", "testkit", "crash"]),
    ("reqwest::ClientBuilder", &["model", "outbound", "bailiwick", "testkit", "crash"]),
    ("reqwest::get", &[]),
];

/// Who may start processes.
const STARTS: (&str, &[&str]) = ("Command::new", &["sandbox", "bailiwick", "testkit", "crash", "bench", "xtask"]);

pub(super) fn check(modules: &[Module<'_>]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for module in modules {
        findings.extend(makers(module));
        findings.extend(implementors(module));
        findings.extend(outside(module));
        findings.extend(unsafe_code(module));
    }
    findings
}

fn makers(module: &Module<'_>) -> Option<Finding> {
    let (word, allowed) = MAKERS;
    if allowed.contains(&module.crate_name) {
        return None;
    }
    // Tests too: a principal or a resource in a test comes the way that it comes in the product.
    let (line, _) = module.source.lines().find(|(_, code)| has_word(code, word))?;
    Some(Finding::new(module.path, line, format!("names auth::{word}, which is for the store alone")))
}

fn implementors(module: &Module<'_>) -> Vec<Finding> {
    if module.crate_name == "store" {
        return Vec::new();
    }
    let of = |code: &str| {
        let (header, _) = code.split_once(" for ")?;
        let header = header.trim_start().strip_prefix("impl")?;
        TRUSTED.iter().find(|name| has_word(header, name))
    };
    let found = module.source.lines().filter_map(|(line, code)| Some((line, of(code)?)));
    found
        .map(|(line, name)| Finding::new(module.path, line, format!("implements {name}, which only the store may")))
        .collect()
}

fn outside(module: &Module<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (line, code) in module.product() {
        for (call, allowed) in CONNECTS.iter().chain([&STARTS]) {
            if code.contains(call) && !allowed.contains(&module.crate_name) {
                let what = format!("{call}: this crate does not touch the outside world that way (xtask, seams.rs)");
                findings.push(Finding::new(module.path, line, what));
            }
        }
    }
    findings
}

fn unsafe_code(module: &Module<'_>) -> Option<Finding> {
    if module.crate_name == "sandbox" {
        return None;
    }
    let (line, _) = module.source.lines().find(|(_, code)| has_word(code, "unsafe"))?;
    Some(Finding::new(module.path, line, "unsafe code is in crate sandbox alone"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::tidy::sample::tells;

    const WEB: &str = "crates/web/src/x.rs";
    const STORE: &str = "crates/store/src/x.rs";

    #[test]
    fn making_resources_outside_the_store_is_found() {
        let text = "use bailiwick_auth::for_store;\n";
        tells(check, (WEB, text), (STORE, text), "for_store");
        tells(check, ("crates/web/tests/it/x.rs", text), (WEB, "// for_store\nfn before_store() {}\n"), "for_store");
    }

    #[test]
    fn a_second_directory_or_journal_is_found() {
        let text = "impl Directory for Everyone {}\n";
        tells(check, (WEB, text), (STORE, text), "implements Directory");
        let text = "impl<T: Send> bailiwick_auth::access::Journal for Nothing<T> {}\n";
        tells(check, (WEB, text), (WEB, "impl Display for Directory {}\n"), "implements Journal");
    }

    #[test]
    fn sockets_clients_and_processes_in_the_wrong_crate_are_found() {
        for (text, home) in [
            ("let l = TcpListener::bind(address).await?;\n", "crates/bailiwick/src/x.rs"),
            ("let c = reqwest::Client::new();\n", "crates/model/src/x.rs"),
            ("let c = std::process::Command::new(\"sh\");\n", "crates/sandbox/src/x.rs"),
        ] {
            tells(check, ("crates/agent/src/x.rs", text), (home, text), "outside world");
            let test = format!("#[cfg(test)]\nmod tests {{\n{text}}}\n");
            tells(check, ("crates/agent/src/x.rs", text), ("crates/agent/src/x.rs", &test), "outside world");
        }
    }

    #[test]
    fn unsafe_code_outside_the_sandbox_is_found() {
        let text = "fn f() { unsafe { g() } }\n";
        tells(check, (WEB, text), ("crates/sandbox/src/x.rs", text), "unsafe");
        tells(check, (WEB, text), (WEB, "//! No unsafe here.\n#![forbid(unsafe_code)]\n"), "unsafe");
    }
}
