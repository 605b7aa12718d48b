//! repl-ship from the outside: where it starts and ends, what it does while a link fails, what it says, and what becomes
//! of files that change under it.

use std::fs;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use super::rig::{Ran, Rig, Running, SHIP, eventually, noise, segments};

/// A shell function for a plain log with state of its own, and a receiver's command.
const PLAIN: &str = "ship() { $SHIP --pattern log.%S --state state \"$@\"; }; VIA=\"$APPLY --acks replica\";";

/// Runs a script that may call `ship`.
fn run(rig: &Rig, script: &str) -> Ran {
    rig.run(&format!("{PLAIN}\n{script}"))
}

/// Runs a script that may call `ship` and must succeed.
#[track_caller]
fn ok(rig: &Rig, script: &str) -> Ran {
    let ran = run(rig, script);
    assert_eq!(ran.code, 0, "{script}: {ran:?}");
    ran
}

/// Follows a plain log by a command link, with more options.
fn follow(rig: &Rig, options: &str) -> Running {
    rig.spawn(&format!("exec $SHIP --pattern log.%S --state state {options} --via \"$APPLY --acks replica\" master"))
}

#[track_caller]
fn end(mut ship: Running) -> Ran {
    ship.signal(Signal::TERM);
    let ran = ship.wait();
    assert_eq!(ran.code, 0, "{ran:?}");
    ran
}

fn length(path: impl AsRef<Path>) -> u64 {
    fs::metadata(path).map_or(0, |meta| meta.len())
}

/// Waits until a file of the replica has this length.
#[track_caller]
fn arrives(rig: &Rig, name: &str, bytes: u64) {
    eventually(&format!("{bytes} bytes of {name}"), || length(rig.replica().join(name)) == bytes);
}

/// The process that holds the replica's lock.
fn applier(rig: &Rig) -> Option<Pid> {
    let text = fs::read_to_string(rig.replica().join(".repl/lock")).ok()?;
    Pid::from_raw(text.trim().strip_prefix("process ")?.parse().ok()?)
}

fn names(rig: &Rig) -> Vec<String> {
    segments(&rig.replica()).into_keys().collect()
}

/// A receiver that greets, takes everything, and never acknowledges.
const MUTE: &str = "echo 'welcome v=1 set=- engine=- site=- epoch=0 at=oldest'; cat >/dev/null; exec sleep 2";

fn three(rig: &Rig) {
    for (name, length) in [("log.1", 1000), ("log.2", 500), ("log.3", 200)] {
        rig.write(name, noise(length, length as u64));
    }
}

#[test]
fn a_pipe_starts_at_the_oldest_the_latest_or_a_bookmark() {
    let rig = Rig::new();
    three(&rig);
    ok(&rig, "ship -S --from latest master | $APPLY replica");
    assert_eq!(names(&rig), ["log.3"]);
    let rig = Rig::new();
    three(&rig);
    ok(&rig, "ship -S --from oldest master | $APPLY replica");
    rig.assert_equal();
    rig.append("log.3", noise(77, 9));
    let ran = ok(&rig, "ship -S -v --from $($APPLY --position replica) master | $APPLY replica");
    rig.assert_equal();
    assert!(ran.err.contains("repl-ship: 77 bytes of log, "), "{ran:?}");
    // A bookmark without its proof is a position.
    ok(&rig, "ship -S --from 1-3:100 master | $APPLY replica");
    run(&rig, "ship -S --from 1-3:100+0123456789abcdef master >stream").fails(4, "diverged");
    run(&rig, "ship -S --from nonsense master >stream").fails(2, "nonsense");
}

#[test]
fn a_needed_segment_that_is_gone_is_a_gap() {
    let rig = Rig::new();
    three(&rig);
    ok(&rig, "ship -S --until 1-1:400 --via \"$VIA\" master");
    let before = segments(&rig.replica());
    fs::remove_file(rig.master().join("log.1")).unwrap();
    run(&rig, "ship -S --via \"$VIA\" master").fails(3, "segment 1-1 is needed and no longer here");
    run(&rig, "ship -S --from $($APPLY --position replica) master | $APPLY replica").fails(8, "gap");
    run(&rig, "ship -S --from $($APPLY --position replica) master >stream").fails(3, "gap");
    assert_eq!(segments(&rig.replica()), before);
    // A hole in the middle is found after what comes before it was shipped.
    let rig = Rig::new();
    three(&rig);
    fs::remove_file(rig.master().join("log.2")).unwrap();
    run(&rig, "ship -S --via \"$VIA\" master").fails(3, "segment 1-3 comes after 1-1");
    assert_eq!(names(&rig), ["log.1"]);
}

