//! The scanner on logs that are built here, in both byte orders. `tests/bdb_scanner.rs` has logs of the real engine.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod any;
mod behind;
mod log;

use self::log::Log;
use super::super::beside;
use super::*;

const ORDERS: [Order; 2] = [Order::Little, Order::Big];
/// Record type `db_addrem`: one that is no boundary.
const ADDREM: u32 = 41;

fn scan(bytes: &[u8]) -> Scanner {
    scan_in_chunks(bytes, bytes.len().max(1), None)
}

fn scan_in_chunks(bytes: &[u8], chunk: usize, until: Option<Time>) -> Scanner {
    let mut scanner = Scanner::new(until);
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
    closure: Closure,
}

fn said(scanner: &Scanner, next: &[u8]) -> Said {
    Said {
        at: scanner.at(),
        safe: scanner.safe(),
        boundary: scanner.boundary(),
        past: scanner.is_past_limit(),
        hungry: scanner.is_hungry(),
        trouble: scanner.trouble(),
        closure: scanner.closure(beside(next)),
    }
}

fn mark(offset: usize, seconds: i64) -> Mark {
    Mark { offset: offset as u64, time: Some(Time::from_seconds(seconds)) }
}

fn is_damaged(closure: &Closure) -> bool {
    matches!(closure, Closure::Damaged(_))
}

#[test]
fn a_whole_log_is_safe_to_its_end() {
    for order in ORDERS {
        let log = Log::sample(order);
        let scanner = scan(&log.bytes);
        let end = log.bytes.len();
        let expected = Said {
            at: end as u64,
            safe: end as u64,
            boundary: Some(mark(*log.starts.last().unwrap(), 2000)),
            past: false,
            hungry: true,
            trouble: None,
            closure: Closure::Closed,
        };
        assert_eq!(said(&scanner, &log.next_head()), expected, "{order}");
    }
}

#[test]
fn zeros_behind_the_end_are_taken_but_are_no_log() {
    for order in ORDERS {
        let log = Log::sample(order);
        let padded = [log.bytes.as_slice(), &[0; 5000]].concat();
        let scanner = scan(&padded);
        assert_eq!((scanner.safe(), scanner.at()), (log.bytes.len() as u64, padded.len() as u64));
        assert!(!scanner.is_hungry());
        assert_eq!(scanner.trouble().as_deref(), Some("no record begins there"));
        assert_eq!(scanner.closure(beside(&log.next_head())), Closure::Closed);
    }
}

#[test]
fn a_log_cut_at_any_byte_is_safe_to_its_last_whole_record() {
    for order in ORDERS {
        let log = Log::sample(order);
        for cut in 0..=log.bytes.len() {
            let scanner = scan(&log.bytes[..cut]);
            let end = log.end_within(cut);
            assert_eq!((scanner.safe(), scanner.at()), (end as u64, cut as u64), "{order} {cut}");
            assert_eq!(scanner.trouble().is_none(), end == cut, "{order} {cut}: {:?}", scanner.trouble());
            assert!(scanner.boundary().is_none_or(|mark| mark.offset <= scanner.safe()), "{order} {cut}");
            let is_closed = scanner.closure(beside(&log.next_head())) == Closure::Closed;
            assert_eq!(is_closed, cut == log.bytes.len(), "{order} {cut}");
        }
    }
}

#[test]
fn a_log_whose_tail_is_zero_from_any_byte_is_safe_to_its_last_whole_record() {
    for order in ORDERS {
        let log = Log::sample(order);
        for cut in 0..log.bytes.len() {
            let mut torn = log.bytes.clone();
            torn[cut..].fill(0);
            // A record that ends in zeros is whole without them.
            let cut = cut + log.bytes[cut..].iter().take_while(|byte| **byte == 0).count();
            assert_eq!(scan(&torn).safe(), log.end_within(cut) as u64, "{order} {cut}");
        }
    }
}

