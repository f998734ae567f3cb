//! The seam to the vault. It exists so that this crate's tests can present a key without one.

/// A key in the clear, for the moment in which a header is written.
pub trait Credential: Send + Sync {
    /// The key's text.
    fn expose(&self) -> &str;
}

impl Credential for bailiwick_vault::Released {
    fn expose(&self) -> &str {
        bailiwick_vault::Released::expose(self)
    }
}
