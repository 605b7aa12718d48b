//! The one register of exit codes, and the error that carries one.
//!
//! An exit code says what to do next, so that a script can act on it without reading words. A cause that decides the
//! code is a [`Failure`] somewhere in the `anyhow` chain; everything else is judged by [`code_of`].

use std::fmt;
use std::io;

/// What to do next (DESIGN: "exit codes"). The numbers are a contract with scripts and never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Code {
    /// Done.
    Done = 0,
    /// Failed: read the message; nothing was lost, running it again is safe.
    Failed = 1,
    /// The command line or the configuration is wrong.
    Usage = 2,
    /// Needed log is no longer there: resync, or restore from an archive.
    Gap = 3,
    /// Two histories: look, then set aside or resync.
    Diverged = 4,
    /// Wrong role, other set or old epoch: do not restart.
    Fenced = 5,
    /// A log, stream or archive fails its checks: look.
    Corrupt = 6,
    /// Another instance holds the lock.
    Busy = 7,
    /// The peer is unreachable or gone: try again.
    Link = 8,
    /// A configured command failed.
    Hook = 9,
    /// Not acknowledged in time: durable here, wait again.
    Unconfirmed = 10,
    /// Log was given up by policy.
    Dropped = 11,
    /// A disk is full; nothing acknowledged is affected.
    Full = 12,
    /// A guard stopped it before anything was touched.
    Guarded = 13,
}

/// Every code with the name it has in the manual.
pub const REGISTER: [(Code, &str); 14] = [
    (Code::Done, "done"),
    (Code::Failed, "failed"),
    (Code::Usage, "usage"),
    (Code::Gap, "gap"),
    (Code::Diverged, "diverged"),
    (Code::Fenced, "fenced"),
    (Code::Corrupt, "corrupt"),
    (Code::Busy, "busy"),
    (Code::Link, "link"),
    (Code::Hook, "hook"),
    (Code::Unconfirmed, "unconfirmed"),
    (Code::Dropped, "dropped"),
    (Code::Full, "full"),
    (Code::Guarded, "guarded"),
];

/// What `repl-fetch` alone exits with for every error, and 1 ([`Code::Failed`]) only for "there is no such segment": it
/// speaks PostgreSQL's `restore_command`, where 1 to 125 say that the log ends here, and more ends the recovery.
pub const RECOVERY_ENDS: u8 = 126;

impl Code {
    /// The code with this number, if there is one.
    pub fn from_number(number: u8) -> Option<Code> {
        REGISTER.iter().map(|(code, _)| *code).find(|code| *code as u8 == number)
    }

    /// Its name in the manual.
    pub fn name(self) -> &'static str {
        REGISTER[self as usize].1
    }

    /// Whether the same attempt may succeed later by itself: a busy or unreachable peer, or a full disk.
    pub fn is_transient(self) -> bool {
        matches!(self, Code::Busy | Code::Link | Code::Full)
    }
}

/// An error whose exit code is decided, with an optional command that helps.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What to do next.
    pub code: Code,
    text: String,
    hint: Option<String>,
}

impl Failure {
    /// A failure with one line of text: object and cause.
    pub fn new(code: Code, text: impl Into<String>) -> Failure {
        Failure { code, text: text.into(), hint: None }
    }

    /// One that another end tells of, in its words; without a hint where that is empty.
    pub fn told(code: Code, text: String, hint: String) -> Failure {
        Failure { code, text, hint: Some(hint).filter(|hint| !hint.is_empty()) }
    }

    /// The exact command (or option) that the operator can use next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Failure {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.text)
    }
}

impl std::error::Error for Failure {}

/// `Err` with a [`Failure`] of this code and text.
pub fn fail<T>(code: Code, text: impl Into<String>) -> anyhow::Result<T> {
    Err(Failure::new(code, text).into())
}

/// The exit code of an error: the first [`Failure`] in its chain decides, then the kind of an I/O error.
pub fn code_of(error: &anyhow::Error) -> Code {
    // One that was added as context is found only this way.
    if let Some(failure) = error.downcast_ref::<Failure>() {
        return failure.code;
    }
    for cause in error.chain() {
        if let Some(io) = cause.downcast_ref::<io::Error>() {
            match io.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => return Code::Full,
                io::ErrorKind::BrokenPipe => return Code::Link,
                _ => {}
            }
        }
    }
    Code::Failed
}

/// The hint that goes with an error, if one was given.
pub fn hint_of(error: &anyhow::Error) -> Option<&str> {
    let causes = error.chain().filter_map(|cause| cause.downcast_ref::<Failure>());
    error.downcast_ref::<Failure>().into_iter().chain(causes).find_map(|failure| failure.hint.as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::Context as _;

    #[test]
    fn numbers_are_the_positions_in_the_register() {
        for (number, (code, _)) in REGISTER.iter().enumerate() {
            assert_eq!(*code as usize, number);
            assert_eq!(Code::from_number(number as u8), Some(*code));
            assert_eq!(REGISTER[number].1, code.name());
        }
        assert_eq!(Code::from_number(14), None);
    }

    #[test]
    fn the_first_failure_in_the_chain_decides() {
        let error = fail::<()>(Code::Gap, "segment 1-3 is missing").context("cannot ship /a").unwrap_err();
        assert_eq!(code_of(&error), Code::Gap);
        assert_eq!(format!("{error:#}"), "cannot ship /a: segment 1-3 is missing");
    }

    #[test]
    fn a_failure_that_was_added_as_context_decides_too() {
        let inner = Failure::new(Code::Busy, "held by process 7").hint("wait");
        let error = anyhow::Error::from(inner).context(Failure::new(Code::Link, "gave up"));
        assert_eq!(code_of(&error), Code::Link);
        assert_eq!(hint_of(&error), Some("wait"));
        let error = error.context("cannot ship");
        assert_eq!(code_of(&error), Code::Link);
    }

    #[test]
    fn a_full_disk_and_a_broken_pipe_have_their_codes() {
        let full = anyhow::Error::from(io::Error::from_raw_os_error(28)).context("cannot append");
        assert_eq!(code_of(&full), Code::Full);
        let gone = anyhow::Error::from(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(code_of(&gone), Code::Link);
        assert_eq!(code_of(&anyhow::anyhow!("else")), Code::Failed);
    }
}
