//! A PostgreSQL log that has left a timeline: what is waited for, and given up, behind the fork is not of this log.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/rig.rs"]
mod rig;

use std::fs;

use postgres::{Postgres, Stage, lsn};
use rig::{Running, eventually};
use rustix::process::Signal;

const SIZE: u64 = 1 << 20;
const TIGHT: &str = "wal_keep_size = 64MB\nmax_wal_size = 8MB\nmin_wal_size = 4MB\n";

/// A position of a timeline, by its place in the log.
fn at(timeline: u64, place: u64) -> String {
    format!("{timeline}-{}:{}", place / SIZE, place % SIZE)
}

/// A standby that was promoted, the place of the fork, and `old`: a replica of the lost master's log, which goes on
/// behind it by some segments.
fn promoted(stage: &Stage) -> (Postgres<'_>, u64) {
    let mut master = Postgres::init(stage, "master", 1, TIGHT);
    let mut heir = master.standby("heir");
    let into = |to: &str| format!("$SHIP -S --state state-{to} --via '$APPLY --acks --logs-only {to}' master/pg_wal");
    let mut ship = stage.spawn("ship", "exec $SHIP --state state --via '$APPLY --acks heir/pg_wal' master/pg_wal");
    heir.start();
    master.sql("create table t as select i from generate_series(1, 30000) i");
    heir.reaches(master.current_lsn());
    ship.signal(Signal::TERM);
    assert_eq!(ship.wait().code, 0);
    for i in 0..4 {
        master.sql(&format!("insert into t values ({i}); select pg_switch_wal()"));
    }
    stage.ok(&into("old"));
    master.kill9();
    heir.promote();
    heir.sql("insert into t values (-1)");
    let history = fs::read_to_string(heir.wal().join("00000002.history")).unwrap();
    let fork = lsn(history.split_whitespace().nth(1).unwrap());
    (heir, fork)
}

/// Ships the heir's log, until all of it is there.
fn follow(stage: &Stage, heir: &Postgres<'_>, options: &str) -> Running {
    let via = "--via 'exec $APPLY --acks --logs-only archive'";
    let ship = format!("exec $SHIP -q --state state-heir --heartbeat 100ms {options} {via} {}", heir.wal().display());
    let ship = stage.spawn("onwards", &ship);
    eventually("all", || stage.run("$WAIT now --state state-heir --ack all --timeout 5s").code == 0);
    ship
}

#[test]
fn a_position_behind_the_fork_of_a_timeline_that_was_left_is_refused_and_one_before_it_is_had() {
    let stage = Stage::new();
    let (heir, fork) = promoted(&stage);
    let mut ship = follow(&stage, &heir, "");
    let wait = |position: &str, ack: &str| {
        stage.run(&format!("$WAIT {position} --state state-heir --ack {ack} --timeout 100ms"))
    };
    let old = stage.ok("$APPLY --position old");
    for ack in ["none", "all"] {
        for had in [at(1, fork), at(1, fork - 8), at(2, fork), at(2, fork + 8)] {
            let ran = wait(&had, ack);
            assert_eq!(ran.code, 0, "{had}: {ran:?}");
        }
        let left = [at(1, fork + 8), at(1, (fork / SIZE + 1) * SIZE - 8), at(1, (fork / SIZE + 1) * SIZE)];
        for left in left.iter().map(String::as_str).chain([old.trim(), old.split('+').next().unwrap()]) {
            wait(left, ack).fails(4, "is of a history that was left: the log goes on with 2-");
        }
    }
    wait(&at(3, fork), "all").fails(10, "is not flushed by all");
    ship.signal(Signal::TERM);
    assert_eq!(ship.wait().code, 0);
}

#[test]
fn a_slot_is_not_moved_by_whoever_stands_on_a_timeline_that_was_left() {
    let stage = Stage::new();
    let (heir, fork) = promoted(&stage);
    heir.sql("select pg_create_physical_replication_slot('venus', true)");
    let place = || heir.sql("select restart_lsn - '0/0' from pg_replication_slots").trim().parse::<u64>().unwrap();
    let before = place();
    for i in 0..6 {
        heir.sql(&format!("insert into t values ({i}); select pg_switch_wal()"));
    }
    heir.sql("insert into t values (-2)");
    let slot = format!("--slot venus --dsn '{}'", heir.dsn());
    // It has more than the fork, and is refused: what it says moves nothing.
    let ship = format!("$SHIP -S -q --state state-other {slot} --via '$APPLY --acks --logs-only old' heir/pg_wal");
    let ran = stage.run(&ship);
    assert!([4, 5].contains(&ran.code), "{ran:?}");
    assert_eq!(place(), before);

    // One who is known to have the old timeline only, far behind the fork, has nothing of the new one: the slot stays,
    // whatever another has.
    let old = stage.ok("$APPLY --position old").trim().to_owned();
    let old = old.split('+').next().unwrap();
    stage.ok("mkdir -p state-heir/consumers");
    fs::write(stage.path("state-heir/consumers/tape"), format!("{old}\n")).unwrap();
    let mut ship = follow(&stage, &heir, &slot);
    ship.signal(Signal::TERM);
    assert_eq!(ship.wait().code, 0);
    assert_eq!(place(), before.max(fork), "the fork is at {fork}, tape at {old}");
    let prune = format!("$PRUNE --state state-heir --min-free 0 {slot}");
    stage.ok(&format!("{prune} heir/pg_wal"));
    assert_eq!(place(), before.max(fork));
    // When that one needs nothing any more, it is moved on to what the receiver has.
    stage.ok(&format!("{prune} --consumer tape=none heir/pg_wal && {prune} heir/pg_wal"));
    assert!(place() >= fork + 6 * SIZE - SIZE, "{} {fork}", place());
}
