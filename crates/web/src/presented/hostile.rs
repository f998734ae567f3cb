//! Headers as nobody's browser makes them: nothing panics, and no reading of them lets two in for one.

use bailiwick_auth::password::{Algorithm, Unfit};
use proptest::prelude::*;

use super::*;

/// Names of cookies: ours, and such as look like it.
const NEAR: [&str; 6] =
    ["vibe_session", "Vibe_Session", "xvibe_session", "vibe_sessio", "vibe_session2", "__Host-vibe_session"];
/// What may stand around one: white space of RFC 6265, of Unicode, and signs that are none.
const AROUND: [&str; 10] = ["", " ", "\t", "  ", "\u{a0}", "\u{2000}", "\u{3000}", "\u{85}", "\"", "+"];

fn name() -> impl Strategy<Value = String> {
    (prop::sample::select(&AROUND), prop::sample::select(&NEAR), prop::sample::select(&AROUND))
        .prop_map(|(before, name, after)| format!("{before}{name}{after}"))
}

/// A value of a cookie, without what would end it.
fn value() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-zA-Z0-9_=\" -]{0,12}", "[^;\u{0}-\u{1f}\u{7f}]{0,8}"]
}

fn map(name: HeaderName, values: &[Vec<u8>]) -> HeaderMap {
    let values = values.iter().filter_map(|value| HeaderValue::from_bytes(value).ok());
    values.fold(HeaderMap::new(), |mut map, value| {
        map.append(name.clone(), value);
        map
    })
}

/// What RFC 6265 calls white space; nothing else may be left out of a name.
fn plain(text: &str) -> &str {
    text.trim_matches([' ', '\t'])
}

fn address() -> (IpAddr, Gateway) {
    (IpAddr::from([127, 0, 0, 1]), Gateway::Anybody)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn i01_of_any_cookies_ours_is_found_once_or_refused(
        headers in prop::collection::vec(prop::collection::vec((name(), value()), 0..4), 0..3),
        gap in prop::sample::select(&["", " ", "  "]),
    ) {
        let lines: Vec<String> = headers
            .iter()
            .map(|pairs| {
                let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
                pairs.join(&format!(";{gap}"))
            })
            .collect();
        let ours: Vec<&str> = headers
            .iter()
            .flatten()
            .filter(|(name, _)| plain(name) == COOKIE_NAME)
            .map(|(_, value)| plain(value))
            .collect();
        let map = map(COOKIE, &lines.into_iter().map(String::into_bytes).collect::<Vec<_>>());
        match (cookie(&map), ours.as_slice()) {
            (found, []) | (found, [""]) => prop_assert_eq!(found.ok(), Some(None)),
            (found, [one]) => prop_assert_eq!(found.ok().flatten(), Some((*one).to_owned())),
            (found, _) => prop_assert!(found.is_err(), "two of them"),
        }
    }

    #[test]
    fn i12_a_name_and_a_password_are_read_as_they_were_written(
        name in "[^:]{0,20}",
        password in any::<String>(),
        scheme in prop::sample::select(&["Basic", "basic", "BASIC"]),
    ) {
        let text = format!("{scheme} {}", STANDARD.encode(format!("{name}:{password}")));
        let (read, shown) = basic(&HeaderValue::from_str(&text).unwrap()).unwrap();
        prop_assert_eq!(&read, &name);
        // A password shows itself to nobody; but whether it is somebody's name, it says.
        if password.is_ascii() && (8..100).contains(&password.len()) {
            prop_assert_eq!(shown.fit(&password, Algorithm::USUAL), Err(Unfit::Guessable));
        }
        let other = text.replacen(scheme, "Bearer", 1);
        prop_assert!(basic(&HeaderValue::from_str(&other).unwrap()).is_none());
    }

    #[test]
    fn i12_no_bytes_are_a_name_and_a_password_that_say_otherwise(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            "[Bb]asic {1,2}[A-Za-z0-9+/=_-]{0,40}".prop_map(String::into_bytes),
        ],
    ) {
        let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
        if let Some((name, _)) = basic(&value) {
            let text = value.to_str().unwrap();
            let decoded = STANDARD.decode(text[6..].trim()).unwrap();
            prop_assert!(decoded.starts_with(format!("{name}:").as_bytes()) && !name.contains(':'), "{text}");
        }
    }

    #[test]
    fn any_headers_are_survived_and_a_credential_is_never_taken_for_none(
        keys in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..3),
        authorizations in prop::collection::vec(
            prop_oneof![prop::collection::vec(any::<u8>(), 0..40), "(Bearer|Basic|Digest)? ?.{0,30}".prop_map(String::into_bytes)],
            0..3,
        ),
        cookies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..3),
    ) {
        let mut all = map(KEY, &keys);
        all.extend(map(AUTHORIZATION, &authorizations));
        all.extend(map(COOKIE, &cookies));
        let shown = all.contains_key(&KEY) || all.contains_key(AUTHORIZATION);
        if let Ok((presented, _, via)) = read(&all, address(), address().0) {
            prop_assert!(all.get_all(&KEY).iter().count() <= 1 && all.get_all(AUTHORIZATION).iter().count() <= 1);
            prop_assert_eq!(presented.key.is_some(), shown || via == Via::Cookie, "a wrong one is not a missing one");
            prop_assert!(!shown || via == Via::Header);
            prop_assert!(presented.basic.is_none() || !all.contains_key(&KEY), "two at once");
        }
        prop_assert_eq!(super::shown(&all) == Some(Via::Header), shown);
    }

    #[test]
    fn i09_whatever_else_is_said_a_page_of_another_site_is_one(
        site in prop::option::of(prop_oneof![
            prop::sample::select(&["cross-site", "same-site", "Same-Origin", "same-origin, none", ""]).prop_map(str::to_owned),
            "[ -~]{0,12}",
        ]),
        origin in "(https?://)?[a-z.:@/]{0,20}",
        host in "[a-z.:]{1,12}",
    ) {
        let mut all = HeaderMap::new();
        all.append(HOST, host.parse().unwrap());
        all.append(ORIGIN, origin.parse().unwrap());
        if let Some(site) = &site {
            all.append(FETCH_SITE, site.parse().unwrap());
        }
        let own = match site.as_deref().map(str::trim) {
            Some(site) => matches!(site, "same-origin" | "none"),
            None => ["http://", "https://"].iter().any(|scheme| origin.eq_ignore_ascii_case(&format!("{scheme}{host}"))),
        };
        prop_assert_eq!(is_cross_site(&all, None), !own);
    }
}
