//! The scanner on logs that are built here. `tests/pg_scanner.rs` has logs of a real server.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod any;
mod behind;
mod beside;
mod log;
mod names;
mod over;

use self::log::{FIRST, Log, SIZE, cluster};
use super::*;

fn segment(number: u64) -> Segment {
    Segment::new(1, number)
}

fn scan(bytes: &[u8]) -> Scanner {
    scan_in_chunks(bytes, bytes.len().max(1), None)
}

fn scan_in_chunks(bytes: &[u8], chunk: usize, until: Option<Time>) -> Scanner {
    let mut scanner = Scanner::new(cluster(), segment(FIRST), until);
    bytes.chunks(chunk).for_each(|chunk| scanner.take(chunk));
    scanner
}

/// Everything that a scanner says.
#[derive(Debug, PartialEq)]
struct Said {
    at: u64,
    safe: u64,
    boundary: Option<Mark>,
    past: bool,
    hungry: bool,
    trouble: Option<String>,
}

fn said(scanner: &Scanner) -> Said {
    Said {
        at: scanner.at(),
        safe: scanner.safe(),
        boundary: scanner.boundary(),
        past: scanner.is_past_limit(),
        hungry: scanner.is_hungry(),
        trouble: scanner.trouble(),
    }
}

/// So many seconds after 2000.
fn time(seconds: i64) -> Time {
    Time::from_seconds(946_684_800 + seconds)
}

fn mark(offset: usize, seconds: i64) -> Mark {
    Mark { offset: offset as u64, time: Some(time(seconds)) }
}

fn says(scanner: &Scanner, words: &str) -> bool {
    scanner.trouble().is_some_and(|why| why.contains(words))
}

#[test]
fn a_whole_log_is_safe_to_its_end() {
    let log = Log::sample();
    let end = log.bytes.len();
    let expected = Said {
        at: end as u64,
        safe: end as u64,
        boundary: Some(mark(log.records[6].1, 3000)),
        past: false,
        hungry: true,
        trouble: None,
    };
    assert_eq!(said(&scan(&log.bytes)), expected);
}

#[test]
fn a_log_cut_at_any_byte_is_safe_to_its_last_whole_record() {
    let log = Log::sample();
    let mut scanner = scan(&[]);
    for cut in 1..=log.bytes.len() {
        scanner.take(&log.bytes[cut - 1..cut]);
        let end = log.end_within(cut);
        assert_eq!((scanner.safe(), scanner.at()), (end as u64, cut as u64));
        assert_eq!(scanner.trouble().is_none(), end == cut, "{cut}: {:?}", scanner.trouble());
        assert!(scanner.is_hungry() && scanner.boundary().is_none_or(|mark| mark.offset <= scanner.safe()), "{cut}");
    }
}

#[test]
fn a_log_whose_tail_is_zero_from_any_byte_is_safe_to_its_last_whole_record() {
    let log = Log::sample();
    let zeros = vec![0; 3 * 8192];
    let mut scanner = scan(&[]);
    for cut in 0..log.bytes.len() {
        // A record that ends in zeros is whole without them.
        let whole = cut + log.bytes[cut..].iter().take_while(|byte| **byte == 0).count();
        let mut torn = scanner.clone();
        torn.take(&zeros[..3 * 8192 - cut]);
        assert_eq!(torn.safe(), log.end_within(whole) as u64, "{cut}");
        assert!(torn.trouble().is_some() && torn.at() == 3 * 8192, "{cut}");
        scanner.take(&log.bytes[cut..=cut]);
    }
}

#[test]
fn zeros_behind_the_end_are_taken_but_are_no_log() {
    let log = Log::sample();
    let scanner = scan(&log.file(FIRST));
    assert_eq!((scanner.safe(), scanner.at(), scanner.is_hungry()), (log.bytes.len() as u64, SIZE, false));
    assert_eq!(scanner.trouble().as_deref(), Some("no record begins there"));
}

