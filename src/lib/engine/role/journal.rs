//! How far a switchover has come at the master that was: `switchover` in its state directory, one line, replaced whole.
//!
//! The point of no return is not in here. It is the site's own `role`: once that says *receiver*, nothing ships from here
//! any more, and the other site may be told. A crash before the next step leaves no master, and never two.

use anyhow::Result;

use crate::edge::dir::Dir;
use crate::value::escape::word;
use crate::value::exit::{Code, fail};
use crate::value::pairs;
use crate::value::position::Bookmark;

const FILE: &str = "switchover";

/// What has been done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// The server is about to be stopped, or was.
    Begun,
    /// The other site is the master.
    Handed,
    /// This site receives: all is done.
    Done,
}

const STEPS: [(Step, &str); 3] = [(Step::Begun, "begun"), (Step::Handed, "handed"), (Step::Done, "done")];

/// The line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Journal {
    pub(super) step: Step,
    /// The site that becomes the master.
    pub(super) to: String,
    /// Of which epoch.
    pub(super) epoch: u64,
    /// Where both logs end, once that is proven: what the point of no return was passed on. Not known of one that was
    /// passed by an earlier version.
    pub(super) end: Option<Bookmark>,
}

impl Journal {
    fn print(&self) -> String {
        let step = STEPS.iter().find(|(step, _)| *step == self.step).map_or("", |(_, name)| name);
        let end = self.end.map(|end| format!(" end={end}")).unwrap_or_default();
        let facts = format!("v=1 step={step} to={} epoch={}{end}", word(&self.to), self.epoch);
        format!("{facts} crc={:08x}\n", crc32c::crc32c(facts.as_bytes()))
    }

    fn parse(text: &str) -> Option<Journal> {
        (pairs::get(text, "v")? == "1").then_some(())?;
        let name = pairs::get(text, "step")?;
        let step = STEPS.iter().find(|(_, known)| *known == name).map(|(step, _)| *step)?;
        let end = pairs::get(text, "end").map(|end| end.parse()).transpose().ok()?;
        let journal = Journal { step, to: pairs::get(text, "to")?, epoch: pairs::count(text, "epoch")?, end };
        (text == journal.print()).then_some(journal)
    }

    /// Keeps it, durably.
    pub(super) fn write(&self, state: &Dir) -> Result<()> {
        state.replace(FILE, self.print().as_bytes())
    }

    /// Reads it.
    pub(super) fn read(state: &Dir) -> Result<Option<Journal>> {
        let Some(bytes) = state.read_small(FILE, 1024)? else {
            return Ok(None);
        };
        match std::str::from_utf8(&bytes).ok().and_then(Journal::parse) {
            None => fail(Code::Corrupt, format!("{} is damaged", state.shown(FILE))),
            journal => Ok(journal),
        }
    }

    /// It never was.
    pub(super) fn forget(state: &Dir) -> Result<()> {
        if state.identity(FILE)?.is_some() {
            state.remove(FILE)?;
            state.sync()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_step_is_read_back_and_no_other_is() {
        let root = tempfile::tempdir().unwrap();
        let state = Dir::open(root.path()).unwrap();
        assert_eq!(Journal::read(&state).unwrap(), None);
        for (step, _) in STEPS {
            for end in [None, Some("1-2:13+0123456789abcdef".parse().unwrap())] {
                let journal = Journal { step, to: "north sea".into(), epoch: 7, end };
                journal.write(&state).unwrap();
                assert_eq!(Journal::read(&state).unwrap(), Some(journal));
            }
        }
        // As it is out in the world.
        let handed = "v=1 step=handed to=north%20sea epoch=7 crc=aab1abc3\n";
        std::fs::write(root.path().join(FILE), handed).unwrap();
        let journal = Journal { step: Step::Handed, to: "north sea".into(), epoch: 7, end: None };
        assert_eq!((Journal::read(&state).unwrap(), journal.print().as_str()), (Some(journal.clone()), handed));
        std::fs::write(root.path().join(FILE), "v=1 step=done to=a epoch=7 crc=00000000\n").unwrap();
        assert!(Journal::read(&state).is_err());
        Journal::forget(&state).unwrap();
        assert_eq!(Journal::read(&state).unwrap(), None);
    }
}
