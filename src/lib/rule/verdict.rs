//! The four verdicts on the start of a stream, and no fifth.

use super::scheme::{Scheme, Step};
use super::stream::message::Begin;
use crate::value::digest::Digest;
use crate::value::position::Position;

/// What a receiver holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// End of what it holds.
    pub position: Position,
    /// Of the segment's bytes up to there.
    pub digest: Digest,
    /// Whether that segment is complete.
    pub closed: bool,
}

/// What a stream's beginning is to a receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes on from, or repeats, what is held.
    Resume,
    /// Bytes between what is held and the beginning are missing, or cannot be proven: why.
    Gap(String),
    /// What lies before the beginning is not what is held: why.
    Diverged(String),
    /// The receiver holds more than the master, and the same before it.
    Ahead,
}

/// Judges a beginning. `own` is the digest of the receiver's own bytes of that segment before the beginning, where it has
/// that many; `held` is `None` at an empty receiver. [`Verdict::Ahead`] is given only at the master's very end, where all
/// before has been proven.
pub fn judge(scheme: &Scheme, held: Option<&Held>, begin: &Begin, own: Option<Digest>) -> Verdict {
    let at = begin.position;
    let proven = match own {
        Some(own) if own == begin.digest => Ok(()),
        Some(own) => Err(format!("up to {at} the master's digest is {}, ours is {own}", begin.digest)),
        None => Ok(()),
    };
    let Some(held) = held else {
        return match (own, proven) {
            (_, Err(why)) => Verdict::Diverged(why),
            (None, _) if at.offset > 0 => Verdict::Gap(format!("the stream begins at {at} and nothing is held here")),
            _ => Verdict::Resume,
        };
    };
    let (ends, holds) = (begin.end.segment.generation, held.position.segment.generation);
    if scheme.forks() && ends < holds {
        return Verdict::Diverged(format!(
            "the sender's log ends on timeline {ends} at {}, timeline {holds} is held here up to {}",
            begin.end, held.position
        ));
    }
    if at.segment > held.position.segment {
        return judge_next(scheme, held, begin);
    }
    if at > held.position {
        return Verdict::Gap(format!("the stream begins at {at}, here ends {}", held.position));
    }
    match proven {
        Err(why) => Verdict::Diverged(why),
        Ok(()) if own.is_none() && at.offset > 0 => {
            Verdict::Gap(format!("the stream begins at {at}, and that segment is no longer here to prove it"))
        }
        Ok(()) if at == begin.end && at < held.position => Verdict::Ahead,
        Ok(()) => Verdict::Resume,
    }
}

/// A stream that begins with a later segment than the one held.
fn judge_next(scheme: &Scheme, held: &Held, begin: &Begin) -> Verdict {
    let (at, end) = (begin.position, held.position);
    if !held.closed || at.offset > 0 || scheme.step(end.segment, at.segment) == Step::Gap {
        return Verdict::Gap(format!("the stream begins at {at}, here ends {end}"));
    }
    match begin.previous {
        Some(previous) if previous.segment != end.segment => Verdict::Diverged(format!(
            "at the master segment {} comes before {at}, here it is {}",
            previous.segment, end.segment
        )),
        Some(previous) if (previous.length, previous.digest) != (end.offset, held.digest) => {
            Verdict::Diverged(format!(
                "the master's segment {} has {} bytes with digest {}, ours has {} with {}",
                end.segment, previous.length, previous.digest, end.offset, held.digest
            ))
        }
        Some(_) => Verdict::Resume,
        None => Verdict::Gap(format!("the stream begins at {at} without proof of segment {} before it", end.segment)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::pattern::Pattern;
    use crate::rule::stream::message::Previous;
    use crate::value::position::Segment;

    fn digest(text: &str) -> Digest {
        Digest::of(text.as_bytes())
    }

    fn verdict(
        held: Option<(&str, bool)>,
        at: &str,
        end: &str,
        previous: Option<(u64, u64, &str)>,
        own: Option<&str>,
    ) -> char {
        let scheme = Scheme::Plain(Pattern::parse("%N").unwrap());
        let held = held.map(|(at, closed)| Held { position: at.parse().unwrap(), digest: digest("held"), closed });
        let previous = previous.map(|(sequence, length, text)| Previous {
            segment: Segment::new(1, sequence),
            length,
            digest: digest(text),
        });
        let begin =
            Begin { position: at.parse().unwrap(), end: end.parse().unwrap(), digest: digest("prefix"), previous };
        match judge(&scheme, held.as_ref(), &begin, own.map(digest)) {
            Verdict::Resume => 'r',
            Verdict::Gap(_) => 'g',
            Verdict::Diverged(_) => 'd',
            Verdict::Ahead => 'a',
        }
    }

    #[test]
    fn an_empty_receiver_takes_any_segment_from_its_first_byte() {
        assert_eq!(verdict(None, "1-7:0", "1-9:0", None, None), 'r');
        assert_eq!(verdict(None, "1-7:5", "1-9:0", None, None), 'g');
        assert_eq!(verdict(None, "1-7:5", "1-9:0", None, Some("prefix")), 'r');
        assert_eq!(verdict(None, "1-7:5", "1-9:0", None, Some("other")), 'd');
    }

    #[test]
    fn within_what_is_held_the_prefix_decides() {
        assert_eq!(verdict(Some(("1-3:40", false)), "1-3:40", "1-3:99", None, Some("prefix")), 'r');
        assert_eq!(verdict(Some(("1-3:40", false)), "1-3:40", "1-3:99", None, Some("other")), 'd');
        assert_eq!(verdict(Some(("1-3:40", false)), "1-3:41", "1-3:99", None, None), 'g');
        assert_eq!(verdict(Some(("1-3:40", false)), "1-2:10", "1-3:99", None, None), 'g');
        assert_eq!(verdict(Some(("1-3:40", false)), "1-1:0", "1-3:99", None, None), 'r');
    }

    #[test]
    fn ahead_is_said_at_the_masters_end_only() {
        assert_eq!(verdict(Some(("1-3:40", false)), "1-3:30", "1-3:30", None, Some("prefix")), 'a');
        assert_eq!(verdict(Some(("1-3:40", false)), "1-3:30", "1-3:30", None, Some("other")), 'd');
        assert_eq!(verdict(Some(("1-3:40", false)), "1-3:20", "1-3:30", None, Some("prefix")), 'r');
        assert_eq!(verdict(Some(("1-3:40", false)), "1-3:40", "1-3:40", None, Some("prefix")), 'r');
    }

    #[test]
    fn the_next_segment_needs_proof_of_the_one_before() {
        let held = Some(("1-3:40", true));
        assert_eq!(verdict(held, "1-4:0", "1-4:9", Some((3, 40, "held")), None), 'r');
        assert_eq!(verdict(held, "1-4:0", "1-4:9", Some((3, 40, "other")), None), 'd');
        assert_eq!(verdict(held, "1-4:0", "1-4:9", Some((3, 41, "held")), None), 'd');
        assert_eq!(verdict(held, "1-4:0", "1-4:9", Some((2, 40, "held")), None), 'd');
        assert_eq!(verdict(held, "1-4:0", "1-4:9", None, None), 'g');
        assert_eq!(verdict(held, "1-5:0", "1-5:9", Some((4, 40, "held")), None), 'g');
        assert_eq!(verdict(held, "1-4:1", "1-4:9", None, Some("prefix")), 'g');
        assert_eq!(verdict(Some(("1-3:40", false)), "1-4:0", "1-4:9", Some((3, 40, "held")), None), 'g');
    }
}
