//! What a receiving site keeps beside its segments, in `LOGDIR/.repl` or `--state`: one file per fact, readable with
//! `cat`.
//!
//! - `origin`: what was pinned at the first attach. Replaced whole.
//! - `position`: what is held. Written after the data it speaks of is on stable storage, so it never says too much; bytes
//!   beyond it in a segment are unproven and are compared when they arrive again.
//! - `B3SUMS`, `segments.jsonl`: a line for each closed segment, written before `position` says that it is closed. Lines
//!   beyond `position` are from a crash in between and are cut at the next start.
//! - `pruned`: before which segment nothing is kept any more; see [`horizon`].
//! - `applied`: what the feed has done. `epoch`, `history.jsonl`, `lock`.
//! - `given-up`: that all this is of before, when the site received; it is a master's now.
//! - `instance`: which one ships here, and in which epoch; see [`master`]. It is no word about the log: like `epoch` it
//!   outlives that, or a resync would open the door for any copy of the master.

pub mod horizon;
mod lines;
pub mod master;
mod origin;

use std::path::Path;

pub use self::origin::Origin;

use anyhow::{Context as _, Result};

use self::lines::Lines;
pub(super) use self::lines::alone;
pub use self::lines::{Closed, closed_segments, manifest, recorded};
use crate::edge::clock;
use crate::edge::dir::Dir;
use crate::edge::journal::Journal;
use crate::edge::slots::{self, Slots};
use crate::rule::verdict::Held;
use crate::value::digest::Digest;
use crate::value::exit::{Code, Failure, fail};
use crate::value::pairs;
use crate::value::position::{Bookmark, Position, Segment};
use crate::value::time::Time;

/// The state directory's name in a log directory.
pub const STATE: &str = ".repl";
/// Its files.
pub const ORIGIN: &str = "origin";
/// See the module.
pub const POSITION: &str = "position";
/// See the module.
pub const APPLIED: &str = "applied";
/// See the module.
pub const EPOCH: &str = "epoch";
/// Small files beside the log, as the master has them.
pub const AUX: &str = "aux";
/// See the module.
pub const MANIFEST: &str = "B3SUMS";
/// See the module.
pub const SEGMENTS: &str = "segments.jsonl";
/// See the module.
pub const PRUNED: &str = "pruned";
/// See the module.
pub const HISTORY: &str = "history.jsonl";

/// What speaks of the log that lies there, and goes when that is replaced.
pub const HELD: [&str; 7] = [APPLIED, MANIFEST, SEGMENTS, PRUNED, ORIGIN, POSITION, GIVEN_UP];

/// That a directory received, and is a master's: a stream that is refused there makes it no receiver again, though
/// whoever opens the state makes a `position` that says nothing. Goes with the next one that is held.
const GIVEN_UP: &str = "given-up";

/// What is held: the content of `position`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holding {
    /// End, digest and whether the segment is closed.
    pub held: Held,
    /// The last boundary, with its time.
    pub boundary: Option<(Position, Option<Time>)>,
}

impl Holding {
    fn print(&self) -> String {
        let Held { position, digest, closed } = self.held;
        let (mark, time) = match self.boundary {
            Some((mark, time)) => (mark.to_string(), time.map_or_else(|| "-".to_owned(), |time| time.0.to_string())),
            None => ("-".to_owned(), "-".to_owned()),
        };
        format!("v=1 at={position} b3={digest} closed={} boundary={mark} time={time}", u8::from(closed))
    }

    fn parse(text: &str) -> Option<Holding> {
        if pairs::get(text, "v")? != "1" {
            return None;
        }
        let boundary = match pairs::get(text, "boundary")?.as_str() {
            "" => None,
            mark => {
                let time = pairs::get(text, "time")?;
                Some((mark.parse().ok()?, if time.is_empty() { None } else { Some(Time(time.parse().ok()?)) }))
            }
        };
        let held = Held {
            position: pairs::get(text, "at")?.parse().ok()?,
            digest: Digest::parse(&pairs::get(text, "b3")?)?,
            closed: pairs::get(text, "closed")? == "1",
        };
        Some(Holding { held, boundary })
    }

    /// Whether a closed segment is held: lines about others are from a crash.
    pub fn holds(&self, segment: Segment) -> bool {
        let Held { position, closed, .. } = self.held;
        segment < position.segment || (closed && segment == position.segment)
    }

    /// The bookmark that a sender starts from.
    pub fn bookmark(&self) -> Bookmark {
        Bookmark { position: self.held.position, proof: Some(self.held.digest.proof()) }
    }
}

/// Opens the state directory of a log directory for reading; `None` when there is none.
pub fn peek(dir: &Dir, state: Option<&Path>) -> Result<Option<Dir>> {
    match state {
        Some(path) if path.exists() => Dir::open(path).map(Some),
        None if dir.identity(STATE)?.is_some() => dir.open_subdir(STATE).map(Some),
        _ => Ok(None),
    }
}