#[test]
fn what_was_shipped_may_be_removed_and_the_state_still_proves_the_next_segment() {
    for way in ["--via \"$VIA\" master", "--from $($APPLY --position replica) master | $APPLY replica"] {
        let rig = Rig::new();
        three(&rig);
        rig.write("log.3", b"");
        ok(&rig, &format!("ship -S {way}"));
        fs::remove_file(rig.master().join("log.1")).unwrap();
        fs::remove_file(rig.master().join("log.2")).unwrap();
        rig.append("log.3", noise(300, 3));
        rig.run(&format!(
            "ship() {{ $SHIP --pattern log.%S --state other \"$@\"; }}; VIA=\"$APPLY --acks replica\"; ship -S {way}"
        ));
        assert_eq!(length(rig.replica().join("log.3")), 0, "proven by nothing, and shipped");
        ok(&rig, &format!("ship -S {way}"));
        assert_eq!(length(rig.replica().join("log.3")), 300);
        ok(&rig, &format!("ship -S {way}"));
    }
}

#[test]
fn a_replica_that_is_ahead_or_has_another_history_is_refused_unchanged() {
    let rig = Rig::new();
    three(&rig);
    ok(&rig, "ship -S --via \"$VIA\" master");
    let before = segments(&rig.replica());
    let one_way = "ship -S --from $($APPLY --position replica) master >stream";
    fs::write(rig.master().join("log.3"), &noise(200, 200)[..150]).unwrap();
    run(&rig, "ship -S --via \"$VIA\" master").fails(4, "ahead");
    run(&rig, one_way).fails(4, "ahead");
    fs::remove_file(rig.master().join("log.3")).unwrap();
    run(&rig, "ship -S --via \"$VIA\" master").fails(4, "ahead");
    run(&rig, one_way).fails(4, "ahead");
    rig.write("log.3", noise(400, 7));
    run(&rig, "ship -S --via \"$VIA\" master").fails(4, "diverged");
    run(&rig, one_way).fails(4, "diverged");
    assert_eq!(segments(&rig.replica()), before);
}

/// Whether a process waits for inotify.
fn watches(pid: u32) -> bool {
    let Ok(fds) = fs::read_dir(format!("/proc/{pid}/fd")) else {
        return false;
    };
    fds.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok()).any(|to| to.to_string_lossy().contains("inotify"))
}

#[test]
fn a_log_is_followed_by_inotify_or_by_polling_alone() {
    for (options, by_inotify) in [("", true), ("--poll 20ms", false)] {
        let rig = Rig::new();
        three(&rig);
        let ship = follow(&rig, options);
        arrives(&rig, "log.3", 200);
        assert_eq!(watches(ship.child.id()), by_inotify, "{options}");
        rig.append("log.3", b"more");
        arrives(&rig, "log.3", 204);
        rig.write("log.4", b"x");
        arrives(&rig, "log.4", 1);
        end(ship);
        rig.assert_equal();
    }
}

#[test]
fn once_ends_when_all_that_is_there_is_flushed_at_the_receiver() {
    let rig = Rig::new();
    three(&rig);
    let ran = ok(&rig, "ship -S --via \"$APPLY --acks replica | tee back\" master; cat back");
    assert!(ran.out.contains("flushed=1-3:200"), "{ran:?}");
    rig.assert_equal();
    // Nothing new, no log yet, and only an empty segment: all fine.
    ok(&rig, "ship -S --via \"$VIA\" master");
    ok(&rig, "mkdir none; ship -S --via \"$APPLY --acks replica2\" none");
    ok(&rig, ": >none/log.1; ship -S --ack-timeout 10s --via \"$APPLY --acks replica2\" none");
}

