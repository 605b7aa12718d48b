//! PostgreSQL's `archive_command`, its replication slots, and its promotions, with servers of their own.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/rig.rs"]
mod rig;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use postgres::{Postgres, Stage, Stop};
use rig::{eventually, segments};
use rustix::process::Signal;

/// Settings of a server that archives into `archive`; a standby that is made from it does the same once promoted.
fn archiving(stage: &Stage, archive: &str) -> String {
    let [ship, apply] = ["$SHIP", "$APPLY"].map(|name| stage.ok(&format!("echo {name}")).trim().to_owned());
    let (archive, state) = (stage.path(archive), stage.path("archiver"));
    format!(
        "archive_mode = on\narchive_command = '{ship} -q --state {} --segment %p --via \"exec {apply} --acks --logs-only \
         --append-only {}\"'\nmax_wal_size = 32MB\n",
        state.display(),
        archive.display()
    )
}

/// Names in a directory, hidden ones left out.
fn names(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.starts_with('.'))
        .collect()
}

/// Waits until nothing waits to be archived and this was archived.
fn archived(server: &Postgres<'_>, what: &str) {
    eventually("the archiver", || {
        let status = names(&server.wal().join("archive_status"));
        status.iter().all(|name| Path::new(name).extension().is_none_or(|kind| kind != "ready"))
            && server.sql("select coalesce(last_archived_wal, '') from pg_stat_archiver").trim() >= what
    });
}

/// The segment that a server writes now, which it then leaves.
fn switch(server: &Postgres<'_>) -> String {
    server.sql("select pg_logical_emit_message(false, 'x', 'y')");
    server.sql("select pg_walfile_name(pg_switch_wal())").trim().to_owned()
}

#[test]
fn an_archive_command_lands_everything_once_and_goes_on_after_a_promotion() {
    let stage = Stage::new();
    let mut master = Postgres::init(&stage, "master", 1, &archiving(&stage, "archive"));
    master.fill(1);
    let last = switch(&master);
    archived(&master, &last);
    assert_eq!(master.sql("select failed_count from pg_stat_archiver").trim(), "0", "{}", master.said());
    let archive = stage.path("archive");
    assert!(names(&archive).contains(&last));

    // Again the same: done already. Again the same name, with other bytes: refused, and nothing is changed.
    // (By a sender that has no state: it is the master's by its place alone, and one of a copy is not.)
    let again = |path: &str| {
        let ship = "env -u HOME -u XDG_STATE_HOME $SHIP";
        stage.run(&format!("{ship} --segment {path} --via 'exec $APPLY --acks --append-only archive'"))
    };
    let first = names(&archive).into_iter().next().unwrap();
    let own = format!("master/pg_wal/{first}");
    stage.ok(&format!("mkdir copies && cp archive/0* copies && {{ [ -e {own} ] || cp archive/{first} {own}; }}"));
    assert_eq!(again(&own).code, 0);
    if Path::new("/etc/machine-id").exists() {
        again(&format!("copies/{first}")).fails(5, "another instance");
    }
    let mut bytes = fs::read(stage.path("copies").join(&first)).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(stage.path("copies").join(&first), &bytes).unwrap();
    stage.ok(&format!("mv {own} kept && cp copies/{first} {own}"));
    let ran = again(&own);
    stage.ok(&format!("mv kept {own}"));
    assert!(matches!(ran.code, 4 | 6), "{ran:?}");
    assert_ne!(fs::read(archive.join(&first)).unwrap(), bytes);

    // A standby that lags, so that it is promoted in the middle of a segment that the master had archived a part of.
    let mut standby = master.standby("standby");
    let feed = stage.spawn("feed", "exec $SHIP --state feed --via \"$APPLY --acks standby/pg_wal\" master/pg_wal");
    standby.start();
    master.sql("create table kept as select generate_series(1, 1000) as id");
    standby.reaches(master.current_lsn());
    archived(&master, "");
    master.kill9();
    drop(feed);
    standby.promote();
    standby.sql("insert into kept select generate_series(1001, 2000)");
    let last = switch(&standby);
    assert!(last.starts_with("00000002"));
    archived(&standby, &last);
    let found = names(&archive);
    assert!(found.contains("00000002.history") && found.contains(&last), "{found:?}");
    let verified = stage.run("$VERIFY archive");
    assert_eq!(verified.code, 0, "{verified:?}");

    // The old master comes back and archives on: its history is not this one any more.
    master.start();
    master.sql("create table lost as select 1 as id");
    let lost = switch(&master);
    eventually("the refusal", || master.said().contains("archive command failed with exit code 5"));
    assert_eq!(names(&archive), found, "{lost} is of a history that was left");
    assert_eq!(stage.run("$VERIFY archive").code, 0);
    master.stop(Stop::Immediate);
}

