//! A PostgreSQL backup by the low-level interface: one session from its start to its end, since it ends with the
//! session. A temporary replication slot of the same session keeps the log that belongs to the copy until that is read,
//! and is gone with the session as well.

use anyhow::{Context as _, Result};

use super::Settings;
use crate::edge::coprocess::Coprocess;
use crate::edge::program::Program;
use crate::engine::sync::profile::{LABEL, TABLESPACES};
use crate::value::exit::{Code, Failure, fail};
use crate::value::name::Name;

/// The least version, as `server_version_num` has it: earlier ones have other names for the functions.
const VERSION: u64 = 150_000;

/// A backup of a running server.
#[derive(Debug)]
pub struct Postgres {
    settings: Settings,
    session: Option<Coprocess>,
    slot: String,
}

impl Postgres {
    /// Of the server that the settings tell of; it is not asked yet.
    pub(super) fn new(settings: Settings) -> Result<Postgres> {
        if let Some(dsn) = &settings.dsn
            && let Err(why) = crate::engine::postgres::check_dsn(dsn)
        {
            return fail(Code::Usage, why);
        }
        Ok(Postgres { settings, session: None, slot: format!("repl_sync_{}", std::process::id()) })
    }

    pub(super) fn begin(&mut self) -> Result<()> {
        self.start().context("cannot begin a backup at the source")
    }

    fn start(&mut self) -> Result<()> {
        let fixed = ["-X", "-w", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1"];
        let dsn = self.settings.dsn.iter().flat_map(|dsn| ["-d", dsn.as_str()]);
        let mut program = Program::new("psql", fixed.into_iter().chain(dsn), self.settings.timeout);
        program.user = self.settings.user()?;
        let mut session = Coprocess::start(&program, &[])?;
        let version = session.ask("select current_setting('server_version_num');")?;
        if version.parse().is_ok_and(|version: u64| version < VERSION) {
            return fail(Code::Guarded, "the source's server is older than 15: copy it while it is stopped");
        }
        // In bytes both as the server and as a tool says it; a path may lead through links.
        let there = session.ask("select current_setting('data_directory');")?;
        let same = |path: &str| std::fs::canonicalize(path).ok();
        if same(&there).is_some_and(|there| Some(there) != self.settings.source.canonicalize().ok()) {
            let text = format!("the server that was asked has its data in {there}, and not in the source");
            return Err(Failure::new(Code::Guarded, text).hint("--dsn says which server it is").into());
        }
        let slot = &self.slot;
        session.ask(&format!("select 'kept' from pg_create_physical_replication_slot('{slot}', true, true);"))?;
        // At once, and not at the leisure of the next checkpoint.
        session.ask("select pg_backup_start('repl-sync', true);")?;
        self.session = Some(session);
        Ok(())
    }

    pub(super) fn stop(&mut self) -> Result<Vec<(Name, Vec<u8>)>> {
        let files = self.label().context("cannot end the backup at the source")?;
        let name = |file: &str| Name::root().join(file.as_bytes());
        let [label, tablespaces] = files;
        let mut laid = vec![(name(LABEL), label)];
        if !tablespaces.is_empty() {
            laid.push((name(TABLESPACES), tablespaces));
        }
        Ok(laid)
    }

    fn label(&mut self) -> Result<[Vec<u8>; 2]> {
        let session = self.session()?;
        // What waits for the archive would wait for a server that has none; the log is copied by us.
        let line = session.ask(
            "select encode(convert_to(labelfile, 'UTF8'), 'hex') || ' ' || \
             encode(convert_to(coalesce(spcmapfile, ''), 'UTF8'), 'hex') from pg_backup_stop(false);",
        )?;
        let parts = line.split_once(' ').and_then(|(label, map)| Some([hexadecimal(label)?, hexadecimal(map)?]));
        match parts {
            Some([label, map]) if !label.is_empty() => Ok([label, map]),
            _ => fail(Code::Hook, "psql does not say what the backup's label is"),
        }
    }

    pub(super) fn release(&mut self) -> Result<()> {
        let slot = self.slot.clone();
        let kept = self.session()?.ask(&format!(
            "select coalesce(max(wal_status), 'lost') from pg_replication_slots where slot_name = '{slot}';"
        ))?;
        if kept == "lost" {
            let text = "the server removed log that belongs to the copy while it was read";
            return Err(Failure::new(Code::Failed, text).hint("raise max_slot_wal_keep_size, and run it again").into());
        }
        match self.session.take() {
            Some(session) => session.finish(),
            None => Ok(()),
        }
    }

    fn session(&mut self) -> Result<&mut Coprocess> {
        self.session.as_mut().context("no backup has begun")
    }
}

fn hexadecimal(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes().chunks(2);
    digits.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}
