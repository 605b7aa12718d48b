//! What two ends of a sync say to each other: frames, questions, answers, entries and the greeting. What is believed is
//! printed back as what means the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use repl::engine::sync::greeting;
use repl::rule::stream::magic::MAGIC;
use repl::rule::sync::wire::ask::Ask;
use repl::rule::sync::wire::tell::Tell;
use repl::rule::sync::wire::{Frame, HEADER, Header, PAYLOAD_MAX, seal};
use repl::value::entry::Entry;
use repl::value::octets::Reader;

fn open(bytes: &[u8]) -> Option<Frame> {
    let (header, payload) = bytes.split_first_chunk::<HEADER>()?;
    let header = Header::parse(header).ok()?;
    header.open(payload.get(..header.length)?.to_vec()).ok()
}

fuzz_target!(|bytes: &[u8]| {
    if let Some(frame) = open(bytes) {
        assert!(frame.payload.len() <= PAYLOAD_MAX);
    }
    let mut reader = Reader::new(bytes);
    while let Some(entry) = Entry::parse(&mut reader) {
        let mut printed = Vec::new();
        entry.print(&mut printed);
        assert_eq!(Entry::parse(&mut Reader::new(&printed)), Some(entry));
    }
    let _ = greeting::answer(bytes, &mut Vec::new());
    let hello = [&MAGIC[..], &seal(b'H', 0, bytes, None)].concat();
    if let Ok((_, _, words)) = greeting::answer(&hello[..], &mut Vec::new()) {
        assert!(words.len() <= bytes.len());
    }
    let [kind, payload @ ..] = bytes else { return };
    let frame = || open(&seal(*kind, 1, payload, None)).expect("its own checksums");
    if let Ok(ask) = Ask::parse(&frame()) {
        assert_eq!(Ask::parse(&open(&ask.seal(1)).expect("its own")).expect("read back"), ask);
    }
    if let Ok(tell) = Tell::parse(frame()) {
        assert_eq!(Tell::parse(open(&tell.seal(1, Some(1))).expect("its own")).expect("read back"), tell);
    }
});
