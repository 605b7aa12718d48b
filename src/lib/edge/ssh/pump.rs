//! Moves bytes between a remote command and the two local sockets that stand for its input and output, both ways at once.
//!
//! A session of the library is one state machine behind one lock: a read that waits keeps every write waiting, and two
//! threads that each wait for the other's direction are a deadlock. So one thread owns the session, nothing in it blocks,
//! and it waits in one place, for everything at once. One piece is held in each direction and the next is taken only when
//! that is gone: a slow reader at either end slows its writer down, and memory stays bounded by two pieces and the window
//! that the remote command may fill.
//!
//! A packet that went out by half is pending in the library, which finishes it only by the same call again. Data and
//! window adjustments are repeated anyway, since their piece is still there. End-of-file and keep-alives are sent only
//! while the socket has room, so that they go out whole.
//!
//! The library counts what an adjustment grants by the size of the read that finished it, not of the one that began it. A
//! read of another size in between, and host and library differ about the window: what comes beyond the library's is
//! dropped. So every read, of either stream, is for one size; and a drop ends the connection, should there be one.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use ssh2::{BlockDirections, Channel, ErrorCode, Session};

/// Bytes that are held in each direction.
const PIECE: usize = 1 << 18;
/// A pipe that is ready takes this much without waiting (`PIPE_BUF`).
const WORDS: usize = 4096;
/// `LIBSSH2_ERROR_CHANNEL_WINDOW_EXCEEDED` and `LIBSSH2_ERROR_CHANNEL_PACKET_EXCEEDED`.
const WINDOW_EXCEEDED: i32 = -24;
const PACKET_EXCEEDED: i32 = -25;
/// Packets that are sent before the other direction is looked at.
const BURST: usize = 8;
/// The library sends a keep-alive at most this often.
const ASKED: Duration = Duration::from_secs(2);
/// A silent host is asked this often before it is given up.
const QUESTIONS: u32 = 2;
/// The stream of a channel that carries standard error (RFC 4254, 5.2).
const STANDARD_ERROR: i32 = 1;

/// Bytes on their way.
struct Piece {
    bytes: Vec<u8>,
    from: usize,
    to: usize,
}

impl Piece {
    fn new(size: usize) -> Piece {
        Piece { bytes: vec![0; size], from: 0, to: 0 }
    }

    fn is_empty(&self) -> bool {
        self.from == self.to
    }

    fn fill(&mut self, count: usize) {
        (self.from, self.to) = (0, count);
    }

    fn left(&self) -> &[u8] {
        &self.bytes[self.from..self.to]
    }
}

/// What goes where.
pub(super) struct Ends<'a> {
    /// Where the caller writes to; read here.
    pub(super) input: &'a UnixStream,
    /// Where the caller reads from; written here.
    pub(super) output: &'a UnixStream,
    /// Where the remote command's words go.
    pub(super) words: &'a OwnedFd,
    /// Readable once all this is to end.
    pub(super) wake: &'a OwnedFd,
}

/// One remote command's conversation.
pub(super) struct Pump<'a> {
    session: &'a Session,
    channel: Channel,
    socket: &'a TcpStream,
    ends: Ends<'a>,
    incoming: Piece,
    said: Piece,
    outgoing: Piece,
    /// The caller writes no more; the remote command was told.
    input_ended: bool,
    told_end: bool,
    /// The caller reads no more: what comes is dropped, so that the remote command can go on to its end.
    is_deaf: bool,
    /// The remote command writes no more.
    output_ended: bool,
    /// The host has nothing to add but the end of the channel.
    is_quiet: bool,
    is_closed: bool,
    alive: Duration,
    heard: Instant,
    /// How often a sign of life was asked for since then, and when last.
    questions: u32,
    asked: Instant,
}

