//! The decision about a tool call, which alone has a third answer: ask a person.

use serde_json::{Map, Value};

use super::policy::Decision;
use super::resource::{Asks, ToolCall};
use super::scope::{Permit, Refusal, Scope};
use super::verb::{CallTool, Verb};

/// What the policy and the agent's definition say about a call.
pub enum ToolVerdict {
    /// It may run now.
    Go(Permit<CallTool>),
    /// It may run if a person says so.
    Ask(Unapproved),
}

/// A call that is permitted but for a person's decision. Only the store can turn it into a record of
/// the call, in the transaction that uses the approval up.
pub struct Unapproved {
    permit: Permit<CallTool>,
    because: &'static str,
}

impl Unapproved {
    /// Why a person is asked: `require_approval`, `elevated` or `account_policy`.
    pub fn because(&self) -> &'static str {
        self.because
    }

    /// The call.
    pub fn call(&self) -> &ToolCall {
        self.permit.resource()
    }

    /// For whom.
    pub fn scope(&self) -> &Scope {
        self.permit.scope()
    }

    pub(crate) fn into_permit(self) -> Permit<CallTool> {
        self.permit
    }
}

impl Scope {
    /// Judges a tool call with its arguments.
    ///
    /// # Errors
    /// A refusal: the tool is not granted, or a policy forbids the call.
    pub fn judge(&self, call: ToolCall) -> Result<ToolVerdict, Refusal> {
        let decision = self.decide(CallTool::NAME, &call, Some(&arguments(&call)));
        // Allow < Ask < Deny: the definition can raise the policy's answer, never lower it.
        let asked = match call.asks {
            Asks::No => Decision::Allow,
            Asks::Required => Decision::Ask("require_approval"),
            Asks::Elevated => Decision::Ask("elevated"),
        };
        match decision.max(asked) {
            Decision::Allow => Ok(ToolVerdict::Go(self.permit(call))),
            Decision::Ask(because) => Ok(ToolVerdict::Ask(Unapproved { permit: self.permit(call), because })),
            Decision::Deny(code) => Err(self.refuse(CallTool::NAME, &call, code)),
        }
    }
}

fn arguments(call: &ToolCall) -> Map<String, Value> {
    call.arguments.as_object().cloned().unwrap_or_default()
}
