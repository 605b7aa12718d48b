//! Commands that the operator configured, run by `/bin/sh -c`: no standard input, no inherited descriptor, a process
//! group of their own so that a time-out ends all of it, values in the environment and never in the command line. The
//! tail of what they print is kept for the error.
//!
//! One that starts a server leaves something running: it gets a session of its own, so that no end of ours and no
//! terminal's takes the server along, and a file for its output, so that the server's next word meets no broken pipe.

use std::collections::VecDeque;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::process::{Child, ExitStatus, Stdio};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};

use super::child;
use super::signal::Stop;
use super::user::{self, User};
use crate::value::escape::show_bytes;
use crate::value::exit::{Code, fail};

/// Bytes of output that are kept.
const TAIL: usize = 2048;
/// How long the rest of a pipe is read once the command at its other end is gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// Ours are closed by themselves; these may be the operator's, such as a lock that his script holds on descriptor 9: a
/// server would hold it for ever.
const APART: &str = r#"exec 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-; exec /bin/sh -c "$0""#;

/// A command with what it may know and how long it may take.
#[derive(Clone, Debug)]
pub struct Hook {
    /// Name for messages: `feed`, `gate`.
    pub name: &'static str,
    /// What `/bin/sh -c` runs.
    pub command: String,
    /// After this long it is killed; `None` waits for ever.
    pub timeout: Option<Duration>,
}

/// What a command has answered.
#[derive(Debug)]
pub struct Answer {
    /// Its exit status; `None` when a signal or the time-out ended it.
    pub status: Option<i32>,
    /// What it printed.
    pub bytes: Vec<u8>,
    /// Whether that is more than was asked for.
    pub is_long: bool,
    /// How it ended, with the tail of its standard error; `None` for exit status 0.
    pub words: Option<String>,
}

impl Hook {
    /// Runs the command to its end. Anything but exit status 0 is an error with code 9 and the output's tail.
    pub fn run(&self, values: &[(&str, String)]) -> Result<()> {
        self.run_as(None, values)
    }

    /// The same, as another user.
    pub fn run_as(&self, user: Option<&User>, values: &[(&str, String)]) -> Result<()> {
        let shown = self.shown();
        finish(&shown, self.begin(user, values)?, self.timeout)
    }

    /// Runs a command whose exit status is its answer. One that could not be run, that a signal ended or that took too
    /// long has not answered: an error with code 9.
    pub fn ask(&self, user: Option<&User>, values: &[(&str, String)]) -> Result<i32> {
        let (status, printed) = end(self.begin(user, values)?, self.timeout, None)?;
        match status.and_then(|status| status.code()) {
            // What a shell says of a command that it cannot find, or not run.
            Some(code) if code < 126 => Ok(code),
            _ => judge(&self.shown(), status, &printed).map(|()| 0),
        }
    }

    /// Runs a command for what it prints on its standard output, of which it is given up after `most` bytes.
    pub fn listen(&self, values: &[(&str, String)], most: u64) -> Result<Answer> {
        self.listen_until(values, most, None)
    }

    /// The same; when an end is asked for it is killed, as by the time-out.
    pub fn listen_until(&self, values: &[(&str, String)], most: u64, stop: Option<&Stop>) -> Result<Answer> {
        let mut child = self.begin(None, values)?;
        let output = child.stdout.take();
        let (heard, answer) = mpsc::channel();
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            // What was read until an error is judged by the command's own exit status.
            let _ = output.map(|output| output.take(most + 1).read_to_end(&mut bytes));
            let _ = heard.send(bytes);
        });
        let (status, printed) = end(child, self.timeout, stop)?;
        // Something that it left running may hold the pipe open: then nothing was heard to its end.
        let bytes = answer.recv_timeout(PATIENCE).unwrap_or_default();
        let words = judge(&self.shown(), status, &printed).err().map(|error| error.to_string());
        let is_long = bytes.len() as u64 > most;
        Ok(Answer { status: status.and_then(|status| status.code()), bytes, is_long, words })
    }

    /// Runs a command that may leave a server running. What both print goes to `output`.
    pub fn launch(&self, user: Option<&User>, values: &[(&str, String)], output: &File) -> Result<()> {
        let run = || format!("cannot run {}", self.shown());
        let mut command = user::command(user, "setsid");
        command.args(["/bin/sh", "-c", APART]).arg(&self.command).stdin(Stdio::null());
        command.stdout(output.try_clone().with_context(run)?).stderr(output.try_clone().with_context(run)?);
        command.envs(values.iter().map(|(key, value)| (key, value)));
        let (status, _) = end(command.spawn().with_context(run)?, self.timeout, None)?;
        judge(&self.shown(), status, &tail_of(output))
    }

    fn begin(&self, user: Option<&User>, values: &[(&str, String)]) -> Result<Child> {
        let mut command = user::command(user, "/bin/sh");
        command.arg("-c").arg(&self.command).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.envs(values.iter().map(|(key, value)| (key, value)));
        command.spawn().with_context(|| format!("cannot run {}", self.shown()))
    }

    fn shown(&self) -> String {
        format!("the {} command", self.name)
    }
}

