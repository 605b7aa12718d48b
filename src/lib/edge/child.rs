//! Waiting for a child's end without asking again and again: by a descriptor that becomes readable when it has ended.
//! And what no child is told: the variables that stand for flags of the command that starts it. One of the suite's own
//! would take them for its flags: a receiver, its sender's state directory for its own.

use std::io;
use std::os::fd::OwnedFd;
use std::process::{Child, Command};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::signal::Stop;
use crate::rule::config::VARIABLE;

/// Takes the variables that stand for our flags out of what a child is told.
pub(super) fn untell(command: &mut Command) {
    for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_string_lossy().starts_with(VARIABLE)) {
        command.env_remove(key);
    }
}

/// A descriptor for a child that has not been waited for yet, so that its number is still its own.
pub(super) fn watch(child: &Child) -> io::Result<OwnedFd> {
    Ok(pidfd_open(Pid::from_child(child), PidfdFlags::empty())?)
}

/// Waits until a watched child has ended; false when the deadline came first, or an end was asked for.
pub(super) fn has_ended(watched: &OwnedFd, deadline: Option<Instant>, stop: Option<&Stop>) -> io::Result<bool> {
    let mut fds = vec![PollFd::new(watched, PollFlags::IN)];
    fds.extend(stop.map(|stop| PollFd::new(stop, PollFlags::IN)));
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // Longer than the longest that can be said is for ever.
        let left = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut fds, left.as_ref()) {
            Ok(_) => return Ok(!fds[0].revents().is_empty()),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
