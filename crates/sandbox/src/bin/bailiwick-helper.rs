//! The smallest executable that can play the sandbox's roles, for this crate's
//! tests. The server's own executable calls the same function.

fn main() {
    bailiwick_sandbox::helper::dispatch();
}
