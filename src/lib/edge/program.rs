//! Programs of a database that are run as they are, without a shell: one executable, its arguments, files as its input
//! and output. Like a hook, each leads a process group of its own, ends at a time-out, and leaves the tail of what it
//! said in the error.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::hook;
use super::user::{self, User};

/// Bytes of standard output that [`Program::ask`] takes.
const ANSWER: u64 = 1 << 20;

/// What to run.
#[derive(Clone, Debug)]
pub struct Program {
    /// Found by `PATH`.
    pub name: &'static str,
    /// Without the name.
    pub args: Vec<OsString>,
    /// After this long it is killed.
    pub timeout: Duration,
    /// Whom it runs as, if not as us.
    pub user: Option<User>,
}

impl Program {
    /// A program with its arguments.
    pub fn new(name: &'static str, args: impl IntoIterator<Item = impl Into<OsString>>, timeout: Duration) -> Program {
        Program { name, args: args.into_iter().map(Into::into).collect(), timeout, user: None }
    }

    /// Runs it over files: `None` is nothing to read, and output that only an error shows. Anything but exit status 0 is
    /// an error with code 9.
    pub fn run(&self, input: Option<File>, output: Option<File>) -> Result<()> {
        let mut command = self.command(input);
        let command = match output {
            Some(output) => command.stdout(output),
            None => command.stdout(Stdio::piped()),
        };
        let child = command.spawn().with_context(|| format!("cannot run {}", self.name))?;
        hook::finish(self.name, child, Some(self.timeout))
    }

    /// Runs it without input and returns what it prints, up to 1 MiB.
    pub fn ask(&self) -> Result<String> {
        let mut command = self.command(None);
        let mut child = command.stdout(Stdio::piped()).spawn().with_context(|| format!("cannot run {}", self.name))?;
        let output = child.stdout.take();
        let reader = std::thread::spawn(move || {
            let mut answer = Vec::new();
            // What was read until an error is judged by the program's own exit status.
            let _ = output.map(|output| output.take(ANSWER).read_to_end(&mut answer));
            answer
        });
        hook::finish(self.name, child, Some(self.timeout))?;
        let answer = reader.join().unwrap_or_default();
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Not begun, its input and output not told.
    pub(super) fn bare(&self) -> Command {
        let mut command = user::command(self.user.as_ref(), self.name);
        command.args(&self.args);
        command
    }

    fn command(&self, input: Option<File>) -> Command {
        let mut command = self.bare();
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        command.stdin(input.map_or_else(Stdio::null, Stdio::from)).stderr(Stdio::piped());
        command
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use super::*;
    use crate::value::exit::{Code, code_of};

    fn shell(script: &str) -> Program {
        Program::new("sh", ["-c", script], Duration::from_secs(20))
    }

    #[test]
    fn files_are_read_and_written() {
        let (mut input, mut output) = (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        input.write_all(b"abc").unwrap();
        input.rewind().unwrap();
        shell("tr a-c x-z").run(Some(input), Some(output.try_clone().unwrap())).unwrap();
        output.rewind().unwrap();
        assert_eq!(std::io::read_to_string(output).unwrap(), "xyz");
    }

    #[test]
    fn an_answer_is_standard_output_alone() {
        assert_eq!(shell("echo yes; echo no >&2").ask().unwrap(), "yes\n");
    }

    #[test]
    fn a_failure_shows_status_and_standard_error() {
        for result in [shell("echo why >&2; exit 3").ask().map(|_| ()), shell("echo why; exit 3").run(None, None)] {
            let error = result.unwrap_err();
            assert_eq!(code_of(&error), Code::Hook);
            assert_eq!(error.to_string(), "sh exited with 3: why");
        }
    }

    #[test]
    fn a_time_out_ends_it() {
        let slow = Program { timeout: Duration::from_millis(50), ..shell("sleep 1000") };
        assert!(slow.ask().unwrap_err().to_string().contains("took too long"));
    }
}
