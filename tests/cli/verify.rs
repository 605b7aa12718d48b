//! `repl-verify`: exact verdicts for a matrix of damage, on replicas and on a real Berkeley DB master.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use repl::edge::dir::Dir;
use repl::edge::tree::Tree;
use repl::engine::archive::base::Record;
use repl::engine::archive::prove::Which;
use repl::engine::archive::sums;
use repl::engine::sync::profile::Profile;
use repl::engine::verify::{self, Options};
use repl::value::digest::Digest;
use repl::value::exit::{Code, code_of};
use repl::value::time::Time;

use super::rig::{Rig, noise, segments};

/// A replica of four plain segments: three closed, one open.
fn replica() -> Rig {
    let rig = Rig::new();
    for sequence in 1..=4 {
        rig.write(&format!("log.{sequence}"), noise(5000, sequence));
    }
    assert_eq!(rig.pass("--pattern log.%S", "").code, 0);
    rig
}

fn flip(path: std::path::PathBuf, offset: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

#[test]
fn a_whole_replica_is_0_and_nothing_is_changed() {
    let rig = replica();
    let before = (segments(&rig.replica()), segments(&rig.replica().join(".repl")));
    let said = rig.ok("$VERIFY replica");
    assert!(said.starts_with("whole: 4 segments, 20000 bytes, 1-1 to 1-4:5000"), "{said}");
    assert_eq!(before, (segments(&rig.replica()), segments(&rig.replica().join(".repl"))));
    assert_eq!(rig.ok("$VERIFY -q replica"), "");
}

#[test]
fn every_damage_has_its_verdict() {
    type Damage = fn(&Rig);
    let matrix: [(&str, i32, &str, Damage); 11] = [
        ("first missing", 3, "gap 1-1 ", |rig| fs::remove_file(rig.path("replica/log.1")).unwrap()),
        ("middle missing", 3, "gap 1-2 ", |rig| fs::remove_file(rig.path("replica/log.2")).unwrap()),
        ("last missing", 3, "gap 1-4 ", |rig| fs::remove_file(rig.path("replica/log.4")).unwrap()),
        ("first byte flipped", 6, "corrupt 1-1 ", |rig| flip(rig.path("replica/log.1"), 0)),
        ("last byte of a closed one flipped", 6, "corrupt 1-3 ", |rig| flip(rig.path("replica/log.3"), 4999)),
        ("open one flipped", 6, "corrupt 1-4 ", |rig| flip(rig.path("replica/log.4"), 2500)),
        ("closed one short", 6, "corrupt 1-2:4999 ", |rig| {
            fs::OpenOptions::new().write(true).open(rig.path("replica/log.2")).unwrap().set_len(4999).unwrap();
        }),
        ("closed one long", 6, "corrupt 1-2 ", |rig| {
            fs::OpenOptions::new().write(true).open(rig.path("replica/log.2")).unwrap().set_len(5001).unwrap();
        }),
        ("open one short", 6, "corrupt 1-4:10 ", |rig| {
            fs::OpenOptions::new().write(true).open(rig.path("replica/log.4")).unwrap().set_len(10).unwrap();
        }),
        ("two swapped", 6, "corrupt 1-1 ", |rig| {
            fs::rename(rig.path("replica/log.1"), rig.path("x")).unwrap();
            fs::rename(rig.path("replica/log.2"), rig.path("replica/log.1")).unwrap();
            fs::rename(rig.path("x"), rig.path("replica/log.2")).unwrap();
        }),
        ("one missing and one flipped", 6, "gap 1-2 ", |rig| {
            fs::remove_file(rig.path("replica/log.2")).unwrap();
            flip(rig.path("replica/log.3"), 17);
        }),
    ];
    for (what, code, line, damage) in matrix {
        let rig = replica();
        damage(&rig);
        let ran = rig.run("$VERIFY replica");
        assert_eq!(ran.code, code, "{what}: {ran:?}");
        assert!(ran.out.lines().any(|said| said.starts_with(line)), "{what}: {ran:?}");
        let json: serde_json::Value = serde_json::from_str(&rig.run("$VERIFY --json replica").out).unwrap();
        assert_eq!(json["verdict"], if code == 3 { "gap" } else { "corrupt" }, "{what}");
        assert!(!json["findings"].as_array().unwrap().is_empty(), "{what}");
    }
}

#[test]
fn bytes_and_files_beyond_what_is_held_are_not_judged() {
    let rig = replica();
    fs::write(rig.path("replica/log.5"), "left by a crash").unwrap();
    let mut open = fs::read(rig.path("replica/log.4")).unwrap();
    open.extend(b"unproven");
    fs::write(rig.path("replica/log.4"), open).unwrap();
    assert!(rig.ok("$VERIFY replica").contains("1-1 to 1-4:5000"));
}

#[test]
fn a_master_is_judged_by_its_records_alone() {
    let rig = Rig::new();
    crate::made_by_berkeley_db(&rig, 3000);
    let whole = rig.ok("$VERIFY -v master");
    assert!(
        whole.contains("engine bdb") && whole.contains("begins with the set") && whole.contains("whole: "),
        "{whole}"
    );

    let middle = rig.path("master/log.0000000002");
    let kept = fs::read(&middle).unwrap();
    for offset in [4, 17, 28, 5000, 50_000] {
        flip(middle.clone(), offset);
        let ran = rig.run("$VERIFY master");
        assert_eq!(ran.code, 6, "flipped at {offset}: {ran:?}");
        assert!(ran.out.contains("corrupt 1-2:") || ran.out.contains("corrupt 1-1:"), "{ran:?}");
        fs::write(&middle, &kept).unwrap();
    }
    // The engine's own tools take a hole for an end (ENGINES: "fault table").
    fs::remove_file(&middle).unwrap();
    assert_eq!(rig.run("$VERIFY master").code, 3);
}

#[test]
fn a_directory_that_is_none_or_shows_no_engine_is_an_error() {
    let rig = Rig::new();
    rig.run("$VERIFY nowhere").fails(1, "cannot open nowhere");
    rig.run("$VERIFY master").fails(2, "no file name shows which engine this is");
    rig.run("$VERIFY --pattern ../%S master").fails(2, "names a directory");
}

/// Makes a base of two small files in the replica.
fn add_base(rig: &Rig, name: &str) -> PathBuf {
    let base = rig.replica().join("bases").join(name);
    fs::create_dir_all(base.join("data/d")).unwrap();
    fs::write(base.join("data/d/rows.db"), "rows").unwrap();
    fs::write(base.join("data/i"), "i").unwrap();
    let taken = sums::of(&Tree::open(&base.join("data")).unwrap(), &|_| None).unwrap();
    let record = Record {
        engine: Profile::Bdb,
        source: "mars:/srv/db".into(),
        identity: String::new(),
        position: Some("1-2:0".parse().unwrap()),
        time: Some(Time(1_500_000)),
        log: None,
        begun: Time(1_000_000),
        ended: Time(2_000_000),
        files: 2,
        bytes: 5,
        sums: Digest::of(&taken.sums.print()),
        reason: None,
    };
    fs::write(base.join("B3SUMS"), taken.sums.print()).unwrap();
    fs::write(base.join("base.toml"), record.print().unwrap()).unwrap();
    base
}

#[test]
fn the_bases_of_an_archive_are_proven_and_each_fault_names_base_and_file() {
    let rig = replica();
    let base = add_base(&rig, "b");
    add_base(&rig, "c");
    fs::create_dir(rig.path("replica/bases/.d.new")).unwrap();
    rig.ok("cd replica/bases/b && b3sum --check --quiet B3SUMS");
    let said = rig.ok("$VERIFY -v replica");
    assert!(
        said.contains(
            "base b: whole, 2 files, 5 bytes, needs log from 1-2:0 on, up to date until 1970-01-01 00:00:01\n"
        )
    );
    assert!(
        said.contains("whole: 4 segments, 20000 bytes, 1-1 to 1-4:5000")
            && said.ends_with(", 2 bases, recoverable to 1-4:5000 by base c\n"),
        "{said}"
    );

    fs::remove_file(base.join("data/i")).unwrap();
    fs::write(base.join("data/new"), "").unwrap();
    let ran = rig.run("$VERIFY replica");
    ran.fails(6, "replica: corrupt (2 found)");
    assert!(ran.out.starts_with("corrupt base b: data/i: it is missing\ncorrupt base b: data/new: "), "{ran:?}");
    assert_eq!(rig.run("$VERIFY --base b replica").code, 6);
    assert!(rig.ok("$VERIFY --base c replica").ends_with(", 1 base, recoverable to 1-4:5000 by base c\n"));
    assert!(rig.ok("$VERIFY --no-bases replica").starts_with("whole: 4 segments"));
    let ran = rig.run("$VERIFY --base e replica");
    ran.fails(2, "replica/bases has no base 'e'");
    ran.fails(2, "hint: it has b, c");
    rig.run("$VERIFY --base ../b replica").fails(2, "no base has such a name");
    rig.run("$VERIFY --base b --no-bases replica").fails(2, "cannot be used with");

    let json: serde_json::Value = serde_json::from_str(&rig.run("$VERIFY --json replica").out).unwrap();
    assert_eq!((&json["v"], &json["verdict"], &json["segments"]), (&1.into(), &"corrupt".into(), &4.into()));
    let finding = &json["findings"][0];
    assert_eq!(
        (&finding["kind"], &finding["base"], &finding["file"]),
        (&"corrupt".into(), &"b".into(), &"data/i".into())
    );
    assert!(finding["segment"].is_null() && finding["text"] == "base b: data/i: it is missing");
    let c = serde_json::json!({"name": "c", "files": 2, "bytes": 5, "position": "1-2:0",
        "time": "1970-01-01T00:00:01.5Z", "verdict": "whole"});
    assert_eq!((json["bases"].as_array().unwrap().len(), &json["bases"][1]), (2, &c));
    assert_eq!(json["bases"][0]["verdict"], "corrupt");
    // What is missing in a base does not weigh less for a gap in the log besides.
    fs::remove_file(rig.path("replica/log.2")).unwrap();
    let ran = rig.run("$VERIFY --json replica");
    assert_eq!(ran.code, 6);
    assert_eq!(rig.run("$VERIFY --no-bases replica").code, 3);
    // How far each recovery comes: up to the hole, and with a base of which the log is missing to where that ends; with
    // one that is damaged, none does.
    let json: serde_json::Value = serde_json::from_str(&ran.out).unwrap();
    let reach: Vec<_> =
        json["recoverable"].as_array().unwrap().iter().map(|one| (&one["base"], &one["position"])).collect();
    assert_eq!(reach, [(&serde_json::Value::Null, &"1-1:5000".into()), (&"c".into(), &"1-2:0".into())]);
    assert_eq!(json["recoverable"][1]["time"], "1970-01-01T00:00:01.5Z");
    assert!(rig.run("$VERIFY replica").out.ends_with(", recoverable to 1-2:0 by base c\n"));
}

/// All regular files below a directory, as paths from it.
fn files(root: &Path) -> Vec<String> {
    let tree = Tree::open(root).unwrap();
    let entries = tree.walk(|_, _| false).map(Result::unwrap);
    let files = entries.filter(|entry| entry.kind == repl::value::entry::Kind::File);
    files.map(|entry| String::from_utf8(entry.name.bytes().to_vec()).unwrap()).collect()
}

/// What of a line of `segments.jsonl` is proven; `None` when it is no such line.
fn proven_of(line: &[u8]) -> Option<[serde_json::Value; 4]> {
    let line: serde_json::Value = serde_json::from_slice(line).ok()?;
    Some(["v", "segment", "length", "b3"].map(|key| line[key].clone()))
}

fn options(with_bases: bool) -> Options {
    Options { bases: if with_bases { Which::All } else { Which::None }, ..Options::default() }
}

#[test]
fn every_flipped_bit_of_an_archive_is_found() {
    let rig = Rig::new();
    for (name, bytes) in [("log.1", "one"), ("log.2", "2"), ("log.3", "three")] {
        rig.write(name, bytes);
    }
    assert_eq!(rig.pass("--pattern log.%S", "").code, 0);
    rig.append("log.3", "!");
    assert_eq!(rig.pass("--pattern log.%S", "").code, 0);
    add_base(&rig, "b");
    let dir = Dir::open(&rig.replica()).unwrap();
    // (The half that a file is not in is left out: it is the same each time.)
    let code = |name: &str| match verify::run(&dir, &options(name.starts_with("bases/"))) {
        Ok(report) => report.code(),
        Err(error) => code_of(&error),
    };
    let mut seen = Vec::new();
    for name in files(&rig.replica()) {
        let path = rig.replica().join(&name);
        let bytes = fs::read(&path).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        // What was done and heard, and who holds a lock, say nothing of what is there.
        if matches!(name.as_str(), ".repl/history.jsonl" | ".repl/status.json" | ".repl/lock" | ".repl/lines.lock") {
            continue;
        }
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            file.write_all_at(&damaged[bit / 8..=bit / 8], (bit / 8) as u64).unwrap();
            let found = code(&name);
            file.write_all_at(&bytes[bit / 8..=bit / 8], (bit / 8) as u64).unwrap();
            // The master's words on a closed segment, its name again, and when it came, are nowhere else: what is proven
            // of its line is its number, length and digest.
            let is_same = name == ".repl/segments.jsonl" && {
                let lines = |bytes: &[u8]| bytes.split(|byte| *byte == b'\n').map(proven_of).collect::<Vec<_>>();
                lines(&damaged) == lines(&bytes)
            };
            assert_eq!(found == Code::Done, is_same, "bit {bit} of {name}: {found:?}");
            assert!(matches!(found, Code::Done | Code::Corrupt | Code::Gap), "bit {bit} of {name}: {found:?}");
        }
        seen.push(name);
    }
    assert_eq!((code("bases/"), code("log")), (Code::Done, Code::Done));
    let expected = [
        ".repl/B3SUMS",
        ".repl/instance",
        ".repl/origin",
        ".repl/position",
        ".repl/segments.jsonl",
        "bases/b/B3SUMS",
        "bases/b/base.toml",
        "bases/b/data/d/rows.db",
        "bases/b/data/i",
        "log.1",
        "log.2",
        "log.3",
    ];
    assert_eq!(seen, expected);
}

