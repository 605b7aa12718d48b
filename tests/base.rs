//! Bases of real databases that are written to meanwhile: whole, checkable without the suite, and never to be seen before.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/rig.rs"]
mod rig;

use postgres::{Postgres, Stage};
use serde_json::Value;

#[test]
fn a_base_of_a_postgres_server_under_load_starts_and_the_next_one_shares_what_did_not_change() {
    let stage = Stage::new();
    let master = Postgres::init(&stage, "master", 1, "max_wal_size = 64MB\nfsync = off\n");
    master.fill(2);
    let bench = master.bench("-c 2 -R 200 -T 600");
    let take = |more: &str| {
        let line = format!("$BASE --dsn '{}' --json {more} master archive", master.dsn());
        serde_json::from_str::<Value>(&stage.ok(&line)).unwrap()
    };
    take("--name one");
    take("--name two");
    drop(bench);
    stage.ok("cd archive/bases/two && b3sum --check --quiet B3SUMS");
}
