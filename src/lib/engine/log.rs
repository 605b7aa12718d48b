//! What can be known of a log directory before it is shipped or proven: its engine, its set, and what its operator should
//! be told.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

use anyhow::Result;

use super::site;
use crate::edge::dir::Dir;
use crate::edge::read::{prefix, read_at};
use crate::rule::scheme::{Beside, Closure, HEAD, Kind, Scanner, Scheme};
use crate::value::digest::Digest;
use crate::value::exit::{Code, Failure, fail};
use crate::value::position::{Position, Segment};

/// Engine, pattern and set of a log directory: as told, as pinned when it is a replica's, or as its file names show.
pub fn scheme_of(dir: &Dir, told: Option<Kind>, state: Option<&Path>) -> Result<(Scheme, Option<String>)> {
    let origin = match site::peek(dir, state)? {
        Some(state) => site::origin(&state)?,
        None => None,
    };
    if let Some(origin) = &origin
        && told.as_ref().is_none_or(|told| told.fits(&origin.scheme))
    {
        return Ok((origin.scheme.clone(), Some(origin.set.clone())));
    }
    let set = origin.map(|origin| origin.set);
    let names = dir.names()?;
    let names = || names.iter().filter_map(|name| name.to_str());
    let kind = told.map_or_else(|| Kind::detect(names()), |told| told.complete(names())).map_err(|why| {
        Failure::new(Code::Usage, format!("{}: {why}", dir.path().display()))
            .hint("say it with --engine, or with --pattern for plain logs")
    })?;
    let mut found = kind.scheme(&[]);
    for name in names().filter(|name| kind.wants_head_of(name)) {
        if found.is_none()
            && let Some(file) = dir.open_read(name)?
        {
            found = kind.scheme(&head(&file)?);
        }
    }
    match found {
        Some(scheme) => Ok((scheme, set)),
        None => {
            let text = format!("{}: no {} segment here says what it is of", dir.path().display(), kind.engine);
            fail(Code::Failed, text)
        }
    }
}

/// The segments of a directory, each with the name that its file has: those that have begun, of one history. `is_known`
/// spares those that were there before another look.
pub(in crate::engine) fn segments(
    dir: &Dir,
    scheme: &Scheme,
    is_known: impl Fn(Segment) -> bool,
) -> Result<BTreeMap<Segment, String>> {
    let mut found = BTreeMap::new();
    for name in dir.names()? {
        let Some(name) = name.to_str() else {
            continue;
        };
        if let Some(segment) = scheme.segment(name) {
            if is_known(segment) || is_begun(dir, scheme, segment, name)? {
                found.insert(segment, name.to_owned());
            }
        } else if let Some(segment) = scheme.segment_aside(name) {
            found.entry(segment).or_insert_with(|| name.to_owned());
        }
    }
    let newest = found.keys().map(|segment| segment.generation).max().unwrap_or_default();
    if found.keys().any(|segment| segment.generation < newest)
        && let Some(past) = lineage(dir, scheme, newest)?
    {
        let is_past = |segment: &Segment| {
            past.iter().any(|last| last.generation == segment.generation && segment.sequence <= last.sequence)
        };
        found.retain(|segment, _| segment.generation == newest || is_past(segment));
    }
    Ok(found)
}

/// The last segments of a generation's past, where its aux file tells.
pub(in crate::engine) fn lineage(dir: &Dir, scheme: &Scheme, generation: u64) -> Result<Option<Vec<Segment>>> {
    let left = left(dir, scheme, generation)?;
    Ok(left.map(|left| left.into_iter().map(|left| left.segment).collect()))
}

/// The same, with the place where each earlier generation was left.
pub(in crate::engine) fn left(dir: &Dir, scheme: &Scheme, generation: u64) -> Result<Option<Vec<Position>>> {
    let history = match scheme.history_name(generation) {
        Some(name) => dir.read_small(&name, 1 << 16)?,
        None => None,
    };
    Ok(history.and_then(|history| scheme.left(generation, &String::from_utf8_lossy(&history))))
}

/// A position as far as it is of the log that goes on with this generation: one on a history that was left behind the fork
/// is that fork, and one on a history that is none of its past is nowhere.
pub(in crate::engine) fn before_fork(
    dir: &Dir,
    scheme: &Scheme,
    at: Position,
    generation: u64,
) -> Result<Option<Position>> {
    if at.segment.generation >= generation {
        return Ok(Some(at));
    }
    let Some(past) = left(dir, scheme, generation)? else {
        return Ok(Some(at));
    };
    let left = past.into_iter().find(|left| left.segment.generation == at.segment.generation);
    Ok(left.map(|left| left.min(at)))
}

/// Whether a file has begun to be the segment of its name.
pub(in crate::engine) fn is_begun(dir: &Dir, scheme: &Scheme, segment: Segment, name: &str) -> Result<bool> {
    if !scheme.recycles() {
        return Ok(true);
    }
    let Some(file) = dir.open_read(name)? else {
        return Ok(false);
    };
    let head = head(&file)?;
    if !scheme.is_inherited(segment, &head) {
        return Ok(scheme.is_begun(segment, &head));
    }
    let before = segment.sequence.checked_sub(1).map(|before| Segment::new(segment.generation, before));
    Ok(before.is_none_or(|before| matches!(dir.identity(&scheme.name(before)), Ok(None))))
}

