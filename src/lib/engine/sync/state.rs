//! What a sync keeps of its destination: a directory of ours beside it, `PARENT/.repl-sync-NAME`, so that nothing is
//! written in the destination before the point of no return, and so that it outlives an exchange of the destination.
//! Where the parent is on another file system or cannot be written to, it is `DST/.repl-sync`: files are renamed and
//! linked from it, and that works within one file system only.
//!
//! One is looked for in both places, so that the same is found by whoever runs: as root or as the database's user,
//! before the destination is there and after. It belongs to whoever runs or to root; one that others could have written
//! to is refused (5), since a journal in it is believed. It is locked as long as it is held: two syncs of one
//! destination are impossible (7).

use std::ffi::OsString;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::journal::COMMITTED;
use crate::edge::dir::{Dir, shown};
use crate::edge::lock::Lock;
use crate::value::exit::{Code, fail};

/// Its name in the destination; with a hyphen and the destination's name behind it, its name beside it. Whatever
/// begins so is passed over in a tree.
pub const STATE: &str = ".repl-sync";
/// Its lock.
const LOCK: &str = "lock";

/// The state directory of a destination, locked.
#[derive(Debug)]
pub struct State {
    dir: Dir,
    is_beside: bool,
    _lock: Lock,
}

/// Where the state directory of a destination can be.
struct Places {
    /// The destination's parent, and the name there.
    beside: Option<(Dir, OsString)>,
    /// The destination, when it is there.
    inside: Option<Dir>,
}

impl State {
    /// The state directory of a destination that may not be there yet, made (0700) when there is none. Busy (7) when
    /// another process has it.
    pub fn open(destination: &Path) -> Result<State> {
        let places = Places::of(destination)?;
        match places.find()? {
            Some((dir, is_beside)) => State::lock(dir, is_beside),
            None => {
                let (dir, is_beside) = places.make()?;
                State::lock(dir, is_beside)
            }
        }
    }

    /// The one that is there.
    pub fn find(destination: &Path) -> Result<Option<State>> {
        let found = Places::of(destination)?.find()?;
        found.map(|(dir, is_beside)| State::lock(dir, is_beside)).transpose()
    }

    fn lock(dir: Dir, is_beside: bool) -> Result<State> {
        let lock = Lock::take(&dir, LOCK)?;
        Ok(State { dir, is_beside, _lock: lock })
    }

    /// The directory.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Its path: absolute, without symbolic links when it was opened.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Whether it is beside the destination and not in it.
    pub fn is_beside(&self) -> bool {
        self.is_beside
    }
}

/// Paths at which a destination's state directory can be, for one who only looks.
pub(super) fn paths(destination: &Path) -> Result<Vec<PathBuf>> {
    let real = real(destination)?;
    let beside = real.parent().zip(real.file_name()).map(|(parent, name)| parent.join(beside_name(name.to_owned())));
    Ok(beside.into_iter().chain([real.join(STATE)]).collect())
}

/// The destination's path without symbolic links. When it is not there, its parent must be.
fn real(destination: &Path) -> Result<PathBuf> {
    if let Ok(path) = destination.canonicalize() {
        return Ok(path);
    }
    let parent = destination.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Some(name) = destination.file_name() else {
        return fail(Code::Usage, format!("'{}' does not name a directory", shown(destination)));
    };
    let parent = parent.canonicalize().with_context(|| format!("cannot open {}", shown(parent)))?;
    Ok(parent.join(name))
}

fn beside_name(name: OsString) -> OsString {
    let mut beside = OsString::from(STATE);
    beside.push("-");
    beside.push(name);
    beside
}

impl Places {
    fn of(destination: &Path) -> Result<Places> {
        let real = real(destination)?;
        let inside = if real.is_dir() { Some(Dir::open(&real)?) } else { None };
        let beside = match (real.parent(), real.file_name()) {
            (Some(parent), Some(name)) => Some((Dir::open(parent)?, beside_name(name.to_owned()))),
            _ => None,
        };
        Ok(Places { beside, inside })
    }

    /// What is there. Of two, the one whose journal was committed; else the one beside.
    fn find(&self) -> Result<Option<(Dir, bool)>> {
        let beside = match &self.beside {
            Some((parent, name)) => parent.open_private(name)?,
            None => None,
        };
        let inside = match &self.inside {
            Some(destination) => destination.open_private(STATE.as_ref())?,
            None => None,
        };
        Ok(match (beside, inside) {
            (Some(_), Some(inside)) if inside.identity(COMMITTED)?.is_some() => Some((inside, false)),
            (Some(beside), _) => Some((beside, true)),
            (None, inside) => inside.map(|inside| (inside, false)),
        })
    }

