//! Reading a part of a file in whole groups, as both ends do: holes are not read, and what another process cuts off while
//! it is read is an end of the file, not a fault.

use std::fs::File;
use std::io;

use crate::edge::blocks;
use crate::edge::read::read_at;
use crate::rule::sync::merkle::{self, Cv, GROUP};

/// Bytes that are read at once.
const STEP: u64 = 4 * GROUP;

/// Adjacent groups of a file.
#[derive(Clone, Copy, Debug)]
pub struct Stretch<'a> {
    /// Their place in the file.
    pub offset: u64,
    /// Their bytes: at most 256 KiB; only the last group of the part may be shorter than 64 KiB.
    pub bytes: &'a [u8],
    /// Whether all of them are a hole.
    pub is_hole: bool,
}

/// Shows the groups of `offset..offset + length` in order; false when the file ends before.
pub fn read<E: From<io::Error>>(
    file: &File,
    offset: u64,
    length: u64,
    mut see: impl FnMut(Stretch<'_>) -> Result<(), E>,
) -> Result<bool, E> {
    let end = offset + length;
    if file.metadata()?.len() < end {
        return Ok(false);
    }
    let mut data = blocks::data(file, offset, end)?;
    let mut next = data.next().transpose()?.unwrap_or(end..end);
    let mut buffer = vec![0; STEP.min(length) as usize];
    let mut at = offset;
    while at < end {
        while next.end <= at && next.start < end {
            next = data.next().transpose()?.unwrap_or(end..end);
        }
        let begin = next.start.max(at);
        // Whole groups in front of the next data are holes.
        while at < end && (at + GROUP).min(end) <= begin {
            let length = GROUP.min(end - at);
            see(Stretch { offset: at, bytes: &merkle::ZEROS[..length as usize], is_hole: true })?;
            at += length;
        }
        if at < end {
            let want = STEP.min(end - at) as usize;
            if read_at(file, &mut buffer[..want], at)? < want {
                return Ok(false);
            }
            see(Stretch { offset: at, bytes: &buffer[..want], is_hole: false })?;
            at += want as u64;
        }
    }
    Ok(true)
}

/// The cvs of the groups of a part; `None` when the file ends before.
pub fn digests(file: &File, offset: u64, length: u64) -> io::Result<Option<Vec<Cv>>> {
    let mut cvs = Vec::with_capacity(merkle::parts(length, GROUP));
    let is_whole = read(file, offset, length, |stretch| {
        cvs.extend(merkle::groups(stretch.offset, stretch.bytes));
        Ok::<_, io::Error>(())
    })?;
    Ok(is_whole.then_some(cvs))
}
