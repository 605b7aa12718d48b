//! Takes a hot base copy into an archive. See repl-base(1).

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory as _, FromArgMatches as _};

use repl::cli::base::Args;
use repl::cli::{args, report};

fn main() -> ExitCode {
    report::exit("repl-base", run())
}

fn run() -> Result<()> {
    let matches = Args::command().get_matches();
    let args = Args::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    if let Some(shell) = args.completions {
        return args::completions(Args::command(), shell);
    }
    if args.list {
        return args.list();
    }
    if args.verify {
        return args.verify();
    }
    match &args.drop {
        Some(name) => args.drop(name),
        None => args.take(&matches),
    }
}
