//! Targets of notifications: addresses that only look right, and what is said to each service.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use proptest::prelude::*;

use super::*;

const SLACK: &str = "https://hooks.slack.com/services/T012AB3CD/B045EF6GH/abcDEF0123456789ghijklmn";
const DISCORD: &str = "https://discord.com/api/webhooks/123456789012345678/Abc_def-0123456789";
const TOKEN: &str = "123456:ABC-DEF1234ghIkl-zyx57W2v1u123ew11";

fn url(kind: TargetKind, text: &str, chat: Option<&str>) -> Result<String, AddressError> {
    let address = Address::parse(kind, text, chat)?;
    let mut url = String::new();
    address.write_url(&mut url);
    assert!(url.starts_with(&format!("https://{}/", address.host())));
    Ok(url)
}

#[test]
fn g09_a_target_is_one_of_three_services_by_its_own_name_and_path() {
    use TargetKind::{Discord, Slack, Telegram};
    assert_eq!(url(Slack, SLACK, None).unwrap(), SLACK);
    assert_eq!(
        url(Slack, &SLACK.replace("https://hooks.slack.com", "HTTPS://Hooks.SLACK.com:443"), None).unwrap(),
        SLACK
    );
    assert_eq!(url(Discord, DISCORD, None).unwrap(), DISCORD);
    for fits in [
        DISCORD.replace("discord.com", "discordapp.com"),
        DISCORD.replace("/api/", "/api/v10/"),
        format!("{DISCORD}?thread_id=12345"),
    ] {
        assert_eq!(url(Discord, &fits, None).unwrap(), fits);
    }
    let telegram = format!("https://api.telegram.org/bot{TOKEN}/sendMessage");
    for chat in ["12345", "-1001234567890", "@a_channel"] {
        assert_eq!(url(Telegram, TOKEN, Some(chat)).unwrap(), telegram);
    }
}

#[test]
fn g09_what_only_looks_like_a_service_is_refused() {
    use TargetKind::{Discord, Slack, Telegram};
    let rest = SLACK.strip_prefix("https://hooks.slack.com").unwrap();
    for host in [
        "hooks.slack.com.evil",
        "hooks.slack.com.evil.example",
        "hooks.slack.com@evil",
        "hooks.slack.com:443@evil",
        "user@hooks.slack.com",
        "user:pass@hooks.slack.com",
        "hooks.slack.com%2eevil",
        "hooks.slack.com.",
        "hooks.slack.com:8443",
        "hooks.slack.com:0443",
        "hooks.slack.com:",
        "hooks.slack.com#",
        "hooks.slack.com?",
        "hooks.slack.com\\evil",
        "evil\\@hooks.slack.com",
        "evil#@hooks.slack.com",
        "xhooks.slack.com",
        "hooks.slack.com\t",
        " hooks.slack.com",
        "hooks\u{3002}slack.com",
        "ｈooks.slack.com",
        "hooks.sla\u{212a}.com",
        "slack.com",
        "127.0.0.1",
        "[::1]",
        "2130706433",
        "0x7f000001",
        "",
    ] {
        let error = url(Slack, &format!("https://{host}{rest}"), None).unwrap_err();
        assert_eq!(error, AddressError::Host("hooks.slack.com"), "{host}");
    }
    for scheme in ["http://", "//", "", "https:/", "https:\\\\", "ftp://", " https://", "wss://"] {
        let error = url(Slack, &SLACK.replace("https://", scheme), None).unwrap_err();
        assert_eq!(error, AddressError::Scheme, "{scheme}");
    }
    for path in [
        "/",
        "/services/T1/B1",
        "/services/T1/B1/",
        "/services/T1/B1/abc/",
        "/services/T1/B1/abc/more",
        "/services/T1/B1/abc?x=1",
        "/services/T1/B1/abc#x",
        "/services/T1/B1/a%2fb",
        "/services/T1/../abc",
        "//services/T1/B1/abc",
        "/services/t1/B1/abc",
        "/services/B1/T1/abc",
        "/workflows/T1/A1/1/abc",
        "/triggers/T1/1/abc",
    ] {
        let error = url(Slack, &format!("https://hooks.slack.com{path}"), None).unwrap_err();
        assert!(matches!(error, AddressError::Path(_)), "{path}");
    }
    for text in [
        DISCORD.replace("discord.com", "discord.com.evil"),
        DISCORD.replace("discord.com", "canary.discord.com"),
        DISCORD.replace("discord.com", "discord.com@evil"),
        SLACK.to_owned(),
    ] {
        assert!(matches!(url(Discord, &text, None), Err(AddressError::Host(_))), "{text}");
    }
    for text in [
        format!("{DISCORD}/slack"),
        format!("{DISCORD}/messages/1"),
        format!("{DISCORD}?wait=true"),
        format!("{DISCORD}?thread_id=1&wait=true"),
        format!("{DISCORD}?thread_id="),
        DISCORD.replace("/api/", "/api/v/"),
        DISCORD.replace("/api/", "/api/vx/"),
        DISCORD.replace("/api/", "/"),
        DISCORD.replace("123456789012345678", "12a"),
    ] {
        assert!(matches!(url(Discord, &text, None), Err(AddressError::Path(_))), "{text}");
    }
    for token in ["", ":", "123:", ":abc", "12a:abc", "123:ab/c", "123:abc/../x", "123:a:b", "123:abc\n", "١٢:abc"] {
        assert_eq!(url(Telegram, token, Some("1")).unwrap_err(), AddressError::Token, "{token}");
    }
    for chat in [None, Some(""), Some("-"), Some("--1"), Some("@"), Some("@1a"), Some("a"), Some("1 2"), Some("@a b")] {
        assert_eq!(url(Telegram, TOKEN, chat).unwrap_err(), AddressError::Chat, "{chat:?}");
    }
    assert_eq!(url(Slack, SLACK, Some("1")).unwrap_err(), AddressError::ChatUnwanted);
    assert_eq!(url(Slack, &format!("{SLACK}{}", "a".repeat(2000)), None).unwrap_err(), AddressError::TooLong);
}

