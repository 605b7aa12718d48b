//! What is kept, why, and what goes: a plan that can be shown, asked, and carried out.

use anyhow::Result;

use crate::rule::retention::{self, Need, Why};
use crate::rule::scheme::Scheme;
use crate::value::escape::show;
use crate::value::exit::{Code, fail};
use crate::value::position::Segment;

/// A file of log that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Which segment it is.
    pub segment: Segment,
    /// Its name.
    pub name: String,
    /// How many bytes of disk it takes.
    pub bytes: u64,
}

/// What is to be done, or was done.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The rules of the log.
    pub scheme: Scheme,
    /// Whether the directory is a master's, not an archive.
    pub is_master: bool,
    /// Log before this goes; `None` when nothing may go.
    pub horizon: Option<Segment>,
    /// Log before this has gone already.
    pub pruned: Option<Segment>,
    /// Each base, and why it is kept; `None` for one that goes.
    pub bases: Vec<(String, Option<Why>)>,
    /// Who needs log.
    pub needs: Vec<Need>,
    /// The segments that stay, in order.
    pub kept: Vec<File>,
    /// Those that go.
    pub going: Vec<File>,
}

impl Plan {
    /// The bases that go.
    pub fn going_bases(&self) -> Vec<String> {
        self.bases.iter().filter(|(_, why)| why.is_none()).map(|(name, _)| name.clone()).collect()
    }

    /// How many bytes of log go.
    pub fn bytes(&self) -> u64 {
        self.going.iter().map(|file| file.bytes).sum()
    }

    /// Says of a segment or a base whether it is kept, by whom, or why it goes.
    pub fn explain(&self, name: &str) -> Result<String> {
        if let Some((name, why)) = self.bases.iter().find(|(base, _)| base == name) {
            return Ok(match why {
                Some(why) => format!("base {name} is kept: {why}"),
                None => format!("base {name} goes: it is neither among the newest nor needed to go back that far"),
            });
        }
        let is_file = |file: &&File| file.name == name;
        let found = self.kept.iter().chain(&self.going).find(is_file).map(|file| file.segment);
        let Some(segment) = found.or_else(|| self.scheme.segment(name)) else {
            let text = format!("'{}' is neither a base nor a segment of engine {}", show(name), self.scheme.engine());
            return fail(Code::Usage, text);
        };
        if Some(segment) < self.pruned {
            return Ok(format!("{name} was pruned: {}", self.from()));
        }
        if self.going.iter().any(|file| file.segment == segment) {
            return Ok(format!("{name} goes: {}", self.from()));
        }
        if self.kept.iter().any(|file| file.segment == segment) {
            return Ok(format!("{name} is kept for {}", self.keepers(segment)));
        }
        Ok(format!("{name} is not here"))
    }

    fn from(&self) -> String {
        match self.horizon.or(self.pruned) {
            Some(horizon) => format!("nobody needs log before {horizon}"),
            None => "nobody needs it".to_owned(),
        }
    }

    fn keepers(&self, segment: Segment) -> String {
        match retention::keepers(&self.needs, segment) {
            none if none.is_empty() => "the database itself".to_owned(),
            keepers => keepers,
        }
    }
}
