//! A line from a receiver: what is believed is printed back as a line that means the same.

#![no_main]

use libfuzzer_sys::fuzz_target;
use repl::rule::stream::back::{LINE_MAX, Line};

fuzz_target!(|bytes: &[u8]| {
    let Ok(line) = Line::parse(bytes) else { return };
    let printed = line.to_string();
    assert!(!printed.contains(|ch: char| ch.is_control()), "{printed:?}");
    if let Line::Refuse(code, _) = &line {
        // Text is escaped and cut, so it is the same only from the second time on.
        assert!(printed.len() < LINE_MAX);
        let again = Line::parse(printed.as_bytes()).expect("a printed refusal is read");
        assert!(matches!(&again, Line::Refuse(same, _) if same == code));
        assert_eq!(again.to_string(), printed);
    } else {
        assert_eq!(Line::parse(printed.as_bytes()), Ok(line));
    }
});
