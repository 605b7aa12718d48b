//! Proves a log directory and the bases in it. See repl-verify(1).

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;
use clap::{CommandFactory as _, Parser};
use clap_complete::Shell;

use repl::cli::args::{self, Log, Talk};
use repl::cli::report;
use repl::cli::verify::{compared_lines, compared_object, lines, object, verdict};
use repl::edge::dir::Dir;
use repl::engine::archive::base;
use repl::engine::archive::prove::Which;
use repl::engine::verify::against::{self, Compared};
use repl::engine::verify::{self, Options, Report};
use repl::value::exit::{Code, fail};
use repl::value::position::Position;
use repl::value::units;

const NAME: &str = "repl-verify";

/// Prove a log directory: order, gaps, digests, records and bases
#[derive(Parser, Debug)]
#[command(name = NAME, version, help_expected = true)]
struct Args {
    /// Directory with the log; only read
    #[arg(value_name = "DIR", required_unless_present = "completions")]
    dir: Option<PathBuf>,

    #[command(flatten)]
    log: Log,

    /// The site's state is in this directory instead of DIR/.repl
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,

    /// Of the bases, prove only this one
    #[arg(long, value_name = "NAME", value_parser = base_name)]
    base: Option<String>,

    /// Prove only the log, not the bases
    #[arg(long, conflicts_with = "base")]
    no_bases: bool,

    /// Print digests of what is held, for another site to compare, instead of findings
    #[arg(long, conflicts_with_all = ["json", "against", "base"])]
    digests: bool,

    /// With --digests: print also that of a segment up to this position, if it is held
    #[arg(long, value_name = "POSITION", requires = "digests")]
    at: Option<Position>,

    /// Compare with another site, by the lines of its repl-verify --digests that this command prints
    #[arg(long, value_name = "COMMAND")]
    against: Option<String>,

    /// How long that command may take
    #[arg(long, value_name = "TIME", default_value = "12h", value_parser = units::positive_duration)]
    timeout: Duration,

    /// Print one JSON object instead of lines
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    talk: Talk,

    /// Print completions for a shell and exit
    #[arg(long, value_name = "SHELL", exclusive = true)]
    completions: Option<Shell>,
}

fn main() -> ExitCode {
    report::exit(NAME, run(&Args::parse()))
}

fn run(args: &Args) -> Result<()> {
    if let Some(shell) = args.completions {
        return args::completions(Args::command(), shell);
    }
    let path = args.dir.clone().unwrap_or_default();
    let dir = Dir::open(&path)?;
    let found = verify::run(&dir, &args.options()?)?;
    let end = match (found.code(), found.faults()) {
        (Code::Done, _) => Ok(()),
        (code, count) => fail(code, format!("{}: {} ({count} found)", path.display(), verdict(code))),
    };
    let is_sound = found.code() != Code::Corrupt;
    if args.digests {
        if is_sound {
            report::print(against::digests(&dir, &found, args.at)?.print().as_bytes())?;
        }
        return end;
    }
    // What is damaged here is compared with nothing.
    let command = args.against.as_ref().filter(|_| is_sound);
    let compared = command.map(|command| against::run(&dir, &found, command, args.timeout));
    let (compared, unheard) = match compared.transpose() {
        Ok(compared) => (compared, None),
        Err(error) => (None, Some(error)),
    };
    args.print(&path, &found, compared.as_ref())?;
    match (unheard, compared.map(|compared| compared.code())) {
        (Some(error), _) => Err(error),
        (None, Some(Code::Diverged)) => fail(Code::Diverged, format!("{}: diverged", path.display())),
        (None, Some(Code::Gap)) if end.is_ok() => {
            fail(Code::Gap, "between this site's log and the other one's is a gap")
        }
        _ => end,
    }
}

impl Args {
    fn options(&self) -> Result<Options> {
        let bases = match &self.base {
            Some(name) => Which::One(name.clone()),
            None if self.no_bases || self.digests => Which::None,
            None => Which::All,
        };
        Ok(Options { kind: self.log.kind()?, state: self.state.clone(), bases, ..Options::default() })
    }

    fn print(&self, path: &Path, found: &Report, compared: Option<&Compared>) -> Result<()> {
        if self.json {
            let mut told = object(&path.to_string_lossy(), found);
            if let Some(compared) = compared {
                told["against"] = compared_object(compared);
            }
            return report::print(format!("{told}\n").as_bytes());
        }
        if self.talk.quiet {
            return Ok(());
        }
        let compared = compared.map(compared_lines).unwrap_or_default();
        report::print((lines(found, self.talk.verbose) + &compared).as_bytes())
    }
}

fn base_name(text: &str) -> Result<String, String> {
    if base::is_name(text) { Ok(text.to_owned()) } else { Err("no base has such a name".to_owned()) }
}
