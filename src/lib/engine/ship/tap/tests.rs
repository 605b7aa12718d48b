//! Lanes that read by themselves, join, fall behind and join again, in every order: each hands out the same log.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use super::*;
use crate::edge::dir::Dir;
use crate::engine::ship::reader::Reader;
use crate::engine::ship::source;
use crate::rule::pattern::Pattern;
use crate::rule::scheme::Scheme;
use crate::value::position::Start;

/// What one lane has handed out.
#[derive(Default)]
struct Copy {
    /// The segment that is open, with its bytes.
    open: Option<(u64, Vec<u8>)>,
    closed: BTreeMap<u64, Vec<u8>>,
    /// The end of the last segment, while no other has begun.
    is_ended: bool,
}

impl Copy {
    fn take(&mut self, piece: Piece<'_>) {
        let digest = |bytes: &[u8]| Digest::of(bytes);
        match piece {
            Piece::Begin(begin) => {
                assert!(std::mem::take(&mut self.is_ended), "a segment begins before the end of the one before");
                assert_eq!(begin.position.offset, 0);
                self.open = Some((begin.position.segment.sequence, Vec::new()));
            }
            Piece::Data { offset, bytes } => {
                let (_, open) = self.open.as_mut().unwrap();
                assert_eq!(open.len() as u64, offset, "a hole, or bytes twice");
                open.extend_from_slice(bytes);
            }
            Piece::Mark { offset, digest: told, .. } => {
                let (_, open) = self.open.as_ref().unwrap();
                assert_eq!((open.len() as u64, digest(open)), (offset, told));
            }
            Piece::End(ended) => {
                let (sequence, open) = self.open.take().unwrap();
                assert_eq!((open.len() as u64, digest(&open)), (ended.length, ended.digest));
                assert!(self.closed.insert(sequence, open).is_none(), "an end twice");
                self.is_ended = true;
            }
            Piece::Hole { .. } | Piece::Patch { .. } | Piece::Idle | Piece::Done => unreachable!("{piece:?}"),
        }
    }

    fn check(&self, root: &Path) {
        let mut all = self.closed.clone();
        all.extend(self.open.clone());
        for (sequence, bytes) in all {
            let name = format!("log.{sequence}");
            assert!(std::fs::read(root.join(&name)).unwrap() == bytes, "{name} differs");
        }
    }
}

fn append(root: &Path, sequence: u64, count: usize, random: &mut fastrand::Rng) {
    let mut file = OpenOptions::new().create(true).append(true).open(root.join(format!("log.{sequence}"))).unwrap();
    let bytes: Vec<u8> = std::iter::repeat_with(|| random.u8(1..)).take(count).collect();
    file.write_all(&bytes).unwrap();
}

/// One history of a log and of four lanes; returns how often lanes have joined and have fallen behind.
fn play(seed: u64) -> (u32, u32) {
    let random = &mut fastrand::Rng::with_seed(seed);
    let root = tempfile::tempdir().unwrap();
    let mut last = 1;
    append(root.path(), last, 700, random);
    let open = || {
        let dir = Dir::open(root.path())?;
        let options = source::Options { sync: false, commit_only: false, until: None, only: None, piece: 300 };
        Source::new(dir, Scheme::Plain(Pattern::parse("log.%S").unwrap()), options)
    };
    let (tap, ledger) = (Tap::new(2000), Ledger::in_memory());
    let lanes: Vec<_> = (0..4).map(|_| tap.lane()).collect();
    let mut readers: Vec<_> = lanes.iter().map(|lane| Reader::new(&open, Some(lane)).unwrap()).collect();
    let mut copies: Vec<Copy> = (0..4).map(|_| Copy::default()).collect();
    for (reader, copy) in readers.iter_mut().zip(&mut copies) {
        reader.locate(Start::Oldest, &ledger, &mut |_| Ok(())).unwrap();
        copy.open = Some((1, Vec::new()));
    }
    let (mut joined, mut behind) = (0, 0);
    let mut step = |reader: &mut Reader<'_>, copy: &mut Copy| {
        let was = reader.is_joined();
        let is_more = match reader.next(&ledger, &mut |_| Ok(())).unwrap() {
            Piece::Idle => false,
            piece => {
                copy.take(piece);
                true
            }
        };
        if !is_more {
            reader.rest();
        }
        joined += u32::from(!was && reader.is_joined());
        behind += u32::from(was && !reader.is_joined());
        is_more
    };
    for _ in 0..300 {
        match random.u8(..10) {
            0..4 => append(root.path(), last, random.usize(1..900), random),
            4 => {
                last += 1;
                append(root.path(), last, random.usize(1..100), random);
                for reader in &mut readers {
                    reader.list(Duration::ZERO).unwrap();
                }
            }
            // One lane goes on, for a while or until it has all; the last one is slow.
            _ => {
                let which = random.usize(..4);
                let most = if which == 3 { 1 } else { random.usize(1..20) };
                (0..most).all(|_| step(&mut readers[which], &mut copies[which]));
            }
        }
    }
    for (reader, copy) in readers.iter_mut().zip(&mut copies) {
        reader.list(Duration::ZERO).unwrap();
        while step(reader, copy) {}
        copy.check(root.path());
        let (sequence, bytes) = copy.open.as_ref().unwrap();
        let size = std::fs::metadata(root.path().join(format!("log.{last}"))).unwrap().len();
        assert_eq!((*sequence, bytes.len() as u64), (last, size), "it has not come to the end");
    }
    assert!(tap.ring.lock().bytes <= 2000 + 300 + LEAST);
    (joined, behind)
}

#[test]
fn in_whatever_order_lanes_go_on_each_hands_out_the_same_log() {
    let (mut joined, mut behind) = (0, 0);
    for seed in 0..60 {
        let (more_joined, more_behind) = play(seed);
        joined += more_joined;
        behind += more_behind;
    }
    assert!(joined > 200 && behind > 40, "{joined} {behind}: the cases are not there");
}

#[test]
fn a_lane_that_is_alone_reads_by_itself_and_what_it_joined_ends_with_the_last() {
    let root = tempfile::tempdir().unwrap();
    append(root.path(), 1, 10, &mut fastrand::Rng::with_seed(1));
    let open = || {
        let options = source::Options { sync: false, commit_only: false, until: None, only: None, piece: 300 };
        Source::new(Dir::open(root.path())?, Scheme::Plain(Pattern::parse("log.%S").unwrap()), options)
    };
    let (tap, ledger) = (Tap::new(2000), Ledger::in_memory());
    let one = tap.lane();
    let mut reader = Reader::new(&open, Some(&one)).unwrap();
    reader.locate(Start::Latest, &ledger, &mut |_| Ok(())).unwrap();
    while !matches!(reader.next(&ledger, &mut |_| Ok(())).unwrap(), Piece::Idle) {}
    reader.rest();
    assert!(!reader.is_joined());
    let other = tap.lane();
    reader.rest();
    assert!(reader.is_joined());
    drop((reader, other));
    assert_eq!(tap.ring.lock().joined, 0);
}
