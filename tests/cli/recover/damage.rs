//! A matrix of damage: which file, where, what; the exact verdict for each, and that nothing is touched.

use std::fs;
use std::os::unix::fs::FileExt as _;

use super::{LENGTH, Vault, noise, up_to};

/// Flips a bit of a file below `archive`.
fn flip(vault: &Vault, name: &str, offset: u64) {
    let path = vault.rig.path("archive").join(name);
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 1], offset).unwrap();
}

/// Does something in `archive`, sees it refused, and puts all back.
#[track_caller]
fn refused(vault: &Vault, damage: &str, code: i32, says: &str) {
    vault.rig.ok(&format!("cp -a archive kept && cd archive && {damage}"));
    vault.refuses("", code, says);
    vault.refuses("--drill", code, says);
    vault.rig.ok("rm -r archive && mv kept archive");
}

#[test]
fn segments_that_are_missing_are_3_and_what_can_be_reached_is_said() {
    let vault = Vault::logs();
    refused(&vault, "rm log.1", 3, "log.1 is missing");
    refused(&vault, "rm log.2", 3, "hint: --until 1-1:5000 can be reached");
    refused(&vault, "rm log.3", 3, "hint: --until 1-2:5000 can be reached");
    refused(&vault, "rm log.4", 3, "log.4 is missing");
    refused(&vault, "rm log.2 log.3", 3, "hint: --until 1-1:5000 can be reached");
    refused(&vault, "rm log.?", 3, "");
    vault.rig.ok("rm archive/log.3");
    let told = vault.recover("--until 1-2:5000");
    assert_eq!(vault.laid("target"), up_to(2, LENGTH));
    // What cannot be brought back is told.
    let lost = "log.3 is missing; it is recorded as held";
    assert_eq!((&told["held"], &told["lost"]), (&"1-4:5000".into(), &serde_json::json!([lost])));
    vault.rig.ok("rm -r target");
    let said = vault.rig.ok("$RECOVER --archive archive --target target --until 1-2:5000");
    assert!(said.ends_with(&format!(" s\nbehind that {lost}\n")), "{said}");
}

#[test]
fn segments_that_are_damaged_are_6() {
    let vault = Vault::logs();
    for at in 1..=4 {
        for offset in [0, 1, LENGTH / 2, LENGTH - 1] {
            let name = format!("log.{at}");
            vault.rig.ok("cp -a archive kept");
            flip(&vault, &name, offset as u64);
            vault.refuses("", 6, &name);
            vault.rig.ok("rm -r archive && mv kept archive");
        }
        for length in [0, 1, LENGTH - 1] {
            vault.rig.ok("cp -a archive kept");
            vault.rig.ok(&format!("truncate -s {length} archive/log.{at}"));
            vault.refuses(&format!("--until 1-{at}:1"), 6, &format!("log.{at}"));
            vault.rig.ok("rm -r archive && mv kept archive");
            refused(&vault, &format!("truncate -s {length} log.{at}"), 6, &format!("log.{at}"));
        }
    }
    for at in 1..=3 {
        refused(&vault, &format!("echo more >> log.{at}"), 6, &format!("log.{at}"));
    }
    refused(&vault, "mv log.2 x && mv log.3 log.2 && mv x log.3", 6, "log.2");
    refused(&vault, "cp log.1 log.4", 6, "log.4");
    // Both a hole and damage.
    refused(&vault, "rm log.2 && echo more >> log.3", 6, "log.3");
}

#[test]
fn what_lies_behind_the_end_counts_for_nothing() {
    let vault = Vault::logs();
    vault.rig.ok("echo torn >> archive/log.4; echo stray > archive/log.5");
    vault.recover("");
    assert_eq!(vault.laid("target"), up_to(4, LENGTH));
    vault.rig.ok("rm -r target");
    // And what is wrong behind --until, neither.
    flip(&vault, "log.4", 5);
    vault.rig.ok("rm archive/log.3");
    vault.recover("--until 1-2:100");
    assert_eq!(vault.laid("target"), up_to(2, 100));
}

