//! The cvs of the groups of files that were proven equal, by which a file that has changed at the source alone is compared
//! without reading it here: it is what it was while its stamp is the one in its pair (see [`super::pairs`]).
//!
//! One file in the state directory has them, a region for each file of more than one group, found by its pair and by
//! nothing else; a group's cv is at its number times 32. Regions are only added. It is a cache: nothing is synced, and what
//! is in a region counts only when it makes the digest in the pair. When most of it is of no use any more, all is
//! forgotten.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context as _, Result};

use crate::edge::dir::Dir;
use crate::rule::sync::merkle::{self, Cv, GROUP, RANGE};

/// Its name in the state directory.
const FILE: &str = "digests";
/// Bytes of a cv.
const CV: u64 = 32;
/// So much more than what is in use may be there, and so many times as much.
const SPARE: u64 = 16 << 20;
const TIMES: u64 = 4;

/// See the module.
#[derive(Debug)]
pub struct Digests {
    file: File,
    end: AtomicU64,
}

impl Digests {
    /// Those in a state directory; `None` where there are none and none are to be made.
    pub fn open(dir: &Dir, makes: bool) -> Result<Option<Digests>> {
        let file = match dir.open_write(FILE)? {
            None if makes => Some(dir.create_new(FILE)?),
            file => file,
        };
        let Some(file) = file else { return Ok(None) };
        let length = file.metadata().with_context(|| format!("cannot look at {}", dir.shown(FILE)))?.len();
        Ok(Some(Digests { file, end: length.next_multiple_of(CV).into() }))
    }

    /// A region for a file of this size.
    pub fn reserve(&self, size: u64) -> Option<u64> {
        let length = merkle::parts(size, GROUP) as u64 * CV;
        let add = |end: u64| end.checked_add(length).filter(|end| i64::try_from(*end).is_ok());
        self.end.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok()
    }

    /// Keeps those of a range of a file, or does not: then the file is read the next time.
    pub fn keep(&self, region: u64, offset: u64, cvs: &[Cv]) {
        let _ = self.file.write_all_at(cvs.as_flattened(), region + offset / GROUP * CV);
    }

    /// Those of a range of a file.
    pub fn range(&self, region: u64, offset: u64, length: u64) -> Option<Vec<Cv>> {
        let mut cvs = vec![[0; CV as usize]; merkle::parts(length, GROUP)];
        self.file.read_exact_at(cvs.as_flattened_mut(), region + offset / GROUP * CV).ok()?;
        Some(cvs)
    }

    /// Whether a region has those of a file with this digest.
    pub fn are_of(&self, region: u64, size: u64, digest: &Cv) -> bool {
        let range = |offset: u64| {
            let cvs = self.range(region, offset, RANGE.min(size - offset))?;
            Some(merkle::fold(&cvs, size <= RANGE))
        };
        let ranges: Option<Vec<Cv>> = (0..size).step_by(RANGE as usize).map(range).collect();
        size > GROUP && ranges.is_some_and(|ranges| merkle::fold(&ranges, true) == *digest)
    }

    /// At the end of a pass over so many bytes of files.
    pub fn tidy(&self, bytes: u64) {
        let used = bytes / GROUP * CV;
        if self.end.load(Ordering::Relaxed) > used.saturating_mul(TIMES).saturating_add(SPARE) {
            // Or the next pass does.
            let _ = self.file.set_len(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_counts_only_for_its_own_digest_and_whole() {
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::open(root.path()).unwrap();
        assert!(Digests::open(&dir, false).unwrap().is_none());
        let digests = Digests::open(&dir, true).unwrap().unwrap();
        let bytes: Vec<u8> =
            (0..(RANGE + 3 * GROUP + 5) as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let (size, digest) = (bytes.len() as u64, *blake3::hash(&bytes).as_bytes());
        let (one, other) = (digests.reserve(size).unwrap(), digests.reserve(size).unwrap());
        assert!(!digests.are_of(one, size, &digest), "nothing is there yet");
        let all = merkle::groups(0, &bytes);
        let (first, second) = all.split_at((RANGE / GROUP) as usize);
        digests.keep(other, 0, first);
        assert!(!digests.are_of(other, size, &digest), "half of it is there");
        digests.keep(other, RANGE, second);
        digests.tidy(size);
        let digests = Digests::open(&dir, false).unwrap().unwrap();
        assert!(digests.are_of(other, size, &digest));
        assert!(!digests.are_of(one, size, &digest), "another file's region");
        assert!(!digests.are_of(other, size, blake3::hash(b"").as_bytes()));
        assert!(!digests.are_of(other, size - GROUP, &digest));
        assert!(!digests.are_of(u64::MAX - 31, size, &digest), "a region that cannot be");
        assert_eq!(digests.range(other, RANGE, size - RANGE).unwrap(), second);
        digests.keep(other, RANGE, &second[1..]);
        assert!(!digests.are_of(other, size, &digest), "damaged");
    }

    #[test]
    fn what_is_of_no_use_goes_and_no_size_is_too_large() {
        let root = tempfile::tempdir().unwrap();
        let dir = Dir::open(root.path()).unwrap();
        let digests = Digests::open(&dir, true).unwrap().unwrap();
        let region = digests.reserve(64 << 40).unwrap();
        digests.keep(region, (64 << 40) - GROUP, &[[1; 32]]);
        let length = || std::fs::metadata(root.path().join(FILE)).unwrap().len();
        digests.tidy(64 << 40);
        assert_eq!(length(), (64 << 40) / GROUP * CV);
        digests.tidy(1 << 30);
        assert_eq!(length(), 0);
        while digests.reserve(u64::MAX / 2).is_some() {}
    }
}
