//! repl-apply as a receiver: the four verdicts, setting aside, state on disk, durability, and a machine that fails.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use repl::rule::stream::hello::Hello;

use super::craft::{Stream, acked, apply, at, bookmark, feed, hello, landed, position, refused, taken, tree};
use super::rig::{APPLY, Ran, Rig, eventually};

fn state(rig: &Rig, name: &str) -> String {
    fs::read_to_string(rig.replica().join(".repl").join(name)).unwrap()
}

/// `B3SUMS` names these files, and b3sum finds them right.
#[track_caller]
fn sums(rig: &Rig, names: &[&str]) {
    let ran = rig.run("cd replica && b3sum --check .repl/B3SUMS");
    assert_eq!(ran.code, 0, "{ran:?}");
    let seen: Vec<_> = ran.out.lines().map(|line| line.trim_end_matches(": OK")).collect();
    assert_eq!(seen, names);
}

/// Everything below `.repl/set-aside`, by file name.
fn aside(rig: &Rig) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let Ok(turns) = fs::read_dir(rig.replica().join(".repl/set-aside")) else {
        return found;
    };
    for file in turns.flat_map(|turn| fs::read_dir(turn.unwrap().path()).unwrap()) {
        let path = file.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        found.push((name, fs::read_to_string(path).unwrap()));
    }
    found.sort();
    found
}

fn files(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

#[test]
fn a_missing_directory_holds_nothing_and_asking_makes_nothing() {
    let rig = Rig::new();
    assert_eq!(rig.ok("$APPLY --position replica"), "oldest\n");
    assert_eq!(rig.ok("$APPLY --position a/b/c"), "oldest\n");
    fs::create_dir(rig.replica()).unwrap();
    assert_eq!(rig.ok("$APPLY --position replica"), "oldest\n");
    assert_eq!(rig.ok("$APPLY --position --state nowhere replica"), "oldest\n");
    assert_eq!(fs::read_dir(rig.replica()).unwrap().count(), 0);
    assert!(!rig.path("a").exists() && !rig.path("nowhere").exists());
    // Nor does it need the lock.
    rig.ok("flock replica $APPLY --position replica");
}

#[test]
fn ahead_is_told_wherever_the_masters_end_is_seen() {
    let rig = Rig::new();
    taken(&rig, "", Stream::new().segment(1, b"abc").begin(2).data(b"defghi").bye());
    let ending = |sequence, offset| {
        let mut stream = Stream::new();
        stream.end = at(sequence, offset);
        stream
    };
    let says = "ahead: this replica holds 1-2:6, the master ends at 1-2:3";
    refused(&rig, "", ending(2, 3).begin_after(2, b"def"), 4, says);
    refused(&rig, "", ending(2, 3).begin(2).data(b"def").heartbeat(), 4, says);
    refused(&rig, "", Stream::new().begin(2).data(b"def").bye(), 4, says);
    refused(&rig, "", ending(1, 2).begin_after(1, b"ab"), 4, "the master ends at 1-1:2");
    refused(&rig, "--append-only", Stream::new().begin(2).data(b"def").bye(), 4, says);
    // Different bytes before the end are no mere tail.
    refused(&rig, "", ending(2, 3).begin_after(2, b"deX"), 4, "diverged");
    taken(&rig, "", ending(2, 6).begin_after(2, b"defghi").bye());
}

#[test]
fn a_master_that_lost_its_tail_is_noticed_by_pipe_and_by_link() {
    let rig = Rig::new();
    let pipe = "$SHIP -S --pattern log.%S --from \"$($APPLY --position replica)\" master | $APPLY replica";
    rig.write("log.1", "abcdef");
    assert_eq!(rig.pass("--pattern log.%S", "").code, 0);
    rig.write("log.1", "abc");
    let before = tree(&rig.replica());
    rig.run(pipe).fails(4, "ahead");
    rig.run("$SHIP -S --pattern log.%S master | $APPLY replica").fails(4, "ahead");
    rig.pass("--pattern log.%S", "").fails(4, "ahead");
    assert_eq!(tree(&rig.replica()), before);
    // The operator looked, and keeps the tail apart.
    let ran = rig.pass("--pattern log.%S", "--set-aside --reason lost");
    assert_eq!(ran.code, 0, "{ran:?}");
    rig.assert_equal();
    assert_eq!(aside(&rig), files(&[("log.1@3", "def")]));
    rig.append("log.1", "DEF");
    rig.ok(pipe);
    rig.assert_equal();
}

#[test]
fn a_history_that_starts_anew_is_diverged() {
    let rig = Rig::new();
    rig.write("log.1", "first history");
    rig.write("log.2", "goes on");
    assert_eq!(rig.pass("--pattern log.%S", "").code, 0);
    fs::remove_file(rig.master().join("log.2")).unwrap();
    rig.write("log.1", "another");
    let before = tree(&rig.replica());
    rig.pass("--pattern log.%S", "").fails(4, "diverged");
    rig.run("$SHIP -S --pattern log.%S master | $APPLY replica").fails(4, "diverged");
    assert_eq!(tree(&rig.replica()), before);
    let ran = rig.pass("--pattern log.%S", "--set-aside");
    assert_eq!(ran.code, 0, "{ran:?}");
    rig.assert_equal();
    assert_eq!(aside(&rig), files(&[("log.1", "first history"), ("log.2", "goes on")]));
}

#[test]
fn a_long_history_is_set_aside_in_one_pass() {
    let rig = Rig::new();
    let logs = 1..=12;
    for log in logs.clone() {
        rig.write(&format!("log.{log}"), "first history");
    }
    assert_eq!(rig.pass("--pattern log.%S", "").code, 0);
    for log in logs {
        rig.write(&format!("log.{log}"), "other history, and longer");
    }
    // Each segment costs a connection; they are no failures, so neither the pauses nor the time for failures grow.
    let began = Instant::now();
    let ran = rig.pass("--pattern log.%S --retry-for 3s", "--set-aside");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    rig.assert_equal();
    assert_eq!(aside(&rig).len(), 12);
}

/// One replica that is set aside in part, and the stream that does it.
struct Aside {
    ours: &'static [&'static str],
    stream: Stream,
    kept: &'static [(&'static str, &'static str)],
    moved: &'static [(&'static str, &'static str)],
    sums: &'static [&'static str],
    at: (u64, &'static str),
}