    fn make(self) -> Result<(Dir, bool)> {
        let is_one_file_system = match (&self.beside, &self.inside) {
            (Some((parent, _)), Some(inside)) => parent.own_identity()?.0 == inside.own_identity()?.0,
            _ => true,
        };
        let mut refused = None;
        if let Some((parent, name)) = self.beside.filter(|_| is_one_file_system) {
            match parent.make_private(&name) {
                Ok(dir) => return Ok((dir, true)),
                Err(error) if !cannot_be_there(&error) => return Err(error),
                Err(error) => refused = Some(error),
            }
        }
        match (self.inside, refused) {
            (Some(inside), _) => Ok((inside.make_private(STATE.as_ref())?, false)),
            (None, Some(error)) => Err(error),
            (None, None) => fail(Code::Usage, "the destination has no parent directory"),
        }
    }
}

/// Whether the parent is no place for a directory of ours, whoever makes it and however often.
fn cannot_be_there(error: &anyhow::Error) -> bool {
    let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
    let kinds = [ErrorKind::PermissionDenied, ErrorKind::ReadOnlyFilesystem, ErrorKind::InvalidFilename];
    kind.is_some_and(|kind| kinds.contains(&kind))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::exit::code_of;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    #[test]
    fn it_is_beside_whatever_path_leads_there_and_before_the_destination_is() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().canonicalize().unwrap();
        let destination = root.join("main");
        assert!(State::find(&destination).unwrap().is_none());
        let state = State::open(&destination).unwrap();
        assert_eq!((state.path(), state.is_beside()), (root.join(".repl-sync-main").as_path(), true));
        assert_eq!(fs::metadata(state.path()).unwrap().permissions().mode() & 0o7777, 0o700);
        drop(state);

        fs::create_dir(&destination).unwrap();
        symlink("main", root.join("link")).unwrap();
        for path in [root.join("main/"), root.join("link"), root.join("main/../main/.")] {
            let state = State::find(&path).unwrap().unwrap();
            assert_eq!(state.path(), root.join(".repl-sync-main"));
            let error = State::open(&path).unwrap_err();
            assert_eq!(code_of(&error), Code::Busy);
            assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
        }
        assert_eq!(paths(&destination).unwrap(), [root.join(".repl-sync-main"), root.join("main/.repl-sync")]);
    }

    #[test]
    fn one_that_is_inside_is_found_again_where_one_beside_could_be_made() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("main/.repl-sync")).unwrap();
        let state = State::open(&root.path().join("main")).unwrap();
        assert!(!state.is_beside() && state.path().ends_with("main/.repl-sync"));
    }

    #[test]
    fn a_name_that_is_too_long_for_one_beside_has_it_inside() {
        let root = tempfile::tempdir().unwrap();
        let destination = root.path().join("x".repeat(250));
        fs::create_dir(&destination).unwrap();
        assert!(!State::open(&destination).unwrap().is_beside());
        assert!(State::find(&destination).unwrap().is_some());
    }

    #[test]
    fn another_file_system_has_its_own_and_so_has_the_root() {
        // /proc is one that cannot be written to: its error names the place inside.
        let error = State::open(Path::new("/proc")).unwrap_err();
        assert!(format!("{error:#}").contains("/proc/.repl-sync"), "{error:#}");
        assert_eq!(paths(Path::new("/")).unwrap(), [Path::new("/.repl-sync")]);
    }

    #[test]
    fn a_link_a_file_and_an_open_directory_are_refused() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("elsewhere")).unwrap();
        let place = root.path().join(".repl-sync-main");
        let refused = || {
            let error = State::open(&root.path().join("main")).unwrap_err();
            assert_eq!(code_of(&error), Code::Fenced, "{error:#}");
        };
        symlink("elsewhere", &place).unwrap();
        refused();
        fs::remove_file(&place).unwrap();
        fs::write(&place, "").unwrap();
        refused();
        fs::remove_file(&place).unwrap();
        fs::create_dir(&place).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o777)).unwrap();
        refused();
        assert_eq!(fs::read_dir(root.path().join("elsewhere")).unwrap().count(), 0);
    }
}
