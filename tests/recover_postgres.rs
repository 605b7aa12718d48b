//! PostgreSQL databases brought back from an archive: to the end, to a time, to a position, across a promotion. The rows
//! are those that were committed by then.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/rig.rs"]
mod rig;

use postgres::{Postgres, Stage};
use rig::kill_often;
use serde_json::Value;

fn base(stage: &Stage, master: &Postgres, name: &str) {
    stage.ok(&format!("$BASE --dsn '{}' --name {name} master archive", master.dsn()));
}

fn ship(stage: &Stage) {
    stage.ok("$SHIP -S --state shipped --via '$APPLY --logs-only --acks archive' master/pg_wal");
}

fn recover(stage: &Stage, options: &str) -> Value {
    serde_json::from_str(&stage.ok(&format!("$RECOVER --archive archive --json {options}"))).unwrap()
}

/// The rows of a recovered database, by a server of the test's own.
fn rows(stage: &Stage, target: &str) -> String {
    let mut server = Postgres::at(stage, target);
    server.start();
    server.sql("select coalesce(max(n), 0) || ' ' || count(*) || ' ' || pg_is_in_recovery() from t")
}

#[test]
fn a_database_comes_back_to_the_end_to_a_time_and_to_a_position() {
    let stage = Stage::new();
    let master = Postgres::init(&stage, "master", 1, "max_wal_size = 64MB\nfsync = off\n");
    master.sql("create table t (n int)");
    master.sql("insert into t select generate_series(1, 1000)");
    ship(&stage);
    base(&stage, &master, "one");
    ship(&stage);
    master.sql("insert into t select generate_series(1001, 50000)");
    let (time, lsn) = (master.sql("select now()::timestamptz(6)"), master.current_lsn());
    let time = time.replace(' ', "T").replace("+00", "Z");
    let position = format!("1-{}:{}", lsn >> 20, lsn & 0xfffff);
    master.sql("insert into t select generate_series(50001, 60000)");
    let late = master.sql("select now()::timestamptz(6)");
    master.sql("insert into t select generate_series(60001, 100000)");
    ship(&stage);
    let told = recover(&stage, "--target end");
    assert_eq!(rows(&stage, "end"), "100000 100000 false", "{told}");
    let told = recover(&stage, &format!("--target position --until {position}"));
    assert_eq!(rows(&stage, "position"), "50000 50000 false", "{told}");
    let told = recover(&stage, &format!("--target time --until '{time}'"));
    assert_eq!(rows(&stage, "time"), "50000 50000 false", "{told}");
    let late = late.replace(' ', "T").replace("+00", "Z");
    let told = recover(
        &stage,
        &format!("--target late --until '{late}' --check 'psql -X -Atc \"select 1\" -U postgres postgres'"),
    );
    assert_eq!(rows(&stage, "late"), "60000 60000 false", "{told}");
    // Killed at any instant, the server of its own included, and run again, it ends the same.
    let command = "$RECOVER --archive archive --target killed";
    let killed = kill_often(12, "rm -rf killed", command, &|script| stage.run(script));
    assert!(killed > 3, "{killed}");
    stage.ok(&format!("test -e killed/.repl-recovered || {command}"));
    assert_eq!(rows(&stage, "killed"), "100000 100000 false");
}
