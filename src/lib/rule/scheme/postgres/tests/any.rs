//! The scanner on logs of any shape, in pieces of any size, and on any bytes.

use proptest::prelude::*;

use super::*;

/// Takes bytes in uneven chunks, going back after some, and holds the promises at each step.
fn take_all(mut scanner: Scanner, bytes: &[u8], chunks: &[usize], goes_back: bool) -> Scanner {
    let mut chunks = chunks.iter().cycle();
    let mut end = 0;
    while end < bytes.len() {
        end = bytes.len().min(end + chunks.next().unwrap());
        let (from, safe) = (scanner.at() as usize, scanner.safe());
        scanner.take(&bytes[from..end]);
        assert_eq!(scanner.at(), end as u64);
        assert!(scanner.safe() <= scanner.at() && scanner.safe() >= safe);
        assert!(scanner.boundary().is_none_or(|mark| mark.offset <= scanner.safe()));
        assert!(scanner.is_hungry() || scanner.trouble().is_some());
        let beside = Beside { own: &[], segment: segment(FIRST + 1), next: bytes, is_passed: true };
        let _ = scanner.closure(beside);
        if goes_back && end < bytes.len() {
            scanner.rewind();
            assert_eq!(scanner.at(), scanner.safe());
        }
    }
    scanner
}

fn fresh() -> Scanner {
    Scanner::new(cluster(), segment(FIRST), None)
}

prop_compose! {
    fn log()(
        records in prop::collection::vec((0..4u8, prop_oneof![0..200usize, 0..20_000usize], 0..1000i64), 0..12),
    ) -> Log {
        let mut log = Log::new();
        for (kind, length, seconds) in records {
            match kind {
                0 => log.commit(seconds),
                1 if log.bytes.len() > 8192 => {
                    let (before, start) = (log.bytes.len(), log.next_start());
                    log.plain(length);
                    let page = start.next_multiple_of(8192);
                    if page > before && page < log.bytes.len() {
                        log.give_up(page);
                    }
                }
                _ => log.plain(length),
            }
        }
        log
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        chunks in prop::collection::vec(1..100usize, 1..5),
        goes_back in any::<bool>(),
    ) {
        prop_assert_eq!(take_all(fresh(), &bytes, &chunks, goes_back).safe(), 0);
        let _ = (fingerprint(&bytes), Cluster::read(&bytes));
        let text = String::from_utf8_lossy(&bytes);
        let _ = (cluster().left(9, &text), cluster().segment(&text), is_aux(&text), is_side_file(&text));
    }

    #[test]
    fn arbitrary_bytes_behind_a_log_never_panic_and_never_count(
        log in log(),
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        chunks in prop::collection::vec(1..9000usize, 1..5),
        goes_back in any::<bool>(),
    ) {
        let all = [log.bytes.as_slice(), &bytes].concat();
        prop_assert_eq!(take_all(fresh(), &all, &chunks, goes_back).safe() as usize, log.bytes.len());
    }

    #[test]
    fn any_log_is_taken_whole_in_any_pieces_and_any_damage_stops_where_it_is(
        log in log(),
        chunks in prop::collection::vec(1..9000usize, 1..5),
        goes_back in any::<bool>(),
        at in any::<prop::sample::Index>(),
        flip in 1..=255u8,
    ) {
        let whole = scan(&log.bytes);
        prop_assert_eq!(said(&take_all(fresh(), &log.bytes, &chunks, goes_back)), said(&whole));
        prop_assert_eq!(whole.safe() as usize, log.bytes.len());
        if !log.bytes.is_empty() {
            let mut damaged = log.bytes.clone();
            let at = at.index(damaged.len());
            damaged[at] ^= flip;
            let safe = take_all(fresh(), &damaged, &chunks, goes_back).safe() as usize;
            // Bits without a meaning may be flipped; a record's never.
            let holds = |(start, end): &(usize, usize)| *start <= at && at < *end - 7 && at % 8192 >= 40;
            let hit = log.records.iter().find(|record| holds(record));
            prop_assert!(hit.is_none_or(|(start, _)| safe <= *start), "{at}: {safe}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    #[test]
    fn a_segment_is_taken_the_same_in_any_pieces_behind_any_other(
        before in 0..20_000usize,
        over in 64..40_000usize,
        chunks in prop::collection::vec(1..9000usize, 1..5),
        goes_back in any::<bool>(),
    ) {
        let mut log = Log::new();
        log.plain(before);
        log.plain_to(SIZE as usize - 64);
        log.plain(over);
        log.commit(1);
        let first = scan(&log.file(FIRST));
        let mut second = Scanner::new(cluster(), segment(FIRST + 1), None);
        second.follow(&first);
        let rest = &log.bytes[SIZE as usize..];
        let whole = take_all(second.clone(), rest, &[rest.len()], false);
        prop_assert_eq!(said(&take_all(second, rest, &chunks, goes_back)), said(&whole));
        prop_assert_eq!(whole.safe() as usize, rest.len());
    }
}
