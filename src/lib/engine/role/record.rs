//! What a site has been told to be, in its state directory: `role`. Without one, the site is what its log directory shows.

use std::fmt;

use anyhow::Result;

use crate::edge::dir::Dir;
use crate::value::escape::word;
use crate::value::exit::{Code, Failure};
use crate::value::pairs;

const FILE: &str = "role";

/// What a site is for its set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its database is written to, and ships.
    Master,
    /// It takes log, and ships none.
    Receiver,
}

impl Role {
    /// Reads its name.
    pub fn parse(text: &str) -> Option<Role> {
        match text {
            "master" => Some(Role::Master),
            "receiver" => Some(Role::Receiver),
            _ => None,
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Role::Master => "master",
            Role::Receiver => "receiver",
        })
    }
}

/// The content of `role`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What it is.
    pub role: Role,
    /// Its own name.
    pub site: String,
    /// Since which epoch.
    pub epoch: u64,
}

impl Record {
    fn print(&self) -> String {
        let Record { role, site, epoch } = self;
        let facts = format!("v=1 role={role} site={} epoch={epoch}", word(site));
        format!("{facts} crc={:08x}\n", crc32c::crc32c(facts.as_bytes()))
    }

    fn parse(text: &str) -> Option<Record> {
        if pairs::get(text, "v")? != "1" {
            return None;
        }
        let role = Role::parse(&pairs::get(text, "role")?)?;
        let record = Record { role, site: pairs::get(text, "site")?, epoch: pairs::count(text, "epoch")? };
        // To the byte as it is written: what is damaged must not make a master.
        (text == record.print()).then_some(record)
    }

    /// Keeps it, durably.
    pub fn write(&self, state: &Dir) -> Result<()> {
        state.replace(FILE, self.print().as_bytes())
    }
}

/// Reads it; `None` when the site was never told.
pub fn read(state: &Dir) -> Result<Option<Record>> {
    let Some(bytes) = state.read_small(FILE, 1024)? else {
        return Ok(None);
    };
    let parsed = std::str::from_utf8(&bytes).ok().and_then(Record::parse);
    parsed.map(Some).ok_or_else(|| Failure::new(Code::Corrupt, format!("{} is damaged", state.shown(FILE))).into())
}
