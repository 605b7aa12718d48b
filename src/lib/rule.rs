//! Floor 1: rules. Bytes and values in, values out: no path is opened, no clock is read, no environment is asked.

pub mod alert;
pub mod asking;
pub mod config;
pub mod digests;
pub mod instance;
pub mod known_hosts;
pub mod pattern;
pub mod quorum;
pub mod retention;
pub mod scheme;
pub mod status;
pub mod stream;
pub mod sync;
pub mod verdict;
