//! A running MariaDB server that is made to hold still, and proven to have.
//!
//! No statement makes `InnoDB` stop writing: with `BACKUP STAGE BLOCK_COMMIT` its page cleaner, its purge and its circular
//! log go on. (Of copies made meanwhile one of four did not start when pages were read in pieces; by whole pages none of
//! eight failed, which is luck and no promise: the log is circular, and its checkpoint moves.) With a read lock on everything and a checkpoint
//! that has written all pages back there is nothing left to write; but that nothing more comes is nobody's promise. So
//! it is measured: the whole directory must show the same stamps before the first byte is read and after the last one.
//! What was read in between is then all of one instant, as if the server had been killed there, and `InnoDB` recovers from
//! that. If anything changed, the copy does not count.
//!
//! The lock is a session's: it goes when the session does, whatever ends us.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::Settings;
use crate::edge::coprocess::Coprocess;
use crate::edge::program::Program;
use crate::edge::stillness::Stillness;
use crate::value::escape::show;
use crate::value::exit::{Code, Failure, fail};

/// Where the server may have parts of what a copy needs.
const PLACES: [&str; 4] =
    ["@@innodb_data_home_dir", "@@innodb_log_group_home_dir", "@@innodb_undo_directory", "@@aria_log_dir_path"];
/// Without it there is no way to have all pages written back.
const CHECKPOINT: &str = "innodb_log_checkpoint_now";

/// Its threads in the background wake up once a second.
const CALM: Duration = Duration::from_millis(1300);

/// A server that is locked.
#[derive(Debug)]
pub struct Mariadb {
    settings: Settings,
    session: Option<Coprocess>,
    still: Option<Stillness>,
}

impl Mariadb {
    pub(super) fn new(settings: Settings) -> Mariadb {
        Mariadb { settings, session: None, still: None }
    }

    pub(super) fn begin(&mut self) -> Result<()> {
        self.lock().context("cannot have the source's server hold still")
    }

    fn lock(&mut self) -> Result<()> {
        let mut args: Vec<_> = self.settings.dsn.iter().map(|file| format!("--defaults-file={file}")).collect();
        args.extend(["--batch", "--skip-column-names", "--unbuffered", "--skip-reconnect"].map(str::to_owned));
        let mut program = Program::new("mariadb", args, self.settings.timeout);
        program.user = self.settings.user()?;
        let mut session = Coprocess::start(&program, &[])?;
        self.check_places(&mut session)?;
        let seconds = self.settings.timeout.as_secs().max(1);
        // Most is written back before anybody has to wait.
        for statement in [
            format!("set session lock_wait_timeout = {seconds}"),
            format!("set global {CHECKPOINT} = on"),
            "flush tables with read lock".to_owned(),
            format!("set global {CHECKPOINT} = on"),
        ] {
            if session.ask(&format!("{statement}; select 'done';"))? != "done" {
                return fail(Code::Hook, format!("the server does not say that it is done with: {statement}"));
            }
        }
        let dirty = "select variable_value from information_schema.global_status \
                     where variable_name = 'innodb_buffer_pool_pages_dirty';";
        let still = Stillness::wait(&self.settings.source, &is_counted, CALM, self.settings.timeout, &mut || {
            let is_clean = session.ask(dirty)? == "0";
            if !is_clean {
                session.ask(&format!("set global {CHECKPOINT} = on; select 'done';"))?;
            }
            Ok(is_clean)
        })?;
        if still.is_none() {
            return Err(self.settings.refuse("it goes on writing though it is locked").into());
        }
        (self.session, self.still) = (Some(session), still);
        Ok(())
    }

    /// Whether it is the server of the source, and has all of it there.
    fn check_places(&self, session: &mut Coprocess) -> Result<()> {
        let known = session.ask(&format!(
            "select count(*) from information_schema.system_variables where variable_name = '{CHECKPOINT}';"
        ))?;
        if known != "1" {
            let why = format!("it is of a version without {CHECKPOINT}");
            return Err(self.settings.refuse(&why).into());
        }
        let there = session.ask("select @@datadir;")?;
        let source = self.settings.source.canonicalize().context("cannot find the source")?;
        if Path::new(&there).canonicalize().ok().as_deref() != Some(&source) {
            let text = format!("the server that was asked has its data in {}, and not in the source", show(&there));
            return Err(Failure::new(Code::Guarded, text).hint("--dsn says which server it is: an option file").into());
        }
        for place in PLACES {
            let path = session.ask(&format!("select ifnull({place}, '');"))?;
            let inside =
                path.is_empty() || source.join(&path).canonicalize().is_ok_and(|path| path.starts_with(&source));
            if !inside {
                let why = format!("a part of it lies elsewhere, {place} is {}", show(&path));
                return Err(self.settings.refuse(&why).into());
            }
        }
        Ok(())
    }

    pub(super) fn release(&mut self) -> Result<()> {
        let (Some(mut session), Some(still)) = (self.session.take(), self.still.take()) else {
            return fail(Code::Failed, "the source's server is not locked");
        };
        let now = Stillness::look(&self.settings.source, &is_counted)?;
        // That it still had the lock until now is what this proves.
        if session.ask("unlock tables; select 'done';")? != "done" {
            return fail(Code::Hook, "the server does not say that it was locked");
        }
        session.finish()?;
        if now == still {
            return Ok(());
        }
        let why = format!("it wrote to {} though it was locked", now.newest());
        Err(self.settings.refuse(&why).into())
    }
}

/// All that is copied: not the temporary tables, nor the log for people.
fn is_counted(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    !(name.starts_with("ibtmp")
        || name.starts_with("#sql-temptable-")
        || name.starts_with(".repl")
        || [".err", ".pid", ".sock"].iter().any(|end| name.ends_with(end))
        || name == "error.log")
}
