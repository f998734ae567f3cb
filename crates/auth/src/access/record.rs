//! Effects outside the database: intent first, then the effect, then its outcome.

use std::future::Future;

use bailiwick_audit::{Draft, Phase, Verdict};
use serde_json::{Map, Value};

use super::resource::During;
use super::scope::{Permit, Scope};
use super::verb::{CallTool, Verb};

/// The record could not be written, so the act must not happen.
#[derive(Debug, thiserror::Error)]
#[error("the audit log could not be written, so nothing was done: try again, and tell the operator if it persists")]
pub struct JournalError(#[source] pub Box<dyn std::error::Error + Send + Sync>);

/// Where records are written. The store implements it; nobody else may (`xtask tidy` checks).
pub trait Journal: Send + Sync {
    /// Writes a line into the log of the scope's tenant, durably, and says its number.
    fn append(&self, scope: &Scope, draft: Draft) -> impl Future<Output = Result<u64, JournalError>> + Send;
}

/// Proof that the intent of an act is durably on record. An effect outside the database (a process, a
/// secret in the clear, a model call) takes one.
///
/// ```compile_fail,E0277
/// // An effect that demands the record of one verb cannot be had for another.
/// use bailiwick_auth::access::{Recorded, verb::{CallModel, CallTool, Verb}};
/// trait Runs {}
/// impl Runs for CallTool {}
/// fn run<V: Verb + Runs>(_: &Recorded<V>) {}
/// fn misuse(recorded: &Recorded<CallModel>) { run(recorded) }
/// ```
#[must_use = "an act on record should be done, and its outcome recorded"]
pub struct Recorded<V: Verb> {
    permit: Permit<V>,
    intent: u64,
    ground: Ground,
}

/// On what an act stands.
enum Ground {
    /// The policy.
    Policy,
    /// The policy, and a person who approved this very act.
    Person,
}

impl Recorded<CallTool> {
    /// What runs while this call does.
    pub fn during(&self) -> During {
        match self.ground {
            Ground::Policy => During::Call,
            Ground::Person => During::ApprovedCall,
        }
    }

    /// A call whose approval was used up with its intent.
    pub(crate) fn approved(permit: Permit<CallTool>, intent: u64) -> Self {
        Self { permit, intent, ground: Ground::Person }
    }
}

impl<V: Verb> Recorded<V> {
    pub(crate) fn new(permit: Permit<V>, intent: u64) -> Self {
        Self { permit, intent, ground: Ground::Policy }
    }

    /// On what.
    pub fn resource(&self) -> &V::Resource {
        self.permit.resource()
    }

    /// For whom.
    pub fn scope(&self) -> &Scope {
        self.permit.scope()
    }

    /// The number of the intent's line.
    pub fn intent(&self) -> u64 {
        self.intent
    }

    /// The record's line for the outcome.
    pub fn outcome(&self, verdict: Verdict, detail: Map<String, Value>) -> Draft {
        Draft { intent: Some(self.intent), ..self.permit.draft(Phase::Outcome, verdict, detail) }
    }

    /// Writes the outcome and ends the act.
    ///
    /// # Errors
    /// If it could not be written; the intent then stands without an outcome, which the log shows.
    pub async fn settle(
        self,
        journal: &impl Journal,
        verdict: Verdict,
        detail: Map<String, Value>,
    ) -> Result<(), JournalError> {
        journal.append(self.scope(), self.outcome(verdict, detail)).await.map(drop)
    }
}

/// Puts the intent on record and spends the permit.
///
/// # Errors
/// If the record cannot be written: the act must not happen (fail closed).
pub async fn record<V: Verb>(
    journal: &impl Journal,
    permit: Permit<V>,
    detail: Map<String, Value>,
) -> Result<Recorded<V>, JournalError> {
    let draft = permit.draft(Phase::Intent, Verdict::Begun, detail);
    let intent = journal.append(permit.scope(), draft).await?;
    Ok(Recorded::new(permit, intent))
}
