//! Feeding a database from what has landed: in order, at least once, late or never too early, and never in the way.

use std::fs;
use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use super::craft::{Stream, acked, at, bookmark, landed, position};
use super::rig::{APPLY, Ran, Rig, eventually};

/// Appends one line of what it was told to `fed`.
const LOG: &str = "echo \"$REPL_SET $REPL_SEGMENT $REPL_FROM $REPL_TO $REPL_TIME\" >> fed";

fn run(rig: &Rig, args: &[&str], stream: &Stream) -> Ran {
    let args: Vec<&str> = ["--acks"].iter().chain(args).copied().collect();
    let mut command = Command::new(APPLY);
    command.args(args).arg("replica").current_dir(rig.root.path());
    super::craft::feed(command, &stream.bytes)
}

#[track_caller]
fn ok(rig: &Rig, args: &[&str], stream: &Stream) -> Ran {
    let ran = run(rig, args, stream);
    assert_eq!(ran.code, 0, "{ran:?}");
    ran
}

fn fed(rig: &Rig) -> Vec<String> {
    let text = fs::read_to_string(rig.path("fed")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// Two closed segments and an open one with a boundary in it; times are 1970's.
fn three() -> Stream {
    let mut stream = Stream::new();
    stream.begin(1).data(b"aaaa").mark(100).end().begin(2).data(b"bb").mark(200).data(b"bb").mark(300).end();
    stream.begin(3).data(b"cc").mark(400).data(b"cc").heartbeat().bye();
    stream
}

#[test]
fn closed_segments_are_fed_in_order_with_their_values() {
    let rig = Rig::new();
    let ran = ok(&rig, &["--feed", LOG], &three());
    let wanted = ["orders log.1 1-1:0 1-1:4 1970-01-01T00:01:40Z", "orders log.2 1-2:0 1-2:4 1970-01-01T00:05:00Z"];
    assert_eq!(fed(&rig), wanted);
    assert_eq!(acked(&ran, "applied").as_deref(), Some("1-2:4"), "{ran:?}");
    assert_eq!(acked(&ran, "flushed").as_deref(), Some("1-3:4"));
    // Fed is fed.
    let ran = ok(&rig, &["--feed", LOG], &three());
    assert_eq!(fed(&rig), wanted);
    assert_eq!(acked(&ran, "applied").as_deref(), Some("1-2:4"), "{ran:?}");
    // At least once: what is not known to be fed is fed again.
    fs::remove_file(rig.path("replica/.repl/applied")).unwrap();
    ok(&rig, &["--feed", LOG], &three());
    assert_eq!(fed(&rig), [wanted, wanted].concat());
    let rig = Rig::new();
    ok(&rig, &["--feed", "cat \"$REPL_PATH\" >> content; echo $REPL_DIR >> where"], &three());
    assert_eq!(fs::read_to_string(rig.path("content")).unwrap(), "aaaabbbb");
    assert_eq!(fs::read_to_string(rig.path("where")).unwrap(), "replica\nreplica\n");
}

/// The bug: the last boundary of a stream was missed when it became durable after its bytes.
#[test]
fn boundaries_are_fed_up_to_the_last_one_and_no_further() {
    for _ in 0..10 {
        let rig = Rig::new();
        ok(&rig, &["--feed", LOG, "--feed-each", "boundary"], &three());
        let lines = fed(&rig);
        assert_eq!(lines.last().unwrap(), "orders log.3 1-3:0 1-3:2 1970-01-01T00:06:40Z", "{lines:?}");
        contiguous(&lines);
    }
}

/// Each portion begins where the one before ended, or with the next segment.
#[track_caller]
fn contiguous(lines: &[String]) {
    let mut end = "1-1:0".parse::<repl::value::position::Position>().unwrap();
    for line in lines {
        let words: Vec<_> = line.split(' ').collect();
        let (from, to): (repl::value::position::Position, repl::value::position::Position) =
            (words[2].parse().unwrap(), words[3].parse().unwrap());
        assert!(from == end || from == at(end.segment.sequence + 1, 0), "{lines:?}");
        assert!(to > from && to.segment == from.segment, "{lines:?}");
        end = to;
    }
}

/// The bug: what came after the first interval of a short run was not fed at its end.
#[test]
fn an_interval_does_not_hold_back_what_came_before_the_end() {
    let rig = Rig::new();
    let mut live = Live::start(&rig, &["--feed", LOG, "--feed-each", "1h"]);
    let mut stream = Stream::new();
    live.send(&stream.begin(1).data(b"aaaa").bytes);
    live.says("flushed=1-1:4");
    // There was nothing to be fed yet; from here on the next interval is waited for.
    let sent = stream.bytes.len();
    live.send(&stream.mark(100).data(b"aa").mark(200).data(b"a").bye().bytes[sent..]);
    live.says("applied=1-1:6");
    assert_eq!(live.end(), 0);
    let lines = fed(&rig);
    assert_eq!(lines.last().unwrap(), "orders log.1 1-1:0 1-1:6 1970-01-01T00:03:20Z", "{lines:?}");
}

#[test]
fn a_failing_feed_ends_with_9_when_all_is_received_and_is_taken_up_where_it_was() {
    let rig = Rig::new();
    let command = format!("test -e mended || case $REPL_SEGMENT in log.2) echo no such table; exit 3;; esac; {LOG}");
    let ran = run(&rig, &["--feed", &command], &three());
    ran.fails(9, "the feed command exited with 3: no such table");
    assert!(ran.out.lines().last().unwrap().starts_with("refuse 9 "), "{ran:?}");
    assert_eq!((acked(&ran, "flushed").as_deref(), acked(&ran, "applied").as_deref()), (Some("1-3:4"), Some("1-1:4")));
    assert_eq!(position(&rig.replica()), bookmark(3, b"cccc"));
    assert_eq!(fed(&rig).len(), 1);
    fs::write(rig.path("mended"), "").unwrap();
    ok(&rig, &["--feed", &command], Stream::new().begin_after(3, b"cccc").bye());
    assert_eq!(fed(&rig).len(), 2, "{:?}", fed(&rig));
    assert!(fed(&rig)[1].starts_with("orders log.2 1-2:0 1-2:4"));
}

#[test]
fn a_feed_that_takes_too_long_is_ended() {
    let rig = Rig::new();
    let ran = run(&rig, &["--feed", "echo waiting; sleep 1000", "--feed-timeout", "200ms"], &three());
    ran.fails(9, "the feed command took too long and was ended: waiting");
    assert_eq!(acked(&ran, "flushed").as_deref(), Some("1-3:4"));
}

#[test]
fn delay_feeds_what_is_old_and_keeps_what_is_new() {
    let rig = Rig::new();
    let now = repl::edge::clock::now().0 / 1_000_000;
    let mut stream = Stream::new();
    stream.begin(1).data(b"aaaa").mark(100).end().begin(2).data(b"bbbb").mark(now).end().begin(3).bye();
    ok(&rig, &["--feed", LOG, "--delay", "1h"], &stream);
    assert_eq!(fed(&rig), ["orders log.1 1-1:0 1-1:4 1970-01-01T00:01:40Z"]);
    assert_eq!(landed(&rig, "log.2"), b"bbbb");
    ok(&rig, &["--feed", LOG], Stream::new().begin_behind(3, b"bbbb").bye());
    assert_eq!(fed(&rig).len(), 2);
    rig.run("$APPLY --delay 1h replica").fails(2, "--feed");
}

#[test]
fn delay_holds_at_boundaries_too() {
    let rig = Rig::new();
    let now = repl::edge::clock::now().0 / 1_000_000;
    let mut stream = Stream::new();
    stream.begin(1).data(b"aa").mark(100).data(b"aa").mark(now).bye();
    ok(&rig, &["--feed", LOG, "--feed-each", "boundary", "--delay", "1h"], &stream);
    for line in fed(&rig) {
        assert_eq!(line, "orders log.1 1-1:0 1-1:2 1970-01-01T00:01:40Z");
    }
}

/// A receiver that is being fed by hand.
struct Live {
    child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Live {
    fn start(rig: &Rig, args: &[&str]) -> Live {
        let mut command = Command::new(APPLY);
        command.arg("--acks").args(args).arg("replica").current_dir(rig.root.path());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Live { child, input, lines }
    }

    fn send(&mut self, bytes: &[u8]) {
        self.input.write_all(bytes).unwrap();
    }

    /// Reads lines up to one that says this.
    #[track_caller]
    fn says(&mut self, text: &str) {
        assert!(self.lines.any(|line| line.unwrap().contains(text)), "no '{text}'");
    }

    fn end(mut self) -> i32 {
        drop(self.input);
        self.child.wait().unwrap().code().unwrap()
    }
}

#[test]
fn a_feed_holds_up_neither_landing_nor_acks() {
    let rig = Rig::new();
    let mut live = Live::start(&rig, &["--feed", "echo x >> begun; while ! test -e go; do sleep 0.01; done"]);
    let mut stream = Stream::new();
    live.send(&stream.begin(1).data(b"aaaa").end().bytes);
    eventually("the feed", || rig.path("begun").exists());
    let sent = stream.bytes.len();
    live.send(&stream.begin(2).data(b"bbbb").bytes[sent..]);
    live.says("flushed=1-2:4 applied=-");
    fs::write(rig.path("go"), "").unwrap();
    live.says("applied=1-1:4");
    assert_eq!(live.end(), 8);
}

#[test]
fn a_shut_gate_holds_back_feeding_and_nothing_else() {
    let rig = Rig::new();
    let ran = ok(&rig, &["--feed", LOG, "--gate", "test -e open"], &three());
    assert!(fed(&rig).is_empty());
    assert_eq!(acked(&ran, "flushed").as_deref(), Some("1-3:4"));
    let mut live = Live::start(&rig, &["--feed", LOG, "--gate", "echo $REPL_TO >> asked; test -e open"]);
    eventually("a question", || rig.path("asked").exists());
    fs::write(rig.path("open"), "").unwrap();
    live.says("applied=1-2:4");
    assert_eq!(fed(&rig).len(), 2);
    live.send(&Stream::new().begin_after(3, b"cccc").bye().bytes);
    assert_eq!(live.end(), 0);
}

#[test]
fn a_hook_inherits_no_descriptor_and_no_lock() {
    let rig = Rig::new();
    let command = "ls -l /proc/self/fd > fds; setsid sleep 1000 > /dev/null 2>&1 & echo $! > left";
    let ran = run(&rig, &["--feed", command], Stream::new().segment(1, b"aaaa").bye());
    assert_eq!(ran.code, 0, "{ran:?}");
    // What whoever runs this test leaves open is in every process below it; nothing else is there.
    let list = |text: &str| -> Vec<(String, String)> {
        let entry = |line: &str| Some((line.split_once(" -> ")?.0.rsplit(' ').next()?.to_owned(), line.to_owned()));
        text.lines().filter_map(entry).collect()
    };
    let numbers = |fds: &[(String, String)]| fds.iter().map(|(fd, _)| fd.clone()).collect::<Vec<_>>();
    let (seen, usual) = (list(&fs::read_to_string(rig.path("fds")).unwrap()), list(&rig.ok("ls -l /proc/self/fd")));
    assert_eq!(numbers(&seen), numbers(&usual), "{seen:?}");
    assert!(seen.iter().any(|(_, line)| line.ends_with("0 -> /dev/null")), "{seen:?}");
    assert!(!seen.iter().any(|(_, line)| line.contains("replica")), "{seen:?}");
    // What it left running does not hold the lock.
    let left = fs::read_to_string(rig.path("left")).unwrap();
    assert!(fs::metadata(format!("/proc/{}", left.trim())).is_ok());
    let again = run(&rig, &[], Stream::new().segment(1, b"aaaa").bye());
    rig.ok(&format!("kill {left}"));
    assert_eq!(again.code, 0, "{again:?}");
}

#[test]
fn values_are_not_part_of_the_command_line() {
    let rig = Rig::new();
    let hello =
        repl::rule::stream::hello::Hello { set: "a'; touch hacked; $(touch hacked)".into(), ..super::craft::hello() };
    let mut stream = Stream::of(&hello);
    ok(
        &rig,
        &["--feed", "echo \"$REPL_SET\" >> fed; tr '\\0' '\\n' < /proc/$$/cmdline >> line"],
        stream.segment(1, b"a").bye(),
    );
    assert_eq!(fed(&rig), ["a'; touch hacked; $(touch hacked)"]);
    assert!(!rig.path("hacked").exists());
    assert!(!fs::read_to_string(rig.path("line")).unwrap().contains("hacked"));
}

#[test]
fn a_log_only_site_feeds_nothing() {
    let rig = Rig::new();
    rig.run("$APPLY --logs-only --feed true replica").fails(2, "cannot be used with");
    ok(&rig, &["--logs-only"], &three());
}

#[test]
fn an_engine_without_a_feed_of_its_own_is_refused_before_anything_is_taken() {
    let rig = Rig::new();
    run(&rig, &["--feed", "default"], &three()).fails(2, "engine plain has no default feed; name a command");
    assert!(!rig.replica().join(".repl/origin").exists());
    ok(&rig, &[], &three());
    run(&rig, &["--feed", "default"], &three()).fails(2, "has no default feed");
    run(&rig, &["--feed", "true", "--dsn", "x"], &three()).fails(2, "--dsn goes with --feed default only");
}

/// The bug: what replaced a tail that was fed and set aside was never fed, up to where the old tail had been.
#[test]
fn what_replaces_a_fed_tail_is_fed_and_the_operator_is_told() {
    let rig = Rig::new();
    ok(&rig, &["--feed", LOG], &three());
    let mut other = Stream::new();
    other.begin(1).data(b"aaaa").end().begin(2).data(b"bX").end().begin(3).bye();
    let ran = ok(&rig, &["--feed", LOG, "--set-aside"], &other);
    assert!(ran.err.contains("the database was fed up to 1-2:4: it has what the master has not"), "{ran:?}");
    assert_eq!(fed(&rig).last().unwrap(), "orders log.2 1-2:1 1-2:2 ");
    assert_eq!(acked(&ran, "applied").as_deref(), Some("1-2:2"));
    // Also by a run that feeds nothing.
    let mut other = Stream::new();
    other.begin(1).data(b"aX").end().begin(2).data(b"b").end().begin(3).bye();
    let ran = ok(&rig, &["--set-aside"], &other);
    assert!(ran.err.contains("fed up to 1-2:2"), "{ran:?}");
    ok(&rig, &["--feed", LOG], Stream::new().begin_behind(3, b"b").bye());
    assert_eq!(&fed(&rig)[3..], ["orders log.1 1-1:1 1-1:2 ", "orders log.2 1-2:0 1-2:1 "]);
}
