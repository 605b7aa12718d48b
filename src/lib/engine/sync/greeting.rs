//! How two ends find each other: eight bytes that show a link which is not clean, then who does what.
//!
//! ```text
//! both ends   the magic bytes of repl-stream(5)
//! client      frame H: version u32, role of the server u8 (s: has the source, d: has the destination), then the words of
//!             its command line, each a text
//! server      frame W: version u32; or frame F: exit code u8, what happened, what helps
//! ```
//! The server reads the words with the parser of the command line that it would have been started with; behind
//! `--restrict` it takes only what can do no harm.

use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt as _;

use anyhow::{Context as _, Result};

use super::channel;
use crate::engine::magic;
use crate::rule::stream::magic::MAGIC;
use crate::rule::sync::wire::tell::Tell;
use crate::rule::sync::wire::{TEXT_MAX, VERSION, corrupt, seal};
use crate::value::exit::{Code, Failure, fail};
use crate::value::octets::{Reader, put_text};

/// Most words of a command line.
const WORDS_MAX: usize = 4096;

/// What the end that was called is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Role {
    /// It has the source.
    Source = b's',
    /// It has the destination.
    Destination = b'd',
}

/// Calls a server. What it says before it greets back is told as what it is.
pub fn call<R: Read>(mut input: R, output: &mut impl Write, role: Role, words: &[OsString]) -> Result<R> {
    let mut payload = VERSION.to_le_bytes().to_vec();
    payload.push(role as u8);
    for word in words {
        put_text(&mut payload, word.as_bytes());
    }
    let mut hello = MAGIC.to_vec();
    hello.extend(seal(b'H', 0, &payload, None));
    send(output, &hello)?;
    magic::check(&mut input, "a sync")?;
    let frame = channel::frame(&mut input)?;
    match frame.kind {
        b'W' if frame.payload == VERSION.to_le_bytes() => Ok(input),
        b'W' => fail(Code::Usage, "the other end has another version of repl-sync"),
        _ => match Tell::parse(frame)? {
            Tell::Failed(code, why, hint) => Err(Failure::told(code, why, hint).into()),
            _ => Err(corrupt("not a greeting")),
        },
    }
}

/// Waits for a client; returns what it wants.
pub fn answer<R: Read>(mut input: R, output: &mut impl Write) -> Result<(R, Role, Vec<OsString>)> {
    send(output, &MAGIC)?;
    magic::check(&mut input, "a sync")?;
    let frame = channel::frame(&mut input)?;
    let mut reader = Reader::new(&frame.payload);
    let (version, role) = (reader.u32(), reader.byte());
    if frame.kind != b'H' || version.is_none() {
        return Err(corrupt("not a greeting"));
    }
    if version != Some(VERSION) {
        return fail(Code::Usage, "the other end has another version of repl-sync");
    }
    let role = match role {
        Some(b's') => Role::Source,
        Some(b'd') => Role::Destination,
        _ => return Err(corrupt("not a role")),
    };
    let mut words = Vec::new();
    while !reader.is_empty() {
        let word =
            reader.text(TEXT_MAX).filter(|_| words.len() < WORDS_MAX).ok_or_else(|| corrupt("not a command line"))?;
        words.push(OsStr::from_bytes(word).to_owned());
    }
    Ok((input, role, words))
}

/// Greets back.
pub fn welcome(output: &mut impl Write) -> Result<()> {
    send(output, &seal(b'W', 0, &VERSION.to_le_bytes(), None))
}

/// Says to the client what is in the way, if anything is.
pub fn or_refuse<T>(output: &mut impl Write, done: Result<T>) -> Result<T> {
    done.or_else(|error| {
        send(output, &Tell::failed(&error).seal(0, None))?;
        Err(error)
    })
}

fn send(output: &mut impl Write, bytes: &[u8]) -> Result<()> {
    output.write_all(bytes).and_then(|()| output.flush()).context(Failure::new(Code::Link, "the other end is gone"))
}