#[test]
fn an_empty_last_segment_needs_no_acknowledgement_of_its_own() {
    let rig = Rig::new();
    three(&rig);
    rig.write("log.4", b"");
    ok(&rig, "ship -S --ack-timeout 5s --via \"$VIA\" master");
    assert_eq!(ok(&rig, "$APPLY --position replica").out.split('+').next(), Some("1-3:200"));
}

#[test]
fn until_ends_at_a_position_and_at_a_time() {
    let rig = Rig::new();
    three(&rig);
    ok(&rig, "ship -S --until 1-2:123 --via \"$VIA\" master");
    assert_eq!((names(&rig), length(rig.replica().join("log.2"))), (vec!["log.1".into(), "log.2".into()], 123));
    // Also without -S, and when the receiver is there already.
    ok(&rig, "ship --until 1-2:123 --via \"$VIA\" master");
    ok(&rig, "ship --until 1-2:200 --via \"$VIA\" master");
    assert_eq!(length(rig.replica().join("log.2")), 200);
    for when in ["'2026-04-18 18:54:17'", "2026-04-18T18:54:17Z", "@1776538457"] {
        let rig = Rig::new();
        three(&rig);
        let touch =
            "TZ=UTC touch -d '2026-04-18 18:54:16' master/log.1; TZ=UTC touch -d '2026-04-18 18:54:17' master/log.2";
        ok(&rig, &format!("{touch}; ship -S --until {when} --via \"$VIA\" master"));
        assert_eq!(length(rig.replica().join("log.2")), 500, "{when}");
        assert_eq!(length(rig.replica().join("log.3")), 0, "{when}");
    }
}

#[test]
fn every_compression_gives_the_same_bytes() {
    let rig = Rig::new();
    rig.write("log.1", b"the same words again, ".repeat(40_000));
    rig.write("log.2", noise(600_000, 1));
    rig.write("log.3", vec![0; 50_000]);
    let mut sizes = Vec::new();
    for how in ["none", "auto", "zstd", "zstd:1", "zstd:19"] {
        ok(&rig, &format!("rm -rf replica; ship -S --compress {how} master | tee stream | $APPLY replica"));
        rig.assert_equal();
        sizes.push(length(rig.path("stream")));
    }
    let log: u64 = ["log.1", "log.2", "log.3"].map(|name| length(rig.master().join(name))).iter().sum();
    assert!(sizes[0] > log && sizes[0] < log + log / 50, "{sizes:?}");
    assert!(sizes[1..].iter().all(|size| (600_000..700_000).contains(size)), "{sizes:?}");
    run(&rig, "ship -S --compress lz4 master >stream").fails(2, "lz4");
}

#[test]
fn a_bandwidth_limit_holds_on_the_wire_at_every_instant() {
    const RATE: u64 = 200 * 1024;
    let rig = Rig::new();
    rig.write("log.1", noise(500_000, 1));
    let began = Instant::now();
    let ship = ["-S", "--pattern", "log.%S", "--bwlimit", "200K", "--state", "state", "master"];
    let mut ship = Command::new(SHIP).args(ship).current_dir(rig.root.path()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut out, mut total, mut buffer) = (ship.stdout.take().unwrap(), 0, [0; 4096]);
    loop {
        let count = out.read(&mut buffer).unwrap();
        if count == 0 {
            break;
        }
        total += count;
        // What was read had been sent by now: a slow machine can only make the bound looser.
        let most = u128::from(RATE) * (began.elapsed().as_millis() + 750) / 1000;
        assert!((total as u128) < most, "{total} bytes after {:?}", began.elapsed());
    }
    assert!(ship.wait().unwrap().success() && total > 500_000, "{total}");
}

