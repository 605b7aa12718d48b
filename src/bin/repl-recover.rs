//! Brings a database back from an archive. See repl-recover(1).

use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory as _;

use repl::cli::recover::Args;
use repl::cli::{args, config};

fn main() -> ExitCode {
    config::start("repl-recover", |line| run(&line.args))
}

fn run(args: &Args) -> Result<()> {
    match args.completions {
        Some(shell) => args::completions(Args::command(), shell),
        None => args.run(),
    }
}
