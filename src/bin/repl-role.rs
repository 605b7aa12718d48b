//! Says what a directory may be used for. See repl-role(1).

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use repl::cli::{args, report};
use repl::engine::sync::marker;

const NAME: &str = "repl-role";

/// Say what a database's directory may be used for
#[derive(Parser, Debug)]
#[command(name = NAME, version, help_expected = true, disable_help_subcommand = true, arg_required_else_help = true)]
struct Args {
    #[command(subcommand)]
    command: Option<Command>,

    /// Print completions for a shell and exit
    #[arg(long, value_name = "SHELL", exclusive = true)]
    completions: Option<Shell>,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Fail while a server must not be started on a directory, because a sync is being written into it
    Guard {
        /// The database's directory; only read
        #[arg(value_name = "DIR")]
        dir: PathBuf,
    },
}

fn main() -> ExitCode {
    report::exit(NAME, run(&Args::parse()))
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
