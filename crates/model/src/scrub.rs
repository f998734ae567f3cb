//! Takes the key out of a provider's words. Providers and proxies do echo the header that they
//! refuse, whole or cut. This must run before such words are stored, shown or logged anywhere.

use zeroize::Zeroizing;

use crate::ProviderText;

/// Knows the key of one call, to recognise it.
#[derive(Clone)]
pub(crate) struct Scrub {
    key: Zeroizing<String>,
}

impl Scrub {
    pub(crate) fn new(key: Option<&str>) -> Self {
        Self { key: Zeroizing::new(key.unwrap_or_default().to_owned()) }
    }

    /// The words without any piece of the key of [`WINDOW`] characters or more, without control
    /// characters, cut to [`MAX_CHARS`].
    pub(crate) fn clean(&self, words: &str) -> ProviderText {
        let words = &words[..words.floor_char_boundary(MAX_READ)];
        let covered = self.covered(words.as_bytes());
        let mut clean = String::new();
        let mut kept = 0;
        let mut inside = false;
        for (at, c) in words.char_indices() {
            if kept == MAX_CHARS {
                clean.push('…');
                break;
            }
            if covered[at] {
                if !inside {
                    clean.push_str("[redacted]");
                }
                inside = true;
                continue;
            }
            inside = false;
            kept += 1;
            clean.push(if c.is_control() { ' ' } else { c });
        }
        ProviderText(clean)
    }

    /// An identifier of the provider's, if it is a plain one and holds nothing of the key.
    pub(crate) fn identifier(&self, id: &str) -> Option<String> {
        let plain = id.len() <= 200 && id.bytes().all(|b| b.is_ascii_graphic());
        let clean = !self.covered(id.as_bytes()).contains(&true);
        (plain && clean && !id.is_empty()).then(|| id.to_owned())
    }

    fn covered(&self, words: &[u8]) -> Vec<bool> {
        let key = self.key.as_bytes();
        let mut covered = vec![false; words.len()];
        let window = WINDOW.min(key.len());
        if window < MIN_KEY {
            return covered;
        }
        for start in 0..(words.len() + 1).saturating_sub(window) {
            let piece = &words[start..start + window];
            if key.windows(window).any(|w| w == piece) {
                covered[start..start + window].fill(true);
            }
        }
        covered
    }
}

/// Fewer characters of a key than this in a row are not a leak worth the false alarms.
const WINDOW: usize = 8;
/// A shorter "key" is a placeholder of a local server, and would blank ordinary words.
const MIN_KEY: usize = 6;
const MAX_READ: usize = 8 * 1024;
const MAX_CHARS: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "sk-ant-0123456789abcdefghij";

    #[test]
    fn whole_and_cut_keys_are_taken_out_and_other_words_stay() {
        let scrub = Scrub::new(Some(KEY));
        let words = format!("key {KEY} is wrong, also sk-ant-01234 and {}\n\u{7}end", &KEY[12..]);
        assert_eq!(scrub.clean(&words).as_str(), "key [redacted] is wrong, also [redacted] and [redacted]  end");
    }

    #[test]
    fn words_are_cut_and_other_scripts_survive() {
        let scrub = Scrub::new(Some(KEY));
        assert_eq!(scrub.clean(&"ü".repeat(9_000)).as_str().chars().count(), 1_001);
        assert_eq!(scrub.clean("größer als 4").as_str(), "größer als 4");
    }

    #[test]
    fn an_identifier_that_holds_the_key_is_dropped() {
        let scrub = Scrub::new(Some(KEY));
        assert_eq!(scrub.identifier("req_011CS"), Some("req_011CS".to_owned()));
        assert_eq!(scrub.identifier(&format!("req_{KEY}")), None);
        assert_eq!(scrub.identifier("a b"), None);
    }
}
