//! The PostgreSQL scanner on arbitrary bytes, and on a valid log with one damaged byte: never a panic, never a safe extent
//! that shrinks, that depends on the pieces the bytes came in, or that ends inside the damaged record.
//!
//! Input: chunk size, place and pattern of the damage, then records as length and body.

#![no_main]

#[path = "../scan.rs"]
mod scan;

use libfuzzer_sys::fuzz_target;
use repl::rule::scheme::postgres::Cluster;
use repl::rule::scheme::{Beside, Scheme};
use repl::value::position::Segment;
use repl::value::time::Time;

const SYSTEM: u64 = 7_310_000_000_000_000_001;
const START: u64 = 5 << 20;

fuzz_target!(|bytes: &[u8]| {
    let Some(([chunk, place, place_high, flip], rest)) = bytes.split_first_chunk() else { return };
    let chunk = usize::from(*chunk).max(1);
    check(rest, chunk);
    let (mut log, records) = build(rest);
    check(&[log.as_slice(), rest].concat(), chunk);
    let length = log.len() as u64;
    assert_eq!(check(&log, chunk), length);
    if log.is_empty() {
        return;
    }
    let at = usize::from(u16::from_le_bytes([*place, *place_high])) % log.len();
    log[at] ^= flip;
    let safe = check(&log, chunk);
    // Bits that no checksum covers may be flipped in page headers and in what aligns the next record.
    let in_header = at % 8192 < 40;
    if let Some((start, _)) = records.iter().find(|(start, end)| (*start..end - 7).contains(&at) && !in_header) {
        assert!(*flip == 0 || safe <= *start as u64, "{safe} is behind the damage at {at}");
    }
});

/// A log with these records, each a byte of length (of eight bytes) and the body; and where each begins and ends.
fn build(mut rest: &[u8]) -> (Vec<u8>, Vec<(usize, usize)>) {
    let (mut log, mut records) = (Vec::new(), Vec::new());
    let mut last = 0x1000u64;
    while let Some((length, tail)) = rest.split_first() {
        let length = usize::from(*length) * 8;
        let (body, tail) = tail.split_at(length.min(tail.len()));
        rest = tail;
        let mut body = body.to_vec();
        body.resize(length, 0xa5);
        let mut record = [(24 + body.len() as u32).to_le_bytes(), 7u32.to_le_bytes()].concat();
        record.extend(last.to_le_bytes());
        // No segment switch: that counts no byte before the segment's end.
        record.extend([body.first().copied().unwrap_or_default(), 1, 0, 0]);
        let crc = [body.as_slice(), &record].concat().iter().fold(!0u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0x82f6_3b78 } else { crc >> 1 })
        });
        record.extend((!crc).to_le_bytes());
        record.extend(&body);
        let start = put(&mut log, &record);
        last = START + start as u64;
        records.push((start, log.len()));
    }
    (log, records)
}

/// Appends a record over pages; returns where it begins.
fn put(log: &mut Vec<u8>, record: &[u8]) -> usize {
    let (mut rest, mut start) = (record, None);
    while !rest.is_empty() {
        if log.len() % 8192 == 0 {
            let (at, left) = (log.len() as u64, if rest.len() < record.len() { rest.len() } else { 0 });
            log.extend(0xd110u16.to_le_bytes());
            log.extend((u16::from(left > 0) | u16::from(at == 0) << 1).to_le_bytes());
            log.extend(1u32.to_le_bytes());
            log.extend((START + at).to_le_bytes());
            log.extend((left as u64).to_le_bytes());
            if at == 0 {
                log.extend(SYSTEM.to_le_bytes());
                log.extend((1u32 << 20).to_le_bytes());
                log.extend(8192u32.to_le_bytes());
            }
        }
        start.get_or_insert(log.len());
        let count = rest.len().min(8192 - log.len() % 8192);
        log.extend(&rest[..count]);
        rest = &rest[count..];
    }
    start.unwrap_or_default()
}

/// Scans at once and in chunks with a way back after each; returns the safe extent.
fn check(bytes: &[u8], chunk: usize) -> u64 {
    let Ok(cluster) = Cluster::new(&SYSTEM.to_string(), 1 << 20) else { return 0 };
    let scheme = Scheme::Postgres(cluster);
    let fresh = scheme.scanner(Segment::new(1, 5), Some(Time::from_seconds(1_000_000_000)));
    let whole = scan::in_pieces(&fresh, bytes, chunk);
    for is_passed in [false, true] {
        let _ = whole.closure(Beside { own: bytes, segment: Segment::new(1, 6), next: bytes, is_passed });
    }
    let mut next = scheme.scanner(Segment::new(1, 6), None);
    next.follow(&whole);
    next.take(bytes);
    let _ = (scheme.fingerprint(bytes), scheme.is_begun(Segment::new(1, 5), bytes), Cluster::read(bytes));
    whole.safe()
}
