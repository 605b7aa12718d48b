//! The arguments of `repl-verify`, and what it prints.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use clap_complete::Shell;
use serde_json::json;

use super::args::{Log, Talk};
use crate::engine::archive::base;
use crate::engine::archive::prove::{Proven, Which};
use crate::engine::verify::against::{Amount, Compared};
use crate::engine::verify::{Finding, Kind, Options, Reach, Report};
use crate::value::escape::show;
use crate::value::exit::Code;
use crate::value::position::Position;
use crate::value::units;

/// Prove a log directory: order, gaps, digests, records and bases
#[derive(Parser, Debug)]
#[command(name = "repl-verify", version, help_expected = true)]
pub struct Args {
    /// Directory with the log; only read
    #[arg(value_name = "DIR", required_unless_present = "completions")]
    pub dir: Option<PathBuf>,

    /// Which log this is.
    #[command(flatten)]
    pub log: Log,

    /// The site's state is in this directory instead of DIR/.repl
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,

    /// Of the bases, prove only this one
    #[arg(long, value_name = "NAME", value_parser = base_name)]
    pub base: Option<String>,

    /// Prove only the log, not the bases
    #[arg(long, conflicts_with = "base")]
    pub no_bases: bool,

    /// Print digests of what is held, for another site to compare, instead of findings
    #[arg(long, conflicts_with_all = ["json", "against", "base"])]
    pub digests: bool,

    /// With --digests: print also that of a segment up to this position, if it is held
    #[arg(long, value_name = "POSITION", requires = "digests")]
    pub at: Option<Position>,

    /// Compare with another site, by the lines of its repl-verify --digests that this command prints
    #[arg(long, value_name = "COMMAND")]
    pub against: Option<String>,

    /// How long that command may take
    #[arg(long, value_name = "TIME", default_value = "12h", value_parser = units::positive_duration)]
    pub timeout: Duration,

    /// Print one JSON object instead of lines
    #[arg(long)]
    pub json: bool,

    /// How much is said.
    #[command(flatten)]
    pub talk: Talk,

    /// Print completions for a shell and exit
    #[arg(long, value_name = "SHELL", exclusive = true)]
    pub completions: Option<Shell>,
}

impl Args {
    /// What the engine is told.
    pub fn options(&self) -> Result<Options> {
        let bases = match &self.base {
            Some(name) => Which::One(name.clone()),
            None if self.no_bases || self.digests => Which::None,
            None => Which::All,
        };
        Ok(Options { kind: self.log.kind()?, state: self.state.clone(), bases, ..Options::default() })
    }
}

fn base_name(text: &str) -> Result<String, String> {
    if base::is_name(text) { Ok(text.to_owned()) } else { Err("no base has such a name".to_owned()) }
}

/// The verdict of an exit code.
pub fn verdict(code: Code) -> &'static str {
    match code {
        Code::Gap => "gap",
        Code::Diverged => "diverged",
        Code::Corrupt => "corrupt",
        _ => "whole",
    }
}

fn kind(finding: &Finding) -> &'static str {
    match finding.kind {
        Kind::Gap => "gap",
        Kind::Corrupt => "corrupt",
    }
}

/// A line for each finding, then the summary.
pub fn lines(found: &Report, is_verbose: bool) -> String {
    let mut lines = String::new();
    for finding in &found.findings {
        let place = match finding.offset {
            Some(offset) => finding.segment.at(offset).to_string(),
            None => finding.segment.to_string(),
        };
        lines += &format!("{} {place} {}\n", kind(finding), show(&finding.text));
    }
    for base in &found.bases {
        for fault in &base.faults {
            lines += &format!("corrupt base {}: {}: {}\n", base.name, show(&fault.file), show(&fault.text));
        }
    }
    if is_verbose {
        lines += &found.bases.iter().map(base_line).collect::<String>();
        let (engine, set) = (found.scheme.engine(), show(&found.set));
        let begins = if found.is_self_contained() { "begins with the set" } else { "needs a base" };
        lines += &format!("engine {engine}, set '{set}', {begins}\n");
    }
    let range = match (found.first, found.end) {
        (Some(first), Some(end)) => format!(", {first} to {end}"),
        _ => String::new(),
    };
    let time = found.boundary.and_then(|(_, mark)| mark.time);
    let until = time.map(|time| format!(", up to date until {}", time.narrate())).unwrap_or_default();
    let bases = match found.bases.len() {
        0 => String::new(),
        1 => ", 1 base".to_owned(),
        count => format!(", {count} bases"),
    };
    let reach = match found.reach.iter().max_by_key(|reach| reach.end) {
        Some(Reach { base, end, .. }) => {
            let by = base.as_ref().map_or_else(|| "log alone".to_owned(), |base| format!("base {base}"));
            format!(", recoverable to {end} by {by}")
        }
        None if found.bases.is_empty() => String::new(),
        None => ", recoverable by no base".to_owned(),
    };
    let verdict = verdict(found.code());
    lines + &format!("{verdict}: {} segments, {} bytes{range}{until}{bases}{reach}\n", found.segments, found.bytes)
}

