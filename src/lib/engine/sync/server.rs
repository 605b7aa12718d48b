//! The destination's server: stopped once for the last pass, and started once when the directory is whole again, the old
//! one or the new.
//!
//! A kill must not make us forget that it was we who stopped it, or stop it twice. So what is about to be done is
//! recorded, durably, before it is done: `stopping` before the stop command, `stopped` behind it, `starting` before the
//! start command, and the record is removed once the server is up. A later run reads the record. What it finds it does
//! not believe blindly, since the operator may have been there: the server itself is looked at first.
//!
//! No byte in the directory may be touched while something still uses it, whatever the stop command has said: the
//! status command, the engine's own signs (locks, its file of the process), and files that others have open for writing
//! are all asked.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::profile::Profile;
use crate::edge::clock;
use crate::edge::dir::{Dir, shown};
use crate::edge::hook::Hook;
use crate::edge::user::User;
use crate::value::escape::word;
use crate::value::exit::{Code, Failure, fail};
use crate::value::pairs;

/// The record in the state directory.
const RECORD: &str = "run";
const RECORD_MAX: u64 = 1 << 12;
/// What the start command and the server printed.
const OUTPUT: &str = "start.log";
/// How long files may still be in use after the stop command has said that it is done.
const GRACE: Duration = Duration::from_secs(10);

/// What the operator has told about the server. All of them run by `/bin/sh -c`.
#[derive(Clone, Debug)]
pub struct Commands {
    /// Stops it and waits for its end.
    pub stop: Option<String>,
    /// Starts it.
    pub start: Option<String>,
    /// Exit status 0 when it runs, another when it does not (as `pg_ctl status` and `systemctl is-active` have it).
    pub status: Option<String>,
    /// Whether it works; run after it was started.
    pub check: Option<String>,
    /// Whom they run as when we are root.
    pub run_as: Option<String>,
    /// How the engine's own commands reach the server, where they need that.
    pub dsn: Option<String>,
    /// How long each may take.
    pub timeout: Duration,
}

/// How far a stop or a start has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Stopping,
    Stopped,
    Starting,
}

const PHASES: [(Phase, &str); 3] =
    [(Phase::Stopping, "stopping"), (Phase::Stopped, "stopped"), (Phase::Starting, "starting")];

/// What is seen of the server.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Sight {
    /// It runs: what says so.
    Runs(String),
    /// It does not.
    Down,
    /// Nothing tells.
    Unknown,
}

/// One command: the operator's, or the engine's own.
#[derive(Clone, Debug)]
struct Act {
    hook: Hook,
    /// The engine's own refuse root, and run as who owns the directory.
    is_default: bool,
}

/// The server of a destination.
#[derive(Debug)]
pub struct Server {
    profile: Profile,
    commands: Commands,
    state: Dir,
    destination: PathBuf,
    /// Names this run in the record.
    run: String,
    phase: Option<Phase>,
}

impl Server {
    /// The server of `destination`; `state` is the destination's state directory, whose record of an earlier run counts.
    pub fn new(profile: Profile, commands: Commands, state: &Dir, destination: &Path, run: &str) -> Result<Server> {
        let phase = match state.read_small(RECORD, RECORD_MAX)? {
            None => None,
            Some(bytes) => {
                let text = String::from_utf8_lossy(&bytes);
                let name = pairs::get(&text, "phase").unwrap_or_default();
                let known = PHASES.iter().find(|(_, known)| *known == name).map(|(phase, _)| *phase);
                let Some(phase) = known else {
                    return fail(Code::Corrupt, format!("{} says nothing that is known", state.shown(RECORD)));
                };
                Some(phase)
            }
        };
        let (state, destination, run) = (state.try_clone()?, destination.to_owned(), run.to_owned());
        Ok(Server { profile, commands, state, destination, run, phase })
    }

    /// Whether we have stopped it, or an earlier run has, and nobody has started it since.
    pub fn was_stopped_by_us(&self) -> bool {
        self.phase.is_some()
    }

    /// Whether it is probably going to be stopped, or was already.
    pub fn will_stop(&self) -> Result<bool> {
        Ok(self.commands.stop.is_some() || self.phase.is_some() || self.is_seen()?)
    }

    /// Refuses (13) to stop a server that, started again by the engine's own command, would be a second master.
    pub fn guard_role(&self) -> Result<()> {
        if self.commands.start.is_some() || !self.destination.exists() {
            return Ok(());
        }
        let dir = Dir::open(&self.destination)?;
        let will_run = self.phase.is_some() || self.is_seen()?;
        if !will_run || !self.profile.leads(&dir)? {
            return Ok(());
        }
        let place = shown(&self.destination);
        let text =
            format!("{place} is no standby: started on a copy of the source, its server would be a second master");
        Err(Failure::new(Code::Guarded, text)
            .hint(format!("touch {place}/standby.signal makes it a standby; --start CMD starts it in any other way"))
            .into())
    }

