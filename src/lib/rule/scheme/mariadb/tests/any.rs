//! The scanner on logs of any shape, in pieces of any size, against a definition that reads all at once.

use proptest::prelude::*;

use super::log::{Log, crc32};
use super::*;

/// The safe extent as the layout defines it, on all bytes at once.
fn safe_by_definition(bytes: &[u8]) -> usize {
    let Ok(description) = Description::read(bytes) else { return 0 };
    let mut safe = description.end;
    while bytes.len() - safe >= HEADER {
        let [length, next] = [9, 13].map(|field| event::u32_at(bytes, safe + field) as usize);
        let is_checked = description.is_checked;
        let least = if is_checked { 23 } else { 19 };
        let ended = bytes[description.end..safe].is_empty() || !is_end(bytes, description.end, safe);
        if !ended || !(least..=EVENT_MAX as usize).contains(&length) || safe + length > bytes.len() {
            break;
        }
        let event = &bytes[safe..safe + length];
        if next != (safe + length) % (1 << 32) && !(next == 0 && is_checked) {
            break;
        }
        if is_checked && crc32(&event[..length - 4]) != event::u32_at(event, length - 4) {
            break;
        }
        safe += length;
        if event[4] == 164 {
            break;
        }
    }
    safe
}

/// Whether the last of these events ends the file.
fn is_end(bytes: &[u8], mut at: usize, end: usize) -> bool {
    let mut kind = 0;
    while at < end {
        kind = bytes[at + 4];
        at += event::u32_at(bytes, at + 9) as usize;
    }
    matches!(kind, 3 | 4)
}

/// Takes bytes in uneven chunks, and holds the promises at each step.
fn take_all(bytes: &[u8], chunks: &[usize]) -> Scanner {
    let mut scanner = Scanner::new(&pattern(), None);
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
    }
    let _ = (scanner.trouble(), scanner.remark("x"), judge(bytes, bytes, true));
    scanner
}

prop_compose! {
    fn log()(
        is_checked in any::<bool>(),
        events in prop::collection::vec((prop_oneof![Just(2), Just(16), Just(162), 5..164u8],
            prop::collection::vec(any::<u8>(), 0..200)), 0..20),
    ) -> (bool, Log) {
        let mut log = Log::new(is_checked, &[]);
        for (kind, body) in &events {
            log.event(*kind, 0, body, is_checked);
        }
        (is_checked, log)
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        chunks in prop::collection::vec(1..100usize, 1..5),
    ) {
        prop_assert_eq!(take_all(&bytes, &chunks).safe() as usize, safe_by_definition(&bytes));
        let magic = [MAGIC.as_slice(), &bytes].concat();
        prop_assert_eq!(take_all(&magic, &chunks).safe(), 0);
        let _ = (fingerprint(&bytes), fingerprint(&magic));
    }

    #[test]
    fn arbitrary_bytes_behind_a_beginning_never_panic(
        is_checked in any::<bool>(),
        bytes in prop::collection::vec(any::<u8>(), 0..400),
        chunks in prop::collection::vec(1..100usize, 1..5),
    ) {
        let bytes = [Log::new(is_checked, &[]).bytes, bytes].concat();
        prop_assert_eq!(take_all(&bytes, &chunks).safe() as usize, safe_by_definition(&bytes));
    }

    #[test]
    fn any_log_is_taken_whole_and_any_damage_stops_where_it_is(
        (is_checked, log) in log(),
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
        prop_assert!(!is_checked || scanner.safe() as usize <= at || (at == 21 && flip == 1));
    }
}
