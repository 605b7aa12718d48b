//! When somebody is to be called: at once for a kind of trouble that is new, then at most once in a time for the same
//! kind, however often it comes.
//!
//! A command that dies of its trouble is started again by its supervisor, every ten seconds for a night; so what was told
//! is remembered beyond the process, with times of the wall clock. A clock that jumps can cause one call too many, never
//! one too few: a call that seems to lie in the future is forgotten.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::value::time::Time;

/// Kinds that are remembered; the one that was called for longest ago goes first.
const MOST: usize = 100;

/// The calls that were made, by kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls(BTreeMap<String, Last>);

/// The last call for a kind.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Last {
    at: Time,
    /// How many were held back since.
    held: u64,
}

/// One of them as a line of JSON.
#[derive(Serialize, Deserialize)]
struct Line {
    v: u32,
    kind: String,
    time: String,
    held: u64,
}

impl Calls {
    /// Reads lines as they were printed. What is none is forgotten: that is a call more, and never one less.
    pub fn parse(text: &str) -> Calls {
        let lines = text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok());
        let known = lines.filter(|line| line.v == 1).filter_map(|line| {
            let at = Time::parse(&line.time)?;
            Some((line.kind, Last { at, held: line.held }))
        });
        Calls(known.collect())
    }

    /// A line for each kind.
    pub fn print(&self) -> String {
        let line = |(kind, last): (&String, &Last)| Line {
            v: 1,
            kind: kind.clone(),
            time: last.at.to_string(),
            held: last.held,
        };
        // Numbers and text only: it cannot fail.
        self.0.iter().map(|last| serde_json::to_string(&line(last)).unwrap_or_default() + "\n").collect()
    }

    /// Something of this kind has come: how many of it were held back before, if a call is due; else it is held back.
    pub fn due(&mut self, kind: &str, now: Time, every: Duration) -> Option<u64> {
        let every = i64::try_from(every.as_micros()).unwrap_or(i64::MAX);
        if let Some(last) = self.0.get_mut(kind)
            && last.at <= now
            && now.0.saturating_sub(last.at.0) < every
        {
            last.held = last.held.saturating_add(1);
            return None;
        }
        let before = self.0.insert(kind.to_owned(), Last { at: now, held: 0 });
        if self.0.len() > MOST {
            let oldest = self.0.iter().min_by_key(|(_, last)| last.at).map(|(kind, _)| kind.clone());
            oldest.and_then(|oldest| self.0.remove(&oldest));
        }
        Some(before.map_or(0, |last| last.held))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVERY: Duration = Duration::from_secs(300);

    fn at(seconds: i64) -> Time {
        Time::from_seconds(1_800_000_000 + seconds)
    }

    #[test]
    fn the_first_is_called_for_at_once_and_the_same_kind_once_in_a_time() {
        let mut calls = Calls::default();
        assert_eq!(calls.due("link", at(0), EVERY), Some(0));
        assert_eq!(calls.due("link", at(1), EVERY), None);
        assert_eq!(calls.due("hook", at(2), EVERY), Some(0));
        assert_eq!(calls.due("link", at(299), EVERY), None);
        assert_eq!(calls.due("link", at(300), EVERY), Some(2));
        assert_eq!(calls.due("link", at(600), EVERY), Some(0));
    }

    #[test]
    fn a_clock_that_was_set_back_holds_no_call_back() {
        let mut calls = Calls::default();
        calls.due("link", at(1000), EVERY);
        calls.due("link", at(1001), EVERY);
        assert_eq!(calls.due("link", at(999), EVERY), Some(1));
        assert_eq!(calls.due("link", at(1000), EVERY), None);
    }

    #[test]
    fn what_was_called_for_is_known_to_the_next_process() {
        let mut calls = Calls::default();
        calls.due("link trouble venus\n\"", at(0), EVERY);
        calls.due("link trouble venus\n\"", at(1), EVERY);
        calls.due("gap end", at(2), EVERY);
        assert_eq!(calls.print().lines().count(), 2);
        assert_eq!(Calls::parse(&calls.print()), calls);
        let line = r#"{"v":1,"kind":"gap end","time":"2027-01-15T08:00:02Z","held":0}"#;
        assert!(calls.print().contains(line), "{}", calls.print());
        let odd = "\n{\n{\"v\":2,\"kind\":\"a\",\"time\":\"x\",\"held\":1}\n[]\n";
        assert_eq!(Calls::parse(&(odd.to_owned() + line)).0.len(), 1);
    }

    #[test]
    fn a_thousand_kinds_do_not_fill_the_memory() {
        let mut calls = Calls::default();
        for count in 0..1000 {
            assert_eq!(calls.due(&format!("kind {count}"), at(count), EVERY), Some(0));
        }
        assert_eq!(calls.0.len(), MOST);
        assert_eq!(calls.due("kind 999", at(1000), EVERY), None);
    }
}
