//! Copies of files and trees on one machine.

use std::fs::File;

use anyhow::{Result, bail};

use super::dir::Dir;
use super::tree::{Dress, Tree};
use crate::value::name::Name;

/// Whether files in this directory can share blocks (reflinks); tried out on two files that are removed again.
pub fn has_reflinks(_dir: &Dir) -> bool {
    false
}

/// Makes one open file a copy of another, sharing blocks where the file system can; holes stay holes.
pub fn clone_file(_from: &File, _to: &File) -> Result<()> {
    bail!("not yet")
}

/// Makes one tree a copy of another, but for what is skipped on both sides: everything, with hard links among what is
/// copied. What is already there with the same size and mtime is kept, so that it can be gone on with.
pub fn clone_tree(
    _from: &Tree,
    _to: &Tree,
    _skip: impl Fn(&Name, bool) -> bool + Clone + Send + 'static,
    _dress: Dress,
) -> Result<()> {
    bail!("not yet")
}

/// Exchanges what two names in one directory stand for, in one step.
pub fn exchange(_parent: &Dir, _a: &str, _b: &str) -> Result<()> {
    bail!("not yet")
}

/// How many bytes and how many inodes are free for us where this directory is.
pub fn free_space(_dir: &Dir) -> Result<(u64, u64)> {
    bail!("not yet")
}

/// Whether another file system is mounted here, or another part of the same one.
pub fn is_mount_point(_dir: &Dir) -> Result<bool> {
    bail!("not yet")
}
