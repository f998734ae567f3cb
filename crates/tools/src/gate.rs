//! The gate: what has to be true before a call may run. One order, for every door.

use bailiwick_auth::access::{Asks, Session, ToolCall, ToolVerdict, Unapproved};
use bailiwick_auth::{Permit, Refusal, Scope, access::verb::CallTool};
use bailiwick_types::{AgentDefinition, CallId};
use serde_json::Value;

use crate::catalogue::{self, Kind, ToolDefinition};
use crate::label::clip;

pub use crate::label::label;

/// A call as the model asked for it.
#[derive(Debug, Clone)]
pub struct ToolRequest {
    /// Our id for it.
    pub id: CallId,
    /// The name that the model used.
    pub name: String,
    /// The arguments that the model wrote.
    pub arguments: Value,
}

/// What the gate says.
pub enum Judged {
    /// It may run.
    Go(Permit<CallTool>, &'static ToolDefinition),
    /// It may run if a person says so.
    Ask(Asked),
    /// It asks a person something and then has its answer.
    Question(Permit<CallTool>, Question),
    /// It must not run.
    Refused(Refused),
}

/// A call that waits for a person.
pub struct Asked {
    /// The call.
    pub call: Unapproved,
    /// Its tool.
    pub tool: &'static ToolDefinition,
    /// What the person approves: definition and arguments.
    pub digest: [u8; 32],
    /// In words.
    pub prompt: String,
}

/// A question of the agent's.
#[derive(Debug, Clone)]
pub struct Question {
    /// In words.
    pub text: String,
    /// Labels and descriptions of the choices.
    pub options: Vec<(String, Option<String>)>,
}

/// Why a call must not run.
#[derive(Debug)]
pub struct Refused {
    /// For the model.
    pub message: String,
    /// A stable word.
    pub code: &'static str,
    /// The policy's refusal, if it was the policy.
    pub refusal: Option<Refusal>,
}

fn refused(code: &'static str, message: String) -> Judged {
    Judged::Refused(Refused { message, code, refusal: None })
}

/// Judges a call of `agent` in `session` for the caller of `scope`.
pub fn judge(scope: &Scope, session: &Session, agent: &AgentDefinition, request: &ToolRequest) -> Judged {
    let Some(tool) = catalogue::find(&request.name) else {
        let message = format!("There is no tool named {:?}.", clip(&request.name, 64));
        return refused("tool_unknown", message);
    };
    if let Err(problem) = tool.check(&request.arguments) {
        // The grant is asked first on purpose of the record; but a tool that was not granted must not
        // explain its schema.
        if agent.tools.contains(&tool.name) {
            return refused(
                "arguments_invalid",
                format!("The arguments do not fit the schema: {}", clip(&problem, 600)),
            );
        }
    }
    let asks = if agent.elevated.contains(&tool.name) {
        Asks::Elevated
    } else if agent.require_approval.contains(&tool.name) {
        Asks::Required
    } else {
        Asks::No
    };
    let call = ToolCall::asked(
        session.clone(),
        request.id,
        tool.name.clone(),
        request.arguments.clone(),
        agent.tools.clone(),
        asks,
    );
    match scope.judge(call) {
        Err(refusal) => {
            let code = refusal.code().unwrap_or("not_found");
            let message = refusal.message().to_owned();
            Judged::Refused(Refused { message, code, refusal: Some(refusal) })
        }
        Ok(ToolVerdict::Go(permit)) if tool.kind == Kind::AskQuestion => {
            Judged::Question(permit, question(&request.arguments))
        }
        Ok(ToolVerdict::Go(permit)) => Judged::Go(permit, tool),
        Ok(ToolVerdict::Ask(call)) => match tool.approval_digest(&request.arguments) {
            Ok(digest) => {
                let prompt = format!("Approve {}?", label(tool, &request.arguments));
                Judged::Ask(Asked { call, tool, digest, prompt })
            }
            Err(_) => refused("arguments_invalid", "The arguments hold a number that cannot be shown.".to_owned()),
        },
    }
}

fn question(arguments: &Value) -> Question {
    let text = arguments["question"].as_str().unwrap_or_default().to_owned();
    let options = arguments["options"].as_array().map_or_else(Vec::new, |options| {
        options
            .iter()
            .filter_map(|option| {
                let description = option["description"].as_str().map(str::to_owned);
                Some((option["label"].as_str()?.to_owned(), description))
            })
            .collect()
    });
    Question { text, options }
}
