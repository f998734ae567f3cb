//! Asking as B for what is A's, and judging the answers.

use std::collections::BTreeMap;

use reqwest::Method;
use reqwest::header::HeaderMap;

use super::report::Report;
use super::tenant::Tenant;
use crate::client::{Client, ClientError, Raw};
use crate::failure::Failure;
use crate::out;

/// One request.
#[derive(Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    /// Path and query, as they are sent.
    pub(super) target: String,
    pub(super) content: Option<(&'static str, Vec<u8>)>,
}

impl Request {
    pub(super) fn new(method: &Method, target: impl Into<String>) -> Self {
        Self { method: method.clone(), target: target.into(), content: None }
    }

    pub(super) fn json(self, body: &serde_json::Value) -> Self {
        Self { content: Some(("application/json", body.to_string().into_bytes())), ..self }
    }

    pub(super) fn bytes(self, kind: &'static str, bytes: impl Into<Vec<u8>>) -> Self {
        Self { content: Some((kind, bytes.into())), ..self }
    }

    pub(super) async fn send(&self, client: &Client) -> Result<Raw, ClientError> {
        client.raw(&self.method, &self.target, self.content.clone()).await
    }
}

/// What may come back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum May {
    /// Anything that holds nothing of A's: the request is about B's own things.
    BeDone,
    /// No success: the request is about a thing of A's.
    NotBeDone,
}

/// Both accounts, those who ask as B, and what came of it.
pub(super) struct Prober<'r> {
    pub(super) a: Tenant,
    pub(super) b: Tenant,
    pub(super) askers: Vec<(&'static str, Client)>,
    pub(super) report: &'r mut Report,
}

impl<'r> Prober<'r> {
    pub(super) fn new(a: Tenant, b: Tenant, report: &'r mut Report) -> Self {
        let mut askers = vec![("admin", b.admin.clone()), ("member", b.member.clone())];
        // The same people, who say that they were of A.
        for (who, client) in [("admin as A", &b.admin), ("member as A", &b.member)] {
            let posing = client.clone().with_header("x-openviking-account", a.id("account"));
            if let Ok(posing) = posing.and_then(|client| client.with_header("x-openviking-user", &a.chief)) {
                askers.push((who, posing));
            }
        }
        Self { a, b, askers, report }
    }

    /// Sends a probe and judges what comes. `None`: it crossed, or the server failed.
    pub(super) async fn ask(
        &mut self,
        group: &str,
        who: &str,
        client: &Client,
        request: &Request,
        may: May,
    ) -> Result<Option<Raw>, Failure> {
        self.report.probed(group);
        let answer = request.send(client).await?;
        let (status, what) = (answer.status, format!("B's {who}: {} {}", request.method, request.target));
        if self.shows(&answer) {
            self.report.crossing(group, &format!("{what} was answered with what is A's ({status})"));
            return Ok(None);
        }
        if may == May::NotBeDone && status.is_success() {
            self.report.crossing(group, &format!("{what} was done ({status})"));
            return Ok(None);
        }
        if status.is_server_error() {
            self.report.fault(group, &format!("{what}: the server failed ({status})"));
            return Ok(None);
        }
        if status.as_u16() == 401 {
            self.report.fault(group, &format!("{what}: B's key does not hold, so this proves nothing"));
            return Ok(None);
        }
        Ok(Some(answer))
    }

    /// The same about things of A's, and about things that never were: the answers must be the same.
    pub(super) async fn twins(
        &mut self,
        group: &str,
        asker: (&str, &Client),
        make: impl Fn(&dyn Fn(&str) -> String) -> Request,
        (names, may): (&[&str], May),
    ) -> Result<(), Failure> {
        let (who, client) = asker;
        let of_a: BTreeMap<String, String> =
            names.iter().map(|name| ((*name).to_owned(), self.a.id(name).to_owned())).collect();
        let b = self.b.ids.clone();
        let pick = |taken: &dyn Fn(&str) -> String| {
            let (of_a, b) = (&of_a, &b);
            make(&|name: &str| match of_a.get(name) {
                Some(id) => taken(id),
                None => b.get(name).cloned().unwrap_or_default(),
            })
        };
        let request = pick(&|id| id.to_owned());
        let Some(there) = self.ask(group, who, client, &request, may).await? else { return Ok(()) };
        let Some(absent) = self.ask(group, who, client, &pick(&never), may).await? else { return Ok(()) };
        let there = told(&there, of_a.values().cloned());
        let absent = told(&absent, of_a.values().map(|id| never(id)));
        if there != absent {
            let what = format!("B's {who}: {} {}", request.method, request.target);
            let (there, absent) = difference(&there, &absent);
            let text = format!("{what} tells that it exists: {there:?}, where of what never was it says {absent:?}");
            self.report.crossing(group, &text);
        }
        Ok(())
    }

