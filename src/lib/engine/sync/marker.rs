//! `DST/.repl-sync-incomplete`: the one word about a destination that whoever starts its server goes by.
//!
//! A journal of changes is replayed into a destination that must not be used meanwhile. The order of what is made
//! durable is: the server is stopped; the marker says *prepared*; the journal is committed; the marker says *replaying*;
//! the destination is written and synced; the marker says *done*; the journal is removed; the marker is removed. So
//!
//! - without a marker nothing of a journal was ever written, or all of it;
//! - with *prepared* nothing was written, but somebody may begin to at any instant if the journal is committed;
//! - with *replaying* the destination may be of two minds;
//! - with *done* it is new and whole.
//!
//! Whatever cannot be read or understood counts as *replaying*: that costs a start and not a database.
//!
//! # Format
//!
//! One line: `repl-sync v=1 state=replaying journal=HEX directory=PATH time=RFC3339`, values as
//! [`crate::value::escape::word_bytes`] prints them. The directory is the state directory with the journal. The file
//! belongs to the destination's owner, so that the server's user can read it.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::journal::COMMITTED;
use super::journal::record::Id;
use super::state;
use crate::edge::clock;
use crate::edge::dir::{Dir, shown};
use crate::engine::recover::place;
use crate::value::escape::word_bytes;
use crate::value::exit::{Code, Failure};
use crate::value::pairs;
use crate::value::time::Time;

/// Its name.
pub const MARKER: &str = ".repl-sync-incomplete";
/// Most bytes of it: a path is at most 4096, each three when escaped.
const LIMIT: u64 = 1 << 14;

/// How far a replay has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The journal is about to be committed, or just was; nothing is written yet.
    Prepared,
    /// Writing has begun.
    Replaying,
    /// All is written and synced; what is left is tidying.
    Done,
}

/// What the marker says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// How far.
    pub step: Step,
    /// Which journal.
    pub journal: Id,
    /// The state directory with the journal.
    pub directory: PathBuf,
    /// When this step began.
    pub time: Time,
}

const STEPS: [(Step, &str); 3] = [(Step::Prepared, "prepared"), (Step::Replaying, "replaying"), (Step::Done, "done")];

impl Marker {
    /// One of now.
    pub fn now(step: Step, journal: Id, directory: &Path) -> Marker {
        Marker { step, journal, directory: directory.to_owned(), time: clock::now() }
    }

    /// Its line.
    pub fn print(&self) -> String {
        let step = STEPS.iter().find(|(step, _)| *step == self.step).map_or("", |(_, word)| word);
        let directory = word_bytes(self.directory.as_os_str().as_bytes());
        format!("repl-sync v=1 state={step} journal={} directory={directory} time={}\n", self.journal, self.time)
    }

    /// Reads its line.
    pub fn parse(bytes: &[u8]) -> Option<Marker> {
        let line = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?.strip_prefix("repl-sync ")?;
        if pairs::count(line, "v") != Some(1) {
            return None;
        }
        let word = pairs::get(line, "state")?;
        let (step, _) = STEPS.iter().find(|(_, name)| **name == word)?;
        Some(Marker {
            step: *step,
            journal: Id::parse(&pairs::get(line, "journal")?)?,
            directory: OsString::from_vec(pairs::bytes(line, "directory")?).into(),
            time: Time::parse(&pairs::get(line, "time")?)?,
        })
    }

    /// The one in a destination. One that cannot be understood is refused (5).
    pub fn read(destination: &Dir) -> Result<Option<Marker>> {
        let Some(bytes) = destination.read_small(MARKER, LIMIT)? else {
            return Ok(None);
        };
        let foreign = || Failure::new(Code::Fenced, format!("{} is not understood", destination.shown(MARKER)));
        Ok(Some(Marker::parse(&bytes).ok_or_else(foreign)?))
    }

    /// Puts it into a destination, durably, in the place of an earlier one. The destination's own mtime stays.
    pub fn write(&self, destination: &Dir) -> Result<()> {
        destination.keeping_time(|| destination.replace_exclusively(MARKER, self.print().as_bytes()))
    }

    /// Takes it out of a destination, durably, with what a crash left of one that was being written.
    pub fn remove(destination: &Dir) -> Result<()> {
        let draft = format!("{MARKER}.new");
        if destination.identity(&draft)?.is_none() && destination.identity(MARKER)?.is_none() {
            // Not even its times are touched.
            return Ok(());
        }
        destination.keeping_time(|| {
            let is_removed = destination.remove_if_there(&draft)? | destination.remove_if_there(MARKER)?;
            if is_removed { destination.sync() } else { Ok(()) }
        })
    }
}

/// A path as a word of a command line in a hint.
pub fn quoted(path: &Path) -> String {
    shell_words::quote(&shown(path)).into_owned()
}