#[test]
fn one_segment_is_shipped_as_an_archive_command_does() {
    let rig = Rig::new();
    three(&rig);
    let pass = |name: &str| run(&rig, &format!("ship --segment master/{name} --via \"$VIA\""));
    for name in ["log.1", "log.1", "log.2", "log.3", "log.1", "log.2"] {
        let ran = pass(name);
        assert_eq!(ran.code, 0, "{name}: {ran:?}");
    }
    rig.assert_equal();
    let before = segments(&rig.replica());
    let closed = fs::read_to_string(rig.replica().join(".repl/B3SUMS")).unwrap();
    assert_eq!(closed.lines().count(), 3, "{closed}");
    rig.write("log.3", noise(200, 999));
    pass("log.3").fails(4, "diverged");
    rig.write("log.1", noise(1000, 999));
    pass("log.1").fails(4, "diverged");
    rig.write("log.5", b"x");
    pass("log.5").fails(3, "gap");
    assert_eq!(segments(&rig.replica()), before);
    run(&rig, "ship --retry-for 0s --segment master/log.5 --via 'exit 9'").fails(9, "exit");
    run(&rig, "ship --segment master/other --via \"$VIA\"").fails(2, "other");
    // Not a gap, which asks for a new copy: a wrong path.
    pass("log.9").fails(1, "cannot open master/log.9");
    run(
        &rig,
        "ship --retry-for 0s --ack-timeout 300ms --segment master/log.1 --via \"$MUTE\""
            .replace("$MUTE", MUTE)
            .as_str(),
    )
    .fails(10, "not acknowledged in time");
}

#[test]
fn one_segment_is_enough_without_state_as_long_as_the_one_before_is_there() {
    let rig = Rig::new();
    three(&rig);
    for name in ["log.1", "log.2"] {
        let script = format!(
            "$SHIP --pattern log.%S --state $(mktemp -d -p .) --segment master/{name} --via \"$APPLY --acks replica\""
        );
        rig.ok(&script);
    }
    assert_eq!(names(&rig), ["log.1", "log.2"]);
}

#[test]
fn a_terminal_is_refused() {
    let rig = Rig::new();
    three(&rig);
    let ran = rig.run("script -qec \"$SHIP -S --pattern log.%S --state state master\" typescript </dev/null");
    assert_eq!(ran.code, 2, "{ran:?}");
    assert!(ran.out.contains("standard output is a terminal"), "{ran:?}");
    assert!(ran.out.len() < 500, "the stream went to the terminal: {ran:?}");
}

/// The log went to `/dev/null`, with exit code 0.
#[test]
fn a_closed_standard_output_is_refused_and_a_null_device_is_not() {
    let rig = Rig::new();
    three(&rig);
    run(&rig, "ship -S master >&-").fails(2, "standard output is closed");
    ok(&rig, "ship -S master >/dev/null");
}

#[test]
fn a_reader_that_goes_is_exit_8_and_no_panic() {
    let rig = Rig::new();
    rig.write("log.1", noise(3_000_000, 1));
    for ship in ["ship master", "ship -S master"] {
        let ran = run(&rig, &format!("set +o pipefail; {ship} | head -c 100000 >/dev/null; exit ${{PIPESTATUS[0]}}"));
        ran.fails(8, "repl-ship: ");
        assert!(!ran.err.contains("panicked"), "{ran:?}");
    }
    // Also when nothing is left to ship.
    rig.write("log.1", b"x");
    let ran = run(
        &rig,
        "set +o pipefail; ship --heartbeat 50ms --timeout 1s master | head -c 100 >/dev/null; exit ${PIPESTATUS[0]}",
    );
    ran.fails(8, "repl-ship: ");
}

#[test]
fn a_receiver_that_is_killed_is_started_again() {
    let rig = Rig::new();
    three(&rig);
    let ship = follow(&rig, "");
    arrives(&rig, "log.3", 200);
    for round in 0..3_u64 {
        let pid = applier(&rig).unwrap();
        kill_process(pid, Signal::KILL).unwrap();
        rig.append("log.3", noise(100, round));
        arrives(&rig, "log.3", 300 + round * 100);
        eventually("another applier", || applier(&rig).is_some_and(|other| other != pid));
    }
    let ran = end(ship);
    assert!(ran.err.matches("trying again in ").count() >= 3, "{ran:?}");
    rig.assert_equal();
}