fn asides() -> Vec<Aside> {
    let stream = |make: &dyn Fn(&mut Stream) -> &mut Stream| {
        let mut stream = Stream::new();
        make(&mut stream);
        stream
    };
    let abc: &[&str] = &["aaaa", "bbbb", "cccc"];
    vec![
        // In the middle of a segment in the middle.
        Aside {
            ours: abc,
            stream: stream(&|s| s.segment(1, b"aaaa").segment(2, b"bbXXX").begin(3).data(b"c").bye()),
            kept: &[("log.1", "aaaa"), ("log.2", "bbXXX"), ("log.3", "c")],
            moved: &[("log.2@2", "bb"), ("log.3", "cccc")],
            sums: &["log.1", "log.2"],
            at: (3, "c"),
        },
        // The same in several frames, from the beginning of the segment.
        Aside {
            ours: abc,
            stream: stream(&|s| s.begin(2).data(b"b").data(b"bX").mark(5).data(b"XX").end().begin(3).data(b"Y").bye()),
            kept: &[("log.1", "aaaa"), ("log.2", "bbXXX"), ("log.3", "Y")],
            moved: &[("log.2@2", "bb"), ("log.3", "cccc")],
            sums: &["log.1", "log.2"],
            at: (3, "Y"),
        },
        // At the first byte of a segment in the middle.
        Aside {
            ours: abc,
            stream: stream(&|s| s.segment(1, b"aaaa").begin(2).data(b"XX").bye()),
            kept: &[("log.1", "aaaa"), ("log.2", "XX")],
            moved: &[("log.2", "bbbb"), ("log.3", "cccc")],
            sums: &["log.1"],
            at: (2, "XX"),
        },
        // At the very first byte.
        Aside {
            ours: abc,
            stream: stream(&|s| s.segment(1, b"XX").begin(2).data(b"Y").bye()),
            kept: &[("log.1", "XX"), ("log.2", "Y")],
            moved: &[("log.1", "aaaa"), ("log.2", "bbbb"), ("log.3", "cccc")],
            sums: &["log.1"],
            at: (2, "Y"),
        },
        // A hole where bytes are.
        Aside {
            ours: abc,
            stream: stream(&|s| s.begin(3).data(b"c").hole(4).data(b"X").bye()),
            kept: &[("log.1", "aaaa"), ("log.2", "bbbb"), ("log.3", "c\0\0\0\0X")],
            moved: &[("log.3@1", "ccc")],
            sums: &["log.1", "log.2"],
            at: (3, "c\0\0\0\0X"),
        },
        // A closed segment goes on at the master.
        Aside {
            ours: abc,
            stream: stream(&|s| s.begin(2).data(b"bbbbXX").end().begin(3).data(b"Y").bye()),
            kept: &[("log.1", "aaaa"), ("log.2", "bbbbXX"), ("log.3", "Y")],
            moved: &[("log.2@4", ""), ("log.3", "cccc")],
            sums: &["log.1", "log.2"],
            at: (3, "Y"),
        },
        // A closed segment ends earlier at the master.
        Aside {
            ours: abc,
            stream: stream(&|s| s.begin(2).data(b"bb").end().begin(3).data(b"Y").bye()),
            kept: &[("log.1", "aaaa"), ("log.2", "bb"), ("log.3", "Y")],
            moved: &[("log.2@2", "bb"), ("log.3", "cccc")],
            sums: &["log.1", "log.2"],
            at: (3, "Y"),
        },
        // The open segment ends earlier at the master.
        Aside {
            ours: abc,
            stream: stream(&|s| s.begin(3).data(b"cc").end().begin(4).data(b"Y").bye()),
            kept: &[("log.1", "aaaa"), ("log.2", "bbbb"), ("log.3", "cc"), ("log.4", "Y")],
            moved: &[("log.3@2", "cc")],
            sums: &["log.1", "log.2", "log.3"],
            at: (4, "Y"),
        },
        // Ahead, with segments behind the end.
        Aside {
            ours: abc,
            stream: stream(&|s| s.begin(2).data(b"bb").bye()),
            kept: &[("log.1", "aaaa"), ("log.2", "bb")],
            moved: &[("log.2@2", "bb"), ("log.3", "cccc")],
            sums: &["log.1"],
            at: (2, "bb"),
        },
    ]
}

