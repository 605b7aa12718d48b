//! The BLAKE3 digest of a file from digests of its parts, so that one reading gives the digests that are compared *and*
//! the digest that proves the whole, the same that `b3sum` prints.
//!
//! BLAKE3 is a tree over chunks of 1 KiB; any aligned part of a power of two of chunks is a subtree with a chaining value
//! (cv) of its own. A file is made of *ranges* of 16 MiB, a range of *groups* of 64 KiB; the last of each may be shorter.
//! A cv depends on the place of the part in the file.

use blake3::Hasher;
use blake3::hazmat::{HasherExt as _, Mode, merge_subtrees_non_root, merge_subtrees_root};

/// Bytes of a group.
pub const GROUP: u64 = 64 << 10;
/// Bytes of a range.
pub const RANGE: u64 = 16 << 20;
/// Bytes of a cv that are enough to propose that two groups are equal.
pub const SHORT: usize = 12;

/// A group of a hole.
pub static ZEROS: [u8; GROUP as usize] = [0; GROUP as usize];

/// A chaining value, or the digest of a whole file.
pub type Cv = [u8; 32];

/// The cv of a group that begins at `offset` of a file of more than one group. Of nothing, which a file that became
/// shorter may hold there, it is one that no group has.
pub fn group(offset: u64, bytes: &[u8]) -> Cv {
    if bytes.is_empty() {
        return [0; 32];
    }
    Hasher::new().set_input_offset(offset).update(bytes).finalize_non_root()
}

/// The cvs of adjacent groups; only the last may be shorter than a group.
pub fn groups(offset: u64, bytes: &[u8]) -> Vec<Cv> {
    pages(offset, bytes, GROUP as usize)
}

/// The cvs of the groups of a hole.
pub fn hole(offset: u64, length: u64) -> impl Iterator<Item = Cv> {
    let end = offset + length;
    let begins = (offset..end).step_by(GROUP as usize);
    begins.map(move |begin| group(begin, &ZEROS[..GROUP.min(end - begin) as usize]))
}

/// The digest of a file that is not longer than a group.
pub fn whole(bytes: &[u8]) -> Cv {
    *blake3::hash(bytes).as_bytes()
}

/// The cv of adjacent parts of equal size (the last may be smaller) from theirs; as the whole file's digest when
/// `is_whole`. There must be two parts, or one that is no whole file.
pub fn fold(parts: &[Cv], is_whole: bool) -> Cv {
    let [first, rest @ ..] = parts else {
        return whole(b"");
    };
    if rest.is_empty() {
        return *first;
    }
    // The left subtree is the largest full one that leaves something for the right.
    let middle = parts.len().next_power_of_two() / 2;
    let (left, right) = (fold(&parts[..middle], false), fold(&parts[middle..], false));
    if is_whole {
        return *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes();
    }
    merge_subtrees_non_root(&left, &right, Mode::Hash)
}

/// How many parts of a size a file of `length` bytes has.
pub fn parts(length: u64, size: u64) -> usize {
    length.div_ceil(size) as usize
}

/// Fewest bytes of a page: a chunk of BLAKE3.
pub const PAGE_MIN: usize = 1 << 10;

/// The cvs of the pages of a group, or of a part of one, that begins at `offset`; the group's is their [`fold`]. A page is
/// a power of two of bytes.
pub fn pages(offset: u64, bytes: &[u8], size: usize) -> Vec<Cv> {
    let offsets = (offset..).step_by(size);
    offsets.zip(bytes.chunks(size)).map(|(offset, page)| group(offset, page)).collect()
}

/// What is told of a page's cv: it only proposes.
pub fn short(page: &Cv) -> [u8; 8] {
    page.first_chunk().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(bytes: &[u8]) -> Cv {
        if bytes.len() as u64 <= GROUP {
            return whole(bytes);
        }
        let mut ranges = Vec::new();
        let is_single = bytes.len() as u64 <= RANGE;
        for (number, range) in bytes.chunks(RANGE as usize).enumerate() {
            let begin = number as u64 * RANGE;
            let groups: Vec<Cv> =
                (0u64..).zip(range.chunks(GROUP as usize)).map(|(n, part)| group(begin + n * GROUP, part)).collect();
            ranges.push(fold(&groups, is_single));
        }
        fold(&ranges, true)
    }

    #[test]
    fn pages_make_the_cv_of_their_group() {
        let bytes: Vec<u8> = (0..GROUP as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        for length in [1, 1023, 1024, 1025, 8192, 8193, 40_000, GROUP as usize] {
            for size in [PAGE_MIN, 4096, 8192, GROUP as usize] {
                let pages = pages(5 * GROUP, &bytes[..length], size);
                assert_eq!(fold(&pages, false), group(5 * GROUP, &bytes[..length]), "{length} {size}");
            }
        }
    }

    #[test]
    fn a_group_of_nothing_is_none() {
        assert_eq!(group(GROUP, b""), [0; 32]);
        assert_ne!(group(GROUP, b"\0"), [0; 32]);
    }

    #[test]
    fn parts_make_the_digest_that_b3sum_prints() {
        let bytes: Vec<u8> =
            (0..(2 * RANGE + 3 * GROUP + 77) as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        let lengths = [
            0,
            1,
            GROUP - 1,
            GROUP,
            GROUP + 1,
            2 * GROUP,
            3 * GROUP + 5,
            RANGE - 1,
            RANGE,
            RANGE + 1,
            2 * RANGE,
            bytes.len() as u64,
        ];
        for length in lengths {
            let bytes = &bytes[..length as usize];
            assert_eq!(digest(bytes), *blake3::hash(bytes).as_bytes(), "{length}");
        }
    }
}
