//! Calls somebody when a command that runs for long is in trouble, or ends with an error: `--on-error CMD`.
//!
//! The work never waits for it. What has failed goes to a thread of its own, and what that remembers on disk is for the
//! sake of the one who is called: without it, a command that is started again every ten seconds would call every ten
//! seconds. Only the end of the process waits, for one time-out at most: a supervisor kills what is left of a service that
//! has ended, and the call that says why it ended would be the one that is lost.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use clap::{Args, CommandFactory, FromArgMatches};
use parking_lot::Mutex;

use super::args::Talk;
use super::config::{self, Line};
use super::report;
use crate::edge::clock;
use crate::edge::dir::Dir;
use crate::edge::hook::Hook;
use crate::engine::note::{Monitor, Note, Trouble};
use crate::engine::site;
use crate::rule::alert::Calls;
use crate::value::escape::show;
use crate::value::exit::code_of;
use crate::value::units;

/// How long the command may take.
const LIMIT: Duration = Duration::from_secs(60);
/// Where calls are remembered, in the state directory.
const FILE: &str = "alerts";
/// What that may be.
const LONGEST: u64 = 1 << 16;

/// Whom to call.
#[derive(Args, Clone, Debug, Default)]
pub struct Alerts {
    /// Run this command when a link or a feed fails, and when this command ends with an error; its environment says why
    #[arg(long, value_name = "CMD")]
    pub on_error: Option<String>,

    /// Run it once in this time at most for the same kind of trouble, also over restarts
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = units::positive_duration, requires = "on_error")]
    pub on_error_every: Duration,
}

/// What a command is about, as far as it is known.
pub struct About {
    /// Name of the set; may be empty.
    pub set: String,
    /// Name of this site; may be empty.
    pub site: String,
    /// The log directory.
    pub logdir: PathBuf,
    /// Opens the state directory, where there is one.
    pub state: Box<dyn Fn() -> Option<Dir> + Send + Sync>,
}

/// Calls for one command. Without `--on-error` it does nothing.
pub struct Alarm {
    command: &'static str,
    caller: Option<Arc<Caller>>,
    worker: Mutex<Option<Worker>>,
}

/// The thread that calls while the command works. `None` ends it.
type Worker = (Sender<Option<Trouble>>, JoinHandle<()>);

/// Which of the two somebody is called for.
#[derive(Clone, Copy)]
enum Event {
    /// Work goes on.
    Trouble,
    /// The command ends.
    End,
}

struct Caller {
    command: &'static str,
    hook: Hook,
    every: Duration,
    is_quiet: bool,
    about: OnceLock<About>,
    calls: Mutex<Calls>,
    /// From here on nothing is called for: the command ends.
    ends: OnceLock<Instant>,
}

/// Runs a command that somebody may be called for, with its command line, and reports.
pub fn start<A: CommandFactory + FromArgMatches>(
    command: &'static str,
    ordered: impl FnOnce(&A) -> (&Alerts, &Talk),
    run: impl FnOnce(Line<A>, &Alarm) -> Result<()>,
) -> ExitCode {
    let line = match config::parse(command) {
        Ok(line) => line,
        Err(code) => return ExitCode::from(code as u8),
    };
    let (alerts, talk) = ordered(&line.args);
    let alarm = Alarm::new(command, alerts, talk);
    alarm.exit(run(line, &alarm))
}

impl Alarm {
    /// An alarm as it was ordered.
    fn new(command: &'static str, alerts: &Alerts, talk: &Talk) -> Alarm {
        let caller = alerts.on_error.clone().map(|ordered| {
            Arc::new(Caller {
                command,
                hook: Hook { name: "on-error", command: ordered, timeout: Some(LIMIT) },
                every: alerts.on_error_every,
                is_quiet: talk.quiet,
                about: OnceLock::new(),
                calls: Mutex::default(),
                ends: OnceLock::new(),
            })
        });
        Alarm { command, caller, worker: Mutex::default() }
    }

    /// From now on it is known what the command is about. Before that nobody is called: whoever gave a command line that
    /// is refused is told so, and one that comes over the wire could have anybody called at will.
    pub fn about(&self, about: impl FnOnce() -> About) {
        if let Some(caller) = &self.caller {
            // The first one stands.
            let _ = caller.about.set(about());
        }
    }