fn any_kind() -> impl Strategy<Value = TargetKind> {
    prop_oneof![Just(TargetKind::Slack), Just(TargetKind::Discord), Just(TargetKind::Telegram)]
}

/// Good addresses with something put in, taken out or changed somewhere, and nonsense.
fn nearly() -> impl Strategy<Value = String> {
    let good = prop_oneof![Just(SLACK), Just(DISCORD), Just(TOKEN)];
    let piece = prop_oneof![
        "[@:/?#%\\\\.a-zA-Z0-9 \t\n\\-]{0,3}",
        Just("@evil".to_owned()),
        Just(".evil".to_owned()),
        Just("%2e".to_owned()),
        "\\PC{0,2}",
    ];
    let changed = (good, any::<prop::sample::Index>(), 0..3usize, piece).prop_map(|(good, at, out, piece)| {
        let at = at.index(good.len());
        let end = (at + out).min(good.len());
        format!("{}{piece}{}", &good[..at], &good[end..])
    });
    prop_oneof![changed, "\\PC{0,60}"]
}

proptest! {
    #[test]
    fn g09_whatever_is_taken_leads_to_the_service_and_nowhere_else(kind in any_kind(), text in nearly()) {
        let chat = (kind == TargetKind::Telegram).then_some("1");
        let Ok(url) = url(kind, &text, chat) else { return Ok(()) };
        let hosts: &[&str] = match kind {
            TargetKind::Slack => &["hooks.slack.com"],
            TargetKind::Discord => &["discord.com", "discordapp.com"],
            TargetKind::Telegram => &["api.telegram.org"],
        };
        let rest = url.strip_prefix("https://").unwrap();
        let (host, path) = rest.split_once('/').unwrap();
        prop_assert!(hosts.contains(&host));
        prop_assert!(path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/_-:?=".contains(&byte)));
        prop_assert!(!path.contains("//") && !path.contains(".."));
    }

    #[test]
    fn g09_no_error_repeats_the_address(kind in any_kind(), text in "[a-zA-Z0-9]{12,40}") {
        if let Err(error) = url(kind, &text, None) {
            prop_assert!(!error.to_string().contains(&text));
        }
    }

    #[test]
    fn g09_a_message_fits_and_calls_nobody(
        kind in any_kind(),
        spaces in prop::collection::vec("\\PC{0,120}|<!here> @channel @everyone|[x](https://evil.example)", 1..60),
    ) {
        let notices: Vec<Notice> = spaces.iter().map(|space| notice(What::Question, space)).collect();
        let body = message(kind, Some("1"), &notices, Some("https://console.example/"));
        let text = body["text"].as_str().or(body["content"].as_str()).unwrap();
        let longest = match kind { TargetKind::Slack => 3000, TargetKind::Discord => 2000, TargetKind::Telegram => 4096 };
        prop_assert!(text.encode_utf16().count() <= longest);
        prop_assert!(!text.contains("://evil"));
        if kind == TargetKind::Slack {
            prop_assert!(!text.contains(['<', '>']) && !text.contains("@channel"));
        }
        if kind == TargetKind::Discord {
            prop_assert!(!text.contains("@everyone") && !text.contains("[x]("));
        }
    }

    #[test]
    fn g09_a_pause_grows_and_is_never_shorter_than_was_asked(tried in 1..60u64, asked in 0..7200u64, chance: u64) {
        let asked = Duration::from_secs(asked);
        let waited = pause(tried, Some(asked), chance);
        prop_assert!(waited >= asked.min(LONGEST_PAUSE) && waited <= LONGEST_PAUSE * 5 / 4);
        let own = pause(tried, None, chance);
        prop_assert!(own >= FIRST_PAUSE * 3 / 4 && own <= LONGEST_PAUSE * 5 / 4);
        prop_assert!(tried >= 40 || pause(tried + 2, None, 0) >= pause(tried, None, 0));
    }
}

fn notice(what: What, space: &str) -> Notice {
    Notice { what, agent: Some("developer".parse().unwrap()), space: space.to_owned(), path: "/approvals".to_owned() }
}

#[test]
fn g09_a_message_says_who_waits_for_what_and_where() {
    let waiting = |tool: &str| notice(What::Approval { tool: tool.parse().unwrap() }, "billing <!here> & co");
    let one = message(TargetKind::Slack, None, &[waiting("bash")], Some("https://console.example"));
    assert_eq!(
        one["text"],
        "Approval wanted for bash: agent developer, space billing &lt;!here&gt; &amp; co https://console.example/approvals"
    );
    assert_eq!((&one["mrkdwn"], &one["parse"], &one["link_names"]), (&false.into(), &"none".into(), &false.into()));
    let done = |state: &str| notice(What::JobEnded { state: state.to_owned() }, "x");
    let several = [waiting("bash"), waiting("write_file"), done("timeout"), done("ok"), done("canceled")];
    let text = message(TargetKind::Telegram, Some("7"), &several, None);
    let lines: Vec<&str> = text["text"].as_str().unwrap().lines().collect();
    assert_eq!(lines[0], "2 approvals wait, 1 job failed, 2 jobs ended:");
    assert_eq!((lines.len(), lines[3]), (6, "A job ended (timeout): agent developer, space x"));
    assert!(text.get("parse_mode").is_none());
    let discord = message(TargetKind::Discord, None, &[notice(What::Question, "**@everyone**")], None);
    assert_eq!(discord["content"], "An agent asks a question: agent developer, space \\*\\*@\u{2060}everyone\\*\\*");
    assert_eq!(discord["allowed_mentions"], serde_json::json!({ "parse": [] }));
    let many: Vec<Notice> = (0..100).map(|_| waiting("bash")).collect();
    let text = message(TargetKind::Discord, None, &many, None);
    let text = text["content"].as_str().unwrap();
    assert!(text.starts_with("100 approvals wait:") && text.contains("\nand ") && text.ends_with(" more"), "{text}");
}
