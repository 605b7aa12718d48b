//! The payload of each frame kind. See `repl-stream(5)` for the layout; the tests hold frozen samples.

use super::frame::{AUX_MAX, COMPRESSED, DATA_MAX, Kind};
use super::{Corrupt, corrupt};
use crate::value::digest::Digest;
use crate::value::escape::show;
use crate::value::position::{Position, Segment};
use crate::value::time::Time;

/// One payload, checked for form; whether it fits the stream so far is the receiver's to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Text of a [`super::hello::Hello`].
    Hello(&'a [u8]),
    /// See [`Begin`].
    Begin(Begin),
    /// Log bytes at an offset of the segment that began.
    Data {
        /// Where they belong.
        offset: u64,
        /// The bytes, not compressed.
        bytes: &'a [u8],
    },
    /// Log bytes, compressed.
    Packed {
        /// Where they belong.
        offset: u64,
        /// How many bytes they are, at most [`DATA_MAX`].
        length: usize,
        /// The next bytes of the connection's zstd stream.
        packed: &'a [u8],
    },
    /// Log bytes that are all zero.
    Hole {
        /// Where they belong.
        offset: u64,
        /// How many.
        length: u64,
    },
    /// All up to here is whole transactions.
    Mark {
        /// Bytes before it in the segment.
        offset: u64,
        /// The last transaction's time by the master's clock, where known.
        time: Option<Time>,
        /// Of the segment up to here.
        digest: Digest,
    },
    /// The segment is complete.
    End {
        /// Its length.
        length: u64,
        /// Of all its bytes.
        digest: Digest,
    },
    /// Bytes that the engine rewrote when it closed the segment.
    Patch {
        /// Where they belong.
        offset: u64,
        /// At most 64.
        bytes: &'a [u8],
    },
    /// A small file beside the log.
    Aux {
        /// Its name: one plain path component. Only names that the receiver's scheme knows are landed.
        name: &'a str,
        /// Its content, at most [`AUX_MAX`].
        bytes: &'a [u8],
    },
    /// Still here.
    Heartbeat {
        /// The master's end.
        end: Position,
        /// The master's clock.
        clock: Time,
    },
    /// An orderly end of the stream.
    Bye {
        /// The master's end.
        end: Position,
    },
}

/// A segment, or the rest of one, begins; what lies before it is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Begin {
    /// First byte that will follow.
    pub position: Position,
    /// The master's end of log, as of now.
    pub end: Position,
    /// Of the segment's bytes before `position`.
    pub digest: Digest,
    /// At offset 0, where the sender knows it: the segment before, its length and digest.
    pub previous: Option<Previous>,
}

/// The closed segment before one that begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Previous {
    /// Its numbers.
    pub segment: Segment,
    /// Its length in bytes.
    pub length: u64,
    /// Of all its bytes.
    pub digest: Digest,
}

/// Most bytes of one hole frame: hashing them takes a fraction of a second.
pub const HOLE_MAX: u64 = 1 << 30;
/// Bytes of the longest file: offsets are signed on every system.
const FILE_MAX: u64 = i64::MAX as u64;

/// No time is known.
const NO_TIME: i64 = i64::MIN;

/// The bytes of a data frame's payload before the log bytes.
pub fn data_head(offset: u64, packed_from: Option<usize>) -> ([u8; 12], usize) {
    let mut head = [0; 12];
    head[..8].copy_from_slice(&offset.to_le_bytes());
    match packed_from {
        Some(length) => {
            head[8..].copy_from_slice(&(length as u32).to_le_bytes());
            (head, 12)
        }
        None => (head, 8),
    }
}

fn put_position(out: &mut Vec<u8>, position: Position) {
    for number in [position.segment.generation, position.segment.sequence, position.offset] {
        out.extend(number.to_le_bytes());
    }
}

impl Message<'_> {
    /// The kind and payload of a control message; data is written with [`data_head`] so that it is not copied.
    pub fn encode(&self) -> (Kind, Vec<u8>) {
        let mut out = Vec::with_capacity(136);
        let kind = match self {
            Message::Hello(text) => {
                out.extend(*text);
                Kind::Hello
            }
            Message::Begin(begin) => {
                begin.encode(&mut out);
                Kind::Begin
            }
            Message::Data { offset, bytes } => {
                out.extend(offset.to_le_bytes());
                out.extend(*bytes);
                Kind::Data
            }
            Message::Packed { offset, length, packed } => {
                out.extend(offset.to_le_bytes());
                out.extend((*length as u32).to_le_bytes());
                out.extend(*packed);
                Kind::Data
            }
            Message::Hole { offset, length } => {
                out.extend(offset.to_le_bytes());
                out.extend(length.to_le_bytes());
                Kind::Hole
            }
            Message::Mark { offset, time, digest } => {
                out.extend(offset.to_le_bytes());
                out.extend(time.map_or(NO_TIME, |time| time.0).to_le_bytes());
                out.extend(digest.0);
                Kind::Mark
            }
            Message::End { length, digest } => {
                out.extend(length.to_le_bytes());
                out.extend(digest.0);
                Kind::End
            }
            Message::Patch { offset, bytes } => {
                out.extend(offset.to_le_bytes());
                out.extend(*bytes);
                Kind::Patch
            }
            Message::Aux { name, bytes } => {
                out.push(name.len() as u8);
                out.extend(name.as_bytes());
                out.extend(*bytes);
                Kind::Aux
            }
            Message::Heartbeat { end, clock } => {
                put_position(&mut out, *end);
                out.extend(clock.0.to_le_bytes());
                Kind::Heartbeat
            }
            Message::Bye { end } => {
                put_position(&mut out, *end);
                Kind::Bye
            }
        };
        (kind, out)
    }
}

