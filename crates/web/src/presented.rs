//! What a request shows of its caller, read from its headers and its socket.
//!
//! A credential comes from `X-API-Key`, else from `Authorization: Bearer`, else from the cookie; never from
//! the URL, where it would end in logs. Headers that come twice or contradict each other are an error: two readers could
//! take different ones. A credential that cannot be read is a wrong one, never a missing one.

use std::net::IpAddr;

use bailiwick_auth::authn::{Browser, Gateway, Presented};
use bailiwick_auth::key::PresentedKey;
use bailiwick_auth::password::Password;
use bailiwick_types::{AccountName, AgentName, UserName};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, COOKIE, HOST, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use crate::error::Failure;

/// What is wanted besides who is calling: chosen by the caller, judged later.
#[derive(Debug, Clone, Default)]
pub(crate) struct Wanted {
    /// With which agent.
    pub(crate) agent: Option<AgentName>,
    /// In which account, as the header says. Who may say so is judged by authentication.
    pub(crate) account: Option<AccountName>,
    /// In which space, as sent: what is no id names nothing.
    pub(crate) space: Option<String>,
}

/// By which way the credential came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Via {
    /// A header that a program sets on purpose, or nothing.
    Header,
    /// The cookie, which a browser adds by itself whoever made the page that asks.
    Cookie,
}

/// The console's cookie.
pub(crate) const COOKIE_NAME: &str = "vibe_session";

const KEY: HeaderName = HeaderName::from_static("x-api-key");
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Reads the headers of a request for `path`. `client` is for the record alone.
pub(crate) fn read(
    (path, headers): (&str, &HeaderMap),
    (peer, gateway): (IpAddr, Gateway),
    client: IpAddr,
) -> Result<(Presented, Wanted, Via), Failure> {
    let (key, via) = credential(headers)?;
    let presented = Presented {
        path: path.to_owned(),
        key,
        basic: once(headers, &AUTHORIZATION)?.filter(|_| !headers.contains_key(&KEY)).and_then(basic),
        account: aliased::<AccountName>(headers, ["x-openviking-account", "x-bailiwick-account"])?,
        user: aliased::<UserName>(headers, ["x-openviking-user", "x-bailiwick-user"])?,
        peer,
        client,
        browser: browser(headers),
        gateway,
    };
    let wanted = Wanted {
        agent: aliased::<AgentName>(headers, ["x-bailiwick-agent", "x-openviking-agent"])?,
        account: presented.account.clone(),
        space: once(headers, &HeaderName::from_static("x-bailiwick-space"))?.map(lossy),
    };
    Ok((presented, wanted, via))
}

/// By which way a credential is shown, if any is; for routes that also answer without.
pub(crate) fn shown(headers: &HeaderMap) -> Option<Via> {
    if headers.contains_key(&KEY) || headers.contains_key(AUTHORIZATION) {
        return Some(Via::Header);
    }
    match cookie(headers) {
        Ok(None) => None,
        Ok(Some(_)) | Err(_) => Some(Via::Cookie),
    }
}

fn credential(headers: &HeaderMap) -> Result<(Option<PresentedKey>, Via), Failure> {
    let authorization = once(headers, &AUTHORIZATION)?;
    if let Some(key) = once(headers, &KEY)? {
        let key = lossy(key);
        if authorization.is_some_and(|value| bearer(&lossy(value)) != Some(key.as_str())) {
            return Err(Failure::Words("headers x-api-key and authorization contradict each other"));
        }
        return Ok((Some(PresentedKey::new(&key)), Via::Header));
    }
    if let Some(value) = authorization {
        let text = lossy(value);
        // Another scheme is a credential that no step knows, hence a wrong one.
        return Ok((Some(PresentedKey::new(bearer(&text).unwrap_or(&text))), Via::Header));
    }
    Ok(match cookie(headers)? {
        Some(token) => (Some(PresentedKey::new(&token)), Via::Cookie),
        None => (None, Via::Header),
    })
}

/// The console's cookie.
fn cookie(headers: &HeaderMap) -> Result<Option<String>, Failure> {
    cookie_of(headers, COOKIE_NAME).map_err(|_| Failure::Words("cookie vibe_session: sent more than once"))
}

/// A cookie came more than once.
pub(crate) struct Twice;

/// A cookie (RFC 6265, section 5.4). Two of one name are an error: one of them was put there by somebody else,
/// and nothing tells which.
pub(crate) fn cookie_of(headers: &HeaderMap, wanted: &str) -> Result<Option<String>, Twice> {
    let mut found = None;
    for value in headers.get_all(COOKIE) {
        for pair in lossy(value).split(';') {
            let Some((name, value)) = pair.split_once('=') else { continue };
            if trimmed(name) != wanted {
                continue;
            }
            if found.is_some() {
                return Err(Twice);
            }
            found = Some(trimmed(value).to_owned());
        }
    }
    // A browser that was told to forget it may send the name with nothing.
    Ok(found.filter(|value| !value.is_empty()))
}

