//! The scanner on logs that are built here. `tests/mariadb_scanner.rs` has logs of the real server.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod any;
mod behind;
mod log;

use self::log::Log;
use super::*;
use crate::rule::scheme::Scanner as AnyScanner;
use crate::value::position::Segment;

fn pattern() -> Pattern {
    Pattern::parse("log.%06S").unwrap()
}

fn scan(bytes: &[u8]) -> Scanner {
    scan_in_chunks(bytes, bytes.len().max(1), None)
}

fn scan_in_chunks(bytes: &[u8], chunk: usize, until: Option<Time>) -> Scanner {
    let mut scanner = Scanner::new(&pattern(), until);
    bytes.chunks(chunk).for_each(|chunk| scanner.take(chunk));
    scanner
}

/// Judges a file by the one behind it, as a sender does: what is no event is looked behind.
fn judge(bytes: &[u8], next: &[u8], is_passed: bool) -> Closure {
    let mut scanner = scan(bytes);
    if scanner.search() {
        let from = scanner.at() as usize;
        bytes[from..].chunks(7).for_each(|chunk| scanner.take(chunk));
    }
    scanner.closure(Beside { own: &bytes[..bytes.len().min(512)], segment: Segment::new(1, 2), next, is_passed })
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
    remark: Option<String>,
    torn: bool,
}

fn said(scanner: &Scanner) -> Said {
    Said {
        at: scanner.at(),
        safe: scanner.safe(),
        boundary: scanner.boundary(),
        past: scanner.is_past_limit(),
        hungry: scanner.is_hungry(),
        trouble: scanner.trouble(),
        remark: scanner.remark("x"),
        torn: scanner.may_be_torn(),
    }
}

fn mark(offset: usize, seconds: i64) -> Mark {
    Mark { offset: offset as u64, time: Some(Time::from_seconds(seconds)) }
}

#[track_caller]
fn damaged(closure: Closure, says: &str) {
    let Closure::Damaged(why) = closure else { panic!("{closure:?}") };
    assert!(why.contains(says), "'{says}' is not in '{why}'");
}

#[test]
fn a_whole_log_is_safe_to_its_end() {
    for is_checked in [true, false] {
        let log = Log::sample(is_checked);
        let end = log.bytes.len();
        let expected = Said {
            at: end as u64,
            safe: end as u64,
            boundary: Some(mark(end, 1030)),
            past: false,
            hungry: true,
            trouble: None,
            remark: None,
            torn: true,
        };
        assert_eq!(said(&scan(&log.bytes)), expected);
    }
}

#[test]
fn a_log_cut_at_any_byte_is_safe_to_its_last_whole_event() {
    for is_checked in [true, false] {
        let log = Log::sample(is_checked);
        for cut in 0..=log.bytes.len() {
            let scanner = scan(&log.bytes[..cut]);
            let end = log.end_within(cut);
            assert_eq!((scanner.safe(), scanner.at()), (end as u64, cut as u64), "{cut}");
            assert_eq!(scanner.trouble().is_none(), end == cut, "{cut}: {:?}", scanner.trouble());
            let boundary = log.ends.iter().copied().filter(|at| *at <= cut).max();
            assert_eq!(scanner.boundary().map(|mark| mark.offset as usize), boundary, "{cut}");
        }
    }
}

#[test]
fn no_flipped_bit_is_passed_but_the_one_that_the_server_rewrites() {
    let log = Log::sample(true);
    for bit in (0..log.bytes.len() * 8).filter(|bit| *bit != 21 * 8) {
        let mut flipped = log.bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let scanner = scan(&flipped);
        let start = log.starts.iter().filter(|start| **start <= bit / 8).max().unwrap();
        assert_eq!(scanner.safe(), *start as u64, "bit {bit}");
        assert!(scanner.trouble().is_some(), "bit {bit}");
    }
    let mut closed = log.bytes.clone();
    closed[21] ^= 1;
    assert_eq!(said(&scan(&closed)), said(&scan(&log.bytes)));
}

#[test]
fn chunks_of_any_size_give_the_same() {
    for is_checked in [true, false] {
        let mut log = Log::sample(is_checked);
        for length in 0..60 {
            log.transaction(length * 31);
            log.statement(b"truncate t");
        }
        let mut flipped = log.bytes.clone();
        flipped[log.starts[90] + 9] ^= 1;
        let padded = [log.bytes.as_slice(), &[0; 777]].concat();
        for bytes in [&log.bytes, &flipped, &padded] {
            for until in [None, Some(Time::from_seconds(1400))] {
                let whole = said(&scan_in_chunks(bytes, bytes.len(), until));
                for chunk in [1, 2, 7, 18, 19, 20, 23, 64, 4096] {
                    assert_eq!(said(&scan_in_chunks(bytes, chunk, until)), whole, "{chunk}");
                }
            }
        }
    }
}

