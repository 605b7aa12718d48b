//! The first bytes of a link, judged: what is wrong with it, and what to do about it.

use std::io::{ErrorKind, Read};

use anyhow::{Context as _, Result};

use crate::rule::stream::magic::{MAGIC, Mismatch, judge};
use crate::value::escape::show_bytes;
use crate::value::exit::{Code, Failure, fail};

/// Reads the magic from a link that is to carry `what`; anything else is an error that says what it is.
pub fn check(link: &mut impl Read, what: &str) -> Result<()> {
    // Words of a login shell may be shorter than the magic: spaces go with them.
    let mut first = [b' '; 8];
    let count = fill(link, &mut first)?;
    if count == 0 {
        return fail(Code::Link, "the stream ended before it began");
    }
    if count < first.len() && MAGIC.starts_with(&first[..count]) {
        return fail(Code::Link, "the stream ended in its first bytes");
    }
    let Some(mismatch) = judge(first) else {
        return Ok(());
    };
    let begins = show_bytes(&first[..count]);
    Err(match mismatch {
        Mismatch::SevenBit => Failure::new(Code::Usage, "the link is not 8-bit clean: high bits are gone")
            .hint("use ssh without a terminal (ssh -T)"),
        Mismatch::Translated => {
            Failure::new(Code::Usage, "the link changes bytes: line ends (LF to CR LF) or characters are translated")
                .hint("use ssh without a terminal (ssh -T)")
        }
        Mismatch::Printed => Failure::new(
            Code::Usage,
            format!("this is not {what}: it begins with '{begins}' (a login shell that prints?)"),
        )
        .hint("make the shell's start-up files silent for sessions that are not interactive"),
        Mismatch::Damaged => Failure::new(Code::Corrupt, format!("the stream's first bytes are damaged: '{begins}'")),
        Mismatch::Foreign => Failure::new(Code::Corrupt, format!("this is not {what}: it begins with '{begins}'")),
    }
    .into())
}

/// Reads until the buffer is full or the link ends; returns how much was read.
pub fn fill(link: &mut impl Read, buffer: &mut [u8]) -> Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match link.read(&mut buffer[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                return fail(Code::Link, "the other end is silent: no heartbeat came in time");
            }
            Err(error) => return Err(error).context("cannot read the stream"),
        }
    }
    Ok(count)
}
