//! What tells damage from the end of a log.

use super::log::{FIRST, Log, SIZE};
use super::*;
use crate::rule::scheme::Behind;

fn behind(bytes: &[u8]) -> Option<Behind> {
    let scanner = scan(bytes);
    let bytes = &bytes[scanner.safe() as usize..];
    if scanner.is_end(bytes) { None } else { scanner.behind(bytes) }
}

/// The first pages of another segment's file.
fn old() -> Vec<u8> {
    let mut old = Log::new();
    old.plain(SIZE as usize);
    for seconds in 0..1000 {
        old.commit(seconds);
    }
    old.file(FIRST + 1)[..5 * 8192].to_vec()
}

/// A file that had been another's before.
fn used(old: &[u8], log: &Log) -> Vec<u8> {
    let mut file = old.to_vec();
    let page = log.bytes.len().next_multiple_of(8192);
    file[..page].fill(0);
    file[..log.bytes.len()].copy_from_slice(&log.bytes);
    file
}

#[test]
fn a_byte_that_is_flipped_is_damage_where_a_later_page_has_a_record_or_this_one_a_transactions_end() {
    let (old, log) = (old(), Log::sample());
    let commits = [1, 3, 6].map(|index: usize| log.records[index].0);
    for at in (40..log.bytes.len()).step_by(7).filter(|at| at % 8192 >= 24) {
        let mut bytes = used(&old, &log);
        bytes[at] ^= 4;
        let scanner = scan(&bytes);
        let safe = scanner.safe() as usize;
        if safe >= log.bytes.len() - 8 {
            // What fills the last record up is in no checksum.
            continue;
        }
        let found = behind(&bytes);
        let page = (safe + 1).next_multiple_of(8192);
        let later = log.records.iter().map(|record| record.0).find(|start| *start >= page && *start > safe + 24);
        let here = commits.into_iter().find(|start| (safe + 8..page).contains(start));
        let expected = later.map(|start| (start, true)).or(here.map(|start| (start, false)));
        let expected = expected.map(|(start, is_later)| Behind { offset: start as u64, is_later });
        assert_eq!(found, expected, "{at}, safe to {safe}");
    }
}

#[test]
fn a_log_that_was_cut_ends_there_whatever_the_file_had_in_it_before() {
    let (old, log) = (old(), Log::sample());
    for cut in (40..log.bytes.len()).step_by(13).chain([log.bytes.len()]) {
        let mut torn = log.clone();
        torn.bytes.truncate(cut);
        assert_eq!(behind(&torn.file(FIRST)[..old.len()]), None, "{cut}");
        assert_eq!(behind(&used(&old, &torn)), None, "{cut}");
    }
}

/// Two processes copy their records into a page at once, and the one behind is ready.
#[test]
fn a_record_that_is_on_its_way_before_a_transactions_end_is_to_be_looked_at_again() {
    let mut log = Log::new();
    log.plain(40);
    let from = log.bytes.len();
    log.plain(200);
    let to = log.bytes.len();
    log.plain(100);
    let mut file = log.file(FIRST);
    file[from..to].fill(0);
    assert_eq!(behind(&file), None, "nothing that anybody waits for");
    let at = log.bytes.len() as u64;
    log.commit(1000);
    let mut file = log.file(FIRST);
    for gone in [from, from + 100] {
        file[gone..to].fill(0);
        assert_eq!(behind(&file), Some(Behind { offset: at, is_later: false }), "{gone}");
        file = log.file(FIRST);
    }
    assert_eq!(behind(&file), None);
}