#[test]
fn a_record_of_what_is_held_that_is_damaged_is_told_though_the_other_one_holds() {
    let rig = replica();
    rig.append("log.4", "more");
    assert_eq!(rig.pass("--pattern log.%S", "").code, 0);
    let path = rig.path("replica/.repl/position");
    let kept = fs::read(&path).unwrap();
    let word = |slot: usize, key: &str| {
        let text = std::str::from_utf8(&kept[slot * 512..][..512]).unwrap();
        text.split(' ').find_map(|word| word.strip_prefix(key)).unwrap().to_owned()
    };
    let count = |slot| word(slot, "n=").parse::<u32>().unwrap();
    let newest = usize::from(count(1) > count(0));
    assert_eq!(word(newest, "at="), "1-4:5004");
    for slot in [newest, 1 - newest] {
        let end = word(1 - slot, "at=");
        flip(path.clone(), slot as u64 * 512 + 20);
        let ran = rig.run("$VERIFY replica");
        ran.fails(6, "corrupt (1 found)");
        let words =
            format!("one of the two records in position is damaged; by the other one, what is held ends at {end}\n");
        assert!(ran.out.contains(&words), "{ran:?}");
        fs::write(&path, &kept).unwrap();
    }
}

/// What prints, at the other side, what is held there and what is asked for.
const THERE: &str = r"$VERIFY --digests --at \$REPL_AT";