#[test]
fn a_busy_receiver_is_tried_again_and_given_up_with_8() {
    let rig = Rig::new();
    three(&rig);
    let holder = rig.spawn("sleep 1000 | $APPLY replica");
    eventually("the holder's lock", || applier(&rig).is_some());
    let ran = run(&rig, "ship -S --retry-for 500ms --via \"$VIA\" master");
    ran.fails(8, "gave up on the receiver");
    assert!(ran.err.contains("is held by process") && ran.err.contains("trying again in"), "{ran:?}");
    let other = Rig::new();
    let root = rig.root.path().display();
    let mut ship = other.spawn(&format!(
        "cd {root} && exec $SHIP -S --retry-for 1h --pattern log.%S --state state --via \"$APPLY --acks replica\" master"
    ));
    eventually("a second try", || ship.err().contains("trying again in"));
    drop(holder);
    let ran = ship.wait();
    assert_eq!(ran.code, 0, "{ran:?}");
    rig.assert_equal();
}

#[test]
fn a_command_that_cannot_be_run_is_usage_and_not_tried_again() {
    let rig = Rig::new();
    three(&rig);
    for command in ["repl-no-such-command --acks x", "/etc/passwd"] {
        let ran = run(&rig, &format!("ship --via '{command}' master"));
        ran.fails(2, "cannot be run");
        assert!(!ran.err.contains("trying again"), "{ran:?}");
    }
}

#[test]
fn a_fifo_brings_acknowledgements_back_to_a_pipeline_of_the_shell() {
    let rig = Rig::new();
    three(&rig);
    let pipeline = "ship -S --acks back master | $APPLY --acks replica >back";
    ok(&rig, &format!("mkfifo back; {pipeline}"));
    rig.assert_equal();
    rig.append("log.3", b"more");
    ok(&rig, pipeline);
    rig.assert_equal();
    // What the receiver refuses is the sender's exit code, too.
    rig.write("log.3", noise(999, 1));
    let ran = run(&rig, &format!("set +o pipefail; {pipeline}; exit ${{PIPESTATUS[0]}}"));
    ran.fails(4, "diverged");
    ok(&rig, "touch file");
    run(&rig, "ship -S --acks file master | cat >/dev/null").fails(2, "not a fifo");
    run(&rig, "set +o pipefail; ship -S --timeout 1s --heartbeat 100ms --acks back master | sleep 3 >back; exit ${PIPESTATUS[0]}")
        .fails(8, "");
}

#[test]
fn only_acknowledged_is_done_unless_no_acknowledgement_is_wanted() {
    let rig = Rig::new();
    three(&rig);
    let deaf = MUTE.replace("exec sleep 2", "true");
    ok(&rig, &format!("ship -S --ack none --via \"{deaf}\" master"));
    // One that ends without a word may have met anything: its link has failed.
    run(&rig, &format!("ship -S --retry-for 0s --via \"{deaf}\" master")).fails(8, "the receiver is gone");
    for ack in ["one", "quorum", "all", "all-available"] {
        run(&rig, &format!("ship -S --ack {ack} --ack-timeout 300ms --via \"{MUTE}\" master"))
            .fails(10, "not acknowledged in time");
    }
}

#[test]
fn a_silent_receiver_is_dead_after_the_time_out() {
    let rig = Rig::new();
    rig.write("log.1", noise(5_000_000, 1));
    let welcome = MUTE.split(';').next().unwrap();
    let quick = "--timeout 1s --heartbeat 200ms --retry-for 0s --ack-timeout 1h";
    // Takes all and says nothing; never greets; greets and takes nothing; ends at once.
    for (receiver, says) in [
        (MUTE.to_owned(), "silent"),
        ("exec sleep 1000".to_owned(), "the receiver "),
        (format!("{welcome}; exec sleep 1000"), "silent"),
        ("true".to_owned(), "gone"),
    ] {
        run(&rig, &format!("ship -S {quick} --via \"{receiver}\" master")).fails(8, says);
    }
    // Following, it is tried again.
    let ship = rig.spawn(&format!("exec $SHIP --pattern log.%S --state state {quick} --via \"{MUTE}\" master"));
    eventually("a second try", || ship.err().matches("trying again").count() >= 2);
    end(ship);
}

#[test]
fn term_ships_what_is_there_before_it_ends() {
    let rig = Rig::new();
    rig.write("log.1", noise(1_000_000, 1));
    let ship = follow(&rig, "--bwlimit 1M --heartbeat 100ms");
    eventually("first bytes", || length(rig.replica().join("log.1")) > 0);
    assert!(length(rig.replica().join("log.1")) < 1_000_000, "nothing is left to drain");
    end(ship);
    rig.assert_equal();
}

