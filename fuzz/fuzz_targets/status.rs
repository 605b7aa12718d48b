//! What a state file holds, and what another machine says of its own: whatever it is, each form is printed of it, and no
//! text in it can end a line of that or become a tag.

#![no_main]

use libfuzzer_sys::fuzz_target;
use repl::rule::status::judge::Limits;
use repl::rule::status::receiver::{Receiver, Session};
use repl::rule::status::sender::Sender;
use repl::rule::status::table::{self, Detail};
use repl::rule::status::{Part, Report, What, html, json, nagios, prometheus};
use repl::value::time::Time;
use std::time::Duration;

fuzz_target!(|bytes: &[u8]| {
    let time = Time(1_776_538_457_000_000);
    let mut parts = json::parse(bytes, "venus").unwrap_or_default();
    parts.extend(Sender::parse(bytes).ok().map(|sender| Part::new(time, What::Sender(Box::new(sender)))));
    let receiver = |session| Receiver { session: Some(session), ..Receiver::default() };
    parts.extend(Session::parse(bytes).ok().map(|session| Part::new(time, What::Receiver(Box::new(receiver(session))))));
    let report = Report { time, limits: Limits::default(), parts };
    assert_eq!(nagios::render(&report).lines().count(), 1);
    let shown = [table::render(&report, Detail::Full), html::render(&report, Duration::from_secs(86_400))];
    assert!(shown.iter().all(|text| text.lines().all(|line| !line.contains(char::is_control))));
    assert!(!shown[1].contains("<script"));
    prometheus::render(&report);
    json::parse(json::render(&report).as_bytes(), "mars").unwrap();
});
