//! What tells damage from the end of a log.

use super::log::Log;
use super::*;

fn behind(bytes: &[u8]) -> Option<u64> {
    let scanner = scan(bytes);
    if scanner.is_end() {
        return None;
    }
    let found = scanner.behind(&bytes[scanner.safe() as usize..])?;
    assert!(found.is_later);
    Some(found.offset)
}

#[test]
fn a_byte_that_is_flipped_is_damage() {
    let log = Log::sample(true);
    for at in (0..log.bytes.len()).filter(|at| *at != IN_USE.offset as usize) {
        let mut bytes = log.bytes.clone();
        bytes[at] ^= 4;
        let safe = scan(&bytes).safe() as usize;
        assert!(safe <= at);
        // Where the next whole event is; or the bad one itself, all of whose bytes are there.
        let next = log.starts.iter().copied().find(|start| *start > at).unwrap_or(safe);
        // What the first event says of the others is not known without it.
        let found = behind(&bytes).unwrap() as usize;
        assert!(found == next || found == safe || safe == 0, "{at}: {found}");
    }
}

#[test]
fn an_event_that_was_cut_is_the_end_of_a_log_and_so_are_zeros() {
    for is_checked in [true, false] {
        let log = Log::sample(is_checked);
        for cut in 0..=log.bytes.len() {
            assert_eq!(behind(&log.bytes[..cut]), None, "{cut}");
        }
        for start in log.starts.iter().skip(1).chain([&log.bytes.len()]) {
            let mut bytes = log.bytes[..*start].to_vec();
            bytes.resize(start + 100, 0);
            assert_eq!(behind(&bytes), None, "{start}");
        }
    }
}