    /// Stops the server if it runs, and makes sure that nothing uses the directory any more; else an error, 13 where a
    /// server still runs.
    pub fn stop(&mut self) -> Result<()> {
        let sight = self.look()?;
        let must_run = match (&sight, self.phase) {
            (Sight::Runs(_), _) => true,
            // Not by us, and so not ours to start again, unless it was us before.
            (Sight::Down, _) | (Sight::Unknown, Some(Phase::Stopped)) => false,
            (Sight::Unknown, _) => self.act("stop").is_some(),
        };
        if !must_run {
            return if self.phase.is_some() { self.record(Phase::Stopped) } else { Ok(()) };
        }
        let Some(stop) = self.act("stop") else {
            return Err(self.in_use(&sight).into());
        };
        self.record(Phase::Stopping)?;
        self.run(&stop)?;
        self.record(Phase::Stopped)?;
        match self.look_until_down()? {
            Sight::Runs(who) => Err(self.in_use(&Sight::Runs(who)).into()),
            Sight::Down | Sight::Unknown => Ok(()),
        }
    }

    /// Whether nothing uses the directory, asked again right before its first byte is touched.
    pub fn confirm_down(&self) -> Result<()> {
        match self.look()? {
            sight @ Sight::Runs(_) => Err(self.in_use(&sight).into()),
            Sight::Down | Sight::Unknown => Ok(()),
        }
    }

