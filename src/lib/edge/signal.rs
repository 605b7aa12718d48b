//! Signals as requests. TERM, INT and HUP ask to finish: seen by a flag, by a descriptor that becomes readable, and by a
//! bell; a second one ends the process at once, as an operator expects of a second Ctrl-C. Others ask for something to be
//! done, once for all that come until it is.

use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};

use super::bell::Bell;

/// Whether an end was asked for.
#[derive(Clone, Debug)]
pub struct Stop {
    flag: Arc<AtomicBool>,
    readable: Arc<UnixStream>,
}

impl Stop {
    /// Catches TERM, INT and HUP from now on; `bell` is rung at the first.
    pub fn catch(bell: Bell) -> io::Result<Stop> {
        Stop::on(&[SIGTERM, SIGINT, SIGHUP], bell)
    }

    /// The same without HUP, which then asks for something else ([`Wish::reload`]).
    pub fn catch_but_hangup(bell: Bell) -> io::Result<Stop> {
        Stop::on(&[SIGTERM, SIGINT], bell)
    }

    fn on(signals: &[i32], bell: Bell) -> io::Result<Stop> {
        let flag = Arc::new(AtomicBool::new(false));
        let (read, write) = UnixStream::pair()?;
        let ringer = ringer(bell)?;
        for signal in signals {
            // In this order: the second signal finds the flag set and ends the process with the signal's own status.
            signal_hook::flag::register_conditional_default(*signal, Arc::clone(&flag))?;
            signal_hook::flag::register(*signal, Arc::clone(&flag))?;
            signal_hook::low_level::pipe::register(*signal, write.try_clone()?)?;
            signal_hook::low_level::pipe::register(*signal, ringer.try_clone()?)?;
        }
        Ok(Stop { flag, readable: Arc::new(read) })
    }

    /// Whether an end was asked for.
    pub fn is_asked(&self) -> bool {
        self.flag.load(Ordering::SeqCst)
    }
}

/// Asks a process to finish, if it is one of this program; whoever has got its number meanwhile is left alone.
pub fn end(pid: i32, program: &str) {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    if let Some(pid) = Pid::from_raw(pid).filter(|_| name.trim() == program) {
        // It may have ended in this instant.
        let _ = kill_process(pid, Signal::TERM);
    }
}

impl AsFd for Stop {
    /// Readable once an end was asked for, and from then on.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }
}

/// Something that a signal asks for.
#[derive(Clone)]
pub struct Wish(Arc<AtomicBool>);

impl Wish {
    /// HUP asks to read the configuration again.
    pub fn reload(bell: Bell) -> io::Result<Wish> {
        Wish::on(SIGHUP, bell)
    }

    /// USR1 asks to look now.
    pub fn look(bell: Bell) -> io::Result<Wish> {
        Wish::on(SIGUSR1, bell)
    }

    fn on(signal: i32, bell: Bell) -> io::Result<Wish> {
        let flag = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal, Arc::clone(&flag))?;
        signal_hook::low_level::pipe::register(signal, ringer(bell)?)?;
        Ok(Wish(flag))
    }

    /// Whether it was asked for since the last call.
    pub fn take(&self) -> bool {
        self.0.swap(false, Ordering::SeqCst)
    }
}

/// A descriptor that rings a bell when something is written to it, which is all that a signal's handler may do.
fn ringer(bell: Bell) -> io::Result<UnixStream> {
    let (mut rung, ringer) = UnixStream::pair()?;
    let listen = move || {
        let mut byte = [0];
        while matches!(rung.read(&mut byte), Ok(1)) {
            bell.ring();
        }
    };
    std::thread::Builder::new().name("signals".into()).spawn(listen).map(|_| ringer)
}
