//! A copied directory's own log: where in it that is, and whether it is one with the archive's.

use std::fs::File;

use anyhow::{Context as _, Result};

use super::Archive;
use crate::edge::dir::Dir;
use crate::edge::read::prefix_with;
use crate::engine::log;
use crate::engine::sync::profile::Profile;
use crate::rule::scheme::{Engine, Kind, Scheme};
use crate::value::digest::Running;
use crate::value::exit::{Code, fail};
use crate::value::position::Position;

/// A directory's own log.
#[derive(Debug)]
pub struct Own {
    /// Where in the directory it is; `.` for the directory itself.
    pub place: String,
    /// That directory.
    pub dir: Dir,
    /// Its rules.
    pub scheme: Scheme,
}

/// Finds the log in a copied directory; `archived` is what the archive's is. There is none in a database of which no log
/// is known, and where it is kept elsewhere.
pub fn find(engine: Profile, data: &Dir, archived: Option<&Scheme>) -> Result<Option<Own>> {
    let mut found = Vec::new();
    let Some(kind) = kind_of(engine, archived) else {
        return Ok(None);
    };
    for place in engine.log_places(data)? {
        let dir = if place == "." { data.try_clone()? } else { data.open_subdir(&place)? };
        let names = dir.names()?;
        let Ok(kind) = kind.clone().complete(names.iter().filter_map(|name| name.to_str())) else {
            continue;
        };
        let known = kind.scheme(&[]);
        let is_segment = |name: &str| known.as_ref().is_some_and(|scheme| scheme.segment(name).is_some());
        if names.iter().filter_map(|name| name.to_str()).any(|name| kind.wants_head_of(name) || is_segment(name)) {
            let (scheme, _) = log::scheme_of(&dir, Some(kind), None)?;
            found.push(Own { place, dir, scheme });
        }
    }
    match (found.pop(), found.pop()) {
        (Some(one), Some(other)) => fail(
            Code::Guarded,
            format!("{} has log in {} and in {}: one base is of one log", data.shown(""), other.place, one.place),
        ),
        (found, _) => Ok(found),
    }
}

/// The kind of log that a database of this kind has.
pub fn kind_of(engine: Profile, archived: Option<&Scheme>) -> Option<Kind> {
    let engine = match engine {
        Profile::Postgres => Engine::Postgres,
        Profile::Mariadb => Engine::Mariadb,
        Profile::Bdb => Engine::Bdb,
        Profile::Plain => Engine::Plain,
        Profile::Eloquence => Engine::Eloquence,
        Profile::Sqlite => return None,
    };
    let pattern = archived.filter(|archived| archived.engine() == engine).and_then(Scheme::pattern).cloned();
    Kind::new(engine, pattern).ok()
}

impl Own {
    /// Whether the newest segment that is both in this log, which ends at `end`, and in an archive's is the same in both,
    /// as far as both have it: what is not, in words. (Of databases whose log has no mark of its own nothing else tells
    /// one from another.)
    pub fn differs(&self, end: Position, archive: &Archive<'_>) -> Result<Option<String>> {
        let Some(held) = archive.holding.map(|holding| holding.held) else {
            return Ok(None);
        };
        let segments = log::segments(&self.dir, &self.scheme, |_| false)?;
        for (segment, name) in segments.iter().rev().filter(|(segment, _)| **segment <= held.position.segment) {
            let (Some(ours), Some(theirs)) =
                (self.dir.open_read(name)?, archive.dir.open_read(&archive.origin.scheme.name(*segment))?)
            else {
                continue;
            };
            let up_to = |at: Position| if at.segment == *segment { at.offset } else { u64::MAX };
            let limit = up_to(end).min(up_to(held.position)).min(ours.metadata()?.len()).min(theirs.metadata()?.len());
            let digest = |file: &File| -> Result<_> {
                let running: Running = prefix_with(file, self.scheme.running(), limit, |_| {})?;
                Ok(running.digest())
            };
            let ours = digest(&ours).with_context(|| format!("cannot read {}", self.dir.shown(name)))?;
            let theirs = digest(&theirs).with_context(|| format!("cannot read {}", archive.dir.shown(name)))?;
            let place = segment.at(limit);
            let text = || format!("up to {place} the base's own log has digest {ours}, the archive's has {theirs}");
            return Ok((ours != theirs).then(text));
        }
        Ok(None)
    }
}