    /// Whether it runs, as the status command says, or the engine's own signs where there is none: who only has a file open
    /// there is no server. Others are waited for, since what an earlier run has begun may still be at work.
    pub fn settle(&self) -> Result<bool> {
        let deadline = Instant::now() + GRACE.min(self.commands.timeout);
        loop {
            let says = self.ask_status()?;
            if says.map_or_else(|| self.is_seen(), Ok)? {
                return Ok(true);
            }
            let sight = self.look_when(says)?;
            if !matches!(sight, Sight::Runs(_)) {
                return Ok(false);
            }
            if Instant::now() >= deadline {
                return Err(self.in_use(&sight).into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Starts the server on the new directory: if we have stopped it, or if the operator has said how to start it. `guard`
    /// is asked first whether the directory may be used. False when there was nothing to start.
    pub fn start(&mut self, guard: &dyn Fn() -> Result<()>) -> Result<bool> {
        if self.phase.is_none() && self.commands.start.is_none() {
            return Ok(false);
        }
        guard()?;
        let Some(start) = self.act("start") else {
            self.forget()?;
            return Ok(false);
        };
        self.launch(&start)?;
        Ok(true)
    }

    /// Starts the server again on the old directory, which was not touched, if we have stopped it and it does not run.
    pub fn bring_back(&mut self, guard: &dyn Fn() -> Result<()>) -> Result<()> {
        let Some(phase) = self.phase else {
            return Ok(());
        };
        // A stop that failed may have left it running. After one that succeeded, whoever has files open is no sign of it.
        let runs = match phase {
            Phase::Stopped => self.ask_status()?.unwrap_or(false) || self.is_seen()?,
            _ => matches!(self.look()?, Sight::Runs(_)),
        };
        if runs {
            return self.forget();
        }
        self.start(guard).map(|_| ())
    }

    /// Runs the check command, if there is one.
    pub fn check(&self) -> Result<()> {
        match self.act("check") {
            Some(check) => self.run(&check),
            None => Ok(()),
        }
    }

    /// Makes a copy whole that was taken of a running source, where the engine's own server would not: `dir` is the stage,
    /// or the destination.
    pub fn recover(&self, dir: &Path) -> Result<()> {
        let Some(command) = self.profile.defaults(self.commands.dsn.is_some()).recover else {
            return Ok(());
        };
        let hook = Hook { name: "recover", command: command.to_owned(), timeout: Some(self.commands.timeout) };
        hook.run_as(User::owner(dir)?.as_ref(), &self.values("recover", dir))
    }

    fn launch(&mut self, start: &Act) -> Result<()> {
        if self.phase.is_some() {
            self.record(Phase::Starting)?;
        }
        let output = self.output()?;
        let started = start.hook.launch(self.user(start)?.as_ref(), &self.values("start", &self.destination), &output);
        if started.is_err() && self.phase.is_some() {
            // It is still ours to start: by the next run, or by the operator.
            self.record(Phase::Stopped)?;
        }
        started?;
        if start.is_default && self.profile.shows_use(&self.destination) && self.look()? == Sight::Down {
            let printed = self.state.shown(OUTPUT);
            return fail(Code::Hook, format!("the server ended after it was started: see {printed}"));
        }
        self.forget()
    }

    /// A new file each time: a server that runs writes to that of its own start.
    fn output(&self) -> Result<File> {
        if self.state.identity(OUTPUT)?.is_some() {
            self.state.remove(OUTPUT)?;
        }
        self.state.create_new(OUTPUT)
    }

    /// It stays down, and is nobody's of ours to start any more.
    pub fn leave_down(&mut self) -> Result<()> {
        self.forget()
    }

    fn record(&mut self, phase: Phase) -> Result<()> {
        let name = PHASES.iter().find(|(known, _)| *known == phase).map_or("", |(_, name)| name);
        let line = format!("v=1 phase={name} since={} run={}\n", word(&clock::now().to_string()), word(&self.run));
        self.state.replace(RECORD, line.as_bytes())?;
        self.phase = Some(phase);
        Ok(())
    }

    fn forget(&mut self) -> Result<()> {
        if self.phase.take().is_some() {
            self.state.remove(RECORD)?;
            self.state.sync()?;
        }
        Ok(())
    }

    fn act(&self, point: &'static str) -> Option<Act> {
        let defaults = self.profile.defaults(self.commands.dsn.is_some());
        let (told, default) = match point {
            "stop" => (&self.commands.stop, defaults.stop),
            "start" => (&self.commands.start, defaults.start),
            "status" => (&self.commands.status, None),
            _ => (&self.commands.check, None),
        };
        let (command, is_default) = match (told, default) {
            (Some(told), _) => (told.clone(), false),
            (None, default) => (default?.to_owned(), true),
        };
        let hook = Hook { name: point, command, timeout: Some(self.commands.timeout) };
        Some(Act { hook, is_default })
    }

    fn user(&self, act: &Act) -> Result<Option<User>> {
        match &self.commands.run_as {
            Some(name) => User::named(name),
            None if act.is_default => User::owner(&self.destination),
            None => Ok(None),
        }
    }

    fn run(&self, act: &Act) -> Result<()> {
        act.hook.run_as(self.user(act)?.as_ref(), &self.values(act.hook.name, &self.destination))
    }

    fn values(&self, point: &str, dir: &Path) -> Vec<(&'static str, String)> {
        let dir = std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned());
        let mut values = vec![
            ("REPL_DIR", dir.to_string_lossy().into_owned()),
            ("REPL_ENGINE", self.profile.to_string()),
            ("REPL_POINT", point.to_owned()),
            ("REPL_RUN", self.run.clone()),
            ("REPL_TIMEOUT", self.commands.timeout.as_secs().max(1).to_string()),
        ];
        values.extend(self.commands.dsn.iter().map(|dsn| ("REPL_DSN", dsn.clone())));
        values
    }

    /// What the status command says, if there is one.
    fn ask_status(&self) -> Result<Option<bool>> {
        let Some(status) = self.act("status") else {
            return Ok(None);
        };
        let user = self.user(&status)?;
        let answer = status.hook.ask(user.as_ref(), &self.values("status", &self.destination))?;
        Ok(Some(answer == 0))
    }

    fn look(&self) -> Result<Sight> {
        if !self.destination.exists() {
            return Ok(Sight::Down);
        }
        self.look_when(self.ask_status()?)
    }

    /// The same with what the status command has said.
    fn look_when(&self, says: Option<bool>) -> Result<Sight> {
        if says == Some(true) {
            return Ok(Sight::Runs("the status command says so".to_owned()));
        }
        let dir = Dir::open(&self.destination)?;
        Ok(match self.profile.user(&dir).context("cannot see whether a server runs")? {
            Some(who) => Sight::Runs(format!("{who} uses it")),
            None if says.is_some() || self.profile.shows_use(&self.destination) => Sight::Down,
            None => Sight::Unknown,
        })
    }

    /// Whether the engine's own signs tell of a server, and not only files that somebody has open.
    fn is_seen(&self) -> Result<bool> {
        Ok(self.destination.exists() && self.profile.server(&Dir::open(&self.destination)?)?.is_some())
    }

    fn look_until_down(&self) -> Result<Sight> {
        let deadline = Instant::now() + GRACE.min(self.commands.timeout);
        loop {
            let sight = self.look()?;
            if !matches!(sight, Sight::Runs(_)) || Instant::now() >= deadline {
                return Ok(sight);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn in_use(&self, sight: &Sight) -> Failure {
        let who = if let Sight::Runs(who) = sight { who.as_str() } else { "nothing says that it does not" };
        let text = format!("a server still runs on {}: {who}", shown(&self.destination));
        Failure::new(Code::Guarded, text).hint("--stop CMD and --start CMD say how it is stopped and started")
    }
}

#[cfg(test)]
mod tests;
