//! Foreign text made safe: for a terminal, and as one word of a line protocol.

use std::fmt::Write as _;

/// Text for a terminal or a log: control characters, escapes and line ends shown as `\x1b`, the rest as it is.
pub fn show(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for ch in text.chars() {
        if ch.is_control() || matches!(ch, '\u{200e}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        {
            shown.extend(ch.escape_default());
        } else {
            shown.push(ch);
        }
    }
    shown
}

/// A file name for a terminal: bytes that are not UTF-8 become `\xff`.
pub fn show_bytes(name: &[u8]) -> String {
    let mut shown = String::new();
    for chunk in name.utf8_chunks() {
        shown.push_str(&show(chunk.valid()));
        for byte in chunk.invalid() {
            // Writing to a String cannot fail.
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

/// One word of a line: everything but `A-Za-z0-9._:+-/@,` as `%XX`; the empty text is `-`, and so `-` is `%2D`.
pub fn word(text: &str) -> String {
    word_bytes(text.as_bytes())
}

/// The same of bytes that need not be text, such as a path's.
pub fn word_bytes(bytes: &[u8]) -> String {
    match bytes {
        b"" => return "-".to_owned(),
        b"-" => return "%2D".to_owned(),
        _ => {}
    }
    let mut word = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"._:+-/@,".contains(&byte) {
            word.push(byte as char);
        } else {
            let _ = write!(word, "%{byte:02X}");
        }
    }
    word
}

/// Reads a [`word`] back; `None` when it is not one.
pub fn unword(word: &str) -> Option<String> {
    String::from_utf8(unword_bytes(word)?).ok()
}

/// Reads [`word_bytes`] back; `None` when it is not one.
pub fn unword_bytes(word: &str) -> Option<Vec<u8>> {
    match word {
        "" => return None,
        "-" => return Some(Vec::new()),
        _ => {}
    }
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let high = char::from(rest.next()?).to_digit(16)?;
            let low = char::from(rest.next()?).to_digit(16)?;
            bytes.push((high << 4 | low) as u8);
        } else if byte.is_ascii_graphic() {
            bytes.push(byte);
        } else {
            return None;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_sees_no_escape_sequence() {
        assert_eq!(show("a\x1b[31mb\nc\u{202e}d é"), "a\\u{1b}[31mb\\nc\\u{202e}d é");
        assert_eq!(show_bytes(b"a\xff\x07"), "a\\xff\\u{7}");
    }

    #[test]
    fn words_are_read_back() {
        for text in ["", "-", "a b", "100%", "ünï", "a\nb=c", "x"] {
            let word = word(text);
            assert!(!word.is_empty() && !word.contains([' ', '\n', '=']), "{word}");
            assert_eq!(unword(&word).as_deref(), Some(text));
        }
        for bad in ["", "%", "%4", "%zz", "a b", "%ff"] {
            assert_eq!(unword(bad), None, "{bad}");
        }
        let path = b"/srv/\xff main\n";
        assert_eq!(unword_bytes(&word_bytes(path)).as_deref(), Some(path.as_slice()));
    }
}
