//! Proves a log directory and the bases in it. See repl-verify(1).

use std::path::Path;
use std::process::ExitCode;

use anyhow::Result;
use clap::CommandFactory as _;

use repl::cli::verify::{Args, compared_lines, compared_object, lines, object, verdict};
use repl::cli::{args, config, report};
use repl::edge::dir::Dir;
use repl::engine::verify::against::{self, Compared};
use repl::engine::verify::{self, Report};
use repl::value::exit::{Code, fail};

const NAME: &str = "repl-verify";

fn main() -> ExitCode {
    config::start(NAME, |line| run(&line.args))
}

fn run(args: &Args) -> Result<()> {
    if let Some(shell) = args.completions {
        return args::completions(Args::command(), shell);
    }
    let path = args.dir.clone().unwrap_or_default();
    let dir = Dir::open(&path)?;
    let found = verify::run(&dir, &args.options()?)?;
    let end = match (found.code(), found.faults()) {
        (Code::Done, _) => Ok(()),
        (code, count) => fail(code, format!("{}: {} ({count} found)", path.display(), verdict(code))),
    };
    let is_sound = found.code() != Code::Corrupt;
    if args.digests {
        if is_sound {
            report::print(against::digests(&dir, &found, args.at)?.print().as_bytes())?;
        }
        return end;
    }
    // What is damaged here is compared with nothing.
    let command = args.against.as_ref().filter(|_| is_sound);
    let compared = command.map(|command| against::run(&dir, &found, command, args.timeout));
    let (compared, unheard) = match compared.transpose() {
        Ok(compared) => (compared, None),
        Err(error) => (None, Some(error)),
    };
    print(args, &path, &found, compared.as_ref())?;
    match (unheard, compared.map(|compared| compared.code())) {
        (Some(error), _) => Err(error),
        (None, Some(Code::Diverged)) => fail(Code::Diverged, format!("{}: diverged", path.display())),
        (None, Some(Code::Gap)) if end.is_ok() => {
            fail(Code::Gap, "between this site's log and the other one's is a gap")
        }
        _ => end,
    }
}

fn print(args: &Args, path: &Path, found: &Report, compared: Option<&Compared>) -> Result<()> {
    if args.json {
        let mut told = object(&path.to_string_lossy(), found);
        if let Some(compared) = compared {
            told["against"] = compared_object(compared);
        }
        return report::print(format!("{told}\n").as_bytes());
    }
    if args.talk.quiet {
        return Ok(());
    }
    let compared = compared.map(compared_lines).unwrap_or_default();
    report::print((lines(found, args.talk.verbose) + &compared).as_bytes())
}
