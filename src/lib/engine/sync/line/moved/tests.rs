//! A real source and a real line, and between them somebody who changes what the source tells.

use std::io::pipe;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::mpsc::channel;

use super::*;
use crate::edge::tree::{Dress, Tree};
use crate::engine::sync::channel::{Inbox, outbox};
use crate::engine::sync::door;
use crate::engine::sync::ledger::Ledger;
use crate::engine::sync::line::Task;
use crate::engine::sync::source::{Source, Traffic, serve};
use crate::engine::sync::target::Target;
use crate::rule::sync::filter::Filter;
use crate::value::entry::{Moment, Seen};
use crate::value::exit::{Code, code_of};
use crate::value::name::Name;

const MIB: u64 = 1 << 20;

fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// How it ended.
struct Done {
    result: Result<()>,
    /// Whether moved bytes were not believed in any more.
    is_given_up: bool,
    /// The destination's file.
    made: Vec<u8>,
    counts: crate::engine::sync::ledger::Counts,
    unsettled: u64,
}

/// A file of the destination becomes one of the source, past whatever `lie` makes of the answers.
fn sync(old: &[u8], new: &[u8], mut lie: impl FnMut(Tell) -> Tell + Send) -> Done {
    let root = tempfile::tempdir().unwrap();
    let place = |dir: &str, bytes: &[u8]| -> PathBuf {
        let dir = root.path().join(dir);
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("f"), bytes).unwrap();
        dir
    };
    let (from, to) = (place("from", new), place("to", old));
    let name = Name::parse(b"f").unwrap();
    let look = |dir: &Path| Tree::open(dir).unwrap().look(&name).unwrap().unwrap();
    let (theirs, ours) = (look(&from), look(&to));
    let tree = Tree::open(&to).unwrap();
    let target = Target::Direct(&tree);
    let ledger = Ledger::new(target, None, Moment::default(), None);
    let source = source(&from);
    let mut is_given_up = false;
    let (question, mut asks) = pipe().unwrap();
    let (tells, answer) = pipe().unwrap();
    let (sender, questions) = outbox();
    let (door, mut ear) = door::pair();
    let result = std::thread::scope(|scope| {
        scope.spawn(move || serve(&source, question, answer));
        scope.spawn(move || questions.write(&mut asks, &AtomicU64::new(0), None));
        scope.spawn(move || {
            let mut tells = Inbox::new(tells, Arc::default());
            while let Ok(Some(frame)) = tells.next() {
                let line = frame.line;
                let sealed = lie(Tell::parse(frame).unwrap()).seal(line, None);
                if !door.hand(open(&sealed)) {
                    return;
                }
            }
        });
        let (dress, page) = (Dress { owner: false, devices: false }, 4096);
        let line = Line {
            number: 1,
            sender: sender.clone(),
            ear: &mut ear,
            target,
            ledger: &ledger,
            page,
            dress,
            spares: false,
            is_dry: false,
            digests: None,
            written: &AtomicU64::new(0),
        };
        let basis = target.basis(&name, Some(&ours)).unwrap();
        let work = Arc::new(Work::new(0, theirs, Some(ours), basis));
        let (tasks, waiting) = channel();
        for offset in (0..new.len() as u64).step_by(RANGE as usize) {
            tasks.send(Task::Range(Arc::clone(&work), offset)).unwrap();
        }
        drop(tasks);
        let done = line.work(&Mutex::new(waiting), &AtomicBool::new(false));
        is_given_up = work.moves.are_over();
        sender.send(Ask::Bye.seal(0)).unwrap();
        // Nobody reads any more what a refused answer had behind it.
        drop((sender, line));
        ear.close();
        done
    });
    let made = std::fs::read(to.join("f")).unwrap();
    let (counts, unsettled, _) = ledger.finish().unwrap();
    Done { result, is_given_up, made, counts, unsettled: unsettled.count }
}

fn open(sealed: &[u8]) -> crate::rule::sync::wire::Frame {
    use crate::rule::sync::wire::{HEADER, Header};
    let (header, payload) = sealed.split_first_chunk::<HEADER>().unwrap();
    Header::parse(header).unwrap().open(payload.to_vec()).unwrap()
}

fn source(dir: &Path) -> Source<'static> {
    Source {
        tree: Tree::open(dir).unwrap(),
        identity: String::new(),
        filter: Arc::new(Filter::default()),
        pack: None,
        rate: None,
        errand: Mutex::new(Box::new(|_, _| Ok(Vec::new()))),
        say: Box::new(|_, _| {}),
        traffic: Arc::new(Traffic::default()),
    }
}

