//! Reading signal descriptors. What a signal means is decided by its reader
//! from the kernel's state, never from the signal's own data, which a process
//! of the same user could have sent.

use std::os::fd::OwnedFd;

/// Empties a signal descriptor.
pub(crate) fn drain(descriptor: &OwnedFd) {
    let mut buffer = [0_u8; 1024];
    while matches!(rustix::io::read(descriptor, &mut buffer), Ok(bytes) if bytes > 0) {}
}