#[test]
fn digests_are_lines_that_two_sites_have_in_common() {
    let rig = replica();
    add_base(&rig, "b");
    let said = rig.ok("$VERIFY --digests replica");
    let sum = |sequence: u64, length: usize| Digest::of(&noise(5000, sequence)[..length]);
    let lines = |said: &str| said.lines().skip(1).map(str::to_owned).collect::<Vec<_>>();
    let expected = [
        format!("closed at=1-1:5000 b3={}", sum(1, 5000)),
        format!("closed at=1-2:5000 b3={}", sum(2, 5000)),
        format!("closed at=1-3:5000 b3={}", sum(3, 5000)),
        format!("open at=1-4:5000 b3={}", sum(4, 5000)),
        "end segments=4".to_owned(),
    ];
    assert_eq!(lines(&said), expected);
    assert!(said.starts_with("repl-digests v=1 set="), "{said}");
    assert!(
        said.lines().next().unwrap().ends_with(" engine=plain pattern=log.%25S identity=- segment-size=0"),
        "{said}"
    );
    assert_eq!(lines(&rig.ok("$VERIFY --pattern log.%S --digests master")), expected);
    let at = rig.ok("$VERIFY --digests --at 1-4:17 replica");
    assert!(at.ends_with(&format!("prefix at=1-4:17 b3={}\nend segments=4\n", sum(4, 17))), "{at}");
    assert_eq!(rig.ok("$VERIFY --digests --at 1-4:5001 replica"), said);
    // Of what has a hole there are the lines that are left, of what is damaged none.
    fs::remove_file(rig.path("replica/log.2")).unwrap();
    let ran = rig.run("$VERIFY --digests replica");
    assert_eq!((ran.code, ran.out.lines().count()), (3, 5), "{ran:?}");
    flip(rig.path("replica/log.3"), 0);
    let ran = rig.run("$VERIFY --digests replica");
    assert_eq!((ran.code, ran.out.as_str()), (6, ""));
    rig.run("$VERIFY --digests --json replica").fails(2, "cannot be used with");
}

