//! Moves a replica's own divergent tail to `.repl/set-aside/TIME/`, never losing a byte of it.
//!
//! In this order: the tail of the first segment is copied and made durable; then (by the caller) the position goes back,
//! from where on these bytes are unproven and no longer held; then later segments are moved and the first one is cut. A
//! crash in between leaves bytes beyond the position, which the next stream finds to differ and sets aside again.

use std::fs::File;
use std::io::{self, Seek as _, SeekFrom};

use anyhow::{Context as _, Result};

use crate::edge::clock;
use crate::edge::dir::{Dir, shown};
use crate::rule::scheme::Scheme;
use crate::value::position::Position;

/// A directory below `set-aside`, with a copy of the first segment's tail in it, durable.
pub(super) fn prepare(dir: &Dir, state: &Dir, scheme: &Scheme, from: Position) -> Result<Dir> {
    let target = state.subdir("set-aside")?.subdir(&clock::now().to_string())?;
    let name = scheme.name(from.segment);
    if from.offset > 0
        && let Some(source) = dir.open_read(&name)?
    {
        let copy = copy_tail(source, &target, &format!("{name}@{}", from.offset), from.offset);
        copy.with_context(|| format!("cannot set aside the tail of {}", dir.shown(&name)))?;
        target.sync()?;
    }
    Ok(target)
}

/// Moves one small file. Returns where it is, for the history.
pub(super) fn take_one(dir: &Dir, state: &Dir, name: &str) -> Result<String> {
    let target = state.subdir("set-aside")?.subdir(&clock::now().to_string())?;
    dir.rename(name, &target, name)?;
    target.sync()?;
    dir.sync()?;
    Ok(shown(target.path()))
}

fn copy_tail(mut source: File, target: &Dir, name: &str, offset: u64) -> Result<()> {
    let mut copy = target.create_new(name)?;
    source.seek(SeekFrom::Start(offset))?;
    io::copy(&mut source, &mut copy)?;
    copy.sync_all()?;
    Ok(())
}

/// Moves later segments, and cuts the first one. Returns where all of it is, for the history.
pub(super) fn take(dir: &Dir, target: &Dir, scheme: &Scheme, from: Position) -> Result<String> {
    for name in dir.names()? {
        let Some((name, segment)) = name.to_str().and_then(|name| Some((name, scheme.segment(name)?))) else {
            continue;
        };
        if segment > from.segment || (segment == from.segment && from.offset == 0) {
            dir.rename(name, target, name)?;
        }
    }
    target.sync()?;
    if from.offset > 0
        && let Some(file) = dir.open_write(&scheme.name(from.segment))?
    {
        file.set_len(from.offset)?;
        file.sync_all()?;
    }
    dir.sync()?;
    Ok(shown(target.path()))
}
