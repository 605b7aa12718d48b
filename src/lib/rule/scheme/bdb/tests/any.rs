//! The scanner on logs of any shape, in pieces of any size, against a definition that reads all at once.

use proptest::prelude::*;

use super::super::*;
use super::log::{Log, by_definition};
use super::*;

/// The safe extent as the layout defines it, on all bytes at once.
fn safe_by_definition(bytes: &[u8]) -> usize {
    let Ok(header) = Header::read(bytes) else { return 0 };
    let (mut safe, mut last) = (FILE_HEADER, 0);
    while bytes.len() - safe >= RECORD_HEADER {
        let [previous, length, stored] = [0, 4, 8].map(|field| header.order.u32(bytes, safe + field));
        let end = safe + length as usize;
        if !(28..=RECORD_MAX).contains(&length) || end > bytes.len() || previous as usize != last {
            break;
        }
        if by_definition(&bytes[safe + RECORD_HEADER..end]) ^ previous ^ length != stored {
            break;
        }
        (last, safe) = (safe, end);
    }
    safe
}

/// Takes bytes in uneven chunks, going back whenever the scan stops, and holds the promises at each step.
fn take_all(bytes: &[u8], chunks: &[usize]) -> Scanner {
    let mut scanner = Scanner::new(None);
    let mut chunks = chunks.iter().cycle();
    let mut safe = 0;
    while scanner.at() < bytes.len() as u64 && scanner.is_hungry() {
        let from = scanner.at() as usize;
        let to = bytes.len().min(from + chunks.next().unwrap());
        scanner.take(&bytes[from..to]);
        assert_eq!(scanner.at(), to as u64);
        assert!(scanner.safe() <= scanner.at() && scanner.safe() >= safe);
        assert!(scanner.boundary().is_none_or(|mark| mark.offset <= scanner.safe()));
        safe = scanner.safe();
        let _ = (scanner.trouble(), scanner.closure(beside(bytes)));
    }
    scanner
}

fn order() -> impl Strategy<Value = Order> {
    prop_oneof![Just(Order::Little), Just(Order::Big)]
}

prop_compose! {
    fn log()(
        order in order(),
        previous in any::<u32>(),
        records in prop::collection::vec((prop_oneof![Just(TXN_REGOP), Just(TXN_CKP), any::<u32>()],
            prop::collection::vec(any::<u8>(), 0..200)), 0..20),
    ) -> Log {
        let mut log = Log::new(order, previous);
        for (kind, rest) in &records {
            log.record(*kind, rest);
        }
        log
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        chunks in prop::collection::vec(1..100usize, 1..5),
    ) {
        prop_assert_eq!(take_all(&bytes, &chunks).safe() as usize, safe_by_definition(&bytes));
        let _ = (fingerprint(&bytes), is_side_file("x", &bytes));
    }

    #[test]
    fn arbitrary_bytes_behind_a_header_never_panic(
        order in order(),
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        chunks in prop::collection::vec(1..100usize, 1..5),
    ) {
        let bytes = [Log::new(order, 0).bytes, bytes].concat();
        prop_assert_eq!(take_all(&bytes, &chunks).safe() as usize, safe_by_definition(&bytes));
    }

    #[test]
    fn any_log_is_taken_whole_and_any_damage_stops_where_it_is(
        log in log(),
        chunks in prop::collection::vec(1..300usize, 1..5),
        at in any::<prop::sample::Index>(),
        flip in 1..=255u8,
    ) {
        prop_assert_eq!(take_all(&log.bytes, &chunks).safe() as usize, log.bytes.len());
        let mut damaged = log.bytes.clone();
        let at = at.index(damaged.len());
        damaged[at] ^= flip;
        let scanner = take_all(&damaged, &chunks);
        prop_assert_eq!(scanner.safe() as usize, safe_by_definition(&damaged));
        prop_assert!(scanner.safe() as usize <= at);
    }
}
