//! What an account adds to the base policy: how it is read, bounded and checked.

use std::sync::{Arc, LazyLock};

use cedar_policy::{Effect, PolicySet, ValidationMode, Validator};
use sha2::{Digest, Sha256};

use super::BASE;
use super::slice::Rules;

/// What is wrong with an account's policies.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// Not Cedar.
    #[error("the policy cannot be read: {0}")]
    Syntax(String),
    /// A permit, which an account may not write.
    #[error("policy {0} is a permit: an account's policies may only forbid")]
    Permits(String),
    /// Does not fit the schema.
    #[error("the policy does not fit the schema: {0}")]
    Schema(String),
    /// A template, which would need a link.
    #[error("templates are not supported: write the policy out")]
    Template,
    /// Longer than allowed.
    #[error("too long: at most {0} bytes")]
    TooLong(usize),
    /// More nested, chained or long-worded than a policy needs to be.
    #[error("too complex: {0}")]
    TooComplex(&'static str),
    /// The checker did not come back.
    #[error("the policy could not be checked")]
    Unchecked,
}

/// Longest text of an account's policies, bytes.
const LONGEST_POLICY: usize = 256 * 1024;
/// Brackets inside brackets.
const DEEPEST: usize = 12;
/// Operators and branches of one policy.
const OPERATORS: usize = 150;
/// Longest text in quotes, bytes: a pattern costs its length times that of what it is held against.
const LONGEST_WORD: usize = 512;
/// The policy engine recurses; this is more stack than a policy within the bounds above can use.
const CHECKER_STACK: usize = 64 * 1024 * 1024;

/// Refuses what would cost the engine more than a policy is worth. The engine's parser and evaluator
/// recurse on the caller's stack, and a stack that overflows ends the server for everybody.
fn bounded(text: &str) -> Result<(), PolicyError> {
    if text.len() > LONGEST_POLICY {
        return Err(PolicyError::TooLong(LONGEST_POLICY));
    }
    let (mut depth, mut operators, mut word) = (0usize, 0usize, None::<usize>);
    let mut letters = text.bytes().peekable();
    let mut previous = b' ';
    while let Some(letter) = letters.next() {
        if let Some(length) = &mut word {
            *length += 1;
            match letter {
                b'\\' => drop(letters.next()),
                b'"' => word = None,
                _ if *length > LONGEST_WORD => return Err(PolicyError::TooComplex("a text in quotes is too long")),
                _ => {}
            }
            continue;
        }
        match letter {
            b'"' => word = Some(0),
            b'/' if letters.peek() == Some(&b'/') => while letters.next_if(|next| *next != b'\n').is_some() {},
            b'(' | b'[' | b'{' => {
                depth += 1;
                operators += 1;
            }
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            b'+' | b'-' | b'*' | b'!' | b'.' | b'<' | b'>' | b'=' | b'&' | b'|' => operators += 1,
            b';' => operators = 0,
            // A word of the language begins: `if`, `like`, `in`, `has`, `is` nest as operators do.
            b'a'..=b'z' if !previous.is_ascii_alphanumeric() => operators += 1,
            _ => {}
        }
        previous = letter;
        if depth > DEEPEST {
            return Err(PolicyError::TooComplex("brackets are nested too deep"));
        }
        if operators > OPERATORS {
            return Err(PolicyError::TooComplex("one policy has too many operators: write several"));
        }
    }
    Ok(())
}

/// What an account adds to the base policy: forbids and demands for approval.
pub struct AccountPolicies {
    pub(super) rules: Rules,
    pub(super) id: PoliciesId,
}

/// Tells one set of policies from another: the digest of what the account added.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct PoliciesId([u8; 32]);

impl PoliciesId {
    /// The base policy alone. No text has this digest.
    pub(super) const BASE: Self = Self([0; 32]);
}

impl AccountPolicies {
    /// Nothing beyond the base policy.
    pub fn none() -> Arc<Self> {
        static NONE: LazyLock<Arc<AccountPolicies>> =
            LazyLock::new(|| Arc::new(AccountPolicies { rules: Rules::default(), id: PoliciesId::BASE }));
        Arc::clone(&NONE)
    }

    /// Reads and checks an account's policies.
    ///
    /// # Errors
    /// What is wrong, for the admin who wrote them.
    pub fn parse(text: &str) -> Result<Arc<Self>, PolicyError> {
        bounded(text)?;
        let text = text.to_owned();
        let checker = std::thread::Builder::new().name("policy".to_owned()).stack_size(CHECKER_STACK);
        let checked = checker.spawn(move || Self::check(&text)).map_err(|_| PolicyError::Unchecked)?;
        checked.join().map_err(|_| PolicyError::Unchecked)?
    }

    fn check(text: &str) -> Result<Arc<Self>, PolicyError> {
        let own: PolicySet = text.parse().map_err(|error| PolicyError::Syntax(format!("{error}")))?;
        if own.templates().next().is_some() {
            return Err(PolicyError::Template);
        }
        if let Some(permit) = own.policies().find(|policy| policy.effect() == Effect::Permit) {
            return Err(PolicyError::Permits(permit.annotation("id").unwrap_or("without @id").to_owned()));
        }
        let checked = Validator::new(BASE.schema.clone()).validate(&own, ValidationMode::Strict);
        if let Some(error) = checked.validation_errors().next() {
            return Err(PolicyError::Schema(error.to_string()));
        }
        let mut rules = Rules::default();
        for policy in own.policies() {
            rules.add(policy.clone()).map_err(PolicyError::Syntax)?;
        }
        Ok(Arc::new(Self { rules, id: PoliciesId(Sha256::digest(text).into()) }))
    }
}
