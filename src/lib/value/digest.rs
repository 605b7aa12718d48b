//! BLAKE3 digests, the short proof in a bookmark, and the running digest of a segment.

use std::fmt;

/// BLAKE3 of some bytes, 32 bytes long.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 32]);

/// The first eight bytes of a [`Digest`]: what a bookmark carries.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Proof(pub [u8; 8]);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(*blake3::hash(bytes).as_bytes())
    }

    /// The proof that a bookmark shows.
    pub fn proof(self) -> Proof {
        let mut proof = [0; 8];
        proof.copy_from_slice(&self.0[..8]);
        Proof(proof)
    }

    /// Reads 64 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Digest> {
        unhex(text).map(Digest)
    }
}

impl Proof {
    /// Reads 16 lower-case hex digits.
    pub fn parse(text: &str) -> Option<Proof> {
        unhex(text).map(Proof)
    }
}

fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

fn hex(bytes: &[u8], out: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
}

impl fmt::Display for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, out)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, out)
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, out)
    }
}

impl fmt::Debug for Proof {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex(&self.0, out)
    }
}

/// Bits that a digest leaves out, since their owner rewrites them: they count as zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mask {
    /// Which byte.
    pub offset: u64,
    /// Which of its bits.
    pub bits: u8,
}

/// The digest of a segment's bytes so far. Asking for it does not end it.
#[derive(Clone, Debug, Default)]
pub struct Running {
    hasher: blake3::Hasher,
    length: u64,
    mask: Option<Mask>,
}

impl Mask {
    /// The place of its byte in `length` bytes from an offset on.
    pub fn within(self, offset: u64, length: usize) -> Option<usize> {
        let place = usize::try_from(self.offset.checked_sub(offset)?).ok()?;
        (place < length).then_some(place)
    }

    /// Whether any of its bits is set in bytes from an offset on.
    pub fn is_set(self, offset: u64, bytes: &[u8]) -> bool {
        self.within(offset, bytes.len()).is_some_and(|place| bytes[place] & self.bits != 0)
    }

    /// Clears its bits in bytes from an offset on.
    pub fn clear(self, offset: u64, bytes: &mut [u8]) {
        if let Some(place) = self.within(offset, bytes.len()) {
            bytes[place] &= !self.bits;
        }
    }
}

impl Running {
    /// Of no bytes.
    pub fn new() -> Running {
        Running::default()
    }

    /// Of no bytes, with some bits left out.
    pub fn masked(mask: Option<Mask>) -> Running {
        Running { mask, ..Running::default() }
    }

    /// Adds the bytes that follow.
    pub fn update(&mut self, bytes: &[u8]) {
        match self.mask.and_then(|mask| Some((mask.within(self.length, bytes.len())?, mask.bits))) {
            Some((place, bits)) => {
                self.hasher.update(&bytes[..place]).update(&[bytes[place] & !bits]).update(&bytes[place + 1..]);
            }
            None => {
                self.hasher.update(bytes);
            }
        }
        self.length += bytes.len() as u64;
    }

    /// Adds `count` zero bytes, the content of a hole.
    pub fn zeros(&mut self, count: u64) {
        static ZEROS: [u8; 1 << 16] = [0; 1 << 16];
        let mut left = count;
        while left > 0 {
            let step = left.min(ZEROS.len() as u64);
            self.update(&ZEROS[..step as usize]);
            left -= step;
        }
    }

    /// How many bytes were added.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The digest of all bytes so far.
    pub fn digest(&self) -> Digest {
        Digest(*self.hasher.finalize().as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_equals_whole_and_holes_count_as_zeros() {
        let mut running = Running::new();
        running.update(b"abc");
        running.zeros(100_000);
        let mut whole = b"abc".to_vec();
        whole.resize(100_003, 0);
        assert_eq!(running.digest(), Digest::of(&whole));
        assert_eq!(running.length(), 100_003);
    }

    #[test]
    fn masked_bits_are_left_out_wherever_the_pieces_end() {
        let running = |bytes: &[u8], at: usize| {
            let mut running = Running::masked(Some(Mask { offset: 2, bits: 1 }));
            running.update(&bytes[..at]);
            running.update(&bytes[at..]);
            running.digest()
        };
        for at in 0..=5 {
            assert_eq!(running(b"ab\x03de", at), Digest::of(b"ab\x02de"));
            assert_ne!(running(b"ab\x07de", at), Digest::of(b"ab\x02de"));
        }
    }

    #[test]
    fn hex_is_read_back_and_nothing_else_is() {
        let digest = Digest::of(b"");
        assert!(digest.to_string().starts_with("af1349b9f5f9a1a6"));
        assert_eq!(Digest::parse(&digest.to_string()), Some(digest));
        assert_eq!(Digest::parse(&digest.to_string().to_uppercase()), None);
        assert_eq!(Proof::parse(&digest.to_string()[..16]), Some(digest.proof()));
        assert_eq!(Proof::parse("é23456789abcde"), None);
    }
}
