//! A new tree beside the destination: first a copy of it (by reflinks where the file system has them), then synced
//! directly, then exchanged with it in one step. Nobody uses it before, so it may be torn for as long as it takes, and an
//! interrupted run goes on with it.

use std::collections::{BTreeMap, HashMap};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::json;

use super::ground::left_out;
use super::history;
use super::state::State;
use crate::edge::clone::Way;
use crate::edge::dir::Dir;
use crate::edge::tree::{Dress, Tree};
use crate::edge::{clock, clone};
use crate::rule::sync::filter::Filter;
use crate::value::entry::Entry;
use crate::value::exit::{Code, Failure};
use crate::value::name::Name;

/// Its name in the state directory, while it is copied, and that of the tree it replaced.
const STAGE: &str = "stage";
const DRAFT: &str = "stage.new";
const OLD: &str = "old";

/// See the module.
pub struct Stage<'a> {
    state: &'a State,
    destination: PathBuf,
    tree: Tree,
    dress: Dress,
}

/// What of the destination goes into a stage before the switch.
pub struct Carried<'a> {
    /// What takes part in the sync: the rest is kept, its own configuration and our own state.
    pub filter: &'a Filter,
    /// Of that, what stays behind.
    pub dropped: &'a Filter,
    /// What only the stage has of what takes part; none where nothing else is kept.
    pub others: Option<&'a [Name]>,
}

/// The tree of a destination, made when it is missing.
pub fn open_or_make(destination: &Path) -> Result<Tree> {
    Dir::create(destination)?;
    Tree::open(destination)
}

impl Stage<'_> {
    /// The stage of a destination, with what an interrupted run left in it, or a copy of the destination. Where there is
    /// none yet, further names for the files of a tree that it is going to be like: nobody writes to that one.
    pub fn prepare<'a>(
        state: &'a State,
        destination: &Path,
        like: Option<&Path>,
        filter: &Filter,
        dress: Dress,
    ) -> Result<Stage<'a>> {
        if state.dir().identity(STAGE)?.is_some() {
            let dir = state.dir().open_subdir(STAGE)?;
            tidy(&dir, &Tree::of(&dir)?)?;
        } else {
            // One that is not a whole copy yet has another name: what only the destination has would be missing.
            if state.dir().identity(DRAFT)?.is_some() {
                remove_tree(state.dir(), DRAFT)?;
            }
            let draft = state.dir().subdir(DRAFT)?;
            let old = if destination.exists() { Some((destination, Way::Copy)) } else { like.zip(Some(Way::Link)) };
            if let Some((old, way)) = old {
                let (old, filter) = (Tree::open(old)?, filter.clone());
                let skip = move |name: &Name, is_directory| filter.leaves_out(name, is_directory);
                clone::clone_tree(&old, &Tree::of(&draft)?, skip, dress, way)?;
            }
            state.dir().rename(DRAFT, state.dir(), STAGE)?;
        }
        let tree = Tree::of(&state.dir().open_subdir(STAGE)?)?;
        Ok(Stage { state, destination: destination.to_owned(), tree, dress })
    }

    /// The tree.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Brings along what the destination keeps, with the directories that it is in, as it is now that the server is down.
    pub fn carry(&self, carried: &Carried<'_>) -> Result<()> {
        if !self.destination.exists() {
            return Ok(());
        }
        let old = Tree::open(&self.destination)?;
        let (mut ways, mut linked) = (BTreeMap::new(), HashMap::new());
        for name in &self.keeps(&old, carried)? {
            let Some(entry) = old.look(name)? else {
                // It went since it was copied.
                self.tree.remove_all(name)?;
                continue;
            };
            self.way(&old, &name.parent(), &mut ways)?;
            let identity = (entry.stamp.device, entry.stamp.inode);
            match linked.get(&identity) {
                Some(first) => self.tree.link(first, name)?,
                None => self.carry_one(&old, name, &entry)?,
            }
            if entry.links > 1 && !entry.is_directory() {
                linked.entry(identity).or_insert_with(|| name.clone());
            }
        }
        // Their times show nothing of this.
        ways.values().rev().try_for_each(|entry| self.tree.dress(entry, self.dress))
    }

    /// What the destination keeps, the highest of each branch.
    fn keeps(&self, old: &Tree, carried: &Carried<'_>) -> Result<Vec<Name>> {
        let left_out = left_out(old, carried.filter)?.into_iter();
        let mut names: Vec<Name> = left_out
            .filter(|(name, is_dir)| !carried.dropped.leaves_out(name, *is_dir))
            .map(|(name, _)| name)
            .collect();
        if let Some(others) = carried.others {
            names.extend_from_slice(others);
            let filter = carried.filter.clone();
            for entry in old.walk(move |name, is_directory| filter.leaves_out(name, is_directory)).bare() {
                let entry = entry.map_err(|unread| {
                    anyhow::Error::from(unread.error).context(format!("cannot read {}", unread.name))
                })?;
                // It came since the stage was made.
                if self.tree.look(&entry.name)?.is_none() {
                    names.push(entry.name);
                }
            }
        }
        names.sort();
        names.dedup_by(|name, above| name == above || name.is_below(above));
        Ok(names)
    }

    /// A directory that something is to be carried into, and those above it, as they are to be in the end.
    fn way(&self, old: &Tree, directory: &Name, ways: &mut BTreeMap<Name, Entry>) -> Result<()> {
        if ways.contains_key(directory) {
            return Ok(());
        }
        let entry = match self.tree.look(directory)? {
            Some(entry) if entry.is_directory() => entry,
            Some(entry) => {
                let kind = entry.kind;
                let text = format!(
                    "{directory} is {kind} at the source and a directory with something in it here that is left out"
                );
                let failure = Failure::new(Code::Guarded, text);
                return Err(failure.hint("move the directory away, or --exclude its name").into());
            }
            None => {
                self.way(old, &directory.parent(), ways)?;
                let entry = old.look(directory)?.context("it vanished")?;
                self.tree.make(&entry)?;
                entry
            }
        };
        ways.insert(directory.clone(), entry);
        Ok(())
    }

    fn carry_one(&self, old: &Tree, name: &Name, entry: &Entry) -> Result<()> {
        self.tree.remove_all(name)?;
        if entry.is_directory() {
            self.tree.make(entry)?;
            let (from, to) = (old.subtree(name)?, self.tree.subtree(name)?);
            return clone::clone_tree(&from, &to, |_, _| false, self.dress, Way::Copy);
        }
        if entry.is_file() {
            let file = old.open_read(name)?.context("it vanished")?;
            clone::clone_file(&file, &self.tree.create(name)?)?;
        } else {
            self.tree.make(entry)?;
        }
        self.tree.dress(entry, self.dress)
    }

    /// Exchanges the two trees. The old one waits for [`clean`]: to remove it takes long, and the server is down.
    pub fn switch(self) -> Result<()> {
        let (parent, name) = place(&self.destination)?;
        let state = self.state.dir();
        if self.destination.exists() {
            clone::exchange(state, STAGE, &parent, &name)?;
        } else {
            state.rename(STAGE, &parent, &name)?;
        }
        parent.sync()?;
        state.sync()?;
        if state.identity(STAGE)?.is_some() {
            if state.identity(OLD)?.is_some() {
                clone::exchange(state, STAGE, state, OLD)?;
            } else {
                state.rename(STAGE, state, OLD)?;
            }
            state.sync()?;
        }
        Ok(())
    }
}