#[test]
fn a_half_written_event_is_taken_again_once_it_is_whole() {
    let log = Log::sample(true);
    for cut in 0..log.bytes.len() {
        let mut scanner = Scanner::new(&pattern(), None);
        scanner.take(&log.bytes[..cut]);
        scanner.take(&vec![0; cut % 50]);
        let safe = scanner.safe();
        scanner.rewind();
        assert_eq!((scanner.at(), scanner.safe()), (safe, safe), "{cut}");
        assert!(scanner.is_hungry() && scanner.trouble().is_none(), "{cut}");
        scanner.take(&log.bytes[safe as usize..]);
        assert_eq!(said(&scanner), said(&scan(&log.bytes)), "{cut}");
    }
}

#[test]
fn a_transaction_ends_where_the_server_says_so_and_nowhere_else() {
    let mut log = Log::new(true, &[]);
    let boundary = |log: &Log| scan(&log.bytes).boundary();
    assert_eq!(boundary(&log), None);
    log.gtid(0x0c);
    for text in [b"BEGIN".as_slice(), b"SAVEPOINT a", b"ROLLBACK TO a", b"insert '\0COMMIT", b"commit", b"XA END 'a'"] {
        log.query(text);
        assert_eq!(boundary(&log), None, "{text:?}");
    }
    log.query(b"COMMIT");
    assert_eq!(boundary(&log), Some(mark(log.bytes.len(), 1010)));
    log.gtid(0x0c);
    log.query(b"ROLLBACK");
    assert_eq!(boundary(&log), Some(mark(log.bytes.len(), 1020)));
    log.gtid(0x4c);
    log.query(b"XA END 'a'");
    log.event(38, 0, &[0; 20], true);
    assert_eq!(boundary(&log), Some(mark(log.bytes.len(), 1030)));
    let at = boundary(&log);
    log.gtid(0x8d);
    assert_eq!(boundary(&log), at);
    log.query(b"XA COMMIT 'a'");
    assert_eq!(boundary(&log), Some(mark(log.bytes.len(), 1040)));
    let at = boundary(&log);
    // What belongs to no transaction.
    log.query(b"COMMIT");
    log.event(16, 0, &[0; 8], true);
    log.event(161, 0, b"\x0a\0\0\0log.000001", true);
    assert_eq!((boundary(&log), scan(&log.bytes).safe() as usize), (at, log.bytes.len()));
}

#[test]
fn no_boundary_later_than_the_limit_is_taken_nor_any_behind_it() {
    let log = Log::sample(true);
    let scanner = scan_in_chunks(&log.bytes, 7, Some(Time::from_seconds(1020)));
    assert_eq!((scanner.boundary(), scanner.is_past_limit()), (Some(mark(log.ends[1], 1020)), true));
    let none = scan_in_chunks(&log.bytes, 7, Some(Time::from_seconds(9)));
    assert_eq!((none.boundary(), none.is_past_limit()), (None, true));
}

#[test]
fn a_file_that_names_the_next_is_closed_once_its_flag_is_final() {
    for is_checked in [true, false] {
        let mut log = Log::sample(is_checked);
        log.rotate("log.000002");
        let next = log.next().bytes;
        assert_eq!(judge(&log.bytes, &next, false), Closure::Open);
        assert_eq!(judge(&log.bytes, &next, true), Closure::Closed);
        log.set_in_use(false);
        assert_eq!(judge(&log.bytes, &next, false), Closure::Closed);
        let mut other = Log::sample(is_checked);
        other.rotate("log.000003");
        damaged(judge(&other.bytes, &next, true), "names log.000003, the next file is log.000002");
        let more = [log.bytes.as_slice(), b"x"].concat();
        damaged(judge(&more, &next, true), "goes on behind its end: an event is cut off");
        log.transaction(5);
        damaged(judge(&log.bytes, &next, true), "bytes follow the rotate event");
    }
}

