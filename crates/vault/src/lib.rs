//! Secrets. What is sealed here leaves only as a [`Released`] value, and only against a record.

use zeroize::Zeroizing;

/// A secret in the clear, for the moment of its use. Not `Debug`, `Display`, `Clone` or `Serialize`; wiped on drop.
pub struct Released(Zeroizing<String>);

impl Released {
    /// The secret's text. Call it where the header is written, and nowhere else.
    pub fn expose(&self) -> &str {
        &self.0
    }
}