/// Compares the replica with the master.
fn against(rig: &Rig, options: &str) -> super::rig::Ran {
    rig.run(&format!("$VERIFY {options} --against \"{THERE} --pattern log.%S master\" replica"))
}

fn summary(ran: &super::rig::Ran) -> (i32, &str) {
    (ran.code, ran.out.lines().last().unwrap_or_default())
}

#[test]
fn a_site_is_compared_with_another_one_without_its_log() {
    let rig = replica();
    let says = |words: &str| assert_eq!(summary(&against(&rig, "")), (0, words));
    says("equal: 4 segments, 20000 bytes the same");
    // The master has gone on, in the open segment and behind it.
    rig.append("log.4", "more");
    says("equal: 3 segments, 20000 bytes the same, behind by 0 segments, 4 bytes");
    rig.write("log.5", "next");
    says("equal: 3 segments, 20000 bytes the same, behind by 1 segments, 8 bytes");
    let json: serde_json::Value = serde_json::from_str(&against(&rig, "--json").out).unwrap();
    assert_eq!(json["against"]["behind"], serde_json::json!({"segments": 1, "bytes": 8}));
    assert_eq!((&json["against"]["verdict"], &json["verdict"]), (&"equal".into(), &"whole".into()));
    // Seen from the other side, it is ahead.
    let ran = rig.run("$VERIFY --pattern log.%S --against \"$VERIFY --digests replica\" master");
    assert_eq!(summary(&ran), (0, "equal: 3 segments, 20000 bytes the same, ahead by 1 segments, 8 bytes"));
    // Where it is not asked for, nothing of the open segment can be proven.
    let ran = rig.run("$VERIFY --against \"$VERIFY --pattern log.%S --digests master\" replica");
    let unproven = "equal: 3 segments, 15000 bytes the same, behind by 1 segments, 8 bytes, nothing proven of 1-4:5000";
    assert_eq!(summary(&ran), (0, unproven));
    // The master gives up what it no longer needs.
    fs::remove_file(rig.path("master/log.1")).unwrap();
    says(
        "equal: 2 segments, 15000 bytes the same, behind by 1 segments, 8 bytes, older only here 1 segments, 5000 bytes",
    );
    // Until this site ends before it begins.
    for sequence in 2..=5 {
        fs::remove_file(rig.path(&format!("master/log.{sequence}"))).unwrap();
    }
    rig.write("log.7", "far");
    let ran = against(&rig, "");
    assert!(ran.out.contains("gap - the other site begins with 1-7, this one ends with 1-4\n"), "{ran:?}");
    ran.fails(3, "between this site's log and the other one's is a gap");
}