#[test]
fn a_stopped_server_s_file_is_closed() {
    for is_checked in [true, false] {
        let mut log = Log::sample(is_checked);
        // Without a checksum it is nothing but a header.
        log.stop();
        let next = log.next().bytes;
        assert_eq!(scan(&log.bytes).safe() as usize, log.bytes.len());
        assert_eq!(judge(&log.bytes, &next, false), Closure::Open);
        log.set_in_use(false);
        assert_eq!(judge(&log.bytes, &next, false), Closure::Closed);
    }
}

#[test]
fn the_next_file_closes_nothing_before_it_has_begun() {
    let mut log = Log::sample(true);
    log.rotate("log.000002");
    log.set_in_use(false);
    let next = log.next().bytes;
    for length in 0..next.len() {
        let closure = judge(&log.bytes, &next[..length], true);
        assert!(matches!(closure, Closure::Open | Closure::More), "{length} {closure:?}");
        assert_eq!(closure == Closure::More, length >= log.next().starts[1], "{length}");
    }
    for bit in (0..next.len() * 8).filter(|bit| *bit != 21 * 8) {
        let mut flipped = next.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert_ne!(judge(&log.bytes, &flipped, false), Closure::Closed, "bit {bit}");
    }
    damaged(judge(&log.bytes, &[0; 512], true), "no MariaDB binary log");
}

#[test]
fn the_next_file_must_begin_behind_the_last_transaction() {
    let mut log = Log::sample(true);
    let early = Log::new(true, &[Gtid { sequence: 2, ..log.last() }]).bytes;
    damaged(judge(&log.bytes, &early, false), "its last whole transaction is 3-7-3, and the next file");
    log.rotate("log.000002");
    damaged(judge(&log.bytes, &early, true), "its last whole transaction is 3-7-3, and the next file");
    damaged(judge(&log.bytes, &Log::new(true, &[]).bytes, true), "its last whole transaction is 3-7-3");
}

#[test]
fn a_file_that_a_crash_has_torn_anywhere_is_closed_as_it_is() {
    for is_checked in [true, false] {
        let mut log = Log::sample(is_checked);
        let next = log.next().bytes;
        assert_eq!(judge(&log.bytes, &next, false), Closure::Closed);
        let end = log.bytes.len();
        log.transaction(200);
        for cut in end..log.bytes.len() {
            assert_eq!(judge(&log.bytes[..cut], &next, false), Closure::Closed, "{cut}");
            // What a file system leaves after a loss of power. It may end an event that has no checksum, and one that ends
            // in zeros.
            for rest in [[0; 300], [0xa5; 300]] {
                let bytes = [&log.bytes[..cut], &rest].concat();
                let is_whole = scan(&bytes).boundary().unwrap().offset as usize > end;
                assert_eq!(judge(&bytes, &next, false) == Closure::Closed, !is_whole, "{cut}");
                assert!(!is_whole || !is_checked || cut + 4 > log.bytes.len(), "{cut}");
            }
            // Without the flag it is no crash.
            let mut clear = log.bytes[..cut].to_vec();
            clear[21] = 0;
            assert_eq!(matches!(judge(&clear, &next, true), Closure::Damaged(_)), cut > end, "{cut}");
        }
        // The transaction is whole, and the next file does not know it.
        damaged(judge(&log.bytes, &next, false), "3-7-4");
    }
}

#[test]
fn damage_with_whole_events_behind_it_is_no_crash() {
    for is_checked in [true, false] {
        let log = Log::sample(is_checked);
        let next = log.next().bytes;
        for (at, start) in log.starts.iter().enumerate().skip(2).take(log.starts.len() - 3) {
            // Length, place, and where there is a checksum any byte.
            for byte in if is_checked { vec![0, 4, 9, 10, 11, 13, 17, 19, 22] } else { vec![9, 10, 13] } {
                let mut bad = log.bytes.clone();
                bad[start + byte] ^= 0x40;
                // A length may now reach behind the end, which a torn event's does too.
                let closure = judge(&bad, &next, false);
                damaged(closure, &format!("a whole event follows at {}", log.starts[at + 1]));
            }
            let mut zeros = log.bytes.clone();
            zeros[*start..log.starts[at + 1]].fill(0);
            damaged(judge(&zeros, &next, false), &format!("a whole event follows at {}", log.starts[at + 1]));
        }
    }
}

