//! The arguments of `repl-fetch`, and its exit codes, which are PostgreSQL's and not the suite's: 0, 1 only for "there is
//! no such segment", and 126 for everything else. A server takes 1 to 125 for the end of the log and comes up; it must
//! never do so because of a wrong option, a panic or an archive that is not mounted.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Result;
use clap::Parser;
use clap_complete::Shell;

use super::args::Talk;
use super::voice::{Level, Message};
use super::{config, report};
use crate::engine::fetch::{Found, Options};
use crate::value::exit::{Code, RECOVERY_ENDS};

const NAME: &str = "repl-fetch";

/// Hand out one whole, verified segment of an archive, for PostgreSQL's recovery
#[derive(Parser, Debug)]
#[command(name = NAME, version, help_expected = true)]
pub struct Args {
    /// Directory that repl-apply keeps; only read
    #[arg(value_name = "ARCHIVE", required_unless_present = "completions")]
    pub archive: Option<PathBuf>,

    /// Name of the segment, or of a small file beside the log (PostgreSQL's %f)
    #[arg(value_name = "NAME", required_unless_present = "completions")]
    pub name: Option<OsString>,

    /// File to make or replace (PostgreSQL's %p)
    #[arg(value_name = "DEST", required_unless_present = "completions")]
    pub dest: Option<PathBuf>,

    /// Hand out closed segments only: the open one counts as not there
    #[arg(long)]
    pub closed: bool,

    /// The archive's state is in this directory instead of ARCHIVE/.repl
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,

    /// How much is said.
    #[command(flatten)]
    pub talk: Talk,

    /// Print completions for a shell and exit
    #[arg(long, value_name = "SHELL", exclusive = true)]
    pub completions: Option<Shell>,
}

impl Args {
    /// Reads the command line; `Err` is how to exit when there is nothing to fetch.
    pub fn read() -> Result<Args, ExitCode> {
        config::parse_ending(NAME, |_| RECOVERY_ENDS).map(|line| line.args).map_err(|code| match code {
            Code::Done => ExitCode::SUCCESS,
            _ => ExitCode::from(RECOVERY_ENDS),
        })
    }

    /// What the engine is told.
    pub fn options(&self) -> Options {
        Options { closed_only: self.closed, state: self.state.clone() }
    }

    /// Words, and the exit code.
    pub fn exit(&self, result: &Result<Found>) -> ExitCode {
        match result {
            Ok(Found::Handed(what)) => {
                if self.talk.verbose {
                    report::say(NAME, what);
                }
                ExitCode::SUCCESS
            }
            Ok(Found::Absent(why)) => {
                if !self.talk.quiet {
                    report::say(NAME, why);
                }
                ExitCode::from(Code::Failed as u8)
            }
            Err(error) => {
                report::tell(NAME, error, RECOVERY_ENDS);
                ExitCode::from(RECOVERY_ENDS)
            }
        }
    }
}

/// From now on a panic exits like every other error. By itself it would exit with 101, which a server takes for the end
/// of the log.
pub fn catch_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let code = Some((RECOVERY_ENDS, Code::Failed));
        Message { code, ..Message::new(Level::Error, &panic.to_string()) }.say(NAME);
        std::process::exit(RECOVERY_ENDS.into());
    }));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_in_any_thread_exits_126() {
        // Run again as a child, since a hook and an exit are the whole process's.
        if std::env::var_os("REPL_TEST_PANIC").is_some() {
            catch_panics();
            let _ = std::thread::spawn(|| panic!("asked for")).join();
            return;
        }
        let name = "cli::fetch::tests::a_panic_in_any_thread_exits_126";
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        let ran = again.args(["--exact", "--nocapture", name]).env("REPL_TEST_PANIC", "1").output().unwrap();
        assert_eq!(ran.status.code(), Some(126), "{ran:?}");
        assert!(String::from_utf8_lossy(&ran.stderr).contains("repl-fetch: "), "{ran:?}");
    }
}
