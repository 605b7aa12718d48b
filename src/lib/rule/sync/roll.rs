//! Finding bytes that moved: the end that has the old content signs blocks of it, the end with the new one searches for
//! them at every offset (`fast_rsync`).
//!
//! That library believes what it is given. A block size of 0 panics, equal weak sums in numbers make it slow, and two
//! blocks with the same MD4 are one to it, though such pairs can be made at will. So nothing of a peer's reaches it
//! unchecked: only blocks do, of a size within bounds, each different one once and few with the same weak sum; what it
//! answers is read by us. It is fed small steps, between which whoever waits can give up. And its word only proposes:
//! what is made of it counts when it has the right BLAKE3.

use std::collections::HashMap;
use std::ops::RangeInclusive;

use fast_rsync::{Signature, SignatureOptions, diff};

/// Bytes of the blocks that we ask with. Half of one is lost at each end of what moved in one piece.
pub const BLOCK: u32 = 2048;
/// Bytes that a block may have, a power of two. Larger ones make each wrong guess dearer.
pub const BLOCKS: RangeInclusive<u32> = 256..=16 << 10;
/// Most bytes of old content that one question signs.
pub const WINDOW_MAX: u64 = 48 << 20;
/// Bytes of a block's MD4: enough to propose.
const STRONG: usize = 8;
/// Bytes of a block's entry: the weak sum, and of the MD4.
pub const ENTRY: usize = 4 + STRONG;
/// Different blocks with the same weak sum; of more, the first.
const EQUAL_MAX: u8 = 8;
/// Bytes that are searched in one step, and how many bytes may be hashed in it at worst.
const STEP: usize = 1 << 20;
const STEP_WORK: usize = 1 << 31;
/// What the library puts in front of a signature and of a delta.
const SIGNATURE: [u8; 4] = 0x7273_0136_u32.to_be_bytes();
const DELTA: [u8; 4] = 0x7273_0236_u32.to_be_bytes();

/// A piece of the new content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// It is in the old content: from where, and how many bytes.
    Copy(u64, u64),
    /// It is not: how many bytes.
    Data(u64),
}

impl Piece {
    /// Its bytes.
    pub fn length(self) -> u64 {
        match self {
            Piece::Copy(_, length) | Piece::Data(length) => length,
        }
    }
}

/// Appends the entries of some old content. What is left behind the last whole block has none, so all calls but the last
/// are with whole blocks.
pub fn sign(bytes: &[u8], block: u32, entries: &mut Vec<u8>) {
    let whole = &bytes[..bytes.len() - bytes.len() % block as usize];
    let options = SignatureOptions { block_size: block, crypto_hash_size: STRONG as u32 };
    let signature = Signature::calculate(whole, options);
    entries.extend(signature.serialized().iter().skip(SIGNATURE.len() + 8));
}

/// Whether entries are such as may be asked with.
pub fn is_sound(block: u32, entries: &[u8]) -> bool {
    block.is_power_of_two()
        && BLOCKS.contains(&block)
        && entries.len().is_multiple_of(ENTRY)
        && (entries.len() / ENTRY) as u64 <= WINDOW_MAX / u64::from(block)
}

/// Old content, as far as its entries say what it is.
#[derive(Debug)]
pub struct Known {
    block: u32,
    signature: Signature,
    /// Of each block of the old content, its place among the different ones.
    kinds: Vec<Option<u32>>,
    /// Of each of the different ones, the first block of the old content that is it.
    firsts: Vec<u32>,
}

impl Known {
    /// From entries; `None` when they are not sound.
    pub fn parse(block: u32, entries: &[u8]) -> Option<Known> {
        if !is_sound(block, entries) {
            return None;
        }
        let mut signature = Vec::with_capacity(12 + entries.len());
        signature.extend(SIGNATURE);
        signature.extend(block.to_be_bytes());
        signature.extend((STRONG as u32).to_be_bytes());
        let (mut seen, mut equal) = (HashMap::new(), HashMap::<[u8; 4], u8>::new());
        let (mut kinds, mut firsts) = (Vec::new(), Vec::new());
        for (number, entry) in (0..).zip(entries.as_chunks::<ENTRY>().0) {
            if let Some(kind) = seen.get(entry) {
                kinds.push(Some(*kind));
                continue;
            }
            let count = equal.entry([entry[0], entry[1], entry[2], entry[3]]).or_default();
            if *count == EQUAL_MAX {
                kinds.push(None);
                continue;
            }
            *count += 1;
            let kind = firsts.len() as u32;
            seen.insert(entry, kind);
            kinds.push(Some(kind));
            firsts.push(number);
            signature.extend(entry);
        }
        let signature = Signature::deserialize(signature).ok()?;
        Some(Known { block, signature, kinds, firsts })
    }

