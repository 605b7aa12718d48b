//! Stream version 1, as `repl-stream(5)` gives it byte by byte: magic, frames forward, lines of text back.
//!
//! Everything here is read from a peer. Lengths are judged before memory is taken, numbers are names only after the
//! receiver's own scheme has printed them, and what does not parse is a [`Corrupt`] with the reason.

pub mod back;
pub mod codec;
pub mod frame;
pub mod hello;
pub mod magic;
pub mod message;

use std::fmt;

/// Why bytes are not a stream of this version. It says nothing about where; the caller knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corrupt(pub String);

impl fmt::Display for Corrupt {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Corrupt {}

/// `Err` with a [`Corrupt`] of this text.
fn corrupt<T>(why: impl Into<String>) -> Result<T, Corrupt> {
    Err(Corrupt(why.into()))
}
