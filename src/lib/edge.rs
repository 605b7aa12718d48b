//! Floor 2: edges. Every open, fsync, rename, flock, spawn, signal and clock of the suite is here, once. Nothing here
//! knows what a segment or a verdict is.

pub mod bell;
pub mod blocks;
mod child;
pub mod clock;
pub mod clone;
pub mod coprocess;
pub mod dir;
pub mod hook;
pub mod host;
pub mod journal;
pub mod link;
pub mod lock;
pub mod pace;
pub mod program;
pub mod read;
pub mod signal;
pub mod slots;
pub mod socket;
pub mod ssh;
pub mod stillness;
pub mod tree;
pub mod trusted;
pub mod usage;
pub mod user;
pub mod watch;
