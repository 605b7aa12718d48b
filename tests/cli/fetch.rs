//! `repl-fetch`: what is handed out is whole and right, 1 is said only where there is no such segment, all else is 126,
//! and the destination is never anything between what it was and what it is to be.

use std::fs;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command;

use super::craft::{Stream, apply_to};
use super::rig::{FETCH, Rig, eventually, noise, segments};

/// An archive of four plain segments: three closed, one open.
fn archive() -> Rig {
    let rig = Rig::new();
    for sequence in 1..=4 {
        rig.write(&format!("log.{sequence}"), noise(5000, sequence));
    }
    assert_eq!(rig.pass("--pattern log.%S", "--logs-only").code, 0);
    rig
}

fn flip(path: std::path::PathBuf, offset: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

fn cut(path: std::path::PathBuf, length: u64) {
    fs::OpenOptions::new().write(true).open(path).unwrap().set_len(length).unwrap();
}

/// Changes one line of a state file.
fn edit(rig: &Rig, name: &str, change: impl Fn(&str) -> String) {
    let path = rig.replica().join(".repl").join(name);
    fs::write(&path, change(&fs::read_to_string(&path).unwrap())).unwrap();
}

/// Names in a directory, hidden ones too.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_segment_is_handed_out_whole_and_in_silence() {
    let rig = archive();
    fs::create_dir(rig.path("pg_wal")).unwrap();
    let before = (segments(&rig.replica()), segments(&rig.replica().join(".repl")));
    for sequence in 1..=4 {
        let ran = rig.run(&format!("$FETCH replica log.{sequence} pg_wal/RECOVERYXLOG"));
        assert_eq!((ran.code, ran.out.as_str(), ran.err.as_str()), (0, "", ""));
        assert!(fs::read(rig.path("pg_wal/RECOVERYXLOG")).unwrap() == noise(5000, sequence), "{sequence}");
    }
    assert_eq!(names(&rig.path("pg_wal")), ["RECOVERYXLOG"]);
    assert_eq!(before, (segments(&rig.replica()), segments(&rig.replica().join(".repl"))));
    // Absolute, and into the working directory; a running receiver's lock is not asked for.
    rig.ok("flock replica $FETCH \"$PWD/replica\" log.1 \"$PWD/one\" && cmp one master/log.1");
    rig.ok("cd pg_wal && $FETCH ../replica log.2 two && cmp two ../master/log.2");
    let said = rig.run("$FETCH -v replica log.4 two");
    assert_eq!(said.err, "repl-fetch: log.4 is open, 5000 bytes are held\n");
}

#[test]
fn the_file_is_private_or_as_the_umask_says() {
    let rig = archive();
    rig.ok(
        "umask 077; $FETCH replica log.1 one; umask 027; $FETCH replica log.1 two; umask 0; $FETCH replica log.1 three",
    );
    let mode = |name: &str| fs::metadata(rig.path(name)).unwrap().mode() & 0o7777;
    assert_eq!(["one", "two", "three"].map(mode), [0o600, 0o640, 0o640]);
}

#[test]
fn what_was_there_is_replaced_and_never_written_through() {
    let rig = archive();
    rig.ok("echo old > a; ln a b; $FETCH replica log.1 a && cmp a master/log.1 && grep -q old b");
    rig.ok("ln -s b c; $FETCH replica log.1 c && test ! -L c && cmp c master/log.1 && grep -q old b");
}

#[test]
fn the_open_segment_is_given_up_to_what_is_held_and_grows() {
    let rig = Rig::new();
    let mut stream = Stream::new();
    stream.segment(1, b"aaaa").begin(2).data(b"bb").bye();
    apply_to(&rig.replica(), &[], &stream.bytes);
    // Behind what is held lies what a crash, or a batch that is just being landed, left there.
    let mut open = fs::read(rig.path("replica/log.2")).unwrap();
    open.extend(b"XXXX");
    fs::write(rig.path("replica/log.2"), open).unwrap();
    rig.ok("$FETCH replica log.2 out");
    assert_eq!(fs::read(rig.path("out")).unwrap(), b"bb");
    rig.run("$FETCH --closed replica log.2 closed").fails(1, "log.2 is not closed: 1-2:2 is held");
    rig.ok("$FETCH --closed replica log.1 closed && cmp closed replica/log.1");

    cut(rig.path("replica/log.2"), 2);
    let mut more = Stream::new();
    more.begin_after(2, b"bb").data(b"BB").bye();
    assert_eq!(apply_to(&rig.replica(), &[], &more.bytes).code, 0);
    rig.ok("$FETCH replica log.2 out");
    assert_eq!(fs::read(rig.path("out")).unwrap(), b"bbBB");
}

