//! MariaDB itself, fed by its own client from what is durable at a replica: `CHECKSUM TABLE` must say the same of every
//! table on both sides, whatever was killed in between. Tables without a key are in it: there a row that is applied twice
//! is two rows.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/mariadb.rs"]
mod mariadb;
#[path = "support/rig.rs"]
mod rig;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use mariadb::Mariadb;
use rig::{Ran, Rig, eventually};
use rustix::process::{Pid, Signal, kill_process};

/// How often what is killed at random is killed.
fn rounds() -> usize {
    std::env::var("REPL_TEST_ROUNDS").map_or(10, |rounds| rounds.parse().unwrap())
}

/// Small files, so that there are many.
fn master() -> Mariadb {
    Mariadb::start_new(&["max_binlog_size=64K"])
}

fn replica() -> Mariadb {
    Mariadb::start_new(&Mariadb::REPLICA)
}

/// The command that ships from one server to another; `$1` and on are more options of `repl-ship`.
fn ship(options: &str, from: &Mariadb, to: &Mariadb) -> String {
    let (log, dsn) = (from.data(), to.config());
    let apply = format!("$APPLY --acks --feed default --dsn {} replica", dsn.display());
    format!("exec $SHIP {options} --via \"exec {apply}\" {}", log.display())
}

/// One pass.
fn pass(rig: &Rig, from: &Mariadb, to: &Mariadb) -> Ran {
    rig.run(&ship("-S", from, to))
}

#[track_caller]
fn passes(rig: &Rig, from: &Mariadb, to: &Mariadb) {
    let ran = pass(rig, from, to);
    assert_eq!(ran.code, 0, "{ran:?}");
}

#[track_caller]
fn assert_same(from: &Mariadb, to: &Mariadb) {
    let sums = from.checksums();
    assert!(sums.lines().count() > 0);
    assert_eq!(sums, to.checksums());
    assert_eq!(from.sql("select @@gtid_binlog_pos;"), to.sql("select @@gtid_binlog_pos;"));
}

/// What a log can have: tables with and without keys, all kinds of statements, aborted and large transactions.
const PLAY: &str = "
create database if not exists d; use d;
create table if not exists bare(a int, t varchar(200));
create table if not exists keyed(id int auto_increment primary key, b blob, at timestamp(6) default now(6));
insert into bare select seq, repeat('x', seq % 200) from seq_1_to_500;
insert into keyed(b) select unhex(repeat(hex(seq), 50)) from seq_1_to_500;
begin; insert into bare values(-1, 'aborted'); rollback;
begin; insert into bare values(-2, 'kept'); savepoint s; insert into bare values(-3, 'aborted'); rollback to s; commit;
update bare set a = a + 1 where a % 7 = 0; delete from keyed where id % 5 = 0;
create or replace table other(k int primary key, `odd name;/*!*/;` blob) engine=innodb;
insert into other values(1, 'a;\\nb /*!*/;'), (2, _binary 0x00ff27225c0a);
alter table other add column more int default 7;
create or replace view v as select * from other;
delimiter //
create or replace procedure p() begin insert into bare values(-4, 'of p'); insert into keyed(b) values('p'); end//
delimiter ;
call p();
truncate table other;
set @v = 'a user variable'; insert into bare values(-5, @v);
create temporary table gone(a int); insert into gone values(1); insert into bare select a, 'of a temporary' from gone;
begin; insert into keyed(b) select repeat('large', 2000) from seq_1_to_200; commit;
create table if not exists short(a int); insert into short values(1); drop table short;
";

#[test]
fn a_replica_has_the_same_rows() {
    let (rig, from, to) = (Rig::new(), master(), replica());
    from.sql(PLAY);
    passes(&rig, &from, &to);
    assert_same(&from, &to);
    // Again with nothing new, and with more.
    passes(&rig, &from, &to);
    from.sql(PLAY);
    passes(&rig, &from, &to);
    assert_same(&from, &to);
    assert!(from.logs().len() > 5, "{:?}", from.logs());
}
