//! Hides known secrets in text that a model or a person is about to see. The last net, not the first
//! wall: a secret should never have come that far.

use std::borrow::Cow;

use zeroize::Zeroizing;

/// Secrets shorter than this are not looked for: they would turn ordinary words into noise.
const SHORTEST: usize = 8;

/// Known secret values, and the names that stand in their place.
#[derive(Default)]
pub struct Redactor {
    known: Vec<(String, Zeroizing<String>)>,
}

impl Redactor {
    /// Looks for these values.
    pub fn new<'a>(secrets: impl Iterator<Item = (String, &'a str)>) -> Self {
        let mut known: Vec<(String, Zeroizing<String>)> = secrets
            .filter(|(_, value)| value.len() >= SHORTEST)
            .map(|(name, value)| (name, Zeroizing::new(value.to_owned())))
            .collect();
        // Longest first, so that a secret that contains another is hidden whole.
        known.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
        Self { known }
    }

    /// Looks for one more value.
    pub fn add(&mut self, name: String, value: &str) {
        if value.len() >= SHORTEST {
            let at = self.known.partition_point(|(_, other)| other.len() >= value.len());
            self.known.insert(at, (name, Zeroizing::new(value.to_owned())));
        }
    }

    /// The length of the longest value, bytes: who cuts a text must let so much more be looked through.
    pub fn longest(&self) -> usize {
        self.known.first().map_or(0, |(_, value)| value.len())
    }

    /// The text with every known secret replaced by `[redacted:NAME]`.
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let mut text = Cow::Borrowed(text);
        for (name, value) in &self.known {
            if text.contains(value.as_str()) {
                text = Cow::Owned(text.replace(value.as_str(), &format!("[redacted:{name}]")));
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_secrets_are_hidden_whole() {
        let secrets = [("short", "abc"), ("inner", "sk-12345678"), ("outer", "sk-12345678-long")];
        let redactor = Redactor::new(secrets.into_iter().map(|(n, v)| (n.to_owned(), v)));
        assert_eq!(redactor.redact("x sk-12345678-long y"), "x [redacted:outer] y");
        assert_eq!(redactor.redact("sk-12345678 and abc"), "[redacted:inner] and abc");
        assert!(matches!(redactor.redact("nothing here"), Cow::Borrowed(_)));
        assert_eq!((redactor.longest(), Redactor::default().longest()), (16, 0));
    }
}