#[test]
fn a_slot_keeps_log_until_it_is_flushed_and_a_lost_one_is_a_gap() {
    let stage = Stage::new();
    let master = Postgres::init(&stage, "master", 1, "max_wal_size = 4MB\nmin_wal_size = 2MB\nwal_keep_size = 0\n");
    let ship = format!(
        "exec $SHIP -q --state state --heartbeat 200ms --slot venus --dsn '{}' --via '$APPLY --acks archive' master/pg_wal",
        master.dsn()
    );
    let slot = || {
        let answer =
            master.sql("select wal_status, restart_lsn - '0/0' from pg_replication_slots where slot_name = 'venus'");
        let (status, place) = answer.trim().split_once('|').unwrap_or_default();
        (status.to_owned(), place.parse::<u64>().unwrap_or(0))
    };
    let mut running = stage.spawn("ship", &ship);
    eventually("the slot", || !slot().0.is_empty());
    // Nobody receives for a while: the log is kept, beyond what the server would keep by itself.
    running.signal(Signal::STOP);
    let before = slot().1;
    master.fill(2);
    master.sql("checkpoint");
    assert_eq!((slot().0.as_str(), slot().1 <= before), ("extended", true));
    running.signal(Signal::CONT);
    let end = master.current_lsn();
    eventually("the slot to follow", || slot().1 >= end);
    assert_eq!(slot().0, "reserved");

    // Kept too little for one that is away too long: the server gives it up, and that is not passed over.
    running.signal(Signal::STOP);
    master.sql("alter system set max_slot_wal_keep_size = '2MB'");
    master.sql("select pg_reload_conf()");
    master.fill(2);
    eventually("the slot to be lost", || {
        master.sql("checkpoint");
        slot().0 == "lost"
    });
    running.signal(Signal::CONT);
    let ran = running.wait();
    assert_eq!(ran.code, 3, "{ran:?}");
    let ran = stage.run(&ship);
    assert_eq!(ran.code, 3, "{ran:?}");
    assert!(ran.err.contains("given up replication slot venus") && ran.err.contains("hint: resync"), "{ran:?}");
}