#[test]
fn another_history_is_diverged_and_the_first_segment_is_named_with_both_digests() {
    let rig = replica();
    for (sequence, offset) in [(2, 4999), (4, 4999), (4, 0)] {
        let (name, kept) = (format!("log.{sequence}"), noise(5000, sequence));
        flip(rig.master().join(&name), offset);
        let ran = against(&rig, "");
        ran.fails(4, "replica: diverged");
        let (own, other) = (Digest::of(&kept), Digest::of(&fs::read(rig.master().join(&name)).unwrap()));
        let line =
            format!("diverged 1-{sequence} up to 1-{sequence}:5000 it has digest {own} here and {other} there\n");
        assert!(ran.out.contains(&line), "{ran:?}");
        rig.write(&name, &kept);
    }
    // In an open one that has more bytes at one side, seen from either.
    rig.append("log.4", "more");
    flip(rig.path("master/log.4"), 17);
    let other_way = rig.run("$VERIFY --pattern log.%S --against \"$VERIFY --digests replica\" master");
    for ran in [against(&rig, ""), other_way] {
        ran.fails(4, "diverged");
        assert!(ran.out.contains("diverged 1-4 up to 1-4:5000 "), "{ran:?}");
    }
    // A closed one that has another length.
    rig.write("log.4", noise(5000, 4));
    rig.append("log.3", "more");
    let ran = against(&rig, "");
    ran.fails(4, "diverged");
    assert!(ran.out.contains("diverged 1-3 it has 5000 bytes here and 5004 there\n"), "{ran:?}");
}

