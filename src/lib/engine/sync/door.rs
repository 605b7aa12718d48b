//! How answers come to whoever asked: one door for each line, between the thread that reads the link and the one that
//! waits.
//!
//! The thread that reads waits where a line's frames are not taken as fast as they come. A peer could hold it there for
//! ever, by frames for a line on which nobody waits; then no other line would get its answers, the end of the link would
//! not be seen, and a request to stop neither, while the destination's server is down. So a door is open only while
//! something was asked, and for no more frames than the question has answers; what comes to a closed one is let go.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use anyhow::Result;
use parking_lot::Mutex;

use crate::rule::sync::wire::Frame;
use crate::rule::sync::wire::tell::Tell;
use crate::value::exit::{Code, Failure, fail};

/// Frames of a line that may wait to be taken.
const FRAMES: usize = 4;
/// For a question with as many frames as it takes.
pub const ANY: usize = usize::MAX / 2;

/// Where frames come in.
pub struct Door {
    frames: SyncSender<Frame>,
    expected: Arc<AtomicUsize>,
    last: Last,
}

/// Where they are waited for.
pub struct Ear {
    frames: Receiver<Frame>,
    expected: Arc<AtomicUsize>,
    patience: Duration,
    last: Last,
}

/// When the last answer came, on any line.
type Last = Arc<Mutex<Instant>>;

/// So many lines' two sides.
pub fn pairs(count: usize, patience: Duration) -> (Vec<Door>, Vec<Ear>) {
    let last = Arc::new(Mutex::new(Instant::now()));
    let pair = |_| {
        let (frames, receiver) = sync_channel(FRAMES);
        let expected = Arc::new(AtomicUsize::new(0));
        let door = Door { frames, expected: Arc::clone(&expected), last: Arc::clone(&last) };
        (door, Ear { frames: receiver, expected, patience, last: Arc::clone(&last) })
    };
    (0..count).map(pair).unzip()
}

impl Door {
    /// Hands a frame over if one is expected. False when nobody is there any more.
    pub fn hand(&self, frame: Frame) -> bool {
        let one_less = |expected: usize| expected.checked_sub(1);
        match self.expected.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less) {
            Ok(_) => {
                *self.last.lock() = Instant::now();
                self.frames.send(frame).is_ok()
            }
            Err(_) => true,
        }
    }
}

impl Ear {
    /// Something is about to be asked that has so many frames as its answer.
    pub fn expect(&self, frames: usize) {
        self.expected.fetch_add(frames, Ordering::AcqRel);
    }

    /// All that was asked is answered, or of no interest any more.
    pub fn close(&self) {
        self.expected.store(0, Ordering::Release);
        while self.frames.try_recv().is_ok() {}
    }

    /// Waits for an answer, as long as that takes; what the other end could not do is an error with its exit code.
    pub fn hear(&self) -> Result<Tell> {
        let Ok(frame) = self.frames.recv() else {
            return fail(Code::Link, "the link is gone");
        };
        read(frame)
    }

    /// The same, where an answer takes no other work than reading: an end whose disk hangs is as good as gone.
    pub fn hear_soon(&self) -> Result<Tell> {
        loop {
            match self.frames.recv_timeout(self.patience) {
                Ok(frame) => return read(frame),
                Err(RecvTimeoutError::Disconnected) => return fail(Code::Link, "the link is gone"),
                // Others may be answered before.
                Err(RecvTimeoutError::Timeout) if self.last.lock().elapsed() < self.patience => {}
                Err(RecvTimeoutError::Timeout) => {
                    let seconds = self.patience.as_secs();
                    return fail(
                        Code::Link,
                        format!("the source has not answered for {seconds} s: does its disk hang?"),
                    );
                }
            }
        }
    }
}

fn read(frame: Frame) -> Result<Tell> {
    match Tell::parse(frame)? {
        Tell::Failed(code, why, hint) => Err(Failure::told(code, why, hint).into()),
        tell => Ok(tell),
    }
}

/// The two sides of one line with all the time that there is.
#[cfg(test)]
pub(super) fn pair() -> (Door, Ear) {
    let (mut doors, mut ears) = pairs(1, Duration::from_secs(3600));
    (doors.remove(0), ears.remove(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::exit::code_of;

    fn frame() -> Frame {
        Frame { kind: b'r', line: 0, payload: Vec::new() }
    }

    #[test]
    fn an_end_that_answers_on_no_line_is_given_up() {
        let (doors, ears) = pairs(2, Duration::from_millis(20));
        for ear in &ears {
            ear.expect(1);
        }
        let before = *ears[1].last.lock();
        assert!(doors[0].hand(frame()));
        assert!(*ears[1].last.lock() > before, "an answer to one counts for all");
        assert_eq!(ears[0].hear_soon().unwrap(), Tell::Ran(Vec::new()));
        let error = ears[1].hear_soon().unwrap_err();
        assert_eq!(code_of(&error), Code::Link);
        assert!(error.to_string().contains("has not answered"), "{error:#}");
    }

    #[test]
    fn no_more_comes_in_than_was_asked_for() {
        let (door, ear) = pair();
        for _ in 0..100 {
            assert!(door.hand(frame()), "and nobody waits");
        }
        ear.expect(1);
        ear.expect(1);
        for _ in 0..100 {
            assert!(door.hand(frame()));
        }
        assert_eq!((ear.hear().unwrap(), ear.hear().unwrap()), (Tell::Ran(Vec::new()), Tell::Ran(Vec::new())));
        assert!(ear.frames.try_recv().is_err());
    }

    #[test]
    fn what_comes_late_does_not_answer_the_next_question() {
        let (door, ear) = pair();
        ear.expect(ANY);
        for _ in 0..3 {
            assert!(door.hand(frame()));
        }
        ear.close();
        (0..100).for_each(|_| assert!(door.hand(frame())));
        ear.expect(1);
        assert!(door.hand(Frame { kind: b's', ..frame() }));
        assert_eq!(ear.hear().unwrap(), Tell::Smalls(Vec::new()));
        drop(door);
        assert_eq!(code_of(&ear.hear().unwrap_err()), Code::Link);
    }
}
