//! Positions, bookmarks, starts, times, limits, sizes, words: what parses is printed as something that parses to the
//! same, and text for a terminal holds no control character.

#![no_main]

use libfuzzer_sys::fuzz_target;
use repl::value::escape::{show, show_bytes, unword, word};
use repl::value::position::{Bookmark, Position, Start};
use repl::value::time::{Time, Until};
use repl::value::units;

fuzz_target!(|bytes: &[u8]| {
    assert!(!show_bytes(bytes).contains(char::is_control));
    if let Some((micros, _)) = bytes.split_first_chunk::<8>() {
        let time = Time(i64::from_le_bytes(*micros));
        let (shown, _) = (time.to_string(), time.narrate());
        assert!(shown.starts_with('@') || Time::parse(&shown) == Some(time), "{shown}");
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    assert!(!show(text).contains(char::is_control));
    assert_eq!(unword(&word(text)).as_deref(), Some(text));
    let _ = unword(text).map(|text| assert_eq!(unword(&word(&text)), Some(text)));
    let _ = text.parse::<Position>().map(|at| assert_eq!(at.to_string().parse(), Ok(at)));
    let _ = text.parse::<Bookmark>().map(|at| assert_eq!(at.to_string().parse(), Ok(at)));
    let _ = text.parse::<Start>().map(|at| assert_eq!(at.to_string().parse(), Ok(at)));
    let _ = Time::parse(text).map(|time| {
        let shown = time.to_string();
        assert!(shown.starts_with('@') || Time::parse(&shown) == Some(time), "{shown}");
    });
    let _ = (Until::parse(text), units::size(text), units::rate(text), units::duration(text));
});