#[test]
fn the_log_directory_is_only_read() {
    let rig = Rig::new();
    three(&rig);
    let stats = || -> Vec<_> {
        let stat =
            |path: &Path| fs::metadata(path).map(|meta| (meta.mtime_nsec(), meta.ctime_nsec(), meta.ino())).unwrap();
        let mut all = vec![stat(&rig.master())];
        all.extend(["log.1", "log.2", "log.3"].map(|name| stat(&rig.master().join(name))));
        all
    };
    let before = stats();
    ok(
        &rig,
        "strace -ff -y -o trace -e trace=openat,openat2,open,creat,rename,renameat,renameat2,unlink,unlinkat,mkdirat,linkat,symlinkat,ftruncate,\
         fchmodat,utimensat,flock,fcntl $SHIP -S --pattern log.%S --state state --via \"$APPLY --acks replica\" master",
    );
    assert_eq!(stats(), before);
    // A file for each thread, so that no line is in two pieces.
    let trace = rig.ok("cat trace.*");
    let master = rig.master().display().to_string();
    let ours = trace.lines().filter(|line| line.contains(&master) || line.contains("\"master"));
    let (mut opened, harmless) = (0, ["O_RDONLY", "F_GETFL", "F_GETFD", "F_DUPFD", "F_SETFD"]);
    for line in ours {
        opened += usize::from(line.contains("log."));
        assert!(harmless.iter().any(|word| line.contains(word)), "{line}");
        for word in ["O_CREAT", "O_TRUNC", "O_WRONLY", "O_RDWR", "O_APPEND"] {
            assert!(!line.contains(word), "{line}");
        }
    }
    assert!(opened >= 3, "the trace does not show the segments: {trace}");
}

#[test]
fn narration_says_what_was_found_and_how_current_it_is() {
    let rig = Rig::new();
    rig.write("fw-1-1", noise(40_960, 1));
    let ship = "$SHIP -v -S --state state --via \"$APPLY --acks replica\" master";
    rig.ok(ship);
    rig.append("fw-1-1", noise(100, 2));
    rig.write("fw-1-2", noise(10, 3));
    rig.ok("TZ=UTC touch -d '2026-04-18 18:54:17' master/fw-1-1 master/fw-1-2");
    let ran = rig.run(ship);
    let said: Vec<_> = ran.err.lines().filter(|line| !line.contains(" bytes of ")).collect();
    assert_eq!(
        said,
        [
            "repl-ship: found synchronization point 1-1:40960",
            "repl-ship: processing 1-1",
            "repl-ship: processing 1-2",
            "repl-ship: up to date until 2026-04-18 18:54:17",
        ],
        "{ran:?}"
    );
    rig.append("fw-1-2", b"x");
    let ran = rig.run(&ship.replace("-v ", ""));
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "silent on success");
}

#[test]
fn a_segment_that_shrinks_is_replaced_rewritten_or_removed_ends_the_stream() {
    for (what, says) in [
        ("truncate -s 100 master/log.3", "shrank to 100 bytes, 200 were shipped"),
        ("cp master/log.3 other; mv other master/log.3", "was replaced by another file"),
        ("printf X | dd of=master/log.3 conv=notrunc status=none", "was rewritten"),
        ("rm master/log.3", "was removed while it was shipped"),
    ] {
        let rig = Rig::new();
        three(&rig);
        let mut ship = follow(&rig, "-v --poll 20ms");
        eventually("idle", || ship.err().contains("up to date"));
        rig.ok(what);
        let ran = ship.wait();
        ran.fails(if what.starts_with("rm") { 3 } else { 6 }, says);
        assert_eq!(fs::read(rig.replica().join("log.3")).unwrap(), noise(200, 200), "{what}");
    }
}

#[test]
fn a_segment_that_vanishes_before_it_was_shipped_is_a_gap() {
    let rig = Rig::new();
    three(&rig);
    let mut ship = follow(&rig, "-v --poll 20ms");
    eventually("idle", || ship.err().contains("up to date"));
    rig.write("log.5", b"x");
    ship.wait().fails(3, "segment 1-5 comes after 1-3");
    assert_eq!(names(&rig), ["log.1", "log.2", "log.3"]);
}

