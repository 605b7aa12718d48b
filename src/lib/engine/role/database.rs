//! The database of a site, and how it is stopped, started, promoted and demoted: by the operator's commands, or by the
//! engine's own.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;

use crate::edge::dir::{Dir, shown};
use crate::edge::hook::Hook;
use crate::edge::user::User;
use crate::engine::sync::marker;
use crate::engine::sync::profile::Profile;
use crate::engine::sync::server::{Commands, Server};
use crate::value::exit::{Code, Failure};
use crate::value::position::Position;

/// Ends the recovery of a standby, and waits until it takes writes. One that is promoted already has no such file.
const PROMOTE: &str = r#"[ -e "$REPL_DIR/standby.signal" ] || exit 0
v=$(tr -cd 0-9. <"$REPL_DIR/PG_VERSION"); PATH=/usr/lib/postgresql/$v/bin:/usr/pgsql-$v/bin:$PATH
exec pg_ctl promote -w -t "$REPL_TIMEOUT" -D "$REPL_DIR""#;
/// What every directory of a PostgreSQL server has, and no archive of its log.
const DATABASE: &str = "PG_VERSION";
/// What makes a server of PostgreSQL follow.
const STANDBY: &str = "standby.signal";

/// A site's database.
#[derive(Clone, Debug)]
pub struct Database {
    /// Its kind.
    pub profile: Profile,
    /// Its directory.
    pub dir: PathBuf,
    /// How its server is stopped and started, and whether it runs.
    pub commands: Commands,
    /// Makes it a master.
    pub promote: Option<String>,
    /// Prepares it to receive.
    pub demote: Option<String>,
}

impl Database {
    /// Its server; what was done to it is recorded in the state directory.
    pub(super) fn server(&self, state: &Dir) -> Result<Server> {
        Server::new(self.profile, self.commands.clone(), state, &self.dir, "switchover")
    }

    /// Refuses (13) a database of which nobody has said how it is stopped, or started again.
    pub(super) fn can_stop(&self) -> Result<()> {
        let defaults = self.profile.defaults(false);
        let missing = |told: &Option<String>, default: Option<&str>| told.is_none() && default.is_none();
        for (key, is_missing) in [
            ("stop", missing(&self.commands.stop, defaults.stop)),
            ("start", missing(&self.commands.start, defaults.start)),
        ] {
            if is_missing {
                let text = format!("nothing says how to {key} the server of {}", shown(&self.dir));
                return Err(Failure::new(Code::Guarded, text).hint(format!("{key} = \"CMD\" in [server]")).into());
            }
        }
        Ok(())
    }

    /// Refuses (13) a database that cannot be made a master now, and a directory that has none, such as an archive.
    pub(super) fn can_lead(&self) -> Result<()> {
        if self.promote.is_some() {
            return Ok(());
        }
        let place = shown(&self.dir);
        if self.profile != Profile::Postgres {
            self.can_tell()?;
            if self.commands.start.is_some() || self.profile.defaults(false).start.is_some() {
                return Ok(());
            }
            let text = format!("nothing says how the server of {place} is started");
            return Err(Failure::new(Code::Guarded, text).hint("start = \"CMD\" in [server]").into());
        }
        let dir = Dir::open(&self.dir)?;
        if dir.identity(DATABASE)?.is_none() {
            let text = format!("{place} is no database directory: log alone cannot become the master");
            return Err(Failure::new(Code::Guarded, text).hint("datadir = \"DIR\" names a standby's").into());
        }
        if dir.identity(STANDBY)?.is_none() || self.profile.server(&dir)?.is_some() {
            return Ok(());
        }
        let text = format!("no server runs on {place}: there is nothing to promote");
        Err(Failure::new(Code::Guarded, text).hint("start the standby, or promote = \"CMD\" in [server]").into())
    }

    /// Refuses (13) an environment of Berkeley DB where nothing would show a process that uses it: recovery makes the
    /// shared regions anew, and what it does on the old ones then is lost.
    fn can_tell(&self) -> Result<()> {
        let is_told = self.profile != Profile::Bdb || self.commands.status.is_some();
        if is_told || self.profile.shows_use(&self.dir) || self.profile.user(&Dir::open(&self.dir)?)?.is_some() {
            return Ok(());
        }
        let text = format!("nothing tells whether {} is in use, and it would be recovered", shown(&self.dir));
        Err(Failure::new(Code::Guarded, text).hint("status = \"CMD\" in [server], or promote = \"CMD\"").into())
    }

    /// Makes it a master that runs, with all log that is held. What was done already is not done again.
    pub(super) fn lead(&self, state: &Dir, held: Option<Position>, values: &[(&str, String)]) -> Result<()> {
        if let Some(held) = held.filter(|_| self.profile == Profile::Postgres) {
            self.catch_up(state, held)?;
        }
        if let Some(promote) = &self.promote {
            return self.hook("promote", promote).run(&self.values(values));
        }
        if self.profile == Profile::Postgres {
            let owner = User::owner(&self.dir)?;
            self.hook("promote", PROMOTE).run_as(owner.as_ref(), &self.values(values))?;
            // One that we have stopped ourselves is no standby, and down.
            return self.server(state)?.bring_back(&|| marker::guard(&self.dir));
        }
        let mut server = self.server(state)?;
        self.can_tell()?;
        if self.profile == Profile::Bdb && server.settle()? {
            // It was started before we could say so.
            return Ok(());
        }
        server.recover(&self.dir)?;
        server.start(&|| marker::guard(&self.dir)).map(drop)
    }

