//! Whole new files in the place of patches, so that little is left to write while the server is down.
//!
//! A patch waits in the journal, and its pages are written to their places, all over the file, by the replay. What is read
//! of a replica that fell far behind can be many thousands of them, and a disk takes its time over each. So while the
//! server still runs, the file as it will be is made beside it, as other new files are; the replay gives it the name. Later
//! passes write into the new file, which nobody uses yet. It costs a copy of the file, and its space.

use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Target;
use crate::edge::blocks::{punch, write_all_at};
use crate::edge::clone::clone_file;
use crate::edge::tree::{self, Tree};
use crate::engine::sync::journal::Journal;
use crate::engine::sync::journal::op::{Extent, Op};
use crate::value::name::Name;

/// What a disk may take for a write to another place (4000 a second: a plain SSD, or a volume of a cloud).
const PLACE: Duration = Duration::from_micros(250);
/// And for a byte (250 MB/s), in nanoseconds.
const BYTE: u64 = 4;

impl Target<'_> {
    /// Makes whole files of the dearest patches until the rest is predicted to be written in that time, or until they
    /// would take more than `room` bytes.
    pub fn relieve(&self, enough: Duration, mut room: u64) -> Result<()> {
        let Target::Journal(tree, journal) = self else { return Ok(()) };
        let (mut total, mut dear) = (Duration::ZERO, Vec::new());
        for name in journal.names().filter(|name| !journal.is_staged(name)) {
            if let Some(Op::Patch { extents, .. }) = journal.pending(&name).as_deref() {
                let cost = cost(extents);
                total += cost;
                if cost >= enough / 16 {
                    dear.push((cost, name));
                }
            }
        }
        dear.sort();
        while let Some((cost, name)) = dear.pop().filter(|_| total > enough) {
            if let Some(size) = make_whole(tree, journal, &name, room)? {
                (total, room) = (total.saturating_sub(cost), room - size);
            }
        }
        Ok(())
    }
}

/// How long the replay may take over a file.
fn cost(extents: &[Extent]) -> Duration {
    let (mut cost, mut end) = (Duration::ZERO, None);
    for extent in extents.iter().filter(|extent| !extent.is_hole) {
        if end != Some(extent.offset) {
            cost += PLACE;
        }
        cost += Duration::from_nanos(extent.length.saturating_mul(BYTE));
        end = Some(extent.end());
    }
    cost
}

/// How long the new file is, if one was made.
fn make_whole(tree: &Tree, journal: &Journal, name: &Name, room: u64) -> Result<Option<u64>> {
    let (pending, old) = (journal.pending(name), tree.open_read(name)?);
    let (Some(Op::Patch { entry, base, extents, digest }), Some(old)) = (pending.as_deref(), old) else {
        return Ok(None);
    };
    let size = entry.stamp.size;
    // Of one that has changed, the next pass compares all. One that changes from now on, too.
    if size > room || tree::stamp(&old)? != *base {
        return Ok(None);
    }
    let (staged, file) = journal.stage()?;
    let fill = || -> Result<()> {
        clone_file(&old, &file)?;
        let mut bytes = Vec::new();
        for extent in extents {
            if extent.is_hole {
                punch(&file, extent.offset, extent.length)?;
            } else {
                bytes.resize(extent.length as usize, 0);
                journal.load(extent, &mut bytes)?;
                write_all_at(&file, &bytes, extent.offset)?;
            }
        }
        Ok(file.set_len(size)?)
    };
    fill().with_context(|| format!("cannot make {name} anew"))?;
    journal.add(Op::Place { entry: entry.clone(), staged, digest: *digest })?;
    Ok(Some(size))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt as _;

    use super::*;
    use crate::engine::sync::state::State;

    const PAGE: usize = 4096;

    /// A journal with a patch of every other page of a file; the file's name, and what it is to become.
    fn scattered(root: &std::path::Path, file: &str, pages: usize) -> (Tree, Journal, Name, Vec<u8>) {
        let destination = root.join("d");
        std::fs::create_dir_all(&destination).unwrap();
        let mut content = vec![1; pages * PAGE];
        std::fs::write(destination.join(file), &content).unwrap();
        let journal = Journal::open(&State::open(&destination).unwrap()).unwrap();
        let (tree, name) = (Tree::open(&destination).unwrap(), Name::root().join(file.as_bytes()));
        let mut extents = Vec::new();
        for (number, page) in content.chunks_mut(PAGE).enumerate().step_by(2) {
            let offset = (number * PAGE) as u64;
            page.fill(if number == 0 { 0 } else { 2 });
            extents.push(if number == 0 {
                Extent::hole(offset, PAGE as u64)
            } else {
                let (blob, crc) = journal.store(page).unwrap();
                Extent { offset, length: PAGE as u64, blob, crc, is_hole: false }
            });
        }
        let entry = tree.look(&name).unwrap().unwrap();
        let digest = *blake3::hash(&content).as_bytes();
        journal.add(Op::Patch { base: entry.stamp, entry, extents, digest }).unwrap();
        (tree, journal, name, content)
    }

    #[test]
    fn a_patch_of_many_places_becomes_a_whole_file_where_there_is_room() {
        let root = tempfile::tempdir().unwrap();
        let (tree, journal, name, content) = scattered(root.path(), "many", 1000);
        let target = Target::Journal(&tree, &journal);
        let is_patch = || matches!(journal.pending(&name).as_deref(), Some(Op::Patch { .. }));
        // 500 places are 0.125 s.
        target.relieve(Duration::from_millis(200), u64::MAX).unwrap();
        assert!(is_patch(), "it is cheap enough");
        target.relieve(Duration::from_millis(50), content.len() as u64 - 1).unwrap();
        assert!(is_patch(), "there is no room");
        target.relieve(Duration::from_millis(50), content.len() as u64).unwrap();
        let Some(Op::Place { staged, digest, .. }) = journal.pending(&name).as_deref().cloned() else {
            panic!("{:?}", journal.pending(&name));
        };
        let mut made = vec![0; content.len()];
        let file = journal.open_staged(staged).unwrap();
        file.read_exact_at(&mut made, 0).unwrap();
        assert!(made == content && file.metadata().unwrap().len() == content.len() as u64);
        assert_eq!(digest, *blake3::hash(&content).as_bytes());
        assert!(std::fs::read(root.path().join("d/many")).unwrap() == vec![1; content.len()], "which is in use");
    }

    #[test]
    fn a_file_that_was_changed_by_its_server_is_left_to_the_next_pass() {
        let root = tempfile::tempdir().unwrap();
        let (tree, journal, name, content) = scattered(root.path(), "changed", 1000);
        std::fs::write(root.path().join("d/changed"), &content[1..]).unwrap();
        Target::Journal(&tree, &journal).relieve(Duration::ZERO, u64::MAX).unwrap();
        assert!(matches!(journal.pending(&name).as_deref(), Some(Op::Patch { .. })));
    }
}
