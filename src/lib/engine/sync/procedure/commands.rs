//! The operator's own way to have the source hold still: a command before the last pass, and one behind it, which runs
//! in any case once the first one was begun.
//!
//! A source that stays frozen is a master that is down. So both are run by a shell of our own that outlives us: it runs
//! the first, waits for a word from us, and then runs the second; and if we are killed, the end of its input is the word.

use anyhow::{Context as _, Result};

use super::Settings;
use crate::edge::coprocess::Coprocess;
use crate::edge::hook::Hook;
use crate::edge::program::Program;
use crate::edge::user::User;
use crate::value::exit::{Code, Failure};

/// What the commands print is its standard error, and their exit statuses are its lines. No signal ends it in between;
/// the commands get the usual meanings of signals back. When nobody is left to read, they write to nobody.
const KEEPER: &str = r#"
trap '' PIPE HUP INT TERM
run() { (trap - PIPE HUP INT TERM; export REPL_POINT="$1"; exec /bin/sh -c "$2") </dev/null; }
run freeze "$REPL_FREEZE" >&2; echo $?
if read -r word; then run thaw "$REPL_THAW" >&2; echo $?; else run thaw "$REPL_THAW" >/dev/null 2>&1; fi
"#;

/// A freeze and its thaw.
#[derive(Debug)]
pub struct Commands {
    settings: Settings,
    user: Option<User>,
    keeper: Option<Coprocess>,
}

impl Commands {
    pub(super) fn new(settings: Settings) -> Result<Commands> {
        let user = settings.run_as.as_deref().map(User::named).transpose()?.flatten();
        Ok(Commands { settings, user, keeper: None })
    }

    pub(super) fn begin(&mut self) -> Result<()> {
        let mut program = Program::new("/bin/sh", ["-c", KEEPER], self.settings.timeout);
        program.user.clone_from(&self.user);
        let mut values = self.values()?;
        let command = |told: &Option<String>| told.clone().unwrap_or_else(|| ":".to_owned());
        values.push(("REPL_FREEZE", command(&self.settings.freeze)));
        values.push(("REPL_THAW", command(&self.settings.thaw)));
        let mut keeper = Coprocess::start(&program, &values)?;
        let status = match keeper.hear() {
            Ok(status) => status,
            Err(error) => {
                // It was ended with whatever it ran.
                drop(keeper);
                return Err(self.thaw_after(named(error, "freeze")));
            }
        };
        if status == "0" {
            self.keeper = Some(keeper);
            return Ok(());
        }
        // It may have done half of it.
        let thawed = thaw(keeper);
        let printed = thawed.as_deref().unwrap_or("see above");
        let failed = anyhow::Error::from(Failure::new(
            Code::Hook,
            format!("the freeze command exited with {status}: {printed}"),
        ));
        Err(match thawed {
            Ok(_) => failed,
            Err(second) => failed.context(format!("{second:#}")),
        })
    }

    pub(super) fn release(&mut self) -> Result<()> {
        self.keeper.take().map_or(Ok(()), |keeper| thaw(keeper).map(drop))
    }

    /// The thaw, where the keeper is gone.
    fn thaw_after(&self, error: anyhow::Error) -> anyhow::Error {
        let Some(command) = self.settings.thaw.clone() else {
            return error;
        };
        let thaw = Hook { name: "thaw", command, timeout: Some(self.settings.timeout) };
        let run = || {
            let mut values = self.values()?;
            values.push(("REPL_POINT", "thaw".to_owned()));
            thaw.run_as(self.user.as_ref(), &values)
        };
        match run() {
            Ok(()) => error,
            Err(second) => error.context(still_frozen(&format!("{second:#}"))),
        }
    }

    fn values(&self) -> Result<Vec<(&'static str, String)>> {
        let source = std::path::absolute(&self.settings.source).context("cannot tell where the source is")?;
        let mut values = vec![
            ("REPL_DIR", source.to_string_lossy().into_owned()),
            ("REPL_ENGINE", self.settings.profile.to_string()),
        ];
        values.extend(self.settings.dsn.iter().map(|dsn| ("REPL_DSN", dsn.clone())));
        Ok(values)
    }
}

/// Has the keeper run the thaw; returns what both commands have printed, which is all there once it has ended.
fn thaw(mut keeper: Coprocess) -> Result<String> {
    match keeper.ask("thaw") {
        Ok(status) if status == "0" => keeper.last_words(),
        Ok(status) => {
            let printed = keeper.last_words()?;
            Err(still_frozen(&format!("the thaw command exited with {status}: {printed}")).into())
        }
        Err(error) => Err(still_frozen(&format!("{:#}", named(error, "thaw"))).into()),
    }
}

impl Drop for Commands {
    fn drop(&mut self) {
        // Whoever drops it has an error of their own to tell.
        let _ = self.release();
    }
}

/// The keeper's errors are those of the command that it ran.
fn named(error: anyhow::Error, command: &str) -> anyhow::Error {
    error.context(Failure::new(Code::Hook, format!("the {command} command did not come to its end")))
}

fn still_frozen(why: &str) -> Failure {
    Failure::new(Code::Hook, format!("{why}; the source may still be frozen"))
        .hint("run the thaw command at the source by hand")
}