/// Without white space as headers have it. Unicode has more: with it left out, a cookie would have our name
/// here that has another one in the browser, and so in the browser's rules about who may set it.
fn trimmed(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

/// The name and the password of a value of `Authorization` (RFC 7617, section 2), in UTF-8.
fn basic(value: &HeaderValue) -> Option<(String, Password)> {
    let (scheme, text) = value.to_str().ok()?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let pair = Zeroizing::new(STANDARD.decode(text.trim()).ok()?);
    let (name, password) = std::str::from_utf8(&pair).ok()?.split_once(':')?;
    Some((name.to_owned(), Password::new(password)))
}

/// The token of a value of `Authorization` (RFC 6750, section 2.1).
fn bearer(text: &str) -> Option<&str> {
    let (scheme, token) = text.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// The value of a header that may come once.
fn once<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h HeaderValue>, Failure> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Failure::Parameters(format!("header {name}: sent more than once")));
    }
    Ok(first)
}

/// Bytes that are no text become signs that no key, name or id has.
fn lossy(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

/// A name under either of two headers; under both only if they agree.
fn aliased<T>(headers: &HeaderMap, names: [&'static str; 2]) -> Result<Option<T>, Failure>
where
    T: std::str::FromStr<Err = bailiwick_types::NameError> + PartialEq,
{
    let mut found = None;
    for name in names {
        let Some(value) = once(headers, &HeaderName::from_static(name))? else { continue };
        let value: T = lossy(value).parse().map_err(|error| Failure::Parameters(format!("header {name}: {error}")))?;
        if found.as_ref().is_some_and(|other| *other != value) {
            return Err(Failure::Parameters(format!("headers {} and {} contradict each other", names[0], names[1])));
        }
        found = Some(value);
    }
    Ok(found)
}

/// Whether a page of another origin made the request, as far as the browser tells: of an old one, or of a
/// program, nothing is known. `own`: the origin under which people reach this server.
pub(crate) fn is_cross_site(headers: &HeaderMap, own: Option<&str>) -> bool {
    if let Some(site) = headers.get(&FETCH_SITE) {
        return !matches!(site.as_bytes(), b"same-origin" | b"none");
    }
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let (Ok(origin), Some(Ok(host))) = (origin.to_str(), headers.get(HOST).map(HeaderValue::to_str)) else {
        return true;
    };
    let from = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    let same_host = from.is_some_and(|from| from.eq_ignore_ascii_case(host));
    let public = own.is_some_and(|own| own.eq_ignore_ascii_case(origin));
    !(same_host || public)
}

/// Whether a page of another origin could have made the request. Judged by what a browser cannot leave
/// out or forge: the name that it thinks it talks to, and whose page made it ask.
pub(crate) fn browser(headers: &HeaderMap) -> Browser {
    let text = |name: &HeaderName| {
        let mut values = headers.get_all(name).iter();
        match (values.next(), values.next()) {
            (None, _) => Some(None),
            (Some(value), None) => value.to_str().ok().map(Some),
            _ => None,
        }
    };
    let (Some(Some(host)), Some(site), Some(origin)) = (text(&HOST), text(&FETCH_SITE), text(&ORIGIN)) else {
        return Browser::Foreign;
    };
    let own_site = site.is_none_or(|site| matches!(site, "same-origin" | "none"));
    let own_origin =
        origin.is_none_or(|origin| origin.strip_prefix("http://").is_some_and(|from| from.eq_ignore_ascii_case(host)));
    // What came through a proxy came from somewhere else, whatever the socket says.
    let relayed = |name: &HeaderName| {
        let name = name.as_str();
        name.starts_with("x-forwarded-")
            || matches!(name, "forwarded" | "x-real-ip" | "via" | "cf-connecting-ip" | "true-client-ip")
    };
    let direct = !headers.keys().any(relayed);
    if is_loopback(host) && own_site && own_origin && direct { Browser::Own } else { Browser::Foreign }
}

/// Whether a `Host` names this host and cannot name another: `localhost`, `127.0.0.0/8` or `[::1]`.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    if name.eq_ignore_ascii_case("localhost") {
        return true;
    }
    match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok_and(|address| address.is_loopback()),
        None => name.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.is_loopback()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod hostile;

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in pairs {
            map.append(HeaderName::from_static(name), value.parse().unwrap());
        }
        map
    }

    #[test]
    fn i12_pages_of_others_and_foreign_names_are_told_apart() {
        for own in [
            &[("host", "127.0.0.1:17880")][..],
            &[("host", "localhost")],
            &[("host", "[::1]:17880")],
            &[("host", "127.3.2.1"), ("sec-fetch-site", "none")],
            &[("host", "localhost:17880"), ("origin", "http://localhost:17880"), ("sec-fetch-site", "same-origin")],
        ] {
            assert_eq!(browser(&headers(own)), Browser::Own, "{own:?}");
        }
        for foreign in [
            &[][..],
            &[("host", "evil.example")],
            &[("host", "localhost.evil.example:17880")],
            &[("host", "127.0.0.1.evil.example")],
            &[("host", "0.0.0.0:17880")],
            &[("host", "127.0.0.1@evil.example")],
            &[("host", "localhost"), ("host", "evil.example")],
            &[("host", "localhost:17880"), ("origin", "http://evil.example")],
            &[("host", "localhost:17880"), ("origin", "http://localhost:3000")],
            &[("host", "localhost:17880"), ("origin", "null")],
            &[("host", "localhost:17880"), ("sec-fetch-site", "cross-site")],
            &[("host", "localhost:17880"), ("sec-fetch-site", "same-site")],
            &[("host", "localhost:17880"), ("x-forwarded-for", "203.0.113.1")],
            &[("host", "localhost:17880"), ("x-forwarded-proto", "https")],
            &[("host", "localhost:17880"), ("cf-connecting-ip", "203.0.113.1")],
        ] {
            assert_eq!(browser(&headers(foreign)), Browser::Foreign, "{foreign:?}");
        }
    }

    #[test]
    fn doubled_and_contradicting_headers_are_refused() {
        let address = IpAddr::from([127, 0, 0, 1]);
        let peer = (address, Gateway::Anybody);
        for bad in [
            &[("x-api-key", "a"), ("x-api-key", "a")][..],
            &[("authorization", "Bearer a"), ("authorization", "Bearer b")],
            &[("x-openviking-account", "a"), ("x-bailiwick-account", "b")],
            &[("x-openviking-account", "../a")],
            &[("x-api-key", "a"), ("authorization", "Bearer b")],
            &[("x-api-key", "a"), ("authorization", "Basic a")],
        ] {
            assert!(read(("/", &headers(bad)), peer, address).is_err(), "{bad:?}");
        }
        let (shown, wanted, _) = read(
            (
                "/",
                &headers(&[("x-openviking-account", "a"), ("x-bailiwick-account", "a"), ("x-openviking-agent", "x")]),
            ),
            peer,
            address,
        )
        .unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(shown.account.unwrap().as_str(), "a");
        assert_eq!(wanted.agent.unwrap().as_str(), "x");
        assert!(shown.key.is_none());
    }

    #[test]
    fn a_credential_that_cannot_be_read_is_wrong_and_not_missing() {
        for odd in [&[("authorization", "Basic YTpi")][..], &[("authorization", "Bearer")], &[("x-api-key", "")]] {
            assert!(credential(&headers(odd)).is_ok_and(|(key, _)| key.is_some()), "{odd:?}");
        }
        let mut raw = HeaderMap::new();
        raw.insert(KEY, HeaderValue::from_bytes(b"bwk_\xff").unwrap());
        assert!(credential(&raw).is_ok_and(|(key, _)| key.is_some()));
    }

    #[test]
    fn i01_the_cookie_is_the_last_that_is_looked_at_and_comes_once() {
        let via = |pairs: &[(&'static str, &str)]| credential(&headers(pairs)).map(|(key, via)| (key.is_some(), via));
        assert_eq!(via(&[("cookie", "a=b; vibe_session=x; c=d")]).unwrap(), (true, Via::Cookie));
        assert_eq!(via(&[("cookie", "vibe_session=x"), ("x-api-key", "k")]).unwrap(), (true, Via::Header));
        assert_eq!(via(&[("cookie", "vibe_session=x"), ("authorization", "Bearer k")]).unwrap(), (true, Via::Header));
        for none in ["vibe_session=", "xvibe_session=x", "a=vibe_session=x", "vibe_session"] {
            assert_eq!(via(&[("cookie", none)]).unwrap(), (false, Via::Header), "{none}");
        }
        assert!(via(&[("cookie", "vibe_session=x; vibe_session=y")]).is_err());
        assert!(via(&[("cookie", "vibe_session=x"), ("cookie", "vibe_session=x")]).is_err());
    }

    #[test]
    fn i09_pages_of_other_origins_are_told_apart() {
        let cross = |pairs: &[(&'static str, &str)]| is_cross_site(&headers(pairs), Some("https://b.example"));
        for own in [
            &[("host", "h:1")][..],
            &[("host", "h:1"), ("origin", "http://h:1")],
            &[("host", "h:1"), ("origin", "https://b.example")],
            &[("host", "h:1"), ("origin", "null"), ("sec-fetch-site", "same-origin")],
        ] {
            assert!(!cross(own), "{own:?}");
        }
        for foreign in [
            &[("host", "h:1"), ("origin", "http://evil.example")][..],
            &[("host", "h:1"), ("origin", "null")],
            &[("host", "h:1"), ("origin", "http://h:2")],
            &[("host", "h:1"), ("origin", "http://h:1.evil.example")],
            &[("host", "h:1"), ("sec-fetch-site", "same-site")],
            &[("host", "h:1"), ("sec-fetch-site", "cross-site"), ("origin", "http://h:1")],
        ] {
            assert!(cross(foreign), "{foreign:?}");
        }
    }
}