#[test]
fn a_segment_that_was_only_begun_is_not_there() {
    let rig = Rig::new();
    assert_eq!(apply_to(&rig.replica(), &[], &Stream::new().segment(1, b"aaaa").begin(2).bye().bytes).code, 0);
    rig.run("$FETCH replica log.2 out").fails(1, "log.2 is not");
    assert_eq!(apply_to(&rig.path("other"), &[], &Stream::new().begin(1).bye().bytes).code, 0);
    rig.run("$FETCH other log.1 out").fails(1, "log.1 is not");
    assert!(!rig.path("out").exists());
}

#[test]
fn where_the_log_ends_is_1_and_nothing_is_made() {
    let rig = archive();
    fs::write(rig.path("replica/log.5"), "not held: a crash left it").unwrap();
    for name in ["log.5", "log.6", "log.18446744073709551615"] {
        rig.run(&format!("$FETCH replica {name} out"))
            .fails(1, &format!("{name} is not there: what is held ends at 1-4:5000"));
        assert_eq!(rig.run(&format!("$FETCH -q replica {name} out")).err, "");
    }
    rig.run("$FETCH --closed replica log.4 out").fails(1, "log.4 is not closed");
    assert!(!rig.path("out").exists());

    let rig = Rig::new();
    for name in ["fw-1-1", "fw-1-2", "fw-2-1"] {
        rig.write(name, name);
    }
    assert_eq!(rig.pass("", "--logs-only").code, 0);
    rig.ok("$FETCH replica fw-1-2 out && $FETCH replica fw-2-1 out && cmp out master/fw-2-1");
    rig.run("$FETCH replica fw-1-3 none").fails(1, "fw-1-3 is not there: the log goes on with 2-1 instead");
    rig.run("$FETCH replica fw-3-1 none").fails(1, "ends at 2-1:6");
}

#[test]
fn every_damage_is_126_and_leaves_the_destination_alone() {
    type Damage = fn(&Rig);
    let matrix: [(&str, &str, &str, Damage); 19] = [
        ("a closed one flipped", "log.2", "log.2 has digest", |rig| flip(rig.path("replica/log.2"), 4999)),
        ("a closed one short", "log.2", "log.2 has digest", |rig| cut(rig.path("replica/log.2"), 4999)),
        ("a closed one long", "log.2", "log.2 has digest", |rig| cut(rig.path("replica/log.2"), 5001)),
        ("a closed one empty", "log.2", "log.2 has digest", |rig| cut(rig.path("replica/log.2"), 0)),
        ("two swapped", "log.2", "log.2 has digest", |rig| {
            rig.ok("cd replica && mv log.1 x && mv log.2 log.1 && mv x log.2");
        }),
        ("a closed one missing", "log.2", "log.2 is missing; it is recorded as held", |rig| {
            fs::remove_file(rig.path("replica/log.2")).unwrap();
        }),
        ("a link", "log.2", "log.2 is a symbolic link", |rig| {
            rig.ok("cd replica && mv log.2 ../x && ln -s ../x log.2");
        }),
        ("a directory", "log.2", "log.2 is a directory", |rig| {
            rig.ok("cd replica && rm log.2 && mkdir log.2");
        }),
        ("the open one flipped", "log.4", "log.4 has digest", |rig| flip(rig.path("replica/log.4"), 0)),
        ("the open one short", "log.4", "log.4 has 4999 bytes, 5000 are held", |rig| {
            cut(rig.path("replica/log.4"), 4999);
        }),
        ("the open one missing", "log.4", "log.4 is missing", |rig| {
            fs::remove_file(rig.path("replica/log.4")).unwrap();
        }),
        ("a line missing", "log.2", "log.2 is missing: 1-2 comes before 1-3", |rig| {
            edit(rig, "B3SUMS", |text| {
                text.lines().filter(|line| !line.ends_with("log.2")).map(|line| format!("{line}\n")).collect()
            });
        }),
        ("the first lines missing", "log.1", "the archive begins with 1-3", |rig| {
            edit(rig, "B3SUMS", |text| text.lines().skip(2).map(|line| format!("{line}\n")).collect());
        }),
        ("another digest", "log.2", "its record says", |rig| {
            edit(rig, "B3SUMS", |text| text.replace("  log.2", "  log.9").replace("  log.3", "  log.2"));
        }),
        ("its line is none", "log.2", "B3SUMS is damaged", |rig| {
            edit(rig, "B3SUMS", |text| text.replace("  log.2", " log.2"));
        }),
        ("no manifest", "log.1", "log.1 is not held: the archive begins with 1-4", |rig| {
            fs::remove_file(rig.path("replica/.repl/B3SUMS")).unwrap();
        }),
        ("no position", "log.9", "position is gone", |rig| {
            fs::remove_file(rig.path("replica/.repl/position")).unwrap();
        }),
        ("an empty position", "log.9", "replica/.repl/position is damaged", |rig| {
            fs::write(rig.path("replica/.repl/position"), "").unwrap();
        }),
        ("a damaged position", "log.9", "replica/.repl/position ", |rig| {
            edit(rig, "position", |text| text.replace("at=1", "at=2"));
        }),
    ];
    for (what, name, says, damage) in matrix {
        let rig = archive();
        damage(&rig);
        fs::create_dir(rig.path("to")).unwrap();
        rig.run(&format!("$FETCH replica {name} to/out")).fails(126, says);
        assert!(names(&rig.path("to")).is_empty(), "{what}");
        fs::write(rig.path("to/out"), "old").unwrap();
        rig.run(&format!("$FETCH -q replica {name} to/out")).fails(126, says);
        assert_eq!(fs::read_to_string(rig.path("to/out")).unwrap(), "old", "{what}");
        assert_eq!(names(&rig.path("to")), ["out"], "{what}");
    }
}

