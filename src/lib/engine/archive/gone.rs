//! Removes bases. A base loses its name first, durably, and only then its files: nobody ever sees half of one. What a
//! kill has left under `.gone-NAME` goes at the next run.

use anyhow::{Context as _, Result};

use super::BASES;
use crate::edge::dir::Dir;
use crate::edge::tree::Tree;
use crate::value::name::Name;

/// What a base is called while it is being removed.
const GONE: &str = ".gone-";

/// Takes the names of these bases away.
pub fn hide(archive: &Dir, names: &[String]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    let bases = archive.open_subdir(BASES)?;
    for name in names {
        bases.rename(name, &bases, &format!("{GONE}{name}"))?;
    }
    bases.sync()
}

/// Removes the bases that have no name any more.
pub fn finish(archive: &Dir) -> Result<()> {
    if archive.identity(BASES)?.is_none() {
        return Ok(());
    }
    let bases = archive.open_subdir(BASES)?;
    let names = bases.names()?.into_iter().filter(|name| name.as_encoded_bytes().starts_with(GONE.as_bytes()));
    let names: Vec<_> = names.collect();
    if names.is_empty() {
        return Ok(());
    }
    let tree = Tree::of(&bases)?;
    for name in names {
        let name = Name::parse(name.as_encoded_bytes()).context("a base has an impossible name")?;
        tree.remove_all(&name)?;
    }
    bases.sync()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_loses_its_name_and_then_its_files() {
        let root = tempfile::tempdir().unwrap();
        let archive = Dir::open(root.path()).unwrap();
        finish(&archive).unwrap();
        for name in ["one", "two"] {
            std::fs::create_dir_all(root.path().join("bases").join(name).join("data/deep")).unwrap();
            std::fs::write(root.path().join("bases").join(name).join("data/deep/file"), "x").unwrap();
        }
        hide(&archive, &["one".to_owned()]).unwrap();
        let names = || archive.open_subdir(BASES).unwrap().names().unwrap();
        assert!(names().iter().any(|name| name == ".gone-one") && names().iter().any(|name| name == "two"));
        finish(&archive).unwrap();
        assert_eq!(names(), ["two"]);
    }
}
