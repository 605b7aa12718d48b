//! How answers come to whoever asked: one door for each line, between the thread that reads the link and the one that
//! waits.
//!
//! The thread that reads waits where a line's frames are not taken as fast as they come. A peer could hold it there for
//! ever, by frames for a line on which nobody waits; then no other line would get its answers, the end of the link would
//! not be seen, and a request to stop neither, while the destination's server is down. So a door is open only while
//! something was asked, and for no more frames than the question has answers; what comes to a closed one is let go.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use anyhow::Result;

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
}

/// Where they are waited for.
pub struct Ear {
    frames: Receiver<Frame>,
    expected: Arc<AtomicUsize>,
}

/// A line's two sides.
pub fn pair() -> (Door, Ear) {
    let (frames, receiver) = sync_channel(FRAMES);
    let expected = Arc::new(AtomicUsize::new(0));
    (Door { frames, expected: Arc::clone(&expected) }, Ear { frames: receiver, expected })
}

impl Door {
    /// Hands a frame over if one is expected. False when nobody is there any more.
    pub fn hand(&self, frame: Frame) -> bool {
        let one_less = |expected: usize| expected.checked_sub(1);
        match self.expected.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_less) {
            Ok(_) => self.frames.send(frame).is_ok(),
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

    /// Waits for an answer; what the other end could not do is an error with its exit code.
    pub fn hear(&self) -> Result<Tell> {
        let Ok(frame) = self.frames.recv() else {
            return fail(Code::Link, "the link is gone");
        };
        match Tell::parse(frame)? {
            Tell::Failed(code, why, hint) => {
                let failure = Failure::new(code, why);
                Err(if hint.is_empty() { failure } else { failure.hint(hint) }.into())
            }
            tell => Ok(tell),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::exit::code_of;

    fn frame() -> Frame {
        Frame { kind: b'r', line: 0, payload: Vec::new() }
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