#[test]
fn what_lies_beside_the_damage_is_handed_out() {
    let rig = archive();
    flip(rig.path("replica/log.2"), 17);
    rig.ok("$FETCH replica log.1 out && cmp out master/log.1 && $FETCH replica log.3 out && cmp out master/log.3");
}

#[test]
fn an_archive_that_is_not_there_is_126() {
    let rig = archive();
    fs::create_dir(rig.path("empty")).unwrap();
    rig.run("$FETCH nowhere log.1 out").fails(126, "cannot open nowhere");
    rig.run("$FETCH '' log.1 out").fails(126, "a value is required");
    rig.run("$FETCH empty log.1 out").fails(126, "empty/ is not an archive");
    rig.run("$FETCH master log.1 out").fails(126, "master/ is not an archive");
    rig.run("$FETCH replica/log.1 log.1 out").fails(126, "cannot open replica/log.1");
    // A receiver that was started and never got anything.
    rig.run("$APPLY waiting < /dev/null").fails(8, "");
    rig.run("$FETCH waiting log.1 out").fails(126, "waiting/ is not an archive");
    rig.run("$FETCH --state nowhere replica log.1 out").fails(126, "is not an archive");
    rig.ok("mv replica/.repl elsewhere && $FETCH --state elsewhere replica log.1 out && cmp out master/log.1");
}

#[test]
fn a_name_is_read_as_numbers_and_never_as_a_path() {
    let rig = archive();
    fs::write(rig.path("log.1"), "outside").unwrap();
    for name in [
        "../log.1",
        "./log.1",
        "/etc/passwd",
        ".repl/position",
        "",
        ".",
        "..",
        "log.01",
        "log.1 ",
        "LOG.1",
        "DB_CONFIG",
    ] {
        rig.run(&format!("$FETCH replica '{name}' out")).fails(126, "is not a name of engine plain");
    }
    rig.run("$FETCH replica $'log.\\xff' out").fails(126, "'log.\\xff' is not a name");
    assert!(!rig.path("out").exists());
}