    /// What new content is made of, in its order. What is left when `is_over` says so, which is asked between steps, is
    /// taken for new.
    pub fn search(&self, data: &[u8], mut is_over: impl FnMut() -> bool) -> Vec<Piece> {
        let index = self.signature.index();
        let block = self.block as usize;
        let step = STEP.min(STEP_WORK / block);
        let (mut pieces, mut at, mut delta) = (Pieces::default(), 0, Vec::new());
        while data.len() - at >= block && !is_over() {
            let end = data.len().min(at + step);
            delta.clear();
            // Writing to memory cannot fail, and of a delta that we cannot read nothing is used.
            let found = diff(&index, &data[at..end], &mut delta).ok().and_then(|()| read(&delta));
            let mut rest = end - at;
            for piece in found.unwrap_or_default() {
                let length = piece.length() as usize;
                if length > rest {
                    break;
                }
                // What ends with the step may begin a block that does not: it is searched once more.
                let is_last = length == rest && end < data.len();
                match piece {
                    Piece::Copy(from, length) => self.copies(from, length, &mut pieces),
                    Piece::Data(_) if is_last => {
                        let kept = length.saturating_sub(block - 1);
                        pieces.add(Piece::Data(kept as u64));
                        rest = length - kept;
                        break;
                    }
                    Piece::Data(_) => pieces.add(piece),
                }
                rest -= length;
            }
            // No step forward, or a block that is none: the library is not what we know.
            if end - rest == at || pieces.total != (end - rest) as u64 {
                break;
            }
            at = end - rest;
        }
        pieces.add(Piece::Data((data.len() as u64).saturating_sub(pieces.total)));
        pieces.all
    }

    /// A copy of blocks as the library knows them, each of which may be in several places: best is the one behind what
    /// was copied last.
    fn copies(&self, from: u64, length: u64, pieces: &mut Pieces) {
        let block = u64::from(self.block);
        for kind in from / block..(from + length) / block {
            let next = pieces.next.filter(|next| next % block == 0).map(|next| (next / block) as usize);
            let next = next.filter(|next| self.kinds.get(*next) == Some(&Some(kind as u32)));
            let Some(number) = next.or_else(|| self.firsts.get(kind as usize).map(|first| *first as usize)) else {
                return;
            };
            pieces.add(Piece::Copy(number as u64 * block, block));
        }
    }
}

/// Pieces that are put together where they follow each other.
#[derive(Default)]
struct Pieces {
    all: Vec<Piece>,
    /// Their bytes.
    total: u64,
    /// Where in the old content the last copy ended.
    next: Option<u64>,
}

impl Pieces {
    fn add(&mut self, piece: Piece) {
        if piece.length() == 0 {
            return;
        }
        self.total += piece.length();
        if let Piece::Copy(from, length) = piece {
            self.next = Some(from + length);
        }
        match (self.all.last_mut(), piece) {
            (Some(Piece::Data(length)), Piece::Data(more)) => *length += more,
            (Some(Piece::Copy(from, length)), Piece::Copy(begin, more)) if *from + *length == begin => *length += more,
            _ => self.all.push(piece),
        }
    }
}

/// What a delta says; `None` when it is none. Numbers are big-endian, as librsync has them (its `src/command.c`).
fn read(delta: &[u8]) -> Option<Vec<Piece>> {
    let mut pieces = Vec::new();
    let mut rest = delta.strip_prefix(&DELTA)?;
    let number = |rest: &mut &[u8], width: usize| -> Option<u64> {
        let (taken, left) = rest.split_at_checked(width)?;
        *rest = left;
        Some(taken.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    };
    loop {
        let code = number(&mut rest, 1)?;
        match code {
            0 => return rest.is_empty().then_some(pieces),
            1..=0x44 => {
                let length = if code <= 0x40 { code } else { number(&mut rest, 1 << (code - 0x41))? };
                rest = rest.get(usize::try_from(length).ok()?..)?;
                pieces.push(Piece::Data(length));
            }
            0x45..=0x54 => {
                let from = number(&mut rest, 1 << ((code - 0x45) / 4))?;
                let length = number(&mut rest, 1 << ((code - 0x45) % 4))?;
                from.checked_add(length)?;
                pieces.push(Piece::Copy(from, length));
            }
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests;
