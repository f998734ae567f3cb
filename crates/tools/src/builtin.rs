//! The built-in tools. Each takes the record of its call and the arguments that the gate has checked.

pub(crate) mod bash;
pub(crate) mod file;
pub(crate) mod plan;
pub(crate) mod search;
pub(crate) mod web;

use bailiwick_files::FileError;
use bailiwick_types::WorkspacePath;
use serde_json::Value;

use crate::run::ToolError;

pub(crate) fn text<'a>(arguments: &'a Value, name: &str) -> &'a str {
    arguments[name].as_str().unwrap_or_default()
}

pub(crate) fn count(arguments: &Value, name: &str) -> Option<usize> {
    arguments[name].as_u64().and_then(|n| usize::try_from(n).ok())
}

pub(crate) fn path(arguments: &Value) -> Result<WorkspacePath, ToolError> {
    WorkspacePath::parse_in_sandbox(text(arguments, "path"))
        .map_err(|error| ToolError::Said(format!("path_traversal: {error}")))
}

pub(crate) fn path_or_root(arguments: &Value) -> Result<WorkspacePath, ToolError> {
    if arguments["path"].is_null() { Ok(WorkspacePath::root()) } else { path(arguments) }
}

pub(crate) fn failed(path: &WorkspacePath) -> impl FnOnce(FileError) -> ToolError + use<> {
    let path = path.in_sandbox();
    move |error| match error {
        FileError::Refused { .. } => ToolError::Said(format!("path_traversal: {path}: {error}")),
        error => ToolError::File { path, error },
    }
}

/// Runs file work away from the threads that serve requests.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ToolError> + Send + 'static,
) -> Result<T, ToolError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| ToolError::Stopped)?
}