    /// A monitor that hears of trouble before this one does.
    pub fn watch(&self, monitor: Monitor) -> Monitor {
        let Some(caller) = self.caller.clone() else {
            return monitor;
        };
        let (told, troubles) = mpsc::channel();
        let worker = std::thread::spawn(move || caller.serve(&troubles));
        *self.worker.lock() = Some((told.clone(), worker));
        Arc::new(move |note| {
            if let Note::Trouble(trouble) = &note {
                // The thread lives as long as the command.
                let _ = told.send(Some(trouble.clone()));
            }
            monitor(note);
        })
    }

    /// Ends the command: its words, the call for its error, and the exit code, which no call changes.
    pub fn exit(&self, result: Result<()>) -> ExitCode {
        let last = result.as_ref().err().map(|error| Trouble {
            code: code_of(error),
            text: format!("{error:#}"),
            next: String::new(),
            site: None,
        });
        let code = report::exit(self.command, result);
        if let Some(caller) = &self.caller {
            let _ = caller.ends.set(Instant::now() + LIMIT);
            last.inspect(|last| caller.call(last, Event::End));
        }
        if let Some((told, worker)) = self.worker.lock().take() {
            let _ = told.send(None);
            // One that has panicked has called nobody; there is nothing left to do about it.
            let _ = worker.join();
        }
        code
    }
}

impl Caller {
    /// The thread.
    fn serve(&self, troubles: &Receiver<Option<Trouble>>) {
        while let Ok(Some(trouble)) = troubles.recv() {
            self.call(&trouble, Event::Trouble);
        }
    }

    /// Calls, if that is due.
    fn call(&self, trouble: &Trouble, event: Event) {
        let left = self.ends.get().map_or(LIMIT, |ends| ends.saturating_duration_since(Instant::now()));
        let Some(about) = self.about.get().filter(|_| !left.is_zero()) else {
            return;
        };
        let state = (about.state)();
        let Some(held) = self.due(state.as_ref(), trouble, event) else {
            return;
        };
        let values = self.values(about, state.as_ref(), trouble, event, held);
        let hook = Hook { timeout: Some(left), ..self.hook.clone() };
        if let (Err(error), false) = (hook.run(&values), self.is_quiet) {
            report::warn(self.command, &format!("{error:#}"));
        }
    }

    /// Whether a call is due, and how many were held back since the last one. What cannot be read or written is known to
    /// this process only.
    fn due(&self, state: Option<&Dir>, trouble: &Trouble, event: Event) -> Option<u64> {
        let kind = format!("{} {} {}", trouble.code.name(), event.name(), trouble.site.as_deref().unwrap_or_default());
        let mut calls = self.calls.lock();
        let kept = state.and_then(|state| state.read_small(FILE, LONGEST).ok().flatten());
        if let Some(kept) = kept {
            *calls = Calls::parse(&String::from_utf8_lossy(&kept));
        }
        let due = calls.due(kind.trim_end(), clock::now(), self.every);
        let _ = state.map(|state| state.replace(FILE, calls.print().as_bytes()));
        due
    }

    /// What the command is told. Foreign text is shown as in messages: it may go into the subject of a mail.
    fn values(
        &self,
        about: &About,
        state: Option<&Dir>,
        trouble: &Trouble,
        event: Event,
        held: u64,
    ) -> Vec<(&'static str, String)> {
        // A receiver may know the set from its sender.
        let pinned = || state.and_then(|state| site::origin(state).ok().flatten()).map(|origin| origin.set);
        let set = Some(about.set.clone()).filter(|set| !set.is_empty()).or_else(pinned).unwrap_or_default();
        vec![
            ("REPL_COMMAND", self.command.to_owned()),
            ("REPL_EVENT", event.name().to_owned()),
            ("REPL_CODE", (trouble.code as u8).to_string()),
            ("REPL_NAME", trouble.code.name().to_owned()),
            ("REPL_REASON", show(&trouble.text)),
            ("REPL_SET", show(&set)),
            ("REPL_SITE", show(trouble.site.as_deref().unwrap_or(&about.site))),
            ("REPL_LOGDIR", show(&about.logdir.to_string_lossy())),
            ("REPL_SUPPRESSED", held.to_string()),
        ]
    }
}

impl Event {
    fn name(self) -> &'static str {
        match self {
            Event::Trouble => "trouble",
            Event::End => "end",
        }
    }
}
