//! Reads a log directory and ships it. See repl-ship(1).

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{CommandFactory as _, Parser, ValueEnum};
use clap_complete::Shell;

use repl::cli::args::{self, Log, Talk};
use repl::cli::{narrate, report};
use repl::edge::bell::Bell;
use repl::edge::dir::Dir;
use repl::edge::link;
use repl::edge::signal::Stop;
use repl::engine::log;
use repl::engine::note::Note;
use repl::engine::ship::ledger::Ledger;
use repl::engine::ship::outlet::Compress;
use repl::engine::ship::{self, Ack, Options, Shipping, Status, To};
use repl::rule::scheme::Scheme;
use repl::value::exit::{Code, Failure, code_of, fail};
use repl::value::position::{Segment, Start};
use repl::value::time::Until;
use repl::value::units;

const NAME: &str = "repl-ship";

/// Read the log in LOGDIR and ship it to standard output, or to a command that is kept running
#[derive(Parser, Debug)]
#[command(name = NAME, version, help_expected = true)]
struct Args {
    /// Directory with the log; only read, never written to
    #[arg(value_name = "LOGDIR", required_unless_present_any = ["segment", "completions"], conflicts_with = "segment")]
    logdir: Option<PathBuf>,

    #[command(flatten)]
    log: Log,

    /// Name of the set, pinned by receivers
    #[arg(long, value_name = "NAME", value_parser = args::name)]
    set: Option<String>,

    /// Where to start in a one-way pipe: oldest, latest, or what 'repl-apply --position' printed
    #[arg(long, value_name = "POS", default_value = "oldest", conflicts_with_all = ["via", "acks"])]
    from: Start,

    /// Ship all that is complete and exit
    #[arg(short = 'S', long)]
    once: bool,

    /// Ship this one finished segment and exit when it is acknowledged, as an archive command does
    #[arg(long, value_name = "PATH")]
    segment: Option<PathBuf>,

    /// Start this command as the receiver, read its acknowledgements, and keep it running
    #[arg(long, value_name = "CMD", conflicts_with = "acks")]
    via: Option<String>,

    /// Read the receiver's acknowledgements from this fifo
    #[arg(long, value_name = "FIFO")]
    acks: Option<PathBuf>,

    /// Which acknowledgements -S and --segment wait for
    #[arg(long, value_name = "POLICY", value_enum, default_value_t = AckArg::All)]
    ack: AckArg,

    /// How long to wait for them
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = units::positive_duration)]
    ack_timeout: Duration,

    /// Give a failing link up after this long (with -S and --segment; else it is retried for ever)
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = units::duration)]
    retry_for: Duration,

    /// Compress: auto (where it pays), zstd, zstd:LEVEL, or none
    #[arg(long, value_name = "HOW", default_value = "auto", value_parser = compress)]
    compress: Compress,

    /// Bytes per second at most, with K, M or G
    #[arg(long, value_name = "RATE", value_parser = units::rate)]
    bwlimit: Option<u64>,

    /// Ship whole transactions only
    #[arg(long)]
    commit_only: bool,

    /// Ship up to this time or position, then exit
    #[arg(long, value_name = "WHEN", value_parser = Until::parse)]
    until: Option<Until>,

    /// Look this often instead of being told of changes [default: told, and a look each second]
    #[arg(long, value_name = "TIME", value_parser = units::positive_duration)]
    poll: Option<Duration>,

    /// Ship bytes that may not be on this machine's disk yet
    #[arg(long)]
    no_sync_source: bool,

    /// Time between heartbeats
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = units::positive_duration)]
    heartbeat: Duration,

    /// Take the receiver for dead after this long without a word
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = units::positive_duration)]
    timeout: Duration,

    /// Keep state (status, digests of shipped segments) in this directory
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,

    #[command(flatten)]
    talk: Talk,

    /// Print completions for a shell and exit
    #[arg(long, value_name = "SHELL", exclusive = true)]
    completions: Option<Shell>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum AckArg {
    /// Wait for none
    None,
    /// One receiver
    One,
    /// A majority of all sites, this one included
    Quorum,
    /// All receivers
    All,
    /// All that are connected
    AllAvailable,
}

