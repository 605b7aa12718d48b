//! What tells damage from the end of a log.

use super::log::Log;
use super::*;

fn behind(bytes: &[u8]) -> Option<u64> {
    let scanner = scan(bytes);
    let found = scanner.behind(&bytes[scanner.safe() as usize..])?;
    assert!(found.is_later);
    Some(found.offset)
}

#[test]
fn a_byte_that_is_flipped_is_damage_where_a_whole_record_is_behind_it() {
    for order in ORDERS {
        let log = Log::sample(order);
        // The header of a file says in which byte order it is: with that one gone the rest is looked at as of this machine.
        let first = if order == Order::Big { FILE_HEADER } else { 0 };
        for at in first..log.bytes.len() {
            let mut bytes = log.bytes.clone();
            bytes[at] ^= 4;
            bytes.resize(1000, 0);
            let safe = scan(&bytes).safe();
            assert!(safe <= at as u64);
            let next = log.starts.iter().find(|start| **start > at);
            assert_eq!(behind(&bytes), next.map(|next| *next as u64), "{order} {at}");
        }
    }
}

#[test]
fn a_record_that_was_cut_is_the_end_of_a_log() {
    for order in ORDERS {
        let log = Log::sample(order);
        for cut in 0..=log.bytes.len() {
            let mut bytes = log.bytes[..cut].to_vec();
            assert_eq!(behind(&bytes), None, "{order} {cut}");
            bytes.resize(1000, 0);
            assert_eq!(behind(&bytes), None, "{order} {cut}");
            // What is left of an older one that was written over.
            bytes[cut..log.bytes.len().max(cut)].copy_from_slice(&vec![0x5a; log.bytes.len() - cut]);
            assert_eq!(behind(&bytes), None, "{order} {cut}");
        }
    }
}
