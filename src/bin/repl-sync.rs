//! Makes one directory a copy of another, with its server stopped for the last moments only. See repl-sync(1).

use std::ffi::OsString;
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory as _, FromArgMatches as _};

use repl::cli::sync::{Args, ends};
use repl::cli::{args, report};

const NAME: &str = "repl-sync";

fn main() -> ExitCode {
    report::exit(NAME, run())
}

fn run() -> Result<()> {
    let words: Vec<OsString> = std::env::args_os().skip(1).collect();
    let matches = Args::command().get_matches();
    let args = Args::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if let Some(shell) = args.completions {
        return args::completions(Args::command(), shell);
    }
    if args.rollback || args.replay {
        return ends::mend(&args);
    }
    let filter = args.filter(&matches)?;
    ends::run(&args, filter, words)
}