/// The last bytes of a file, for an error: what cannot be read is not there.
fn tail_of(file: &File) -> Vec<u8> {
    let mut tail = vec![0; TAIL];
    let begin = file.metadata().map_or(0, |metadata| metadata.len().saturating_sub(TAIL as u64));
    let count = file.read_at(&mut tail, begin).unwrap_or(0);
    tail.truncate(count);
    tail
}

/// Waits for the end of a child that leads its own process group. Anything but exit status 0 is an error with code 9 and
/// the tail of those of its outputs that are pipes; at the time-out its group is killed.
pub(super) fn finish(name: &str, child: Child, timeout: Option<Duration>) -> Result<()> {
    let (status, printed) = end(child, timeout, None)?;
    judge(name, status, &printed)
}

/// Waits for the end of a child that leads its own process group; no status when it took too long, or an end was asked
/// for. With the tail of those of its outputs that are pipes.
fn end(mut child: Child, timeout: Option<Duration>, stop: Option<&Stop>) -> Result<(Option<ExitStatus>, Vec<u8>)> {
    let tail = Arc::new(Mutex::new(VecDeque::new()));
    let streams: [Option<Box<dyn Read + Send>>; 2] =
        [child.stdout.take().map(|out| Box::new(out) as _), child.stderr.take().map(|out| Box::new(out) as _)];
    // Each reader holds a sender until its stream has ended; none is left when all have.
    let (reading, ended) = mpsc::channel();
    streams.into_iter().flatten().for_each(|stream| keep_tail(stream, Arc::clone(&tail), reading.clone()));
    drop(reading);
    let status = wait(&mut child, timeout, stop)?;
    // Something that it left running may hold the pipe open: what was printed so far is enough.
    let _ = ended.recv_timeout(Duration::from_millis(200));
    let printed = tail.lock().make_contiguous().to_vec();
    Ok((status, printed))
}

/// Anything but exit status 0 is an error with code 9 and what was printed.
pub(super) fn judge(name: &str, status: Option<ExitStatus>, printed: &[u8]) -> Result<()> {
    let printed = show_bytes(printed.trim_ascii());
    let printed = if printed.is_empty() { "it printed nothing".to_owned() } else { printed };
    match status {
        Some(status) if status.success() => Ok(()),
        Some(status) => fail(Code::Hook, format!("{name} {}: {printed}", describe(status))),
        None => fail(Code::Hook, format!("{name} took too long and was ended: {printed}")),
    }
}

/// Waits for the child; `None` when it was killed by us.
fn wait(child: &mut Child, timeout: Option<Duration>, stop: Option<&Stop>) -> Result<Option<ExitStatus>> {
    let deadline = timeout.map(|timeout| Instant::now() + timeout);
    if child::has_ended(&child::watch(child)?, deadline, stop)? {
        return Ok(Some(child.wait()?));
    }
    end_group(child);
    child.wait()?;
    Ok(None)
}

/// Kills a child that leads its own process group, with all of the group.
pub(super) fn end_group(child: &Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // It may have ended in this instant; then there is nothing to kill.
        let _ = kill_process_group(group, Signal::KILL);
    }
}