    /// A standby looks for a new timeline when it starts, and then each `wal_retrieve_retry_interval`. One that is promoted
    /// before it has found the last one goes on from where that began, without any of it. Which one it has found shows in
    /// its control file, from the next restartpoint on: where it does not, the standby is started again.
    fn catch_up(&self, state: &Dir, held: Position) -> Result<()> {
        let dir = Dir::open(&self.dir)?;
        if dir.identity(STANDBY)?.is_none() {
            return Ok(());
        }
        let mut server = self.server(state)?;
        let found = self.profile.facts(&dir)?.place.map(|(timeline, _)| timeline);
        if found.is_none_or(|found| found < held.segment.generation) && self.profile.server(&dir)?.is_some() {
            server.stop()?;
        }
        // Also one that an earlier run has stopped.
        server.bring_back(&|| marker::guard(&self.dir))
    }

    /// Prepares it to follow, whoever starts it.
    pub(super) fn demote(&self, values: &[(&str, String)]) -> Result<()> {
        if let Some(demote) = &self.demote {
            return self.hook("demote", demote).run(&self.values(values));
        }
        if self.profile == Profile::Postgres {
            Dir::open(&self.dir)?.replace(STANDBY, b"")?;
        }
        Ok(())
    }

    /// Starts one that follows, where a server that follows can run; one of another engine must be down, and stays it.
    pub(super) fn follow(&self, state: &Dir) -> Result<()> {
        let mut server = self.server(state)?;
        if self.profile != Profile::Postgres {
            server.confirm_down()?;
            return server.leave_down();
        }
        let dir = Dir::open(&self.dir)?;
        if self.demote.is_none() && dir.identity(STANDBY)?.is_none() && self.profile.server(&dir)?.is_some() {
            let text = format!("the server that runs on {} does not follow: it was promoted", shown(&self.dir));
            return Err(Failure::new(Code::Guarded, text).hint("stop it; then run this again").into());
        }
        server.bring_back(&|| marker::guard(&self.dir))
    }

    /// One that was only just prepared to follow, and is to lead after all: no server has run on it as a standby.
    pub(super) fn lead_again(&self, state: &Dir, values: &[(&str, String)]) -> Result<()> {
        let dir = Dir::open(&self.dir)?;
        let is_ours = self.demote.is_none() && self.profile == Profile::Postgres;
        if is_ours && dir.identity(STANDBY)?.is_some() && self.profile.server(&dir)?.is_none() {
            dir.remove(STANDBY)?;
            dir.sync()?;
        }
        self.lead(state, None, values)
    }

    fn hook(&self, name: &'static str, command: &str) -> Hook {
        Hook { name, command: command.to_owned(), timeout: Some(self.commands.timeout) }
    }

    fn values<'a>(&self, more: &[(&'a str, String)]) -> Vec<(&'a str, String)> {
        let dir = std::path::absolute(&self.dir).unwrap_or_else(|_| self.dir.clone());
        let timeout = self.timeout().as_secs().max(1).to_string();
        let own = [
            ("REPL_DIR", dir.to_string_lossy().into_owned()),
            ("REPL_ENGINE", self.profile.to_string()),
            ("REPL_TIMEOUT", timeout),
        ];
        own.into_iter().chain(more.iter().cloned()).collect()
    }

    fn timeout(&self) -> Duration {
        self.commands.timeout
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::{Command, Stdio};

    use super::*;
    use crate::value::exit::code_of;

    fn database(profile: Profile, dir: PathBuf, start: Option<&str>) -> Database {
        let none = || None;
        let (stop, status, check, run_as, dsn) = (none(), none(), none(), none(), none());
        let timeout = Duration::from_millis(300);
        let commands = Commands { stop, start: start.map(str::to_owned), status, check, run_as, dsn, timeout };
        Database { profile, dir, commands, promote: None, demote: None }
    }

    /// Another process that writes to a file there, as a receiver does below a standby's directory.
    fn writing<T>(file: &std::path::Path, meanwhile: impl FnOnce() -> T) -> T {
        let mut writer =
            Command::new("cat").stdin(Stdio::piped()).stdout(fs::File::create(file).unwrap()).spawn().unwrap();
        let done = meanwhile();
        drop(writer.stdin.take());
        writer.wait().unwrap();
        done
    }

    #[test]
    fn log_alone_and_a_standby_that_does_not_run_cannot_lead_whoever_writes_there() {
        let root = tempfile::tempdir().unwrap();
        let postgres = database(Profile::Postgres, root.path().to_owned(), None);
        let refused = || {
            let error = writing(&root.path().join("writes"), || postgres.can_lead()).unwrap_err();
            assert_eq!(code_of(&error), Code::Guarded);
            error.to_string()
        };
        assert!(refused().contains("log alone cannot become the master"));
        fs::write(root.path().join(DATABASE), "15").unwrap();
        fs::write(root.path().join(STANDBY), "").unwrap();
        assert!(refused().contains("no server runs on"));
        // One that was promoted already.
        fs::remove_file(root.path().join(STANDBY)).unwrap();
        postgres.can_lead().unwrap();
        let plain = database(Profile::Plain, root.path().to_owned(), None);
        assert_eq!(code_of(&plain.can_lead().unwrap_err()), Code::Guarded);
        database(Profile::Plain, root.path().to_owned(), Some("true")).can_lead().unwrap();
    }

    #[test]
    fn who_only_has_a_file_open_below_an_environment_is_not_its_server() {
        let root = tempfile::tempdir().unwrap();
        for name in ["home", "state"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        let (home, state) = (root.path().join("home"), Dir::open(&root.path().join("state")).unwrap());
        let environment = database(Profile::Bdb, home.clone(), Some("true"));
        let settled = || environment.server(&state).unwrap().settle();
        assert!(!settled().unwrap());
        let error = writing(&home.join("monitor.out"), settled).unwrap_err();
        assert_eq!(code_of(&error), Code::Guarded);
    }
}