#[test]
fn no_flipped_bit_is_passed() {
    for order in ORDERS {
        let log = Log::sample(order);
        for bit in 0..log.bytes.len() * 8 {
            let mut flipped = log.bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let scanner = scan(&flipped);
            let start = log.starts.iter().filter(|start| **start <= bit / 8).max().unwrap();
            assert_eq!(scanner.safe(), *start as u64, "{order} bit {bit}");
            assert!(scanner.trouble().is_some(), "{order} bit {bit}");
            assert!(is_damaged(&scanner.closure(beside(&log.next_head()))), "{order} bit {bit}");
        }
    }
}

#[test]
fn no_flipped_bit_of_the_next_header_closes_a_file() {
    for order in ORDERS {
        let log = Log::sample(order);
        let (scanner, head) = (scan(&log.bytes), log.next_head());
        for bit in 0..FILE_HEADER * 8 {
            let mut flipped = head.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(is_damaged(&scanner.closure(beside(&flipped))), "{order} bit {bit}");
        }
    }
}

#[test]
fn chunks_of_any_size_give_the_same() {
    for order in ORDERS {
        let mut log = Log::sample(order);
        for count in 0..200u8 {
            log.record(ADDREM, &vec![count; usize::from(count) * 13]);
            log.commit(3000 + i32::from(count));
        }
        let mut flipped = log.bytes.clone();
        flipped[log.starts[150] + 20] ^= 1;
        let padded = [log.bytes.as_slice(), &[0; 777]].concat();
        for bytes in [&log.bytes, &flipped, &padded] {
            for until in [None, Some(Time::from_seconds(3050))] {
                let whole = scan_in_chunks(bytes, bytes.len(), until);
                for chunk in [1, 2, 7, 11, 12, 13, 27, 28, 29, 4096] {
                    let pieces = scan_in_chunks(bytes, chunk, until);
                    assert_eq!(said(&pieces, &log.next_head()), said(&whole, &log.next_head()), "{order} {chunk}");
                }
            }
        }
    }
}

#[test]
fn a_half_written_record_is_taken_again_once_it_is_whole() {
    for order in ORDERS {
        let log = Log::sample(order);
        for cut in 0..log.bytes.len() {
            for zeros in [0, 1, 64, 1000] {
                let mut scanner = Scanner::new(None);
                scanner.take(&log.bytes[..cut]);
                scanner.take(&vec![0; zeros]);
                let safe = scanner.safe();
                scanner.rewind();
                assert_eq!((scanner.at(), scanner.safe()), (safe, safe), "{order} {cut}");
                assert!(scanner.is_hungry() && scanner.trouble().is_none(), "{order} {cut}");
                scanner.take(&log.bytes[safe as usize..]);
                let (again, once) = (said(&scanner, &log.next_head()), said(&scan(&log.bytes), &log.next_head()));
                assert_eq!(again, once, "{order} {cut}");
            }
        }
    }
}

#[test]
fn a_torn_tail_that_recovery_overwrites_was_never_safe() {
    for order in ORDERS {
        let mut before = Log::sample(order);
        let mut after = before.clone();
        before.record(ADDREM, &[1; 300]);
        after.checkpoint(5000);
        let torn = before.bytes.len() - 50;
        let mut scanner = scan(&before.bytes[..torn]);
        assert_eq!(scanner.safe() as usize, *before.starts.last().unwrap());
        scanner.rewind();
        scanner.take(&after.bytes[scanner.safe() as usize..]);
        assert_eq!(scanner.safe() as usize, after.bytes.len());
        assert_eq!(scanner.closure(beside(&after.next_head())), Closure::Closed);
    }
}

