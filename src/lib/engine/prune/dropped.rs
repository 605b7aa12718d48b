//! Log that was given up though somebody needed it: a line in `dropped.jsonl`, durable before the first byte goes. It
//! stays open, and every run says so (exit code 11), until each of them stands at or behind its end: on a new base. Then
//! a line closes it.

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::edge::clock;
use crate::edge::dir::Dir;
use crate::edge::journal::{self, Journal};
use crate::rule::config::secret::mask;
use crate::rule::retention::{Need, Who};
use crate::value::exit::{Code, Failure};
use crate::value::position::{Position, Segment};

/// Its name in the sender's state directory.
const FILE: &str = "dropped.jsonl";

/// A gap that somebody has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// From where on log was needed.
    pub from: Position,
    /// From where on it is there.
    pub to: Position,
    /// By whom it was needed, as [`Who`] prints.
    pub who: Vec<String>,
}

impl Dropped {
    /// What goes when log before a segment is given up; `None` when nobody needs that.
    pub(super) fn of(needs: &[Need], oldest: Segment, to: Segment) -> Option<Dropped> {
        let harmed: Vec<_> = needs
            .iter()
            .filter(|need| need.from.is_none_or(|from| from.segment < to) && need.who != Who::End)
            .collect();
        let from = harmed.iter().map(|need| need.from.unwrap_or(oldest.at(0))).min()?;
        let who = harmed.iter().map(|need| need.who.to_string()).collect();
        Some(Dropped { from, to: to.at(0), who })
    }

    fn parse(line: &str) -> Option<Dropped> {
        let value: Value = serde_json::from_str(line).ok()?;
        let position = |key: &str| value.get(key)?.as_str()?.parse().ok();
        let who = value.get("who")?.as_array()?.iter().map(|who| who.as_str().map(str::to_owned));
        Some(Dropped { from: position("from")?, to: position("to")?, who: who.collect::<Option<_>>()? })
    }

    /// Whether all who needed it stand behind it. A consumer that was forgotten needs nothing any more; of a receiver
    /// that is only not told of nothing is known.
    fn is_covered(&self, needs: &[Need]) -> bool {
        self.who.iter().all(|who| match needs.iter().find(|need| need.who.to_string() == *who) {
            Some(need) => need.from >= Some(self.to),
            None => who.starts_with("consumer "),
        })
    }
}

/// Says durably that this goes, before it does.
pub(super) fn add(state: &Dir, dropped: &Dropped, reason: &str) -> Result<()> {
    let Dropped { from, to, who } = dropped;
    let (from, to) = (from.to_string(), to.to_string());
    append(
        state,
        &json!({"v": 1, "time": clock::now().to_string(), "from": from, "to": to, "reason": reason, "who": who}),
    )
}

/// What is open.
pub fn open(state: &Dir) -> Result<Vec<Dropped>> {
    let mut open: Vec<Dropped> = Vec::new();
    journal::read(state, FILE, |line| {
        let damaged = || Failure::new(Code::Corrupt, format!("{} is damaged", state.shown(FILE)));
        let value: Value = serde_json::from_str(line).map_err(|_| damaged())?;
        match value.get("covered").and_then(Value::as_str) {
            Some(to) => open.retain(|dropped| dropped.to.to_string() != to),
            None => open.push(Dropped::parse(line).ok_or_else(damaged)?),
        }
        Ok(())
    })?;
    Ok(open)
}

/// Closes what is covered; returns what stays open.
pub(super) fn settle(state: &Dir, needs: &[Need], is_dry: bool) -> Result<Vec<Dropped>> {
    let (covered, open): (Vec<_>, Vec<_>) = open(state)?.into_iter().partition(|dropped| dropped.is_covered(needs));
    for Dropped { to, .. } in covered.iter().filter(|_| !is_dry) {
        // Another one that ends there may be open.
        if open.iter().all(|other| other.to != *to) {
            append(state, &json!({"v": 1, "time": clock::now().to_string(), "covered": to.to_string()}))?;
        }
    }
    Ok(open)
}

/// What is said of it, and exit code 11.
pub fn verdict(open: &[Dropped]) -> Option<Failure> {
    let Dropped { from, to, who } = open.first()?;
    let who = mask(&who.join(", "));
    let text = format!("log from {from} to {to} was dropped, and {who} cannot go on without a new base");
    let hint = "bring each of them a new base, then: repl-prune --consumer NAME=POSITION DIR";
    Some(Failure::new(Code::Dropped, text).hint(hint))
}

fn append(state: &Dir, line: &Value) -> Result<()> {
    let mut journal = Journal::open(state, FILE, |_| true)?;
    journal.append(&format!("{line}\n"))?;
    journal.sync().context("cannot keep what was dropped")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn needs(of: &[(&str, &str)]) -> Vec<Need> {
        of.iter().map(|(name, at)| Need { who: Who::Consumer((*name).into()), from: at.parse().ok() }).collect()
    }

    #[test]
    fn it_is_open_until_all_who_needed_it_stand_behind_it() {
        let root = tempfile::tempdir().unwrap();
        let state = Dir::open(root.path()).unwrap();
        let (first, to) = (Segment::new(1, 1), Segment::new(1, 5));
        let before = needs(&[("a", "1-3:7"), ("b", "1-4:0"), ("c", "1-5:0")]);
        let dropped = Dropped::of(&before, first, to).unwrap();
        assert_eq!((dropped.from.to_string().as_str(), dropped.who.len()), ("1-3:7", 2));
        assert_eq!(Dropped::of(&needs(&[("c", "1-5:0")]), first, to), None);
        add(&state, &dropped, "full").unwrap();
        assert_eq!(settle(&state, &before, false).unwrap(), std::slice::from_ref(&dropped));
        let half = needs(&[("a", "1-5:0"), ("b", "1-4:9")]);
        assert_eq!(settle(&state, &half, false).unwrap().len(), 1);
        let whole = needs(&[("a", "1-5:0")]);
        assert_eq!(settle(&state, &whole, true).unwrap(), []);
        assert_eq!(open(&state).unwrap().len(), 1, "a dry run has closed it");
        assert_eq!(settle(&state, &whole, false).unwrap(), []);
        assert_eq!(open(&state).unwrap(), []);
        assert_eq!(verdict(&[dropped]).unwrap().code, Code::Dropped);
    }

    #[test]
    fn a_receiver_that_is_not_told_of_covers_nothing() {
        let to = Segment::new(1, 5);
        let need = Need { who: Who::Receiver("ssh a".into()), from: None };
        let dropped = Dropped::of(std::slice::from_ref(&need), Segment::new(1, 2), to).unwrap();
        assert_eq!(dropped.from.to_string(), "1-2:0");
        assert!(!dropped.is_covered(&[]) && !dropped.is_covered(std::slice::from_ref(&need)));
        assert!(dropped.is_covered(&[Need { from: Some(to.at(0)), ..need }]));
    }
}
