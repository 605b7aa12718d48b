//! `repl-wait` with real databases: what it takes for the end of their logs while they write, and where a log is damaged.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/bdb.rs"]
mod bdb;
#[path = "support/mariadb.rs"]
mod mariadb;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/rig.rs"]
mod rig;
#[path = "support/wal.rs"]
mod wal;

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use mariadb::Mariadb;
use postgres::{Postgres, Stage, Stop};
use rig::{Rig, Running, eventually};
use rustix::process::Signal;

fn flip(path: &Path, offset: u64) {
    let file = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 4], offset).unwrap();
}

/// Ships `master` to `replica`, until it can be asked.
fn follow(rig: &Rig) -> Running {
    let ship = "exec $SHIP --state state --heartbeat 100ms --via 'exec \"$APPLY\" --acks --logs-only replica' master";
    let ship = rig.spawn(ship);
    eventually("a sender", || rig.run("$WAIT 1-1:0 --state state --ack none").code != 8);
    ship
}

/// What a wait says, with a byte of a log at rest flipped, and when that is as it was.
#[track_caller]
fn assert_seen(rig: &Rig, name: &str, offset: u64) {
    let path = rig.master().join(name);
    flip(&path, offset);
    let mut ship = follow(rig);
    // Not even that nobody has to have it can be said of what is not known.
    let ran = rig.run("$WAIT now --state state --ack none --timeout 60s");
    ran.fails(6, &format!("{name} is damaged at "));
    let at: u64 = ran.err.split("is damaged at ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(at <= offset && at + 10_000 > offset, "{offset}: {ran:?}");
    ship.signal(Signal::TERM);
    ship.wait();
    flip(&path, offset);
    let mut ship = follow(rig);
    rig.ok("$WAIT now --state state --ack all --timeout 60s");
    ship.signal(Signal::TERM);
    assert_eq!(ship.wait().code, 0);
    rig.ok("rm -r replica state");
}

/// Asks while something writes: whatever is on its way at any instant, it is no damage.
#[track_caller]
fn assert_never_seen(rig: &Rig, asks: u32) {
    for _ in 0..asks {
        rig.ok("$WAIT now --state state --ack none --timeout 60s");
    }
}

#[test]
fn berkeley_dbs_writer_is_never_taken_for_damage_and_a_flipped_byte_is() {
    let rig = Rig::new();
    // Records are cut where the engine's buffer ends, and stay so until more is written.
    let script = bdb::WRITE.replace("DB_TXN_WRITE_NOSYNC", "DB_TXN_NOSYNC");
    let mut command = std::process::Command::new("/usr/bin/python3");
    command.arg("-c").arg(script).arg(rig.master());
    let mut writer = Running::start(command, &rig.path("writer"));
    eventually("a log", || rig.master().join("log.0000000002").exists());
    let mut ship = follow(&rig);
    assert_never_seen(&rig, 200);
    writer.signal(Signal::KILL);
    writer.wait();
    rig.ok("$WAIT now --state state --ack all --timeout 60s");
    ship.signal(Signal::TERM);
    assert_eq!(ship.wait().code, 0);
    let position = rig.ok("$APPLY --position replica");
    let (sequence, end) = position.strip_prefix("1-").unwrap().split_once(':').unwrap();
    let end: u64 = end.split('+').next().unwrap().parse().unwrap();
    rig.ok("rm -r replica state");
    assert!(end > 2000, "{position}");
    for offset in [10, 40, end / 2, end - 1000] {
        assert_seen(&rig, &format!("log.{sequence:0>10}"), offset);
    }
}

#[test]
fn postgresqls_writers_are_never_taken_for_damage_and_a_flipped_byte_is() {
    let stage = Stage::new();
    let mut server = Postgres::init(&stage, "master", 1, "synchronous_commit = off");
    server.fill(1);
    let rig = Rig::new();
    rig.ok(&format!("rmdir master; ln -s {} master", server.wal().display()));
    let mut ship = follow(&rig);
    let mut bench = server.bench("-c 8 -T 600");
    assert_never_seen(&rig, 200);
    bench.signal(Signal::KILL);
    bench.wait();
    server.sql("select pg_switch_wal()");
    server.sql("create table more as select i, md5(i::text) from generate_series(1, 2000) i");
    for i in 0..10 {
        server.sql(&format!("insert into more values ({i})"));
    }
    server.stop(Stop::Fast);
    rig.ok("$WAIT now --state state --ack all --timeout 60s");
    ship.signal(Signal::TERM);
    assert_eq!(ship.wait().code, 0);
    // A copy: the server's own is not to be damaged.
    rig.ok(&format!("rm -r replica state master; cp -a {} master", server.wal().display()));
    let (newest, _) = wal::files(&rig.master(), 1).pop_last().unwrap();
    let name = wal::scheme(&rig.master()).name(newest);
    let printed = wal::printed(&rig.master(), newest);
    let commits: Vec<_> = printed.iter().filter(|record| record.is("Transaction", "COMMIT")).collect();
    let last = commits.last().unwrap();
    assert!(commits.len() > 10);
    // The first page's header, by which the file is known; pages before the last one; then before the last transaction's end, in the same page if it is in one.
    let in_segment = |place: u64| place % (1 << 20);
    let before = printed.iter().rfind(|record| record.end <= last.start).unwrap();
    let records = [in_segment(printed[3].start) + 20, in_segment(last.start) / 2 + 21, in_segment(before.start) + 20];
    for offset in [1, 9].into_iter().chain(records) {
        assert_seen(&rig, &name, offset);
    }
}

#[test]
fn mariadbs_writers_are_never_taken_for_damage_and_a_flipped_byte_is() {
    let mut server = Mariadb::start_new(&[]);
    server.sql("create database d; create table d.t (a int auto_increment primary key, b text);");
    let rig = Rig::new();
    rig.ok(&format!("rmdir master; ln -s {} master", server.data().display()));
    let mut ship = follow(&rig);
    std::thread::scope(|scope| {
        let write = |_| {
            let insert = "insert into d.t (b) values (repeat('x', rand() * 30000));";
            server.sql(&insert.repeat(500));
        };
        let writers: Vec<_> = (0..3).map(|number| scope.spawn(move || write(number))).collect();
        while !writers.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            assert_never_seen(&rig, 10);
        }
    });
    server.sql("flush binary logs");
    server.sql(&"insert into d.t (b) values ('last');".repeat(20));
    rig.ok("$WAIT now --state state --ack all --timeout 60s");
    server.stop();
    ship.signal(Signal::TERM);
    assert_eq!(ship.wait().code, 0);
    rig.ok(&format!("rm -r replica state master; mkdir master; cp {}/bin.* master", server.data().display()));
    let newest = fs::read_dir(rig.master()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let newest = newest.filter(|name| name["bin.".len()..].parse::<u32>().is_ok()).max().unwrap();
    let length = fs::metadata(rig.master().join(&newest)).unwrap().len();
    for offset in [100, length / 2, length - 30] {
        assert_seen(&rig, &newest, offset);
    }
}

#[test]
fn an_encrypted_log_is_had_when_its_file_is_closed_and_not_before() {
    let mut server = Mariadb::install(&[]);
    let keys = server.dir().join("keys");
    fs::write(&keys, "1;770a8a65da156d24ee2a093277530142\n").unwrap();
    server.set("plugin_load_add=file_key_management");
    server.set(&format!("file_key_management_filename={}", keys.display()));
    server.set("encrypt_binlog=ON");
    server.start();
    server.sql("create database d; create table d.t (a int auto_increment primary key, b text);");
    let rig = Rig::new();
    rig.ok(&format!("rmdir master; ln -s {} master", server.data().display()));
    let mut ship = follow(&rig);
    for round in 1..4 {
        server.sql("insert into d.t (b) values (repeat('x', 3000));");
        let newest = server.logs().pop().unwrap();
        let length = fs::metadata(server.data().join(&newest)).unwrap().len();
        let end = format!("1-{}:{length}", newest["bin.".len()..].parse::<u64>().unwrap());
        let now = |options: &str| rig.run(&format!("$WAIT {options} --state state --ack all"));
        now("now --timeout 200ms").fails(10, &format!("{end} is not flushed by all"));
        let json: serde_json::Value =
            serde_json::from_str(&rig.ok("$WAIT now --state state --ack none --json")).unwrap();
        assert_eq!(json["at"], end.as_str(), "{round}");
        // What was written before is in the file that is closed now.
        server.sql("flush binary logs");
        let ran = now(&format!("{end} --timeout 60s"));
        assert_eq!(ran.code, 0, "{ran:?}");
        let has = fs::metadata(rig.replica().join(&newest)).unwrap().len();
        assert!(has >= length, "{round}: {has} of {length}");
    }
    ship.signal(Signal::TERM);
    assert_eq!(ship.wait().code, 0);
}
