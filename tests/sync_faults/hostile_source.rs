//! A source that lies: each answer of an honest one altered on its way. Whatever it says, the destination stays as it
//! is, its server runs on it, nothing outside of it is touched, and the next honest run brings it to its end.

use std::fs;

use repl::rule::sync::wire::tell::{Cause, Matter, Small, Tell};
use repl::value::entry::{Entry, Kind, Seen, Stamp};
use repl::value::name::Name;

use crate::far::{Alter, Word, play_source};
use crate::rig::noise;
use crate::stand::{Far, SYNC, Stand, tree};

/// What is altered, what to, and the exit codes that are right.
pub type Case = (&'static str, &'static [i32], Alter);

pub const REFUSED: &[i32] = &[6];
const HEALED: &[i32] = &[0];
/// What is no lie that shows but never becomes settled.
const UNSETTLED: &[i32] = &[1];

/// Alters each frame of the list.
fn list(alter: impl Fn(&mut Vec<Entry>) + Send + 'static) -> Alter {
    Box::new(move |mut tell| {
        if let Tell::Entries { entries, .. } = &mut tell
            && !entries.is_empty()
        {
            alter(entries);
        }
        vec![Word::Say(tell)]
    })
}

/// Alters what it can in each answer.
pub fn each(alter: impl Fn(&mut Tell) + Send + 'static) -> Alter {
    Box::new(move |mut tell| {
        alter(&mut tell);
        vec![Word::Say(tell)]
    })
}

/// Puts something in the place of answers of one kind.
pub fn instead(
    of: impl Fn(&Tell) -> bool + Send + 'static,
    words: impl Fn(Tell) -> Vec<Word> + Send + 'static,
) -> Alter {
    Box::new(move |tell| if of(&tell) { words(tell) } else { vec![Word::Say(tell)] })
}

pub fn a_list(tell: &Tell) -> bool {
    matches!(tell, Tell::Entries { .. })
}

/// A name that no check has seen.
pub fn name(bytes: &[u8]) -> Name {
    Name::root().join(bytes)
}

/// An entry with another name and kind behind the last.
fn with(bytes: &'static [u8], kind: Kind) -> Alter {
    list(move |entries| {
        let mut entry = entries.last().unwrap().clone();
        (entry.name, entry.kind, entry.links) = (name(bytes), kind.clone(), 1);
        entries.push(entry);
    })
}

fn link(target: &[u8]) -> Kind {
    Kind::Link(target.into())
}

fn names() -> Vec<Case> {
    let mut cases: Vec<Case> = Vec::new();
    let bad: [&[u8]; 16] = [
        b"../evil",
        b"..",
        b"/evil",
        b"z/../../evil",
        b"z//x",
        b"z/",
        b".",
        b"z\0x",
        b"",
        b".repl",
        b".repl/x",
        b".repl-sync",
        b".repl-sync/journal",
        b".repl-sync-incomplete",
        b"z/.repl/x",
        &[b'z'; 256],
    ];
    for bytes in bad {
        for (what, kind) in [("a file", Kind::File), ("a directory", Kind::Directory), ("a link", link(b"/"))] {
            // The root is a directory once.
            let shown = String::from_utf8_lossy(bytes).into_owned();
            cases.push((format!("{what} named {shown:?}").leak(), REFUSED, with(bytes, kind)));
        }
    }
    cases
}

