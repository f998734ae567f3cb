//! The worker of the virtual shell as a program of its own, for tests and for
//! setups that do not let the server's binary start itself.
//!
//! Must do nothing before it hands over: the descriptors are the protocol.

use std::process::ExitCode;

fn main() -> ExitCode {
    bailiwick_shell::worker_main()
}