/// The server alone removes its log: it is told what consumers have, and no file goes by our hand.
#[test]
fn a_slot_is_moved_on_to_what_all_consumers_have() {
    let stage = Stage::new();
    let master = Postgres::init(&stage, "master", 1, "max_wal_size = 4MB\nmin_wal_size = 2MB\nwal_keep_size = 0\n");
    master.sql("select pg_create_physical_replication_slot('venus', true)");
    let place = || master.sql("select restart_lsn - '0/0' from pg_replication_slots").trim().parse::<u64>().unwrap();
    let before = place();
    master.fill(2);
    let prune = format!("$PRUNE --state state --min-free 0 --slot venus --dsn '{}'", master.dsn());
    let now = master.current_lsn();
    let (first, last) = ((before >> 20) + 2, (now >> 20) - 1);
    stage.ok(&format!("{prune} --consumer a=1-{last}:0 --consumer b=1-{first}:8192 master/pg_wal"));
    let there = segments(&master.wal()).len();
    stage.ok(&format!(
        "strace -f -qq -o trace -e trace=unlink,unlinkat,rename,renameat,renameat2 {prune} master/pg_wal"
    ));
    assert_eq!(place(), (first << 20) + 8192);
    assert!(segments(&master.wal()).len() >= there);
    let trace = fs::read_to_string(stage.path("trace")).unwrap();
    assert!(!trace.contains("pg_wal"), "{trace}");
    // Given up beyond what they have, too: then that is recorded, and the server goes on.
    let drop = format!("{prune} --on-full drop").replace("--min-free 0", "--min-free 17179869183G");
    let ran = stage.run(&format!("{drop} master/pg_wal"));
    ran.fails(11, &format!("log from 1-{first}:8192 to 1-"));
    assert!(place() > last << 20, "{} of {now}", place());
    master.sql("checkpoint");
    let ran = stage.run("$PRUNE --state state master/pg_wal");
    ran.fails(2, "a PostgreSQL server alone removes its log");
    // What a standby's server has in its own directory is its own, even where log was landed in it.
    stage.ok("$SHIP -S --state other --from latest master/pg_wal | $APPLY --logs-only archive && mkdir archive/archive_status");
    stage.run("$PRUNE archive").fails(13, "is a server's own log directory");
}

#[test]
fn what_a_slot_needs_is_said_before_anything_is_shipped() {
    let stage = Stage::new();
    let master = Postgres::init(&stage, "master", 1, "wal_level = logical\n");
    master.sql("select pg_create_logical_replication_slot('other', 'pgoutput')");
    let ship = |options: &str| {
        stage.run(&format!("$SHIP -S --state state {options} --via '$APPLY --acks archive' master/pg_wal"))
    };
    let dsn = master.dsn();
    for (options, code, says) in [
        (format!("--slot Venus --dsn '{dsn}'"), 2, "lower-case"),
        (format!("--slot other --dsn '{dsn}'"), 2, "a physical one is needed"),
        ("--slot venus --dsn 'host=/nowhere password=secret'".to_owned(), 2, "no password here"),
        ("--slot venus --dsn 'host=/nowhere'".to_owned(), 9, "psql exited with 2"),
        (format!("--dsn '{dsn}'"), 2, "--slot"),
    ] {
        let ran = ship(&options);
        assert_eq!(ran.code, code, "{options}: {ran:?}");
        assert!(ran.err.contains(says), "{options}: {ran:?}");
    }
    assert!(!stage.path("archive").exists());
    assert_eq!(ship(&format!("--slot venus --dsn '{dsn}'")).code, 0);
}

#[test]
fn what_root_lands_in_a_servers_directory_is_the_servers() {
    use std::os::unix::fs::MetadataExt as _;
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let stage = Stage::new();
    let _master = Postgres::init(&stage, "master", 1, "");
    stage.ok("mkdir replica");
    let rig = rig::Rig::new();
    let (from, to) = (stage.path("master/pg_wal"), stage.path("replica"));
    rig.ok(&format!("$SHIP -S --via 'exec $APPLY --acks {}' {}", to.display(), from.display()));
    let owner = fs::metadata(&to).unwrap().uid();
    let landed = names(&to);
    assert!(owner != 0 && !landed.is_empty());
    for name in landed {
        assert_eq!(fs::metadata(to.join(&name)).unwrap().uid(), owner, "{name}");
    }
}

