//! The source's list, as it comes: a few frames ahead, and believed only where it is one that a walk could have made.

use std::collections::VecDeque;

use anyhow::Result;

use super::channel::Sender;
use super::door::Ear;
use super::ledger::Ledger;
use crate::rule::sync::filter::Filter;
use crate::rule::sync::wire::ask::Ask;
use crate::rule::sync::wire::corrupt;
use crate::rule::sync::wire::tell::{Cause, Matter, Tell};
use crate::value::entry::Entry;
use crate::value::name::Name;

/// Frames that are asked for ahead.
const AHEAD: usize = 3;
/// No file is longer than 64 TiB: what is known of its parts must fit into memory.
const FILE_MAX: u64 = 64 << 40;
/// The line of the list and of errands.
pub const CONTROL: u16 = 0;

/// The line for all that is not about files.
pub struct Control {
    /// To the other end.
    pub sender: Sender,
    /// From the other end.
    pub ear: Ear,
}

impl Control {
    /// Sends a question, which has one frame as its answer.
    pub fn ask(&self, ask: &Ask) -> Result<()> {
        self.ear.expect(1);
        self.sender.send(ask.seal(CONTROL))
    }

    /// Waits for an answer; what the other end could not do is an error with its exit code.
    pub fn hear(&self) -> Result<Tell> {
        self.ear.hear()
    }
}

/// The entries of a pass.
pub struct Listing<'a, 'l> {
    control: &'a Control,
    filter: &'a Filter,
    ledger: &'a Ledger<'l>,
    entries: VecDeque<Entry>,
    /// Directories that the next entry may be in.
    open: Vec<Name>,
    last: Option<Name>,
    asked: usize,
    has_ended: bool,
    is_whole: bool,
}

impl<'a, 'l> Listing<'a, 'l> {
    /// Asks for a new list.
    pub fn begin(control: &'a Control, filter: &'a Filter, ledger: &'a Ledger<'l>) -> Result<Listing<'a, 'l>> {
        let mut listing = Listing {
            control,
            filter,
            ledger,
            entries: VecDeque::new(),
            open: Vec::new(),
            last: None,
            asked: 0,
            has_ended: false,
            is_whole: true,
        };
        for _ in 0..AHEAD {
            listing.ask()?;
        }
        Ok(listing)
    }

    fn ask(&mut self) -> Result<()> {
        self.asked += 1;
        self.control.ask(&Ask::List)
    }

    /// Whether all could be read at the source. Known at the end.
    pub fn is_whole(&self) -> bool {
        self.has_ended && self.is_whole
    }

    /// Whether the source has nothing: no name, or `lost+found` alone. Looks at the first frame only.
    pub fn is_empty(&mut self) -> Result<bool> {
        if self.entries.is_empty() && !self.has_ended {
            self.fill()?;
        }
        let is_nothing = |entry: &Entry| entry.name.is_root() || entry.name.bytes() == b"lost+found";
        Ok(self.has_ended && self.entries.iter().all(is_nothing))
    }

    /// The next entry.
    #[expect(clippy::should_implement_trait, reason = "it fails")]
    pub fn next(&mut self) -> Result<Option<Entry>> {
        while self.entries.is_empty() {
            if self.has_ended {
                return Ok(None);
            }
            self.fill()?;
        }
        let Some(entry) = self.entries.pop_front() else { return Ok(None) };
        self.check(&entry)?;
        Ok(Some(entry))
    }

    fn fill(&mut self) -> Result<()> {
        let Tell::Entries { entries, unread, is_end } = self.control.ear.hear_soon()? else {
            return Err(corrupt("not a list"));
        };
        if entries.is_empty() && unread.is_empty() && !is_end {
            return Err(corrupt("a part of a list with nothing in it"));
        }
        self.asked -= 1;
        for (name, why) in unread {
            self.is_whole = false;
            let text = format!("cannot read it at the source: {why}");
            self.ledger.unsettle(&name, Cause { matter: Matter::Unreadable, text });
        }
        self.entries.extend(entries);
        if is_end {
            self.has_ended = true;
            // What was asked for ahead is answered all the same.
            for _ in 0..std::mem::take(&mut self.asked) {
                self.control.hear()?;
            }
            return Ok(());
        }
        self.ask()
    }

    /// A list begins with the root, is in order, has each name's directory before it, and nothing that takes no part.
    fn check(&mut self, entry: &Entry) -> Result<()> {
        let name = &entry.name;
        let is_in_order = self.last.as_ref().map_or(name.is_root(), |last| last < name);
        let parent = name.parent();
        while self.open.last().is_some_and(|open| *open != parent) {
            self.open.pop();
        }
        let has_parent = name.is_root() || !self.open.is_empty();
        if entry.is_file() && entry.stamp.size > FILE_MAX {
            return Err(corrupt(format!("{name} has {} bytes", entry.stamp.size)));
        }
        if !is_in_order || !has_parent || self.filter.leaves_out(name, entry.is_directory()) {
            return Err(corrupt(format!("{name} has no place in the list")));
        }
        if entry.is_directory() {
            self.open.push(name.clone());
        }
        self.last = Some(name.clone());
        Ok(())
    }
}
