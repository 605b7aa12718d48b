//! Floor 0: values. They parse, print and order; they do no I/O, read no clock and no environment.

pub mod digest;
pub mod entry;
pub mod escape;
pub mod exit;
pub mod name;
pub mod octets;
pub mod pairs;
pub mod position;
pub mod ssh_url;
pub mod time;
pub mod units;