#[test]
fn commits_and_checkpoints_are_boundaries_with_their_time() {
    for order in ORDERS {
        let mut log = Log::new(order, 0);
        assert_eq!(scan(&log.bytes).boundary(), None);
        log.record(ADDREM, &[0; 40]);
        assert_eq!(scan(&log.bytes).boundary(), None);
        log.commit(1_700_000_000);
        assert_eq!(scan(&log.bytes).boundary(), Some(mark(log.bytes.len(), 1_700_000_000)));
        log.checkpoint(1_700_000_005);
        let at_checkpoint = Some(mark(log.bytes.len(), 1_700_000_005));
        assert_eq!(scan(&log.bytes).boundary(), at_checkpoint);
        log.record(ADDREM, &[0; 40]);
        log.record(12, &[0; 40]);
        // Too short to have a time: no boundary, though a whole record.
        log.record(TXN_REGOP, &[0; 7]);
        log.record(TXN_CKP, &[0; 19]);
        assert_eq!(scan(&log.bytes).boundary(), at_checkpoint);
        assert_eq!(scan(&log.bytes).safe() as usize, log.bytes.len());
        log.commit(-1);
        assert_eq!(scan(&log.bytes).boundary(), Some(mark(log.bytes.len(), -1)));
    }
}

#[test]
fn no_boundary_later_than_the_limit_is_taken_nor_any_behind_it() {
    for order in ORDERS {
        let mut log = Log::new(order, 0);
        log.commit(10);
        log.commit(20);
        let at_limit = log.bytes.len();
        log.record(ADDREM, b"");
        let before = scan_in_chunks(&log.bytes, 7, Some(Time::from_seconds(20)));
        assert_eq!((before.boundary(), before.is_past_limit()), (Some(mark(at_limit, 20)), false));
        log.commit(21);
        // The master's clock went back.
        log.commit(15);
        let after = scan_in_chunks(&log.bytes, 7, Some(Time::from_seconds(20)));
        assert_eq!((after.boundary(), after.is_past_limit()), (Some(mark(at_limit, 20)), true));
        assert_eq!(after.safe() as usize, log.bytes.len());
        let none = scan_in_chunks(&log.bytes, 7, Some(Time::from_seconds(9)));
        assert_eq!((none.boundary(), none.is_past_limit()), (None, true));
    }
}

#[test]
fn the_next_header_closes_a_file_only_by_naming_its_last_record() {
    for order in ORDERS {
        let log = Log::sample(order);
        let scanner = scan(&log.bytes);
        let next = log.next_head();
        assert_eq!(scanner.closure(beside(&next)), Closure::Closed);
        assert_eq!(scanner.closure(beside(&next[..FILE_HEADER])), Closure::Closed);
        for absent in [&[] as &[u8], &[0], &[0; FILE_HEADER - 1], &[0; FILE_HEADER], &[0; 512]] {
            assert_eq!(scanner.closure(beside(absent)), Closure::Open);
        }
        for length in 1..FILE_HEADER {
            assert_eq!(
                is_damaged(&scanner.closure(beside(&next[..length]))),
                next[..length] != vec![0; length],
                "{length}"
            );
        }
        let foreign = Log::new(order, log.last() + 4).bytes;
        let Closure::Damaged(why) = scanner.closure(beside(&foreign)) else { panic!("a foreign file closes this one") };
        assert!(why.contains(&(log.last() + 4).to_string()) && why.contains(&log.last().to_string()), "{why}");
        // The last record is there, but not all of the records before it.
        let cut = scan(&log.bytes[..log.starts[3]]);
        assert!(is_damaged(&cut.closure(beside(&next))));
        // Nothing of this file was seen.
        assert!(is_damaged(&Scanner::new(None).closure(beside(&Log::new(order, 0).bytes))));
    }
}

/// A log moves between machines as a whole or not at all: a header of the other order is another environment's.
#[test]
fn bug_a_next_file_of_another_byte_order_closed_this_one() {
    for (order, other) in [(Order::Little, Order::Big), (Order::Big, Order::Little)] {
        let log = Log::sample(order);
        assert!(is_damaged(&scan(&log.bytes).closure(beside(&Log::new(other, log.last()).bytes))), "{order}");
    }
}

