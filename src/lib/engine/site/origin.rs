//! What a directory that receives is of: pinned by the first stream, so that no other one is ever taken.

use anyhow::Result;

use crate::rule::pattern::Pattern;
use crate::rule::scheme::{Engine, Kind, Scheme};
use crate::rule::stream::hello::Hello;
use crate::value::escape::word;
use crate::value::exit::{Code, fail};
use crate::value::pairs;
use crate::value::position::Position;

/// What was pinned at the first attach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Name of the set; empty when no sender gave one yet.
    pub set: String,
    /// See [`Hello::scheme`].
    pub scheme: Scheme,
    /// Where the first stream began.
    pub start: Position,
}

impl Origin {
    /// The facts, and a last line that is their checksum.
    pub(super) fn print(&self) -> String {
        let facts = self.facts();
        format!("{facts}crc={:08x}\n", crc32c::crc32c(facts.as_bytes()))
    }

    fn facts(&self) -> String {
        let pattern = self.scheme.pattern().map(Pattern::to_string).unwrap_or_default();
        format!(
            "v=1\nset={}\nengine={}\npattern={}\nidentity={}\nsegment-size={}\nstart={}\nself-contained={}\n",
            word(&self.set),
            self.scheme.engine(),
            word(&pattern),
            word(&self.scheme.identity()),
            self.scheme.segment_size(),
            self.start,
            if self.is_self_contained() { "yes" } else { "no" },
        )
    }

    pub(super) fn parse(text: &str) -> Option<Origin> {
        if pairs::get(text, "v")? != "1" {
            return None;
        }
        let pattern = match pairs::get(text, "pattern")?.as_str() {
            "" => None,
            pattern => Some(Pattern::parse(pattern).ok()?),
        };
        let kind = Kind::new(Engine::parse(&pairs::get(text, "engine")?).ok()?, pattern).ok()?;
        let (identity, segment_size) = (pairs::get(text, "identity")?, pairs::count(text, "segment-size")?);
        let origin = Origin {
            set: pairs::get(text, "set")?,
            scheme: Scheme::new(&kind, &identity, segment_size).ok()?,
            start: pairs::get(text, "start")?.parse().ok()?,
        };
        // To the byte as it is written; it was without a checksum once.
        (text == origin.print() || text == origin.facts()).then_some(origin)
    }

    /// Whether the log here begins where the set began, so that it rebuilds the database alone.
    pub fn is_self_contained(&self) -> bool {
        self.start.offset == 0 && self.scheme.is_first(self.start.segment)
    }

    /// Refuses a sender that is of another set, engine, identity or segment size.
    pub fn admit(&self, hello: &Hello) -> Result<()> {
        let differs = |what: &str, ours: &str, theirs: &str| {
            fail(Code::Fenced, format!("this directory belongs to {what} '{ours}', the stream is of '{theirs}'"))
        };
        if !self.set.is_empty() && self.set != hello.set {
            return differs("set", &self.set, &hello.set);
        }
        let (ours, theirs) = (&self.scheme, &hello.scheme);
        if (ours.engine(), ours.pattern()) != (theirs.engine(), theirs.pattern()) {
            let show = |scheme: &Scheme| match scheme.pattern() {
                Some(pattern) => format!("{} {pattern}", scheme.engine()),
                None => scheme.engine().to_string(),
            };
            return differs("engine", &show(ours), &show(theirs));
        }
        if ours.identity() != theirs.identity() {
            return differs("the database with identity", &ours.identity(), &theirs.identity());
        }
        if ours.segment_size() != theirs.segment_size() {
            return differs("segment size", &ours.segment_size().to_string(), &theirs.segment_size().to_string());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_origin_is_read_back_and_no_flipped_bit_is_believed() {
        let scheme = Scheme::Plain(Pattern::parse("log %S").unwrap());
        let origin = Origin { set: "a b".into(), scheme, start: "1-1:0".parse().unwrap() };
        assert_eq!(Origin::parse(&origin.print()), Some(origin.clone()));
        assert_eq!(Origin::parse(&origin.facts()), Some(origin.clone()), "without a checksum, as it was once");
        let text = origin.print().into_bytes();
        for bit in 0..text.len() * 8 {
            let mut damaged = text.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(std::str::from_utf8(&damaged).ok().and_then(Origin::parse), None, "bit {bit}");
        }
    }
}
