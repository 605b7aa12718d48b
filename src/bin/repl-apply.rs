//! Reads a log stream, lands it, and optionally feeds a database. See repl-apply(1).

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, Parser as _};

use repl::cli::alert::{self, Alarm};
use repl::cli::apply::Args;
use repl::cli::config::Line;
use repl::cli::restrict::{self, Question};
use repl::cli::{args, narrate, report};
use repl::edge::bell::Bell;
use repl::edge::dir::Dir;
use repl::edge::link::{self, Inlet};
use repl::edge::signal::Stop;
use repl::engine::apply::{self, Back};
use repl::value::exit::{Code, fail};

const NAME: &str = "repl-apply";

fn main() -> ExitCode {
    alert::start(NAME, |args: &Args| (&args.alerts, &args.talk), run)
}

fn run(line: Line<Args>, alarm: &Alarm) -> Result<()> {
    let Line { mut args, file, .. } = line;
    if let Some(shell) = args.completions {
        return args::completions(Args::command(), shell);
    }
    let dir = match args.restrict.take() {
        Some(root) => {
            if let (Some(question), Some(file)) = (question(file.as_deref())?, &file) {
                return question.answer(file, &root);
            }
            let directory = asked(&mut args, &root, file.as_deref())?;
            let root = Dir::open(&root)?;
            if args.position && root.open_beneath(&directory, false).is_err_and(|error| is_missing(&error)) {
                return report::print(b"oldest\n");
            }
            root.open_beneath(&directory, !args.position)?
        }
        None => {
            let logdir = args.logdir.clone().unwrap_or_default();
            if args.position && !logdir.exists() {
                return report::print(b"oldest\n");
            }
            if args.position { Dir::open(&logdir)? } else { Dir::create(&logdir)? }
        }
    };
    if args.position {
        let at = apply::position(&dir, args.state.as_deref())?;
        return report::print(format!("{at}\n").as_bytes());
    }
    alarm.about(|| args.about(&dir));
    receive(&dir, &args, alarm)
}

/// What a peer asks instead of shipping.
fn question(file: Option<&Path>) -> Result<Option<Question>> {
    match std::env::var_os("SSH_ORIGINAL_COMMAND") {
        Some(line) => Question::parse(&line.to_string_lossy(), file),
        None => Ok(None),
    }
}

/// Merges what the peer asked for into the forced command's own options; returns the directory below the root.
fn asked(args: &mut Args, root: &Path, file: Option<&Path>) -> Result<PathBuf> {
    let given = args.logdir.take();
    let Some(line) = std::env::var_os("SSH_ORIGINAL_COMMAND") else {
        return given
            .context("no SSH_ORIGINAL_COMMAND and no LOGDIR")
            .or_else(|error| fail(Code::Usage, error.to_string()));
    };
    let root = std::path::absolute(root).context("cannot use ROOT")?;
    let given = match given {
        Some(given) if given.is_absolute() => Some(restrict::below(&given.to_string_lossy(), &root)?),
        given => given,
    };
    let asked = restrict::parse(&line.to_string_lossy(), NAME, &root)?;
    restrict::same(asked.config.as_deref(), file)?;
    let words = [NAME.to_owned()].into_iter().chain(asked.options).chain(["--".to_owned(), ".".to_owned()]);
    let wire =
        Args::try_parse_from(words).or_else(|error| fail(Code::Usage, format!("refused by --restrict: {error}")))?;
    args.acks |= wire.acks;
    args.position |= wire.position;
    args.logs_only |= wire.logs_only;
    args.talk.verbose |= wire.talk.verbose;
    args.talk.quiet |= wire.talk.quiet;
    args.log.engine = args.log.engine.or(wire.log.engine);
    args.log.pattern = args.log.pattern.take().or(wire.log.pattern);
    match (given, asked.directory) {
        (Some(given), Some(asked)) if given != asked => {
            fail(Code::Fenced, format!("this key may write to {} only", given.display()))
        }
        (Some(directory), _) | (None, Some(directory)) => Ok(directory),
        (None, None) => fail(Code::Usage, "refused by --restrict: no LOGDIR is named"),
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

fn receive(dir: &Dir, args: &Args, alarm: &Alarm) -> Result<()> {
    let options = args.options()?;
    let stop = Stop::catch(Bell::new()).context("cannot catch signals")?;
    let input = Inlet::new(link::stream_input()?, args.timeout, Some(stop.clone()));
    let timeout = args.timeout;
    let back = args.acks.then(|| Box::new(move |line: &_| link::print_line(&format!("{line}"), timeout)) as Back);
    let monitor = alarm.watch(narrate::monitor(NAME, &args.talk));
    apply::run(dir, input, back, &options, &stop, &monitor)
}
