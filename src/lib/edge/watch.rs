//! Rings a bell when something in a directory is written, made or removed. It is a hint and no more: an event may be
//! lost (a full queue, a write through mmap, a network file system), so whoever listens also looks by the clock.

use std::path::Path;

use anyhow::{Context as _, Result};
use notify::event::{EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};

use super::bell::Bell;

/// Watches until dropped.
pub struct Watch {
    _watcher: RecommendedWatcher,
}

impl Watch {
    /// Rings `bell` at each change in this directory. An error means that watching is not possible here; looking by the
    /// clock still is.
    pub fn start(directory: &Path, bell: Bell) -> Result<Watch> {
        let ring = move |event: notify::Result<Event>| match event {
            // Reading is no news, and our own reads must not wake us.
            Ok(Event { kind: EventKind::Access(_) | EventKind::Modify(ModifyKind::Metadata(_)), .. }) => {}
            Ok(_) | Err(_) => bell.ring(),
        };
        let mut watcher = notify::recommended_watcher(ring).context("cannot watch for changes")?;
        watcher.watch(directory, RecursiveMode::NonRecursive).context("cannot watch for changes")?;
        Ok(Watch { _watcher: watcher })
    }
}