#[test]
fn holes_beyond_4_gib_stay_holes_and_cost_no_bandwidth() {
    const END: u64 = (5 << 30) + 12_345;
    let rig = Rig::new();
    let file = fs::File::create(rig.master().join("log.1")).unwrap();
    file.set_len(END).unwrap();
    file.write_all_at(b"begin", 0).unwrap();
    file.write_all_at(&noise(10_000, 1), (4 << 30) - 5_000).unwrap();
    file.write_all_at(b"end", END - 3).unwrap();
    rig.write("log.2", b"x");
    ok(&rig, "ship -S --compress none master | tee stream | $APPLY replica");
    assert!(length(rig.path("stream")) < END / 1000, "{}", length(rig.path("stream")));
    let copy = fs::metadata(rig.replica().join("log.1")).unwrap();
    assert_eq!(copy.len(), END);
    assert!(copy.blocks() * 512 < 1 << 20, "{} blocks", copy.blocks());
    let copy = fs::File::open(rig.replica().join("log.1")).unwrap();
    let mut middle = vec![0; 10_000];
    copy.read_exact_at(&mut middle, (4 << 30) - 5_000).unwrap();
    assert_eq!(middle, noise(10_000, 1));
    let sums = fs::read_to_string(rig.replica().join(".repl/B3SUMS")).unwrap();
    assert_eq!(sums.lines().count(), 1, "{sums}");
}

#[test]
fn a_directory_of_many_segments_is_no_burden() {
    let count: u64 = std::env::var("REPL_TEST_SEGMENTS").map_or(20_000, |count| count.parse().unwrap());
    let rig = Rig::new();
    for sequence in 1..=count {
        rig.write(&format!("log.{sequence}"), sequence.to_le_bytes());
    }
    ok(&rig, "ulimit -v 400000; ship -S --no-sync-source --from oldest master >stream");
    assert!(length(rig.path("stream")) > count * 100, "{}", length(rig.path("stream")));
    ok(&rig, &format!("ship -S --from 1-{count}:8 master >stream"));
    assert!(length(rig.path("stream")) < 2000, "{}", length(rig.path("stream")));
}

#[test]
fn names_that_are_no_text_and_files_of_others_are_passed_over() {
    let rig = Rig::new();
    three(&rig);
    let odd = rig.master().join(std::ffi::OsStr::from_bytes(b"log.\xff\xfe"));
    fs::write(&odd, b"x").unwrap();
    fs::write(rig.master().join("log.2.bak\n"), b"x").unwrap();
    fs::create_dir(rig.master().join("directory")).unwrap();
    ok(&rig, "ship -S --via \"$VIA\" master");
    assert_eq!(names(&rig), ["log.1", "log.2", "log.3"]);
}

#[test]
fn generations_follow_each_other_by_number_and_a_change_is_told() {
    let rig = Rig::new();
    for (seed, name) in ["fw-1-1", "fw-1-2", "fw-2-1", "fw-12-1", "fw-12-2"].iter().enumerate() {
        rig.write(name, noise(100, seed as u64));
    }
    let ran = rig.pass("-v --state state", "");
    assert_eq!(ran.code, 0, "{ran:?}");
    let order: Vec<_> = ran.err.lines().filter_map(|line| line.strip_prefix("repl-ship: processing ")).collect();
    assert_eq!(order, ["1-1", "1-2", "2-1", "12-1", "12-2"]);
    rig.assert_equal();
    // While it is followed.
    let ship = rig.spawn("exec $SHIP --state state --via \"$APPLY --acks replica\" master");
    rig.append("fw-12-2", b"more");
    arrives(&rig, "fw-12-2", 104);
    rig.write("fw-13-1", noise(50, 9));
    arrives(&rig, "fw-13-1", 50);
    let ran = end(ship);
    assert!(ran.err.contains("generation 12 ends with segment 12-2, the log goes on with 13-1"), "{ran:?}");
    rig.assert_equal();
}

