//! Words that stand for secrets within a sandbox, and become them on the way out.

use std::collections::BTreeMap;

use bailiwick_types::Egress;
use bailiwick_types::egress::VariableName;
use serde::{Deserialize, Serialize};

/// What every such word begins with, so that people know one when they see it.
const BEGINS: &str = "bwp_";
/// How much chance is in one, bytes.
const CHANCE: usize = 20;

/// The words of one sandbox, by the variable in which it finds them. They are worth nothing anywhere else.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Placeholders(BTreeMap<VariableName, String>);

/// There is no chance to be had.
#[derive(Debug, thiserror::Error)]
#[error("the system gives no random bytes")]
pub struct NoChance;

impl Placeholders {
    /// A word for each variable that the rules name.
    ///
    /// # Errors
    /// [`NoChance`].
    pub fn random(egress: &Egress) -> Result<Self, NoChance> {
        let random = rustls::crypto::ring::default_provider().secure_random;
        let word = |name: &VariableName| {
            let mut bytes = [0; CHANCE];
            random.fill(&mut bytes).map_err(|_| NoChance)?;
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            Ok((name.clone(), format!("{BEGINS}{digits}")))
        };
        egress.variables().into_iter().map(word).collect::<Result<_, _>>().map(Self)
    }

    /// The word of a variable, if it is one that nothing else could be taken for.
    pub(crate) fn word(&self, variable: &VariableName) -> Option<&str> {
        let word = self.0.get(variable)?;
        let digits = word.strip_prefix(BEGINS)?;
        let fits = digits.len() == 2 * CHANCE && digits.bytes().all(|letter| letter.is_ascii_hexdigit());
        fits.then_some(word.as_str())
    }

    /// The variables and their words.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, word)| (name.as_str(), word.as_str()))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;

    #[test]
    fn g04_each_sandbox_has_words_of_its_own() {
        let rule = r#"{ "allow": { "a.example": [{ "transform": [
            { "placeholder": { "env": "ONE", "value": "secret:a", "body": true } },
            { "placeholder": { "env": "TWO", "value": "secret:b", "headers": ["x"] } } ] }] } }"#;
        let egress: Egress = serde_json::from_str(rule).unwrap();
        let (one, other) = (Placeholders::random(&egress).unwrap(), Placeholders::random(&egress).unwrap());
        let words = |all: &Placeholders| all.iter().map(|(_, word)| word.to_owned()).collect::<Vec<_>>();
        let mut all = [words(&one), words(&other)].concat();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 4);
        let kept: Placeholders = serde_json::from_str(&serde_json::to_string(&one).unwrap()).unwrap();
        assert_eq!(kept, one);
        let variable = egress.variables().into_iter().next().unwrap().clone();
        assert_eq!(one.word(&variable), one.iter().next().map(|(_, word)| word));
        // A word that is part of any text is none.
        let short: Placeholders = serde_json::from_str(r#"{ "ONE": "e" }"#).unwrap();
        assert_eq!(short.word(&variable), None);
    }
}