#[test]
fn records_of_the_archive_that_are_damaged_are_6() {
    let vault = Vault::logs();
    refused(&vault, "sed -i 2d .repl/B3SUMS", 6, "B3SUMS");
    refused(&vault, "sed -i 's/^./x/' .repl/B3SUMS", 6, "B3SUMS");
    refused(&vault, "rm .repl/B3SUMS", 6, "B3SUMS");
    refused(&vault, "rm .repl/position", 6, "position");
    refused(&vault, "truncate -s 0 .repl/position", 6, "position");
    refused(&vault, "echo x >> .repl/origin", 6, "origin");
}

/// As a crash in the midst of a write leaves it; the next write, which would mend it, may never come.
#[test]
fn a_position_of_which_one_record_is_torn_is_6_and_the_other_one_can_be_reached() {
    let vault = Vault::logs();
    vault.rig.append("log.4", "more");
    vault.ship("archive");
    for offset in [5, 517] {
        vault.rig.ok("cp -a archive kept");
        flip(&vault, ".repl/position", offset);
        let ran = vault.run("--target target");
        ran.fails(6, "one of the two records in position is damaged");
        let hint = ran.err.lines().find_map(|line| line.strip_prefix("hint: --until 1-4:")).unwrap();
        let length = hint.split_once(' ').unwrap().0;
        vault.recover(&format!("--until 1-4:{length}"));
        assert_eq!(vault.laid("target"), up_to(4, length.parse().unwrap()));
        vault.rig.ok("rm -r target archive && mv kept archive");
    }
}

#[test]
fn a_base_that_is_damaged_is_6_and_another_one_is_named() {
    let vault = Vault::based();
    let damage = [
        "rm bases/one/B3SUMS",
        "sed -i 1d bases/one/B3SUMS",
        "sed -i 's/^./x/' bases/one/B3SUMS",
        "rm bases/one/base.toml",
        "sed -i 's/^v = 1/v = 2/' bases/one/base.toml",
        "sed -i 's/1-2:5000/1-3:5000/' bases/one/base.toml",
        "rm bases/one/data/table",
        "truncate -s 9999 bases/one/data/table",
        "echo more > bases/one/data/more",
        "rm -r bases/one/data",
    ];
    for damage in damage {
        refused(&vault, damage, 6, "one");
    }
    for offset in [0, 5000, 9999] {
        vault.rig.ok("cp -a archive kept");
        flip(&vault, "bases/one/data/table", offset);
        vault.refuses("", 6, "base one is damaged: data/table");
        vault.rig.ok("rm -r archive && mv kept archive");
    }
    vault.rig.ok("echo more > master/more && $BASE --name two master archive");
    refused(&vault, "rm bases/two/data/more", 6, "hint: --base one may be whole");
    vault.rig.ok("rm archive/bases/two/data/more");
    assert_eq!(vault.recover("--base one")["base"], "one");
}

#[test]
fn a_hole_between_the_base_and_the_log_is_3() {
    let vault = Vault::based();
    vault.rig.ok("rm master/log.1 master/log.2 master/log.3");
    vault.ship("late");
    // No base: the log does not begin with the set.
    let late = |options: &str| vault.rig.run(&format!("$RECOVER --archive late --target target {options}"));
    late("").fails(3, "the log begins with 1-4");
    vault.rig.ok("cp -a archive/bases late/bases");
    late("").fails(3, "base one needs log from 1-2 on, and it begins with 1-4");
    late("--base none").fails(3, "the log begins with 1-4");
    assert!(!vault.rig.path("target").exists());
    // What the base itself has can be reached, as is said.
    vault.rig.ok("$RECOVER --archive late --target target --until 1-2:5000");
    assert_eq!(vault.laid_again("target"), 2);
}

#[test]
fn the_log_of_another_database_is_6() {
    let vault = Vault::based();
    vault.rig.ok("mkdir other && mv master/log.* other/");
    (1..=4).for_each(|at| vault.rig.write(&format!("log.{at}"), noise(LENGTH, 100 + at)));
    vault.ship("foreign");
    vault.rig.ok("cp -a archive/bases foreign/bases");
    vault.rig.run("$RECOVER --archive foreign --target target").fails(6, "the log is not the base's");
    assert!(!vault.rig.path("target").exists());
}
