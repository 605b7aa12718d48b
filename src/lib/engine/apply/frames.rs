//! Reads a stream frame by frame: nothing is handed on before its checksum is right, and no memory is taken on a peer's
//! word.

use std::io::{self, BufReader, Read};

use anyhow::{Context as _, Result};

use crate::rule::stream::Corrupt;
use crate::rule::stream::codec::Unpacker;
use crate::rule::stream::frame::{HEADER, Header};
use crate::rule::stream::magic::{MAGIC, Mismatch, judge};
use crate::rule::stream::message::{Message, decode};
use crate::value::escape::show_bytes;
use crate::value::exit::{Code, Failure, fail};

const BUFFER: usize = 1 << 16;

/// A stream being read.
pub(super) struct Frames<R> {
    reader: BufReader<R>,
    payload: Vec<u8>,
    unpacker: Unpacker,
}

impl<R: Read> Frames<R> {
    /// Reads and judges the magic.
    pub(super) fn open(reader: R) -> Result<Frames<R>> {
        let mut reader = BufReader::with_capacity(BUFFER, reader);
        // Words of a login shell may be shorter than the magic: spaces go with them.
        let mut first = [b' '; 8];
        let count = fill(&mut reader, &mut first)?;
        if count == 0 {
            return fail(Code::Link, "the stream ended before it began");
        }
        if count < first.len() && MAGIC.starts_with(&first[..count]) {
            return fail(Code::Link, "the stream ended in its first bytes");
        }
        let Some(mismatch) = judge(first) else {
            return Ok(Frames { reader, payload: Vec::new(), unpacker: Unpacker::new()? });
        };
        let begins = show_bytes(&first[..count]);
        Err(match mismatch {
            Mismatch::SevenBit => Failure::new(Code::Usage, "the link is not 8-bit clean: high bits are gone")
                .hint("use ssh without a terminal (ssh -T)"),
            Mismatch::Translated => Failure::new(
                Code::Usage,
                "the link changes bytes: line ends (LF to CR LF) or characters are translated",
            )
            .hint("use ssh without a terminal (ssh -T)"),
            Mismatch::Printed => Failure::new(
                Code::Usage,
                format!("this is not a log stream: it begins with '{begins}' (a login shell that prints?)"),
            )
            .hint("make the shell's start-up files silent for sessions that are not interactive"),
            Mismatch::Damaged => {
                Failure::new(Code::Corrupt, format!("the stream's first bytes are damaged: '{begins}'"))
            }
            Mismatch::Foreign => {
                Failure::new(Code::Corrupt, format!("this is not a log stream: it begins with '{begins}'"))
            }
        }
        .into())
    }

    /// The next message; `None` at the end of the stream between two frames.
    pub(super) fn next(&mut self) -> Result<Option<Message<'_>>> {
        let mut head = [0; HEADER];
        match fill(&mut self.reader, &mut head)? {
            0 => return Ok(None),
            HEADER => {}
            _ => return fail(Code::Link, "the stream ended within a frame"),
        }
        let header = Header::parse(&head).map_err(refused)?;
        self.payload.resize(header.length, 0);
        if fill(&mut self.reader, &mut self.payload)? < header.length {
            return fail(Code::Link, "the stream ended within a frame");
        }
        header.check(&self.payload).map_err(refused)?;
        match decode(header.kind, header.flags, &self.payload).map_err(refused)? {
            Message::Packed { offset, length, packed } => {
                let bytes = self.unpacker.unpack(packed, length).map_err(refused)?;
                Ok(Some(Message::Data { offset, bytes }))
            }
            message => Ok(Some(message)),
        }
    }
}

/// A stream that does not parse is exit code 6.
pub(super) fn refused(error: Corrupt) -> anyhow::Error {
    Failure::new(Code::Corrupt, error.0).into()
}

/// Reads until the buffer is full or the stream ends; returns how much was read.
fn fill(reader: &mut impl Read, buffer: &mut [u8]) -> Result<usize> {
    let mut count = 0;
    while count < buffer.len() {
        match reader.read(&mut buffer[count..]) {
            Ok(0) => break,
            Ok(more) => count += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return fail(Code::Link, "the sender is silent: no heartbeat came in time");
            }
            Err(error) => return Err(error).context("cannot read the stream"),
        }
    }
    Ok(count)
}
