//! `scripts/mariadb-replica`: a running replica from nothing, over a real ssh connection; run again; interrupted; refused.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/mariadb.rs"]
mod mariadb;
#[path = "support/rig.rs"]
mod rig;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use mariadb::Mariadb;
use rig::{APPLY, Ran, Rig, SHIP, Sshd, eventually};
use rustix::process::{Pid, Signal, kill_process};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/mariadb-replica");

/// A command line that does not run as root.
fn unprivileged() -> &'static str {
    if rustix::process::geteuid().is_root() { "setpriv --reuid mysql --regid mysql --clear-groups" } else { "env" }
}

/// Gives a file to the far side's user.
fn give(path: &Path) {
    if rustix::process::geteuid().is_root() {
        assert!(Command::new("chown").args(["-R", "mysql:"]).arg(path).status().unwrap().success());
    }
}

/// A far side: an sshd, a directory, and what is started there. The script runs with its state in the rig.
struct Stage {
    rig: Rig,
    _sshd: Sshd,
    /// What the far side's user owns.
    far: tempfile::TempDir,
}

impl Stage {
    fn new() -> Stage {
        let (rig, sshd) = (Rig::new(), Sshd::start());
        let far = tempfile::Builder::new().prefix("far").tempdir().unwrap();
        fs::copy(APPLY, far.path().join("repl-apply")).unwrap();
        // The far side's user is not the one who may log in here.
        let rsh = format!("#!/bin/bash\nexec {} {} bash -c \"$(printf %q \"$1\")\"\n", sshd.ssh(), unprivileged());
        fs::write(rig.path("rsh"), rsh).unwrap();
        fs::set_permissions(rig.path("rsh"), fs::Permissions::from_mode(0o755)).unwrap();
        let stage = Stage { rig, _sshd: sshd, far };
        give(stage.far.path());
        stage
    }

    fn replica(&self) -> PathBuf {
        self.far.path().join("replica")
    }

    /// Runs the script for a master, with these options.
    fn make(&self, master: &Mariadb, options: &str) -> Ran {
        let bin = Path::new(SHIP).parent().unwrap().display().to_string();
        self.rig.run(&format!(
            "export PATH={}:{bin}:$PATH; {SCRIPT} --rsh {} --remote-apply {}/repl-apply --user root {options} {} {}",
            self.rig.path("shims").display(),
            self.rig.path("rsh").display(),
            self.far.path().display(),
            master.config().display(),
            self.replica().display(),
        ))
    }

    /// Runs a sub-command at the far side.
    fn own(&self, what: &str) -> Ran {
        self.rig.run(&format!("{} {SCRIPT} {what} {}", unprivileged(), self.replica().display()))
    }

    fn sql(&self, statements: &str) -> String {
        let config = format!("--defaults-file={}/my.cnf", self.replica().display());
        let ran = Command::new("mariadb").args([&config, "-sN", "-e", statements]).output().unwrap();
        String::from_utf8(ran.stdout).unwrap().trim_end().to_owned()
    }

    /// The sender that was left running.
    fn ship(&self) -> Option<Pid> {
        let states = fs::read_dir(self.rig.path("xdg/repl/mariadb-replica")).ok()?;
        let locks = states.filter_map(|state| fs::read_to_string(state.ok()?.path().join("ship/lock")).ok());
        let mut pids = locks.filter_map(|text| Pid::from_raw(text.trim().strip_prefix("process ")?.parse().ok()?));
        pids.find(|pid| {
            let name = fs::read_to_string(format!("/proc/{}/comm", pid.as_raw_nonzero()));
            name.is_ok_and(|name| name.trim_end() == "repl-ship")
        })
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(pid) = self.ship() {
            let _ = kill_process(pid, Signal::TERM);
        }
        if self.replica().join("my.cnf").exists() {
            self.own("stop");
        }
    }
}

/// A server with log before the base, in some files.
fn master() -> Mariadb {
    let server = Mariadb::start_new(&[]);
    server.sql("create database d; create table d.bare(a int, t text); insert into d.bare values(1, 'before');");
    server.sql("flush binary logs; insert into d.bare values(2, 'in the base''s file'), (3, 'too');");
    server
}

const SUM: &str = "checksum table d.bare; select @@gtid_binlog_pos;";

