//! The commands as operators run them, one file per command, and what crosses a real sshd.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

#[path = "../support/rig.rs"]
mod rig;

mod ship;
mod ssh;
