//! Which instance ships into a directory: one in each epoch. The first that comes is pinned. Another one is a clone of it,
//! or a second master, and either would mix its log with what is here, so it is refused until a new epoch says that there
//! is a new master, or the operator says so here.

use anyhow::Result;

use super::{Site, damaged};
use crate::edge::dir::Dir;
use crate::rule::instance::Instance;
use crate::rule::stream::hello::Hello;
use crate::value::exit::{Code, Failure};
use crate::value::pairs;

/// Its file.
const FILE: &str = "instance";

/// Who ships here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Master {
    /// By what it said of itself last.
    pub instance: Instance,
    /// In which epoch.
    pub epoch: u64,
}

impl Master {
    fn print(&self) -> String {
        let facts = format!("v=1 instance={} epoch={}", self.instance, self.epoch);
        format!("{facts} crc={:08x}\n", crc32c::crc32c(facts.as_bytes()))
    }

    fn parse(text: &str) -> Option<Master> {
        if pairs::get(text, "v")? != "1" {
            return None;
        }
        let instance = Instance::parse(&pairs::get(text, "instance")?)?;
        let master = Master { instance, epoch: pairs::count(text, "epoch")? };
        // To the byte as it is written: a fence with a flipped bit would keep the right one out.
        (text == master.print()).then_some(master)
    }

    /// Whether a sender is another instance in the same epoch. One that does not say what it is may be the same.
    pub fn is_another(&self, hello: &Hello) -> bool {
        self.epoch == hello.epoch && hello.instance.as_ref().is_some_and(|instance| !instance.is(&self.instance))
    }

    /// Why such a sender is refused.
    pub fn refusal(&self) -> Failure {
        let text = format!(
            "the sender is another instance than the one that ships here in epoch {}: a copy of that server, or a second \
             master",
            self.epoch
        );
        Failure::new(Code::Fenced, text)
            .hint(
            "if it is the master now: repl-role init --master --epoch N there, with N above that; or run this repl-apply \
             once with --adopt --reason TEXT",
        )
    }
}

/// Reads it; `None` before a sender has said what it is.
pub fn read(state: &Dir) -> Result<Option<Master>> {
    let Some(bytes) = state.read_small(FILE, 512)? else {
        return Ok(None);
    };
    let parsed = std::str::from_utf8(&bytes).ok().and_then(Master::parse);
    parsed.map(Some).ok_or_else(|| damaged(state, FILE))
}

impl Site {
    /// Keeps who ships, after its beginning was proven. One that was told to take the other's place is recorded first.
    pub fn set_master(&mut self, master: &Master, reason: Option<&str>) -> Result<()> {
        let before = read(&self.dir)?;
        if before.as_ref() == Some(master) {
            return Ok(());
        }
        if let Some(before) = before.filter(|before| before.epoch == master.epoch)
            && !before.instance.is(&master.instance)
        {
            let detail = format!("instance {} ships here instead of {}", master.instance, before.instance);
            self.record("adopt", &detail, reason)?;
        }
        self.dir.replace(FILE, master.print().as_bytes())
    }
}
