//! For people at a terminal: a heading for each sender and receiver, with a line for each site below it.

use super::judge::{Judged, State, age, lag, receiver, sender, silent, site};
use super::receiver::{Base, Receiver};
use super::sender::{Lag, Sender, Site};
use super::{Part, Report, What};
use crate::value::escape::show;
use crate::value::position::Position;
use crate::value::time::Time;
use crate::value::units::{tell_seconds, tell_size};

/// Whether more than the state is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detail {
    /// What is needed to act.
    Brief,
    /// All positions, and where things lie.
    Full,
}

/// All of it.
pub fn render(report: &Report, detail: Detail) -> String {
    let blocks: Vec<String> = report.parts.iter().map(|part| block(part, report, detail)).collect();
    blocks.join("\n")
}

fn block(part: &Part, report: &Report, detail: Detail) -> String {
    let title = show(&part.title());
    match &part.what {
        What::Sender(from) => {
            let judged = sender(from, part.time, &report.limits);
            let mut block = format!("{title}, sender: {}\n", state(&judged));
            block += &about_sender(from, part.time, detail);
            block + &sites(from, part.time, report, detail)
        }
        What::Receiver(to) => {
            let judged = receiver(to, part.time, &report.limits);
            format!("{title}, receiver: {}\n{}", state(&judged), about_receiver(to, part.time, detail))
        }
        What::Silent(of) => format!("{title}: {}\n", state(&silent(of))),
    }
}

/// The state's word, with why.
fn state(judged: &Judged) -> String {
    let word = judged.state.word();
    if judged.why.is_empty() { word.to_owned() } else { format!("{word}: {}", judged.why) }
}

fn place(at: Option<Position>) -> String {
    at.map_or_else(|| "-".to_owned(), |at| at.to_string())
}

fn ago(time: Option<Time>, now: Time) -> String {
    time.map_or_else(|| "-".to_owned(), |time| tell_seconds(age(time, now)))
}

fn about_sender(sender: &Sender, now: Time, detail: Detail) -> String {
    let mut facts = vec![format!("log ends at {}", place(sender.end))];
    facts.extend(sender.grown.map(|grown| format!("grew {} ago", tell_seconds(age(grown, now)))));
    facts.extend(sender.epoch.map(|epoch| format!("epoch {epoch}")));
    let counts =
        sender.confirmed.map(|yes| format!(": {yes} confirmed, {} not", sender.unconfirmed.unwrap_or_default()));
    facts.extend(sender.policy.as_ref().map(|policy| format!("{}{}", show(policy), counts.unwrap_or_default())));
    let mut lines = format!("  {}\n", facts.join(", "));
    if detail == Detail::Full {
        let pid = sender.pid.map_or_else(|| "?".to_owned(), |pid| pid.to_string());
        let (log, state) = (show(&sender.logdir), show(&sender.state_dir));
        lines += &format!("  {} log in {log}, process {pid}, state in {state}\n", show(&sender.engine));
    }
    lines
}

fn sites(sender: &Sender, now: Time, report: &Report, detail: Detail) -> String {
    if sender.sites.is_empty() {
        return "  no sites\n".to_owned();
    }
    let mut rows = vec![head(detail)];
    rows.extend(sender.sites.iter().map(|to| row(sender, to, now, report, detail)));
    columns(&rows)
}

fn head(detail: Detail) -> Vec<String> {
    let positions: &[&str] = match detail {
        Detail::Brief => &["FLUSHED"],
        Detail::Full => &["SENT", "RECEIVED", "FLUSHED", "APPLIED"],
    };
    let names = ["SITE", "STATE"].iter().chain(positions).chain(&["BEHIND", "ACK", "LOST", ""]);
    names.map(|name| (*name).to_owned()).collect()
}

fn row(sender: &Sender, to: &Site, now: Time, report: &Report, detail: Detail) -> Vec<String> {
    let judged = site(sender, to, now, &report.limits);
    let mut row = vec![show(to.title()), judged.state.word().to_owned()];
    match detail {
        Detail::Brief => row.push(place(to.proven)),
        Detail::Full => row.extend([to.sent, to.received, to.proven, to.applied].map(place)),
    }
    // What a dead sender has said of lag is no longer so.
    let behind = behind(lag(sender, to, now, &report.limits));
    // The heading has it already.
    let is_said = matches!(judged.state, State::Stale | State::Ended | State::Lagging);
    let why = if is_said { String::new() } else { judged.why };
    row.extend([behind, ago(to.last_ack, now), to.reconnects.to_string(), why]);
    row
}

/// `4.0 KiB, 12 s`; `-` for nothing, `?` where that is not known.
pub(super) fn behind(lag: Lag) -> String {
    let Lag { bytes, segments, seconds } = lag;
    let segments = segments.filter(|count| *count > 0).map(|count| format!("{count} seg"));
    let parts = [bytes.map(tell_size), segments, seconds.map(tell_seconds)];
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    match parts.len() {
        0 => "?".to_owned(),
        _ if bytes == Some(0) => "-".to_owned(),
        _ => parts.join(", "),
    }
}

/// Up to where the database has the log, and what it lacks of what is held.
pub(super) fn applied(receiver: &Receiver) -> Option<String> {
    let lag = receiver.unfed().map(behind).filter(|lag| lag != "-");
    let lag = lag.map(|lag| format!(" ({lag} behind)")).unwrap_or_default();
    receiver.applied.map(|at| format!("{at}{lag}"))
}

fn about_receiver(receiver: &Receiver, now: Time, detail: Detail) -> String {
    let until = receiver.boundary_time.map(|time| format!(", up to date until {}", time.narrate())).unwrap_or_default();
    let applied = applied(receiver).map(|applied| format!(", applied {applied}")).unwrap_or_default();
    let mut lines = format!("  holds {}{applied}{until}\n", place(receiver.held));
    if let Some(session) = &receiver.session {
        let lag = behind(receiver.lag(now));
        let heard = ago(session.heard, now);
        lines += &format!("  master's end {}, heard {heard} ago, behind {lag}\n", place(session.master_end));
    }
    if !receiver.aside.is_empty() {
        lines += &format!("  {} set aside: {}\n", receiver.aside.len(), show(&receiver.aside.join(", ")));
    }
    lines += &bases(receiver, now, detail);
    if detail == Detail::Full {
        let begins = receiver.begins.map(|at| format!(", begins at {at}")).unwrap_or_default();
        let (engine, state) = (show(&receiver.engine), show(&receiver.state_dir));
        lines += &format!("  {engine} log, epoch {}{begins}, state in {state}\n", receiver.epoch);
    }
    lines
}

fn bases(receiver: &Receiver, now: Time, detail: Detail) -> String {
    let line = |base: &Base| {
        let (name, ended) = (show(&base.name), ago(base.ended, now));
        format!("  base {name}, {ended} old, {}, needs log from {} on\n", tell_size(base.bytes), place(base.position))
    };
    match detail {
        Detail::Full => receiver.bases.iter().map(line).collect(),
        Detail::Brief => receiver.bases.last().map(line).unwrap_or_default(),
    }
}

/// Rows as columns, two spaces apart; the last column is as wide as it is.
fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.first().map_or(0, Vec::len);
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<usize> = (0..count).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("  {}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}
