//! Floor 0: values. They parse, print and order; they do no I/O, read no clock and no environment.

pub mod digest;
pub mod escape;
pub mod exit;
pub mod pairs;
pub mod position;
pub mod time;
pub mod units;
