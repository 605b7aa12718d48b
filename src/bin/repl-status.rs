//! Says who is where. See repl-status(1).

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use repl::cli::status::Args;
use repl::cli::{args, report};

const NAME: &str = "repl-status";

fn main() -> ExitCode {
    let told = Args::parse();
    if let Some(shell) = told.completions {
        return report::exit(NAME, args::completions(Args::command(), shell));
    }
    match told.run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => report::exit(NAME, Err(error)),
    }
}
