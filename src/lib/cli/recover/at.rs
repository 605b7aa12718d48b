//! The same at another site: what was proven here is shipped there, log by `repl-ship` and the base by `repl-sync`, and the
//! recovery is run there by its own `repl-recover`, which proves what has arrived. Each step goes on where it was
//! interrupted.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::Args;
use crate::cli::report;
use crate::edge::hook::Hook;
use crate::engine::archive::BASES;
use crate::engine::recover::plan::Plan;
use crate::value::exit::{Code, Failure, fail};

/// Bytes of a far command's output that are passed on.
const OUTPUT: u64 = 1 << 20;

/// A site that a command prefix reaches.
pub(super) struct Site<'a> {
    /// Runs a command line there: `ssh other`.
    pub(super) prefix: &'a str,
    /// Where the log and the base go there.
    pub(super) archive: PathBuf,
    /// Where the database is to be there.
    pub(super) target: PathBuf,
    /// The archive here.
    pub(super) from: PathBuf,
}

impl Site<'_> {
    /// Ships what the plan needs, and recovers there.
    pub(super) fn run(&self, args: &Args, plan: &Plan) -> Result<()> {
        self.ship(args, plan)?;
        if let Some(base) = &plan.base {
            self.send(&base.name)?;
        }
        let output = self.step("recover", &self.line(&self.words(args, plan)?))?;
        report::print(&output)
    }

    /// Ships the log that is needed, from where that site stands. A sender that fails leaves a stream without an end, which
    /// is the receiver's to say.
    fn ship(&self, args: &Args, plan: &Plan) -> Result<()> {
        let Some(first) = plan.logs.first() else {
            return Ok(());
        };
        let archive = text(&self.archive)?;
        let there = |option: &str| self.line(&["repl-apply", option, &archive].map(str::to_owned));
        let scratch = std::env::temp_dir().join(format!("repl-recover-at-{:08x}", fastrand::u32(..)));
        let mut words = vec![program("repl-ship")?, "-S".into(), "-q".into(), format!("--state={}", text(&scratch)?)];
        words.extend(args.until.and(plan.end).map(|end| format!("--until={end}")));
        words.push(text(&self.from)?);
        let line = format!(
            "at=$({}) || exit; [ \"$at\" != oldest ] || at={}; {} --from \"$at\" | {}",
            there("--position"),
            first.segment.at(0),
            shell_words::join(words),
            there("--logs-only"),
        );
        let shipped = self.step("ship", &line);
        // It has nothing that a later run needs: where to go on, the far end says.
        let _ = std::fs::remove_dir_all(&scratch);
        shipped.map(drop)
    }

    fn send(&self, base: &str) -> Result<()> {
        let from = text(&self.from.join(BASES).join(base))?;
        let to = format!("there:{}", text(&self.archive.join(BASES).join(base))?);
        // The remote shell is given a host first, which is in the prefix already.
        let shell = format!("sh -c {} at", shell_words::quote(&format!("shift; exec {} \"$@\"", self.prefix)));
        let words = [program("repl-sync")?, "-q".into(), "--delete".into(), "--engine=plain".into(), "--mkpath".into()];
        let line = words.into_iter().chain([format!("--rsh={shell}"), from, to]);
        self.step("send", &shell_words::join(line)).map(drop)
    }

    /// The command line of the recovery there.
    fn words(&self, args: &Args, plan: &Plan) -> Result<Vec<String>> {
        let base = plan.base.as_ref().map_or("none", |base| base.name.as_str());
        let mut words = vec![
            "repl-recover".to_owned(),
            format!("--archive={}", text(&self.archive)?),
            format!("--target={}", text(&self.target)?),
            format!("--base={base}"),
        ];
        let timeout = format!("{}ms", args.hook_timeout.as_millis());
        let until = args.until.and(plan.end).map(|end| end.to_string());
        let values = [
            ("--until", until.as_ref()),
            ("--recover", args.recover.as_ref()),
            ("--check", args.check.as_ref()),
            ("--start", args.start.as_ref()),
            ("--run-as", args.run_as.as_ref()),
            ("--dsn", args.dsn.as_ref()),
            ("--reason", args.reason.as_ref()),
            ("--hook-timeout", Some(&timeout)),
        ];
        words.extend(values.iter().filter_map(|(key, value)| Some(format!("{key}={}", (*value)?))));
        words.extend(args.engine.map(|engine| format!("--engine={engine}")));
        let flags = [
            ("--then=start", args.then == super::Then::Start),
            ("--stay", args.stay),
            ("--drill", args.drill),
            ("--json", args.json),
            ("--quiet", args.talk.quiet),
        ];
        words.extend(flags.iter().filter(|(_, is_set)| *is_set).map(|(flag, _)| (*flag).to_owned()));
        Ok(words)
    }

    /// A line for the shell here that runs words there.
    fn line(&self, words: &[String]) -> String {
        format!("{} {}", self.prefix, shell_words::quote(&shell_words::join(words)))
    }

    /// Runs a step; its exit code is ours, if it is one of the suite's.
    fn step(&self, name: &'static str, command: &str) -> Result<Vec<u8>> {
        let hook = Hook { name, command: command.to_owned(), timeout: None };
        let answer = hook.listen(&[], OUTPUT)?;
        let Some(words) = answer.words else {
            return Ok(answer.bytes);
        };
        let code = answer.status.and_then(|status| u8::try_from(status).ok()).and_then(Code::from_number);
        // What ssh says of a link, and a shell of a command that is not there.
        let code = if answer.status == Some(255) { Code::Link } else { code.unwrap_or(Code::Hook) };
        Err(Failure::new(code, format!("at {}: {words}", self.prefix)).into())
    }
}

fn text(path: &Path) -> Result<String> {
    match path.to_str() {
        Some(text) => Ok(text.to_owned()),
        None => fail(Code::Usage, format!("{} is not UTF-8", path.display())),
    }
}

/// A program of the suite beside this one, or in the path.
fn program(name: &str) -> Result<String> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let beside = own.with_file_name(name);
    if beside.exists() { text(&beside) } else { Ok(name.to_owned()) }
}
