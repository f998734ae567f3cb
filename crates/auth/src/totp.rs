//! Codes of an authenticator app (RFC 6238: HMAC-SHA-1, 30 seconds, 6 digits, one step to either side),
//! and the recovery codes for who lost it.

use totp_rs::{Algorithm, Builder, Secret, Totp};
use zeroize::Zeroizing;

use crate::key::NoEntropy;

/// Bytes of a secret: as long as the hash's output (RFC 4226, section 4).
const SECRET_BYTES: usize = 20;
/// Recovery codes that are given out at once.
pub const RECOVERY_CODES: usize = 10;

/// A secret that was just made, as an app takes it.
pub struct NewTotp {
    /// What both sides keep.
    pub secret: Zeroizing<Vec<u8>>,
    /// The same in base 32, to be typed.
    pub text: Zeroizing<String>,
    /// `otpauth://totp/…`, to be shown as a QR code.
    pub url: Zeroizing<String>,
}

fn totp(secret: &[u8]) -> Option<Totp> {
    // A builder of the right algorithm, digits, skew and step, whatever the library's defaults become.
    let builder = Builder::new().with_algorithm(Algorithm::SHA1).with_digits(6).with_skew(1).with_step_duration(30);
    builder.with_secret(Secret::from(secret.to_vec())).build().ok()
}

/// Makes a secret for `user` of `issuer`, which is what the app shows.
///
/// # Errors
/// If the system gives no random bytes.
pub fn make(issuer: &str, user: &str) -> Result<NewTotp, NoEntropy> {
    let mut secret = Zeroizing::new(vec![0u8; SECRET_BYTES]);
    getrandom::fill(&mut secret).map_err(|_| NoEntropy)?;
    // A colon separates the two in the label.
    let plain = |text: &str| text.replace(':', " ");
    let builder = Builder::new()
        .with_algorithm(Algorithm::SHA1)
        .with_secret(Secret::from(secret.to_vec()))
        .with_issuer(Some(plain(issuer)))
        .with_account_name(plain(user));
    let named = builder.build().map_err(|_| NoEntropy)?;
    let text = Zeroizing::new(Secret::from(secret.to_vec()).to_base32());
    let url = Zeroizing::new(named.to_url().map_err(|_| NoEntropy)?);
    Ok(NewTotp { secret, text, url })
}

/// The step of a code, if it is one of now or of a step beside it, and of a later one than `last`.
pub fn check(secret: &[u8], code: &str, unix_seconds: u64, last: u64) -> Option<u64> {
    totp(secret)?.check(code, unix_seconds).filter(|step| *step > last)
}

#[cfg(test)]
fn code_at(secret: &[u8], unix_seconds: u64) -> Option<String> {
    totp(secret).map(|totp| totp.generate(unix_seconds).to_string())
}

/// Makes recovery codes: 60 random bits each, as three groups of four letters and digits.
///
/// # Errors
/// If the system gives no random bytes.
pub fn recovery_codes() -> Result<Vec<Zeroizing<String>>, NoEntropy> {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let one = |_| {
        let mut bytes = Zeroizing::new([0u8; 12]);
        getrandom::fill(&mut *bytes).map_err(|_| NoEntropy)?;
        let mut code = Zeroizing::new(String::with_capacity(14));
        for (n, byte) in bytes.iter().enumerate() {
            if n > 0 && n % 4 == 0 {
                code.push('-');
            }
            code.push(char::from(ALPHABET[usize::from(byte & 31)]));
        }
        Ok(code)
    };
    (0..RECOVERY_CODES).map(one).collect()
}