/// What a server leaves that crashes between the two steps in which it gives an old file the name of a segment to come.
#[test]
fn an_old_segment_under_two_names_is_not_written_through() {
    let stage = Stage::new();
    let master = Postgres::init(&stage, "master", 1, "");
    let closed = switch(&master);
    let ship = "$SHIP -S --state ship --via '$APPLY --acks archive' master/pg_wal";
    stage.ok(ship);
    let to_come = switch(&master);
    stage.ok(ship);
    let next = master.sql("select pg_walfile_name(pg_current_wal_lsn() + 1)");
    assert!(closed < to_come && to_come < next, "{closed} {to_come} {next}");
    stage.ok(&format!("ln -f archive/{closed} archive/{next}"));
    switch(&master);
    stage.ok(ship);
    let theirs = |name: &str| fs::read(master.wal().join(name)).unwrap();
    for name in [&closed, &to_come, next.trim()] {
        assert!(fs::read(stage.path("archive").join(name)).unwrap() == theirs(name), "{name}");
    }
    stage.ok("$VERIFY archive");
}

#[test]
fn a_history_of_another_promotion_is_set_aside_with_its_log() {
    let stage = Stage::new();
    let master = Postgres::init(&stage, "master", 1, "");
    let mut heirs = ["first", "second"].map(|name| master.standby(name));
    for (name, heir) in ["first", "second"].into_iter().zip(&mut heirs) {
        // One after the other, each at an end of its own.
        let end = switch(&master);
        stage.ok(&format!("$SHIP -S --state {name}-fed --via '$APPLY --acks {name}/pg_wal' master/pg_wal"));
        heir.start();
        eventually("the standby's replay", || {
            heir.sql(&format!("select pg_last_wal_replay_lsn() >= '0/{}00000'", &end[22..])) == "t"
        });
        heir.promote();
        switch(heir);
    }
    let ship = |from: &str, options: &str| {
        stage.run(&format!(
            "$SHIP -S --state {from} --retry-for 5s --via '$APPLY --acks {options} archive' {from}/pg_wal"
        ))
    };
    assert_eq!(ship("first", "").code, 0);
    // Both are of the first epoch behind their master: two masters, of which the archive takes one.
    ship("second", "").fails(5, "another instance");
    ship("second", "--adopt").fails(4, "diverged");
    let ran = ship("second", "--set-aside");
    assert_eq!(ran.code, 0, "{ran:?}");
    stage.ok("cmp archive/00000002.history second/pg_wal/00000002.history");
    stage.ok("cmp archive/.repl/set-aside/*/00000002.history first/pg_wal/00000002.history");
    stage.ok("$VERIFY archive");
    assert_eq!(ship("second", "").code, 0);
}

/// The recipe of the manual: what was committed before the question is covered by its answer, over the ends of segments.
#[test]
fn what_was_committed_before_a_wait_is_on_all_sites_after_it() {
    let stage = Stage::new();
    let master = Postgres::init(&stage, "master", 1, "");
    master.sql("create table t (a int)");
    let via: String = ["a", "b", "c"].map(|name| format!("--via 'exec $APPLY --acks {name}' ")).concat();
    let mut ship = stage.spawn("ship", &format!("exec $SHIP --state state {via} master/pg_wal"));
    eventually("a sender", || stage.run("$WAIT now --state state --ack none").code == 0);
    for round in 0..15 {
        if round % 5 == 4 {
            switch(&master);
        }
        master.sql(&format!("insert into t values ({round})"));
        let committed = master.current_lsn();
        let json = stage.ok("$WAIT now --state state --ack all --timeout 60s --json");
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let held = |text: &str| {
            let (segment, offset) = text.split('+').next().unwrap().split_once(':').unwrap();
            let sequence: u64 = segment.split_once('-').unwrap().1.parse().unwrap();
            (sequence << 20) + offset.trim().parse::<u64>().unwrap()
        };
        let answered = held(json["at"].as_str().unwrap());
        assert!(answered >= committed, "round {round}: {json} is before {committed}");
        for name in ["a", "b", "c"] {
            let holds = held(&stage.ok(&format!("$APPLY --position {name}")));
            assert!(holds >= committed, "round {round}: {name} holds {holds}, {committed} was committed");
        }
    }
    ship.signal(Signal::TERM);
    assert_eq!(ship.wait().code, 0);
}
