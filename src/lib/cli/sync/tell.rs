//! What a sync has to say, as lines, a progress bar, or one JSON object.

use std::time::Duration;

use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use parking_lot::Mutex;
use serde_json::{Value, json};

use super::Args;
use super::ends;
use crate::cli::report;
use crate::engine::sync::drive::Report;
use crate::rule::sync::wire::ask::Say;
use crate::value::position::Position;

/// What the operator was told.
pub struct Told {
    /// The report, for the end.
    pub report: Mutex<Option<Vec<u8>>>,
    bar: ProgressBar,
}

impl Told {
    /// With a bar on standard error if that is a terminal and `--progress` was given.
    pub fn new(args: &Args) -> Told {
        let bar = if args.progress && !args.talk.quiet { ProgressBar::new(0) } else { ProgressBar::hidden() };
        let style = ProgressStyle::with_template("{bar:30} {bytes} of {total_bytes} {bytes_per_sec} {eta}");
        Told { report: Mutex::default(), bar: bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())) }
    }

    /// Bytes done and bytes known.
    fn advance(&self, text: &str) {
        if let Some((Ok(done), Ok(known))) = text.split_once(' ').map(|(done, known)| (done.parse(), known.parse())) {
            self.bar.set_length(known);
            self.bar.set_position(done);
        }
    }
}

/// Shows the operator something; the report is kept for the end.
pub fn say(args: &Args, told: &Told, say: Say, bytes: &[u8]) {
    let words = || String::from_utf8_lossy(bytes).into_owned();
    if say == Say::Progress {
        return told.advance(&words());
    }
    told.bar.suspend(|| match say {
        // When standard output is gone, the exit code remains.
        Say::Out => drop(report::print(&harmless(bytes))),
        Say::Warning if !args.talk.quiet => report::warn(args.program, &words()),
        Say::Verbose if args.talk.verbose => report::say(args.program, &words()),
        Say::Report => *told.report.lock() = Some(bytes.to_vec()),
        Say::Warning | Say::Verbose | Say::Progress => {}
    });
}

/// Lines for standard output as we would have made them: a peer's may be meant for the terminal that shows them.
fn harmless(bytes: &[u8]) -> Vec<u8> {
    bytes.iter().map(|byte| if matches!(byte, b' '..=b'~' | b'\n') { *byte } else { b'?' }).collect()
}

/// The report as JSON.
pub fn object(done: &Report) -> Value {
    let seconds = |duration: Duration| (duration.as_secs_f64() * 1e6).round() / 1e6;
    let counts = &done.counts;
    json!({
        "v": 1,
        "mode": done.mode,
        "passes": done.passes,
        "entries": counts.entries,
        "files": counts.files,
        "bytes": counts.bytes,
        "created": counts.created,
        "updated": counts.updated,
        "dressed": counts.dressed,
        "deleted": counts.deleted,
        "literal_bytes": counts.literal,
        "matched_bytes": counts.matched,
        "trusted_bytes": counts.trusted,
        "wire_sent_bytes": done.wire.0,
        "wire_received_bytes": done.wire.1,
        "last_literal_bytes": done.last_literal,
        "position": done.position,
        "downtime_seconds": done.downtime.map(seconds),
        "seconds": seconds(done.took),
    })
}

/// Prints the report as it is wanted.
pub fn report(args: &Args, text: &[u8]) -> Result<()> {
    let Ok(done) = serde_json::from_slice::<Value>(text) else {
        return Ok(());
    };
    if args.json {
        return report::print(format!("{done}\n").as_bytes());
    }
    let number = |key: &str| done[key].as_u64().unwrap_or_default();
    if let (Some(seconds), false) = (done["downtime_seconds"].as_f64(), args.talk.quiet) {
        ends::say(&format!("the server was down for {seconds:.3} s"));
    }
    // It may be a far end's word.
    if let Some(position) = done["position"].as_str().and_then(|text| text.parse::<Position>().ok()) {
        report::print(format!("{position}\n").as_bytes())?;
    }
    if args.talk.verbose {
        ends::say(&format!(
            "{} files, {} bytes: {} created, {} updated, {} deleted; {} bytes sent, {} matched, {} trusted, {} on the wire; {:.3} s",
            number("files"),
            number("bytes"),
            number("created"),
            number("updated"),
            number("deleted"),
            number("literal_bytes"),
            number("matched_bytes"),
            number("trusted_bytes"),
            number("wire_sent_bytes") + number("wire_received_bytes"),
            done["seconds"].as_f64().unwrap_or_default(),
        ));
    }
    Ok(())
}