impl<'a> Pump<'a> {
    /// `alive` is the silence after which the host is asked for a sign of life, two seconds at least.
    pub(super) fn new(
        session: &'a Session,
        channel: Channel,
        socket: &'a TcpStream,
        ends: Ends<'a>,
        alive: Duration,
    ) -> io::Result<Pump<'a>> {
        session.set_blocking(false);
        socket.set_nonblocking(true)?;
        ends.input.set_nonblocking(true)?;
        ends.output.set_nonblocking(true)?;
        session.set_keepalive(true, 1);
        Ok(Pump {
            session,
            channel,
            socket,
            ends,
            incoming: Piece::new(PIECE),
            said: Piece::new(PIECE),
            outgoing: Piece::new(PIECE),
            input_ended: false,
            told_end: false,
            is_deaf: false,
            output_ended: false,
            is_quiet: false,
            is_closed: false,
            alive: alive.max(ASKED),
            heard: Instant::now(),
            questions: 0,
            asked: Instant::now(),
        })
    }

    /// Runs until the remote command has ended and all that it wrote is handed over, or the link fails.
    pub(super) fn run(mut self) -> io::Result<ExitStatus> {
        loop {
            let mut has_moved = self.receive()?;
            if has_moved {
                self.hear();
            }
            self.check_whole()?;
            has_moved |= self.hand_over()?;
            has_moved |= self.speak()?;
            if self.is_over()? {
                return self.status();
            }
            has_moved |= self.take()?;
            has_moved |= self.send()?;
            self.check_whole()?;
            if !self.wait(if has_moved { Duration::ZERO } else { self.alive })? {
                return Err(io::ErrorKind::Interrupted.into());
            }
        }
    }

    /// Takes what the remote command wrote, as far as there is room here.
    fn receive(&mut self) -> io::Result<bool> {
        let mut has_moved = false;
        if self.said.is_empty() && !self.output_ended {
            let count = ready(self.channel.stream(STANDARD_ERROR).read(&mut self.said.bytes))?.unwrap_or(0);
            self.said.fill(count);
            has_moved |= count > 0;
        }
        if self.incoming.is_empty() && !self.output_ended {
            match ready(self.channel.stream(0).read(&mut self.incoming.bytes))? {
                // Only when nothing of either stream is left.
                Some(0) if self.channel.eof() => {
                    self.output_ended = true;
                    // A caller that reads gets its end now, though the command may still run.
                    let _ = self.ends.output.shutdown(Shutdown::Write);
                    has_moved = true;
                }
                Some(count) => {
                    self.incoming.fill(count);
                    has_moved |= count > 0;
                }
                None => {}
            }
        } else if !self.output_ended && !self.is_quiet {
            // What the host asks of us (keys anew, a sign of life) is answered though the caller is slow.
            self.is_quiet = ready(self.channel.wait_eof().map_err(Into::into))?.is_some();
        }
        Ok(has_moved)
    }

    /// The library drops data that does not fit into the window it keeps, and goes on. A link may fail, but not so.
    fn check_whole(&self) -> io::Result<()> {
        match ssh2::Error::last_session_error(self.session) {
            Some(error) if matches!(error.code(), ErrorCode::Session(WINDOW_EXCEEDED | PACKET_EXCEEDED)) => {
                Err(io::Error::other(error))
            }
            _ => Ok(()),
        }
    }

    /// Hands over to the caller.
    fn hand_over(&mut self) -> io::Result<bool> {
        let mut has_moved = false;
        while !self.incoming.is_empty() {
            if self.is_deaf {
                self.incoming.fill(0);
                return Ok(true);
            }
            match ready(self.ends.output.write(self.incoming.left())) {
                Ok(Some(count)) => self.incoming.from += count,
                Ok(None) => break,
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.is_deaf = true,
                Err(error) => return Err(error),
            }
            has_moved = true;
        }
        Ok(has_moved)
    }

    /// Says what the remote command said; others share that descriptor, so it is asked first whether it would wait.
    fn speak(&mut self) -> io::Result<bool> {
        if self.said.is_empty() || !is_ready(self.ends.words, PollFlags::OUT)? {
            return Ok(false);
        }
        let some = &self.said.left()[..self.said.left().len().min(WORDS)];
        // With nobody to hear it, it is dropped.
        let count = rustix::io::write(self.ends.words, some).unwrap_or(some.len());
        self.said.from += count;
        Ok(true)
    }

    /// Takes from the caller.
    fn take(&mut self) -> io::Result<bool> {
        if self.input_ended || !self.outgoing.is_empty() {
            return Ok(false);
        }
        match ready(self.ends.input.read(&mut self.outgoing.bytes))? {
            Some(0) => self.input_ended = true,
            Some(count) => self.outgoing.fill(count),
            None => return Ok(false),
        }
        Ok(true)
    }

    /// Sends to the remote command, at most some packets at a time.
    fn send(&mut self) -> io::Result<bool> {
        let mut has_moved = false;
        for _ in 0..BURST {
            if self.outgoing.is_empty() {
                break;
            }
            match ready(self.channel.stream(0).write(self.outgoing.left()))? {
                Some(count) if count > 0 => self.outgoing.from += count,
                _ => break,
            }
            has_moved = true;
        }
        if self.outgoing.is_empty() && self.input_ended && !self.told_end && self.has_room()? {
            self.told_end = ready(self.channel.send_eof().map_err(Into::into))?.is_some();
            has_moved |= self.told_end;
        }
        Ok(has_moved)
    }

    /// Whether a small packet would go out whole: nothing is pending, and the socket takes more.
    fn has_room(&self) -> io::Result<bool> {
        Ok(!self.is_pending() && is_ready(self.socket, PollFlags::OUT)?)
    }

    fn is_pending(&self) -> bool {
        matches!(self.session.block_directions(), BlockDirections::Outbound | BlockDirections::Both)
    }

    /// Whether the host has closed the channel, so that the exit status is known, and all was handed over.
    fn is_over(&mut self) -> io::Result<bool> {
        if self.output_ended && !self.is_closed {
            self.is_closed = ready(self.channel.wait_close().map_err(Into::into))?.is_some();
        }
        Ok(self.is_closed && self.said.is_empty())
    }

    fn status(&mut self) -> io::Result<ExitStatus> {
        let signal = self.channel.exit_signal()?;
        let status = self.channel.exit_status()?;
        if self.has_room()? {
            // The host's own end of the connection is orderly, too; it does not matter to us if this fails.
            let _ = self.session.disconnect(None, "done", None);
        }
        // As a process here would have ended (wait(2)), so that nobody has to know where it ran.
        Ok(ExitStatus::from_raw(match signal.exit_signal {
            Some(name) => number(&name),
            None => (status & 0xff) << 8,
        }))
    }

    /// Waits until something can be done, at most for a time; false when all is to end.
    fn wait(&mut self, time: Duration) -> io::Result<bool> {
        self.ask()?;
        let mut direction = PollFlags::empty();
        let is_listening = !self.is_closed && (self.incoming.is_empty() || !self.is_quiet);
        if is_listening {
            direction |= PollFlags::IN;
        }
        if self.is_pending() || (self.outgoing.is_empty() && self.input_ended && !self.told_end) {
            direction |= PollFlags::OUT;
        }
        let mut fds = vec![PollFd::new(self.ends.wake, PollFlags::IN)];
        if !direction.is_empty() {
            fds.push(PollFd::new(self.socket, direction));
        }
        if !self.incoming.is_empty() {
            fds.push(PollFd::new(self.ends.output, PollFlags::OUT));
        }
        if !self.said.is_empty() {
            fds.push(PollFd::new(self.ends.words, PollFlags::OUT));
        }
        if self.outgoing.is_empty() && !self.input_ended {
            fds.push(PollFd::new(self.ends.input, PollFlags::IN));
        }
        match poll(&mut fds, Some(&timespec(time))) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let is_over = !fds[0].revents().is_empty();
        let has_heard = is_listening && !fds[1].revents().is_empty();
        drop(fds);
        // While nobody listens, silence says nothing.
        if has_heard || !is_listening {
            self.hear();
        }
        self.check_alive()?;
        Ok(!is_over)
    }

    fn hear(&mut self) {
        let now = Instant::now();
        (self.heard, self.asked, self.questions) = (now, now, 0);
    }

    /// Asks a silent host for a sign of life. What follows is the wait, which sees the answer: any call of the library
    /// would take it without a word.
    fn ask(&mut self) -> io::Result<()> {
        if self.questions < QUESTIONS && self.asked.elapsed() >= self.alive {
            (self.asked, self.questions) = (Instant::now(), self.questions + 1);
            // With something on its way already, that is the question.
            if self.has_room()? {
                self.session.keepalive_send()?;
            }
        }
        Ok(())
    }

    /// Gives up a host that no question has brought a sign of life from.
    fn check_alive(&self) -> io::Result<()> {
        if self.questions == QUESTIONS && self.asked.elapsed() >= self.alive {
            let text = format!("nothing was heard for {} s", self.heard.elapsed().as_secs());
            return Err(io::Error::new(io::ErrorKind::TimedOut, text));
        }
        Ok(())
    }
}

/// What a call that may not wait came to; `None` when it would have waited.
fn ready<T>(done: io::Result<T>) -> io::Result<Option<T>> {
    match done {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_ready(fd: &impl std::os::fd::AsFd, direction: PollFlags) -> io::Result<bool> {
    match poll(&mut [PollFd::new(fd, direction)], Some(&Timespec::default())) {
        Ok(count) => Ok(count > 0),
        Err(Errno::INTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn timespec(time: Duration) -> Timespec {
    Timespec { tv_sec: time.as_secs().cast_signed(), tv_nsec: time.subsec_nanos().into() }
}

/// The number of a signal that a host names (RFC 4254, 6.10); one with a name of its own is as good as a kill.
fn number(name: &str) -> i32 {
    match name {
        "HUP" => 1,
        "INT" => 2,
        "QUIT" => 3,
        "ILL" => 4,
        "ABRT" => 6,
        "FPE" => 8,
        "USR1" => 10,
        "SEGV" => 11,
        "USR2" => 12,
        "PIPE" => 13,
        "ALRM" => 14,
        "TERM" => 15,
        _ => 9,
    }
}
