//! Says who is where. See repl-status(1).

use std::process::ExitCode;

use clap::CommandFactory as _;

use repl::cli::config::Line;
use repl::cli::status::{Args, Set};
use repl::cli::{args, config, report};

const NAME: &str = "repl-status";

fn main() -> ExitCode {
    let line: Line<Args> = match config::parse(NAME) {
        Ok(line) => line,
        Err(code) => return ExitCode::from(code as u8),
    };
    let told = Args { set: Set::of(&line), ..line.args };
    if let Some(shell) = told.completions {
        return report::exit(NAME, args::completions(Args::command(), shell));
    }
    match told.run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => report::exit(NAME, Err(error)),
    }
}
