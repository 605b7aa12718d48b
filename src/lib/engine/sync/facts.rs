//! What small files in a data directory tell of it: which database it is, and how far it has come. Both ends look at
//! their own; the destination compares, before anything in it is touched.

use crate::value::escape::{show, unword, word};
use crate::value::exit::{Code, Failure};

/// Longest text of facts that is believed.
const TEXT_MAX: usize = 1 << 20;

/// What is known of one side's database.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Facts {
    /// Marks by which a database is known again: what they are of, and their value. Never the same in two databases.
    pub marks: Vec<(String, String)>,
    /// How far it has come: timeline and place, where they can be compared between a master and its replica.
    pub place: Option<(u64, u64)>,
    /// Timelines that it has left for the one it is on, and the places where.
    pub left: Vec<(u64, u64)>,
}

/// How a destination's database stands to the source's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Relation {
    /// It is the same one, and not newer.
    Same,
    /// Nothing tells.
    Unknown,
    /// It is another one: what says so.
    Other(String),
    /// It is the same one, and has come further, or has gone another way.
    Newer(String),
}

impl Facts {
    /// As one line for the other end.
    pub fn print(&self) -> String {
        let mut words: Vec<_> = self.marks.iter().map(|(of, value)| format!("{} {}", word(of), word(value))).collect();
        words.extend(self.place.map(|(timeline, place)| format!("at {timeline}:{place}")));
        words.extend(self.left.iter().map(|(timeline, place)| format!("left {timeline}:{place}")));
        words.join(" ")
    }

    /// Reads a line back. It is a peer's.
    pub fn parse(line: &str) -> Option<Facts> {
        let mut facts = Facts::default();
        let mut words = (line.len() <= TEXT_MAX).then(|| line.split(' ').filter(|word| !word.is_empty()))?;
        while let Some(first) = words.next() {
            let (of, value) = (unword(first)?, words.next()?);
            match (of.as_str(), value.split_once(':')) {
                ("at" | "left", Some((timeline, place))) => {
                    let place = (timeline.parse().ok()?, place.parse().ok()?);
                    if of == "at" {
                        facts.place = Some(place);
                    } else {
                        facts.left.push(place);
                    }
                }
                _ => facts.marks.push((of, unword(value)?)),
            }
        }
        Some(facts)
    }

    /// How the destination, of which these are the facts, stands to a source.
    pub fn relation(&self, source: &Facts) -> Relation {
        let theirs = |of: &str| source.marks.iter().find(|(other, _)| other == of).map(|(_, value)| value);
        let common: Vec<_> = self.marks.iter().filter_map(|(of, value)| Some((of, value, theirs(of)?))).collect();
        if let (Some((of, ours, theirs)), false) = (common.first(), common.iter().any(|(_, a, b)| a == b)) {
            return Relation::Other(format!("{} is {} there and {} here", show(of), show(theirs), show(ours)));
        }
        let fork = |ours: u64| source.left.iter().find(|(timeline, _)| *timeline == ours).map(|(_, fork)| *fork);
        if let Some((ours, fork)) =
            self.place.and_then(|ours| Some((ours, fork(ours.0)?))).filter(|(at, fork)| at.1 >= *fork)
        {
            let (at, fork) = (place(ours.1), place(fork));
            return Relation::Newer(format!(
                "it went on to {at} on timeline {}, which the source left at {fork}",
                ours.0
            ));
        }
        match (self.place, source.place) {
            (Some(ours), Some(theirs)) if ours > theirs => Relation::Newer(format!(
                "it is at {} on timeline {}, the source at {} on timeline {}",
                place(ours.1),
                ours.0,
                place(theirs.1),
                theirs.0
            )),
            _ if common.is_empty() => Relation::Unknown,
            _ => Relation::Same,
        }
    }
}

/// As PostgreSQL writes it.
fn place(place: u64) -> String {
    format!("{:X}/{:X}", place >> 32, place & 0xffff_ffff)
}

impl Relation {
    /// The guard: refuses (13) to lay a database over another one, or over one that has come further.
    pub fn guard(&self, destination: &str) -> anyhow::Result<()> {
        let text = match self {
            Relation::Same | Relation::Unknown => return Ok(()),
            Relation::Other(why) => format!("{destination} holds another database: {why}"),
            Relation::Newer(why) => format!("{destination} has what the source has not: {why}"),
        };
        let hint = "are source and destination the right way round? --adopt overwrites it nevertheless";
        Err(Failure::new(Code::Guarded, text).hint(hint).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::exit::code_of;

    fn facts(marks: &[(&str, &str)], place: Option<(u64, u64)>) -> Facts {
        Facts {
            marks: marks.iter().map(|(of, value)| ((*of).to_owned(), (*value).to_owned())).collect(),
            place,
            left: Vec::new(),
        }
    }

    #[test]
    fn facts_are_read_back_and_foreign_ones_are_bounded() {
        for some in
            [facts(&[], None), facts(&[("system identifier", "7"), ("at", "x y%"), ("\u{1b}", "")], Some((2, 1 << 40)))]
        {
            assert_eq!(Facts::parse(&some.print()), Some(some));
        }
        let left = Facts { left: vec![(1, 7), (2, 9)], ..facts(&[], Some((3, 8))) };
        assert_eq!(Facts::parse(&left.print()), Some(left));
        for bad in ["a", "left 1:x", "at x:1", "at 1:-", "a %zz", &"a b ".repeat(TEXT_MAX)] {
            assert_eq!(Facts::parse(bad), None);
        }
    }

    #[test]
    fn relations() {
        let master = facts(&[("system", "7")], Some((1, 100)));
        assert_eq!(facts(&[("system", "7")], Some((1, 100))).relation(&master), Relation::Same);
        assert_eq!(facts(&[("system", "7")], None).relation(&master), Relation::Same);
        assert_eq!(Facts::default().relation(&master), Relation::Unknown);
        assert_eq!(master.relation(&Facts::default()), Relation::Unknown);
        for newer in [(1, 101), (2, 50)] {
            let newer = facts(&[("system", "7")], Some(newer)).relation(&master);
            assert!(matches!(newer, Relation::Newer(_)), "{newer:?}");
            assert_eq!(code_of(&newer.guard("/d").unwrap_err()), Code::Guarded);
        }
        // A promotion at 50 of timeline 1: whoever went on there has what nobody else has.
        let heir = Facts { left: vec![(1, 50)], ..facts(&[("system", "7")], Some((2, 60))) };
        assert_eq!(facts(&[("system", "7")], Some((1, 49))).relation(&heir), Relation::Same);
        let gone_on = facts(&[("system", "7")], Some((1, 50))).relation(&heir);
        assert!(matches!(&gone_on, Relation::Newer(why) if why.contains("left at 0/32")), "{gone_on:?}");
        let other = facts(&[("system", "8")], Some((9, 9))).relation(&master);
        assert!(matches!(&other, Relation::Other(why) if why == "system is 7 there and 8 here"), "{other:?}");
        assert_eq!(code_of(&other.guard("/d").unwrap_err()), Code::Guarded);
        // One file of several that is known again is enough: others were made anew.
        let files = facts(&[("a.db", "1"), ("b.db", "2")], None);
        assert_eq!(files.relation(&facts(&[("a.db", "1"), ("b.db", "3")], None)), Relation::Same);
        assert_eq!(files.relation(&facts(&[("c.db", "1")], None)), Relation::Unknown);
    }
}
