//! Takes a hot base copy into an archive. See repl-base(1).

use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory as _;

use repl::cli::base::Args;
use repl::cli::config::Line;
use repl::cli::{args, config};

fn main() -> ExitCode {
    config::start("repl-base", run)
}

fn run(line: Line<Args>) -> Result<()> {
    let Line { args, matches, .. } = line;
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
