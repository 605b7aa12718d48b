//! The two ends of a link: a command that was started for it, here or at another machine, or the standard streams of
//! this process.
//!
//! A peer may be silent for ever, so every read has a time-out, and a command that does not take our bytes is ended by
//! whoever notices the silence. Time-outs go by a clock that does not jump.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, OFlags};
use rustix::io::Errno;

use super::child;
use super::hook::end_group;
use super::signal::Stop;
use super::ssh;
use crate::value::exit::{Code, fail};
use crate::value::ssh_url::SshUrl;

/// Pipe capacity that is asked for: fewer switches between the processes of a pipeline.
const PIPE: usize = 1 << 20;

/// Reads a descriptor with a time-out; a request to stop reads as the end of the stream.
pub struct Inlet<F> {
    fd: F,
    timeout: Duration,
    stop: Option<Stop>,
}

impl<F: AsFd> Inlet<F> {
    /// Reads `fd`; after `timeout` without a byte a read fails with `TimedOut`.
    pub fn new(fd: F, timeout: Duration, stop: Option<Stop>) -> Inlet<F> {
        enlarge(fd.as_fd());
        Inlet { fd, timeout, stop }
    }

    /// Whether bytes can be read without waiting.
    pub fn is_ready(&self) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        matches!(poll(&mut fds, Some(&Timespec::default())), Ok(1..))
    }
}

