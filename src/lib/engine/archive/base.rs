//! What is known of a base: `ARCHIVE/bases/NAME/` with `data/`, the copied directory; `B3SUMS`, a line for each of its
//! files; `base.toml`, what it is of and where its log ends. A base gets its name when all of it is on stable storage.
//!
//! `base.toml` has the digest of `B3SUMS`, and its last line is the digest of all above: no flipped bit goes unseen.

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use super::BASES;
use crate::edge::dir::Dir;
use crate::engine::sync::history;
use crate::engine::sync::profile::Profile;
use crate::value::digest::Digest;
use crate::value::exit::{Code, Failure, fail};
use crate::value::position::Position;
use crate::value::time::Time;

/// The copied directory.
pub const DATA: &str = "data";
/// A line for each of its files, as `b3sum` writes and checks them.
pub const SUMS: &str = "B3SUMS";
/// What a base is of.
pub const RECORD: &str = "base.toml";
/// Longest record that is read.
const RECORD_MAX: u64 = 1 << 16;
/// The key of its last line.
const PROOF: &str = "b3 = ";

/// A base of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    /// Its directory's name.
    pub name: String,
    /// What it is of.
    pub record: Record,
}

/// What a base is of: the content of `base.toml`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The kind of database.
    pub engine: Profile,
    /// The directory that was copied.
    pub source: String,
    /// What the engine's log says of the database that it is of; empty where it says nothing.
    pub identity: String,
    /// Log is needed from here on. Up to here the base's own log makes it a whole database, where it has one.
    pub position: Option<Position>,
    /// The time of the last transaction before that.
    pub time: Option<Time>,
    /// Where in `data` its own log is, `.` for the directory itself.
    pub log: Option<String>,
    /// When the copying began.
    pub begun: Time,
    /// When it ended.
    pub ended: Time,
    /// How many files.
    pub files: u64,
    /// How many bytes they have.
    pub bytes: u64,
    /// Of `B3SUMS`.
    pub sums: Digest,
    /// Why it was taken.
    pub reason: Option<String>,
}

/// The same as TOML.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    v: u64,
    engine: String,
    source: String,
    identity: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log: Option<String>,
    begun: String,
    ended: String,
    files: u64,
    bytes: u64,
    sums: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

impl Record {
    /// As `base.toml` has it.
    pub fn print(&self) -> Result<String> {
        let text = toml::to_string(&Text {
            v: 1,
            engine: self.engine.to_string(),
            source: self.source.clone(),
            identity: self.identity.clone(),
            position: self.position.map(|position| position.to_string()),
            time: self.time.map(|time| time.to_string()),
            log: self.log.clone(),
            begun: self.begun.to_string(),
            ended: self.ended.to_string(),
            files: self.files,
            bytes: self.bytes,
            sums: self.sums.to_string(),
            reason: self.reason.clone(),
        })
        .context("cannot write what the base is of")?;
        Ok(format!("{text}{PROOF}\"{}\"\n", Digest::of(text.as_bytes())))
    }

    /// Reads it back.
    pub fn parse(text: &str) -> Option<Record> {
        let (above, proof) = text.strip_suffix("\"\n")?.rsplit_once(&format!("{PROOF}\""))?;
        if Digest::parse(proof)? != Digest::of(above.as_bytes()) {
            return None;
        }
        let text: Text = toml::from_str(above).ok().filter(|text: &Text| text.v == 1)?;
        let read = |text: Option<String>| text.map_or(Some(None), |text| text.parse().ok().map(Some));
        Some(Record {
            engine: Profile::parse(&text.engine).ok()?,
            source: text.source,
            identity: text.identity,
            position: read(text.position)?,
            time: text.time.map_or(Some(None), |time| Time::parse(&time).map(Some))?,
            log: text.log,
            begun: Time::parse(&text.begun)?,
            ended: Time::parse(&text.ended)?,
            files: text.files,
            bytes: text.bytes,
            sums: Digest::parse(&text.sums)?,
            reason: text.reason,
        })
    }
}

/// Whether a base can have this name: letters, digits, `.`, `_` and `-`, not beginning with `.` or `-`. The history has one
/// of these already.
pub fn is_name(name: &str) -> bool {
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let is_free = !name.starts_with(['.', '-']) && name != history::FILE;
    (1..=200).contains(&name.len()) && name.bytes().all(is_fit) && is_free
}

/// The bases of an archive, in order of their positions, then of their ends. Names that begin with `.` are none yet.
pub fn list(archive: &Dir) -> Result<Vec<Base>> {
    let mut found = Vec::new();
    if archive.identity(BASES)?.is_none() {
        return Ok(found);
    }
    let bases = archive.open_subdir(BASES)?;
    for name in bases.names()? {
        if let Some(name) = name.to_str().filter(|name| is_name(name)) {
            let record = bases.open_subdir(name).and_then(|dir| read(&dir));
            // One that is removed meanwhile has never been seen.
            if record.is_ok() || bases.identity(name)?.is_some() {
                found.push(Base { name: name.to_owned(), record: record? });
            }
        }
    }
    found.sort_by(|one, other| {
        let place = |base: &Base| (base.record.position, base.record.ended, base.name.clone());
        place(one).cmp(&place(other))
    });
    Ok(found)
}

/// What the base in a directory is of.
pub fn read(dir: &Dir) -> Result<Record> {
    let Some(bytes) = dir.read_small(RECORD, RECORD_MAX)? else {
        let failure = Failure::new(Code::Corrupt, format!("{} is missing", dir.shown(RECORD)));
        return Err(failure.hint("it is no base; move it away").into());
    };
    match std::str::from_utf8(&bytes).ok().and_then(Record::parse) {
        Some(record) => Ok(record),
        None => fail(Code::Corrupt, format!("{} is damaged", dir.shown(RECORD))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            engine: Profile::Postgres,
            source: "mars:/srv/\"p g\"\n".into(),
            identity: "7".into(),
            position: Some("1-2:40".parse().unwrap()),
            time: Some(Time(1_500_000)),
            log: Some("pg_wal".into()),
            begun: Time(1_000_000),
            ended: Time(2_000_001),
            files: 3,
            bytes: 1 << 40,
            sums: Digest::of(b"sums"),
            reason: None,
        }
    }

    #[test]
    fn a_record_is_read_back_and_no_flipped_bit_is_believed() {
        let bare = Record { position: None, time: None, log: None, reason: Some("why".into()), ..record() };
        for record in [record(), bare] {
            assert_eq!(Record::parse(&record.print().unwrap()), Some(record));
        }
        let text = record().print().unwrap().into_bytes();
        for bit in 0..text.len() * 8 {
            let mut damaged = text.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let read = std::str::from_utf8(&damaged).ok().and_then(Record::parse);
            assert_eq!(read, None, "bit {bit}");
        }
    }

    #[test]
    fn a_name_is_no_path_no_option_and_nothing_hidden() {
        for good in ["2026-11-22T21-06-14Z", "before_upgrade", "a"] {
            assert!(is_name(good), "{good}");
        }
        for bad in ["", ".", "..", ".new", "-n", "a/b", "a b", "a\n", "history.jsonl", &"a".repeat(201)] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }
}
