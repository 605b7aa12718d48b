//! Floor 4: the command line. Arguments, words on standard error, exit codes. Nothing below this floor prints.

pub mod alert;
pub mod apply;
pub mod args;
pub mod base;
pub mod config;
pub mod fetch;
pub mod narrate;
pub mod prune;
pub mod recover;
pub mod report;
pub mod restrict;
pub mod role;
pub mod ship;
pub mod status;
pub mod sync;
pub mod verify;
pub mod voice;
pub mod wait;
