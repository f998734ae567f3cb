//! x
use std::future::Future;
use std::pin::Pin;

use crate::rounds::Plan;

/// A scenario that runs.
pub type Scenario<'a> = Pin<Box<dyn Future<Output = Result<(), String>> + 'a>>;

/// x
pub fn all(_plan: &Plan) -> Vec<(&'static str, Scenario<'_>)> {
    Vec::new()
}