#[test]
fn a_record_that_names_another_predecessor_stops_the_scan() {
    for order in ORDERS {
        let log = Log::sample(order);
        for previous in [0, log.last() - 1, log.last() + 1, u32::MAX] {
            let mut bad = log.clone();
            let body = [ADDREM, 1, 1, 28].map(|word| log.word(word)).concat();
            bad.raw(previous, &body);
            let scanner = scan(&bad.bytes);
            assert_eq!(scanner.safe() as usize, log.bytes.len(), "{order} {previous}");
            assert!(scanner.trouble().is_some_and(|why| why.contains(&previous.to_string())), "{order} {previous}");
        }
    }
}

#[test]
fn an_absurd_length_stops_the_scan_at_once() {
    for order in ORDERS {
        let log = Log::sample(order);
        for length in [1, 11, 12, 27, RECORD_MAX + 1, u32::MAX] {
            let head = [log.last(), length, 0].map(|word| log.word(word)).concat();
            let scanner = scan(&[log.bytes.as_slice(), &head].concat());
            assert_eq!(scanner.safe() as usize, log.bytes.len());
            assert!(!scanner.is_hungry(), "{order} {length}");
            assert!(scanner.trouble().is_some_and(|why| why.contains("impossible")), "{order} {length}");
        }
    }
}

#[test]
fn a_record_of_the_least_length_counts() {
    for order in ORDERS {
        let mut log = Log::new(order, 0);
        log.record(ADDREM, b"");
        assert_eq!(log.bytes.len(), FILE_HEADER + RECORD_HEADER + RECORD_BODY);
        assert_eq!(scan(&log.bytes).safe() as usize, log.bytes.len());
    }
}

#[test]
fn foreign_and_encrypted_files_are_refused_with_the_reason() {
    // The header of a real one (5.3.28): a longer checksum, a vector and a length, and the magic number is encrypted.
    let encrypted: Vec<u8> = vec![
        0x00, 0x00, 0x00, 0x00, 0x40, 0x00, 0x00, 0x00, 0xf1, 0x12, 0x92, 0xf4, 0x74, 0xe9, 0x49, 0x2d, 0x69, 0xb1,
        0xa9, 0x4c, 0x46, 0xfd, 0x5d, 0xa5, 0x0c, 0x6d, 0xb1, 0xf0, 0x3f, 0xfe, 0xf6, 0xa6, 0xb9, 0xdb, 0x89, 0x5b,
        0xcc, 0x37, 0x8a, 0x20, 0x03, 0x8a, 0xc7, 0xfb, 0x10, 0x00, 0x00, 0x00, 0x82, 0xe7, 0x1e, 0xa4, 0x30, 0x21,
        0xdc, 0x9e, 0x70, 0x42, 0x2f, 0x07, 0x1a, 0x97, 0x96, 0x84,
    ];
    let sqlite = b"SQLite format 3\0\x10\0\x01\x01\0\x40\x20\x20\0\0\0\x02\0\0\0\x02".to_vec();
    for (bytes, want) in [(encrypted, "magic"), (sqlite, "magic"), (vec![0xff; 100], "magic")] {
        let scanner = scan(&bytes);
        assert_eq!((scanner.safe(), scanner.is_hungry()), (0, false));
        assert!(scanner.trouble().is_some_and(|why| why.contains(want)), "{:?}", scanner.trouble());
        assert_eq!(fingerprint(&bytes), "");
        assert!(is_damaged(&scan(&Log::sample(Order::Little).bytes).closure(beside(&bytes))));
    }
    let mut long = Log::new(Order::Little, 0).bytes;
    long[4] = 29;
    assert!(scan(&long).trouble().is_some_and(|why| why.contains("header length")));
    long[4] = 28;
    long[20] ^= 1;
    assert!(scan(&long).trouble().is_some_and(|why| why.contains("header checksum")));
}

#[test]
fn an_empty_or_zero_file_holds_nothing_and_is_no_damage() {
    assert_eq!(scan(&[]).trouble(), None);
    let scanner = scan(&[0; 5000]);
    assert_eq!((scanner.safe(), scanner.at(), scanner.is_hungry()), (0, 5000, false));
    assert_eq!(scanner.trouble().as_deref(), Some("no record begins there"));
}

