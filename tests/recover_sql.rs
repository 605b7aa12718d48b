//! Berkeley DB SQL databases brought back from an archive. Their log lies in a directory beside them, and their keys have
//! an order of their own: neither is known to the programs that recover and verify.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/rig.rs"]
mod rig;

use std::fs;
use std::path::Path;
use std::process::Command;

use rig::{RECOVER, Rig};

/// A database with rows from `first` to `last`, whose log is in the archive.
fn fill(rig: &Rig, first: u32, last: u32) {
    let row = |at: u32| format!("insert into sale values({at}, 'item {}', {});\n", at * 7919 % 1000, at % 31);
    let table = "create table if not exists sale(id integer primary key, item text, price integer);\n\
                 create index if not exists sale_item on sale(item);\nbegin;\n";
    fs::write(rig.path("rows.sql"), format!("{table}{}commit;\n", (first..=last).map(row).collect::<String>()))
        .unwrap();
    rig.ok("db5.3_sql master/shop.db < rows.sql");
    rig.ok("$SHIP -S --state shipped --via '$APPLY --acks --logs-only archive' master/shop.db-journal");
}

/// All that a database holds.
fn rows(rig: &Rig, dir: &str) -> String {
    rig.ok(&format!("db5.3_sql {dir}/shop.db 'select * from sale order by id; select count(*) from sale;'"))
}

/// Some rows, a base, and more rows.
fn shop() -> Rig {
    let rig = Rig::new();
    fs::create_dir(rig.path("master/shop.db-journal")).unwrap();
    rig.ok("echo 'log_set_config DB_LOG_AUTO_REMOVE off' > master/shop.db-journal/DB_CONFIG");
    fill(&rig, 1, 500);
    rig
}

#[test]
fn a_database_comes_back_from_a_base_and_later_log_to_the_end_and_to_a_position() {
    let rig = shop();
    rig.ok("$BASE --name one master archive");
    fill(&rig, 501, 2000);
    let (then, position) = (rows(&rig, "master"), rig.ok("$APPLY --position archive"));
    fill(&rig, 2001, 5000);
    rig.ok("$RECOVER --archive archive --target end");
    assert_eq!(rows(&rig, "end"), rows(&rig, "master"));
    rig.ok(&format!("$RECOVER --archive archive --target earlier --until {}", position.trim()));
    assert_eq!(rows(&rig, "earlier"), then);
}

#[test]
fn log_alone_does_not_pass_for_an_empty_database() {
    let rig = shop();
    rig.run("$RECOVER --archive archive --target alone").fails(9, "there is no database");
    assert_eq!(rig.run("$ROLE guard alone").code, 5);
}

#[test]
fn the_drill_that_operators_are_shown_runs() {
    let bin = Path::new(RECOVER).parent().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/recovery-drill");
    let ran = Command::new(script).env("REPL_BIN", bin).output().unwrap();
    assert!(ran.status.success(), "{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
}