fn compress(text: &str) -> Result<Compress, String> {
    match text.split_once(':') {
        None if text == "auto" => Ok(Compress::Auto),
        None if text == "none" => Ok(Compress::None),
        None if text == "zstd" => Ok(Compress::Zstd(3)),
        Some(("zstd", level)) => match level.parse() {
            Ok(level @ -7..=19) => Ok(Compress::Zstd(level)),
            _ => Err(format!("'{level}' is not a zstd level: expected -7 to 19")),
        },
        _ => Err("expected auto, zstd, zstd:LEVEL or none".to_owned()),
    }
}

fn main() -> ExitCode {
    report::exit(NAME, run(Args::parse()))
}

fn run(args: Args) -> Result<()> {
    if let Some(shell) = args.completions {
        return args::completions(Args::command(), shell);
    }
    if args.heartbeat >= args.timeout {
        return fail(Code::Usage, "--timeout must be longer than --heartbeat");
    }
    let monitor = narrate::monitor(NAME, &args.talk);
    let (logdir, file) = place(&args)?;
    let dir = Dir::open(&logdir)?;
    let (scheme, pinned) = log::scheme_of(&dir, args.log.scheme()?, None)?;
    let set = args.set.clone().or(pinned).unwrap_or_default();
    if let Some(warning) = log::warning(&dir, &scheme)? {
        monitor(Note::Warning(warning));
    }
    let only = file.map(|file| segment(&scheme, &file)).transpose()?;
    if let (Some(segment), Some(path)) = (only, &args.segment)
        && dir.identity(&scheme.name(segment))?.is_none()
    {
        return fail(Code::Failed, format!("cannot open {}: there is no such file", path.display()));
    }
    let to = match (&args.via, &args.acks) {
        (Some(command), _) => To::Via(command.clone()),
        (None, Some(fifo)) => To::OutputWithAcks(link::stream_output()?, link::open_acks(fifo)?),
        (None, None) => To::Output(link::stream_output()?),
    };
    let state = state(&args, &set, &logdir, &monitor)?;
    let mut ledger = Ledger::in_memory();
    let mut status = None;
    if let Some(state) = &state {
        match Ledger::open(state, &scheme) {
            Ok(kept) => {
                let receiver = args.via.as_deref().unwrap_or("standard output");
                let log = logdir.display().to_string();
                status = Some(Status::new(state.try_clone()?, &log, &scheme.engine().to_string(), &set, receiver));
                ledger = kept;
            }
            // Another sender keeps this state; what it remembers is not needed to ship.
            Err(error) if code_of(&error) == Code::Busy && args.state.is_none() => {
                monitor(Note::Detail(format!("{error:#}")));
            }
            Err(error) => return Err(error),
        }
    }
    let options = Options {
        epoch: log::epoch(&dir, state.as_ref())?,
        scheme,
        set,
        site: String::new(),
        from: match only {
            Some(segment) => Start::At(repl::value::position::Bookmark { position: segment.at(0), proof: None }),
            None => args.from,
        },
        once: args.once || only.is_some(),
        only,
        until: args.until,
        commit_only: args.commit_only,
        sync_source: !args.no_sync_source,
        compress: args.compress,
        bwlimit: args.bwlimit,
        poll: args.poll.unwrap_or(Duration::from_secs(1)),
        watch: args.poll.is_none(),
        ack: match args.ack {
            AckArg::None => Ack::None,
            AckArg::One => Ack::One,
            AckArg::Quorum => Ack::Quorum,
            AckArg::All => Ack::All,
            AckArg::AllAvailable => Ack::AllAvailable,
        },
        ack_timeout: args.ack_timeout,
        heartbeat: args.heartbeat,
        timeout: args.timeout,
        retry_for: args.retry_for,
    };
    let bell = Bell::new();
    let stop = Stop::catch(bell.clone()).context("cannot catch signals")?;
    ship::run(&dir, to, &options, Shipping { ledger: &mut ledger, status, bell, stop: &stop, monitor: &monitor })
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

fn segment(scheme: &Scheme, name: &str) -> Result<Segment> {
    let segment = scheme.segment(name);
    segment.ok_or_else(|| {
        Failure::new(Code::Usage, format!("{name} is not a segment of engine {}", scheme.engine())).into()
    })
}

/// The state directory: as told, or where it is by default if that can be had.
fn state(args: &Args, set: &str, logdir: &Path, monitor: &repl::engine::note::Monitor) -> Result<Option<Dir>> {
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
