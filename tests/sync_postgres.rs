//! Resyncs of PostgreSQL standbys: from a master that goes on writing, by the commands that the profile knows by itself,
//! and whatever goes wrong in between. The servers themselves are the judges.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/rig.rs"]
mod rig;

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use postgres::{Postgres, Stage, Stop};
use rig::{Ran, Running, Sshd, eventually};
use serde_json::Value;

/// What a standby has of its own, and nobody else.
const OWN: [&str; 5] = ["postgresql.conf", "postgresql.auto.conf", "pg_hba.conf", "standby.signal", "postmaster.opts"];

/// A sum over all columns of all rows of pgbench's tables, in any order.
fn contents(server: &Postgres) -> String {
    let sum = |table: &str| {
        server.sql(&format!("select count(*) || ' ' || coalesce(sum(hashtextextended(t::text, 0)), 0) from {table} t"))
    };
    ["pgbench_accounts", "pgbench_branches", "pgbench_tellers", "pgbench_history"].map(sum).join(", ")
}

/// A master, and a standby that was fed for a while and then was not, while the master got its tables.
fn stale<'a>(stage: &'a Stage, scale: u32) -> (Postgres<'a>, Postgres<'a>) {
    let master = Postgres::init(stage, "master", 1, "max_wal_size = 64MB\n");
    master.sql("create table early (n int)");
    let mut standby = master.standby("standby");
    standby.set("cluster_name = 'its own'\n");
    stage.ok("echo \"work_mem = '5MB'\" >>standby/postgresql.auto.conf");
    stage.ok("$SHIP -S --state old --via '$APPLY --acks standby/pg_wal' master/pg_wal");
    standby.start();
    if scale > 0 {
        master.fill(scale);
    }
    (master, standby)
}

/// The line of a resync from a master into a directory.
fn line(master: &Postgres, options: &str, from: &str, to: &str) -> String {
    format!("$SYNC --dsn '{}' --delete {options} {from} {to}", master.dsn())
}

/// Runs it as the user who runs the test: as root, the servers are still their own users'.
fn sync(stage: &Stage, master: &Postgres, options: &str, from: &str, to: &str) -> Ran {
    Ran::from(stage.sh_as_root(&line(master, options, from, to)).output().unwrap())
}

/// What `--json` says at the end.
#[track_caller]
fn report(ran: &Ran) -> Value {
    assert_eq!(ran.code, 0, "{ran:?}");
    serde_json::from_str(ran.out.lines().last().unwrap()).unwrap()
}

fn own(standby: &Postgres) -> Vec<Vec<u8>> {
    OWN.iter().map(|name| fs::read(standby.data.join(name)).unwrap_or_else(|_| panic!("{name}"))).collect()
}

/// Follows by a one-way pipe from where a resync has said.
fn feed(stage: &Stage, from: &str, position: &str, to: &str) -> Running {
    stage.spawn("feed", &format!("$SHIP --state feed --from {position} {from}/pg_wal | $APPLY {to}/pg_wal"))
}

/// Files are told in the order in which they are read: the control file behind the data, the log behind that.
fn assert_log_is_last(ran: &Ran) {
    let files = ran.out.lines().filter_map(|line| line.strip_prefix(">f")?.split_once(' '));
    let names: Vec<&str> = files.map(|(_, name)| name).collect();
    let control = names.iter().rposition(|name| *name == "global/pg_control").expect("it changes at each checkpoint");
    let behind = &names[control + 1..];
    assert!(!behind.is_empty() && behind.iter().all(|name| name.starts_with("pg_wal/")), "{behind:?}");
}

/// The whole of it: a stale standby, a master under load, and the log that goes on where the copy ends.
fn resync(options: &str, over: &dyn Fn(&Stage) -> (String, String, String)) {
    let stage = Stage::new();
    let (mut master, mut standby) = stale(&stage, 2);
    let (before, inode) = (own(&standby), fs::metadata(&standby.data).unwrap().ino());
    let bench = master.bench("-c 2 -R 200 -T 600");
    let (more, from, to) = over(&stage);
    let ran = sync(&stage, &master, &format!("{options} {more} --json --itemize"), &from, &to);
    standby.stopped_by_another();
    let told = report(&ran);
    assert_log_is_last(&ran);
    assert_eq!(told["mode"], options.trim_start_matches("--"));
    assert_eq!(fs::metadata(&standby.data).unwrap().ino() == inode, options == "--inplace");
    assert!(told["passes"].as_u64().unwrap() > 1, "{told}");
    let bytes = |key: &str| told[key].as_u64().unwrap();
    assert!(bytes("last_literal_bytes") * 2 < bytes("literal_bytes"), "{told}");
    let down = told["downtime_seconds"].as_f64().unwrap();
    eprintln!("{options}: down for {down:.3} s of {} s", told["seconds"]);
    assert_eq!(own(&standby), before);
    assert_eq!(standby.sql("show cluster_name; select pg_is_in_recovery()"), "its own\nt");
    // What the old log's position said is gone with the old log.
    let position = told["position"].as_str().unwrap();
    assert_eq!(stage.ok("$APPLY --position standby/pg_wal"), "oldest\n");
    let feed = feed(&stage, "master", position, "standby");
    let end = master.current_lsn();
    standby.reaches(end + (1 << 20));
    drop(bench);
    standby.reaches(master.current_lsn());
    assert_eq!(contents(&standby), contents(&master));
    drop(feed);
    // A stop and a start of both later, too.
    master.stop(Stop::Fast);
    stage.ok("pg_ctl -D standby -m fast -w stop");
    standby.start();
}

#[test]
fn a_standby_is_resynced_in_place_while_its_master_is_written_to() {
    resync("--inplace", &|_| (String::new(), "master".into(), "standby".into()));
}

#[test]
fn a_standby_is_resynced_by_a_stage_over_ssh_while_its_master_is_written_to() {
    let sshd = Sshd::start();
    let ssh = sshd.ssh();
    resync("--stage", &|stage| {
        let rsh = ssh.strip_suffix(" slave").unwrap();
        let options = format!("-e '{rsh}' --remote-command $SYNC");
        (options, format!("slave:{}", stage.path("master").display()), "standby".into())
    });
}