/// Whether a server may be started on this directory; if not, fenced (5) with what to do. Changes nothing and takes no
/// lock.
pub fn guard(destination: &Path) -> Result<()> {
    let dir = Dir::open(destination)?;
    place::fence(&dir)?;
    if dir.identity(MARKER)?.is_none() {
        return Ok(());
    }
    let place = shown(destination);
    let refuse = |why: String| -> Result<()> {
        let failure = Failure::new(Code::Fenced, format!("{place} must not be used: {why}"));
        Err(failure.hint(format!("repl-sync --replay {}", quoted(destination))).into())
    };
    match Marker::read(&dir) {
        Err(error) => refuse(format!("{error:#}")),
        Ok(None | Some(Marker { step: Step::Done, .. })) => Ok(()),
        Ok(Some(Marker { step: Step::Replaying, time, .. })) => {
            refuse(format!("a sync is being written into it since {}", time.narrate()))
        }
        Ok(Some(marker)) => match committed(destination, &marker) {
            Ok(None) => Ok(()),
            Ok(Some(found)) => refuse(format!("{found} is about to be written into it")),
            Err(error) => refuse(format!("it cannot be seen whether a sync is about to be written into it: {error}")),
        },
    }
}

/// The committed journal of a destination, where the marker says or where one belongs: either may have been moved.
fn committed(destination: &Path, marker: &Marker) -> Result<Option<String>> {
    let mut places = state::paths(destination)?;
    places.push(marker.directory.clone());
    for place in places {
        let file = place.join(COMMITTED);
        if file.try_exists().map_err(|error| anyhow::anyhow!("{}: {error}", shown(&file)))? {
            return Ok(Some(shown(&file)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::exit::{code_of, hint_of};
    use std::fs;

    fn marker(step: Step) -> Marker {
        Marker { step, journal: Id([0xab; 16]), directory: "/srv/.repl-sync-a b".into(), time: Time::from_seconds(9) }
    }

    #[test]
    fn it_is_one_line_that_is_read_back() {
        for step in [Step::Prepared, Step::Replaying, Step::Done] {
            let mut marker = marker(step);
            marker.directory = OsString::from_vec(b"/srv/\xff\n".to_vec()).into();
            let line = marker.print();
            assert!(line.ends_with('\n') && line.lines().count() == 1, "{line}");
            assert_eq!(Marker::parse(line.as_bytes()), Some(marker));
            for end in 0..line.len() {
                assert_eq!(Marker::parse(&line.as_bytes()[..end]), None, "cut at {end}");
            }
        }
        let line = marker(Step::Done).print();
        for (part, other) in [("v=1", "v=2"), ("done", "over"), ("repl-sync ", ""), ("ab", "xy")] {
            assert_eq!(Marker::parse(line.replace(part, other).as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn the_guard_knows_each_step() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("main");
        fs::create_dir(&path).unwrap();
        let destination = Dir::open(&path).unwrap();
        let verdict = || guard(&path).map_err(|error| (code_of(&error), hint_of(&error).unwrap_or("").to_owned()));
        let refused = Err((Code::Fenced, format!("repl-sync --replay {}", path.display())));
        assert_eq!(verdict(), Ok(()));
        for (step, committed, fine) in [
            (Step::Prepared, None, true),
            (Step::Prepared, Some("elsewhere"), false),
            (Step::Prepared, Some(".repl-sync-main"), false),
            (Step::Prepared, Some("main/.repl-sync"), false),
            (Step::Replaying, None, false),
            (Step::Replaying, Some(".repl-sync-main"), false),
            (Step::Done, None, true),
            (Step::Done, Some(".repl-sync-main"), true),
        ] {
            let mut marker = marker(step);
            marker.directory = root.path().join("elsewhere");
            marker.write(&destination).unwrap();
            if let Some(place) = committed {
                fs::create_dir(root.path().join(place)).unwrap();
                fs::write(root.path().join(place).join(COMMITTED), "").unwrap();
            }
            assert_eq!(verdict(), if fine { Ok(()) } else { refused.clone() }, "{step:?} {committed:?}");
            if let Some(place) = committed {
                fs::remove_dir_all(root.path().join(place)).unwrap();
            }
        }
        for foreign in ["", "\n", "repl-sync v=2 state=done\n"] {
            fs::write(path.join(MARKER), foreign).unwrap();
            assert_eq!(verdict(), refused);
        }
        fs::remove_file(path.join(MARKER)).unwrap();
        std::os::unix::fs::symlink("nowhere", path.join(MARKER)).unwrap();
        assert_eq!(verdict(), refused);
        Marker::remove(&destination).unwrap();
        assert_eq!(verdict(), Ok(()));
        assert!(fs::read_dir(&path).unwrap().next().is_none());
    }
}
