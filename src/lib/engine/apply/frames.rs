//! Reads a stream frame by frame: nothing is handed on before its checksum is right, and no memory is taken on a peer's
//! word.

use std::io::{BufReader, Read};

use anyhow::Result;

use crate::engine::magic::{self, fill};
use crate::rule::stream::Corrupt;
use crate::rule::stream::codec::Unpacker;
use crate::rule::stream::frame::{HEADER, Header};
use crate::rule::stream::message::{Message, decode};
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
        magic::check(&mut reader, "a log stream")?;
        Ok(Frames { reader, payload: Vec::new(), unpacker: Unpacker::new()? })
    }

    /// Whether all that was read from the link has been handed out.
    pub(super) fn is_drained(&self) -> bool {
        self.reader.buffer().is_empty()
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
