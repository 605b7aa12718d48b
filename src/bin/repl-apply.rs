//! Reads a log stream, lands it, and optionally feeds a database. See repl-apply(1).

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, Parser, ValueEnum};
use clap_complete::Shell;

use repl::cli::args::{self, Log, Talk};
use repl::cli::{narrate, report, restrict};
use repl::edge::bell::Bell;
use repl::edge::dir::Dir;
use repl::edge::hook::Hook;
use repl::edge::link::{self, Inlet};
use repl::edge::signal::Stop;
use repl::engine::apply::feed::{self, Each};

use repl::engine::apply::{self, Back, Differing, Sync};
use repl::value::exit::{Code, fail};
use repl::value::units;

const NAME: &str = "repl-apply";

/// Read a log stream from repl-ship, land it in LOGDIR, and acknowledge what is durable
#[derive(Parser, Debug)]
#[command(name = NAME, version, help_expected = true)]
struct Args {
    /// Directory to land segments in; made with mode 0700 if it is missing
    #[arg(value_name = "LOGDIR", required_unless_present_any = ["restrict", "completions"])]
    logdir: Option<PathBuf>,

    #[command(flatten)]
    log: Log,

    /// Name of the set that is taken; others are refused
    #[arg(long, value_name = "NAME", value_parser = args::name)]
    set: Option<String>,

    /// Name of this site, for the greeting
    #[arg(long, value_name = "NAME", value_parser = args::name)]
    site: Option<String>,

    /// Print what is held as a bookmark ('oldest' for nothing) and exit
    #[arg(long)]
    position: bool,

    /// Print a greeting and acknowledgements on standard output
    #[arg(long, conflicts_with = "position")]
    acks: bool,

    /// Keep logs only: refuse to feed a database
    #[arg(long, conflicts_with = "feed")]
    logs_only: bool,

    /// Never change, set aside or remove anything that exists
    #[arg(long, conflicts_with = "set_aside")]
    append_only: bool,

    /// Run this command to apply what is durable, with REPL_* in its environment
    #[arg(long, value_name = "CMD")]
    feed: Option<String>,

    /// Feed each closed 'segment', each 'boundary', or after each interval such as 10s
    #[arg(long, value_name = "WHEN", default_value = "segment", value_parser = each)]
    feed_each: Each,

    /// End a feed that takes longer than this
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = units::positive_duration)]
    feed_timeout: Duration,

    /// Feed log only when it is this old
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = units::duration, requires = "feed")]
    delay: Duration,

    /// Wait with feeding while this command fails
    #[arg(long, value_name = "CMD", requires = "feed")]
    gate: Option<String>,

    /// Move this replica's own diverged tail to .repl/set-aside and go on
    #[arg(long)]
    set_aside: bool,

    /// Take a directory that has foreign files in it
    #[arg(long)]
    adopt: bool,

    /// When to make durable: after each frame, all that arrived meanwhile, or each closed segment
    #[arg(long, value_name = "WHEN", value_enum, default_value_t = SyncArg::Batch)]
    sync: SyncArg,

    /// Serve a forced command: take LOGDIR, below ROOT, and harmless options from SSH_ORIGINAL_COMMAND
    #[arg(long, value_name = "ROOT")]
    restrict: Option<PathBuf>,

    /// Keep state in this directory instead of LOGDIR/.repl
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,

    /// Take the sender for dead after this long without a frame
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = units::positive_duration)]
    timeout: Duration,

    /// Why, for the site's history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,

    #[command(flatten)]
    talk: Talk,

    /// Print completions for a shell and exit
    #[arg(long, value_name = "SHELL", exclusive = true)]
    completions: Option<Shell>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SyncArg {
    /// After each frame
    Each,
    /// All that arrived meanwhile
    Batch,
    /// Each closed segment
    Segment,
}

fn each(text: &str) -> Result<Each, String> {
    match text {
        "segment" => Ok(Each::Segment),
        "boundary" => Ok(Each::Boundary),
        interval => units::positive_duration(interval).map(Each::Interval),
    }
}

fn main() -> ExitCode {
    report::exit(NAME, run(Args::parse()))
}

fn run(mut args: Args) -> Result<()> {
    if let Some(shell) = args.completions {
        return args::completions(Args::command(), shell);
    }
    let dir = match args.restrict.take() {
        Some(root) => {
            let directory = asked(&mut args, &root)?;
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
    receive(&dir, &args)
}

/// Merges what the peer asked for into the forced command's own options; returns the directory below the root.
fn asked(args: &mut Args, root: &Path) -> Result<PathBuf> {
    let given = args.logdir.take();
    let Some(line) = std::env::var_os("SSH_ORIGINAL_COMMAND") else {
        return given
            .context("no SSH_ORIGINAL_COMMAND and no LOGDIR")
            .or_else(|error| fail(Code::Usage, error.to_string()));
    };
    let root = std::path::absolute(root).context("cannot use ROOT")?;
    let asked = restrict::parse(&line.to_string_lossy(), NAME, &root)?;
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

fn receive(dir: &Dir, args: &Args) -> Result<()> {
    let feed = match &args.feed {
        Some(command) if command == "default" => {
            return fail(Code::Usage, "this engine has no default feed; name a command");
        }
        Some(_) if args.logs_only => return fail(Code::Usage, "--logs-only does not go with --feed"),
        Some(command) => {
            let hook =
                |name, command: &String, timeout| Hook { name, command: command.clone(), timeout: Some(timeout) };
            Some(feed::Options {
                command: hook("feed", command, args.feed_timeout),
                each: args.feed_each,
                delay: args.delay,
                gate: args.gate.as_ref().map(|gate| hook("gate", gate, Duration::from_secs(60))),
            })
        }
        None => None,
    };
    let options = apply::Options {
        scheme: args.log.scheme()?,
        set: args.set.clone(),
        site: args.site.clone().unwrap_or_default(),
        state: args.state.clone(),
        append_only: args.append_only,
        differing: if args.set_aside { Differing::SetAside } else { Differing::Refused },
        adopt: args.adopt,
        sync: match args.sync {
            SyncArg::Each => Sync::Each,
            SyncArg::Batch => Sync::Batch,
            SyncArg::Segment => Sync::Segment,
        },
        feed,
        reason: args.reason.clone(),
    };
    let stop = Stop::catch(Bell::new()).context("cannot catch signals")?;
    let input = Inlet::new(link::stream_input()?, args.timeout, Some(stop.clone()));
    let timeout = args.timeout;
    let back = args.acks.then(|| Box::new(move |line: &_| link::print_line(&format!("{line}"), timeout)) as Back);
    apply::run(dir, input, back, &options, &stop, &narrate::monitor(NAME, &args.talk))
}