/// Bits that the layout gives no meaning, and no checksum covers: in page headers the mark of removable block images, the
/// length of nothing that goes on, and the padding; in records what aligns the next one.
fn is_idle(log: &Log, at: usize, bit: usize) -> bool {
    let page = at / 8192 * 8192;
    let field = at - page;
    let goes_on = log.bytes[page + 2] & 1 == 1;
    let header = if page == 0 { 40 } else { 24 };
    if field < header {
        // The mark of a record that was given up says nothing where none is.
        return (field == 2 && (bit == 2 || bit == 3 && !goes_on))
            || ((16..20).contains(&field) && !goes_on)
            || (20..24).contains(&field);
    }
    let (start, end) = *log.records.iter().rfind(|record| record.0 <= at).unwrap();
    let length = u32::from_le_bytes(log.bytes[start..start + 4].try_into().unwrap()) as usize;
    at >= end - (length.next_multiple_of(8) - length)
}

#[test]
fn no_flipped_bit_is_passed() {
    let log = Log::sample();
    let interesting = |at: &usize| {
        let is_head = |(start, _): &(usize, usize)| (*start..start + 40).contains(at);
        at % 8192 < 64 || at.is_multiple_of(97) || log.records.iter().any(is_head)
    };
    let (mut tried, mut before) = (0, scan(&[]));
    for (at, bit) in (0..log.bytes.len()).filter(interesting).flat_map(|at| (0..8).map(move |bit| (at, bit))) {
        before.take(&log.bytes[before.at() as usize..at]);
        let mut scanner = before.clone();
        scanner.take(&[log.bytes[at] ^ 1 << bit]);
        scanner.take(&log.bytes[at + 1..]);
        if is_idle(&log, at, bit) {
            assert_eq!(scanner.safe() as usize, log.bytes.len(), "{at} bit {bit}");
            continue;
        }
        tried += 1;
        // The release is compared from page to page, so its flip in the first is seen at the second.
        let limit = if at < 2 { 8192 } else { at };
        assert!(scanner.safe() as usize <= limit, "{at} bit {bit}: {}", scanner.safe());
        assert!(scanner.trouble().is_some(), "{at} bit {bit}");
    }
    assert!(tried > 5000, "{tried}");
}

#[test]
fn any_way_to_cut_the_reads_gives_the_same_answer() {
    let log = Log::sample();
    let file = &log.file(FIRST)[..4 * 8192];
    let whole = said(&scan(file));
    for chunk in [1, 2, 3, 7, 23, 24, 25, 40, 100, 8191, 8192, 8193, 20_000] {
        assert_eq!(said(&scan_in_chunks(file, chunk, None)), whole, "{chunk}");
    }
}

#[test]
fn a_scan_that_goes_back_after_every_byte_comes_to_the_same_end() {
    let log = Log::sample();
    let mut scanner = scan(&[]);
    for cut in 1..=log.bytes.len() {
        scanner.take(&log.bytes[scanner.at() as usize..cut]);
        scanner.rewind();
        assert_eq!((scanner.at(), scanner.safe()), (log.end_within(cut) as u64, log.end_within(cut) as u64), "{cut}");
        assert!(scanner.is_hungry() && scanner.trouble().is_none(), "{cut}");
    }
    assert_eq!(said(&scanner), said(&scan(&log.bytes)));
}

/// A writer's page may be seen half old, half new; the next look is at what it has become.
#[test]
fn what_was_no_record_yet_is_looked_at_again() {
    let log = Log::sample();
    for cut in [0, 20, 39, 40, 100, 8191, 8192, 8200, 8216, 10_000] {
        let mut scanner = scan(&[]);
        let mut old = log.bytes[..cut].to_vec();
        old.resize(3 * 8192, 0xa5);
        scanner.take(&old);
        assert!(!scanner.is_hungry(), "{cut}");
        scanner.rewind();
        scanner.take(&log.bytes[scanner.at() as usize..]);
        assert_eq!(said(&scanner), said(&scan(&log.bytes)), "{cut}");
    }
}

