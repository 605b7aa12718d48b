//! Looks behind bytes that are no record for a record that is one.
//!
//! The engine writes its log in order. So what is whole behind what is not was written later: there is damage in between.
//! A record that was cut where the engine's buffer ended, or by a crash, has zeros behind it, or what is left of another
//! one; that is how a log ends, for as long as nobody writes to it.

use super::{Hash, Order, RECORD_BODY, RECORD_HEADER, RECORD_MAX, Scanner};
use crate::rule::scheme::Behind;

impl Scanner {
    /// See [`super::super::Scanner::behind`]. A record names the one before it, which is not before the bad one, and has a
    /// checksum.
    pub fn behind(&self, bytes: &[u8]) -> Option<Behind> {
        // One that names another has a byte that is not zero.
        let last = bytes.iter().rposition(|byte| *byte != 0)?;
        let order = self.order.unwrap_or(Order::Little);
        let is_whole = |start: &usize| self.is_whole(order, &bytes[*start..], self.safe + *start as u64);
        let found = (1..=last).find(is_whole)?;
        Some(Behind { offset: self.safe + found as u64, is_later: true })
    }

    /// Whether a whole record begins with these bytes, which are at this offset.
    fn is_whole(&self, order: Order, bytes: &[u8], offset: u64) -> bool {
        if bytes.len() < RECORD_HEADER + RECORD_BODY {
            return false;
        }
        let (previous, length) = (order.u32(bytes, 0), order.u32(bytes, 4));
        if !(self.safe..offset).contains(&u64::from(previous)) || length > RECORD_MAX {
            return false;
        }
        let least = RECORD_HEADER + RECORD_BODY;
        let Some(body) = bytes.get(RECORD_HEADER..length as usize).filter(|_| length as usize >= least) else {
            return false;
        };
        let mut hash = Hash::default();
        hash.update(body);
        // Zeros have no checksum to speak of; but no record is of kind 0.
        order.u32(body, 0) != 0 && hash.checksum(previous, length) == order.u32(bytes, 8)
    }
}