/// `exited with 3`, `was killed by signal 9`.
pub fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exited with {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// Keeps the last bytes of a stream, in a thread of its own that drops `reading` at the stream's end.
pub(super) fn keep_tail(mut stream: Box<dyn Read + Send>, tail: Arc<Mutex<VecDeque<u8>>>, reading: mpsc::Sender<()>) {
    std::thread::spawn(move || {
        let mut buffer = [0; 1024];
        while let Ok(count @ 1..) = stream.read(&mut buffer) {
            let mut tail = tail.lock();
            tail.extend(&buffer[..count]);
            let excess = tail.len().saturating_sub(TAIL);
            tail.drain(..excess);
        }
        drop(reading);
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::exit::code_of;

    fn hook(command: &str) -> Hook {
        Hook { name: "feed", command: command.into(), timeout: Some(Duration::from_secs(20)) }
    }

    #[test]
    fn values_come_by_the_environment_and_are_not_interpreted() {
        let value = "a'; exit 1; $(exit 1)".to_owned();
        hook("test \"$REPL_X\" = \"a'; exit 1; \\$(exit 1)\"").run(&[("REPL_X", value)]).unwrap();
    }

    #[test]
    fn a_failure_shows_status_and_tail() {
        let error = hook("echo one; echo two >&2; exit 3").run(&[]).unwrap_err();
        assert_eq!(code_of(&error), Code::Hook);
        let text = error.to_string();
        assert!(text.contains("exited with 3") && text.contains("one") && text.contains("two"), "{text}");
    }

    #[test]
    fn a_status_is_an_answer_unless_there_was_none() {
        assert_eq!(hook("exit 0").ask(None, &[]).unwrap(), 0);
        assert_eq!(hook("exit 3").ask(None, &[]).unwrap(), 3);
        for silent in ["/no/such/command", "kill -9 $$"] {
            assert_eq!(code_of(&hook(silent).ask(None, &[]).unwrap_err()), Code::Hook, "{silent}");
        }
    }

    #[test]
    fn what_is_heard_is_standard_output_and_has_an_end() {
        let heard = hook("echo one; echo two >&2").listen(&[], 4).unwrap();
        assert_eq!(
            (heard.status, heard.bytes.as_slice(), heard.is_long, heard.words),
            (Some(0), b"one\n".as_slice(), false, None)
        );
        let failed = hook("echo one; echo two >&2; exit 3").listen(&[], 4).unwrap();
        assert_eq!((failed.status, failed.words.as_deref()), (Some(3), Some("the feed command exited with 3: two")));
        let endless = hook("exec yes").listen(&[], 4).unwrap();
        assert!(endless.is_long && endless.bytes.len() == 5, "{endless:?}");
        let slow = Hook { timeout: Some(Duration::from_millis(50)), ..hook("exec sleep 1000") };
        assert_eq!(slow.listen(&[], 4).unwrap().status, None);
    }

    #[test]
    fn what_is_launched_leads_a_session_and_writes_to_its_file() {
        let output = tempfile::tempfile().unwrap();
        // Field 6 of the process is its session.
        let launch = "cut -d' ' -f6 /proc/$$/stat; echo $$; readlink /proc/$$/fd/0 >&2";
        hook(launch).launch(None, &[], &output).unwrap();
        let text = String::from_utf8(tail_of(&output)).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], lines[1]);
        assert_eq!(&lines[2..], ["/dev/null"]);

        let error = hook("echo why; exit 4").launch(None, &[], &output).unwrap_err();
        assert!(error.to_string().contains("exited with 4") && error.to_string().contains("why"), "{error}");
    }

    #[test]
    fn what_is_launched_does_not_hold_the_lock_of_an_operators_script() {
        const INSIDE: &str = "REPL_TEST_INSIDE";
        if std::env::var_os(INSIDE).is_some() {
            hook("test -e /proc/$$/fd/9").run(&[]).unwrap();
            hook("test ! -e /proc/$$/fd/9").launch(None, &[], &tempfile::tempfile().unwrap()).unwrap();
            return;
        }
        let name = "edge::hook::tests::what_is_launched_does_not_hold_the_lock_of_an_operators_script";
        let mut script = std::process::Command::new("/bin/sh");
        script.args(["-c", "exec \"$0\" --exact \"$1\" 9>/dev/null"]).arg(std::env::current_exe().unwrap()).arg(name);
        let ran = script.env(INSIDE, "1").output().unwrap();
        assert!(ran.status.success(), "{ran:?}");
    }

    #[test]
    fn a_time_out_ends_the_whole_group() {
        let mut slow = hook("sleep 1000 & echo $! ; wait");
        slow.timeout = Some(Duration::from_millis(300));
        let text = slow.run(&[]).unwrap_err().to_string();
        let pid = text.rsplit(' ').next().unwrap().to_owned();
        let gone = || match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => stat.contains(") Z "),
            Err(_) => true,
        };
        let patience = Instant::now() + Duration::from_secs(10);
        while !gone() && Instant::now() < patience {
            std::thread::yield_now();
        }
        assert!(gone(), "{text}");
    }
}
