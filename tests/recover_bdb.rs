//! Berkeley DB environments brought back from an archive: from log alone, and from a base and the log behind it. The rows
//! are those whose commits are in the archived log.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/bdb.rs"]
mod bdb;
#[path = "support/rig.rs"]
mod rig;

use std::fs;

use rig::{Rig, Running, eventually, kill_often};

fn writer(rig: &Rig) -> Running {
    fs::write(rig.path("writer.py"), bdb::WRITE).unwrap();
    rig.ok("mkdir master/tables && echo set_data_dir tables > master/DB_CONFIG");
    rig.spawn("exec /usr/bin/python3 writer.py master")
}

fn ship(rig: &Rig) {
    rig.ok("$SHIP -S --state shipped --via '$APPLY --logs-only --acks archive' master");
}

#[track_caller]
fn assert_rows(rig: &Rig, target: &str) {
    let (log, rows) = (bdb::python(bdb::COMMITS, &rig.path("archive")), bdb::python(bdb::LOOK, &rig.path(target)));
    let (missing, extra) = (log.difference(&rows).count(), rows.difference(&log).count());
    assert_eq!((missing, extra), (0, 0), "{target}: of {} committed", log.len());
    assert!(!log.is_empty());
}

/// All that is in the archive.
fn list(rig: &Rig) -> String {
    rig.ok("cd archive && find . -type f -printf '%p %s %T@\n' | sort | b3sum")
}

#[test]
fn an_environment_comes_back_from_log_alone_and_from_a_base_and_later_log() {
    let rig = Rig::new();
    let mut writer = writer(&rig);
    eventually("some log files", || rig.master().join("log.0000000002").exists());
    ship(&rig);
    rig.ok("$BASE --name one master archive");
    eventually("more log files", || rig.master().join("log.0000000004").exists());
    ship(&rig);
    assert!(writer.child.try_wait().unwrap().is_none(), "{}", writer.err());
    drop(writer);
    let before = list(&rig);
    rig.ok("$RECOVER --archive archive --target alone --base none");
    assert_rows(&rig, "alone");
    assert!(rig.path("alone/tables/rows.db").exists(), "where the master's DB_CONFIG has it");
    rig.ok("$RECOVER --archive archive --target based");
    assert_rows(&rig, "based");
    assert_eq!(list(&rig), before);
    // Killed at any instant and run again, it ends the same.
    let command = "$RECOVER --archive archive --target killed";
    let killed = kill_often(100, "rm -rf killed", command, &|script| rig.run(script));
    assert!(killed > 30, "{killed}");
    rig.ok(&format!("test -e killed/.repl-recovered || {command}"));
    assert_rows(&rig, "killed");
    assert_eq!(list(&rig), before);
}
