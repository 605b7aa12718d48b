//! The commands as operators run them, one file per command, and what crosses a real sshd.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "../support/craft.rs"]
mod craft;
#[path = "../support/rig.rs"]
mod rig;

mod apply;
mod faults;
mod feed;
mod fetch;
mod link;
mod patch;
mod restrict;
mod scripts;
mod ship;
mod ssh;
mod stream;
mod verify;
