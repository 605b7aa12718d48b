//! A machine that fails under repl-apply: every write, sync, rename and truncation fails once, at each place where one
//! happens. Each time: an exit code that says so, no acknowledgement of what is not there, and a rerun that repairs.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::craft::{Stream, acked, apply_to, bookmark, feed, position};
use repl::value::position::Position;

use super::rig::{APPLY, Rig, eventually};

/// A stream, and what is there once it has been taken: files, what is held.
struct Stage {
    stream: Stream,
    files: &'static [(&'static str, &'static [u8])],
    held: String,
}

/// The first attach, more of the log, and a divergence in the middle of it.
fn stages() -> [Stage; 3] {
    let first = Stream::new().segment(1, b"aaaa").begin(2).data(b"bb").bye().clone();
    let mut second = Stream::new();
    second.begin_after(2, b"bb").data(b"BB").mark(7).hole(4).end().begin(3).data(b"cc").data(b"cc").bye();
    let third = Stream::new().begin(2).data(b"bbX").end().begin(3).data(b"dddd").bye().clone();
    [
        Stage { stream: first, files: &[("log.1", b"aaaa"), ("log.2", b"bb")], held: bookmark(2, b"bb") },
        Stage {
            stream: second,
            files: &[("log.1", b"aaaa"), ("log.2", b"bbBB\0\0\0\0"), ("log.3", b"cccc")],
            held: bookmark(3, b"cccc"),
        },
        Stage {
            stream: third,
            files: &[("log.1", b"aaaa"), ("log.2", b"bbX"), ("log.3", b"dddd")],
            held: bookmark(3, b"dddd"),
        },
    ]
}

#[track_caller]
fn holds(directory: &Path, stage: &Stage, what: &str) {
    for (name, bytes) in stage.files {
        assert_eq!(&fs::read(directory.join(name)).unwrap(), bytes, "{name}: {what}");
    }
    assert_eq!(position(directory), stage.held, "{what}");
    let sums = fs::read_to_string(directory.join(".repl/B3SUMS")).unwrap();
    assert_eq!(sums.lines().count(), stage.files.len() - 1, "{what}");
    let check = Command::new("b3sum").args(["--quiet", "--check", ".repl/B3SUMS"]).current_dir(directory).output();
    assert!(check.unwrap().status.success(), "{what}");
}

/// In each stage one call fails once; returns false when none has so many calls.
fn fails_once(root: &Path, call: &str, error: &str, when: usize) -> bool {
    let directory = root.join(format!("{call}-{error}-{when}"));
    let trace = directory.with_extension("trace");
    let mut is_anywhere = false;
    for (number, stage) in stages().iter().enumerate() {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o"]).arg(&trace).args(["-e", &format!("trace={call}")]);
        command.args(["-e", &format!("inject={call}:error={error}:when={when}"), APPLY]);
        command.args(["--acks", "--sync", "each", "--set-aside"]).arg(&directory);
        let ran = feed(command, &stage.stream.bytes);
        let what = format!("{call} {when} fails with {error} in stage {number}: {ran:?}");
        let is_injected = fs::read_to_string(&trace).unwrap().contains("(INJECTED)");
        is_anywhere |= is_injected;
        if ran.code == 0 {
            // Nothing failed, or a courtesy.
            holds(&directory, stage, &what);
            continue;
        }
        assert!(is_injected, "{what}");
        assert_eq!(ran.code, if error == "ENOSPC" { 12 } else { 1 }, "{what}");
        // What was acknowledged last is held.
        if let Some(flushed) = acked(&ran, "flushed") {
            let held = position(&directory);
            let [flushed, held]: [Position; 2] =
                [&flushed, held.split('+').next().unwrap()].map(|at| at.parse().unwrap());
            assert!(flushed <= held, "{what}, held {held}");
        }
        let again = apply_to(&directory, &["--set-aside"], &stage.stream.bytes);
        assert_eq!(again.code, 0, "again, {what}: {again:?}");
        holds(&directory, stage, &what);
    }
    let litter = Command::new("find").arg(&directory).args(["-name", "*.new"]).output().unwrap();
    assert!(litter.stdout.is_empty(), "{litter:?}");
    fs::remove_dir_all(directory).unwrap();
    is_anywhere
}

#[test]
fn every_call_that_fails_once_is_told_and_repaired_by_a_rerun() {
    let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    let calls = ["fdatasync", "fsync", "pwrite64", "ftruncate", "renameat", "renameat2", "mkdirat", "copy_file_range"];
    let plans: Vec<_> = calls.iter().flat_map(|call| [(*call, "EIO"), (*call, "ENOSPC")]).collect();
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while let Some((call, error)) = plans.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let count = (1..100).take_while(|when| fails_once(root.path(), call, error, *when)).count();
                    assert!(count < 99, "{call}");
                }
            });
        }
    });
}

#[test]
fn a_request_to_end_is_an_orderly_end() {
    use std::io::Write as _;
    let rig = Rig::new();
    rig.ok("mkfifo in");
    let mut apply = rig.spawn("exec $APPLY --acks replica < in");
    let mut input = fs::OpenOptions::new().write(true).open(rig.path("in")).unwrap();
    input.write_all(&Stream::new().begin(1).data(b"abc").bytes).unwrap();
    eventually("the bytes", || position(&rig.replica()) == bookmark(1, b"abc"));
    apply.signal(rustix::process::Signal::TERM);
    let ran = apply.wait();
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(acked(&ran, "flushed").as_deref(), Some("1-1:3"));
}

/// As a live server may do with an old file, under the name of a segment that was made here meanwhile.
#[test]
fn what_was_written_to_a_file_that_has_lost_its_name_is_not_acknowledged() {
    use std::io::Write as _;
    let rig = Rig::new();
    rig.ok("mkfifo in");
    let mut apply = rig.spawn("exec $APPLY --acks replica < in");
    let mut input = fs::OpenOptions::new().write(true).open(rig.path("in")).unwrap();
    let mut stream = Stream::new();
    stream.begin(1).data(b"abc");
    input.write_all(&stream.bytes).unwrap();
    eventually("the bytes", || position(&rig.replica()) == bookmark(1, b"abc"));
    rig.ok("cp replica/log.1 other && mv other replica/log.1");
    let before = stream.bytes.len();
    stream.data(b"def");
    input.write_all(&stream.bytes[before..]).unwrap();
    drop(input);
    let ran = apply.wait();
    ran.fails(8, "another file");
    assert_eq!(acked(&ran, "flushed").as_deref(), Some("1-1:3"));
    assert_eq!(position(&rig.replica()), bookmark(1, b"abc"));
    // The next one finds the file as it is.
    fs::write(rig.path("whole"), &stream.end().bye().bytes).unwrap();
    rig.ok("$APPLY --acks replica < whole");
    assert_eq!(fs::read(rig.replica().join("log.1")).unwrap(), b"abcdef");
}
