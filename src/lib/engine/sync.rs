//! Making one directory a copy of another, delta only.
//!
//! The [`receiver`], where the destination is, drives; the [`source`] answers. What is to change in a destination that is
//! synced in place is collected in a redo [`journal`] in its [`state`] directory, and the [`marker`] in the destination
//! says when it must not be used. What a database needs for that is in its [`profile`]; what is done at the source around
//! the last pass is a [`procedure`], and the destination's [`server`] is stopped for it and started again.

pub mod channel;
pub mod digests;
pub mod door;
pub mod drive;
pub mod errand;
pub mod facts;
pub mod greeting;
pub mod ground;
pub mod groups;
pub mod history;
pub mod journal;
pub mod ledger;
pub mod line;
pub mod listing;
pub mod marker;
pub mod pairs;
pub mod pass;
pub mod procedure;
pub mod profile;
pub mod purpose;
pub mod receiver;
pub mod server;
pub mod source;
pub mod stage;
pub mod state;
pub mod streams;
pub mod target;
