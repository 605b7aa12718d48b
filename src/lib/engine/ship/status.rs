//! `status.json` in the sender's state directory: where each receiver is, for `repl-status` and for people. Replaced whole
//! at each heartbeat, at each change of a link, and at most once a second while acknowledgements come. And `lag.jsonl`, a
//! line each minute: how far each receiver was behind.
//!
//! Shipping does not depend on files that only report on it: what cannot be written is passed over.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::board::{Board, Facts, Site as Receiver};
use super::earlier;
use crate::edge::clock;
use crate::edge::dir::Dir;
use crate::edge::journal::{self, Journal};
use crate::engine::log;
use crate::engine::role::pause::Paused;
use crate::rule::scheme::Scheme;
use crate::value::position::{Position, Segment};

/// Its name.
const FILE: &str = "status.json";
/// Longest that is read.
const MOST: u64 = 1 << 20;
/// How far each receiver was behind, a line each minute.
const LAG: &str = "lag.jsonl";
/// Lines of it that are kept: two weeks and some. Cut when there are a quarter more.
const KEPT: usize = 16_000;
const MINUTE: Duration = Duration::from_secs(60);

/// A receiver, as a sender's status file tells of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// What it is called: a site of a configuration by its name, any other by how it is reached.
    pub name: String,
    /// How it is reached.
    pub receiver: String,
    /// The log directory that is shipped to it.
    pub log: String,
    /// How much of that log is known to be on its disk.
    pub proven: Option<Position>,
    /// When it last acknowledged.
    pub last_ack: Option<String>,
}

impl Site {
    /// Whether a configuration has named it.
    fn is_configured(&self) -> bool {
        self.name != self.receiver
    }
}

/// The receivers that a sender has or had, as far as they were not let go.
pub fn read(state: &Dir) -> Result<Vec<Site>> {
    let mut sites = told(state)?;
    let earlier = earlier::read(state)?.into_iter();
    let earlier: Vec<_> = earlier.filter(|known| sites.iter().all(|site| site.receiver != known.receiver)).collect();
    sites.extend(earlier);
    Ok(sites)
}

/// The receivers that its status tells of: those of the last run. None when there is no status.
pub fn told(state: &Dir) -> Result<Vec<Site>> {
    let Some(bytes) = state.read_small(FILE, MOST)? else {
        return Ok(Vec::new());
    };
    let status: Value = serde_json::from_slice(&bytes).with_context(|| format!("cannot read {}", state.shown(FILE)))?;
    let log = status["logdir"].as_str().unwrap_or_default();
    let site = |site: &Value| {
        let receiver = site["receiver"].as_str().unwrap_or_default();
        Site {
            name: site["name"].as_str().unwrap_or(receiver).to_owned(),
            receiver: receiver.to_owned(),
            log: log.to_owned(),
            proven: site["proven"].as_str().and_then(|at| at.parse().ok()),
            last_ack: site["last_ack"].as_str().map(str::to_owned),
        }
    };
    Ok(status["sites"].as_array().map(|sites| sites.iter().map(site).collect()).unwrap_or_default())
}

/// What a sender's files say of it all the time.
pub struct About {
    /// The log directory, as messages name it.
    pub log: String,
    /// Engine and pattern.
    pub scheme: Scheme,
    /// Name of the set; may be empty.
    pub set: String,
    /// Name of this site; may be empty.
    pub site: String,
    /// Epoch of this master.
    pub epoch: u64,
    /// Time between two heartbeats.
    pub heartbeat: Duration,
    /// How long a boundary may wait to be confirmed.
    pub ack_timeout: Duration,
}

/// The sender's status file, and its lag.
pub struct Status {
    state: Dir,
    about: About,
    fixed: Value,
    /// What an earlier process has proven: it stays true while this one has not come so far.
    known: Vec<Site>,
    sizes: BTreeMap<Segment, u64>,
    written: Option<(Instant, Value)>,
    lag: Option<Journal>,
    noted: Option<Instant>,
    lines: usize,
}

impl Status {
    /// For a log directory; the caller has the lock of the state directory.
    pub fn open(state: Dir, about: About) -> Status {
        let fixed = json!({
            "v": 1,
            "logdir": about.log,
            "engine": about.scheme.engine().to_string(),
            "set": about.set,
            "site": about.site,
            "epoch": about.epoch,
            "pid": std::process::id(),
            "started": clock::now().to_string(),
            "heartbeat": about.heartbeat.as_secs_f64(),
            "ack_timeout": about.ack_timeout.as_secs_f64(),
        });
        // Those of one that cannot be read are lost to those of the other.
        let known = read(&state).or_else(|_| told(&state)).unwrap_or_default();
        let (sizes, written, noted) = (BTreeMap::new(), None, None);
        Status { state, about, fixed, known, sizes, written, lag: None, noted, lines: 0 }
    }