#[test]
fn a_file_cut_at_an_event_is_seen_by_the_transactions_that_are_missing() {
    let mut log = Log::sample(true);
    log.rotate("log.000002");
    log.set_in_use(false);
    let next = log.next().bytes;
    for cut in log.starts.iter().skip(1) {
        // The last cut takes only the event that names the next file.
        let is_whole = *cut == *log.ends.last().unwrap();
        assert_eq!(judge(&log.bytes[..*cut], &next, true) == Closure::Closed, is_whole, "{cut}");
    }
}

#[test]
fn an_encrypted_file_counts_to_where_it_is_encrypted_until_it_is_closed() {
    let mut log = Log::new(true, &[]);
    log.bytes.truncate(log.starts[1]);
    log.starts.truncate(1);
    log.event(164, 0, &[1; 17], true);
    let plain = log.bytes.len();
    log.bytes.extend([0x5a; 1000]);
    let scanner = scan(&log.bytes);
    assert_eq!((scanner.safe(), scanner.at(), scanner.is_hungry()), (plain as u64, log.bytes.len() as u64, false));
    assert_eq!(scanner.boundary(), None);
    let words = "the log is encrypted: each segment is shipped when it is closed, not before";
    assert_eq!(scanner.remark("x").as_deref(), Some(words));
    let mut again = scanner.clone();
    again.rewind();
    assert!(!again.is_hungry() && again.may_be_torn());
    // The next one's list is encrypted, too.
    let next = log.bytes.clone();
    assert_eq!(judge(&log.bytes, &next, false), Closure::Open);
    assert_eq!(judge(&log.bytes, &next, true), Closure::Closed);
    log.set_in_use(false);
    assert_eq!(judge(&log.bytes, &next, false), Closure::Closed);
}

#[test]
fn an_incident_is_remarked_and_is_no_boundary() {
    let mut log = Log::sample(true);
    let at = log.bytes.len();
    log.event(26, 0, &[1, 0, 0], true);
    let scanner = scan(&log.bytes);
    assert_eq!(scanner.boundary().unwrap().offset as usize, at);
    assert!(scanner.remark("log.000001").unwrap().starts_with(&format!("log.000001 says at {at} ")));
}

#[test]
fn an_absurd_length_or_place_stops_the_scan_at_once() {
    let log = Log::sample(true);
    let end = log.bytes.len();
    for (length, next, says) in [
        (0, 0, "impossible"),
        (22, end + 22, "impossible"),
        (u32::MAX as usize, end + u32::MAX as usize, "impossible"),
        (EVENT_MAX as usize + 1, 0, "impossible"),
        (100, end + 101, "ends at"),
    ] {
        let words = [5, 7, length as u32, next as u32].map(u32::to_le_bytes);
        let head = [&words[0], [2].as_slice(), &words[1], &words[2], &words[3], &[0; 2]].concat();
        let scanner = scan(&[log.bytes.as_slice(), &head].concat());
        assert_eq!((scanner.safe() as usize, scanner.is_hungry()), (end, false));
        assert!(scanner.trouble().is_some_and(|why| why.contains(says)), "{:?}", scanner.trouble());
    }
}

#[test]
fn places_beyond_four_gibibytes_are_known_by_their_low_half() {
    let log = Log::sample(true);
    let mut scanner = scan(&log.bytes);
    // As if so much had been taken before.
    let far = (1 << 32) * 5 - 40;
    (scanner.at, scanner.safe) = (far, far);
    let mut event = Log::new(true, &[]);
    event.bytes = vec![0; 1000];
    event.event(16, 0, &[0; 77], true);
    let mut event = event.bytes.split_off(1000);
    event[13..17].copy_from_slice(&60u32.to_le_bytes());
    let crc = log::crc32(&event[..96]);
    event[96..].copy_from_slice(&crc.to_le_bytes());
    scanner.take(&event);
    assert_eq!((scanner.safe(), scanner.trouble()), (far + 100, None));
}

#[test]
fn the_version_is_cleaned_and_bounded() {
    let log = Log::sample(true);
    assert_eq!(fingerprint(&log.bytes), "server-version=10.11.6-MariaDB-log");
    assert_eq!(fingerprint(&log.bytes[..log.starts[1] - 1]), "");
    assert_eq!(fingerprint(b"hello"), "");
    let mut hostile = log.bytes[..log.starts[1]].to_vec();
    hostile[25..75].fill(b'%');
    hostile[30..33].copy_from_slice(b"\n1 ");
    hostile[21] = 0;
    let crc = log::crc32(&hostile[4..hostile.len() - 4]);
    let end = hostile.len();
    hostile[end - 4..].copy_from_slice(&crc.to_le_bytes());
    assert_eq!(fingerprint(&hostile), "server-version=1");
}

