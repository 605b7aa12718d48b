//! Hands out one whole, verified segment of an archive. See repl-fetch(1).

use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory as _;

use anyhow::Result;
use repl::cli::fetch::{self, Args};
use repl::cli::{args, report};
use repl::edge::dir::Dir;
use repl::engine::fetch::{Found, run};

fn main() -> ExitCode {
    fetch::catch_panics();
    let args = match Args::read() {
        Ok(args) => args,
        Err(code) => return code,
    };
    if let Some(shell) = args.completions {
        return report::exit("repl-fetch", args::completions(Args::command(), shell));
    }
    args.exit(&hand_out(&args))
}

fn hand_out(args: &Args) -> Result<Found> {
    let archive = Dir::open(args.archive.as_deref().unwrap_or(Path::new("")))?;
    let name = args.name.clone().unwrap_or_default();
    run(&archive, &name, args.dest.as_deref().unwrap_or(Path::new("")), &args.options())
}
