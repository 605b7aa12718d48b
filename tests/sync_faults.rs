//! What a kill, a cut link, a signal, a full disk, a hostile peer and an unlucky moment do to repl-sync: the destination
//! is the old one or the new one, whole, or nobody starts a server on it; and the next run brings it to its end.
//!
//! `REPL_TEST_ROUNDS=200 cargo test --test sync_faults` tries more instants. Two need more time or memory than a quick
//! run has: `cargo test --release --test sync_faults -- --ignored`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]
#![allow(unreachable_pub, reason = "all of it is one test crate")]

#[path = "support/rig.rs"]
mod rig;
#[path = "sync_faults/stand.rs"]
mod stand;

#[path = "sync_faults/change.rs"]
mod change;
#[path = "sync_faults/far.rs"]
mod far;
#[path = "sync_faults/flip.rs"]
mod flip;
#[path = "sync_faults/full.rs"]
mod full;
#[path = "sync_faults/honest.rs"]
mod honest;
#[path = "sync_faults/hostile_destination.rs"]
mod hostile_destination;
#[path = "sync_faults/hostile_frames.rs"]
mod hostile_frames;
#[path = "sync_faults/hostile_source.rs"]
mod hostile_source;
#[path = "sync_faults/kill.rs"]
mod kill;
#[path = "sync_faults/link.rs"]
mod link;
#[path = "sync_faults/many.rs"]
mod many;
#[path = "sync_faults/signal.rs"]
mod signal;
