//! Reads a log directory and ships it. See repl-ship(1).

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::CommandFactory as _;
use clap::parser::ValueSource;

use repl::cli::alert::Alarm;
use repl::cli::config::Line;
use repl::cli::ship::{self as ship_cli, Args};
use repl::cli::{args, config, narrate};
use repl::edge::bell::Bell;
use repl::edge::dir::Dir;
use repl::edge::link;
use repl::edge::signal::{Stop, Wish};
use repl::engine::log;
use repl::engine::note::{Monitor, Note};
use repl::engine::role::{self, pause::Direction};
use repl::engine::ship::ledger::Ledger;
use repl::engine::ship::status::About;
use repl::engine::ship::{self, Calls, Only, Options, Receiver, Shipping, Status, To};
use repl::rule::scheme::Scheme;
use repl::value::exit::{Code, Failure, code_of, fail};

const NAME: &str = "repl-ship";

fn main() -> ExitCode {
    let line: Line<Args> = match config::parse(NAME) {
        Ok(line) => line,
        Err(code) => return ExitCode::from(code as u8),
    };
    let alarm = Alarm::new(NAME, &line.args.alerts, &line.args.talk);
    alarm.exit(run(line, &alarm))
}

fn run(line: Line<Args>, alarm: &Alarm) -> Result<()> {
    let Line { args, matches, config, file: from_file, .. } = line;
    if let Some(shell) = args.completions {
        return args::completions(Args::command(), shell);
    }
    alarm.about(|| args.about());
    if args.heartbeat >= args.timeout {
        return fail(Code::Usage, "--timeout must be longer than --heartbeat");
    }
    let monitor = alarm.watch(narrate::monitor(NAME, &args.talk));
    let (logdir, file) = place(&args)?;
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
    let is_piped = args.acks.is_some() || matches.value_source("from") == Some(ValueSource::CommandLine);
    let is_told = is_piped || !args.via.is_empty() || !args.to.is_empty();
    let sites = config.as_ref().filter(|config| !is_told && !config.sites.is_empty());
    let receivers = match sites {
        Some(config) => ship_cli::sites(config, &set)?,
        None => receivers(&args)?,
    };
    let state = state(&args, &set, &logdir, &monitor)?;
    let mut ledger = Ledger::in_memory();
    let mut keeps_state = false;
    if let Some(state) = &state {
        match Ledger::open(state, &scheme) {
            Ok(kept) if only.is_some() => ledger = kept,
            Ok(kept) => {
                keeps_state = true;
                ledger = kept;
            }
            // Another sender keeps this state; what it remembers is not needed to ship.
            Err(error) if code_of(&error) == Code::Busy && args.state.is_none() => {
                monitor(Note::Detail(format!("{error:#}")));
            }
            Err(error) => return Err(error),
        }
    }
    let sender = role::sender(&dir, &scheme, state.as_ref())?;
    let of_set = set.clone();
    let reload = || read_again(&of_set);
    let site = config.as_ref().and_then(|config| config.site.clone()).unwrap_or_default();
    let options = Options { site, ..args.options(scheme, set, sender, only) };
    if let Some(state) = state.as_ref().filter(|_| options.once)
        && let Some(paused) = role::paused(state, Direction::Ship)?
    {
        return Err(paused.refusal(Code::Guarded, Direction::Ship, &dir).into());
    }
    let status = match state.as_ref().filter(|_| keeps_state) {
        Some(state) => Some(Status::open(state.try_clone()?, about(&options, &logdir))),
        None => None,
    };
    let bell = Bell::new();
    let is_reloaded = sites.is_some() && from_file.is_some() && !options.once;
    let (stop, reload) = if is_reloaded {
        let wish = Wish::reload(bell.clone()).context("cannot catch signals")?;
        (Stop::catch_but_hangup(bell.clone()), Some((wish, &reload as &ship::Read<'_>)))
    } else {
        (Stop::catch(bell.clone()), None)
    };
    let stop = stop.context("cannot catch signals")?;
    let look = Wish::look(bell.clone()).context("cannot catch signals")?;
    let calls = Calls { bell, stop: &stop, look, reload };
    let shipping = Shipping { ledger, status, release, state: state.as_ref(), calls, monitor: &monitor };
    ship::run(&dir, receivers, &options, shipping)
}

/// The sites as they are configured now.
fn read_again(set: &str) -> Result<Vec<Receiver>> {
    let line: Line<Args> = config::parse(NAME).or_else(|code| fail(code, "cannot use the configuration"))?;
    ship_cli::sites(&line.config.unwrap_or_default(), set)
}

/// To whom: commands, other machines, or the pipeline that the shell has built.
fn receivers(args: &Args) -> Result<Vec<Receiver>> {
    let receivers = args.receivers()?;
    if !receivers.is_empty() {
        return Ok(receivers);
    }
    if args.slot.is_some() || args.purge {
        return fail(Code::Usage, "--slot and --purge need a receiver that acknowledges: --via, --to or a [[site]]");
    }
    let to = match &args.acks {
        Some(fifo) => To::OutputWithAcks(link::stream_output()?, link::open_acks(fifo)?),
        None => To::Output(link::stream_output()?),
    };
    let acks = args.acks.is_some();
    Ok(vec![Receiver { acks, ..Receiver::new("standard output", to) }])
}

/// What the status tells of this sender.
fn about(options: &Options, logdir: &Path) -> About {
    About {
        log: std::fs::canonicalize(logdir).unwrap_or_else(|_| logdir.to_owned()).display().to_string(),
        scheme: options.scheme.clone(),
        set: options.set.clone(),
        site: options.site.clone(),
        epoch: options.epoch,
        heartbeat: options.heartbeat,
        ack_timeout: options.ack_timeout,
    }
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

/// The state directory: as told, or where it is by default if that can be had.
fn state(args: &Args, set: &str, logdir: &Path, monitor: &Monitor) -> Result<Option<Dir>> {
    if let Some(path) = &args.state {
        return Dir::create(path).map(Some);
    }
    let Some(path) = args::default_state(set, logdir) else {
        return Ok(None);
    };
    match Dir::create(&path) {
        Ok(dir) => Ok(Some(dir)),
        Err(error) => {
            monitor(Note::Detail(format!("{error:#}; no state is kept")));
            Ok(None)
        }
    }
}
