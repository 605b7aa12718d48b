//! Whether anything in a tree changes. What was read while nothing changed is all of one instant, however long the
//! reading took.
//!
//! A file's stamp (inode, size, mtime, ctime) changes with each write, but its clock ticks: two writes within one tick,
//! with our look between them, leave the same stamp. So a tree counts as still only after it has looked the same for
//! several ticks; for longer, where what writes wakes up now and then.

use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{fs, io};

use anyhow::{Context as _, Result};

use super::dir::shown;

/// Far longer than any file system's clock ticks.
pub const TICKS: Duration = Duration::from_millis(100);

/// What was seen of a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stillness {
    /// Over all names and stamps; their order does not count.
    sum: [u64; 4],
    /// The file that changed last, and when.
    newest: (i64, i64, PathBuf),
}

impl Stillness {
    /// Looks at all in a tree but what `is_counted` does not count, by the path below the root. Links are not followed.
    pub fn look(root: &Path, is_counted: &dyn Fn(&Path) -> bool) -> Result<Stillness> {
        let mut seen = Stillness { sum: [0; 4], newest: (0, 0, PathBuf::new()) };
        let mut waiting = vec![root.to_owned()];
        while let Some(dir) = waiting.pop() {
            let looked = seen.look_into(&dir, root, is_counted, &mut waiting);
            looked.with_context(|| format!("cannot look at {}", shown(&dir)))?;
        }
        Ok(seen)
    }

    /// Looks until nothing has changed for as long as `calm`, at least [`TICKS`]; `None` when that did not come in time.
    /// `again` says each time whether it is worth looking yet.
    pub fn wait(
        root: &Path,
        is_counted: &dyn Fn(&Path) -> bool,
        calm: Duration,
        timeout: Duration,
        again: &mut dyn FnMut() -> Result<bool>,
    ) -> Result<Option<Stillness>> {
        let deadline = Instant::now() + timeout;
        let mut since = Instant::now();
        let mut last = None;
        loop {
            let looked = Instant::now();
            let now = if again()? { Some(Stillness::look(root, is_counted)?) } else { None };
            if now.is_none() || now != last {
                since = looked;
            } else if since.elapsed() >= calm.max(TICKS) {
                return Ok(now);
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            last = now;
            std::thread::sleep(TICKS);
        }
    }

    /// The file that changed last.
    pub fn newest(&self) -> String {
        shown(&self.newest.2)
    }

    fn look_into(
        &mut self,
        dir: &Path,
        root: &Path,
        is_counted: &dyn Fn(&Path) -> bool,
        waiting: &mut Vec<PathBuf>,
    ) -> io::Result<()> {
        for entry in fs::read_dir(dir)? {
            let path = entry?.path();
            let below = path.strip_prefix(root).unwrap_or(&path);
            if !is_counted(below) {
                continue;
            }
            let metadata = match fs::symlink_metadata(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                metadata => metadata?,
            };
            self.add(below, &metadata);
            if metadata.is_dir() {
                waiting.push(path);
            }
        }
        Ok(())
    }

    fn add(&mut self, below: &Path, metadata: &Metadata) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(below.as_os_str().as_bytes());
        let signed = [metadata.mtime(), metadata.mtime_nsec(), metadata.ctime(), metadata.ctime_nsec()];
        for part in
            signed.map(i64::to_le_bytes).into_iter().chain([metadata.ino(), metadata.size()].map(u64::to_le_bytes))
        {
            hasher.update(&part);
        }
        let hash = hasher.finalize();
        for (sum, part) in self.sum.iter_mut().zip(hash.as_bytes().chunks_exact(8)) {
            *sum = sum.wrapping_add(part.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)));
        }
        let when = (metadata.ctime(), metadata.ctime_nsec());
        // A new file says more than its directory, which changed with it.
        if when > (self.newest.0, self.newest.1) || (when == (self.newest.0, self.newest.1) && metadata.is_file()) {
            self.newest = (when.0, when.1, below.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_change_is_seen_but_of_what_does_not_count() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        fs::create_dir(path("d")).unwrap();
        for name in ["a", "d/b", "d/not"] {
            fs::write(path(name), "x").unwrap();
        }
        let counts = |below: &Path| !below.ends_with("not");
        let patience = Duration::from_secs(20);
        let still = || Stillness::wait(root.path(), &counts, TICKS, patience, &mut || Ok(true)).unwrap().unwrap();
        let first = still();
        fs::write(path("d/not"), "another").unwrap();
        assert_eq!(still(), first);
        fs::write(path("d/b"), "y").unwrap();
        let second = still();
        assert_ne!(second, first);
        assert_eq!(second.newest(), "d/b");
        fs::remove_file(path("a")).unwrap();
        assert_ne!(still(), second);
    }

    #[test]
    fn what_is_not_worth_looking_at_is_never_still() {
        let root = tempfile::tempdir().unwrap();
        let timeout = Duration::from_millis(1);
        let waited = Stillness::wait(root.path(), &|_| true, TICKS, timeout, &mut || Ok(false)).unwrap();
        assert_eq!(waited, None);
    }
}