#[test]
fn a_tail_that_differs_is_set_aside_and_the_stream_goes_on() {
    for sync in ["each", "batch", "segment"] {
        for (number, case) in asides().into_iter().enumerate() {
            let rig = Rig::new();
            let mut ours = Stream::new();
            for (index, text) in case.ours.iter().enumerate() {
                ours.begin(index as u64 + 1).data(text.as_bytes());
                if index + 1 < case.ours.len() {
                    ours.end();
                }
            }
            taken(&rig, "", ours.bye());
            // Without the option nothing is changed.
            if sync == "each" {
                refused(&rig, "", &case.stream, 4, "--set-aside keeps this side's tail");
            }
            let ran = taken(&rig, &format!("--set-aside --reason looked --sync {sync}"), &case.stream);
            let what = format!("case {number}, sync {sync}: {ran:?}");
            assert!(ran.err.contains("are now in ") && ran.err.contains(".repl/set-aside/"), "{what}");
            let kept: Vec<_> = tree(&rig.replica()).into_keys().collect();
            assert_eq!(kept, case.kept.iter().map(|(name, _)| *name).collect::<Vec<_>>(), "{what}");
            for (name, text) in case.kept {
                assert_eq!(landed(&rig, name), text.as_bytes(), "{name}, {what}");
            }
            assert_eq!(aside(&rig), files(case.moved), "{what}");
            sums(&rig, case.sums);
            assert_eq!(position(&rig.replica()), bookmark(case.at.0, case.at.1.as_bytes()), "{what}");
            assert_eq!(acked(&ran, "flushed"), Some(at(case.at.0, case.at.1.len() as u64).to_string()), "{what}");
            let history = state(&rig, "history.jsonl");
            let line = history.lines().last().unwrap();
            assert!(line.contains("\"set-aside\"") && line.contains("\"reason\":\"looked\""), "{history}");
            // It is one history now.
            let mut more = Stream::new();
            taken(&rig, "", more.begin_after(case.at.0, case.at.1.as_bytes()).data(b"+").bye());
        }
    }
}