impl Begin {
    fn encode(&self, out: &mut Vec<u8>) {
        put_position(out, self.position);
        put_position(out, self.end);
        out.extend(self.digest.0);
        if let Some(previous) = &self.previous {
            put_position(out, previous.segment.at(previous.length));
            out.extend(previous.digest.0);
        }
    }

    fn decode(mut fields: Fields<'_>) -> Result<Begin, Corrupt> {
        let (position, end, digest) = (fields.position()?, fields.position()?, fields.digest()?);
        let previous = if fields.0.is_empty() {
            None
        } else {
            let last = fields.position()?;
            Some(Previous { segment: last.segment, length: last.offset, digest: fields.digest()? })
        };
        fields.finish()?;
        if previous.is_some() && position.offset != 0 {
            return corrupt("a segment before is named though this one does not begin at its first byte");
        }
        Ok(Begin { position, end, digest, previous })
    }
}

/// Takes fields from the front of a payload.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn bytes<const N: usize>(&mut self) -> Result<[u8; N], Corrupt> {
        let Some((field, rest)) = self.0.split_first_chunk() else {
            return corrupt("a payload is cut off");
        };
        self.0 = rest;
        Ok(*field)
    }

    fn u64(&mut self) -> Result<u64, Corrupt> {
        self.bytes().map(u64::from_le_bytes)
    }

    /// A place in a file: signed on every system.
    fn offset(&mut self) -> Result<u64, Corrupt> {
        match self.u64()? {
            offset if offset > FILE_MAX => corrupt(format!("offset {offset} is beyond any file")),
            offset => Ok(offset),
        }
    }

    fn time(&mut self) -> Result<Option<Time>, Corrupt> {
        let micros = i64::from_le_bytes(self.bytes()?);
        Ok((micros != NO_TIME).then_some(Time(micros)))
    }

    fn position(&mut self) -> Result<Position, Corrupt> {
        Ok(Segment::new(self.u64()?, self.u64()?).at(self.offset()?))
    }

    fn digest(&mut self) -> Result<Digest, Corrupt> {
        self.bytes().map(Digest)
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn finish(&self) -> Result<(), Corrupt> {
        if self.0.is_empty() { Ok(()) } else { corrupt("a payload has bytes behind its end") }
    }
}

/// Reads a checked payload.
pub fn decode(kind: Kind, flags: u8, payload: &[u8]) -> Result<Message<'_>, Corrupt> {
    let mut fields = Fields(payload);
    let message = match kind {
        Kind::Hello => Message::Hello(fields.rest()),
        Kind::Begin => return Begin::decode(fields).map(Message::Begin),
        Kind::Data => return data(flags, fields),
        Kind::Hole => Message::Hole { offset: fields.offset()?, length: fields.u64()? },
        Kind::Mark => Message::Mark { offset: fields.offset()?, time: fields.time()?, digest: fields.digest()? },
        Kind::End => Message::End { length: fields.offset()?, digest: fields.digest()? },
        Kind::Patch => Message::Patch { offset: fields.offset()?, bytes: fields.rest() },
        Kind::Aux => return aux(payload),
        Kind::Heartbeat => {
            let end = fields.position()?;
            Message::Heartbeat { end, clock: Time(i64::from_le_bytes(fields.bytes()?)) }
        }
        Kind::Bye => Message::Bye { end: fields.position()? },
    };
    fields.finish()?;
    match message {
        Message::Hole { length, .. } if length > HOLE_MAX => {
            return corrupt(format!("a hole of {length} bytes, allowed are {HOLE_MAX}"));
        }
        Message::Hole { offset, length } => fits(offset, length)?,
        Message::Patch { offset, bytes } => fits(offset, bytes.len() as u64)?,
        _ => {}
    }
    Ok(message)
}

/// Checks that there are bytes, and that they end within the longest file there can be.
fn fits(offset: u64, length: u64) -> Result<(), Corrupt> {
    if length == 0 || offset.checked_add(length).is_none_or(|end| end > FILE_MAX) {
        return corrupt(format!("{length} bytes at {offset} are no part of any file"));
    }
    Ok(())
}

