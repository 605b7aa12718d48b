//! Writes a stream: frames, compressed where it pays, at a limited rate where one is set. Small frames are gathered until
//! [`Outlet::flush`], which the shipping loop calls before it waits for anything: a record and the boundary behind it
//! leave together, and the receiver makes both durable with one sync.

use std::io::{self, IoSlice, Write};
use std::time::Instant;

use anyhow::{Context as _, Result};

use super::choice::{Choice, Way};
use crate::edge::pace::Pace;
use crate::rule::stream::codec::Packer;
use crate::rule::stream::frame::{COMPRESSED, Kind, header};
use crate::rule::stream::magic::MAGIC;
use crate::rule::stream::message::{Message, data_head};

/// Whether and how to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compress {
    /// Where it pays, as measured on the way.
    Auto,
    /// Always, at this zstd level.
    Zstd(i32),
    /// Never.
    None,
}

/// The level of `auto`: fast enough to gain on a fast network.
const AUTO_LEVEL: i32 = 1;
/// Frames below this go as they are: they would hardly shrink, and arrive sooner.
const LEAST: usize = 256;

/// A stream being written.
pub(super) struct Outlet<W> {
    out: W,
    packer: Option<Packer>,
    choice: Option<Choice>,
    pace: Option<Pace>,
    written: u64,
    gathered: Vec<u8>,
}

/// Frames up to this are gathered, and so many bytes of them at most.
const SMALL: usize = 1 << 12;
const GATHERED: usize = 1 << 16;

impl<W: Write> Outlet<W> {
    /// Writes the magic.
    pub(super) fn open(out: W, compress: Compress, rate: Option<u64>) -> Result<Outlet<W>> {
        let level = match compress {
            Compress::Auto => Some(AUTO_LEVEL),
            Compress::Zstd(level) => Some(level),
            Compress::None => None,
        };
        let packer = level.map(Packer::new).transpose().context("cannot start compression")?;
        let choice = (compress == Compress::Auto).then(Choice::new);
        let mut outlet = Outlet { out, packer, choice, pace: rate.map(Pace::new), written: 0, gathered: Vec::new() };
        outlet.write(&[&MAGIC])?;
        Ok(outlet)
    }

    /// Writes a control frame.
    pub(super) fn send(&mut self, message: &Message<'_>) -> Result<()> {
        let (kind, payload) = message.encode();
        let head = header(kind, 0, &[&payload]);
        self.write(&[&head, &payload])
    }

    /// Writes log bytes.
    pub(super) fn data(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let way = self.choice.as_ref().map_or(Way::Packed, Choice::way);
        let began = Instant::now();
        match self.packer.take() {
            Some(mut packer) if bytes.len() >= LEAST && way == Way::Packed => {
                let packed = packer.pack(bytes).context("cannot compress")?;
                let (head, length) = data_head(offset, Some(bytes.len()));
                let head = &head[..length];
                self.write(&[&header(Kind::Data, COMPRESSED, &[head, packed]), head, packed])?;
                self.packer = Some(packer);
            }
            packer => {
                self.packer = packer;
                let (head, length) = data_head(offset, None);
                let head = &head[..length];
                self.write(&[&header(Kind::Data, 0, &[head, bytes]), head, bytes])?;
            }
        }
        if let Some(choice) = self.choice.as_mut().filter(|_| bytes.len() >= LEAST) {
            choice.account(bytes.len(), began.elapsed());
        }
        Ok(())
    }

    /// Bytes written so far.
    pub(super) fn written(&self) -> u64 {
        self.written
    }

    fn write(&mut self, parts: &[&[u8]]) -> Result<()> {
        let total: usize = parts.iter().map(|part| part.len()).sum();
        self.written += total as u64;
        if total <= SMALL {
            for part in parts {
                self.gathered.extend_from_slice(part);
            }
            return if self.gathered.len() < GATHERED { Ok(()) } else { self.flush() };
        }
        self.hand_over(parts)
    }

    /// Hands all that was gathered to the link.
    pub(super) fn flush(&mut self) -> Result<()> {
        if self.gathered.is_empty() { Ok(()) } else { self.hand_over(&[]) }
    }

    fn hand_over(&mut self, parts: &[&[u8]]) -> Result<()> {
        let all: Vec<&[u8]> = std::iter::once(self.gathered.as_slice()).chain(parts.iter().copied()).collect();
        let total = all.iter().map(|part| part.len()).sum();
        write_all(&mut self.out, &all).context("cannot write the stream")?;
        self.gathered.clear();
        if let Some(pace) = &mut self.pace {
            pace.spend(total);
        }
        Ok(())
    }
}

/// Writes all parts, together as far as the link takes them.
fn write_all(out: &mut impl Write, parts: &[&[u8]]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut left = slices.as_mut_slice();
    while left.iter().any(|slice| !slice.is_empty()) {
        match out.write_vectored(left) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => IoSlice::advance_slices(&mut left, count),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    out.flush()
}