/// What lies before the beginning differs: the bytes that replace it are not in this stream, but in the next.
#[test]
fn a_divergence_before_the_beginning_is_set_aside_and_asked_for_again() {
    let again = |rig: &Rig, stream: &Stream, says: &str| {
        let ran = apply(rig, "--set-aside", stream);
        ran.fails(8, says);
        assert!(ran.err.contains("are now in "), "{ran:?}");
    };
    // In the open segment, behind a closed one.
    let rig = Rig::new();
    taken(&rig, "", Stream::new().segment(1, b"aaaa").begin(2).data(b"bbbb").bye());
    again(&rig, Stream::new().begin_after(2, b"bX").data(b"Y"), "segment 1-2 starts over: connect again");
    assert_eq!(position(&rig.replica()), bookmark(1, b"aaaa"));
    assert_eq!(aside(&rig), files(&[("log.2", "bbbb")]));
    taken(&rig, "", Stream::new().begin_behind(2, b"aaaa").data(b"bXY").bye());
    sums(&rig, &["log.1"]);
    // In the first segment: then nothing is left, and the next stream begins with it.
    let rig = Rig::new();
    taken(&rig, "", Stream::new().begin(1).data(b"aaaa").bye());
    again(&rig, Stream::new().begin_after(1, b"aX").data(b"Y"), "segment 1-1 starts over");
    assert_eq!(position(&rig.replica()), bookmark(1, b""));
    taken(&rig, "", Stream::new().begin(1).data(b"aXY").bye());
    assert_eq!(landed(&rig, "log.1"), b"aXY");
    // In the segment before the one that begins.
    let rig = Rig::new();
    taken(&rig, "", Stream::new().segment(1, b"aaaa").segment(2, b"bbbb").bye());
    again(&rig, Stream::new().begin_behind(3, b"bbXb").data(b"c"), "segment 1-2 starts over");
    assert_eq!(position(&rig.replica()), bookmark(1, b"aaaa"));
    taken(&rig, "", Stream::new().begin_behind(2, b"aaaa").data(b"bbXb").end().begin(3).data(b"c").bye());
    sums(&rig, &["log.1", "log.2"]);
}

#[test]
fn append_only_adds_and_changes_nothing() {
    let rig = Rig::new();
    let bdb = || Stream::of(&Hello { scheme: repl::rule::scheme::Scheme::Bdb, ..hello() });
    let aux =
        |text: &'static str| repl::rule::stream::message::Message::Aux { name: "DB_CONFIG", bytes: text.as_bytes() };
    rig.run("$APPLY --append-only --set-aside replica").fails(2, "cannot be used with");
    taken(&rig, "--append-only", bdb().frame(&aux("old\n")).begin(1).data(b"abc").bye());
    refused(&rig, "--append-only", bdb().begin(1).data(b"abX"), 4, "diverged");
    let ran = taken(&rig, "--append-only", bdb().frame(&aux("new\n")).begin_after(1, b"abc").data(b"d").bye());
    assert!(ran.err.contains("DB_CONFIG here is not the master's; it is kept"), "{ran:?}");
    assert_eq!(landed(&rig, "DB_CONFIG"), b"old\n");
    assert_eq!(landed(&rig, "log.0000000001"), b"abcd");
}

#[test]
fn an_empty_replica_takes_a_later_start_and_remembers_it() {
    let rig = Rig::new();
    taken(&rig, "", Stream::new().begin_behind(7, b"before").data(b"abc").bye());
    assert!(state(&rig, "origin").contains("start=1-7:0\nself-contained=no\n"));
    assert_eq!(position(&rig.replica()), bookmark(7, b"abc"));
    let rig = Rig::new();
    taken(&rig, "", Stream::new().begin(1).data(b"abc").bye());
    assert!(state(&rig, "origin").contains("start=1-1:0\nself-contained=yes\n"));
}

#[test]
fn segments_of_a_base_copy_become_ours_when_their_bytes_prove_equal() {
    let rig = Rig::new();
    fs::create_dir(rig.replica()).unwrap();
    fs::write(rig.replica().join("log.4"), "four").unwrap();
    // Space that was never written, as an engine preallocates it.
    fs::write(rig.replica().join("log.5"), b"fi\0\0\0\0").unwrap();
    assert_eq!(position(&rig.replica()), "oldest");
    refused(&rig, "", Stream::new().begin_behind(4, b"x").data(b"foXX"), 4, "diverged");
    refused(&rig, "", Stream::new().begin_after(4, b"foX").data(b"r"), 4, "diverged");
    let ran = taken(&rig, "-v", Stream::new().begin(4).data(b"four").end().begin(5).data(b"five").bye());
    assert!(ran.err.contains("bytes were there already and are equal"), "{ran:?}");
    assert_eq!(landed(&rig, "log.5"), b"five\0\0");
    assert_eq!(position(&rig.replica()), bookmark(5, b"five"));
    sums(&rig, &["log.4"]);
    taken(&rig, "", Stream::new().begin_after(5, b"five").end().bye());
    assert_eq!(landed(&rig, "log.5"), b"five");
    sums(&rig, &["log.4", "log.5"]);
    // From the middle, where the copy has what lies before.
    let rig = Rig::new();
    fs::create_dir(rig.replica()).unwrap();
    fs::write(rig.replica().join("log.4"), "four").unwrap();
    taken(&rig, "", Stream::new().begin_after(4, b"fo").data(b"ur+").bye());
    assert_eq!(landed(&rig, "log.4"), b"four+");
}

