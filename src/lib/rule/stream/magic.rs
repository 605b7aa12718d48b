//! The first eight bytes. Two of them have their high bit set, and there is a CR LF, so that a link which is not
//! 8-bit clean or turns line ends shows itself before any log is read, and so does a login shell that prints.

/// `93 52 50 4c 0d 0a 1a 8a`.
pub const MAGIC: [u8; 8] = [0x93, b'R', b'P', b'L', b'\r', b'\n', 0x1a, 0x8a];

/// What is wrong with the first bytes of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// High bits are gone.
    SevenBit,
    /// LF became CR LF, CR LF became LF, or bytes became UTF-8.
    Translated,
    /// Words, not a stream: a login shell or a wrong command printed them.
    Printed,
    /// One to three bits differ: damaged on the way.
    Damaged,
    /// Something else.
    Foreign,
}

/// Judges the first eight bytes; `None` when they are right.
pub fn judge(first: [u8; 8]) -> Option<Mismatch> {
    if first == MAGIC {
        return None;
    }
    let differing: u32 = first.iter().zip(&MAGIC).map(|(got, want)| (got ^ want).count_ones()).sum();
    let translations: [&[u8]; 4] = [
        &[0x93, b'R', b'P', b'L', b'\r', b'\r', b'\n', 0x1a],
        &[0x93, b'R', b'P', b'L', b'\n', 0x1a, 0x8a],
        &[0xc2, 0x93, b'R', b'P', b'L', b'\r', b'\n', 0x1a],
        &[0xc2, 0x93, b'R', b'P', b'L', b'\r', b'\r', b'\n'],
    ];
    Some(if first == MAGIC.map(|byte| byte & 0x7f) {
        Mismatch::SevenBit
    } else if translations.iter().any(|translated| first.starts_with(translated)) {
        Mismatch::Translated
    } else if differing <= 3 {
        Mismatch::Damaged
    } else if first.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace() || *byte == 0x1b) {
        Mismatch::Printed
    } else {
        Mismatch::Foreign
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_bad_link_is_told_apart() {
        assert_eq!(judge(MAGIC), None);
        assert_eq!(judge([0x13, b'R', b'P', b'L', b'\r', b'\n', 0x1a, 0x0a]), Some(Mismatch::SevenBit));
        assert_eq!(judge([0x93, b'R', b'P', b'L', b'\r', b'\r', b'\n', 0x1a]), Some(Mismatch::Translated));
        assert_eq!(judge([0x93, b'R', b'P', b'L', b'\n', 0x1a, 0x8a, b'H']), Some(Mismatch::Translated));
        assert_eq!(judge(*b"Welcome "), Some(Mismatch::Printed));
        assert_eq!(judge([0xff; 8]), Some(Mismatch::Foreign));
        for bit in 0..64 {
            let mut first = MAGIC;
            first[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(judge(first), Some(Mismatch::Damaged), "bit {bit}");
        }
    }
}