fn orders() -> Vec<Case> {
    let below_a_link = list(|entries| {
        let mut entry = entries.last().unwrap().clone();
        (entry.name, entry.kind) = (name(b"zz"), link(b"../outside"));
        entries.push(entry.clone());
        (entry.name, entry.kind) = (name(b"zz/canary"), Kind::File);
        entries.push(entry);
    });
    let below_a_file = list(|entries| {
        let mut entry = entries.last().unwrap().clone();
        (entry.name, entry.kind) = (name(b"steady/x"), Kind::File);
        entries.push(entry);
    });
    vec![
        ("a name below a link", REFUSED, below_a_link),
        ("a name below a file", REFUSED, below_a_file),
        ("a name without its directory", REFUSED, with(b"zz/x", Kind::File)),
        ("the same name twice", REFUSED, list(|entries| entries.push(entries.last().unwrap().clone()))),
        ("names out of order", REFUSED, list(|entries| entries.reverse())),
        ("no root", REFUSED, list(|entries| drop(entries.remove(0)))),
        ("a root that is a file", REFUSED, list(|entries| entries[0].kind = Kind::File)),
        ("the list twice over", REFUSED, list(|entries| entries.extend(entries.clone()))),
        ("a file of 2^63 bytes", REFUSED, list(|entries| entries.last_mut().unwrap().stamp.size = 1 << 63)),
        ("a file of 2^47 bytes", REFUSED, list(|entries| entries.last_mut().unwrap().stamp.size = 1 << 47)),
        ("a mode with more bits", REFUSED, list(|entries| entries.last_mut().unwrap().mode = 0o100_644)),
        ("a file of 40 TiB", &[1, 12], list(|entries| entries.last_mut().unwrap().stamp.size = 40 << 40)),
        (
            "files that take all space there is",
            &[12],
            list(|entries| {
                for entry in entries.iter_mut() {
                    entry.allocated = u64::MAX;
                }
            }),
        ),
        (
            "sizes that add up to too much",
            &[1, 12],
            list(|entries| {
                entries.iter_mut().filter(|entry| entry.is_file()).for_each(|entry| entry.stamp.size = 60 << 40);
            }),
        ),
    ]
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn contents() -> Vec<Case> {
    let smalls = |alter: fn(&mut Vec<Small>)| -> Alter {
        each(move |tell| {
            if let Tell::Smalls(files) = tell {
                alter(files);
            }
        })
    };
    let whole = |alter: fn(&mut Stamp, &mut [u8; 32], &mut Vec<u8>)| -> Alter {
        each(move |tell| {
            let Tell::Smalls(files) = tell else { return };
            for file in files {
                if let Small::Whole(seen, digest, bytes) = file {
                    alter(&mut seen.stamp, digest, bytes);
                }
            }
        })
    };
    vec![
        ("bytes that are not of their digest", REFUSED, whole(|_, _, bytes| bytes[0] ^= 1)),
        ("a digest that is not of the bytes", REFUSED, whole(|_, digest, _| digest[31] ^= 1)),
        (
            "fewer bytes than the list said",
            UNSETTLED,
            whole(|_, digest, bytes| {
                bytes.pop();
                *digest = *blake3::hash(bytes).as_bytes();
            }),
        ),
        (
            "stamps that are always others",
            UNSETTLED,
            smalls(|files| {
                for file in files {
                    if let Small::Whole(seen, ..) | Small::Same(seen) = file {
                        seen.stamp.inode ^= 1;
                    }
                }
            }),
        ),
        (
            "the same as what is not here",
            &[1, 6],
            smalls(|files| {
                for file in files.iter_mut() {
                    *file =
                        Small::Same(Seen { stamp: Stamp { size: 1 << 60, ..Stamp::default() }, xattrs: Vec::new() });
                }
            }),
        ),
        ("no file at all", REFUSED, smalls(Vec::clear)),
        (
            "more files than were asked for",
            REFUSED,
            smalls(|files| {
                let more = files.clone();
                (0..600).for_each(|_| files.extend(more.first().cloned()));
            }),
        ),
        (
            "files that are gone whenever they are asked for",
            UNSETTLED,
            smalls(|files| {
                for file in files.iter_mut() {
                    *file = Small::Gone(Cause::new(Matter::Changed, "\u{1b}[31m gone"));
                }
            }),
        ),
        (
            "bytes that are not of the range's digest",
            UNSETTLED,
            each(|tell| match tell {
                Tell::Data(_, bytes) => bytes[0] ^= 1,
                Tell::Patches(patches) => patches[0].cv[0] ^= 1,
                _ => {}
            }),
        ),
        (
            "bytes of elsewhere",
            REFUSED,
            each(|tell| {
                if let Tell::Data(offset, _) = tell {
                    *offset += 1 << 16;
                }
            }),
        ),
        (
            "bytes before the range",
            REFUSED,
            each(|tell| {
                if let Tell::Data(offset, _) = tell {
                    *offset = u64::MAX;
                }
            }),
        ),
        (
            "more bytes than were asked for",
            REFUSED,
            each(|tell| {
                if let Tell::Data(_, bytes) = tell {
                    bytes.resize(1 << 20, 7);
                }
            }),
        ),
        (
            "a hole as long as can be",
            REFUSED,
            instead(|tell| matches!(tell, Tell::Data(..)), |_| vec![Word::Say(Tell::Hole(0, u64::MAX))]),
        ),
        (
            "a hole of nothing",
            REFUSED,
            instead(|tell| matches!(tell, Tell::Data(..)), |_| vec![Word::Say(Tell::Hole(0, 0))]),
        ),
        (
            "a copy where none was asked for",
            REFUSED,
            instead(|tell| matches!(tell, Tell::Data(..)), |_| vec![Word::Say(Tell::Copy(0, u64::MAX, u64::MAX))]),
        ),
        (
            "ranges of another digest",
            UNSETTLED,
            each(|tell| {
                if let Tell::Done(_, cv) = tell {
                    cv[0] ^= 1;
                }
            }),
        ),
        (
            "an end before the bytes",
            REFUSED,
            instead(|tell| matches!(tell, Tell::Data(..)), |_| vec![Word::Say(Tell::Done(Seen::default(), [0; 32]))]),
        ),
        (
            "too many digests",
            REFUSED,
            each(|tell| {
                if let Tell::Digests(_, _, groups) = tell {
                    groups.resize(1 << 16, [0; 12]);
                }
            }),
        ),
        (
            "too few digests",
            REFUSED,
            each(|tell| {
                if let Tell::Digests(_, _, groups) = tell {
                    groups.clear();
                }
            }),
        ),
        (
            "ranges that are never what their parts are",
            UNSETTLED,
            each(|tell| {
                if let Tell::Digests(_, cv, _) | Tell::Done(_, cv) = tell {
                    cv[0] ^= 1;
                }
            }),
        ),
        (
            "a patch of another group",
            REFUSED,
            each(|tell| {
                if let Tell::Patches(patches) = tell {
                    patches[0].offset ^= 1 << 40;
                }
            }),
        ),
        (
            "a patch with more pages than a group has",
            REFUSED,
            each(|tell| {
                if let Tell::Patches(patches) = tell {
                    patches[0].pages = u128::MAX;
                }
            }),
        ),
        (
            "a patch with too few bytes",
            &[6, 1],
            each(|tell| {
                if let Tell::Patches(patches) = tell {
                    patches[0].bytes.pop();
                }
            }),
        ),
        (
            "a range that is gone whenever it is asked for",
            UNSETTLED,
            instead(
                |tell| matches!(tell, Tell::Digests(..)),
                |_| vec![Word::Say(Tell::Gone(Cause::new(Matter::Unreadable, &"x".repeat(60_000))))],
            ),
        ),
    ]
}

/// What does not fit together is fetched whole, and then it is right.
fn healed() -> Vec<Case> {
    vec![
        (
            "a patch with more bytes than pages",
            HEALED,
            each(|tell| {
                if let Tell::Patches(patches) = tell {
                    patches[0].bytes.push(0);
                }
            }),
        ),
        (
            "a patch of other bytes",
            HEALED,
            each(|tell| {
                if let Tell::Patches(patches) = tell {
                    patches[0].bytes.iter_mut().for_each(|byte| *byte ^= 1);
                }
            }),
        ),
        (
            "digests that are not those of their range",
            HEALED,
            each(|tell| {
                if let Tell::Digests(_, cv, _) = tell {
                    cv[0] ^= 1;
                }
            }),
        ),
    ]
}

/// Plays them one after the other against one destination.
pub fn play(mode: &str, cases: Vec<Case>) {
    let stand = Stand::synced();
    stand.advance();
    // For all ways of comparing: new and long, long and changed, changed at its end, of another length.
    fs::write(stand.src("new"), noise(700_000, 1)).unwrap();
    let mut long = noise(500_000, 0);
    long[100_000..100_040].fill(7);
    fs::write(stand.src("steady"), &long).unwrap();
    fs::create_dir(stand.path("outside")).unwrap();
    fs::write(stand.path("outside/canary"), "alive").unwrap();
    let (before, outside) = (tree(&stand.path("dst")), tree(&stand.path("outside")));
    let line = stand.line(Far::Destination, mode, "");
    let words = line.split_once(" --json ").unwrap().1;
    for (what, codes, alter) in cases {
        // What another has left would be gone on with.
        let _ = fs::remove_dir_all(stand.path(".repl-sync-dst"));
        let ran = play_source(&stand, SYNC, words, alter);
        stand.quiet();
        let what = format!("{mode}, {what}: {ran:?}");
        assert!(codes.contains(&ran.code), "{what}");
        assert!(!ran.err.contains("panicked") && !ran.err.contains('\u{1b}'), "{what}");
        assert_eq!(tree(&stand.path("outside")), outside, "{what}");
        assert!(!stand.path("evil").exists() && !stand.path("dst/evil").exists(), "{what}");
        assert_eq!(tree(&stand.path("dst")), before, "{what}");
        stand.is_as_before(&before);
    }
    // An ordinary one still works, whatever the others have left.
    let ran = play_source(&stand, SYNC, words, each(|_| ()));
    assert_eq!(ran.code, 0, "{ran:?}");
    stand.completes(Far::Destination, mode, "");
}

#[test]
fn names_that_lead_elsewhere() {
    play("--inplace", names());
}

#[test]
fn lists_that_no_walk_could_have_made() {
    play("--inplace", orders());
    play("--stage", orders());
}

#[test]
fn contents_that_are_not_what_they_say_in_place() {
    play("--inplace", contents());
}

#[test]
fn contents_that_are_not_what_they_say_beside() {
    play("--stage", contents());
}

#[test]
fn lies_about_a_part_are_healed_by_the_whole_file() {
    for mode in ["--inplace", "--stage"] {
        let stand = Stand::synced();
        for (number, (what, codes, alter)) in (0..).zip(healed()) {
            stand.advance();
            let mut long = noise(500_000, 0);
            long[100_000..100_040].fill(7 + number);
            fs::write(stand.src("steady"), &long).unwrap();
            let line = stand.line(Far::Destination, mode, "");
            let ran = play_source(&stand, SYNC, line.split_once(" --json ").unwrap().1, alter);
            assert!(codes.contains(&ran.code), "{mode} {what}: {ran:?}");
            stand.rig.ok("diff -r --no-dereference src/ dst/");
            stand.judge();
        }
    }
}
