//! `repl-verify`: exact verdicts for a matrix of damage, on replicas and on a real Berkeley DB master.

use std::fs;
use std::os::unix::fs::FileExt as _;

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
