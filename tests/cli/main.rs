//! The commands as operators run them, one file per command, and what crosses a real sshd.

#[path = "../support/rig.rs"]
mod rig;

mod ship;
mod ssh;
