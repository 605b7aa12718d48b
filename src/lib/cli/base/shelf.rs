//! What `repl-base` does with the bases that an archive has: lists, proves and removes them.

use anyhow::{Context as _, Result};
use serde_json::json;

use super::Args;
use crate::cli::sync::Place;
use crate::cli::{report, verify};
use crate::edge::dir::Dir;
use crate::engine::archive::base::{self, Base};
use crate::engine::archive::prove::{self, Which};
use crate::value::escape::show;
use crate::value::exit::{Code, fail};

impl Args {
    /// The directory of the archive, where it is the only operand.
    fn here(&self) -> Result<Dir> {
        match Place::parse(self.source.as_ref().context("no ARCHIVE")?)? {
            Place::Here(path) => Dir::open(&path),
            _ => fail(Code::Usage, "run this where the archive is"),
        }
    }

    /// Lists the bases.
    pub fn list(&self) -> Result<()> {
        let mut lines = String::new();
        for found in base::list(&self.here()?)? {
            lines += &if self.json { format!("{}\n", object(&found)) } else { line(&found) };
        }
        report::print(lines.as_bytes())
    }

    /// Proves them, or the one that the second operand names.
    pub fn verify(&self) -> Result<()> {
        let dir = self.here()?;
        let named = self.archive.as_ref().map(|name| name.to_string_lossy().into_owned());
        let proven = prove::run(&dir, &named.map_or(Which::All, Which::One))?;
        let mut lines = String::new();
        for base in &proven {
            if self.json {
                lines += &format!("{}\n", verify::base_object(base));
                continue;
            }
            for fault in &base.faults {
                lines += &format!("corrupt base {}: {}: {}\n", base.name, show(&fault.file), show(&fault.text));
            }
            lines += &verify::base_line(base);
        }
        if self.json || !self.talk.quiet {
            report::print(lines.as_bytes())?;
        }
        match proven.iter().map(|base| base.faults.len()).sum::<usize>() {
            0 => Ok(()),
            count => fail(Code::Corrupt, format!("{}: corrupt ({count} found)", dir.shown(""))),
        }
    }

    /// Removes a base.
    pub fn drop(&self, name: &str) -> Result<()> {
        crate::engine::base::drop(&self.here()?, name, self.reason.as_deref())
    }
}

/// Name, end of its log, time of the last transaction, when it was taken, files, bytes, engine, source.
fn line(base: &Base) -> String {
    let record = &base.record;
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    format!(
        "{}\t{}\t{}\t{}\t{}\t{}\t{}\t{}\n",
        base.name,
        or_dash(record.position.map(|at| at.to_string())),
        or_dash(record.time.map(|time| time.to_string())),
        record.ended,
        record.files,
        record.bytes,
        record.engine,
        show(&record.source),
    )
}

pub(super) fn object(base: &Base) -> serde_json::Value {
    let record = &base.record;
    json!({
        "v": 1,
        "name": base.name,
        "engine": record.engine.to_string(),
        "source": record.source,
        "identity": record.identity,
        "position": record.position.map(|at| at.to_string()),
        "time": record.time.map(|time| time.to_string()),
        "begun": record.begun.to_string(),
        "ended": record.ended.to_string(),
        "files": record.files,
        "bytes": record.bytes,
        "reason": record.reason,
    })
}
