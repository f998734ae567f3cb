//! Seams that Rust's visibility cannot close: what may be named, and built, by one crate alone.

use super::{Finding, Module};
use crate::rust::has_word;

/// The makers of resources, tenants and records. Their home, and the one crate that calls them.
const MAKERS: (&str, &[&str]) = ("for_store", &["auth", "store"]);

/// Traits whose implementor decides who is let in and what counts as recorded.
const TRUSTED: &[&str] = &["Directory", "Journal"];

/// Who may open sockets and wait at them, in the product's code. Tests may.
const LISTENS: &[(&str, &[&str])] = &[
    ("TcpListener::bind", &["bailiwick", "testkit", "crash", "bench", "xtask"]),
    ("UnixListener::bind", &["bailiwick"]),
    ("UnixStream::connect", &["sandbox", "testkit"]),
    ("UnixDatagram::bind", &[]),
    ("net::socket", &["sandbox"]),
    ("net::connect", &["sandbox"]),
    ("libc::socket", &["sandbox"]),
    ("libc::connect", &["sandbox"]),
    ("TcpStream::connect", &["egress", "bailiwick/src/demo", "testkit", "crash", "bench"]),
];

/// Who may name what connects to elsewhere, or finds where that is: the server's own client (`outbound`), the gate
/// (`egress`, and what prepares its sockets), the command line's client and what calls by it, and what is no part of
/// the product. The names themselves, because a name can be imported as another. The database's connection is
/// `store`'s alone. A crate, or files of one: what puts the server together has no part in the command line's client.
const CONNECTS: &[(&str, &[&str])] = &[
    // The server's listener hands these out.
    ("TcpStream", &["egress", "web", "bailiwick/src/demo", "testkit", "crash", "bench"]),
    ("TcpSocket", &["bench"]),
    ("UdpSocket", &["egress", "sandbox", "bench"]),
    ("lookup_host", &["outbound", "bailiwick/src/prove"]),
    ("to_socket_addrs", &["egress", "sandbox"]),
    ("ToSocketAddrs", &["egress", "sandbox"]),
    ("socket2", &[]),
    (
        "reqwest",
        &[
            "outbound",
            "bailiwick/src/client",
            "bailiwick/src/command",
            "bailiwick/src/chat",
            "bailiwick/src/demo",
            "bailiwick/src/prove",
            "bailiwick/src/attack",
            "testkit",
            "crash",
        ],
    ),
    ("hyper::client", &["egress", "bench"]),
    ("hyper_util::client", &["egress"]),
    ("tokio_rustls", &["egress", "testkit", "bench"]),
    ("tokio_tungstenite", &[]),
    ("tokio_postgres", &["store", "testkit", "bench"]),
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
        let called = LISTENS.iter().chain([&STARTS]).filter(|(call, _)| code.contains(call));
        let named = CONNECTS.iter().filter(|(name, _)| has_word(code, name));
        // With another name it could be used anywhere in the file. A trait without a name is used by its own.
        let renamed = CONNECTS
            .iter()
            .filter(|(name, _)| code.contains(&format!("{name} as ")) && !code.contains(&format!("{name} as _")));
        let renamed = renamed.map(|(name, _)| *name);
        let strange = called.chain(named).filter(|(_, allowed)| !allowed.iter().any(|home| is_in(module, home)));
        if let Some(what) = strange.map(|(what, _)| *what).chain(renamed).next() {
            let what = format!("{what}: this crate does not touch the outside world that way (xtask, seams.rs)");
            findings.push(Finding::new(module.path, line, what));
        }
    }
    findings
}

/// Whether a module is of this crate, or one of these files of it.
fn is_in(module: &Module<'_>, home: &str) -> bool {
    let of_files = || module.path.strip_prefix("crates/").is_some_and(|path| path.starts_with(home));
    module.crate_name == home || (home.contains('/') && of_files())
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
    /// A test may use anything.
    const TEST: &str = "crates/agent/tests/it/x.rs";

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
            ("let c = reqwest::Client::new();\n", "crates/outbound/src/x.rs"),
            ("let c = std::process::Command::new(\"sh\");\n", "crates/sandbox/src/x.rs"),
        ] {
            tells(check, ("crates/agent/src/x.rs", text), (home, text), "outside world");
            let test = format!("#[cfg(test)]\nmod tests {{\n{text}}}\n");
            tells(check, ("crates/agent/src/x.rs", text), ("crates/agent/src/x.rs", &test), "outside world");
        }
    }

    #[test]
    fn g08_whoever_names_a_way_to_elsewhere_and_is_not_in_the_table_is_found() {
        for (name, allowed) in CONNECTS {
            let imported = format!("use somewhere::{name};\n");
            let home = if allowed.is_empty() { "// " } else { "" };
            let good = match allowed.last() {
                Some(files) if files.contains('/') => format!("crates/{files}.rs"),
                home => format!("crates/{}/src/x.rs", home.unwrap_or(&"agent")),
            };
            for strange in ["agent", "model", "tools", "auth", "vault", "audit"] {
                let bad = format!("crates/{strange}/src/x.rs");
                tells(check, (&bad, &imported), (&good, &format!("{home}{imported}")), name);
            }
            // Not by another name either, where the name itself is allowed.
            tells(check, (&good, &format!("use somewhere::{name} as Harmless;\n")), (TEST, &imported), name);
        }
        for (strange, call, word) in [
            ("model", "reqwest::Client::builder()", "reqwest"),
            ("egress", "reqwest::get(url).await", "reqwest"),
            // What puts the server together is no part of the command line's client.
            ("bailiwick", "reqwest::get(url).await", "reqwest"),
            ("bailiwick", "TcpStream::connect(address).await", "TcpStream::connect"),
            ("web", "TcpStream::connect(address).await", "TcpStream::connect"),
            ("web", "std::net::TcpStream::connect_timeout(&address, time)", "TcpStream::connect"),
            ("agent", "tokio::net::lookup_host(name).await", "lookup_host"),
            ("store", "(name, 443).to_socket_addrs()", "to_socket_addrs"),
            ("tools", "rustix::net::connect(&socket, &address)", "net::connect"),
            ("model", "hyper_util::client::legacy::Client::builder(executor)", "hyper_util::client"),
        ] {
            let text = format!("let answer = {call}?;\n");
            let path = format!("crates/{strange}/src/x.rs");
            tells(check, (&path, &text), (&path, &format!("// {text}")), word);
        }
        let (good, text) = ("crates/bailiwick/src/client/lines.rs", "use reqwest::Response;\n");
        for bad in ["crates/bailiwick/src/wiring.rs", "crates/bailiwick/src/config/check.rs"] {
            tells(check, (bad, text), (good, text), "reqwest");
        }
        // What listens for the server has the streams that come in, and says no more of them.
        tells(
            check,
            ("crates/web/src/x.rs", "async fn f(s: UdpSocket) {}\n"),
            ("crates/web/src/x.rs", "async fn f(s: TcpStream) {}\n"),
            "UdpSocket",
        );
    }

    #[test]
    fn unsafe_code_outside_the_sandbox_is_found() {
        let text = "fn f() { unsafe { g() } }\n";
        tells(check, (WEB, text), ("crates/sandbox/src/x.rs", text), "unsafe");
        tells(check, (WEB, text), (WEB, "//! No unsafe here.\n#![forbid(unsafe_code)]\n"), "unsafe");
    }
}
