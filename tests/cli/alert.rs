//! `--on-error`: who is called, how often, with what, and that the stream does not wait for it.

use std::collections::BTreeMap;
use std::fs;

use rustix::process::Signal;

use super::rig::{Rig, eventually, noise};

/// An option that notes each call: its values, and an empty line. A call is there when it is whole.
const NOTE: &str = "--on-error 'env | grep ^REPL_ > call; echo >> call; cat call >> calls'";

/// The calls that were made.
fn calls(rig: &Rig) -> Vec<BTreeMap<String, String>> {
    let text = fs::read_to_string(rig.path("calls")).unwrap_or_default();
    let value = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    text.split_terminator("\n\n").map(|call| call.lines().filter_map(value).collect()).collect()
}

#[track_caller]
fn has(call: &BTreeMap<String, String>, expected: &[(&str, &str)]) {
    for (name, value) in expected {
        assert_eq!(call.get(*name).map(String::as_str), Some(*value), "{name} in {call:?}");
    }
}

#[test]
fn a_link_that_flaps_calls_once() {
    let rig = Rig::new();
    rig.write("log.1", noise(1000, 1));
    let mut ship =
        rig.spawn(&format!("exec $SHIP --pattern log.%S --set shop --state state {NOTE} --via 'exit 8' master"));
    eventually("a link that has failed often", || ship.err().matches("trying again").count() >= 3);
    ship.signal(Signal::TERM);
    let ran = ship.wait();
    assert_eq!(ran.code, 0, "{ran:?}");
    let calls = calls(&rig);
    assert_eq!(calls.len(), 1, "{calls:?}");
    let plain = [("REPL_COMMAND", "repl-ship"), ("REPL_EVENT", "trouble"), ("REPL_CODE", "8"), ("REPL_NAME", "link")];
    has(&calls[0], &plain);
    has(&calls[0], &[("REPL_SET", "shop"), ("REPL_SITE", ""), ("REPL_LOGDIR", "master"), ("REPL_SUPPRESSED", "0")]);
    assert!(calls[0]["REPL_REASON"].starts_with("the receiver exited with 8"), "{calls:?}");
}

#[test]
fn the_stream_does_not_wait_for_a_call_and_the_end_does() {
    let rig = Rig::new();
    rig.write("log.1", noise(1000, 1));
    rig.ok("mkfifo go");
    let mut ship = rig.spawn(
        "exec $SHIP -v --pattern log.%S --poll 10ms --state state --on-error 'touch called; cat go; touch done' \
         --via 'test -e up && exec $APPLY --acks replica; touch up; exit 8' master",
    );
    eventually("the call", || rig.path("called").exists());
    for round in 0..3 {
        rig.append("log.1", noise(1000, round));
        let master = fs::read(rig.master().join("log.1")).unwrap();
        eventually("the stream to go on", || fs::read(rig.replica().join("log.1")).is_ok_and(|bytes| bytes == master));
    }
    assert!(!rig.path("done").exists());
    // Only the sender: a call has a group of its own, and outlives what we send to ours.
    ship.signal(Signal::TERM);
    eventually("the end of shipping", || ship.err().contains("bytes of stream"));
    assert!(ship.child.try_wait().unwrap().is_none() && !rig.path("done").exists());
    rig.ok("echo > go");
    let ran = ship.wait();
    assert!(ran.code == 0 && rig.path("done").exists(), "{ran:?}");
}

#[test]
fn a_command_that_is_started_again_does_not_call_again() {
    let rig = Rig::new();
    rig.write("log.1", noise(1000, 1));
    let pass = format!("$SHIP -S --retry-for 0s --pattern log.%S --state state {NOTE} --via 'exit 8' master");
    for _ in 0..3 {
        rig.run(&pass).fails(8, "gave up on the receiver");
    }
    assert_eq!(calls(&rig).len(), 1);
    has(&calls(&rig)[0], &[("REPL_EVENT", "end"), ("REPL_CODE", "8"), ("REPL_SUPPRESSED", "0")]);
    // Another kind is called for at once.
    rig.run(&pass.replace("exit 8", "exit 5")).fails(5, "the receiver exited with 5");
    has(&calls(&rig)[1], &[("REPL_NAME", "fenced"), ("REPL_CODE", "5"), ("REPL_SUPPRESSED", "0")]);
    rig.run(&pass.replace("--on-error", "--on-error-every 1ms --on-error")).fails(8, "gave up on the receiver");
    has(&calls(&rig)[2], &[("REPL_NAME", "link"), ("REPL_SUPPRESSED", "2")]);
    // What is remembered was damaged: that is a call too many.
    fs::write(rig.path("state/alerts"), b"\xff{}\n\0").unwrap();
    rig.run(&pass).fails(8, "gave up on the receiver");
    assert_eq!(calls(&rig).len(), 4);
}