#[test]
fn transactions_are_told_apart_by_what_a_server_has() {
    let mut log = Log::sample(true);
    let gtids = |text: &str| Gtids::parse(text).unwrap();
    let read = |have: &str| {
        let mut seen = Vec::new();
        let mut transactions = Transactions::new(&pattern(), gtids(have));
        for chunk in log.bytes.chunks(50) {
            transactions.take(chunk, |one, has| seen.push((one.gtid.to_string(), one.end as usize, has)));
        }
        assert_eq!(seen.iter().map(|(_, end, _)| *end).collect::<Vec<_>>(), log.ends);
        assert_eq!(transactions.first(), Some(log.starts[2] as u64));
        let has = seen.iter().filter(|(.., has)| *has).count();
        (has, transactions.behind().map(|at| at as usize), transactions.end().map(|at| at as usize))
    };
    let end = Some(log.ends[2]);
    assert_eq!(read(""), (0, None, end));
    assert_eq!(read("0-1-900,3-7-2"), (2, Some(log.ends[1]), end));
    assert_eq!(read("3-1-3"), (0, None, end));
    assert_eq!(read("3-7-3"), (3, end, end));
    log.gtid(0x0c);
    let mut torn = Transactions::new(&pattern(), gtids(""));
    torn.take(&log.bytes, |_, _| {});
    assert_eq!(torn.end(), Some(log.ends[2] as u64));
    assert!(!torn.is_encrypted());
}

#[test]
fn gtids_are_read_and_printed() {
    let gtid = Gtid { domain: 0, server: 4_294_967_295, sequence: u64::MAX };
    assert_eq!(Gtid::parse(&gtid.to_string()), Some(gtid));
    for bad in ["", "1", "1-2", "1-2-3-4", "1-2-x", "-1-2-3", "4294967296-1-1", "1-1-18446744073709551616", "+1-1-1"] {
        assert_eq!(Gtid::parse(bad), None, "{bad}");
    }
    let gtids = Gtids::parse("7-2-3, 0-1-9,0-5-11").unwrap();
    assert_eq!(gtids.to_string(), "0-1-9,0-5-11,7-2-3");
    assert!(gtids.has(Gtid::parse("0-5-10").unwrap()) && !gtids.has(Gtid::parse("0-1-10").unwrap()));
    assert_eq!(Gtids::parse(" "), Some(Gtids::default()));
    assert_eq!(Gtids::parse("0-1-1,"), None);
}

#[test]
fn a_base_is_shown_by_its_index_and_a_segment() {
    let shown = |names: &[&str]| detect(names).iter().map(Pattern::to_string).collect::<Vec<_>>();
    assert_eq!(shown(&["mysql-bin.index", "mysql-bin.000001", "ibdata1", "aria_log.00000001"]), ["mysql-bin.%06S"]);
    assert_eq!(shown(&["h.b%x.index", "h.b%x.1000000"]), ["h.b%%x.%06S"]);
    assert_eq!(shown(&["a.index", "a.000001", "b.index", "b.000001"]), ["a.%06S", "b.%06S"]);
    for none in [&["a.index"] as &[&str], &["a.000001"], &["a.index", "b.000001"], &["a.index", "a.01"], &[".index"]] {
        assert!(shown(none).is_empty(), "{none:?}");
    }
    for bad in ["%S", "log.%S", "log.%06S.x", "log%06S", "log.%N", ".%06S"] {
        assert!(!Pattern::parse(bad).is_ok_and(|pattern| is_pattern(&pattern)), "{bad}");
    }
    assert!(is_side_file(&pattern(), "log.index") && is_side_file(&pattern(), "log.state"));
    assert!(!is_side_file(&pattern(), "other.index") && !is_side_file(&pattern(), "log.000001"));
}

#[test]
fn the_scheme_s_scanner_is_this_one() {
    let scheme = super::super::Scheme::Mariadb(pattern());
    let log = Log::sample(true);
    let mut scanner = scheme.scanner(Segment::new(1, 1), None);
    scanner.take(&log.bytes);
    assert!(matches!(&scanner, AnyScanner::Mariadb(_)) && scanner.safe() as usize == log.bytes.len());
    assert!(scheme.is_nameable(Segment::new(1, 1_000_000)) && !scheme.is_nameable(Segment::new(1, 0)));
    assert_eq!(scheme.mask(), Some(Mask { offset: 21, bits: 1 }));
}