    /// Whether an answer holds something that stands in A's account alone.
    pub(super) fn shows(&self, answer: &Raw) -> bool {
        let secret = self.a.secret.as_bytes();
        let holds = |bytes: &[u8]| bytes.windows(secret.len()).any(|window| window == secret);
        holds(&answer.body) || answer.headers.values().any(|value| holds(value.as_bytes()))
    }

    /// B can do what is its own: a caller who may do nothing at all reaches nothing, and shows nothing.
    pub(super) async fn b_is_somebody(&mut self) -> Result<(), Failure> {
        const GROUP: &str = "B's own things";
        for (target, shown) in self.b.snapshot().await? {
            self.report.probed(GROUP);
            let own = shown.starts_with("200 ") && !shown.contains(&self.a.secret);
            self.report.control(GROUP, own, || format!("B reads {target}: {shown}"));
        }
        Ok(())
    }

    /// A's things before and after, which nobody but A may have changed.
    pub(super) fn unchanged(&mut self, before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) {
        const GROUP: &str = "A's things, before and after";
        for (target, was) in before {
            self.report.probed(GROUP);
            let held = was.starts_with("200 ");
            self.report.control(GROUP, held, || format!("A reads {target}: {was}"));
            match after.get(target) {
                Some(is) if is == was => {}
                is => {
                    let is = is.map_or("nothing", String::as_str);
                    self.report.crossing(GROUP, &format!("{target} was {was}, and is now {is}"));
                }
            }
        }
    }
}

/// A name or id as long as this one, of nothing that ever was.
pub(super) fn never(id: &str) -> String {
    let keep = id.chars().count().saturating_sub(8);
    let turn = |c: char| match c {
        '0'..='8' => char::from(c as u8 + 1),
        '9' => '0',
        'A' => 'B',
        'A'..='Z' => 'A',
        'a' => 'b',
        'a'..='z' => 'a',
        other => other,
    };
    // An account is told from its sister by its last letter, so that one stays as it is.
    let kept = |n: usize| n < keep || id.starts_with("prove-") && n + 1 == id.chars().count();
    id.chars().enumerate().map(|(n, c)| if kept(n) { c } else { turn(c) }).collect()
}

/// An answer as its reader sees it, without the request's number, the time of day, and the ids that
/// the reader had named.
fn told(answer: &Raw, named: impl Iterator<Item = String>) -> String {
    let header = |headers: &HeaderMap, name: &str| {
        headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let request = header(&answer.headers, "x-request-id");
    let mut text = format!("{}\n", answer.status.as_u16());
    for (name, value) in &answer.headers {
        if !matches!(name.as_str(), "x-request-id" | "date") {
            text.push_str(&format!("{name}: {}\n", String::from_utf8_lossy(value.as_bytes())));
        }
    }
    text.push_str(&String::from_utf8_lossy(&answer.body));
    if !request.is_empty() {
        text = text.replace(&request, "REQUEST");
    }
    named.filter(|id| !id.is_empty()).fold(text, |text, id| text.replace(&id, "ID"))
}

/// Where two texts part, with a little of what stands before.
fn difference(one: &str, other: &str) -> (String, String) {
    let same = one.chars().zip(other.chars()).take_while(|(a, b)| a == b).count().saturating_sub(20);
    let part = |text: &str| out::brief(&text.chars().skip(same).collect::<String>(), 60);
    (part(one), part(other))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_nothing_is_as_long_and_another() {
        for id in ["spc_01ARZ3NDEKTSV4RRFFQ69G5FAV", "prove-0123456789abcdef-a", "user-0011", "x1"] {
            let other = never(id);
            assert!(other != id && other.len() == id.len(), "{id} {other}");
        }
        assert!(never("prove-0123456789abcdef-a").ends_with("-a"));
    }

    #[test]
    fn a_difference_is_shown_where_it_is() {
        let (one, other) = difference(&format!("{}here", "x".repeat(500)), &format!("{}gone", "x".repeat(500)));
        assert!(one.ends_with("here") && other.ends_with("gone") && one.len() < 40, "{one} {other}");
        assert_eq!(difference("a", "ab"), ("a".to_owned(), "ab".to_owned()));
    }
}