/// Removes the trees that are not needed any more: those before the old one, and that, unless it is to be kept.
pub fn clean(state: &State, keeps_old: bool) -> Result<()> {
    discard(state)?;
    if !keeps_old && state.dir().identity(OLD)?.is_some() {
        remove_tree(state.dir(), OLD)?;
    }
    Ok(())
}

/// Removes what an interrupted run left at the root (see [`super::target::Target::sink`]): no pass would see it, and it
/// would come into the destination with the switch.
fn tidy(dir: &Dir, stage: &Tree) -> Result<()> {
    for name in dir.names()? {
        if name.as_bytes().starts_with(super::state::STATE.as_bytes()) {
            stage.remove_all(&Name::root().join(name.as_bytes()))?;
        }
    }
    Ok(())
}

/// Throws away what an interrupted run left of a stage.
pub fn discard(state: &State) -> Result<()> {
    match state.dir().identity(STAGE)? {
        Some(_) => remove_tree(state.dir(), STAGE),
        None => Ok(()),
    }
}

/// Exchanges a destination with the tree that the last switch replaced.
pub fn roll_back(state: &State, destination: &Path, reason: Option<&str>) -> Result<()> {
    if state.dir().identity(OLD)?.is_none() {
        let failure = Failure::new(Code::Failed, format!("there is no old tree of {}", destination.display()));
        return Err(failure.hint("--keep-old keeps it at the next sync").into());
    }
    let (parent, name) = place(destination)?;
    clone::exchange(state.dir(), OLD, &parent, &name)?;
    parent.sync()?;
    state.dir().sync()?;
    let time = clock::now().to_string();
    history::add(state.dir(), &json!({"v": 1, "time": time, "did": "rollback", "reason": reason}))
}

fn place(destination: &Path) -> Result<(Dir, String)> {
    let parent = destination.parent().context("the destination has no parent")?;
    let name = destination.file_name().and_then(|name| name.to_str());
    let name = name.context("the destination's name is not UTF-8: use --inplace")?;
    Ok((Dir::open(parent)?, name.to_owned()))
}

fn remove_tree(dir: &Dir, name: &str) -> Result<()> {
    let tree = Tree::of(dir)?;
    match Name::parse(name.as_bytes()) {
        Some(name) => tree.remove_all(&name),
        None => Ok(()),
    }
}
