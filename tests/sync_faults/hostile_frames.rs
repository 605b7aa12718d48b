//! A source whose errands and frames are none.

use repl::rule::sync::wire::tell::Tell;
use repl::rule::sync::wire::{HEADER, PAYLOAD_MAX};
use repl::value::exit::Code;
use repl::value::name::Name;

use crate::far::{Alter, Word};
use crate::hostile_source::{Case, REFUSED, a_list, each, instead, name, play};

fn told(files: &mut [(Name, Vec<u8>)], key: &[u8], text: &[u8]) {
    files.iter_mut().filter(|(name, _)| name.bytes() == key).for_each(|(_, bytes)| *bytes = text.to_vec());
}

fn errands() -> Vec<Case> {
    let ran = |alter: fn(&mut Vec<(Name, Vec<u8>)>)| -> Alter {
        each(move |tell| {
            if let Tell::Ran(files) = tell {
                alter(files);
            }
        })
    };
    let last = |laid: &'static [u8]| -> Alter {
        // All answers that are neither the look's nor a pass's are of the last pass.
        each(move |tell| {
            if let Tell::Ran(files) = tell
                && files.is_empty()
            {
                files.push((name(laid), b"forged".to_vec()));
            }
        })
    };
    vec![
        ("no identity", REFUSED, ran(|files| files.retain(|(name, _)| name.bytes() != b"identity"))),
        ("a database of no kind", REFUSED, ran(|files| told(files, b"profile", b"\x1b[2Jnone"))),
        ("facts that are none", REFUSED, ran(|files| told(files, b"facts", b"%zz"))),
        ("a forged marker", REFUSED, last(b".repl-sync-incomplete")),
        ("a forged configuration", REFUSED, last(b"pg_hba.conf")),
        ("a file laid outside", REFUSED, last(b"../outside/canary")),
        (
            "a failure with the code of success",
            REFUSED,
            instead(a_list, |_| vec![Word::Say(Tell::Failed(Code::Done, "fine".to_owned(), String::new()))]),
        ),
        (
            "a failure that is one",
            &[13],
            instead(a_list, |_| {
                vec![Word::Say(Tell::Failed(Code::Guarded, "\u{1b}]0;x\u{7}no".to_owned(), "\u{1b}[1m".to_owned()))]
            }),
        ),
        ("an answer to another question", REFUSED, instead(a_list, |_| vec![Word::Say(Tell::Smalls(Vec::new()))])),
    ]
}

/// A frame as it is in the protocol, with whatever header.
fn sealed(length: u32, kind: u8, flags: u8, line: u16, payload: &[u8]) -> Vec<u8> {
    let mut frame = length.to_le_bytes().to_vec();
    frame.extend([kind, flags]);
    frame.extend(line.to_le_bytes());
    frame.extend(crc32c::crc32c(payload).to_le_bytes());
    frame.extend(crc32c::crc32c(&frame).to_le_bytes());
    assert_eq!(frame.len(), HEADER);
    frame.extend(payload);
    frame
}

fn packed(says: u32, payload: &[u8]) -> Vec<u8> {
    let mut inner = says.to_le_bytes().to_vec();
    inner.extend(zstd::bulk::compress(payload, 3).unwrap());
    sealed(inner.len() as u32, b'e', 1, 0, &inner)
}

fn frames() -> Vec<Case> {
    let raw = |bytes: Vec<u8>| instead(a_list, move |_| vec![Word::Raw(bytes.clone())]);
    let list = |count: usize| Tell::Entries {
        entries: Vec::new(),
        unread: vec![(name(b"x"), String::new()); count],
        is_end: false,
    };
    let damaged = |at: usize| {
        let mut frame = list(3).seal(0, None);
        frame[at] ^= 4;
        raw(frame)
    };
    vec![
        ("a frame of 4 GiB", REFUSED, raw(sealed(u32::MAX, b'e', 0, 0, b""))),
        ("a frame that is a byte too long", REFUSED, raw(sealed(PAYLOAD_MAX as u32 + 1, b'e', 0, 0, b""))),
        ("unknown flags", REFUSED, raw(sealed(0, b'e', 2, 0, b""))),
        ("a kind that is none", REFUSED, raw(sealed(0, b'?', 0, 0, b""))),
        ("a line that is none", REFUSED, raw(sealed(0, b'e', 0, u16::MAX, b""))),
        ("a header with a flipped bit", REFUSED, damaged(4)),
        ("a payload with a flipped bit", REFUSED, damaged(HEADER)),
        ("a count that is not there", REFUSED, raw(sealed(5, b'e', 0, 0, &[0, 255, 255, 255, 255]))),
        ("300 MB in a few bytes", REFUSED, raw(packed(300 << 20, &vec![0; 1 << 20]))),
        ("more in it than it says", REFUSED, raw(packed(16, &vec![0; 1 << 20]))),
        ("less in it than it says", REFUSED, raw(packed(1 << 20, &[0; 16]))),
        ("no frame of zstd's", REFUSED, raw(sealed(20, b'e', 1, 0, &[9; 20]))),
        (
            "half a frame",
            &[8],
            instead(a_list, move |tell| {
                let whole = tell.seal(0, None);
                vec![Word::Raw(whole[..whole.len() / 2].to_vec()), Word::Cut]
            }),
        ),
        (
            "nothing but lists of nothing",
            REFUSED,
            instead(a_list, |_| {
                let nothing = || Tell::Entries { entries: Vec::new(), unread: Vec::new(), is_end: false };
                (0..2000).map(|_| Word::Say(nothing())).chain([Word::Cut]).collect()
            }),
        ),
        (
            "answers that nobody asked for, on all lines",
            &[1, 6, 8],
            instead(a_list, |tell| {
                let mut words: Vec<_> =
                    (0..2000).map(|number| Word::On(number % 5, Tell::Smalls(Vec::new()))).collect();
                words.extend([Word::Say(tell), Word::Cut]);
                words
            }),
        ),
        (
            "files that cannot be read, without end",
            &[1, 6, 8],
            instead(a_list, |_| {
                let many = Tell::Entries {
                    entries: Vec::new(),
                    unread: vec![(name(b"x"), "y".repeat(300)); 5000],
                    is_end: false,
                };
                (0..200).map(|_| Word::Say(many.clone())).chain([Word::Cut]).collect()
            }),
        ),
    ]
}

#[test]
fn errands_that_were_never_done() {
    play("--inplace", errands());
}

#[test]
fn frames_that_are_none() {
    play("--stage", frames());
}