#[test]
fn a_call_that_fails_is_a_warning_and_changes_no_exit_code() {
    let rig = Rig::new();
    rig.write("log.1", noise(1000, 1));
    let pass = |call: &str| {
        rig.run(&format!(
            "rm -rf state; $SHIP -S --retry-for 0s --pattern log.%S --state state --on-error '{call}' --via 'exit 8' master"
        ))
    };
    pass("echo why; exit 3").fails(8, "repl-ship: the on-error command exited with 3: why\n");
    pass("kill -9 $$").fails(8, "the on-error command was killed by signal 9");
    let ran =
        rig.run("$SHIP -S -q --retry-for 0s --pattern log.%S --state other --on-error 'exit 3' --via 'exit 8' master");
    assert!(ran.code == 8 && !ran.err.contains("on-error"), "{ran:?}");
    // Without trouble nobody is called.
    rig.ok(&format!("$SHIP -S --pattern log.%S --state third {NOTE} --via '$APPLY --acks replica' master"));
    assert!(calls(&rig).is_empty() && !rig.path("third/alerts").exists());
    rig.run("$SHIP --on-error-every 1m master").fails(2, "--on-error");
}

#[test]
fn a_receiver_calls_for_its_end_and_for_a_feed_that_fails() {
    let rig = Rig::new();
    rig.write("log.1", noise(100_000, 1));
    rig.ok("$SHIP -S --pattern log.%S --set shop --state state master > stream");
    rig.run(&format!("head -c 50000 stream | $APPLY --site venus {NOTE} replica")).fails(8, "repl-apply: ");
    rig.run(&format!("head -c 60000 stream | $APPLY --site venus {NOTE} replica")).fails(8, "repl-apply: ");
    let called = calls(&rig);
    assert_eq!(called.len(), 1, "{called:?}");
    has(&called[0], &[("REPL_COMMAND", "repl-apply"), ("REPL_EVENT", "end"), ("REPL_NAME", "link")]);
    // The set is the one that the sender has told.
    has(&called[0], &[("REPL_SET", "shop"), ("REPL_SITE", "venus"), ("REPL_LOGDIR", "replica")]);

    let mut ship = rig.spawn(&format!(
        "exec $SHIP --pattern log.%S --set shop --state state --via \"exec $APPLY --acks --feed 'exit 1' --feed-each 10ms {NOTE} replica\" master"
    ));
    eventually("the call for the feed", || calls(&rig).len() == 2);
    has(&calls(&rig)[1], &[("REPL_EVENT", "trouble"), ("REPL_NAME", "hook"), ("REPL_CODE", "9")]);
    ship.signal(Signal::TERM);
    ship.wait();
}

#[test]
fn a_peer_neither_orders_a_call_nor_has_one_made_by_what_is_refused() {
    let rig = Rig::new();
    rig.write("log.1", noise(1000, 1));
    rig.ok("mkdir root; $SHIP -S --pattern log.%S master > stream");
    let forced = |asked: &str, stream: &str| {
        rig.run(&format!("export SSH_ORIGINAL_COMMAND=\"{asked}\"; $APPLY --restrict root {NOTE} < {stream}"))
    };
    forced("repl-apply --on-error 'touch owned' site", "stream").fails(2, "option '--on-error' is not allowed");
    forced("repl-apply ../other", "stream").fails(5, "leads out of");
    assert!(calls(&rig).is_empty() && !rig.path("owned").exists());
    forced("repl-apply site", "/dev/null").fails(8, "the stream ended before it began");
    assert_eq!(calls(&rig).len(), 1);
    assert!(calls(&rig)[0]["REPL_LOGDIR"].ends_with("site"), "{:?}", calls(&rig));
}

#[test]
fn what_is_told_is_one_line_whatever_the_names_are() {
    let rig = Rig::new();
    let ran = rig.run(&format!("$SHIP -S --state state {NOTE} $'no\\nREPL_CODE=0\\e[31m'"));
    assert_eq!(ran.code, 1, "{ran:?}");
    let call = calls(&rig).remove(0);
    has(&call, &[("REPL_CODE", "1"), ("REPL_LOGDIR", "no\\nREPL_CODE=0\\u{1b}[31m")]);
    assert!(call["REPL_REASON"].contains("no\\nREPL_CODE=0\\u{1b}[31m"), "{call:?}");
}