#[test]
fn a_hole_or_damage_at_either_side_has_its_code() {
    let rig = replica();
    fs::remove_file(rig.path("master/log.2")).unwrap();
    let ran = against(&rig, "");
    ran.fails(3, "between this site's log and the other one's is a gap");
    assert!(ran.out.contains("gap - the other site has a hole: 1-3 comes after 1-1\n"), "{ran:?}");
    rig.write("log.2", noise(5000, 2));
    fs::remove_file(rig.path("replica/log.2")).unwrap();
    against(&rig, "").fails(3, "replica: gap (1 found)");
    // A second history weighs more than a hole, and damage here more than both: then the other one is not asked.
    flip(rig.path("master/log.3"), 9);
    against(&rig, "").fails(4, "diverged");
    flip(rig.path("replica/log.3"), 9);
    rig.run("$VERIFY --against 'touch asked' replica").fails(6, "replica: corrupt");
    assert!(!rig.path("asked").exists());
    // Seen from the other side, it is the verdict of the one that has it.
    let ran = rig.run("$VERIFY --pattern log.%S --against \"$VERIFY --digests replica\" master");
    ran.fails(6, "the --against command exited with 6: repl-verify: replica: corrupt (2 found)");
}

#[test]
fn what_another_site_says_is_not_believed_and_a_command_that_fails_is_a_link() {
    let rig = replica();
    let against = |command: &str| rig.run(&format!("$VERIFY --timeout 20s --against '{command}' replica"));
    against("echo Welcome to mars; $VERIFY --digests replica").fails(6, "line 1 is none");
    against("$VERIFY --digests replica | head -n 3").fails(6, "its last line is missing");
    against("$VERIFY --digests replica | tac").fails(6, "line 1 is none");
    against("true").fails(6, "its last line is missing");
    against("head -c 1000000 /dev/urandom").fails(6, "does not print what repl-verify --digests does");
    against("exec yes").fails(6, "has printed more than 67108864 bytes");
    against("$VERIFY --digests replica | sed s/engine=plain/engine=bdb/").fails(5, "this log is of engine 'plain'");
    against("$VERIFY --digests replica | sed \"s/log.%25S/log%1B.%25S/\"").fails(5, "the other one of 'log\\u{1b}.%S'");
    against("echo no route to mars >&2; exit 255").fails(8, "the --against command exited with 255: no route to mars");
    against("/no/such/command").fails(8, "exited with 127");
    against("kill -9 $$").fails(8, "was killed by signal 9");
    against("$VERIFY --digests nowhere").fails(8, "exited with 1");
    against("$VERIFY --no-such-option").fails(2, "exited with 2");
    let ran = rig.run("$VERIFY --timeout 50ms --against 'exec sleep 1000' replica");
    ran.fails(8, "took too long");
    assert!(ran.out.starts_with("whole: 4 segments"), "{ran:?}");
}

#[test]
fn a_live_databases_log_and_its_replica_are_equal() {
    let rig = Rig::new();
    crate::made_by_berkeley_db(&rig, 3000);
    assert_eq!(rig.pass("", "").code, 0);
    let ran = rig.run(&format!("$VERIFY --against \"{THERE} master\" replica"));
    let (code, words) = summary(&ran);
    assert!(code == 0 && words.starts_with("equal: ") && words.ends_with(" bytes the same"), "{ran:?}");
}
