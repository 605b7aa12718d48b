//! The first eight bytes. Two of them have their high bit set, and there is a CR LF, so that a link which is not
//! 8-bit clean or turns line ends shows itself before any log is read, and so does a login shell that prints.

/// `93 52 50 4c 0d 0a 1a 8a`.
pub const MAGIC: [u8; 8] = [0x93, b'R', b'P', b'L', b'\r', b'\n', 0x1a, 0x8a];

/// What is wrong with the first bytes of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// High bits are gone.
    SevenBit,
    /// Line ends were turned (by a terminal or a text mode), or bytes became UTF-8.
    Translated,
    /// Words, alone or before the stream: a login shell or a wrong command printed them.
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
    let translations: [&[u8]; 7] = [
        // LF to CR LF, CR LF to LF, CR to LF, LF to CR.
        &[0x93, b'R', b'P', b'L', b'\r', b'\r', b'\n', 0x1a],
        &[0x93, b'R', b'P', b'L', b'\n', 0x1a, 0x8a],
        &[0x93, b'R', b'P', b'L', b'\n', b'\n', 0x1a, 0x8a],
        &[0x93, b'R', b'P', b'L', b'\r', b'\r', 0x1a, 0x8a],
        // To UTF-8: from ISO 8859-1, from Windows-1252, from what was taken for damaged UTF-8.
        &[0xc2, 0x93, b'R', b'P', b'L'],
        &[0xe2, 0x80, 0x9c, b'R', b'P', b'L'],
        &[0xef, 0xbf, 0xbd, b'R', b'P', b'L'],
    ];
    Some(if first == MAGIC.map(|byte| byte & 0x7f) {
        Mismatch::SevenBit
    } else if translations.iter().any(|translated| first.starts_with(translated)) {
        Mismatch::Translated
    } else if differing <= 3 {
        Mismatch::Damaged
    } else if is_text(&first) || (1..8).any(|at| MAGIC.starts_with(&first[at..]) && is_text(&first[..at])) {
        // Words that fill the first bytes, or a few before the stream itself.
        Mismatch::Printed
    } else {
        Mismatch::Foreign
    })
}

/// Whether these bytes begin a text: UTF-8 that may be cut off at the end, no control character but white space and
/// escape (colours).
fn is_text(first: &[u8]) -> bool {
    let text = match std::str::from_utf8(first) {
        Ok(text) => text,
        Err(error) if error.error_len().is_none() => str::from_utf8(&first[..error.valid_up_to()]).unwrap_or_default(),
        Err(_) => return false,
    };
    text.chars().all(|ch| !ch.is_control() || ch.is_ascii_whitespace() || ch == '\x1b')
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
        assert_eq!(judge(*b"\xc2\x93RPL\r\n\x1a"), Some(Mismatch::Translated));
        assert_eq!(judge(*b"\xc2\x93RPL\r\r\n"), Some(Mismatch::Translated));
        assert_eq!(judge(*b"\xe2\x80\x9cRPL\r\n"), Some(Mismatch::Translated));
        assert_eq!(judge(*b"\xef\xbf\xbdRPL\r\n"), Some(Mismatch::Translated));
        assert_eq!(judge(*b"Welcome "), Some(Mismatch::Printed));
        assert_eq!(judge([0xff; 8]), Some(Mismatch::Foreign));
        for bit in 0..64 {
            let mut first = MAGIC;
            first[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(judge(first), Some(Mismatch::Damaged), "bit {bit}");
        }
    }

    #[test]
    fn one_line_end_turned_into_the_other_is_translation_though_few_bits_differ() {
        assert_eq!(judge(*b"\x93RPL\n\n\x1a\x8a"), Some(Mismatch::Translated));
        assert_eq!(judge(*b"\x93RPL\r\r\x1a\x8a"), Some(Mismatch::Translated));
    }

    #[test]
    fn words_in_any_language_are_words() {
        assert_eq!(judge(*b"Gr\xc3\xbc\xc3\x9fe "), Some(Mismatch::Printed));
        assert_eq!(judge(*b"\xd0\x94\xd0\xbe\xd0\xb1\xd1\x80"), Some(Mismatch::Printed));
        // Cut within a character.
        assert_eq!(judge(*b"Welcom\xc3\xa9"), Some(Mismatch::Printed));
        assert_eq!(judge(*b"Welcome\xc3"), Some(Mismatch::Printed));
        assert_eq!(judge(*b"\x1b[32mhi\n"), Some(Mismatch::Printed));
        // Fewer than eight bytes of them, and the stream behind.
        assert_eq!(judge(*b"hi\n\x93RPL\r"), Some(Mismatch::Printed));
        assert_eq!(judge(*b"seven :\x93"), Some(Mismatch::Printed));
        assert_eq!(judge(*b"\x7fELF\x02\x01\x01\0"), Some(Mismatch::Foreign));
    }
}