#[test]
fn a_destination_that_cannot_be_is_126() {
    let rig = archive();
    fs::create_dir(rig.path("directory")).unwrap();
    rig.run("$FETCH replica log.1 no/such/out").fails(126, "cannot open no/such");
    rig.run("$FETCH replica log.1 directory").fails(126, "cannot write directory");
    rig.run("$FETCH replica log.1 directory/").fails(126, "does not name a file");
    rig.run("$FETCH replica log.1 ''").fails(126, "a value is required");
    rig.run("$FETCH replica log.1 replica/log.2").fails(126, "is in the archive, which is only read");
    rig.run("$FETCH replica log.1 directory/../replica/.repl/lock").fails(126, "is in the archive");
    rig.run("ulimit -f 1; trap '' XFSZ; $FETCH replica log.1 out").fails(126, "cannot write out");
    assert!(names(&rig.path("directory")).is_empty());
    assert_eq!(names(rig.root.path()), ["directory", "master", "replica"]);
    rig.run("cd / && $FETCH \"$OLDPWD/replica\" log.1 /proc/out").fails(126, "cannot write /proc/out");
}

#[test]
fn wrong_use_is_126_and_help_is_0() {
    let rig = archive();
    for wrong in [
        "",
        "replica",
        "replica log.1",
        "replica log.1 out more",
        "--no-such replica log.1 out",
        "-q -v replica log.1 out",
        "--state",
    ] {
        rig.run(&format!("$FETCH {wrong}")).fails(126, "try '--help'");
    }
    assert!(rig.ok("$FETCH --help").contains("recovery"));
    assert!(rig.ok("$FETCH --version").starts_with("repl-fetch "));
    assert!(rig.ok("$FETCH --completions bash").contains("repl-fetch"));
    assert!(!rig.path("out").exists());
    // A terminal that is gone changes no exit code.
    assert_eq!(rig.run("$FETCH replica log.9 out 2>&-").code, 1);
    assert_eq!(rig.run("$FETCH replica log.0 out 2>/dev/full").code, 126);
    assert_eq!(rig.run("$FETCH --no-such 2>&-").code, 126);
}

#[test]
fn a_small_file_is_handed_out_when_both_copies_are_equal() {
    let rig = Rig::new();
    rig.write("DB_CONFIG", "log_set_config DB_LOG_AUTO_REMOVE off\n");
    crate::made_by_berkeley_db(&rig, 2000);
    assert_eq!(rig.pass("", "--logs-only").code, 0);
    rig.ok("$FETCH replica DB_CONFIG out && cmp out master/DB_CONFIG");
    rig.ok("rm replica/DB_CONFIG && $FETCH replica DB_CONFIG again && cmp again master/DB_CONFIG");
    fs::write(rig.path("replica/DB_CONFIG"), "changed").unwrap();
    rig.run("$FETCH replica DB_CONFIG changed").fails(126, "DB_CONFIG is not what was received");
    rig.ok("rm replica/DB_CONFIG replica/.repl/aux/DB_CONFIG");
    rig.run("$FETCH replica DB_CONFIG none").fails(1, "DB_CONFIG is not there");
    assert!(!rig.path("none").exists() && !rig.path("changed").exists());
    rig.ok("for log in replica/log.*; do $FETCH replica ${log#*/} out && cmp out $log || exit; done");
}

/// Runs it under strace with a fault; false when the call that was to fail does not come so often.
fn with_fault(rig: &Rig, fault: &str, call: &str, when: usize) -> Option<i32> {
    let script = format!(
        "strace -f -qq -o trace -e trace={call} -e inject={call}:{fault}:when={when} $FETCH replica log.2 to/out; exit $?"
    );
    let ran = rig.run(&script);
    let trace = fs::read_to_string(rig.path("trace")).unwrap();
    ["(INJECTED)", "killed by SIGKILL"].iter().any(|sign| trace.contains(sign)).then_some(ran.code)
}