#[test]
fn a_replica_from_nothing_follows_its_master_and_a_second_run_changes_nothing() {
    let (stage, master) = (Stage::new(), master());
    // First what would be done.
    let ran = stage.make(&master, "-n");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!((1..=8).all(|step| ran.out.contains(&format!("step {step}/8: "))), "{ran:?}");
    assert!(!stage.replica().exists() && !stage.rig.path("xdg").exists());
    let ran = stage.make(&master, "");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!((1..=8).all(|step| ran.out.contains(&format!("step {step}/8: "))), "{ran:?}");
    assert_eq!(stage.sql(SUM), master.sql(SUM));
    assert_eq!(stage.sql("select @@read_only, @@gtid_strict_mode;"), "1\t1");
    assert_ne!(stage.sql("select @@server_id;"), master.sql("select @@server_id;"));
    // Its log begins with the file in which the base ends.
    assert!(!stage.replica().join("log/bin.000001").exists() && stage.replica().join("log/bin.000002").exists());
    // It follows.
    master.sql("insert into d.bare values(4, 'after'); flush binary logs; insert into d.bare values(5, 'after');");
    eventually("the same rows", || stage.sql(SUM) == master.sql(SUM));
    // Again: all is there.
    let (server, ship) = (stage.own("status").out, stage.ship().unwrap());
    let ran = stage.make(&master, "");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.out.matches("done already").count(), 6, "{ran:?}");
    assert_eq!((stage.own("status").out, stage.ship().unwrap()), (server, ship));
    // The server alone.
    assert_eq!(stage.own("stop").code, 0);
    let ran = stage.own("status");
    assert_eq!((ran.code, ran.out.as_str()), (3, "stopped\n"));
    master.sql("insert into d.bare values(6, 'while it was away');");
    assert_eq!(stage.own("start").code, 0);
    assert_eq!(stage.own("status").code, 0);
    eventually("the same rows", || stage.sql(SUM) == master.sql(SUM));
    if rustix::process::geteuid().is_root() {
        for what in ["start", "stop"] {
            let ran = stage.rig.run(&format!("{SCRIPT} {what} {}", stage.replica().display()));
            ran.fails(2, "does not run as root");
        }
    }
}

/// Whatever fails, the same line goes on; `once` leaves nothing running but the server.
#[test]
fn an_interrupted_run_is_taken_up_where_it_was() {
    let (stage, master) = (Stage::new(), master());
    let shims = stage.rig.path("shims");
    fs::create_dir(&shims).unwrap();
    let shim = |name: &str, text: &str| {
        fs::write(shims.join(name), format!("#!/bin/bash\n{text}\n")).unwrap();
        fs::set_permissions(shims.join(name), fs::Permissions::from_mode(0o755)).unwrap();
    };
    // Half of a base, then none.
    shim("mariadb-backup", "/usr/bin/mariadb-backup \"$@\" | head -c 100000");
    stage.make(&master, "--ship once").fails(1, "did not arrive whole");
    shim("mariadb-backup", "echo broken >&2; exit 1");
    stage.make(&master, "--ship once").fails(1, "broken");
    assert!(stage.replica().join("mariadb-replica.state").exists());
    fs::remove_file(shims.join("mariadb-backup")).unwrap();
    // All is there but the log.
    shim("repl-ship", "[ \"$1\" = --version ] && exec $SHIP \"$@\"; exit 8");
    let ran = stage.make(&master, "--ship once");
    assert_eq!(ran.code, 8, "{ran:?}");
    fs::remove_file(shims.join("repl-ship")).unwrap();
    master.sql("insert into d.bare values(4, 'after');");
    let ran = stage.make(&master, "--ship once");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(stage.sql(SUM), master.sql(SUM));
    assert!(stage.ship().is_none());
}

#[test]
fn what_is_not_ours_is_refused_and_left_alone() {
    let (stage, master) = (Stage::new(), master());
    fs::create_dir(stage.replica()).unwrap();
    fs::write(stage.replica().join("precious"), "data").unwrap();
    give(&stage.replica());
    stage.make(&master, "").fails(13, "not empty and not ours");
    assert_eq!(fs::read_dir(stage.replica()).unwrap().count(), 1);
    fs::remove_dir_all(stage.replica()).unwrap();
    // Nor is a replica of another master.
    fs::create_dir(stage.replica()).unwrap();
    fs::write(stage.replica().join("mariadb-replica.state"), "master=venus:/var/lib/mysql/bin:7\nbase=begun\n")
        .unwrap();
    give(&stage.replica());
    stage.make(&master, "").fails(5, "of the master venus");
    fs::remove_dir_all(stage.replica()).unwrap();
    // A master that removes log by itself.
    master.sql("set global expire_logs_days = 7;");
    stage.make(&master, "").fails(2, "set global");
    assert!(!stage.replica().exists());
}
