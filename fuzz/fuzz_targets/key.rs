//! Keys, ids and names: each has one spelling, and a key opens nothing but itself. What reads keys is compiled in
//! from its own file.

#![no_main]

use std::str::FromStr;
use std::sync::LazyLock;

use bailiwick_types::{
    AccountName, AgentName, ApprovalId, CallId, DeviceId, EventId, Incarnation, KeyId, ModelName, RequestId, SessionId,
    SpaceId, Timestamp, ToolName, UserName,
};
use key::{Form, KeyHash, KeyRing, Kind, PresentedKey};
use libfuzzer_sys::fuzz_target;

#[allow(dead_code)]
#[path = "../../crates/auth/src/key.rs"]
mod key;

/// What that file needs of its crate.
mod principal {
    #[allow(dead_code)]
    pub(crate) struct RootMark(pub(crate) u32);
}

static RING: LazyLock<KeyRing> = LazyLock::new(|| KeyRing::new([7; 32]));
/// A key that exists, of which only the hash is kept.
static STORED: LazyLock<KeyHash> = LazyLock::new(|| RING.make().expect("random bytes").hash);

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    once::<ApprovalId>(text);
    once::<CallId>(text);
    once::<EventId>(text);
    once::<Incarnation>(text);
    once::<DeviceId>(text);
    once::<KeyId>(text);
    once::<RequestId>(text);
    once::<SessionId>(text);
    once::<SpaceId>(text);
    once::<AccountName>(text);
    once::<AgentName>(text);
    once::<ModelName>(text);
    once::<ToolName>(text);
    once::<UserName>(text);
    // A time has several spellings, and is shown in one.
    if let Ok(time) = Timestamp::from_str(text) {
        let shown = time.to_string();
        let again = Timestamp::from_str(&shown).map(|time| time.to_string());
        assert_eq!(again.as_deref(), Ok(shown.as_str()), "{text}");
    }
    presented(text);
});

/// What is read is written as it was read.
fn once<T: FromStr + ToString + PartialEq + std::fmt::Debug>(text: &str)
where
    T::Err: std::fmt::Display,
{
    match T::from_str(text) {
        Ok(read) => assert_eq!(read.to_string(), text, "{read:?} has two spellings"),
        Err(problem) => assert!(!problem.to_string().is_empty()),
    }
}

fn presented(text: &str) {
    let shown = PresentedKey::new(text);
    assert!(RING.matches(&shown, &RING.hash(text)), "a key does not fit its own hash");
    assert!(!RING.matches(&shown, &STORED), "a made-up key opens a real one's door");
    let begins = match shown.form() {
        Form::Key(id) => format!("bwk_{id}_"),
        Form::Device(id) => format!("bwd_{id}_"),
        Form::Application(kind, id) => match kind {
            Kind::Code => format!("bwc_{id}_"),
            Kind::Access => format!("bwo_{id}_"),
            Kind::Refresh => format!("bwr_{id}_"),
        },
        Form::Other => return,
    };
    let secret = text.strip_prefix(&begins).expect("a key names its own id");
    assert!(secret.len() == 43 && !secret.contains('_') && secret.is_ascii(), "{begins}");
}
