//! Making one directory a copy of another, delta only.
//!
//! The receiver, where the destination is, drives; the source answers. What is to change in a destination that is synced
//! in place is collected in a redo [`journal`] in its [`state`] directory, and the [`marker`] in the destination says
//! when it must not be used.

pub mod channel;
pub mod groups;
pub mod journal;
pub mod ledger;
pub mod line;
pub mod listing;
pub mod marker;
pub mod pairs;
pub mod pass;
pub mod receiver;
pub mod source;
pub mod state;
pub mod target;
