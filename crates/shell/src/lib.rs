//! The `virtual` sandbox: a bash that runs inside the server's process.
//!
//! A [`Shell`] executes commands with an in-process interpreter. It starts no
//! process, opens no socket, and sees no file of the host but those of one
//! space, through [`bailiwick_files::Workspace`]; the rest of its file system
//! is in memory. Nothing of the server's environment is passed in. Each call
//! runs on a thread of its own from a bounded [`ShellPool`], so that a busy
//! command never delays the server, with a wall clock watched from outside.
//!
//! What this backend does not defend: it shares the server's address space. A
//! fault in the interpreter can stop the server or, in theory, read its
//! memory; tenants that need more than text work, or less trust than this,
//! belong in a sandbox with a kernel boundary. This is the only crate that may
//! depend on the interpreter.

mod error;
mod exec;
mod gate;
mod interpreter;
mod output;
mod pool;
mod spec;
mod tmp;
mod workspace_fs;

pub use error::ShellError;
pub use exec::Shell;
pub use output::{Output, Status, Stream};
pub use pool::{PoolLimits, ShellPool};
pub use spec::{Mount, ShellLimits, ShellSpec};
pub use tmp::SharedTmp;
