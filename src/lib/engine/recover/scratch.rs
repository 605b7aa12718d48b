//! A private directory with a short path, as a socket's must be, for a server of our own.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::edge::dir::shown;
use crate::edge::user::User;

/// A recovery takes as long as it takes.
pub(super) const LONG: Duration = Duration::from_secs(10 * 365 * 86400);

/// See the module. Removed when dropped.
pub(super) struct Scratch {
    pub(super) path: PathBuf,
    owner: Option<(u32, u32)>,
}

impl Scratch {
    /// For a server that runs as this user.
    pub(super) fn new(user: Option<&User>) -> Result<Scratch> {
        let path = std::env::temp_dir().join(format!("repl-recover-{:016x}", fastrand::u64(..)));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("cannot make {}", shown(&path)))?;
        let scratch = Scratch { path, owner: user.map(User::numbers) };
        scratch.give(&scratch.path)?;
        Ok(scratch)
    }

    /// Gives a file that we have made to who runs the server.
    pub(super) fn give(&self, path: &Path) -> Result<()> {
        let Some((uid, gid)) = self.owner else {
            return Ok(());
        };
        let given = std::os::unix::fs::chown(path, Some(uid), Some(gid));
        given.with_context(|| format!("cannot give {} away", shown(path)))
    }

    /// Makes a file that only who runs the server can read.
    pub(super) fn write(&self, path: &Path, text: &str) -> Result<()> {
        let write =
            || OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes());
        write().with_context(|| format!("cannot write {}", shown(path)))?;
        self.give(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // It was ours alone; what stays is in the way of nothing.
        let _ = std::fs::remove_dir_all(&self.path);
    }
}