/// Old and new content, of the same length, that only a search makes one of the other.
fn swapped() -> (Vec<u8>, Vec<u8>) {
    let old = noise(2 << 20, 1);
    let new = [&old[(1 << 20) + 5..], &old[..(1 << 20) + 5]].concat();
    (old, new)
}

#[test]
fn an_honest_source_sends_little() {
    let (old, new) = swapped();
    let done = sync(&old, &new, |tell| tell);
    done.result.unwrap();
    assert!(done.made == new && done.unsettled == 0 && !done.is_given_up);
    assert!(done.counts.literal < 3 * u64::from(BLOCK), "{:?}", done.counts);
}

#[test]
fn copies_from_elsewhere_are_found_out_and_the_range_is_fetched_at_once() {
    let (old, new) = swapped();
    let mut lies = 0;
    let done = sync(&old, &new, |tell| match tell {
        Tell::Copy(offset, from, length) if lies == 0 && from >= 4096 => {
            lies += 1;
            Tell::Copy(offset, from - 4096, length)
        }
        other => other,
    });
    done.result.unwrap();
    assert_eq!(lies, 1);
    assert!(done.made == new);
    assert_eq!((done.unsettled, done.is_given_up), (0, true));
    assert!(done.counts.literal >= new.len() as u64, "{:?}", done.counts);
}

#[test]
fn copies_beyond_what_was_asked_with_or_beside_the_range_are_refused() {
    let (old, new) = swapped();
    let lies: [fn(u64, u64, u64) -> Tell; 8] = [
        |offset, _, length| Tell::Copy(offset, u64::MAX, length),
        |offset, _, length| Tell::Copy(offset, 2 << 20, length),
        |offset, _, length| Tell::Copy(offset, (2 << 20) - length + 1, length),
        |offset, from, _| Tell::Copy(offset, from, 0),
        |offset, from, _| Tell::Copy(offset, from, u64::MAX),
        |offset, from, length| Tell::Copy(offset + 1, from, length),
        |offset, _, _| Tell::Data(offset, Vec::new()),
        |offset, _, _| Tell::Hole(offset, 1),
    ];
    for (number, lie) in lies.into_iter().enumerate() {
        let done = sync(&old, &new, |tell| match tell {
            Tell::Copy(offset, from, length) => lie(offset, from, length),
            other => other,
        });
        let error = done.result.expect_err("it was believed");
        assert_eq!(code_of(&error), Code::Corrupt, "{number}: {error:#}");
        assert!(done.made == old, "{number}");
    }
}

#[test]
fn a_group_that_has_become_equal_again_stays() {
    let old = noise(1 << 20, 1);
    let mut new = old.clone();
    new[5] ^= 1;
    let done = sync(&old, &new, |tell| match tell {
        // As if others were different when the digests were made.
        Tell::Digests(seen, cv, mut groups) => {
            for number in [3, 4, 15] {
                groups[number][0] ^= 1;
            }
            Tell::Digests(seen, cv, groups)
        }
        other => other,
    });
    done.result.unwrap();
    assert!(done.made == new && done.unsettled == 0);
    assert_eq!(done.counts.literal, 4096, "one page");
}

#[test]
fn an_end_before_the_end_is_refused() {
    let (old, new) = swapped();
    let done = sync(&old, &new, |tell| match tell {
        Tell::Copy(..) => Tell::Done(Seen::default(), [0; 32]),
        other => other,
    });
    assert_eq!(code_of(&done.result.unwrap_err()), Code::Corrupt);
}

#[test]
fn the_window_is_bounded_and_looks_where_bytes_come_from() {
    let part = |offset: u64, size: u64| Part {
        name: Name::parse(b"f").unwrap(),
        offset,
        length: RANGE.min(size - offset),
        size,
    };
    assert_eq!(window(&part(0, 5 * MIB), 4 * MIB), (0, 4 * MIB));
    assert_eq!(window(&part(64 * MIB, 128 * MIB), 128 * MIB), (63 * MIB, 81 * MIB));
    // Longer than it was: from below. Shorter: from above.
    assert_eq!(window(&part(64 * MIB, 128 * MIB), 118 * MIB), (53 * MIB, 81 * MIB));
    assert_eq!(window(&part(64 * MIB, 128 * MIB), 138 * MIB), (63 * MIB, 91 * MIB));
    for old in [0, 1, 16 * MIB, 5 << 40, u64::MAX >> 1] {
        for offset in [0, 16 * MIB, 1 << 40] {
            let (begin, end) = window(&part(offset, offset + 16 * MIB), old);
            assert!(begin <= end && end <= old && end - begin <= WINDOW_MAX && begin % u64::from(BLOCK) == 0);
        }
    }
}
