//! Recovery at another site: log and base are sent there over a real sshd, and the database is recovered there.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/bdb.rs"]
mod bdb;
#[path = "support/rig.rs"]
mod rig;

use std::fs;

use rig::{COMMANDS, Rig, Sshd, eventually};

#[test]
fn a_database_is_recovered_at_another_site() {
    let rig = Rig::new();
    let sshd = Sshd::start();
    fs::write(rig.path("writer.py"), bdb::WRITE).unwrap();
    let writer = rig.spawn("exec /usr/bin/python3 writer.py master");
    let ship = || rig.ok("$SHIP -S --state shipped --via '$APPLY --logs-only --acks archive' master");
    eventually("some log", || rig.master().join("log.0000000002").exists());
    ship();
    rig.ok("$BASE --name one master archive");
    eventually("more log", || rig.master().join("log.0000000005").exists());
    ship();
    drop(writer);
    // The far end finds the suite in its path.
    let bin = std::path::Path::new(COMMANDS[0].1).parent().unwrap().display().to_string();
    let at = format!("at() {{ {} \"PATH={bin}:$PATH $*\"; }}; at", sshd.ssh());
    fs::write(rig.path("at"), format!("#!/bin/bash\n{at} \"$@\"\n")).unwrap();
    let there = rig.path("there").display().to_string();
    let line = |more: &str| format!("$RECOVER --archive archive --at 'bash ./at' --target {there} {more}");
    let log = bdb::python(bdb::COMMITS, &rig.path("archive"));
    rig.run(&line("--check false")).fails(9, "the check command exited with 1");
    let told: serde_json::Value = serde_json::from_str(&rig.ok(&line("--json"))).unwrap();
    assert_eq!(told["base"], "one", "{told}");
    assert_eq!(bdb::python(bdb::LOOK, &rig.path("there")), log);
    rig.ok("$VERIFY -q there.archive");
    // What is refused there is refused here, by the same code.
    rig.run(&line("")).fails(13, "was recovered already");
    rig.run("$RECOVER --archive archive --at 'exit 255; true' --target x").fails(8, "at exit 255");
}
