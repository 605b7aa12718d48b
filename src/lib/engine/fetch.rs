//! Hands out one segment, or one small file beside the log, of an archive that `repl-apply` keeps: whole, verified and
//! durable, or not at all.
//!
//! No lock is taken, and a receiver may be landing log meanwhile: see [`super::archive`]. What is handed out is hashed as
//! it is copied, in one read: bytes that are not the recorded ones never get a name.
//!
//! "There is no such segment" is an answer on which a database comes up. It is given only where nothing shows that there
//! should be one: beyond the end of what is held, or where the log itself goes on without it. All else is an error.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::archive::Archive;
use super::site::{self, Holding, horizon};
use crate::edge::dir::Dir;
use crate::edge::dir::draft::Place;
use crate::edge::read::prefix_with;
use crate::rule::scheme::Step;
use crate::value::digest::{Digest, Running};
use crate::value::escape::show_bytes;
use crate::value::exit::{Code, Failure, fail};
use crate::value::position::Segment;

/// What can be told.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The open segment counts as not there.
    pub closed_only: bool,
    /// Where the archive's state is instead of `ARCHIVE/.repl`.
    pub state: Option<PathBuf>,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// The file is in its place: what it is, in words.
    Handed(String),
    /// There is none, and nothing shows that there should be one: why.
    Absent(String),
}

/// Puts the segment or small file of this name at `dest`.
pub fn run(archive: &Dir, name: &OsStr, dest: &Path, options: &Options) -> Result<Found> {
    let archive = Archive::open(archive, options.state.as_deref())?;
    let fetch = Fetch { archive, closed_only: options.closed_only };
    let scheme = &fetch.archive.origin.scheme;
    // A name of a small file is a single component, and listed by the rules; a segment's is printed anew.
    if let Some(segment) = name.to_str().and_then(|name| scheme.segment(name)) {
        return fetch.segment(segment, dest);
    }
    if let Some(name) = name.to_str().filter(|name| scheme.is_aux(name)) {
        return fetch.aux(name, dest);
    }
    let shown = show_bytes(name.as_encoded_bytes());
    if name.to_str().is_some_and(|name| scheme.is_no_aux(name)) {
        return Ok(Found::Absent(format!("there is never a {shown}")));
    }
    fail(Code::Usage, format!("'{shown}' is not a name of engine {}", scheme.engine()))
}

/// An archive, and what is asked of it.
struct Fetch<'a> {
    archive: Archive<'a>,
    closed_only: bool,
}

