//! Reading foreign bytes piece by piece: every length is checked before anything is taken, nothing is copied.

/// Whether all of them are zeros: by one comparison of memory, each byte with the one before it.
pub fn is_zero(bytes: &[u8]) -> bool {
    bytes.split_last().is_none_or(|(_, rest)| bytes[0] == 0 && *rest == bytes[1..])
}

/// What is left of some bytes.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Of all these bytes.
    pub fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader(bytes)
    }

    /// Whether all was read.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// The next `count` bytes.
    pub fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    /// One byte.
    pub fn byte(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// A little-endian number.
    pub fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// A little-endian number.
    pub fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A BLAKE3 value.
    pub fn digest(&mut self) -> Option<[u8; 32]> {
        self.array()
    }

    /// Bytes with their length in front, which must not be over `most`.
    pub fn text(&mut self, most: usize) -> Option<&'a [u8]> {
        let length = self.u32()? as usize;
        if length > most {
            return None;
        }
        self.take(length)
    }
}

/// Appends bytes with their length in front.
pub fn put_text(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend((bytes.len() as u32).to_le_bytes());
    out.extend(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_anywhere_is_no_zeros() {
        for length in [0, 1, 2, 511, 512] {
            let mut bytes = vec![0; length];
            assert!(is_zero(&bytes));
            for at in 0..length {
                bytes[at] = 1;
                assert!(!is_zero(&bytes), "{at} of {length}");
                bytes[at] = 0;
            }
        }
    }
}
