//! Floor 3: engines. They join rules and edges into what a command does, take readers, writers and directories, and know
//! nothing of terminals or of the command line: a test can join ship and apply with a pipe.

pub mod apply;
pub mod archive;
pub mod base;
pub mod bdb;
pub mod fetch;
pub mod log;
pub mod magic;
pub mod mariadb;
pub mod note;
pub mod postgres;
pub mod prune;
pub mod recover;
pub mod release;
pub mod role;
pub mod ship;
pub mod site;
pub mod status;
pub mod sync;
pub mod verify;
pub mod wait;