#[test]
fn a_burst_is_not_lost_to_one_who_removes_what_was_shipped() {
    const SEGMENTS: u64 = 48;
    let rig = Rig::new();
    rig.write("log.1", noise(1000, 1));
    let ship = follow(&rig, "");
    arrives(&rig, "log.1", 1000);
    let sums = rig.replica().join(".repl/B3SUMS");
    let closed = || fs::read_to_string(&sums).unwrap_or_default().lines().count() as u64;
    std::thread::scope(|scope| {
        let remover = scope.spawn(|| {
            let mut removed = 0;
            eventually("all closed", || {
                while removed < closed() {
                    removed += 1;
                    fs::remove_file(rig.master().join(format!("log.{removed}"))).unwrap();
                }
                removed == SEGMENTS
            });
        });
        for sequence in 2..=SEGMENTS + 1 {
            rig.write(&format!("log.{sequence}"), noise(3 << 20, sequence));
        }
        remover.join().unwrap();
    });
    end(ship);
    for sequence in 2..=SEGMENTS + 1 {
        let bytes = fs::read(rig.replica().join(format!("log.{sequence}"))).unwrap();
        assert!(bytes == noise(3 << 20, sequence), "log.{sequence} differs");
    }
    assert_eq!(segments(&rig.master()).len(), 1);
}

#[test]
fn a_heartbeat_in_the_middle_of_a_repetition_is_not_ahead() {
    let rig = Rig::new();
    rig.write("log.1", noise(400_000, 1));
    ok(&rig, "ship -S --via \"$VIA\" master");
    ok(&rig, "ship -S --from oldest --compress none --bwlimit 400K --heartbeat 10ms master | $APPLY replica");
    rig.assert_equal();
}

#[test]
fn a_replica_is_shipped_on_as_far_as_it_is_proven() {
    let rig = Rig::new();
    three(&rig);
    ok(&rig, "ship -S --via \"$VIA\" master");
    // A crash may leave bytes that no position speaks of.
    fs::OpenOptions::new()
        .append(true)
        .open(rig.replica().join("log.3"))
        .and_then(|file| file.write_at(b"junk", 200))
        .unwrap();
    fs::write(rig.replica().join("log.4"), b"junk").unwrap();
    let on = "$SHIP -S --state state2 --via \"$APPLY --acks second\" replica";
    ok(&rig, on);
    assert_eq!(segments(&rig.path("second")), segments(&rig.master()));
    let third = "$SHIP -S --state state3 --from latest replica | $APPLY third";
    ok(&rig, third);
    assert_eq!(segments(&rig.path("third")).into_keys().collect::<Vec<_>>(), ["log.3"]);
}

#[test]
fn a_log_in_which_a_receiver_was_started_by_mistake_is_not_passed_over_in_silence() {
    let rig = Rig::new();
    three(&rig);
    assert_eq!(rig.run("$APPLY master </dev/null").code, 8);
    run(&rig, "ship -S --via \"$VIA\" master").fails(1, "holds nothing");
    run(&rig, "ship -S master >stream").fails(1, "holds nothing");
    fs::remove_dir_all(rig.master().join(".repl")).unwrap();
    ok(&rig, "ship -S --via \"$VIA\" master");
    rig.assert_equal();
}

#[test]
fn a_cascade_that_starts_before_its_replica_ships_only_what_is_proven() {
    let (rig, other) = (Rig::new(), Rig::new());
    fs::create_dir(rig.replica()).unwrap();
    let (replica, second) = (rig.replica(), rig.path("second"));
    let cascade = other.spawn(&format!(
        "exec $SHIP --pattern log.%S --state state --poll 20ms --via \"$APPLY --acks {}\" {}",
        second.display(),
        replica.display()
    ));
    eventually("the second receiver", || second.join(".repl/lock").exists());
    three(&rig);
    let ship = follow(&rig, "");
    arrives(&rig, "log.3", 200);
    eventually("all at the second", || length(second.join("log.3")) == 200);
    fs::OpenOptions::new()
        .append(true)
        .open(replica.join("log.3"))
        .and_then(|file| file.write_at(b"junk", 200))
        .unwrap();
    rig.append("log.3", b"");
    end(ship);
    end(cascade);
    assert_eq!(segments(&second), segments(&rig.master()));
}