#[test]
fn holes_stay_holes_and_b3sum_agrees() {
    let rig = Rig::new();
    let mut stream = Stream::new();
    stream.begin(1).data(b"head").hole(64 << 20).data(b"tail").end().begin(2).hole(8 << 20).bye();
    taken(&rig, "", &stream);
    let (one, two) = (rig.replica().join("log.1"), rig.replica().join("log.2"));
    assert_eq!(fs::metadata(&one).unwrap().len(), (64 << 20) + 8);
    assert_eq!(fs::metadata(&two).unwrap().len(), 8 << 20);
    for path in [one, two] {
        assert!(fs::metadata(&path).unwrap().blocks() * 512 < 1 << 20, "{}", path.display());
    }
    sums(&rig, &["log.1"]);
    taken(&rig, "", &stream);
    // A byte that is changed is seen by anyone.
    rig.ok("printf X | dd of=replica/log.1 bs=1 seek=1000 conv=notrunc status=none");
    assert_eq!(rig.run("cd replica && b3sum --check .repl/B3SUMS").code, 1);
}

#[test]
fn acknowledged_bytes_that_are_gone_are_told_loudly() {
    let rig = Rig::new();
    taken(&rig, "", Stream::new().segment(1, b"aaaa").begin(2).data(b"bbbb").bye());
    let file = rig.replica().join("log.2");
    for (text, says) in [("bb", "no longer has its 4 bytes up to 1-2:4"), ("bbXb", "was changed")] {
        fs::write(&file, text).unwrap();
        refused(&rig, "", Stream::new().begin_after(2, b"bbbb").data(b"c"), 6, says);
    }
    fs::write(&file, "bb").unwrap();
    refused(&rig, "", Stream::new().begin(1).data(b"aaaa").end().begin(2).data(b"bb").bye(), 6, "no longer has its 4");
    fs::remove_file(&file).unwrap();
    refused(&rig, "", Stream::new().begin(1).data(b"aaaa").bye(), 6, "no longer has its 4 bytes");
    fs::write(&file, "bbbb").unwrap();
    taken(&rig, "", Stream::new().begin_after(2, b"bbbb").data(b"c").bye());
    // A closed segment may be taken away by its owner.
    fs::remove_file(rig.replica().join("log.1")).unwrap();
    taken(&rig, "", Stream::new().segment(1, b"aaaa").begin(2).data(b"bbbbc").bye());
    assert!(!rig.replica().join("log.1").exists());
}

#[test]
fn a_second_receiver_is_told_who_is_there() {
    let rig = Rig::new();
    let mut command = Command::new(APPLY);
    command.arg("--acks").arg(rig.replica()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut first = command.spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(first.stdout.take().unwrap()));
    assert!(lines.next().unwrap().unwrap().starts_with("welcome "));
    let says = format!("is held by process {}", first.id());
    refused(&rig, "", Stream::new().begin(1).data(b"x"), 7, &says);
    // Other state makes no second writer.
    let ran = apply(&rig, &format!("--state {}", rig.path("state").display()), Stream::new().begin(1).data(b"x"));
    ran.fails(7, "is held by another process");
    // The lock dies with its process, however it dies.
    first.kill().unwrap();
    first.wait().unwrap();
    taken(&rig, "", Stream::new().begin(1).data(b"x").bye());
}

