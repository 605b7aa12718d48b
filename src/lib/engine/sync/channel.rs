//! The duplex link of a sync as frames.
//!
//! No end ever waits for the other to read before it reads: a thread of its own writes what the others hand it, another
//! reads all that comes. What is open at once is bounded by the lines, so that reading never waits on work for ever and
//! two full pipes cannot stand against each other.

use std::io::{BufReader, BufWriter, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::edge::pace::Pace;
use crate::engine::magic::fill;
use crate::rule::sync::wire::{self, Frame, HEADER, Header};
use crate::value::exit::{Code, Failure, fail};

/// An idle end says so this often; the other gives up after [`SILENCE`].
const BEAT: Duration = Duration::from_secs(10);
/// How long a link may be silent.
pub const SILENCE: Duration = Duration::from_secs(60);
/// A frame that only says "still here".
const STILL_HERE: u8 = b'T';
/// Frames that may wait to be written.
const WAITING: usize = 32;
const BUFFER: usize = 1 << 18;
/// Of what is read: what is longer goes straight to its place.
const READ_BUFFER: usize = 1 << 15;

/// Hands frames to the thread that writes them.
#[derive(Clone)]
pub struct Sender {
    frames: SyncSender<Vec<u8>>,
    waiting: Arc<AtomicU64>,
}

/// The frames that wait to be written.
pub struct Outbox {
    frames: Receiver<Vec<u8>>,
    waiting: Arc<AtomicU64>,
}

/// A pair of ends.
pub fn outbox() -> (Sender, Outbox) {
    let (frames, receiver) = sync_channel(WAITING);
    let waiting = Arc::new(AtomicU64::new(0));
    (Sender { frames, waiting: Arc::clone(&waiting) }, Outbox { frames: receiver, waiting })
}

impl Sender {
    /// Queues a frame; waits while too much is queued.
    pub fn send(&self, frame: Vec<u8>) -> Result<()> {
        self.waiting.fetch_add(frame.len() as u64, Ordering::Relaxed);
        self.frames.send(frame).map_err(|_| gone())
    }

    /// Bytes that wait to be written: whether the link or this machine is the slower one.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }
}

fn gone() -> anyhow::Error {
    Failure::new(Code::Link, "the link is gone").into()
}

impl Outbox {
    /// Writes frames until all senders are gone. Bytes that were written are counted.
    pub fn write(self, output: impl Write, written: &AtomicU64, mut pace: Option<Pace>) -> Result<()> {
        let mut output = BufWriter::with_capacity(BUFFER, output);
        let mut put = |frame: &[u8], is_last: bool| -> std::io::Result<()> {
            let piece = pace.as_ref().map_or(usize::MAX, Pace::piece);
            for part in frame.chunks(piece) {
                output.write_all(part)?;
                if let Some(pace) = &mut pace {
                    pace.spend(part.len());
                }
            }
            written.fetch_add(frame.len() as u64, Ordering::Relaxed);
            if is_last { output.flush() } else { Ok(()) }
        };
        loop {
            let frame = match self.frames.try_recv() {
                Ok(frame) => Some(frame),
                Err(TryRecvError::Disconnected) => {
                    return put(&[], true).context(Failure::new(Code::Link, "the link is gone"));
                }
                Err(TryRecvError::Empty) => None,
            };
            let frame = match frame {
                Some(frame) => frame,
                None => {
                    // Nobody waits for what lies in a buffer.
                    put(&[], true).context(Failure::new(Code::Link, "the link is gone"))?;
                    match self.frames.recv_timeout(BEAT) {
                        Ok(frame) => frame,
                        Err(RecvTimeoutError::Timeout) => wire::seal(STILL_HERE, 0, &[], None),
                        Err(RecvTimeoutError::Disconnected) => return Ok(()),
                    }
                }
            };
            let sent = put(&frame, false);
            // A beat was never counted.
            let _ = self.waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| {
                Some(waiting.saturating_sub(frame.len() as u64))
            });
            sent.context(Failure::new(Code::Link, "the link is gone"))?;
        }
    }
}

/// Reads frames.
pub struct Inbox<R> {
    input: BufReader<R>,
    read: Arc<AtomicU64>,
}

impl<R: Read> Inbox<R> {
    /// Over a link whose reads time out by themselves. Bytes that were read are counted.
    pub fn new(input: R, read: Arc<AtomicU64>) -> Inbox<R> {
        Inbox { input: BufReader::with_capacity(READ_BUFFER, input), read }
    }

    /// The next frame; `None` at an end between frames.
    #[expect(clippy::should_implement_trait, reason = "it fails")]
    pub fn next(&mut self) -> Result<Option<Frame>> {
        loop {
            let Some(frame) = next(&mut self.input, &self.read)? else { return Ok(None) };
            if frame.kind != STILL_HERE {
                return Ok(Some(frame));
            }
        }
    }
}

/// The first frame of a link, and not a byte more.
pub fn frame(input: &mut impl Read) -> Result<Frame> {
    match next(input, &AtomicU64::new(0))? {
        Some(frame) => Ok(frame),
        None => fail(Code::Link, "the other end is gone"),
    }
}

fn next(input: &mut impl Read, read: &AtomicU64) -> Result<Option<Frame>> {
    let mut header = [0; HEADER];
    match fill(input, &mut header)? {
        0 => return Ok(None),
        HEADER => {}
        _ => return fail(Code::Link, "the link was cut within a frame"),
    }
    let header = Header::parse(&header)?;
    let mut payload = vec![0; header.length];
    if fill(input, &mut payload)? < header.length {
        return fail(Code::Link, "the link was cut within a frame");
    }
    read.fetch_add((HEADER + header.length) as u64, Ordering::Relaxed);
    header.open(payload).map(Some)
}
