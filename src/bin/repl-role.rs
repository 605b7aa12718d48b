//! Says what a directory may be used for. See repl-role(1).

use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory as _;

use repl::cli::role::{Args, Command};
use repl::cli::{args, config};
use repl::engine::sync::marker;

const NAME: &str = "repl-role";

fn main() -> ExitCode {
    config::start(NAME, |line| run(&line.args))
}

fn run(args: &Args) -> Result<()> {
    if let Some(shell) = args.completions {
        return args::completions(Args::command(), shell);
    }
    match &args.command {
        Some(Command::Guard { dir }) => marker::guard(dir),
        None => Ok(()),
    }
}
