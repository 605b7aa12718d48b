//! Proves a log directory and the bases in it. See repl-verify(1).

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory as _, Parser};
use clap_complete::Shell;

use repl::cli::args::{self, Log, Talk};
use repl::cli::report;
use repl::cli::verify::{lines, object, verdict};
use repl::edge::dir::Dir;
use repl::engine::archive::base;
use repl::engine::archive::prove::Which;
use repl::engine::verify::{self, Options};
use repl::value::exit::{Code, fail};

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
    let found = verify::run(&Dir::open(&path)?, &args.options()?)?;
    if args.json {
        report::print(format!("{}\n", object(&path.to_string_lossy(), &found)).as_bytes())?;
    } else if !args.talk.quiet {
        report::print(lines(&found, args.talk.verbose).as_bytes())?;
    }
    match (found.code(), found.faults()) {
        (Code::Done, _) => Ok(()),
        (code, count) => fail(code, format!("{}: {} ({count} found)", path.display(), verdict(code))),
    }
}

impl Args {
    fn options(&self) -> Result<Options> {
        let bases = match &self.base {
            Some(name) => Which::One(name.clone()),
            None if self.no_bases => Which::None,
            None => Which::All,
        };
        Ok(Options { kind: self.log.kind()?, state: self.state.clone(), bases, ..Options::default() })
    }
}

fn base_name(text: &str) -> Result<String, String> {
    if base::is_name(text) { Ok(text.to_owned()) } else { Err("no base has such a name".to_owned()) }
}
