//! Paths that lead out of a space: in B's own space to A's files, in every spelling; and A's space under
//! another spelling of its id.

use reqwest::Method;
use serde_json::json;

use super::probe::{May, Prober, Request};
use crate::failure::Failure;

const FILES: &str = "paths of files";
const IDS: &str = "spellings of ids";
const LINKS: &str = "links";
const ATTACHMENTS: &str = "names of attachments";

pub(super) async fn probe(prober: &mut Prober<'_>) -> Result<(), Failure> {
    files(prober).await?;
    links(prober).await?;
    spellings(prober).await?;
    attachments(prober).await
}

/// Places of A's file as a path in B's space might name them.
fn places(prober: &Prober<'_>) -> Vec<String> {
    let (account, space) = (prober.a.id("account"), prober.a.id("space"));
    let bare = space.trim_start_matches("spc_");
    vec![
        format!("../{space}/secret.txt"),
        format!("../{bare}/secret.txt"),
        format!("../{space}/files/secret.txt"),
        format!("../../{account}/{space}/secret.txt"),
        format!("../../{account}/{space}/files/secret.txt"),
        format!("../../../{account}/spaces/{space}/files/secret.txt"),
        format!("folder/../../{space}/secret.txt"),
        format!("./.././{space}/secret.txt"),
        format!("/{space}/secret.txt"),
        format!("//{space}/secret.txt"),
        format!("/workspace/../{space}/secret.txt"),
        "/etc/passwd".to_owned(),
        "../../../../../../../../etc/passwd".to_owned(),
        "/proc/self/environ".to_owned(),
    ]
}

/// The ways of writing one path, as they stand in a query.
fn written(path: &str) -> Vec<String> {
    let all = |bytes: &str| bytes.bytes().map(|byte| format!("%{byte:02X}")).collect::<String>();
    let twice = all(path).replace('%', "%25");
    let other = |from: &str, to: &str| all(&path.replace(from, to));
    vec![
        path.to_owned(),
        all(path),
        twice,
        path.replace("../", "%2e%2e%2f"),
        path.replace("../", "..%252f"),
        path.replace("../", "%c0%ae%c0%ae%c0%af"),
        format!("{}%00.txt", all(path)),
        format!("secret.txt%00{}", all(path)),
        other("/", "\\"),
        other("/", "\u{ff0f}"),
        other("/", "\u{2215}"),
        other("..", "\u{2024}\u{2024}"),
        other("..", "\u{ff0e}\u{ff0e}"),
        other("../", "....//"),
        format!("{}%0a", all(path)),
        format!("file:{}", all(path)),
    ]
}

async fn files(prober: &mut Prober<'_>) -> Result<(), Failure> {
    let own = format!("/api/v1/spaces/{}/files", prober.b.id("space"));
    let client = prober.b.admin.clone();
    for path in places(prober).iter().flat_map(|place| written(place)) {
        for (method, target) in [
            (Method::GET, format!("{own}/content?path={path}")),
            (Method::DELETE, format!("{own}/content?path={path}")),
            (Method::DELETE, format!("{own}/content?recursive=true&path={path}")),
            (Method::GET, format!("{own}?path={path}")),
            // Last: a name that is odd, but no way out, may be written.
            (Method::PUT, format!("{own}/content?path={path}")),
        ] {
            let may = if method == Method::PUT { May::BeDone } else { May::NotBeDone };
            let request = Request::new(&method, target).bytes("application/octet-stream", "from the other account");
            let request = if method == Method::PUT { request } else { Request { content: None, ..request } };
            if let Some(answer) = prober.ask(FILES, "admin", &client, &request, may).await?
                && answer.body.windows(8).any(|window| window == b"root:x:0")
            {
                prober.report.crossing(FILES, &format!("{} shows a file of the host", request.target));
            }
        }
        // What was written under an odd name is not to be found by the next spelling.
        let undone = Request::new(&Method::DELETE, format!("{own}/content?path={path}"));
        undone.send(&client).await?;
    }
    for (whose, tenant) in [("A", &prober.a), ("B", &prober.b)] {
        let target = format!("/api/v1/spaces/{}/files/content?path=folder/secret.txt", tenant.id("space"));
        let answer = Request::new(&Method::GET, target.clone()).send(&tenant.admin).await?;
        let held = answer.status.is_success() && answer.body == tenant.secret.as_bytes();
        prober.report.control(FILES, held, || format!("{whose} reads {target}: {}", answer.status));
    }
    Ok(())
}