impl<F: AsFd> Read for Inlet<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let deadline = Instant::now() + self.timeout;
        loop {
            if self.stop.as_ref().is_some_and(Stop::is_asked) {
                return Ok(0);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
            let mut fds = vec![PollFd::new(&self.fd, PollFlags::IN)];
            fds.extend(self.stop.as_ref().map(|stop| PollFd::new(stop, PollFlags::IN)));
            match poll(&mut fds, Some(&left)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) if fds[0].revents().is_empty() => {}
                Ok(_) => match rustix::io::read(&self.fd, &mut *buffer) {
                    Err(Errno::INTR | Errno::AGAIN) => {}
                    done => return done.map_err(Into::into),
                },
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Writes a descriptor without ever being stuck in it: while the reader takes nothing, `give_up` is asked now and then.
pub struct Outgoing<F: AsFd> {
    fd: F,
    give_up: Box<dyn Fn() -> bool + Send>,
    /// The descriptor's flags as they were, since others may share it.
    flags: Option<OFlags>,
}

impl<F: AsFd> Outgoing<F> {
    /// Writes `fd`; a write fails with `TimedOut` once `give_up` says so.
    pub fn new(fd: F, give_up: Box<dyn Fn() -> bool + Send>) -> Outgoing<F> {
        let flags = rustix::fs::fcntl_getfl(&fd).ok();
        let flags = flags.filter(|flags| rustix::fs::fcntl_setfl(&fd, *flags | OFlags::NONBLOCK).is_ok());
        Outgoing { fd, give_up, flags }
    }

    fn wait(&self) -> io::Result<()> {
        let now_and_then = Timespec { tv_sec: 0, tv_nsec: 250_000_000 };
        let mut fds = [PollFd::new(&self.fd, PollFlags::OUT)];
        match poll(&mut fds, Some(&now_and_then)) {
            Ok(0) if (self.give_up)() => Err(io::ErrorKind::TimedOut.into()),
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

impl<F: AsFd> Write for Outgoing<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[io::IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
        loop {
            match rustix::io::writev(&self.fd, parts) {
                Err(Errno::AGAIN) => self.wait()?,
                Err(Errno::INTR) => {}
                done => return done.map_err(Into::into),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<F: AsFd> Drop for Outgoing<F> {
    fn drop(&mut self) {
        if let Some(flags) = self.flags {
            // Nobody is left to be told, and the descriptor is about to go.
            let _ = rustix::fs::fcntl_setfl(&self.fd, flags);
        }
    }
}

/// Asks for a large pipe; a refusal (not a pipe, or over the user's limit) costs only speed.
pub fn enlarge(fd: BorrowedFd<'_>) {
    let _ = rustix::pipe::fcntl_setpipe_size(fd, PIPE);
}

/// The far end of a link, and how it comes to be there.
#[derive(Clone, Debug)]
pub enum Far {
    /// A command here, run by `/bin/sh -c`. Its standard error is ours.
    Command(String),
    /// A command at another machine.
    Ssh {
        /// Which machine.
        url: SshUrl,
        /// What its login shell is given to run.
        command: String,
        /// How to reach it.
        options: ssh::Options,
    },
}

impl Far {
    /// Starts the command; returns its input and its output. Whatever goes wrong after that is what [`Peer::finish`] says.
    pub fn start(&self) -> Result<(Peer, OwnedFd, OwnedFd)> {
        match self {
            Far::Command(command) => start(command),
            Far::Ssh { url, command, options } => {
                let (remote, input, output) = ssh::start(url, command, options)?;
                Ok((Peer(End::Remote(remote)), input, output))
            }
        }
    }
}

/// A command that was started to be the far end. Clones name the same command.
#[derive(Clone)]
pub struct Peer(End);

#[derive(Clone)]
enum End {
    Child { child: Arc<Mutex<Child>>, leads_group: bool },
    Remote(ssh::Remote),
}

/// Starts a command by `/bin/sh -c` with pipes to and from it. Its standard error is ours.
pub fn start(command: &str) -> Result<(Peer, OwnedFd, OwnedFd)> {
    // A command that may ask the terminal for a password must stay in the terminal's foreground group.
    let leads_group = !rustix::termios::isatty(rustix::stdio::stdin());
    let mut shell = Command::new("/bin/sh");
    child::untell(&mut shell);
    shell.arg("-c").arg(command).stdin(Stdio::piped()).stdout(Stdio::piped());
    if leads_group {
        shell.process_group(0);
    }
    let mut child = shell.spawn().context("cannot run /bin/sh")?;
    let (Some(input), Some(output)) = (child.stdin.take(), child.stdout.take()) else {
        return fail(Code::Failed, "a started command has no pipes");
    };
    enlarge(input.as_fd());
    let end = End::Child { child: Arc::new(Mutex::new(child)), leads_group };
    Ok((Peer(end), input.into(), output.into()))
}

impl Peer {
    /// Ends the command at once; its pipes break.
    pub fn kill(&self) {
        match &self.0 {
            End::Child { child, leads_group } => kill(&mut child.lock(), *leads_group),
            End::Remote(remote) => remote.kill(),
        }
    }

    /// Waits for the command, which has been given the end of its input; after `patience` it is killed. A command at
    /// another machine that could not be started, or whose connection was lost, is an error with the code that says why.
    pub fn finish(&self, patience: Duration) -> Result<ExitStatus> {
        let (child, leads_group) = match &self.0 {
            End::Child { child, leads_group } => (child, *leads_group),
            End::Remote(remote) => return remote.finish(patience),
        };
        let watched = {
            let mut child = child.lock();
            if let Some(status) = child.try_wait()? {
                return Ok(status);
            }
            child::watch(&child)?
        };
        // Not under the lock: others may kill it meanwhile.
        if !child::has_ended(&watched, Some(Instant::now() + patience), None)? {
            kill(&mut child.lock(), leads_group);
        }
        Ok(child.lock().wait()?)
    }
}

fn kill(child: &mut Child, leads_group: bool) {
    if matches!(child.try_wait(), Ok(None)) {
        if leads_group {
            end_group(child);
        }
        // Already gone is as good as killed.
        let _ = child.kill();
    }
}

/// Standard output for a stream: a descriptor of our own, refused when it is a terminal.
pub fn stream_output() -> Result<File> {
    let out = rustix::stdio::stdout();
    if rustix::termios::isatty(out) {
        return fail(Code::Usage, "standard output is a terminal; a log stream goes to a pipe, or use --via");
    }
    if is_closed(out) {
        return fail(Code::Usage, "standard output is closed; a log stream goes to a pipe, or use --via");
    }
    enlarge(out);
    Ok(File::from(out.try_clone_to_owned().context("cannot use standard output")?))
}

/// Whether a standard stream was closed when this process started: Rust then opens `/dev/null` for it, for reading and
/// writing, which nobody does by a redirection.
fn is_closed(fd: BorrowedFd<'_>) -> bool {
    let is_null = |stat: rustix::fs::Stat| {
        FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
            && (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev)) == (1, 3)
    };
    let is_both_ways = |flags: OFlags| flags.contains(OFlags::RDWR);
    rustix::fs::fstat(fd).is_ok_and(is_null) && rustix::fs::fcntl_getfl(fd).is_ok_and(is_both_ways)
}

/// Standard input for a stream: a descriptor of our own, refused when it is a terminal.
pub fn stream_input() -> Result<OwnedFd> {
    let input = rustix::stdio::stdin();
    if rustix::termios::isatty(input) {
        return fail(Code::Usage, "standard input is a terminal; a log stream comes from repl-ship by a pipe");
    }
    input.try_clone_to_owned().context("cannot use standard input")
}

/// Opens a fifo (or any file) to read lines of acknowledgement from; waits until its writer is there.
pub fn open_acks(path: &Path) -> Result<File> {
    let shown = super::dir::shown(path);
    let file = std::fs::OpenOptions::new().read(true).custom_flags(0).open(path);
    let file = file.with_context(|| format!("cannot open {shown}"))?;
    let kind = FileType::from_raw_mode(rustix::fs::fstat(&file).map_err(io::Error::from)?.st_mode);
    if kind != FileType::Fifo {
        return fail(Code::Usage, format!("{shown} is not a fifo; make one with mkfifo"));
    }
    Ok(file)
}

/// Writes one line to standard output in one write, at once. A reader that takes nothing for `timeout` counts as gone:
/// a pipe that is ready takes a line of up to `PIPE_BUF` bytes without waiting.
pub fn print_line(line: &str, timeout: Duration) -> io::Result<()> {
    let mut out = io::stdout().lock();
    if !is_writable(rustix::stdio::stdout(), timeout)? {
        return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the sender takes no lines"));
    }
    out.write_all(format!("{line}\n").as_bytes())?;
    out.flush()
}

/// Waits until something can be written; false when that takes too long.
fn is_writable(fd: impl AsFd, timeout: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + timeout;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: left.subsec_nanos().into() };
        match poll(&mut [PollFd::new(&fd, PollFlags::OUT)], Some(&left)) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
