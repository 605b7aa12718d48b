//! MariaDB databases brought back from an archive: to the end, to a time, to a position. `CHECKSUM TABLE` is the judge.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/mariadb.rs"]
mod mariadb;
#[path = "support/rig.rs"]
mod rig;

use std::process::Command;

use mariadb::Mariadb;
use rig::{Rig, kill_often};

fn ship(rig: &Rig, master: &Mariadb) {
    rig.ok(&format!("$SHIP -S --state shipped --via '$APPLY --logs-only --acks archive' {}", master.data().display()));
}

/// What a recovered database holds, by a server of the test's own on a copy of it.
fn contents(rig: &Rig, target: &str) -> String {
    let server = Mariadb::from_copy(&[], |data| {
        let copied = Command::new("cp").arg("-a").arg(rig.path(target)).arg(data).status().unwrap();
        assert!(copied.success());
    });
    server.checksums()
}

#[test]
fn a_database_comes_back_to_the_end_to_a_time_and_to_a_position() {
    let rig = Rig::new();
    let master = Mariadb::start_new(&["max_binlog_size=64K"]);
    master.sql(
        "create database d; create table d.t(n int primary key, v varchar(99)); create table d.a(n int) engine=Aria",
    );
    master.sql(
        "insert into d.t select seq, md5(seq) from d.seq_1_to_1000; create user early@localhost identified by 'x'",
    );
    ship(&rig, &master);
    rig.ok(&format!("$BASE --dsn {} --name one {} archive", master.config().display(), master.data().display()));
    master.sql("insert into d.t select seq, md5(seq) from d.seq_1001_to_5000; insert into d.a values (1)");
    master.sql("create user late@localhost identified by 'x'; grant select on d.* to late@localhost");
    let (first, middle) = (master.checksums(), master.master_status());
    let time = master.sql("do sleep(1.1); select date_format(utc_timestamp(), '%Y-%m-%d %H:%i:%s'); do sleep(1.1)");
    master.sql("insert into d.t select seq, md5(seq) from d.seq_5001_to_9000; update d.t set v = 'x' where n % 7 = 0");
    ship(&rig, &master);
    let recover = |options: &str| rig.ok(&format!("$RECOVER --archive archive {options}"));
    recover("--target end");
    assert_eq!(contents(&rig, "end"), master.checksums());
    let number: u64 = middle.0.rsplit_once('.').unwrap().1.parse().unwrap();
    recover(&format!("--target position --until 1-{number}:{}", middle.1));
    assert_eq!(contents(&rig, "position"), first);
    recover(&format!(
        "--target time --until '{}' --check 'mariadb --defaults-file=$REPL_DSN -e \"select count(*) from d.t\"'",
        time.trim()
    ));
    assert_eq!(contents(&rig, "time"), first);
    // Killed at any instant, the server of its own included, and run again, it ends the same.
    let command = "$RECOVER --archive archive --target killed";
    let killed = kill_often(12, "rm -rf killed", command, &|script| rig.run(script));
    assert!(killed > 3, "{killed}");
    rig.ok(&format!("test -e killed/.repl-recovered || {command}"));
    assert_eq!(contents(&rig, "killed"), master.checksums());
}
