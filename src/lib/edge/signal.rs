//! TERM, INT and HUP as a request to finish: seen by a flag, by a descriptor that becomes readable, and by a bell.
//! A second signal ends the process at once, as an operator expects of a second Ctrl-C.

use std::io::{self, Read as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::bell::Bell;

/// Whether an end was asked for.
#[derive(Clone)]
pub struct Stop {
    flag: Arc<AtomicBool>,
    readable: Arc<UnixStream>,
}

impl Stop {
    /// Catches the signals from now on; `bell` is rung at the first.
    pub fn catch(bell: Bell) -> io::Result<Stop> {
        let flag = Arc::new(AtomicBool::new(false));
        let (read, write) = UnixStream::pair()?;
        let (mut rung, ringer) = UnixStream::pair()?;
        for signal in [SIGTERM, SIGINT, SIGHUP] {
            // In this order: the second signal finds the flag set and ends the process with the signal's own status.
            signal_hook::flag::register_conditional_default(signal, Arc::clone(&flag))?;
            signal_hook::flag::register(signal, Arc::clone(&flag))?;
            signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
            signal_hook::low_level::pipe::register(signal, ringer.try_clone()?)?;
        }
        let spawned = std::thread::Builder::new().name("signals".into()).spawn(move || {
            let mut byte = [0];
            while matches!(rung.read(&mut byte), Ok(1)) {
                bell.ring();
            }
        });
        spawned.map(|_| Stop { flag, readable: Arc::new(read) })
    }

    /// Whether an end was asked for.
    pub fn is_asked(&self) -> bool {
        self.flag.load(Ordering::SeqCst)
    }
}

impl AsFd for Stop {
    /// Readable once an end was asked for, and from then on.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readable.as_fd()
    }
}