#[test]
fn modes_are_private_whatever_the_umask() {
    for umask in ["000", "077", "022"] {
        let rig = Rig::new();
        let stream = Stream::new().segment(1, b"aaaa").begin(2).data(b"bbbb").bye().clone();
        let ran = feed(rig.sh(&format!("umask {umask}; exec $APPLY --adopt replica/deep")), &stream.bytes);
        assert_eq!(ran.code, 0, "{ran:?}");
        let other = Stream::new().begin_after(2, b"bb").data(b"X").bye().clone();
        feed(rig.sh(&format!("umask {umask}; exec $APPLY --set-aside replica/deep")), &other.bytes);
        let odd = rig.ok("find replica -type d ! -perm 0700 -o ! -type d ! -perm 0600");
        assert_eq!(odd, "", "umask {umask}");
        assert!(rig.ok("find replica").contains("set-aside/2"), "umask {umask}");
    }
}

#[test]
fn it_works_as_an_ordinary_user() {
    if !rustix::process::geteuid().is_root() {
        return; // Then all the other tests show it.
    }
    let rig = Rig::new();
    rig.ok("chmod 711 . && cp $APPLY apply && chmod 755 apply && mkdir home && chown 65534:65534 home");
    let user = "setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs";
    let stream = Stream::new().segment(1, b"aaaa").begin(2).data(b"bbbb").bye().clone();
    let ran = feed(rig.sh(&format!("exec {user} ./apply --acks --feed true home/logs")), &stream.bytes);
    assert_eq!((ran.code, acked(&ran, "applied").as_deref()), (0, Some("1-1:4")), "{ran:?}");
    assert_eq!(rig.ok("find home ! -user 65534"), "");
    // What it may not write is told, and nothing is lost.
    rig.ok("mkdir closed");
    feed(rig.sh(&format!("exec {user} ./apply closed/logs")), &stream.bytes).fails(1, "Permission denied");
}

#[test]
fn state_can_be_kept_elsewhere() {
    let rig = Rig::new();
    let elsewhere = format!("--state {}", rig.path("state").display());
    taken(&rig, &elsewhere, Stream::new().segment(1, b"aaaa").begin(2).data(b"bb").bye());
    assert!(!rig.replica().join(".repl").exists());
    assert_eq!(rig.ok("cd replica && b3sum --check ../state/B3SUMS"), "log.1: OK\n");
    assert_eq!(rig.ok("$APPLY --position --state state replica").trim_end(), bookmark(2, b"bb"));
    taken(&rig, &elsewhere, Stream::new().begin_after(2, b"bb").data(b"BB").bye());
    assert_eq!(landed(&rig, "log.2"), b"bbBB");
}

#[test]
fn sync_decides_when_and_not_what() {
    for sync in ["each", "batch", "segment"] {
        let rig = Rig::new();
        let mut stream = Stream::new();
        stream.begin(1).data(b"aa").data(b"aa").heartbeat();
        let ran = apply(&rig, &format!("--sync {sync}"), &stream);
        ran.fails(8, "ended without an orderly end");
        // At the end all is durable, whatever was said.
        assert_eq!(acked(&ran, "flushed").as_deref(), Some("1-1:4"), "{sync}");
        let early: Vec<_> = ran.out.lines().filter(|line| line.starts_with("ack ")).collect();
        match sync {
            "each" => assert_eq!(
                &early[..2],
                ["ack received=1-1:2 flushed=1-1:2 applied=-", "ack received=1-1:4 flushed=1-1:4 applied=-"]
            ),
            "segment" => assert!(early[0].ends_with("flushed=- applied=-") || early.len() == 1, "{early:?}"),
            _ => {}
        }
        taken(&rig, &format!("--sync {sync}"), Stream::new().begin_after(1, b"aaaa").end().bye());
        sums(&rig, &["log.1"]);
    }
    let rig = Rig::new();
    rig.run("$APPLY --sync never replica").fails(2, "invalid value 'never'");
}

/// Nothing inside a segment is acknowledged as durable with `--sync segment`.
#[test]
fn sync_segment_acks_a_segment_when_it_is_closed() {
    let rig = Rig::new();
    let mut command = Command::new(APPLY);
    command.args(["--acks", "--sync", "segment"]).arg(rig.replica()).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let mut stream = Stream::new();
    stream.begin(1).data(b"aaaa").mark(1).heartbeat();
    input.write_all(&stream.bytes).unwrap();
    assert!(lines.next().unwrap().unwrap().starts_with("welcome "));
    assert_eq!(lines.next().unwrap().unwrap(), "ack received=1-1:4 flushed=- applied=-");
    assert_eq!(position(&rig.replica()), "oldest");
    let sent = stream.bytes.len();
    input.write_all(&stream.end().bytes[sent..]).unwrap();
    assert_eq!(lines.next().unwrap().unwrap(), "ack received=1-1:4 flushed=1-1:4 applied=-");
    drop(input);
    assert_eq!(child.wait().unwrap().code(), Some(8));
}

