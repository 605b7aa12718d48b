//! What a copy is for: a server, or an archive.

use std::path::{Path, PathBuf};

/// What the copy is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A server, which has some things of its own there.
    Replica,
    /// An archive: all is as the source has it, the log as well, which no recovery has added to. Files that are as in the
    /// copy before it are further names of those.
    Base {
        /// The copy before it, which must be of the same database.
        before: Option<PathBuf>,
        /// What it begins with: that copy, or one that an interrupted run has made.
        like: Option<PathBuf>,
    },
}

impl Purpose {
    /// The copy before this one.
    pub(super) fn before(&self) -> Option<&Path> {
        match self {
            Purpose::Replica => None,
            Purpose::Base { before, .. } => before.as_deref(),
        }
    }

    /// The copy that this one begins with.
    pub(super) fn like(&self) -> Option<&Path> {
        match self {
            Purpose::Replica => None,
            Purpose::Base { like, .. } => like.as_deref(),
        }
    }
}
