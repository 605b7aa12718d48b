//! Looks behind bytes that are no event for bytes that are one. A crash tears the end of a file; damage is in the middle.
//!
//! An event is known by its length and its end, which agree only at its own place in the file, and by its checksum.

use crc32fast::Hasher;

use super::EVENT_MAX;
use super::event::{CHECKSUM, HEADER, Header, u32_at};

/// A search from one place on.
#[derive(Clone, Debug)]
pub(super) struct Search {
    /// The place of the bad event.
    from: u64,
    /// Next byte to take.
    at: u64,
    is_checked: bool,
    /// The last bytes: where an event may begin.
    window: [u8; HEADER],
    filled: usize,
    candidate: Option<Candidate>,
    found: Option<u64>,
}

/// What may be an event: where it begins, how many of its bytes are still to come, and its checksum so far.
#[derive(Clone, Debug)]
struct Candidate {
    start: u64,
    left: usize,
    hash: Hasher,
    stored: [u8; CHECKSUM],
}

impl Search {
    /// For events behind the one that begins here.
    pub(super) fn new(from: u64, is_checked: bool) -> Search {
        Search { from, at: from, is_checked, window: [0; HEADER], filled: 0, candidate: None, found: None }
    }

    /// Where an event was found.
    pub(super) fn found(&self) -> Option<u64> {
        self.found
    }

    pub(super) fn take(&mut self, mut bytes: &[u8]) {
        while self.found.is_none() && !bytes.is_empty() {
            let taken = match &mut self.candidate {
                Some(candidate) => candidate.take(bytes),
                None => self.step(bytes[0]),
            };
            if self.candidate.is_some() {
                self.judge();
            }
            bytes = &bytes[taken..];
        }
    }

    /// Moves the window by one byte.
    fn step(&mut self, byte: u8) -> usize {
        self.window.copy_within(1.., 0);
        self.window[HEADER - 1] = byte;
        self.at += 1;
        self.filled = (self.filled + 1).min(HEADER);
        let header = Header::read(&self.window);
        let start = self.at.saturating_sub(HEADER as u64);
        let least = if self.is_checked { HEADER + CHECKSUM } else { HEADER } as u32;
        let is_event = self.filled == HEADER
            && start > self.from
            && header.kind != 0
            && (least..=EVENT_MAX).contains(&header.length)
            && header.next == start.wrapping_add(u64::from(header.length)) as u32;
        if is_event {
            let mut hash = Hasher::new();
            hash.update(&self.window);
            let left = header.length as usize - HEADER;
            self.candidate = Some(Candidate { start, left, hash, stored: [0; CHECKSUM] });
        }
        1
    }

    /// Once a candidate is whole.
    fn judge(&mut self) {
        let Some(candidate) = self.candidate.take_if(|candidate| candidate.left == 0) else {
            return;
        };
        let end = Header::read(&self.window).length;
        if !self.is_checked || candidate.hash.finalize() == u32_at(&candidate.stored, 0) {
            self.found = Some(candidate.start);
        }
        self.at = candidate.start + u64::from(end);
        self.filled = 0;
    }
}

impl Candidate {
    fn take(&mut self, bytes: &[u8]) -> usize {
        let count = bytes.len().min(self.left);
        let body = count.min(self.left.saturating_sub(CHECKSUM));
        self.hash.update(&bytes[..body]);
        for (at, byte) in bytes[body..count].iter().enumerate() {
            self.stored[CHECKSUM - (self.left - body) + at] = *byte;
        }
        self.left -= count;
        count
    }
}