    /// How much of this log a receiver is known to have on its disk from earlier.
    pub(super) fn proven(&self, receiver: &str) -> Option<Position> {
        let known = self.known.iter().find(|site| site.receiver == receiver && site.log == self.about.log);
        known.and_then(|site| site.proven)
    }

    /// Keeps in mind what those have that are not shipped to any more, and returns them. Who has a configuration has said who
    /// there is: a site that it has not any more was let go.
    pub(super) fn part(&self, receivers: &[super::Receiver]) -> Result<Vec<Site>> {
        let is_configured = receivers.iter().any(|receiver| receiver.name != receiver.shown);
        let is_here = |site: &&Site| receivers.iter().any(|receiver| receiver.shown == site.receiver);
        let (mut gone, mut kept) = (Vec::new(), Vec::new());
        for site in self.known.iter().filter(|site| !is_here(site)) {
            if is_configured && site.is_configured() { gone.push(site) } else { kept.push(site.clone()) }
        }
        kept.retain(|site| site.proven.is_some());
        kept.iter().try_for_each(|site| earlier::keep(&self.state, site))?;
        gone.into_iter().try_for_each(|site| earlier::forget(&self.state, &site.receiver).map(drop))?;
        Ok(kept)
    }

    /// These are of this run, or nobody's: they are not of an earlier one.
    pub(super) fn forget<'r>(&self, mut receivers: impl Iterator<Item = &'r String>) -> Result<()> {
        receivers.try_for_each(|receiver| earlier::forget(&self.state, receiver).map(drop))
    }

    /// Whether shipping is paused.
    pub(super) fn pause(&mut self, paused: Option<&Paused>) {
        self.fixed["paused"] =
            paused.map_or(Value::Null, |paused| json!({"since": paused.since, "reason": paused.reason}));
    }

    /// Writes what has changed since, or all when a heartbeat is due or `is_urgent`.
    pub(super) fn write(&mut self, dir: &Dir, board: &Board, is_urgent: bool) {
        let is_due = self.written.as_ref().is_none_or(|(when, _)| when.elapsed() >= self.about.heartbeat);
        if is_due {
            // A size that is not known makes a lag unknown, and nothing else.
            let _ = self.measure(dir);
        }
        let sizes = &self.sizes;
        let news = board.look(|facts| tell(facts, sizes));
        if !is_due && !is_urgent && self.written.as_ref().is_some_and(|(_, before)| *before == news) {
            return;
        }
        let mut status = self.fixed.clone();
        status["updated"] = clock::now().to_string().into();
        if let (Some(status), Value::Object(news)) = (status.as_object_mut(), &news) {
            status.extend(news.clone());
        }
        let _ = self.state.replace(FILE, format!("{status:#}\n").as_bytes());
        if !news["end"].is_null() && self.noted.is_none_or(|noted| noted.elapsed() >= MINUTE) {
            self.noted = Some(Instant::now());
            let _ = self.note(&status);
        }
        self.written = Some((Instant::now(), news));
    }

    /// The sizes of the segments that are there.
    fn measure(&mut self, dir: &Dir) -> Result<()> {
        let before = std::mem::take(&mut self.sizes);
        let newest = before.last_key_value().map(|(newest, _)| *newest);
        for (segment, name) in log::segments(dir, &self.about.scheme, |segment| before.contains_key(&segment))? {
            // Only the newest may have grown since.
            let known = before.get(&segment).filter(|_| Some(segment) != newest).copied();
            let size = match known {
                Some(size) => size,
                None => dir.open_read(&name)?.map(|file| file.metadata()).transpose()?.map_or(0, |meta| meta.len()),
            };
            self.sizes.insert(segment, size);
        }
        Ok(())
    }

    /// Adds a line to the lag's history.
    fn note(&mut self, status: &Value) -> Result<()> {
        let journal = match &mut self.lag {
            Some(journal) if self.lines <= KEPT + KEPT / 4 => journal,
            empty => {
                let mut lines = Vec::new();
                journal::read(&self.state, LAG, |line| {
                    lines.push(format!("{line}\n"));
                    Ok(())
                })?;
                if lines.len() > KEPT {
                    lines.drain(..lines.len() - KEPT);
                    self.state.replace(LAG, lines.concat().as_bytes())?;
                }
                self.lines = lines.len();
                empty.insert(Journal::open(&self.state, LAG, |_| true)?)
            }
        };
        let sites = status["sites"].as_array().map(Vec::as_slice).unwrap_or_default();
        let sites: serde_json::Map<_, _> = sites
            .iter()
            .map(|site| {
                let lag = json!({"bytes": site["lag"]["bytes"], "seconds": site["lag"]["seconds"]});
                (site["name"].as_str().unwrap_or_default().to_owned(), lag)
            })
            .collect();
        let line = json!({"v": 1, "time": status["updated"], "end": status["end"], "sites": sites});
        self.lines += 1;
        journal.append(&format!("{line}\n"))
    }
}

