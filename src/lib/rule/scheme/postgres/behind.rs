//! Looks behind bytes that are no record for log that was written after them.
//!
//! A server writes its pages in order, and a page only when all of the page before it is there: a whole record in a later
//! page, one that names its own place, shows damage. Within a page several processes copy their records at once, and it is
//! written with what is there of each: a record may be whole before the one that it follows. But whoever ends a transaction
//! waits until all before it is written, so where a transaction's end stays behind what is no record, that is damage, too.

use super::header::{PAGE, Page, u32_at, u64_at};
use super::record::{CHECKSUM, KEPT, RECORD_HEADER, ending};
use super::{Scanner, Stop};
use crate::rule::scheme::Behind;
use crate::value::octets;

impl Scanner {
    /// See [`super::super::Scanner::is_end`]: a server fills the last page with zeros, whatever is in those that follow.
    pub fn is_end(&self, bytes: &[u8]) -> bool {
        let rest = &bytes[..bytes.len().min(self.rest())];
        self.at == self.safe || (self.stop == Some(Stop::Blank) && octets::is_zero(rest))
    }

    /// See [`super::super::Scanner::behind`].
    pub fn behind(&self, bytes: &[u8]) -> Option<Behind> {
        let (page, pages) = bytes.split_at(bytes.len().min(self.rest()));
        let later = self.in_pages(pages).map(|offset| Behind { offset, is_later: true });
        later.or_else(|| self.in_page(page).map(|offset| Behind { offset, is_later: false }))
    }

    /// Bytes of a page behind the end of whole records.
    fn rest(&self) -> usize {
        (PAGE - self.safe % PAGE) as usize
    }

    /// Where in later pages a whole record begins.
    fn in_pages(&self, pages: &[u8]) -> Option<u64> {
        let begin = self.safe + self.rest() as u64;
        let is_of_log = |(index, page): &(usize, &[u8])| {
            let here = self.cluster.place(self.segment, begin + *index as u64 * PAGE);
            Page::read(page).is_some_and(|page| page.address == here)
        };
        let all = pages.chunks(PAGE as usize).enumerate();
        all.filter(is_of_log).find_map(|(index, _)| {
            let skipped = index * PAGE as usize;
            self.behind_page(begin + skipped as u64, &pages[skipped..])
        })
    }

    /// Where the first whole record begins of those that begin in or behind a page, by what it says of them.
    fn behind_page(&self, begin: u64, pages: &[u8]) -> Option<u64> {
        let timeline = self.safe_timeline;
        let fresh = Scanner::new(self.cluster, self.segment, None);
        let mut scanner = Scanner { at: begin, safe: begin, timeline, safe_timeline: timeline, ..fresh };
        // Records begin at such places.
        for bytes in pages.chunks(8) {
            scanner.take(bytes);
            if let Some(last) = scanner.last {
                return Some(last - self.cluster.place(self.segment, 0));
            }
            if !scanner.is_hungry() {
                break;
            }
        }
        None
    }

    /// Where in the rest of a page a whole record begins that ends a transaction.
    fn in_page(&self, rest: &[u8]) -> Option<u64> {
        let begin = self.cluster.place(self.segment, self.safe);
        let ends_one = |start: &usize| {
            let (bytes, place) = (&rest[*start..], begin + *start as u64);
            let length = u32_at(bytes, 0) as usize;
            let Some(record) = bytes.get(..length).filter(|record| record.len() >= RECORD_HEADER) else {
                return false;
            };
            let mut kept = [0; KEPT];
            let have = length.min(KEPT);
            kept[..have].copy_from_slice(&record[..have]);
            let crc = crc32c::crc32c_append(crc32c::crc32c(&record[RECORD_HEADER..]), &record[..CHECKSUM]);
            (self.last.unwrap_or_default()..place).contains(&u64_at(record, 8))
                && u32_at(record, CHECKSUM) == crc
                && ending(&kept).is_some()
        };
        (8..rest.len()).step_by(8).find(ends_one).map(|start| self.safe + start as u64)
    }
}
