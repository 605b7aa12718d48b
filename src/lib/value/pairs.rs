//! `key=word` pairs with a space or a line end between them: hello, back channel and state records are written so.

use super::escape::{unword, unword_bytes};
use super::position::number;

/// The value of a key, unescaped; `None` when the key is absent or its word is malformed.
pub fn get(text: &str, key: &str) -> Option<String> {
    find(text, key).and_then(unword)
}

/// The same of a value that need not be text, such as a path.
pub fn bytes(text: &str, key: &str) -> Option<Vec<u8>> {
    find(text, key).and_then(unword_bytes)
}

fn find<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.split([' ', '\n']).find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
}

/// The value of a key as a number.
pub fn count(text: &str, key: &str) -> Option<u64> {
    number(&get(text, key)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_matched_whole_and_a_word_is_unescaped() {
        let text = "at=1 flat=2\nname=a%20b none=-";
        assert_eq!(get(text, "at").as_deref(), Some("1"));
        assert_eq!(get(text, "name").as_deref(), Some("a b"));
        assert_eq!(get(text, "none").as_deref(), Some(""));
        assert_eq!(get(text, "nam"), None);
        assert_eq!(count(text, "flat"), Some(2));
        assert_eq!(count(text, "name"), None);
    }
}
