//! Makes one directory a copy of another, with its server stopped for the last moments only. See repl-sync(1).

use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory as _;

use repl::cli::config::Line;
use repl::cli::sync::{Args, ends};
use repl::cli::{args, config};

const NAME: &str = "repl-sync";

fn main() -> ExitCode {
    config::start(NAME, run)
}

fn run(line: Line<Args>) -> Result<()> {
    let Line { args, matches, words, .. } = line;
    if let Some(shell) = args.completions {
        return args::completions(Args::command(), shell);
    }
    if args.rollback || args.replay {
        return ends::mend(&args);
    }
    let filter = args.filter(&matches)?;
    ends::run(&args, filter, words)
}