/// What was typed, if it could be a recovery code rather than an app's: without spaces, in lower case.
pub fn recovery_form(text: &str) -> Option<Zeroizing<String>> {
    let text: Zeroizing<String> =
        Zeroizing::new(text.chars().filter(|c| !c.is_whitespace()).flat_map(char::to_lowercase).collect());
    let form = |(n, byte): (usize, u8)| if n % 5 == 4 { byte == b'-' } else { byte.is_ascii_alphanumeric() };
    (text.len() == 14 && text.bytes().enumerate().all(form)).then_some(text)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RFC: &[u8] = b"12345678901234567890";

    #[test]
    fn i05_the_vectors_of_rfc_6238_for_sha_1() {
        // Appendix B, the last six of its eight digits.
        for (at, code) in [
            (59, "287082"),
            (1_111_111_109, "081804"),
            (1_111_111_111, "050471"),
            (1_234_567_890, "005924"),
            (2_000_000_000, "279037"),
            (20_000_000_000, "353130"),
        ] {
            assert_eq!(code_at(RFC, at).unwrap(), code, "{at}");
            assert_eq!(check(RFC, code, at, 0), Some(at / 30), "{at}");
        }
    }

    #[test]
    fn i05_one_step_to_either_side_and_no_further_and_none_twice() {
        let now = 2_000_000_010;
        for (off, good) in [(-60, false), (-30, true), (0, true), (30, true), (60, false)] {
            let at = now + off;
            let code = code_at(RFC, u64::try_from(at).unwrap()).unwrap();
            assert_eq!(check(RFC, &code, u64::try_from(now).unwrap(), 0).is_some(), good, "{off}");
        }
        let now = u64::try_from(now).unwrap();
        let code = code_at(RFC, now).unwrap();
        let step = check(RFC, &code, now, 0).unwrap();
        assert_eq!(check(RFC, &code, now, step), None, "the same code again");
        let before = code_at(RFC, now - 30).unwrap();
        assert_eq!(check(RFC, &before, now, step), None, "an older one after it");
        for wrong in ["", "27903", "2790370", "27903x", " 279037", "٢٧٩٠٣٧"] {
            assert_eq!(check(RFC, wrong, 2_000_000_000, 0), None, "{wrong:?}");
        }
        assert_eq!(check(b"short", &code, now, 0), None, "a damaged secret fits nothing");
    }

    #[test]
    fn i05_an_app_reads_the_secret_that_was_made() {
        let made = make("Bailiwick: test", "ann@example.org").unwrap();
        assert_eq!(made.secret.len(), 20);
        assert!(made.url.starts_with("otpauth://totp/"), "{}", *made.url);
        assert!(made.url.contains(&format!("secret={}", *made.text)));
        assert_eq!(*Secret::try_from_base32(made.text.as_str()).unwrap().as_bytes(), made.secret[..]);
        assert_ne!(make("a", "b").unwrap().secret, made.secret);
    }

    #[test]
    fn recovery_codes_are_read_as_a_person_types_them() {
        let codes = recovery_codes().unwrap();
        assert_eq!(codes.len(), RECOVERY_CODES);
        for code in &codes {
            let typed = format!(" {} ", code.to_uppercase());
            assert_eq!(recovery_form(&typed).unwrap(), *code);
        }
        for other in ["", "123456", "abcd-efgh", "abcd-efgh_ijkm"] {
            assert!(recovery_form(other).is_none(), "{other}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn i05_what_is_taken_is_a_code_of_its_step_and_in_one_spelling(
            at in prop_oneof![0u64..100, 0u64..1 << 40],
            off in -3i64..=3,
            last in prop_oneof![Just(0), 0u64..1 << 36],
            typed in prop_oneof![Just(None), prop_oneof!["[0-9]{6}", "[0-9+ -]{5,7}", any::<String>()].prop_map(Some)],
            secret in prop_oneof![Just(RFC.to_vec()), prop::collection::vec(any::<u8>(), 0..40)],
        ) {
            let right = code_at(&secret, at.saturating_add_signed(off * 30));
            let Some(code) = typed.or(right) else {
                // A secret that is too short for an app fits nothing.
                let taken = (0..10).find_map(|n| check(&secret, &format!("{n:06}"), at, 0));
                prop_assert_eq!(taken, None);
                return Ok(());
            };
            let fits = |step: &u64| code_at(&secret, step * 30).as_deref() == Some(code.as_str());
            let (now, found) = (at / 30, check(&secret, &code, at, last));
            let wanted = (now.saturating_sub(1)..=now + 1).find(fits).filter(|step| *step > last);
            prop_assert_eq!(found, wanted);
            prop_assert!(found.is_none() || code.len() == 6 && code.bytes().all(|byte| byte.is_ascii_digit()));
        }

        #[test]
        fn i05_a_recovery_code_has_one_form_whatever_was_typed(text in prop_oneof![
            any::<String>(),
            "[a-zA-Z0-9\u{212a}\u{130} -]{12,18}",
            "( ?[a-kA-Z2-9]{4}[-_ ]?){3}",
        ]) {
            if let Some(form) = recovery_form(&text) {
                let groups: Vec<&str> = form.split('-').collect();
                prop_assert!(groups.len() == 3 && groups.iter().all(|group| group.len() == 4), "{}", *form);
                prop_assert!(!form.contains(|c: char| c.is_ascii_uppercase() || c.is_whitespace() || !c.is_ascii()));
                prop_assert_eq!(recovery_form(&form), Some(form.clone()), "the form of itself");
                prop_assert_eq!(recovery_form(&form.to_uppercase()), Some(form));
                // What an app shows is never taken for one, nor the other way round.
                prop_assert_eq!(check(RFC, &text, 59, 0), None);
            }
        }
    }
}