/// A small file system of its own, in a mount namespace that ends with the script. `None` where that is not permitted.
fn on_small_disk(rig: &Rig, options: &str, script: &str, stream: &Stream) -> Option<Ran> {
    fs::write(rig.path("stream"), &stream.bytes).unwrap();
    if rig.run("unshare -m true").code != 0 {
        return None;
    }
    rig.ok("mkdir -p small");
    let script = format!("mount -t tmpfs -o {options} none small || exit 99\n{script}");
    let mut command = rig.sh("exec unshare -m bash -c \"$SCRIPT\"");
    command.env("SCRIPT", script);
    Some(Ran::from(command.output().unwrap()))
}

#[test]
fn a_full_disk_is_12_and_it_goes_on_when_space_is_back() {
    let rig = Rig::new();
    let mut stream = Stream::new();
    stream.begin(1);
    for piece in 0..40 {
        stream.data(&super::rig::noise(100_000, piece));
    }
    stream.end().bye();
    let script = "
        $APPLY --acks small/replica < stream > acks; echo first $?
        tail -n 2 acks | grep -o '^ack.*\\|^refuse 12'
        at=$($APPLY --position small/replica); echo at $at
        $APPLY small/replica < stream; echo second $?
        test \"$at\" = \"$($APPLY --position small/replica)\" && echo same
        size=$(stat -c %s small/replica/log.1)
        test \"${at#1-1:}\" != \"$at\" && test ${at%+*} = 1-1:$size && echo whole frames
        mount -o remount,size=16m small
        $APPLY small/replica < stream; echo third $?
        cd small/replica && b3sum --check .repl/B3SUMS";
    let Some(ran) = on_small_disk(&rig, "size=2m", script, &stream) else { return };
    for line in ["first 12", "refuse 12", "second 12", "same", "whole frames", "third 0", "log.1: OK"] {
        assert!(ran.out.lines().any(|out| out == line), "{line} in {ran:?}");
    }
    let ack = ran.out.lines().find(|line| line.starts_with("ack ")).unwrap();
    let flushed = ack.split(' ').find_map(|pair| pair.strip_prefix("flushed=")).unwrap();
    assert!(ran.out.contains(&format!("at {flushed}+")), "{ran:?}");
    assert!(ran.err.contains("cannot append to segment 1-1 (log.1): No space left on device"), "{ran:?}");
}

#[test]
fn a_disk_that_is_full_at_the_sender_is_not_taken_for_a_cut_link() {
    let rig = Rig::new();
    rig.write("log.1", "one");
    rig.write("log.2", "two");
    let script = "$SHIP -S --retry-for 0s --pattern log.%S --state small/state --via \"$APPLY --acks replica\" master";
    let Some(ran) = on_small_disk(&rig, "size=4k", script, &Stream::new()) else { return };
    ran.fails(12, "No space left on device");
    assert!(ran.err.contains("small/state"), "{ran:?}");
}

#[test]
fn a_disk_without_inodes_is_12_too() {
    let rig = Rig::new();
    let mut stream = Stream::new();
    for sequence in 1..40 {
        stream.segment(sequence, b"abc");
    }
    let script = "
        $APPLY small/replica < stream; echo first $?
        $APPLY --position small/replica
        mount -o remount,nr_inodes=200 small
        $APPLY small/replica < stream; echo second $?
        cd small/replica && b3sum --quiet --check .repl/B3SUMS && wc -l < .repl/B3SUMS";
    let Some(ran) = on_small_disk(&rig, "nr_inodes=25", script, stream.bye()) else { return };
    for line in ["first 12", "second 0", "39"] {
        assert!(ran.out.lines().any(|out| out == line), "{line} in {ran:?}");
    }
    // Not even room for the state.
    let rig = Rig::new();
    let script =
        "$APPLY small/replica < stream; echo $?; mount -o remount,nr_inodes=200 small; $APPLY small/replica < stream";
    for inodes in 2..12 {
        let Some(ran) = on_small_disk(&rig, &format!("nr_inodes={inodes}"), script, &stream) else { return };
        assert_eq!((ran.code, ran.out.as_str()), (0, "12\n"), "{inodes} inodes: {ran:?}");
    }
}