#[test]
fn killed_or_failing_at_any_call_it_leaves_the_old_file_or_the_new_one() {
    let rig = archive();
    fs::create_dir(rig.path("to")).unwrap();
    let out = rig.path("to/out");
    let calls = "openat,flock,ftruncate,read,pread64,pwrite64,fsync,renameat,unlinkat".split(',');
    for (call, fault) in calls.flat_map(|call| [(call, "signal=KILL"), (call, "error=EIO"), (call, "error=ENOSPC")]) {
        let mut count = 0;
        for when in 1..100 {
            fs::write(&out, "old").unwrap();
            let Some(code) = with_fault(&rig, fault, call, when) else {
                break;
            };
            count += 1;
            let what = format!("{call} {when}, {fault}: {code}");
            let now = fs::read(&out).unwrap();
            let is_new = now == noise(5000, 2);
            assert!(is_new || now == b"old", "{what}");
            // Never that there is no such segment. 127 is the loader's, before our first instruction.
            let expected: &[i32] = if fault == "signal=KILL" { &[137] } else { &[126, 127] };
            assert!(expected.contains(&code) || (code == 0 && is_new), "{what}");
            rig.ok("$FETCH replica log.2 to/out");
            assert!(fs::read(&out).unwrap() == noise(5000, 2), "{what}");
            assert_eq!(names(&rig.path("to")), ["out"], "{what}");
        }
        // Nothing is removed where all goes well.
        assert!(count > 0 || call == "unlinkat", "{call} never came");
    }
}

#[test]
fn it_is_on_stable_storage_before_it_has_its_name_and_the_name_is_before_the_end() {
    let rig = archive();
    rig.ok("strace -f -y -o trace -e trace=pwrite64,fsync,renameat $FETCH replica log.1 \"$PWD/out\"");
    let trace = fs::read_to_string(rig.path("trace")).unwrap();
    let calls: Vec<_> = trace.lines().filter_map(|line| line.split_once(' ')?.1.trim().split_once('(')).collect();
    let steps: Vec<_> = calls.iter().map(|(call, rest)| (*call, rest.contains("/.out.draft>"))).collect();
    assert_eq!(steps, [("pwrite64", true), ("fsync", true), ("renameat", false), ("fsync", false)], "{trace}");
}

#[test]
fn while_log_is_landing_each_answer_is_a_prefix_and_none_is_shorter_than_the_one_before() {
    let rig = Rig::new();
    rig.write("log.1", "");
    let _ship = rig.spawn("exec $SHIP --pattern log.%S --poll 10ms --via '$APPLY --acks --logs-only replica' master");
    let mut length = 0;
    for round in 0..60 {
        rig.append("log.1", noise(20_000, round));
        // The first answer may be that nothing is held yet.
        let ran = rig.run("$FETCH replica log.1 out");
        assert!(ran.code == 0 || length == 0, "{ran:?}");
        let Ok(got) = fs::read(rig.path("out")) else {
            continue;
        };
        assert!(got.len() >= length, "{} after {length}", got.len());
        assert!(fs::read(rig.path("master/log.1")).unwrap().starts_with(&got));
        length = got.len();
    }
    let whole = fs::read(rig.path("master/log.1")).unwrap();
    eventually("the whole segment", || {
        rig.run("$FETCH replica log.1 out").code == 0 && fs::read(rig.path("out")).unwrap() == whole
    });
}

#[test]
fn two_for_one_destination_come_one_after_the_other() {
    let rig = Rig::new();
    let sizes = [3_000_000, 4_000_000];
    rig.write("log.1", noise(sizes[0], 1));
    rig.write("log.2", noise(sizes[1], 2));
    assert_eq!(rig.pass("--pattern log.%S", "--logs-only").code, 0);
    for _ in 0..20 {
        rig.ok("$FETCH replica log.1 out & $FETCH replica log.2 out; two=$?; wait $! && exit $two");
        let got = fs::read(rig.path("out")).unwrap();
        let which = sizes.iter().position(|size| *size == got.len()).expect("a length of neither");
        assert!(got == noise(sizes[which], which as u64 + 1));
        assert_eq!(names(rig.root.path()), ["master", "out", "replica"]);
    }
}

#[test]
fn a_long_manifest_is_read_to_its_end() {
    let rig = archive();
    edit(&rig, "B3SUMS", |text| {
        // Not held, since position ends before: what a crash may leave behind the lines that count.
        let more = (5..20_000).map(|at| format!("{}  log.{at}\n", blake3::hash(b"x")));
        text.to_owned() + &more.collect::<String>()
    });
    rig.ok("$FETCH replica log.3 out && cmp out master/log.3 && $FETCH replica log.4 out && cmp out master/log.4");
    assert_eq!(rig.run("$FETCH replica log.5 none").code, 1);
    assert_eq!(
        Command::new(FETCH).args(["replica", "log.0", "none"]).current_dir(rig.root.path()).status().unwrap().code(),
        Some(126)
    );
}
