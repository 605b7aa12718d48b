//! The Berkeley DB scanner on arbitrary bytes, and on a valid log with one damaged byte: never a panic, never a safe
//! extent that shrinks, that depends on the pieces the bytes came in, or that reaches past the damage.
//!
//! Input: chunk size, byte order, place and pattern of the damage, then records as length and body.

#![no_main]

#[path = "../scan.rs"]
mod scan;

use libfuzzer_sys::fuzz_target;
use repl::rule::scheme::{Beside, Scheme};
use repl::value::position::Segment;
use repl::value::time::Time;

fuzz_target!(|bytes: &[u8]| {
    let Some(([chunk, order, place, place_high, flip], rest)) = bytes.split_first_chunk() else { return };
    let chunk = usize::from(*chunk).max(1);
    check(rest, chunk);
    let mut log = build(rest, order & 1 == 0);
    let length = log.len() as u64;
    assert_eq!(check(&log, chunk), length);
    let at = usize::from(u16::from_le_bytes([*place, *place_high])) % log.len();
    log[at] ^= flip;
    let safe = check(&log, chunk);
    assert_eq!(safe == length, *flip == 0);
    assert!(*flip == 0 || safe <= at as u64, "{safe} is behind the damage at {at}");
});

/// A log with these records, each a byte of length and so many bytes of body.
fn build(mut rest: &[u8], is_little: bool) -> Vec<u8> {
    let word = |word: u32| if is_little { word.to_le_bytes() } else { word.to_be_bytes() };
    let mut log = Vec::new();
    let mut put = |previous: u32, body: &[u8]| {
        let length = 12 + body.len() as u32;
        let hash = body.iter().fold(0u32, |hash, byte| hash.wrapping_mul(33).wrapping_add(u32::from(*byte)));
        let at = log.len() as u32;
        log.extend([previous, length, hash ^ previous ^ length].map(word).concat());
        log.extend(body);
        at
    };
    let mut last = put(0, &[0x0004_0988, 19, 1000, 0].map(word).concat());
    while let Some((length, tail)) = rest.split_first() {
        let (body, tail) = tail.split_at(usize::from(*length).min(tail.len()));
        let mut body = body.to_vec();
        body.resize(body.len().max(16), 0);
        last = put(last, &body);
        rest = tail;
    }
    log
}

/// Scans at once and in chunks with a way back after each; returns the safe extent.
fn check(bytes: &[u8], chunk: usize) -> u64 {
    let segment = Segment::new(1, 1);
    let fresh = Scheme::Bdb.scanner(segment, Some(Time::from_seconds(1_000_000_000)));
    let whole = scan::in_pieces(&fresh, bytes, chunk);
    let beside = Beside { own: bytes, segment, next: bytes, is_passed: false };
    let _ = (whole.closure(beside), Scheme::Bdb.fingerprint(bytes), Scheme::Bdb.is_side_file("x", bytes));
    whole.safe()
}
