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
fn stale(stage: &Stage, scale: u32) -> (Postgres<'_>, Postgres<'_>) {
    let master = Postgres::init(stage, "master", 1, "max_wal_size = 64MB\nfsync = off\n");
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
    assert_eq!(ran.code, 0, "{}", ran.err);
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
    let control = names.iter().rposition(|name| *name == "global/pg_control").expect("there was a checkpoint");
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
    // So that the last pass has something of each kind to read.
    let make = "create table late as select generate_series(1, 1000)";
    let hook = format!("--hook \"after-stop=psql -X -q -d '{}' -c '{make}' -c checkpoint\"", master.dsn());
    let ran = sync(&stage, &master, &format!("{options} {more} {hook} --json --itemize"), &from, &to);
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

#[test]
fn a_first_copy_is_a_standby_by_one_file_and_its_log_goes_on_where_it_was_told() {
    let stage = Stage::new();
    let master = Postgres::init(&stage, "master", 1, "max_wal_size = 64MB\n");
    master.fill(1);
    let bench = master.bench("-c 2 -R 200 -T 600");
    // As the servers' own user, who can do all that is needed.
    let ran = stage.run(&line(&master, "", "master", "standby"));
    assert_eq!(ran.code, 0, "{ran:?}");
    let (position, more) = ran.out.split_once('\n').unwrap();
    assert_eq!(more, "", "one line");
    let mut standby = Postgres::at(&stage, "standby");
    assert!(standby.data.join("backup_label").exists() && !standby.data.join("postmaster.pid").exists());
    stage.ok("touch standby/standby.signal");
    standby.set("restore_command = ''\nprimary_conninfo = ''\nwal_retrieve_retry_interval = 100ms\n");
    standby.start();
    let _feed = feed(&stage, "master", position, "standby");
    drop(bench);
    standby.reaches(master.current_lsn());
    assert_eq!(contents(&standby), contents(&master));
}

#[test]
fn an_old_master_is_made_a_standby_only_when_told_so_twice() {
    let stage = Stage::new();
    let (mut master, heir) = stale(&stage, 0);
    heir.reaches(lsn_before_end(&master));
    heir.promote();
    heir.sql("checkpoint; create table told as select 'by the heir' as what");
    master.sql("create table told as select 'by the old master, to nobody' as what");
    master.sql("checkpoint");
    let back = |options: &str| sync(&stage, &heir, options, "standby", "master");
    // It has what nobody else has.
    back("").fails(13, "which the source left at");
    // Started on a copy as it is, it would be one more master.
    back("--adopt").fails(13, "second master");
    assert_eq!(master.sql("select what from told"), "by the old master, to nobody");
    stage.ok("touch master/standby.signal");
    let ran = back("--adopt");
    assert_eq!(ran.code, 0, "{ran:?}");
    master.stopped_by_another();
    assert_eq!(master.sql("select pg_is_in_recovery(), what from told"), "t|by the heir");
    let _feed = feed(&stage, "standby", ran.out.trim(), "master");
    heir.sql("insert into told values ('later')");
    master.reaches(heir.current_lsn());
    assert_eq!(master.sql("select count(*) from told"), "2");
}

/// The last place that a stale standby was told of.
fn lsn_before_end(master: &Postgres) -> u64 {
    postgres::lsn(&master.sql("select redo_lsn from pg_control_checkpoint()"))
}

/// The standby runs on its old directory, of which nothing was changed: the same process where nothing stopped it.
#[track_caller]
fn is_as_before(standby: &Postgres, what: &str) {
    eventually(what, || standby.query("select 1").code == 0);
    assert_eq!(standby.sql("select count(*) from pg_class where relname like 'pgbench%'"), "0", "{what}");
    assert!(
        !standby.data.join(".repl-sync-incomplete").exists() && !standby.data.join("backup_label").exists(),
        "{what}"
    );
}

#[test]
fn what_must_not_be_overwritten_is_refused_and_left_as_it_runs() {
    let stage = Stage::new();
    let (master, standby) = stale(&stage, 1);
    let process = fs::read(standby.data.join("postmaster.pid")).unwrap();
    let refused = |code: i32, says: &str, options: &str, from: &str, to: &str| {
        sync(&stage, &master, options, from, to).fails(code, says);
        is_as_before(&standby, says);
        let same = fs::read(standby.data.join("postmaster.pid")).unwrap() == process;
        assert!(same, "it was restarted: {says}");
    };
    // Another database.
    stage.ok("initdb -D other -U postgres -A trust -N --wal-segsize=1");
    refused(13, "holds another database", "", "master", "other");
    refused(13, "holds another database", "", "other", "standby");
    // The wrong way round: the master is newer.
    master.sql("checkpoint");
    refused(13, "has what the source has not", "", "standby", "master");
    // Parts that lie elsewhere.
    stage.ok("mkdir elsewhere && ln -s \"$PWD/elsewhere\" master/pg_tblspc/17000");
    refused(13, "lies elsewhere: pg_tblspc/17000", "", "master", "standby");
    stage.ok("rm master/pg_tblspc/17000");
    // A stop command that does not.
    for mode in ["--inplace", "--stage"] {
        refused(13, "still runs", &format!("{mode} --stop true --hook-timeout 3s"), "master", "standby");
    }
    // Log is still landed there; a hook can see to that.
    let mut ship = stage.spawn("ship", "exec $SHIP --state old --via '$APPLY --acks standby/pg_wal' master/pg_wal");
    eventually("a receiver", || stage.run("flock -sn standby/pg_wal true").code != 0);
    let ran = sync(&stage, &master, "", "master", "standby");
    ran.fails(7, "log is still landed in the destination");
    let process = fs::read(standby.data.join("postmaster.pid")).unwrap() == process;
    assert!(process, "it was restarted");
    let wait = "while ! flock -sn standby/pg_wal true; do sleep 0.02; done";
    let hook = format!("--hook before-stop='kill {}; {wait}'", ship.child.id());
    let ran = sync(&stage, &master, &hook, "master", "standby");
    assert_eq!(ran.code, 0, "{ran:?}");
    ship.wait();
}

#[test]
fn whatever_dies_before_the_switch_the_standby_runs_on_what_it_had() {
    let stage = Stage::new();
    let (mut master, mut standby) = stale(&stage, 1);
    for mode in ["--inplace", "--stage"] {
        // The master's server.
        let end =
            "kill -QUIT $(head -n 1 master/postmaster.pid); while [ -e master/postmaster.pid ]; do sleep 0.02; done";
        let hook = format!("{mode} --hook after-stop='{end}'");
        let ran = sync(&stage, &master, &hook, "master", "standby");
        standby.stopped_by_another();
        ran.fails(9, "the backup at the source");
        is_as_before(&standby, mode);
        master.stopped_by_another();
        master.start();
    }
    // The end that drives, with the server down: a later run knows that it was us who stopped it.
    let ran = sync(&stage, &master, "--inplace --hook after-stop='kill -9 $PPID'", "master", "standby");
    assert_eq!(ran.code, -1, "{ran:?}");
    assert_ne!(standby.query("select 1").code, 0);
    let ran = sync(&stage, &master, "--hook before-sync=false", "master", "standby");
    assert_eq!(ran.code, 9, "{ran:?}");
    is_as_before(&standby, "after a run that came to nothing");
    // The end that has the master, and with it the link: the other end helps itself.
    let sshd = Sshd::start();
    let ssh = sshd.ssh();
    let far = format!("-e '{}' --remote-command $SYNC", ssh.strip_suffix(" slave").unwrap());
    let to = format!("slave:{}", standby.data.display());
    let before = fs::read(standby.data.join("postmaster.pid")).unwrap();
    let ran = sync(&stage, &master, &format!("{far} --hook after-stop='kill -9 $PPID'"), "master", &to);
    assert_eq!(ran.code, -1, "{ran:?}");
    let again = || fs::read(standby.data.join("postmaster.pid")).is_ok_and(|now| now != before);
    eventually("a new start by the far end itself", again);
    is_as_before(&standby, "the far end");
    // And after all that it is resynced.
    let ran = sync(&stage, &master, &far, "master", &to);
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(standby.sql("select count(*) from pgbench_accounts"), "100000");
}

#[test]
fn a_start_or_a_check_that_fails_leaves_the_new_directory_and_no_server() {
    let stage = Stage::new();
    let (master, mut standby) = stale(&stage, 1);
    let ran = sync(&stage, &master, "--stage --keep-old --start 'echo broken; exit 1'", "master", "standby");
    standby.stopped_by_another();
    ran.fails(9, "is the new one, whole");
    assert!(ran.err.contains("broken") && ran.err.contains("hint: repl-sync --rollback"), "{ran:?}");
    assert_ne!(standby.query("select 1").code, 0);
    // The old one comes back, and can be used.
    let back = Ran::from(stage.sh_as_root("$SYNC --rollback standby").output().unwrap());
    assert_eq!(back.code, 0, "{back:?}");
    stage.ok("pg_ctl -D standby -w restart >/dev/null");
    is_as_before(&standby, "rolled back");
    let ran = sync(&stage, &master, "--inplace --check 'echo unwell; exit 1'", "master", "standby");
    ran.fails(9, "unwell");
    assert_ne!(standby.query("select 1").code, 0, "the server is down");
    // The next run starts it.
    let ran = sync(
        &stage,
        &master,
        "--inplace --check 'psql -h .. -p $PORT -U postgres -c \"select 1\"'",
        "master",
        "standby",
    );
    ran.fails(9, "psql");
    let check = format!("--check 'psql \"{}\" -Atc \"select count(*) from pgbench_accounts\"'", standby.dsn());
    let ran = sync(&stage, &master, &check, "master", "standby");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(standby.sql("select count(*) from pgbench_accounts"), "100000");
}