#[test]
fn a_reader_of_acks_that_is_gone_ends_it_with_8() {
    // Before the greeting, and in the middle.
    for (stream, greeted) in [(Stream::new(), false), (Stream::new().begin(1).data(b"abc").heartbeat().clone(), true)] {
        let rig = Rig::new();
        let mut command = Command::new(APPLY);
        command.arg("--acks").arg(rig.replica());
        let (out, ours) = std::io::pipe().unwrap();
        let mut child = command.stdin(Stdio::piped()).stdout(ours).stderr(Stdio::piped()).spawn().unwrap();
        drop(command);
        if greeted {
            eventually("the lock", || rig.replica().join(".repl/lock").exists());
        }
        drop(out);
        let mut input = child.stdin.take().unwrap();
        let _ = input.write_all(&stream.bytes);
        drop(input);
        Ran::from(child.wait_with_output().unwrap()).fails(8, "");
        taken(&rig, "", Stream::new().begin(1).data(b"abc").bye());
    }
}

/// One line of a trace: which thread did what to which file.
struct Call {
    name: String,
    path: String,
    text: String,
}

/// Calls in the order of their effect: syncs when they have ended, all others when they began.
fn calls(trace: &str) -> Vec<Call> {
    let mut calls = Vec::new();
    let mut waiting = std::collections::BTreeMap::new();
    for line in trace.lines() {
        let (thread, rest) = line.trim_start().split_once(' ').unwrap_or_default();
        let rest = rest.trim_start();
        if rest.contains(" resumed>") {
            assert!(!rest.contains("= -1"), "{line}");
            calls.extend(waiting.remove(thread));
            continue;
        }
        let Some((name, arguments)) = rest.split_once('(') else { continue };
        let path = arguments.split_once('<').and_then(|(_, path)| path.split_once('>')).map_or("", |(path, _)| path);
        let call = Call { name: name.into(), path: path.into(), text: arguments.into() };
        if rest.ends_with("<unfinished ...>") && name.ends_with("sync") {
            waiting.insert(thread, call);
        } else {
            calls.push(call);
        }
    }
    calls
}

#[test]
fn data_is_durable_before_position_says_so_and_position_before_an_ack_does() {
    let rig = Rig::new();
    let mut stream = Stream::new();
    stream.begin(1).data(b"aaaa").data(b"aaaa").hole(5000).end().begin(2).data(b"bb").data(b"cc").bye();
    fs::write(rig.path("stream"), &stream.bytes).unwrap();
    rig.ok("strace -f -y -s 200 -o trace -e trace=fdatasync,fsync,pwrite64,write,ftruncate,openat,renameat,renameat2 \
            $APPLY --acks --sync each replica < stream > acks");
    let trace = fs::read_to_string(rig.path("trace")).unwrap();
    let root = rig.replica().canonicalize().unwrap();
    let shown = |name: &str| root.join(name).display().to_string();
    let (mut dirty, mut acks, mut positions) = (std::collections::BTreeSet::new(), 0, 0);
    for Call { name, path, text } in calls(&trace) {
        let is_log = path.starts_with(&shown("log."));
        match name.as_str() {
            "openat" if text.contains("O_CREAT") && text.contains("\"log.") => drop(dirty.insert(shown(""))),
            "pwrite64" if path == shown(".repl/position") => {
                assert!(dirty.is_empty(), "not durable at 'position': {dirty:?} in {trace}");
                positions += 1;
                dirty.insert(path);
            }
            // The lock's text is a courtesy.
            "pwrite64" | "ftruncate" if path == shown(".repl/lock") => {}
            "pwrite64" | "ftruncate" if is_log || path.starts_with(&shown(".repl/")) => drop(dirty.insert(path)),
            "fdatasync" | "fsync" => {
                dirty.remove(&path);
                dirty.retain(|one| one.trim_end_matches('/') != path);
            }
            "write" if text.contains("ack ") => {
                assert!(dirty.is_empty(), "not durable at an ack: {dirty:?} in {trace}");
                acks += 1;
            }
            _ => {}
        }
    }
    // One of each for five frames and the end of a segment, at least.
    assert!(acks >= 6 && positions >= 6, "{acks} acks, {positions} positions in {trace}");
}