/// Opens the state directory of a log directory that a receiver has taken up, whether or not it holds anything yet.
pub fn peek_receiver(dir: &Dir) -> Result<Option<Dir>> {
    let Some(state) = peek(dir, None)? else {
        return Ok(None);
    };
    if state.identity(POSITION)?.is_none() || (state.identity(GIVEN_UP)?.is_some() && holding(&state)?.is_none()) {
        return Ok(None);
    }
    Ok(Some(state))
}

/// Reads `origin`; `None` before the first attach.
pub fn origin(state: &Dir) -> Result<Option<Origin>> {
    let Some(bytes) = state.read_small(ORIGIN, 4096)? else {
        return Ok(None);
    };
    let parsed = std::str::from_utf8(&bytes).ok().and_then(Origin::parse);
    parsed.map(Some).ok_or_else(|| damaged(state, ORIGIN))
}

/// Reads `position`; `None` when nothing is held. Needs no lock and no write access.
pub fn holding(state: &Dir) -> Result<Option<Holding>> {
    slots::read(state, POSITION)?.map(|text| parse_holding(state, &text)).transpose()
}

fn parse_holding(state: &Dir, text: &str) -> Result<Holding> {
    Holding::parse(text).ok_or_else(|| damaged(state, POSITION))
}

/// Reads `epoch`; 0 when there is none.
pub fn epoch(state: &Dir) -> Result<u64> {
    let Some(bytes) = state.read_small(EPOCH, 64)? else {
        return Ok(0);
    };
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    pairs::count(text, "epoch").ok_or_else(|| damaged(state, EPOCH))
}

fn damaged(state: &Dir, name: &str) -> anyhow::Error {
    Failure::new(Code::Corrupt, format!("{} is damaged", state.shown(name))).into()
}

/// The state of a site, open for writing. Whoever has it holds the lock.
pub struct Site {
    dir: Dir,
    position: Slots,
    history: Journal,
    lines: Option<Lines>,
    was_given_up: bool,
}

impl Site {
    /// Opens the state directory; the caller holds its lock. Returns what is held as well.
    pub fn open(dir: Dir) -> Result<(Site, Option<Origin>, Option<Holding>)> {
        let (position, text) = Slots::open(&dir, POSITION)?;
        let holding = text.map(|text| parse_holding(&dir, &text)).transpose()?;
        let origin = origin(&dir)?;
        if origin.is_none() && holding.is_some() {
            return fail(Code::Corrupt, format!("{} says what is held, but {ORIGIN} is gone", dir.shown(POSITION)));
        }
        let history = Journal::open(&dir, HISTORY, |_| true)?;
        let lines = origin.as_ref().map(|origin| Lines::open(&dir, &origin.scheme, holding.as_ref())).transpose()?;
        let was_given_up = dir.identity(GIVEN_UP)?.is_some();
        Ok((Site { dir, position, history, lines, was_given_up }, origin, holding))
    }

    /// The state directory.
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Pins what a first stream is of, or a set's name that was not known before.
    pub fn pin(&mut self, origin: &Origin) -> Result<()> {
        self.dir.replace(ORIGIN, origin.print().as_bytes())?;
        if self.lines.is_none() {
            self.lines = Some(Lines::open(&self.dir, &origin.scheme, None)?);
        }
        Ok(())
    }

    /// Keeps a newer epoch.
    pub fn set_epoch(&mut self, epoch: u64) -> Result<()> {
        self.dir.replace(EPOCH, format!("v=1 epoch={epoch}\n").as_bytes())
    }

    /// Records closed segments, durably.
    pub fn close(&mut self, segments: &[Closed]) -> Result<()> {
        match &mut self.lines {
            Some(lines) => lines.add(&self.dir, segments),
            None => fail(Code::Failed, "a segment was closed before anything was attached"),
        }
    }

    /// Records what is held, durably. The data must be on stable storage before.
    pub fn hold(&mut self, holding: &Holding) -> Result<()> {
        self.position.write(&holding.print())?;
        if std::mem::take(&mut self.was_given_up) {
            self.dir.remove_if_there(GIVEN_UP)?;
            self.dir.sync()?;
        }
        Ok(())
    }

    /// Goes back to an earlier holding: lines of closed segments behind it are cut.
    pub fn go_back(&mut self, holding: &Holding) -> Result<()> {
        self.hold(holding)?;
        match &mut self.lines {
            Some(lines) => lines.cut(&self.dir, holding),
            None => Ok(()),
        }
    }

    /// Adds a line to the history, durably.
    pub fn record(&mut self, what: &str, detail: &str, reason: Option<&str>) -> Result<()> {
        let _alone = lines::alone(&self.dir)?;
        self.history.renew(&self.dir, HISTORY)?;
        write_history(&mut self.history, what, detail, reason)
    }
}

/// Makes a receiver's directory of one whose log is known already, up to here: what was held of an earlier log is
/// forgotten first. The caller holds the locks.
pub fn take_up(state: &Dir, origin: &Origin, holding: &Holding) -> Result<()> {
    // The position goes first: without it nothing else counts.
    for name in HELD.into_iter().rev() {
        if state.identity(name)?.is_some() {
            state.remove(name)?;
        }
    }
    state.sync()?;
    let (mut site, ..) = Site::open(state.try_clone()?)?;
    site.pin(origin)?;
    site.hold(holding)?;
    set_applied(state, holding.held.position)
}

