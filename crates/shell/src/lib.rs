//! The `virtual` sandbox: a bash that is a library, not a program.
//!
//! A [`Shell`] executes commands with an interpreter that starts no process,
//! opens no socket, and sees no file of the host but those of one space and
//! one temporary directory, through [`bailiwick_files::Workspace`]; the rest
//! of its file system is in memory. Nothing of the server's environment is
//! passed in. It needs no root, no container engine and no namespaces.
//!
//! The interpreter's own limits do not hold against stack overflow: a few
//! kilobytes of nested brackets end the process it runs in. So it runs in a
//! worker process per command ([`Isolation::Process`]), forked with no
//! environment and two directory descriptors, behind resource limits,
//! Landlock and a system call allow-list; a worker that crashes or ignores
//! its deadline is killed and harms one call. This crate says what a worker
//! does; whoever may start processes makes it ([`WorkerSource`]).
//! [`Isolation::Thread`] keeps the interpreter in the server and is for tests
//! and for hosts with a single trusted user.
//!
//! What this backend does not defend: the worker runs as the server's user in
//! the server's namespaces, and a kernel without Landlock leaves it that
//! user's view of files. Tenants that need more than text work belong in a
//! sandbox of their own. Some of the interpreter's caps cut silently (brace
//! expansions beyond 100,000 words). This is the only crate that may depend on the interpreter.

mod confine;
mod devices;
mod ending;
mod error;
mod exec;
mod gate;
mod interpreter;
mod omit;
mod output;
mod pool;
mod process;
mod receipt;
mod spec;
mod thread;
mod tmp;
mod wire;
mod worker;
mod workspace_fs;

pub use error::ShellError;
pub use exec::Shell;
#[cfg(debug_assertions)]
pub use omit::OnDifference;
pub use omit::Wall;
pub use output::{Output, Status, Stream};
pub use pool::{Isolation, PoolLimits, ShellPool};
pub use process::{WorkerEnd, WorkerParts, WorkerProcess, WorkerSource};
pub use receipt::{Confinement, Fact, Landlock, Receipt};
pub use spec::{Mount, ShellLimits, ShellSpec};
pub use tmp::SharedTmp;
pub use worker::{warm, worker_main};