fn data(flags: u8, mut fields: Fields<'_>) -> Result<Message<'_>, Corrupt> {
    let offset = fields.offset()?;
    let packed = flags & COMPRESSED != 0;
    let length = if packed { u32::from_le_bytes(fields.bytes()?) as usize } else { fields.0.len() };
    if length == 0 || length > DATA_MAX {
        return corrupt(format!("a data frame of {length} bytes, allowed are 1 to {DATA_MAX}"));
    }
    fits(offset, length as u64)?;
    let bytes = fields.rest();
    Ok(if packed { Message::Packed { offset, length, packed: bytes } } else { Message::Data { offset, bytes } })
}

fn aux(payload: &[u8]) -> Result<Message<'_>, Corrupt> {
    let Some((length, rest)) = payload.split_first() else {
        return corrupt("an aux frame without a name");
    };
    let Some((name, bytes)) = rest.split_at_checked(usize::from(*length)) else {
        return corrupt("an aux frame whose name is cut off");
    };
    let Ok(name) = std::str::from_utf8(name) else {
        return corrupt("an aux frame whose name is not UTF-8");
    };
    if name.is_empty() || name.starts_with(['.', '-']) || name.chars().any(|ch| ch == '/' || ch.is_control()) {
        return corrupt(format!("an aux frame whose name is '{}'", show(name)));
    }
    if bytes.len() > AUX_MAX {
        return corrupt(format!("an aux frame of {} bytes, allowed are up to {AUX_MAX}", bytes.len()));
    }
    Ok(Message::Aux { name, bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(text: &str) -> Position {
        text.parse().unwrap()
    }

    #[test]
    fn every_message_is_read_back() {
        let digest = Digest::of(b"x");
        let begin = Begin { position: position("1-2:0"), end: position("1-9:7"), digest, previous: None };
        let previous = Some(Previous { segment: Segment::new(1, 1), length: 77, digest });
        for message in [
            Message::Hello(b"v=1\n"),
            Message::Begin(begin.clone()),
            Message::Begin(Begin { previous, ..begin }),
            Message::Data { offset: 5, bytes: b"abc" },
            Message::Hole { offset: 5, length: HOLE_MAX },
            Message::Mark { offset: 9, time: None, digest },
            Message::Mark { offset: 9, time: Some(Time(-5)), digest },
            Message::End { length: 9, digest },
            Message::Patch { offset: 21, bytes: &[0] },
            Message::Aux { name: "DB_CONFIG", bytes: b"set_lg_max 1\n" },
            Message::Heartbeat { end: position("1-1:1"), clock: Time(3) },
            Message::Bye { end: position("1-1:1") },
        ] {
            let (kind, payload) = message.encode();
            assert_eq!(decode(kind, 0, &payload), Ok(message));
        }
        let packed = Message::Packed { offset: 1, length: 300, packed: b"zz" };
        let (kind, payload) = packed.encode();
        assert_eq!(decode(kind, COMPRESSED, &payload), Ok(packed));
    }

    #[test]
    fn offsets_and_lengths_that_overflow_are_refused() {
        let (beyond, digest) = (Segment::new(1, 1).at(1 << 63), Digest::of(b"x"));
        for message in [
            Message::Data { offset: u64::MAX - 1, bytes: b"abc" },
            Message::Data { offset: i64::MAX as u64, bytes: b"abc" },
            Message::Hole { offset: 1, length: u64::MAX },
            Message::Hole { offset: 1, length: 0 },
            Message::Hole { offset: 1, length: HOLE_MAX + 1 },
            Message::Patch { offset: u64::MAX - 1, bytes: b"abc" },
            Message::Patch { offset: i64::MAX as u64, bytes: b"a" },
            Message::Mark { offset: 1 << 63, time: None, digest },
            Message::End { length: 1 << 63, digest },
            Message::Begin(Begin { position: beyond, end: beyond, digest, previous: None }),
            Message::Heartbeat { end: beyond, clock: Time(0) },
            Message::Bye { end: beyond },
        ] {
            let (kind, payload) = message.encode();
            assert!(decode(kind, 0, &payload).is_err(), "{message:?}");
        }
        let bomb = Message::Packed { offset: 0, length: DATA_MAX + 1, packed: b"zz" };
        let (kind, payload) = bomb.encode();
        assert!(decode(kind, COMPRESSED, &payload).is_err());
    }

    #[test]
    fn an_aux_name_that_is_no_plain_file_name_is_refused() {
        let parse = |name: &str, bytes: &[u8]| {
            let (kind, payload) = Message::Aux { name, bytes }.encode();
            decode(kind, 0, &payload).is_ok()
        };
        for bad in ["", ".", "..", ".repl", "-rf", "/etc/passwd", "a/b", "../a", "a\0", "a\nb", "a\u{7f}"] {
            assert!(!parse(bad, b"x"), "{bad:?}");
        }
        let long = "x".repeat(255);
        for good in ["DB_CONFIG", "00000002.history", "x", "ünï", &long] {
            assert!(parse(good, b""), "{good:?}");
        }
        let content = vec![0; AUX_MAX + 1];
        assert!(parse("x", &content[1..]));
        assert!(!parse("x", &content));
    }
}
