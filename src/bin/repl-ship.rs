//! Reads a log directory and ships it. See repl-ship(1).

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;

use repl::cli::alert::{self, Alarm};
use repl::cli::config::Line;
use repl::cli::ship::{Args, kept::Kept, receivers};
use repl::cli::{args, narrate};
use repl::edge::bell::Bell;
use repl::edge::dir::Dir;
use repl::edge::signal::{Stop, Wish};
use repl::engine::note::Note;
use repl::engine::ship::{self, Calls, Only, Options, Shipping, To};
use repl::engine::{log, role};
use repl::rule::scheme::Scheme;
use repl::value::exit::{Code, Failure, fail};

const NAME: &str = "repl-ship";

fn main() -> ExitCode {
    alert::start(NAME, |args: &Args| (&args.alerts, &args.talk), run)
}

fn run(line: Line<Args>, alarm: &Alarm) -> Result<()> {
    let args = &line.args;
    if let Some(shell) = args.completions {
        return args::completions(Args::command(), shell);
    }
    alarm.about(|| args.about());
    if args.heartbeat >= args.timeout {
        return fail(Code::Usage, "--timeout must be longer than --heartbeat");
    }
    let monitor = alarm.watch(narrate::monitor(NAME, &args.talk));
    let (logdir, file) = place(args)?;
    let dir = Dir::open(&logdir)?;
    let (scheme, pinned) = log::scheme_of(&dir, args.log.kind()?, None)?;
    let set = args.set.clone().or(pinned).unwrap_or_default();
    let warning = log::warning(&dir, &scheme)?;
    let release = args.release(&scheme, warning.as_deref())?;
    if let Some(warning) = warning {
        monitor(Note::Warning(warning));
    }
    let only = file.map(|file| only(&scheme, file)).transpose()?;
    if let Some(path) = args.segment.as_ref().filter(|path| !path.exists()) {
        return fail(Code::Failed, format!("cannot open {}: there is no such file", path.display()));
    }
    let receivers = receivers::of(&line, &set)?;
    let kept = Kept::open(args, &scheme, &set, &logdir, &monitor)?;
    let sender = role::sender(&dir, &scheme, kept.state.as_ref())?;
    let site = line.config.as_ref().and_then(|config| config.site.clone()).unwrap_or_default();
    let options = Options { site, ..args.options(scheme, set, sender, only) };
    kept.check_pause(&options, &dir)?;
    let read = || receivers::read_again(NAME, &options.set);
    // One in a pipe has a terminal or a shell that ends it so.
    let is_kept_up = receivers.iter().all(|receiver| matches!(receiver.to, To::Via(_)));
    let is_read_again = line.file.is_some() && is_kept_up && !options.once;
    let bell = Bell::new();
    let (stop, look, reload) = signals(&bell, is_read_again).context("cannot catch signals")?;
    let reload = reload.map(|reload| (reload, &read as &ship::Read<'_>));
    let calls = Calls { bell, stop: &stop, look, reload };
    let status = kept.status(&options, &logdir)?;
    let Kept { state, ledger, .. } = kept;
    let shipping = Shipping { ledger, status, release, state: state.as_ref(), calls, monitor: &monitor };
    ship::run(&dir, receivers, &options, shipping)
}

/// What signals ask for: an end, a look, and, where there is a configuration to read again, that.
fn signals(bell: &Bell, is_read_again: bool) -> std::io::Result<(Stop, Wish, Option<Wish>)> {
    let look = Wish::look(bell.clone())?;
    if is_read_again {
        return Ok((Stop::catch_but_hangup(bell.clone())?, look, Some(Wish::reload(bell.clone())?)));
    }
    Ok((Stop::catch(bell.clone())?, look, None))
}

/// The log directory, and the file name that `--segment` gives.
fn place(args: &Args) -> Result<(PathBuf, Option<String>)> {
    let Some(path) = &args.segment else {
        return Ok((args.logdir.clone().unwrap_or_default(), None));
    };
    let name = path.file_name().and_then(|name| name.to_str()).context("--segment does not name a file")?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((parent.to_owned(), Some(name.to_owned())))
}

fn only(scheme: &Scheme, name: String) -> Result<Only> {
    if scheme.is_aux(&name) {
        return Ok(Only::Aux(name));
    }
    let segment = scheme.segment(&name).or_else(|| scheme.segment_aside(&name));
    segment.map(Only::Segment).ok_or_else(|| {
        Failure::new(Code::Usage, format!("{name} is not a segment of engine {}", scheme.engine())).into()
    })
}
