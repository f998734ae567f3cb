//! Kept passwords that nobody made, and passwords that nobody types: nothing panics, nothing fits, and
//! nothing is computed that would stop every login.

use std::cell::RefCell;

use argon2::password_hash::PasswordVerifier;
use proptest::prelude::*;

use super::*;

/// What somebody who can write the table might write.
fn kept() -> impl Strategy<Value = String> {
    let figure = || prop_oneof![0u64..200, Just(u64::from(u32::MAX)), any::<u64>()];
    let word = || "[a-zA-Z0-9+/.]{0,44}";
    prop_oneof![
        (prop::sample::select(&["argon2id", "argon2i", "argon2d", "scrypt", ""]), figure(), figure(), figure())
            .prop_flat_map(move |(kind, m, t, p)| {
                (word(), word())
                    .prop_map(move |(salt, output)| format!("${kind}$v=19$m={m},t={t},p={p}${salt}${output}"))
            }),
        (prop::sample::select(&["2a", "2b", "2x", "2y", "2"]), 0u32..100, "[a-zA-Z0-9./]{50,55}")
            .prop_map(|(kind, cost, rest)| format!("${kind}${cost:02}${rest}")),
        "\\$(2b|argon2id)\\$[$a-zA-Z0-9=,\u{e9}\u{20ac}]{0,60}",
        any::<String>(),
    ]
}

thread_local! {
    /// In which hash after hash is computed.
    static USED: RefCell<Memory> = RefCell::default();
}

/// Whether a kept text is of the password, as the library's own check has it, too.
fn fits(kept: &str) -> bool {
    let ours = USED
        .with_borrow_mut(|memory| super::fits(&StoredPassword::from_text(kept.to_owned()), b"correct horse", memory));
    if let Some(Kept::Argon2(hash)) = Kept::read(kept) {
        assert_eq!(ours, Argon2::default().verify_password(b"correct horse", &*hash).is_ok(), "{kept}");
    }
    ours
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn i02_no_kept_text_asks_for_more_than_a_hash_may_take(text in kept()) {
        match Kept::read(&text) {
            Some(Kept::Argon2(hash)) => {
                let made = Params::try_from(&*hash).unwrap();
                prop_assert!(made.m_cost() <= MOST_MEMORY && made.t_cost() <= MOST_PASSES, "{text}");
                // Lanes cost nothing of their own: they share the memory.
                prop_assert!(made.p_cost() <= made.m_cost() / 8, "{text}");
                // What is bearable, and small enough for a test, is a hash that this does not fit.
                if made.m_cost() <= 1024 {
                    prop_assert!(!fits(&text));
                }
            }
            Some(Kept::Bcrypt(text)) => {
                let cost: u32 = text[4..6].parse().unwrap();
                prop_assert!(cost <= MOST_COST && text.len() == 60, "{text}");
            }
            None => prop_assert!(!fits(&text)),
        }
    }

    #[test]
    fn i02_a_kept_hash_with_another_letter_fits_nobody(at in any::<prop::sample::Index>(), letter in "[ -~]") {
        static GOOD: std::sync::LazyLock<String> = std::sync::LazyLock::new(|| {
            make(Algorithm::Argon2id { memory: 64, passes: 1 }, b"correct horse").unwrap().as_text().to_owned()
        });
        prop_assert!(fits(&GOOD), "the control");
        let mut changed = GOOD.clone().into_bytes();
        let at = at.index(changed.len());
        changed[at] = letter.as_bytes()[0];
        let changed = String::from_utf8(changed).unwrap();
        // Figures of a hash that would take a while are no matter of this test.
        let small = |hash: &Phc| Params::try_from(hash).is_ok_and(|made| made.m_cost() <= 1024);
        if changed != *GOOD && !matches!(Kept::read(&changed), Some(Kept::Argon2(hash)) if !small(&hash)) {
            prop_assert!(!fits(&changed), "{changed}");
        }
    }

    #[test]
    fn i02_any_text_is_a_password_or_is_told_why_not(text in prop_oneof![any::<String>(), "\\PC{0,30}", ".{300,700}"]) {
        let password = Password::new(&text);
        prop_assert_eq!(password.1 == Length::TooLong, text.len() > LONGEST);
        // As it is kept it is its own form, so a second reading changes nothing.
        if password.0.len() <= LONGEST {
            prop_assert_eq!(&*Password::new(&password.0).0, &*password.0);
        }
        for algorithm in [Algorithm::USUAL, Algorithm::Bcrypt { cost: 10 }] {
            if password.fit("alexandra", algorithm).is_ok() {
                prop_assert!(password.0.len() <= LONGEST && password.0.chars().count() >= SHORTEST);
                prop_assert!(algorithm == Algorithm::USUAL || password.0.len() <= BCRYPT_LONGEST);
            }
        }
    }
}