#[test]
fn every_end_of_a_transaction_and_every_restore_point_is_a_boundary() {
    // Commit, abort, and both of prepared ones; with the parts that may come before the time.
    let time_of = |seconds: i64| (seconds * 1_000_000).to_le_bytes();
    let plain = |seconds: i64| [&[255, 8], time_of(seconds).as_slice()].concat();
    let long = |seconds: i64| [&[254, 8, 0, 0, 0], time_of(seconds).as_slice()].concat();
    let origin = |seconds: i64| [&[253, 1, 0, 255, 8], time_of(seconds).as_slice()].concat();
    let both = |seconds: i64| [&[253, 1, 0, 252, 9, 0, 0, 0, 254, 8, 0, 0, 0], time_of(seconds).as_slice()].concat();
    let is_boundary = |manager: u8, info: u8, body: Vec<u8>| {
        let mut log = Log::new();
        log.record(manager, info, &body);
        let scanner = scan(&log.bytes);
        assert_eq!(scanner.safe() as usize, log.bytes.len());
        scanner.boundary().is_some_and(|found| found == mark(log.bytes.len(), 77))
    };
    for info in [0x00, 0x80, 0x20, 0xa0, 0x30, 0xb0, 0x40, 0xc0] {
        for body in [plain(77), long(77), origin(77), both(77)] {
            assert!(is_boundary(1, info, body), "{info:#x}");
        }
    }
    assert!(is_boundary(0, 0x70, plain(77)));
    for (manager, info) in [(1, 0x10), (1, 0x50), (1, 0x60), (0, 0x00), (0, 0x10), (0, 0x90), (10, 0x00), (255, 0x70)] {
        assert!(!is_boundary(manager, info, plain(77)), "{manager} {info:#x}");
    }
    // A record that says it is one, and has no time.
    for body in [vec![], vec![255], vec![3; 50], vec![253; 60], vec![254, 255, 255, 255, 255]] {
        assert!(!is_boundary(1, 0, body));
    }
}

#[test]
fn boundaries_later_than_the_limit_are_not_taken() {
    let log = Log::sample();
    for (limit, expected, past) in [
        (999, None, true),
        (1000, Some(mark(log.records[1].1, 1000)), true),
        (2999, Some(mark(log.records[3].1, 2000)), true),
        (3000, Some(mark(log.records[6].1, 3000)), false),
    ] {
        for chunk in [1, 500, 100_000] {
            let scanner = scan_in_chunks(&log.bytes, chunk, Some(time(limit)));
            assert_eq!((scanner.boundary(), scanner.is_past_limit()), (expected, past), "{limit}");
            assert_eq!(scanner.safe() as usize, log.bytes.len());
        }
    }
}

#[test]
fn a_record_that_names_another_predecessor_stops_the_scan() {
    let log = Log::sample();
    for previous in [0, log.last() - 8, log.last() + 8, u64::MAX] {
        let mut bad = log.clone();
        bad.raw(10, 0, previous, &[255, 1, 1]);
        let scanner = scan(&bad.bytes);
        assert_eq!(scanner.safe() as usize, log.bytes.len());
        assert!(says(&scanner, "the one before it") && !scanner.is_hungry(), "{:?}", scanner.trouble());
    }
    // Of the first one in a segment that is taken alone only so much is known.
    let mut log = Log::new();
    log.raw(10, 0, FIRST * SIZE + 40, &[255, 1, 1]);
    assert!(says(&scan(&log.bytes), "behind it"));
}

/// Its stop was forgotten, and where no record before it is known the next one counted.
#[test]
fn bug_a_record_without_data_was_passed_over_when_its_checksum_was_wrong() {
    let mut log = Log::new();
    log.record(0, 0x20, &[]);
    log.record(0, 0x20, &[]);
    assert_eq!((log.bytes.len(), scan(&log.bytes).safe()), (88, 88));
    for bit in 40 * 8..64 * 8 {
        let mut flipped = log.bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let scanner = scan(&flipped);
        assert_eq!(scanner.safe(), 0, "bit {bit}");
        assert!(scanner.trouble().is_some(), "bit {bit}");
    }
}

