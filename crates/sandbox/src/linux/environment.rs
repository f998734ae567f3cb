//! What a jail's programs find in their environment: where things are, and, where there is a way out, what leads the
//! common programs to it and has them believe the sandbox's own authority.

use super::PATH;
use super::listeners::PROXY_PORT;
use super::spec::{JailSpec, Network, WorkspaceAccess};

/// All of it.
pub(crate) fn environment(spec: &JailSpec) -> Vec<(String, String)> {
    let home = match spec.access {
        WorkspaceAccess::ReadOnly => "/tmp",
        WorkspaceAccess::ReadWrite => "/workspace",
    };
    let mut all: Vec<(String, String)> = [
        ("PATH", PATH),
        ("HOME", home),
        ("USER", "agent"),
        ("LOGNAME", "agent"),
        ("SHELL", "/bin/sh"),
        ("TMPDIR", "/tmp"),
        ("LANG", "C.UTF-8"),
        ("TERM", "dumb"),
        ("AI_AGENT", "bailiwick"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    if spec.network != Network::Nothing {
        let proxy = format!("http://127.0.0.1:{PROXY_PORT}");
        let names = ["HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "https_proxy", "all_proxy"];
        all.extend(names.map(|name| (name.to_owned(), proxy.clone())));
        all.extend(["NO_PROXY", "no_proxy"].map(|name| (name.to_owned(), "localhost,127.0.0.1,::1".to_owned())));
        all.push(("NODE_USE_ENV_PROXY".to_owned(), "1".to_owned()));
    }
    if let Network::Gate(Some(trust)) = &spec.network {
        let bundle = "/etc/ssl/certs/ca-certificates.crt";
        all.extend(BUNDLE_VARIABLES.map(|name| (name.to_owned(), bundle.to_owned())));
        all.extend(trust.placeholders.iter().map(|(name, word)| (name.to_owned(), word.to_owned())));
    }
    all
}

/// What programs call the file of all authorities: OpenSSL and Go, curl, git, Python's requests and pip, Node and
/// npm, cargo, Deno, the AWS tools.
const BUNDLE_VARIABLES: [&str; 9] = [
    "SSL_CERT_FILE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "REQUESTS_CA_BUNDLE",
    "PIP_CERT",
    "NODE_EXTRA_CA_CERTS",
    "CARGO_HTTP_CAINFO",
    "DENO_CERT",
    "AWS_CA_BUNDLE",
];