/// What changes.
fn tell(facts: &Facts, sizes: &BTreeMap<Segment, u64>) -> Value {
    let sites: Vec<_> = facts.sites.values().map(|site| tell_site(site, facts, sizes)).collect();
    json!({
        "end": text(facts.end),
        "grown": facts.grown.map(|time| time.to_string()),
        "policy": facts.policy.to_string(),
        "confirmed": facts.marks.confirmed,
        "unconfirmed": facts.marks.unconfirmed,
        "confirmed_to": text(facts.marks.confirmed_to),
        "sites": sites,
    })
}

fn tell_site(site: &Receiver, facts: &Facts, sizes: &BTreeMap<Segment, u64>) -> Value {
    let proven = site.flushed();
    let distance = proven.zip(facts.end).and_then(|(from, to)| distance(from, to, sizes));
    let (bytes, segments) = (distance.map(|(bytes, _)| bytes), distance.map(|(_, segments)| segments));
    let seconds = facts.end.map(|_| facts.behind_for(proven).as_millis() as f64 / 1000.0);
    json!({
        "name": site.name,
        "receiver": site.receiver,
        "state": site.link.word(),
        "acks": site.acks,
        "votes": site.votes,
        "priority": site.priority,
        "sent": text(site.sent),
        "received": text(site.said.received),
        "flushed": text(site.said.flushed),
        "applied": text(site.said.applied),
        "proven": text(proven),
        "lag": {"bytes": bytes, "segments": segments, "seconds": seconds},
        "last_ack": site.last_ack.map(|time| time.to_string()),
        "connected": site.connected.map(|time| time.to_string()),
        "reconnects": site.reconnects,
        "error": site.error.as_ref().map(|(_, text)| text),
        "code": site.error.as_ref().map(|(code, _)| *code as u8),
    })
}

fn text(position: Option<Position>) -> Option<String> {
    position.map(|position| position.to_string())
}

/// Bytes between two positions, and segments that end between them; `None` when some size is not known.
fn distance(from: Position, to: Position, sizes: &BTreeMap<Segment, u64>) -> Option<(u64, u64)> {
    if from >= to {
        return Some((0, 0));
    }
    if from.segment == to.segment {
        return Some((to.offset - from.offset, 0));
    }
    let mut bytes = sizes.get(&from.segment)?.saturating_sub(from.offset) + to.offset;
    let mut segments = 1;
    for (_, size) in sizes.range(from.segment..to.segment).skip(1) {
        bytes += size;
        segments += 1;
    }
    Some((bytes, segments))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distance_spans_segments_and_is_unknown_where_one_has_gone() {
        let at = |text: &str| text.parse::<Position>().unwrap();
        let sizes = (2..=5).map(|sequence| (Segment::new(1, sequence), 100)).collect();
        let distance = |from: &str, to: &str| distance(at(from), at(to), &sizes);
        assert_eq!(distance("1-2:40", "1-2:90"), Some((50, 0)));
        assert_eq!(distance("1-2:40", "1-5:7"), Some((60 + 200 + 7, 3)));
        assert_eq!(distance("1-2:100", "1-3:0"), Some((0, 1)));
        assert_eq!(distance("1-5:7", "1-2:40"), Some((0, 0)));
        assert_eq!(distance("1-1:40", "1-2:90"), None);
    }

    #[test]
    fn the_history_of_the_lag_is_bounded() {
        let root = tempfile::tempdir().unwrap();
        let line = "{\"v\":1}\n";
        std::fs::write(root.path().join(LAG), line.repeat(KEPT + 9)).unwrap();
        let about = About {
            log: "/log".into(),
            scheme: Scheme::Plain(crate::rule::pattern::Pattern::parse("log.%S").unwrap()),
            set: String::new(),
            site: String::new(),
            epoch: 0,
            heartbeat: Duration::from_secs(1),
            ack_timeout: Duration::from_secs(1),
        };
        let mut status = Status::open(Dir::open(root.path()).unwrap(), about);
        status.note(&json!({"end": "1-1:5", "sites": [{"name": "a", "lag": {"bytes": 5, "seconds": null}}]})).unwrap();
        let text = std::fs::read_to_string(root.path().join(LAG)).unwrap();
        assert_eq!(text.lines().count(), KEPT + 1);
        let last: Value = serde_json::from_str(text.lines().last().unwrap()).unwrap();
        assert_eq!(last["sites"]["a"], json!({"bytes": 5, "seconds": null}));
    }
}
