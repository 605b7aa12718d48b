//! What can be known of a log directory before it is shipped or proven: its engine, its set, its epoch, and what its
//! operator should be told.

use std::path::Path;

use anyhow::Result;

use super::site;
use crate::edge::dir::Dir;
use crate::rule::scheme::Scheme;
use crate::value::exit::{Code, Failure};

/// The epoch that a log directory's own records, or the sender's, give it.
pub fn epoch(dir: &Dir, state: Option<&Dir>) -> Result<u64> {
    let own = match site::peek(dir, None)? {
        Some(state) => site::epoch(&state)?,
        None => 0,
    };
    let kept = match state {
        Some(state) => site::epoch(state)?,
        None => 0,
    };
    Ok(own.max(kept))
}

/// Engine, pattern and set of a log directory: as told, as pinned when it is a replica's, or as its file names show.
pub fn scheme_of(dir: &Dir, told: Option<Scheme>, state: Option<&Path>) -> Result<(Scheme, Option<String>)> {
    let origin = match site::peek(dir, state)? {
        Some(state) => site::origin(&state)?,
        None => None,
    };
    if let Some(origin) = origin {
        let scheme = told.unwrap_or(origin.scheme);
        return Ok((scheme, Some(origin.set)));
    }
    if let Some(scheme) = told {
        return Ok((scheme, None));
    }
    let names = dir.names()?;
    match Scheme::detect(names.iter().filter_map(|name| name.to_str())) {
        Ok(scheme) => Ok((scheme, None)),
        Err(why) => Err(Failure::new(Code::Usage, format!("{}: {why}", dir.path().display()))
            .hint("say it with --engine, or with --pattern for plain logs")
            .into()),
    }
}

/// A warning about how the log is set up, where there is one.
pub fn warning(dir: &Dir, scheme: &Scheme) -> Result<Option<String>> {
    let config = match scheme.aux_names().first() {
        Some(name) => dir.read_small(name, 1 << 16)?,
        None => None,
    };
    let config = config.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let path = std::fs::canonicalize(dir.path()).unwrap_or_else(|_| dir.path().to_owned());
    Ok(scheme.warning(&path.to_string_lossy(), config.as_deref()))
}