impl Fetch<'_> {
    fn segment(&self, asked: Segment, dest: &Path) -> Result<Found> {
        let name = self.archive.origin.scheme.name(asked);
        let Some(Holding { held, .. }) = self.archive.holding else {
            return self.nothing(&name);
        };
        let end = held.position;
        if let Some(horizon) = self.archive.horizon.filter(|horizon| self.is_pruned(asked, *horizon)) {
            return self.pruned(&name, horizon);
        }
        if asked > end.segment {
            return Ok(Found::Absent(format!("{name} is not there: what is held ends at {end}")));
        }
        if asked < end.segment || held.closed {
            return match site::recorded(&self.archive.state, &name)? {
                Some(digest) => self.closed(&name, digest, dest),
                None => self.missing(&name, asked, end.segment),
            };
        }
        if self.closed_only || end.offset == 0 {
            return Ok(Found::Absent(format!("{name} is not closed: {end} is held")));
        }
        self.open_one(&name, end.offset, held.digest, dest)
    }

    /// Whether a segment lies before what is kept. Where log forks, an earlier generation's number beyond it is one that
    /// the log may never have had.
    fn is_pruned(&self, asked: Segment, horizon: Segment) -> bool {
        let may_be_none = self.archive.origin.scheme.forks() && asked.sequence > horizon.sequence;
        asked < horizon && !may_be_none
    }

    fn pruned(&self, name: &str, horizon: Segment) -> Result<Found> {
        let text = format!("{} was pruned: the archive keeps log from {horizon} on", self.archive.dir.shown(name));
        Err(Failure::new(Code::Gap, text).hint("recover from a later base, or from another archive").into())
    }

    /// A stream was attached and no position is written. Lines of closed segments may be there from a crash in between;
    /// they may also be all that is left.
    fn nothing(&self, name: &str) -> Result<Found> {
        let mut lines = 0;
        site::manifest(&self.archive.state, |_, _| {
            lines += 1;
            Ok(())
        })?;
        if lines == 0 {
            return Ok(Found::Absent(format!("{name} is not there: nothing is held yet")));
        }
        let (position, manifest) = (self.archive.state.shown(site::POSITION), site::MANIFEST);
        fail(Code::Corrupt, format!("{position} says that nothing is held, {manifest} has {lines} lines"))
    }

    /// Within what is held, whose last segment is `end`, and not recorded: no error only where the log goes on without it.
    fn missing(&self, name: &str, asked: Segment, end: Segment) -> Result<Found> {
        let shown = self.archive.dir.shown(name);
        if asked == end {
            return fail(Code::Corrupt, format!("{shown} is closed and has no line in {}", site::MANIFEST));
        }
        let (mut before, mut after) = (None, end);
        self.each_closed(|segment| {
            if segment < asked {
                before = before.max(Some(segment));
            } else {
                after = after.min(segment);
            }
        })?;
        if self.goes_on_without(asked, before, after)? {
            return Ok(Found::Absent(format!("{name} is not there: the log goes on with {after} instead")));
        }
        match before {
            Some(_) => fail(Code::Gap, format!("{shown} is missing: {asked} comes before {after}, which is held")),
            None => fail(Code::Gap, format!("{shown} is not held: the archive begins with {after}")),
        }
    }

    /// Shows each line of a closed segment that is held.
    fn each_closed(&self, mut each: impl FnMut(Segment)) -> Result<()> {
        site::manifest(&self.archive.state, |_, name| {
            let segment = self.archive.origin.scheme.segment(name);
            if let (Some(segment), Some(holding)) = (segment, self.archive.holding)
                && holding.holds(segment)
            {
                each(segment);
            }
            Ok(())
        })
    }

    /// Whether a segment that is not held is none of this log's: it lies between the end of one generation and the
    /// beginning of the next. `before` and `after` are the nearest that are held.
    fn goes_on_without(&self, asked: Segment, before: Option<Segment>, after: Segment) -> Result<bool> {
        let scheme = &self.archive.origin.scheme;
        if !scheme.forks() || asked.generation == after.generation {
            return Ok(before.is_some_and(|before| scheme.step(before, after) != Step::Gap));
        }
        // A later generation goes on in, or right behind, the segment in which this one was left.
        if asked.sequence != after.sequence {
            return Ok(asked.sequence > after.sequence);
        }
        let history = match scheme.history_name(after.generation) {
            Some(name) => self.archive.small(&name)?,
            None => None,
        };
        let past = history.and_then(|bytes| scheme.lineage(after.generation, &String::from_utf8_lossy(&bytes)));
        let Some(past) = past.filter(|past| !past.is_empty()) else {
            return Ok(false);
        };
        Ok(past.iter().filter(|last| last.generation == asked.generation).all(|last| last.sequence < asked.sequence))
    }

    fn closed(&self, name: &str, digest: Digest, dest: &Path) -> Result<Found> {
        // The manifest is of the file as it is.
        let length = self.copy(name, u64::MAX, Running::new(), digest, dest)?;
        Ok(Found::Handed(format!("{name} is closed, {length} bytes")))
    }

    /// The segment that is being received: what is held of it, and zeros behind that where segments have a fixed size.
    fn open_one(&self, name: &str, length: u64, digest: Digest, dest: &Path) -> Result<Found> {
        self.copy(name, length, self.archive.origin.scheme.running(), digest, dest)?;
        Ok(Found::Handed(format!("{name} is open, {length} bytes are held")))
    }

    /// Copies and hashes in one read.
    fn copy(&self, name: &str, length: u64, running: Running, digest: Digest, dest: &Path) -> Result<u64> {
        let shown = self.archive.dir.shown(name);
        let Some(file) = self.archive.dir.open_read(name)? else {
            // It may have been pruned since the archive was opened.
            let horizon = horizon::read(&self.archive.state)?;
            let segment = self.archive.origin.scheme.segment(name);
            return match (segment, horizon) {
                (Some(segment), Some(horizon)) if segment < horizon => self.pruned(name, horizon).map(|_| 0),
                _ => fail(Code::Gap, format!("{shown} is missing; it is recorded as held")),
            };
        };
        let size = self.archive.origin.scheme.segment_size();
        let mut draft = self.place(dest)?.begin()?;
        if size > 0 {
            draft.reserve(size)?;
        }
        let mut written = Ok(());
        let running = prefix_with(&file, running, length, |bytes| {
            if written.is_ok() {
                written = draft.put(bytes);
            }
        });
        let running = running.with_context(|| format!("cannot read {shown}"))?;
        written?;
        let (have, own) = (running.length(), running.digest());
        if own != digest {
            let text = if length != u64::MAX && have < length {
                format!("{shown} has {have} bytes, {length} are held")
            } else {
                format!("{shown} has digest {own}, its record says {digest}")
            };
            return Err(Failure::new(Code::Corrupt, text).hint("see what else is wrong with repl-verify").into());
        }
        draft.finish(have.max(size))?;
        Ok(have)
    }

    fn aux(&self, name: &str, dest: &Path) -> Result<Found> {
        let Some(bytes) = self.archive.small(name)? else {
            return self.no_aux(name);
        };
        let mut draft = self.place(dest)?.begin()?;
        draft.put(&bytes)?;
        draft.finish(bytes.len() as u64)?;
        Ok(Found::Handed(format!("{name}, {} bytes", bytes.len())))
    }

    /// A generation of which a segment is held has a past. Without it a server would take the one before for the last,
    /// come up there, and give its own the number of one that exists.
    fn no_aux(&self, name: &str) -> Result<Found> {
        if let Some(generation) = self.archive.origin.scheme.history_of(name) {
            let mut is_held =
                self.archive.holding.is_some_and(|holding| holding.held.position.segment.generation == generation);
            self.each_closed(|segment| is_held |= segment.generation == generation)?;
            if is_held {
                let text = format!("{} is missing, and log of {generation} is held", self.archive.dir.shown(name));
                return Err(Failure::new(Code::Gap, text).hint("bring it from the master's log directory").into());
            }
        }
        Ok(Found::Absent(format!("{name} is not there, and nothing that is held needs it")))
    }

    /// Where the file is to be, which is never in the archive itself.
    fn place(&self, dest: &Path) -> Result<Place> {
        let place = Place::of(dest)?;
        if place.is_in(self.archive.dir)? || place.is_in(&self.archive.state)? {
            return fail(Code::Guarded, format!("{} is in the archive, which is only read", place.shown()));
        }
        Ok(place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::site::{Closed, Origin, Site};
    use crate::rule::scheme::{Engine, Kind, Scheme};
    use crate::rule::verdict::Held;
    use crate::value::exit::code_of;

    /// What is said of each segment, where these are recorded as closed but the last, which is open: `.` for "there is
    /// none", `g` for a gap. (No segment lies there: what is recorded is missing. Number 0 asks for the history.)
    fn said(recorded: &[(u64, u64)], history: Option<&str>, asked: &[(u64, u64)]) -> String {
        said_from(None, recorded, history, asked)
    }

    /// The same, where log is kept from a segment on only.
    fn said_from(
        kept: Option<(u64, u64)>,
        recorded: &[(u64, u64)],
        history: Option<&str>,
        asked: &[(u64, u64)],
    ) -> String {
        let root = tempfile::tempdir().unwrap();
        let archive = Dir::open(root.path()).unwrap();
        let (mut site, _, _) = Site::open(archive.subdir(site::STATE).unwrap()).unwrap();
        let scheme = Scheme::new(&Kind::new(Engine::Postgres, None).unwrap(), "7", 1 << 24).unwrap();
        let segments: Vec<_> = recorded.iter().map(|(generation, number)| Segment::new(*generation, *number)).collect();
        let (last, closed) = segments.split_last().unwrap();
        site.pin(&Origin { set: String::new(), scheme: scheme.clone(), start: segments[0].at(0) }).unwrap();
        let digest = Digest::of(b"");
        let line = |segment: &Segment| Closed {
            segment: *segment,
            length: 1 << 24,
            digest,
            of_file: None,
            boundary: None,
            time: None,
        };
        site.close(&closed.iter().map(line).collect::<Vec<_>>()).unwrap();
        let held = Held { position: last.at(8), digest, closed: false };
        site.hold(&Holding { held, boundary: None }).unwrap();
        if let Some((generation, number)) = kept {
            horizon::write(site.dir(), Segment::new(generation, number)).unwrap();
        }
        if let Some(history) = history {
            archive.replace("00000002.history", history.as_bytes()).unwrap();
        }
        let ask = |(generation, number): &(u64, u64)| {
            let name = match number {
                0 => format!("{generation:08X}.history"),
                _ => scheme.name(Segment::new(*generation, *number)),
            };
            match run(&archive, name.as_ref(), &root.path().join("to/no/place"), &Options::default()) {
                Ok(Found::Absent(_)) => '.',
                Ok(Found::Handed(_)) => 'h',
                Err(error) if code_of(&error) == Code::Gap => 'g',
                Err(error) => panic!("{error:#}"),
            }
        };
        asked.iter().map(ask).collect()
    }

    #[test]
    fn what_was_pruned_is_a_gap_and_what_never_was_is_none_still() {
        let whole = [(1, 5), (1, 6), (1, 7), (2, 7), (2, 8), (2, 9)];
        // In the end a server asks for the next segment of each timeline that it knows.
        let asked = [(1, 5), (1, 6), (1, 7), (1, 8), (1, 10), (2, 6), (2, 7), (2, 10), (3, 10)];
        assert_eq!(said_from(Some((2, 7)), &whole, None, &asked), "ggg..gg..");
        assert_eq!(said_from(Some((1, 6)), &whole, None, &asked), "ggg...g..");
        // Their lines are gone, too.
        assert_eq!(said_from(Some((2, 7)), &whole[3..], None, &asked), "ggg..gg..");
    }

    #[test]
    fn a_timeline_of_which_log_is_held_has_a_history() {
        let asked = [(1, 0), (2, 0), (3, 0), (4, 0)];
        assert_eq!(said(&[(1, 7)], None, &asked), "....");
        assert_eq!(said(&[(1, 7), (2, 7)], None, &asked), ".g..");
        assert_eq!(said(&[(2, 7), (2, 8), (3, 8)], None, &asked), ".gg.");
        assert_eq!(said(&[(1, 7), (3, 7)], None, &asked), "..g.");
    }

    #[test]
    fn a_timeline_that_was_left_has_no_more_segments_and_one_that_was_not_has_a_hole() {
        let whole = [(1, 5), (1, 6), (1, 7), (2, 7), (2, 8), (2, 9)];
        let asked = [(1, 4), (1, 5), (1, 7), (1, 8), (1, 99), (2, 3), (2, 6), (2, 7), (2, 10), (3, 1), (3, 9)];
        assert_eq!(said(&whole, None, &asked), "ggg....g...");
        // 1-6 is not recorded.
        assert_eq!(said(&[(1, 5), (1, 7), (2, 7), (2, 8)], None, &[(1, 6), (1, 8)]), "g.");
        // Nor is 1-7: it was begun if the second timeline begins within it, and was not if that begins with its first byte.
        let short = [(1, 5), (1, 6), (2, 7), (2, 8)];
        assert_eq!(said(&short, Some("1\t0/7000028\tno recovery target\n"), &[(1, 7), (1, 8)]), "g.");
        assert_eq!(said(&short, Some("1\t0/7000000\tno recovery target\n"), &[(1, 7), (1, 8)]), "..");
        for unreadable in ["what is this", ""] {
            assert_eq!(said(&short, Some(unreadable), &[(1, 7), (1, 8)]), "g.");
        }
        assert_eq!(said(&short, None, &[(1, 7), (1, 8)]), "g.");
        // The archive begins on the second timeline.
        assert_eq!(said(&[(2, 7), (2, 8)], None, &[(1, 6), (1, 7), (1, 8), (2, 6), (2, 9)]), "gg.g.");
    }
}
