//! The checksum of Berkeley DB log records without encryption (`__db_chksum`, `__ham_func4`):
//! `h = h * 33 + byte` over the record behind its header, then `h ^ prev ^ len`.
//!
//! Byte by byte this is one long chain of multiplications, slower than the disk. Modulo 2^32 it is a polynomial, so a
//! block of bytes is folded with precomputed powers of 33, which runs in parallel.

const BLOCK: usize = 32;

/// 33^31, 33^30, … 33^0 modulo 2^32.
const POWERS: [u32; BLOCK] = {
    let mut powers = [1u32; BLOCK];
    let mut at = BLOCK - 1;
    while at > 0 {
        powers[at - 1] = powers[at].wrapping_mul(33);
        at -= 1;
    }
    powers
};
/// 33^32 modulo 2^32: what a block shifts the hash by.
const SHIFT: u32 = POWERS[0].wrapping_mul(33);

/// The hash over what was added so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hash(u32);

impl Hash {
    pub(super) fn update(&mut self, bytes: &[u8]) {
        let mut blocks = bytes.chunks_exact(BLOCK);
        for block in &mut blocks {
            let terms = block.iter().zip(&POWERS).map(|(byte, power)| u32::from(*byte).wrapping_mul(*power));
            self.0 = self.0.wrapping_mul(SHIFT).wrapping_add(terms.fold(0, u32::wrapping_add));
        }
        for byte in blocks.remainder() {
            self.0 = self.0.wrapping_mul(33).wrapping_add(u32::from(*byte));
        }
    }

    /// The checksum as the record stores it.
    pub(super) fn checksum(self, previous: u32, length: u32) -> u32 {
        self.0 ^ previous ^ length
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_give_what_the_definition_gives() {
        let bytes: Vec<u8> = (0..1000u32).map(|at| (at * 7 + at / 13) as u8).collect();
        for (from, to) in [(0, 0), (0, 31), (1, 33), (0, 1000), (5, 997)] {
            let by_definition =
                bytes[from..to].iter().fold(0u32, |h, byte| h.wrapping_mul(33).wrapping_add(u32::from(*byte)));
            let mut hash = Hash::default();
            let (first, second) = bytes[from..to].split_at((to - from) / 3);
            hash.update(first);
            hash.update(second);
            assert_eq!(hash.checksum(0, 0), by_definition);
        }
    }
}