/// `base 2026-11-22T21-06-14Z: whole, 3 files, 9 bytes, needs log from 1-2:40 on, up to date until …`.
pub fn base_line(base: &Proven) -> String {
    let position = base.record.as_ref().and_then(|record| record.position);
    let needs = position.map(|position| format!(", needs log from {position} on")).unwrap_or_default();
    let time = base.record.as_ref().and_then(|record| record.time);
    let until = time.map(|time| format!(", up to date until {}", time.narrate())).unwrap_or_default();
    let Proven { name, files, bytes, .. } = base;
    format!("base {name}: {}, {files} files, {bytes} bytes{needs}{until}\n", base_verdict(base))
}

fn base_verdict(base: &Proven) -> &'static str {
    verdict(if base.faults.is_empty() { Code::Done } else { Code::Corrupt })
}

/// One JSON object, see repl-verify(1).
pub fn object(dir: &str, found: &Report) -> serde_json::Value {
    let findings = found.findings.iter().map(|finding| {
        json!({"kind": kind(finding), "segment": finding.segment.to_string(), "offset": finding.offset, "text": finding.text})
    });
    let faults = found.bases.iter().flat_map(|base| {
        base.faults.iter().map(|fault| {
            let text = format!("base {}: {}: {}", base.name, fault.file, fault.text);
            json!({"kind": "corrupt", "segment": null, "offset": null, "text": text, "base": base.name, "file": fault.file})
        })
    });
    json!({
        "v": 1,
        "dir": dir,
        "engine": found.scheme.engine().to_string(),
        "set": found.set,
        "segments": found.segments,
        "bytes": found.bytes,
        "first": found.first.map(|first| first.to_string()),
        "end": found.end.map(|end| end.to_string()),
        "boundary": found.boundary.map(|(segment, mark)| segment.at(mark.offset).to_string()),
        "time": found.boundary.and_then(|(_, mark)| mark.time).map(|time| time.to_string()),
        "self_contained": found.is_self_contained(),
        "findings": findings.chain(faults).collect::<Vec<_>>(),
        "bases": found.bases.iter().map(base_object).collect::<Vec<_>>(),
        "recoverable": found.reach.iter().map(reach_object).collect::<Vec<_>>(),
        "verdict": verdict(found.code()),
    })
}

fn reach_object(reach: &Reach) -> serde_json::Value {
    json!({
        "base": reach.base,
        "position": reach.end.to_string(),
        "time": reach.time.map(|time| time.to_string()),
    })
}

/// One base as a JSON object.
pub fn base_object(base: &Proven) -> serde_json::Value {
    let record = base.record.as_ref();
    json!({
        "name": base.name,
        "files": base.files,
        "bytes": base.bytes,
        "position": record.and_then(|record| record.position).map(|position| position.to_string()),
        "time": record.and_then(|record| record.time).map(|time| time.to_string()),
        "verdict": base_verdict(base),
    })
}

/// A line for each thing in which another site differs, then the summary.
pub fn compared_lines(compared: &Compared) -> String {
    let mut lines = String::new();
    if let Some((segment, text)) = &compared.difference {
        lines += &format!("diverged {segment} {text}\n");
    }
    lines += &compared.holes.iter().map(|hole| format!("gap - {hole}\n")).collect::<String>();
    let part = |words: &str, amount: Amount| match amount {
        Amount { segments: 0, bytes: 0 } => String::new(),
        Amount { segments, bytes } => format!(", {words} {segments} segments, {bytes} bytes"),
    };
    let Compared { equal, behind, ahead, older_here, older_there, unproven, .. } = *compared;
    let unproven = unproven.map(|at| format!(", nothing proven of {at}")).unwrap_or_default();
    let verdict = compared_verdict(compared);
    let Amount { segments, bytes } = equal;
    lines += &format!("{verdict}: {segments} segments, {bytes} bytes the same");
    lines += &part("behind by", behind);
    lines += &part("ahead by", ahead);
    lines += &part("older only here", older_here);
    lines += &part("older only there", older_there);
    lines + &unproven + "\n"
}

fn compared_verdict(compared: &Compared) -> &'static str {
    match compared.code() {
        Code::Done => "equal",
        code => verdict(code),
    }
}

/// The same as one JSON object.
pub fn compared_object(compared: &Compared) -> serde_json::Value {
    let amount = |amount: Amount| json!({"segments": amount.segments, "bytes": amount.bytes});
    let difference = compared.difference.as_ref();
    json!({
        "equal": amount(compared.equal),
        "behind": amount(compared.behind),
        "ahead": amount(compared.ahead),
        "older_here": amount(compared.older_here),
        "older_there": amount(compared.older_there),
        "unproven": compared.unproven.map(|at| at.to_string()),
        "difference": difference.map(|(segment, text)| json!({"segment": segment.to_string(), "text": text})),
        "holes": compared.holes,
        "verdict": compared_verdict(compared),
    })
}