/// The file API has no call that makes a link. What a client might try instead must stay a plain file.
async fn links(prober: &mut Prober<'_>) -> Result<(), Failure> {
    let client = prober.b.admin.clone();
    for place in places(prober) {
        let own = format!("/api/v1/spaces/{}/files/content?path=link.txt", prober.b.id("space"));
        let put = Request::new(&Method::PUT, format!("{own}&kind=symlink&symlink={place}&target={place}"));
        let put = put.bytes("inode/symlink", place.clone());
        prober.ask(LINKS, "admin", &client, &put, May::BeDone).await?;
        let read = Request::new(&Method::GET, own.clone());
        let answer = prober.ask(LINKS, "admin", &client, &read, May::BeDone).await?;
        let held = answer.as_ref().is_some_and(|answer| answer.body == place.as_bytes());
        prober.report.control(LINKS, held, || format!("{own} does not hold what was put into it"));
    }
    Ok(())
}

async fn spellings(prober: &mut Prober<'_>) -> Result<(), Failure> {
    let (a, b) = (prober.a.id("space").to_owned(), prober.b.id("space").to_owned());
    let encoded: String = a.bytes().map(|byte| format!("%{byte:02X}")).collect();
    for id in [
        encoded,
        a.to_lowercase(),
        format!("{a}%00"),
        format!("{a}%20"),
        format!("%20{a}"),
        format!("{a}%2f"),
        format!("{b}%2f..%2f{a}"),
        format!("{b}%2F%2e%2e%2F{a}"),
        format!("{b}/..%2f{a}"),
        format!("{b}/../{a}"),
        format!("{b};{a}"),
        format!("{b},{a}"),
        format!("{b}%0d%0a{a}"),
        format!("{b}%ef%bc%8f..%ef%bc%8f{a}"),
        a.trim_start_matches("spc_").to_owned(),
    ] {
        for rest in ["", "/grants", "/plan", "/files", "/files/content?path=secret.txt"] {
            for (who, client) in prober.askers.clone() {
                let request = Request::new(&Method::GET, format!("/api/v1/spaces/{id}{rest}"));
                prober.ask(IDS, who, &client, &request, May::NotBeDone).await?;
            }
        }
    }
    let encoded: String = b.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let answer = Request::new(&Method::GET, format!("/api/v1/spaces/{encoded}")).send(&prober.b.admin).await?;
    prober.report.control(IDS, answer.status.is_success(), || "B's own id in another spelling".to_owned());
    Ok(())
}

/// Files come with a message, too, and bring their names.
async fn attachments(prober: &mut Prober<'_>) -> Result<(), Failure> {
    if !prober.b.ids.contains_key("session") {
        return Ok(());
    }
    let client = prober.b.admin.clone();
    let message = |name: &str| {
        // "from the other account", in base64.
        let data = "ZnJvbSB0aGUgb3RoZXIgYWNjb3VudA==";
        let part = json!({ "type": "file", "mediaType": "text/plain", "filename": name, "data": data });
        Request::new(&Method::POST, "/eve/v1/session").json(&json!({ "message": [part] }))
    };
    for place in places(prober) {
        prober.ask(ATTACHMENTS, "admin", &client, &message(&place), May::BeDone).await?;
    }
    let answer = message("plain.txt").send(&client).await?;
    prober.report.control(ATTACHMENTS, answer.status.is_success(), || format!("plain.txt: {}", answer.status));
    Ok(())
}
