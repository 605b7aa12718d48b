//! The MariaDB scanner on arbitrary bytes, and on a valid log with one damaged byte: never a panic, never a safe extent
//! that shrinks, that depends on the pieces the bytes came in, or that reaches past the damage.
//!
//! Input: chunk size, place and pattern of the damage, then events as kind, length and body.

#![no_main]

#[path = "../scan.rs"]
mod scan;

use libfuzzer_sys::fuzz_target;
use repl::rule::pattern::Pattern;
use repl::rule::scheme::mariadb::{Gtids, Transactions};
use repl::rule::scheme::{Beside, Scheme};
use repl::value::position::Segment;
use repl::value::time::Time;

/// The format description of a file of 10.11 with checksums, magic first, its own checksum right.
const BEGINNING: &[u8] = include_bytes!("mariadb.bin");

fuzz_target!(|bytes: &[u8]| {
    let Some(([chunk, place, place_high, flip], rest)) = bytes.split_first_chunk() else { return };
    let chunk = usize::from(*chunk).max(1);
    check(rest, chunk);
    check(&[BEGINNING, rest].concat(), chunk);
    let mut log = build(rest);
    let length = log.len() as u64;
    assert_eq!(check(&log, chunk), length);
    let at = usize::from(u16::from_le_bytes([*place, *place_high])) % log.len();
    log[at] ^= flip;
    let safe = check(&log, chunk);
    // The one bit that is no part of any checksum.
    let is_equal = *flip == 0 || (at == 21 && *flip == 1);
    assert_eq!(safe == length, is_equal);
    assert!(is_equal || safe <= at as u64, "{safe} is behind the damage at {at}");
});

/// A log with these events, none of which ends it or says that the rest is encrypted.
fn build(mut rest: &[u8]) -> Vec<u8> {
    let mut log = BEGINNING.to_vec();
    while let Some(([kind, length], tail)) = rest.split_first_chunk() {
        let (body, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        let kind = if [0, 3, 4, 164].contains(kind) { 2 } else { *kind };
        let length = (23 + body.len()) as u32;
        let words = [1000, 7, length, log.len() as u32 + length].map(u32::to_le_bytes);
        let mut event = [&words[0], [kind].as_slice(), &words[1], &words[2], &words[3], &[0; 2], body].concat();
        event.extend(crc32(&event).to_le_bytes());
        log.extend(event);
        rest = tail;
    }
    log
}

fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| step(crc)))
}

/// Scans at once and in chunks with a way back after each; returns the safe extent.
fn check(bytes: &[u8], chunk: usize) -> u64 {
    let pattern = Pattern::parse("log.%06S").unwrap();
    let scheme = Scheme::Mariadb(pattern.clone());
    let segment = Segment::new(1, 1);
    let fresh = scheme.scanner(segment, Some(Time::from_seconds(1_000_000_000)));
    let whole = scan::in_pieces(&fresh, bytes, chunk);
    let mut searching = whole.clone();
    if searching.search() {
        searching.take(&bytes[searching.at() as usize..]);
    }
    for is_passed in [false, true] {
        let _ = searching.closure(Beside { own: bytes, segment, next: bytes, is_passed });
    }
    let _ = (scheme.fingerprint(bytes), whole.remark("x"), whole.may_be_torn());
    let mut transactions =
        Transactions::new(&pattern, Gtids::parse(&String::from_utf8_lossy(bytes)).unwrap_or_default());
    transactions.take(bytes, |one, _| assert!(one.start < one.end && one.end <= bytes.len() as u64));
    assert_eq!(transactions.end().unwrap_or(0).max(whole.safe()), whole.safe());
    whole.safe()
}
