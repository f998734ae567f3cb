//! Files of one space, opened beneath its root and nowhere else.
//!
//! The server's own file tools work in a directory that a hostile process may
//! change during every call: it can swap a file for a symbolic link, a hard
//! link, a FIFO or a directory between any two system calls. A [`Workspace`]
//! holds a descriptor of the root and reaches everything from it with
//! `openat2`, which makes the kernel refuse each `..`, link and mount on the
//! way; a file's content is touched only after the open descriptor was shown
//! to be a regular file with one name, that name being the one asked for.
//!
//! Nothing here follows a symbolic link, ever, and nothing opens by absolute
//! path after [`Workspace::open`]. If the kernel has no `openat2`, opening
//! fails; there is no weaker second way. All calls block: callers on a tokio
//! runtime use `spawn_blocking`.
//!
//! What this crate does not defend: a directory that the operator moves or
//! mounts over while it is open, and content that a process in the workspace
//! changes while it is being read (the bytes may then be a mix of both).

mod beneath;
mod error;
mod measure;
mod read;
mod snapshot;
mod tree;
mod walk;
mod workspace;
mod write;

pub use error::{FileError, Refusal};
pub use measure::{Measured, Seen, measure};
pub use read::{OpenFile, content_hash};
pub use snapshot::{
    Change, Changes, Dropped, Item, LeftOut, Manifest, Restored, SnapshotLimits, Snapshots, Stamp, Taken,
};
pub use tree::{Listing, remove_tree};
pub use walk::{Walk, WalkLimits, Walked};
pub use workspace::{Access, Entry, EntryKind, Owner, Stat, Usage, Workspace};
pub use write::{Expect, MAX_COMPARED_BYTES, Written};