/// Whether a segment is finished, judged by the one after it.
pub(in crate::engine) fn closure(
    scanner: &Scanner,
    file: &File,
    segment: Segment,
    next: &File,
    is_passed: bool,
) -> Result<Closure> {
    let (own, mut length) = (head(file)?, HEAD);
    let searched = searched(scanner, file)?;
    let scanner = searched.as_ref().unwrap_or(scanner);
    loop {
        let next = beginning(next, length)?;
        match scanner.closure(Beside { own: &own, segment, next: &next, is_passed }) {
            Closure::More if next.len() == length => length *= 4,
            closure => return Ok(closure),
        }
    }
}

/// The scanner once it has looked behind what is no record, where an engine needs that.
fn searched(scanner: &Scanner, file: &File) -> Result<Option<Scanner>> {
    let mut scanner = scanner.clone();
    if !scanner.search() {
        return Ok(None);
    }
    let mut buffer = vec![0; 1 << 18];
    while scanner.is_hungry() {
        match read_at(file, &mut buffer, scanner.at())? {
            0 => break,
            count => scanner.take(&buffer[..count]),
        }
    }
    Ok(Some(scanner))
}

/// Where the whole records of the last segment in a directory end.
pub(in crate::engine) fn end(dir: &Dir, scheme: &Scheme) -> Result<Option<Position>> {
    match segments(dir, scheme, |_| false)?.pop_last() {
        Some((segment, name)) => end_of(dir, scheme, segment, &name),
        None => Ok(None),
    }
}

/// Where the last byte of the log is, with the digest of its segment up to there. (The last segment may have none yet.)
pub(in crate::engine) fn last_byte(dir: &Dir, scheme: &Scheme) -> Result<Option<(Position, Digest)>> {
    for (segment, name) in segments(dir, scheme, |_| false)?.into_iter().rev() {
        if let Some(at) = end_of(dir, scheme, segment, &name)?.filter(|at| at.offset > 0) {
            return Ok(digest(dir, scheme, at)?.map(|digest| (at, digest)));
        }
    }
    Ok(None)
}

/// The digest of a segment up to a position; `None` where it does not reach that far, or is not there.
pub(in crate::engine) fn digest(dir: &Dir, scheme: &Scheme, at: Position) -> Result<Option<Digest>> {
    let Some((file, _)) = open(dir, scheme, at.segment)? else {
        return Ok(None);
    };
    let running = prefix(&file, scheme.running(), at.offset)?;
    Ok((running.length() == at.offset).then(|| running.digest()))
}

fn end_of(dir: &Dir, scheme: &Scheme, segment: Segment, name: &str) -> Result<Option<Position>> {
    let Some(file) = dir.open_read(name)? else {
        return Ok(None);
    };
    let mut scanner = scheme.scanner(segment, None);
    let mut buffer = vec![0; 1 << 18];
    while scanner.is_hungry() {
        match read_at(&file, &mut buffer, scanner.at())? {
            0 => break,
            count => scanner.take(&buffer[..count]),
        }
    }
    Ok(Some(segment.at(scanner.safe())))
}

/// Opens a segment under whichever name its file has.
pub(in crate::engine) fn open(dir: &Dir, scheme: &Scheme, segment: Segment) -> Result<Option<(File, String)>> {
    let names = [Some(scheme.name(segment)), scheme.other_name(segment)];
    for name in names.into_iter().flatten() {
        if let Some(file) = dir.open_read(&name)? {
            return Ok(Some((file, name)));
        }
    }
    Ok(None)
}

/// Whether the database whose log directory this is has been promoted: a past is told of that no master has sent.
pub(in crate::engine) fn promoted(dir: &Dir, state: &Dir, scheme: &Scheme, generation: u64) -> Result<Option<u64>> {
    if !scheme.forks() {
        return Ok(None);
    }
    let sent = if state.identity(site::AUX)?.is_some() { Some(state.open_subdir(site::AUX)?) } else { None };
    for name in dir.names()? {
        let Some(name) = name.to_str() else {
            continue;
        };
        let Some(later) = scheme.history_of(name).filter(|later| *later > generation) else {
            continue;
        };
        let is_sent = match &sent {
            Some(sent) => sent.identity(name)?.is_some(),
            None => false,
        };
        if !is_sent {
            return Ok(Some(later));
        }
    }
    Ok(None)
}

/// The beginning of a file, up to [`HEAD`] bytes.
pub(in crate::engine) fn head(file: &File) -> Result<Vec<u8>> {
    beginning(file, HEAD)
}

/// The beginning of a file, up to so many bytes.
pub(in crate::engine) fn beginning(file: &File, length: usize) -> Result<Vec<u8>> {
    let mut head = vec![0; length];
    let count = read_at(file, &mut head, 0)?;
    head.truncate(count);
    Ok(head)
}

/// A warning about how the log is set up, where there is one.
pub fn warning(dir: &Dir, scheme: &Scheme) -> Result<Option<String>> {
    let config = match scheme.config_name() {
        Some(name) => dir.read_small(name, 1 << 16)?,
        None => None,
    };
    let config = config.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let path = std::fs::canonicalize(dir.path()).unwrap_or_else(|_| dir.path().to_owned());
    Ok(scheme.warning(&path.to_string_lossy(), config.as_deref()))
}
