//! The roles that this executable plays when it starts itself again.
//!
//! The server runs its own file a second time under another `argv[0]`, once as
//! the launcher of jails, once per jail as its first process, once to fork the
//! workers of virtual shells, and to try attacks from inside. `dispatch` picks the role, so it must run
//! before any thread starts: all roles fork, and a fork in a threaded process
//! may copy a lock that nobody will release.
//! A role never returns to the caller's `main`.

use std::ffi::OsStr;
use std::path::Path;

/// Runs the role that `argv[0]` names and exits, or returns when there is none.
///
/// The first statement of `main`, before the async runtime.
pub fn dispatch() {
    let Some(name) = std::env::args_os().next() else {
        return;
    };
    #[cfg(target_os = "linux")]
    match Path::new(&name).file_name().and_then(OsStr::to_str) {
        Some(crate::linux::LAUNCHER_ROLE) => crate::linux::run_launcher(),
        Some(crate::linux::INIT_ROLE) => crate::linux::run_init(),
        Some(crate::container::FIRST_ROLE) => crate::container::run_first(),
        Some(crate::gate::GATE_ROLE) => crate::gate::role::run(),
        Some(crate::workers::FORKER_ROLE) => crate::workers::forker::run(),
        Some(crate::attack::probe::ROLE) => {
            crate::attack::probe::run(&std::env::args().skip(1).collect::<Vec<_>>());
            std::process::exit(0)
        }
        _ => {}
    }
}
