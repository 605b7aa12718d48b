//! A program that is kept running and talked to in lines: a database's own client, which holds a lock or a backup open
//! for as long as it lives. It ends with its input, so whatever ends this process also lets go of what the program holds.
//!
//! It leads a session of its own: a Ctrl-C or a closing terminal that ends us reaches it only as the end of its input,
//! and it can tidy up.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use parking_lot::Mutex;

use super::program::Program;
use super::{child, hook};
use crate::value::escape::show_bytes;
use crate::value::exit::{Code, fail};

/// Longest line that is heard, in bytes: a label file in hexadecimal, with room.
const LINE: u64 = 1 << 22;
/// How long it may take to end once its input has.
const FAREWELL: Duration = Duration::from_secs(10);

/// A program that was started for a conversation. Dropped, it is told the end of its input; if that does not end it in
/// ten seconds, it is killed.
#[derive(Debug)]
pub struct Coprocess {
    name: &'static str,
    child: Child,
    input: Option<ChildStdin>,
    lines: mpsc::Receiver<String>,
    tail: Arc<Mutex<VecDeque<u8>>>,
    /// Nothing comes of it, until its standard error has ended and it ends as well.
    said: mpsc::Receiver<()>,
    timeout: Duration,
}

impl Coprocess {
    /// Starts a program; each of its answers may take as long as the program may.
    pub fn start(program: &Program, values: &[(&str, String)]) -> Result<Coprocess> {
        let bare = program.bare();
        let mut command = Command::new("setsid");
        child::untell(&mut command);
        command.arg(bare.get_program()).args(bare.get_args());
        command.envs(bare.get_envs().filter_map(|(key, value)| Some((key, value?))));
        command.envs(values.iter().map(|(key, value)| (key, value)));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot run {}", program.name))?;
        let tail = Arc::new(Mutex::new(VecDeque::new()));
        let (reading, said) = mpsc::channel();
        if let Some(stream) = child.stderr.take() {
            hook::keep_tail(Box::new(stream), Arc::clone(&tail), reading);
        }
        let (heard, lines) = mpsc::channel();
        if let Some(output) = child.stdout.take() {
            std::thread::spawn(move || pass_on(output, &heard));
        }
        let input = child.stdin.take();
        Ok(Coprocess { name: program.name, child, input, lines, tail, said, timeout: program.timeout })
    }

    /// Writes a line to it.
    pub fn say(&mut self, line: &str) -> Result<()> {
        let written = match &mut self.input {
            Some(input) => input.write_all(format!("{line}\n").as_bytes()).and_then(|()| input.flush()),
            None => Ok(()),
        };
        match written {
            // Its own last words tell more than the broken pipe does.
            Err(_) => self.gone(),
            Ok(()) => Ok(()),
        }
    }

    /// The next line that it writes, without its end.
    pub fn hear(&mut self) -> Result<String> {
        match self.lines.recv_timeout(self.timeout) {
            Ok(line) => Ok(line),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                hook::end_group(&self.child);
                fail(Code::Hook, format!("{} did not answer in time and was ended", self.name))
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => self.gone(),
        }
    }

    /// Says a line and hears one.
    pub fn ask(&mut self, line: &str) -> Result<String> {
        self.say(line)?;
        self.hear()
    }

    /// Ends its input and waits until it has ended by itself, with exit status 0.
    pub fn finish(self) -> Result<()> {
        self.last_words().map(drop)
    }

    /// The same; returns the last of what it has printed on its standard error.
    pub fn last_words(mut self) -> Result<String> {
        let status = self.end(self.timeout)?;
        self.judge(status)?;
        let tail = show_bytes(self.tail.lock().make_contiguous().trim_ascii());
        Ok(if tail.is_empty() { "it printed nothing".to_owned() } else { tail })
    }

    /// It ended though nobody asked it to.
    fn gone<T>(&mut self) -> Result<T> {
        let status = self.end(FAREWELL)?;
        self.judge(status)?;
        fail(Code::Hook, format!("{} ended before it was told to", self.name))
    }

    fn judge(&self, status: Option<ExitStatus>) -> Result<()> {
        // Something that it left running may hold the pipe open: then what was said so far is enough.
        let _ = self.said.recv_timeout(Duration::from_millis(500));
        hook::judge(self.name, status, self.tail.lock().make_contiguous())
    }

    fn end(&mut self, patience: Duration) -> Result<Option<ExitStatus>> {
        self.input = None;
        if let Some(status) = self.child.try_wait()? {
            return Ok(Some(status));
        }
        let ended = child::has_ended(&child::watch(&self.child)?, Some(Instant::now() + patience), None)?;
        if !ended {
            hook::end_group(&self.child);
        }
        let status = self.child.wait()?;
        Ok(ended.then_some(status))
    }
}

impl Drop for Coprocess {
    fn drop(&mut self) {
        // Nobody is left to be told how it ended.
        let _ = self.end(FAREWELL);
    }
}

/// Passes lines on until the stream ends, one is too long, or nobody listens.
fn pass_on(output: impl Read, heard: &mpsc::Sender<String>) {
    let mut output = BufReader::new(output);
    let mut line = Vec::new();
    while matches!(output.by_ref().take(LINE).read_until(b'\n', &mut line), Ok(1..)) {
        let whole = line.strip_suffix(b"\n").map(|text| String::from_utf8_lossy(text).into_owned());
        if whole.is_none_or(|line| heard.send(line).is_err()) {
            return;
        }
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::exit::code_of;

    fn shell(script: &str) -> Coprocess {
        let program = Program::new("sh", ["-c", script], Duration::from_secs(20));
        Coprocess::start(&program, &[("REPL_X", "a b".to_owned())]).unwrap()
    }

    #[test]
    fn it_answers_line_by_line_and_ends_with_its_input() {
        let mut echo = shell("echo \"$REPL_X\"; while read -r line; do echo \"<$line>\"; done");
        assert_eq!(echo.hear().unwrap(), "a b");
        assert_eq!(echo.ask("one").unwrap(), "<one>");
        assert_eq!(echo.ask("two").unwrap(), "<two>");
        echo.finish().unwrap();
    }

    #[test]
    fn one_that_ends_early_says_why() {
        let mut ends = shell("read -r line; echo why >&2; exit 3");
        let error = ends.ask("x").unwrap_err();
        assert_eq!(code_of(&error), Code::Hook);
        assert_eq!(error.to_string(), "sh exited with 3: why");
        let error = shell("exit 0").hear().unwrap_err();
        assert_eq!(error.to_string(), "sh ended before it was told to");
    }

    #[test]
    fn one_that_is_silent_is_ended() {
        let program = Program::new("sh", ["-c", "sleep 1000"], Duration::from_millis(50));
        let error = Coprocess::start(&program, &[]).unwrap().hear().unwrap_err();
        assert!(error.to_string().contains("did not answer in time"), "{error}");
    }

    #[test]
    fn what_is_dropped_can_tidy_up() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("tidied");
        drop(shell(&format!("read -r line; echo done >{}", path.display())));
        assert_eq!(std::fs::read_to_string(path).unwrap(), "done\n");
    }
}
