//! SQLite databases, each with a writer's lock that a shell of the engine's own holds: readers go on, writers wait, and
//! nobody can begin the write-ahead log anew.

use anyhow::{Context as _, Result};

use super::Settings;
use crate::edge::coprocess::Coprocess;
use crate::edge::dir::Dir;
use crate::edge::program::Program;
use crate::engine::sync::profile::sqlite_databases;
use crate::value::exit::{Code, fail};

/// How long another writer is waited for, in milliseconds.
const BUSY: u64 = 60_000;

/// Locks on all databases of a directory.
#[derive(Debug)]
pub struct Sqlite {
    settings: Settings,
    held: Vec<Coprocess>,
}

impl Sqlite {
    pub(super) fn new(settings: Settings) -> Sqlite {
        Sqlite { settings, held: Vec::new() }
    }

    pub(super) fn begin(&mut self) -> Result<()> {
        let dir = Dir::open(&self.settings.source)?;
        // In one order for all: two of us never wait for each other.
        for name in sqlite_databases(&dir)? {
            let lock = self.lock(&name).with_context(|| format!("cannot lock {}", dir.shown(&name)))?;
            self.held.push(lock);
        }
        Ok(())
    }

    fn lock(&self, name: &str) -> Result<Coprocess> {
        let path = std::path::absolute(self.settings.source.join(name))?;
        let args = ["-batch".into(), "-bail".into(), path.into_os_string()];
        let mut program = Program::new("sqlite3", args, self.settings.timeout);
        program.user = self.settings.user()?;
        let mut shell = Coprocess::start(&program, &[])?;
        shell.say(&format!(".timeout {BUSY}"))?;
        match shell.ask("begin immediate; select 'held';")?.as_str() {
            "held" => Ok(shell),
            _ => fail(Code::Hook, "sqlite3 does not say that it has the lock"),
        }
    }

    pub(super) fn release(&mut self) -> Result<()> {
        for mut shell in self.held.drain(..) {
            // That it still had the lock until now is what this proves.
            if shell.ask("rollback; select 'free';")? != "free" {
                return fail(Code::Hook, "sqlite3 does not say that it had the lock");
            }
            shell.finish()?;
        }
        Ok(())
    }
}
