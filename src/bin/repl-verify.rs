//! Proves a log directory. See repl-verify(1).

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory as _, Parser};
use clap_complete::Shell;
use serde_json::json;

use repl::cli::args::{self, Log, Talk};
use repl::cli::report;
use repl::edge::dir::Dir;
use repl::engine::verify::{self, Finding, Kind, Report};
use repl::value::escape::show;
use repl::value::exit::{Code, fail};

const NAME: &str = "repl-verify";

/// Prove a log directory: order, gaps, digests and records
#[derive(Parser, Debug)]
#[command(name = NAME, version, help_expected = true)]
struct Args {
    /// Directory with the log; only read
    #[arg(value_name = "DIR", required_unless_present = "completions")]
    dir: Option<PathBuf>,

    #[command(flatten)]
    log: Log,

    /// The site's state is in this directory instead of DIR/.repl
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,

    /// Print one JSON object instead of lines
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    talk: Talk,

    /// Print completions for a shell and exit
    #[arg(long, value_name = "SHELL", exclusive = true)]
    completions: Option<Shell>,
}

fn main() -> ExitCode {
    report::exit(NAME, run(&Args::parse()))
}

fn run(args: &Args) -> Result<()> {
    if let Some(shell) = args.completions {
        return args::completions(Args::command(), shell);
    }
    let path = args.dir.clone().unwrap_or_default();
    let found = verify::run(&Dir::open(&path)?, args.log.kind()?, args.state.as_deref())?;
    if args.json {
        report::print(format!("{}\n", object(&path.to_string_lossy(), &found)).as_bytes())?;
    } else if !args.talk.quiet {
        report::print(lines(&found, args.talk.verbose).as_bytes())?;
    }
    match (found.code(), found.findings.len()) {
        (Code::Done, _) => Ok(()),
        (code, count) => fail(code, format!("{}: {} ({count} found)", path.display(), verdict(code))),
    }
}

fn verdict(code: Code) -> &'static str {
    match code {
        Code::Gap => "gap",
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
fn lines(found: &Report, is_verbose: bool) -> String {
    let mut lines = String::new();
    for finding in &found.findings {
        let place = match finding.offset {
            Some(offset) => finding.segment.at(offset).to_string(),
            None => finding.segment.to_string(),
        };
        lines += &format!("{} {place} {}\n", kind(finding), show(&finding.text));
    }
    if is_verbose {
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
    lines + &format!("{}: {} segments, {} bytes{range}{until}\n", verdict(found.code()), found.segments, found.bytes)
}

fn object(dir: &str, found: &Report) -> serde_json::Value {
    let findings = found.findings.iter().map(|finding| {
        json!({"kind": kind(finding), "segment": finding.segment.to_string(), "offset": finding.offset, "text": finding.text})
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
        "findings": findings.collect::<Vec<_>>(),
        "verdict": verdict(found.code()),
    })
}
