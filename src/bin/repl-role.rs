//! Says and changes what a site is in its set. See repl-role(1).

use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory as _;

use repl::cli::args;
use repl::cli::config::{self, Line};
use repl::cli::role::{self, Args};

const NAME: &str = "repl-role";

fn main() -> ExitCode {
    config::start(NAME, |line| run(&line))
}

fn run(line: &Line<Args>) -> Result<()> {
    if let Some(shell) = line.args.completions {
        return args::completions(Args::command(), shell);
    }
    let set = line.matches.try_get_one::<String>("set").ok().flatten();
    role::run(&line.args, line.config.as_ref(), set.map(String::as_str))
}