#[test]
fn the_fingerprint_tells_version_and_byte_order() {
    assert_eq!(fingerprint(&Log::sample(Order::Little).bytes), "log-version=19 byte-order=little");
    assert_eq!(fingerprint(&Log::new(Order::Big, 7).bytes), "log-version=19 byte-order=big");
    assert_eq!(fingerprint(&Log::new(Order::Big, 7).bytes[..27]), "");
    assert_eq!(fingerprint(&[]), "");
}

#[test]
fn only_ten_digits_above_zero_are_log_files() {
    assert_eq!(segment("log.0000000001"), Some(Segment::new(1, 1)));
    assert_eq!(segment("log.9999999999"), Some(Segment::new(1, 9_999_999_999)));
    assert_eq!(name(Segment::new(1, 42)), "log.0000000042");
    for bad in ["log.0000000000", "log.1", "log.00000000001", "log.000000000x", "log.+000000001", "log.", "xlog.1"] {
        assert_eq!(segment(bad), None, "{bad}");
    }
}

#[test]
fn regions_configuration_and_databases_are_side_files() {
    for name in ["DB_CONFIG", "__db.001", "__db.register", "__db.rep.init"] {
        assert!(is_side_file(name, b""), "{name}");
    }
    for magic in [0x0005_3162u32, 0x0006_1561, 0x0004_2253, 0x0007_4582] {
        for magic in [magic.to_le_bytes(), magic.to_be_bytes()] {
            let page = [&[0; 12], magic.as_slice(), &[9, 0, 0, 0]].concat();
            assert!(is_side_file("orders.db", &page));
            assert!(!is_side_file("orders.db", &page[..15]));
        }
    }
    assert!(!is_side_file("notes.txt", b"hello hello hello hello"));
    assert!(!is_side_file("xDB_CONFIG", b""));
}

#[test]
fn automatic_log_removal_is_warned_of_where_it_is_on() {
    let on = |config: &str| warning("/var/db", Some(config)).is_some();
    assert!(on("log_set_config DB_LOG_AUTO_REMOVE"));
    assert!(on("set_lg_max 1\n  log_set_config\tdb_log_auto_remove on\nset_lg_bsize 2\n"));
    assert!(on("log_set_config DB_LOG_AUTO_REMOVE off\nlog_set_config DB_LOG_AUTO_REMOVE on"));
    assert!(!on("log_set_config DB_LOG_AUTO_REMOVE on\nlog_set_config DB_LOG_AUTO_REMOVE OFF"));
    for quiet in ["", "# log_set_config DB_LOG_AUTO_REMOVE on", "log_set_config", "log_set_config DB_LOG_ZERO on"] {
        assert!(!on(quiet), "{quiet}");
    }
    assert_eq!(warning("/var/db", None), None);
}

#[test]
fn a_journal_directory_is_warned_of_unless_told_otherwise() {
    let journal = "/var/app.db-journal";
    assert!(warning(journal, None).is_some());
    assert!(warning(journal, Some("add_data_dir ..\n")).is_some());
    assert_eq!(warning(journal, Some("log_set_config DB_LOG_AUTO_REMOVE off\n")), None);
}

/// Berkeley DB 5.3 obeys both; a warning that knew only the new name in lower case was silent while logs vanished.
#[test]
fn bug_auto_removal_by_its_old_name_or_in_upper_case_was_not_seen() {
    for config in
        ["set_flags DB_LOG_AUTOREMOVE", "SET_FLAGS db_log_autoremove on", "LOG_SET_CONFIG DB_LOG_AUTO_REMOVE on"]
    {
        assert!(warning("/var/db", Some(config)).is_some(), "{config}");
    }
    assert_eq!(warning("/var/db", Some("set_flags DB_LOG_AUTOREMOVE off")), None);
}
