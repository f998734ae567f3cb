//! Limits that hold everywhere (interface contract, section 4.5). One place, so that a document and
//! the code cannot disagree.

use std::time::Duration;

/// Largest request body of an ordinary route, bytes.
pub const BODY_BYTES: usize = 10 * 1024 * 1024;
/// Largest upload, bytes; uploads are streamed.
pub const UPLOAD_BYTES: u64 = 100 * 1024 * 1024;
/// Largest sum of request headers, bytes.
pub const HEADER_BYTES: usize = 32 * 1024;
/// Deepest nesting of a JSON body.
pub const JSON_DEPTH: usize = 64;
/// Most values in a JSON body: each costs memory far beyond its text.
pub const JSON_VALUES: usize = 200_000;
/// Longest request target, bytes.
pub const URI_BYTES: usize = 4 * 1024;
/// Most rows in one page of a listing.
pub const PAGE_ROWS: usize = 1_000;
/// Longest text of one message or answer, with the names of its files, bytes. Whoever follows the session
/// gets it as one event.
pub const MESSAGE_BYTES: usize = 256 * 1024;
/// Most parts of one message.
pub const MESSAGE_PARTS: usize = 256;

/// Lines of a tool's output that a model may see.
pub const OUTPUT_LINES: usize = 2_000;
/// Bytes of a tool's output that a model may see.
pub const OUTPUT_BYTES: usize = 50 * 1024;
/// Characters of one line of a tool's output that a model may see.
pub const OUTPUT_LINE_CHARS: usize = 2_000;

/// How long a person has to decide, unless the agent says otherwise.
pub const APPROVAL_TIME: Duration = Duration::from_secs(5 * 60);
/// How long a person may have to decide, whatever the agent says.
pub const LONGEST_APPROVAL_TIME: Duration = Duration::from_secs(7 * 24 * 60 * 60);
/// How long a tool call may take, unless the agent says otherwise.
pub const TOOL_TIME: Duration = Duration::from_secs(5 * 60);
/// How long a job of the kind `short` may take.
pub const SHORT_JOB_TIME: Duration = Duration::from_secs(5 * 60);
/// How long a job of the kind `clone` may take.
pub const CLONE_JOB_TIME: Duration = Duration::from_secs(10 * 60);
/// How long a job of the kind `build` may take.
pub const BUILD_JOB_TIME: Duration = Duration::from_secs(30 * 60);
/// Longest command of a job, bytes.
pub const JOB_COMMAND_BYTES: usize = 64 * 1024;
/// Jobs that an account keeps; beyond that the oldest that have ended go, with their logs.
pub const JOBS_KEPT: u64 = 100;
/// Jobs of one account that may wait.
pub const JOBS_WAITING: u64 = 32;
/// Jobs of one user that may wait.
pub const USER_JOBS_WAITING: u64 = 16;
/// Bytes of the beginning of a job's log that are kept.
pub const JOB_LOG_HEAD: usize = 1 << 20;
/// Bytes of the end of a job's log that are kept.
pub const JOB_LOG_TAIL: usize = 3 << 20;
/// Between SIGTERM and SIGKILL.
pub const KILL_GRACE: Duration = Duration::from_secs(5);