#[test]
fn an_absurd_length_stops_the_scan_at_once() {
    let log = Log::sample();
    for length in [1, 23, RECORD_MAX + 1, u32::MAX] {
        let head = [&length.to_le_bytes(), [9; 20].as_slice()].concat();
        let scanner = scan(&[log.bytes.as_slice(), &head].concat());
        assert_eq!((scanner.safe() as usize, scanner.is_hungry()), (log.bytes.len(), false));
        assert!(says(&scanner, "impossible"), "{length}: {:?}", scanner.trouble());
    }
}

#[test]
fn a_segment_of_another_system_or_of_another_size_is_refused_with_the_reason() {
    let mut foreign = Log::new();
    foreign.system += 1;
    foreign.plain(100);
    let scanner = scan(&foreign.bytes);
    assert!(scanner.safe() == 0 && says(&scanner, "of system 7310000000000000002"), "{:?}", scanner.trouble());
    let mut other = Log::sample().bytes;
    other[32..36].copy_from_slice(&(1u32 << 24).to_le_bytes());
    assert!(scan(&other).safe() == 0 && says(&scan(&other), "16777216"));
    let mut pages = Log::sample().bytes;
    pages[36..40].copy_from_slice(&4096u32.to_le_bytes());
    assert!(scan(&pages).safe() == 0 && scan(&pages).trouble().is_some());
    let mut longer = Log::sample();
    longer.switch();
    longer.bytes.push(0);
    assert!(says(&scan(&longer.bytes), "longer than a segment"));
}

#[test]
fn what_a_file_had_in_it_under_its_old_name_is_no_log() {
    let mut log = Log::sample();
    log.plain_to(SIZE as usize);
    let old = log.file(FIRST);
    for (name, later) in [(FIRST + 1, true), (FIRST - 1, true), (FIRST, false)] {
        let mut scanner = Scanner::new(cluster(), segment(name), None);
        scanner.take(&old);
        assert_eq!(scanner.safe() == 0, later, "{name}");
        assert_eq!(cluster().is_begun(segment(name), &old[..super::super::HEAD]), !later, "{name}");
        if later {
            assert_eq!(scanner.trouble().as_deref(), Some("no record begins there"));
        }
    }
    // Written anew up to the middle of it: the rest is old.
    let mut new = Log::sample();
    new.bytes.resize(new.bytes.len().next_multiple_of(8192), 0);
    let mut file = new.bytes.clone();
    let end = Log::sample().bytes.len() as u64;
    let mut shifted = log.file(FIRST);
    for page in (0..SIZE as usize).step_by(8192) {
        let address = ((FIRST - 2) * SIZE + page as u64).to_le_bytes();
        shifted[page + 8..page + 16].copy_from_slice(&address);
    }
    file.extend(&shifted[file.len()..]);
    assert_eq!((scan(&file).safe(), scan(&file).trouble().as_deref()), (end, Some("no record begins there")));
}

#[test]
fn an_empty_or_zero_file_holds_nothing_and_is_no_damage() {
    assert_eq!(scan(&[]).trouble(), None);
    let scanner = scan(&vec![0; SIZE as usize]);
    assert_eq!((scanner.safe(), scanner.at(), scanner.is_hungry()), (0, SIZE, false));
    assert_eq!(scanner.trouble().as_deref(), Some("no record begins there"));
    for head in [&[] as &[u8], &[0], &[0; 39], &[0; 512]] {
        assert!(!cluster().is_begun(segment(FIRST), head) && Cluster::read(head).is_none());
        assert_eq!(fingerprint(head), "");
    }
}

#[test]
fn a_page_of_a_timeline_that_the_segment_cannot_hold_stops_the_scan() {
    let mut log = Log::sample();
    log.timeline = 2;
    log.plain(9000);
    assert!(says(&scan(&log.bytes), "of timeline 2"));
    let mut zero = Log::sample().bytes;
    zero[4] = 0;
    assert!(says(&scan(&zero), "of timeline 0"));
}

#[test]
fn the_fingerprint_tells_the_release() {
    assert_eq!(fingerprint(&Log::sample().bytes), "page-magic=d110");
    assert_eq!(fingerprint(&[0xff; 512]), "");
}
