//! Waits until enough sites have the log. See repl-wait(1).

use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory as _;
use serde_json::json;

use repl::cli::config::Line;
use repl::cli::wait::Args;
use repl::cli::{args, config, narrate, report};
use repl::engine::note::Note;
use repl::engine::wait;

const NAME: &str = "repl-wait";

fn main() -> ExitCode {
    config::start(NAME, run)
}

fn run(line: Line<Args>) -> Result<()> {
    let args = line.args;
    if let Some(shell) = args.completions {
        return args::completions(Args::command(), shell);
    }
    let question = args.question()?;
    let waited = wait::run(&args.state()?, &question, args.timeout)?;
    let at = waited.at.map(|at| at.to_string());
    if args.json {
        let level = question.level.to_string();
        let result = json!({"at": at, "level": level, "seconds": waited.time.as_secs_f64()});
        return report::print(format!("{result}\n").as_bytes());
    }
    let monitor = narrate::monitor(NAME, &args.talk);
    let at = at.unwrap_or_else(|| "an empty log".to_owned());
    monitor(Note::Detail(format!("{at} is {} after {:.1} ms", question.level, waited.time.as_secs_f64() * 1000.0)));
    Ok(())
}