/// Ends that a directory receives: it is a master's from now on. The caller holds the locks.
pub fn give_up(state: &Dir) -> Result<()> {
    if state.identity(POSITION)?.is_some() {
        state.replace(GIVEN_UP, b"v=1\n")?;
        state.remove(POSITION)?;
        state.sync()?;
    }
    Ok(())
}

/// Adds a line to the history of a site that another process may have open.
pub fn record(state: &Dir, what: &str, detail: &str, reason: Option<&str>) -> Result<()> {
    let _alone = lines::alone(state)?;
    write_history(&mut Journal::open(state, HISTORY, |_| true)?, what, detail, reason)
}

fn write_history(history: &mut Journal, what: &str, detail: &str, reason: Option<&str>) -> Result<()> {
    let mut line = serde_json::json!({"v": 1, "time": clock::now().to_string(), "what": what, "detail": detail});
    if let Some(reason) = reason {
        line["reason"] = reason.into();
    }
    history.append(&format!("{line}\n"))?;
    history.sync()
}

/// Reads what the feed has done; `None` when it has done nothing.
pub fn applied(state: &Dir) -> Result<Option<Position>> {
    let Some(bytes) = state.read_small(APPLIED, 256)? else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&bytes).unwrap_or_default();
    let at = pairs::get(text, "at").and_then(|at| at.parse().ok());
    at.map(Some).ok_or_else(|| damaged(state, APPLIED))
}

/// How far the feed had come in log that was set aside since: the database has what the master has not.
pub fn astray(state: &Dir) -> Result<Option<Position>> {
    let bytes = state.read_small(APPLIED, 256)?.unwrap_or_default();
    let astray = pairs::get(std::str::from_utf8(&bytes).unwrap_or_default(), "astray");
    astray.map(|at| at.parse().map_err(|_| damaged(state, APPLIED))).transpose()
}

/// Keeps that the feed is to go on from `at`, and that it had come to `fed` in log that is set aside.
pub fn set_astray(state: &Dir, at: Position, fed: Position) -> Result<()> {
    state.replace(APPLIED, format!("v=1 at={at} astray={fed}\n").as_bytes()).context("cannot keep what was fed")
}

/// Keeps what the feed has done.
pub fn set_applied(state: &Dir, at: Position) -> Result<()> {
    state.replace(APPLIED, format!("v=1 at={at}\n").as_bytes()).context("cannot keep what was fed")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::pattern::Pattern;
    use crate::rule::scheme::Scheme;

    fn closed(sequence: u64) -> Closed {
        let segment = Segment::new(1, sequence);
        let digest = Digest::of(&sequence.to_le_bytes());
        Closed { segment, length: 8, digest, of_file: None, boundary: Some(segment.at(8)), time: Some(Time(5_000_000)) }
    }

    fn origin_of(start: &str) -> Origin {
        Origin {
            set: "a b".into(),
            scheme: Scheme::Plain(Pattern::parse("log %S").unwrap()),
            start: start.parse().unwrap(),
        }
    }

    fn holding(at: &str, closed: bool) -> Holding {
        let held = Held { position: at.parse().unwrap(), digest: Digest::of(b"x"), closed };
        Holding { held, boundary: Some(("1-1:4".parse().unwrap(), Some(Time(-1)))) }
    }

    #[test]
    fn records_are_read_back() {
        for holding in [holding("1-2:5", true), Holding { boundary: None, ..holding("1-2:5", false) }] {
            assert_eq!(Holding::parse(&holding.print()), Some(holding));
        }
        let scheme = origin_of("1-1:0").scheme;
        assert_eq!(Closed::parse(&closed(3).print(&scheme)), Some(closed(3)));
        assert!(!origin_of("1-2:0").is_self_contained());
    }

    #[test]
    fn lines_of_segments_that_position_does_not_hold_are_cut_at_the_next_start() {
        let root = tempfile::tempdir().unwrap();
        let open = || Site::open(Dir::open(root.path()).unwrap()).unwrap();
        let (mut site, none, _) = open();
        assert_eq!(none, None);
        site.pin(&origin_of("1-1:0")).unwrap();
        site.close(&[closed(1), closed(2)]).unwrap();
        site.hold(&holding("1-2:8", true)).unwrap();
        // The crash comes between the lines and the position.
        site.close(&[closed(3)]).unwrap();
        drop(site);
        let (site, origin, held) = open();
        assert_eq!((origin, held), (Some(origin_of("1-1:0")), Some(holding("1-2:8", true))));
        let mut seen = Vec::new();
        closed_segments(site.dir(), |closed| {
            seen.push(closed.segment.sequence);
            Ok(())
        })
        .unwrap();
        assert_eq!(seen, [1, 2]);
        let sums = std::fs::read_to_string(root.path().join(MANIFEST)).unwrap();
        assert_eq!(sums.lines().count(), 2);
    }
}
