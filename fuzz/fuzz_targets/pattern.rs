//! A pattern from a peer: whatever segment it prints is one visible path component and is read back.
//!
//! Input: sixteen bytes of numbers, the length of the pattern, the pattern, and a file name.

#![no_main]

use libfuzzer_sys::fuzz_target;
use repl::rule::pattern::Pattern;
use repl::rule::scheme::Scheme;
use repl::value::position::Segment;

fuzz_target!(|bytes: &[u8]| {
    let Some((numbers, rest)) = bytes.split_first_chunk::<16>() else { return };
    let Some((length, rest)) = rest.split_first() else { return };
    let (text, name) = rest.split_at(usize::from(*length).min(rest.len()));
    let (Ok(text), Ok(name)) = (std::str::from_utf8(text), std::str::from_utf8(name)) else { return };
    let (generation, sequence) = numbers.split_at(8);
    let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    let (generation, sequence) = (number(generation), number(sequence));
    let _ = Scheme::Bdb.segment(name).map(|segment| assert_eq!(Scheme::Bdb.name(segment), name));
    let Ok(pattern) = Pattern::parse(text) else { return };
    assert_eq!(Pattern::parse(&pattern.to_string()).as_ref(), Ok(&pattern));
    if let Some(segment) = pattern.segment(name) {
        assert_eq!(pattern.name(segment), name);
    }
    let printed = pattern.name(Segment::new(generation, sequence));
    assert!(!printed.is_empty() && printed.len() <= 255);
    assert!(!printed.starts_with(['.', '-']) && !printed.contains(['/', '\0']) && !printed.contains(char::is_control));
    let back = pattern.segment(&printed).expect("a printed name is read");
    assert_eq!((back.sequence, pattern.name(back)), (sequence, printed));
});
