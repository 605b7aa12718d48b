//! `repl-prune` where real databases remove their own log, and at a real standby that is recovered again and again from
//! what is left.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/mariadb.rs"]
mod mariadb;
#[path = "support/rig.rs"]
mod rig;

use std::fs;
use std::process::Command;

use mariadb::Mariadb;
use rig::{Rig, eventually, segments};

/// A server with six files of log.
fn server() -> Mariadb {
    let server = Mariadb::start_new(&[]);
    server.sql("create database d; create table d.t(a int);");
    for value in 1..6 {
        server.sql(&format!("insert into d.t values({value}); flush binary logs;"));
    }
    server
}

#[test]
fn a_mariadb_server_removes_what_all_consumers_have() {
    let (rig, server) = (Rig::new(), server());
    let (log, all) = (server.data(), server.logs());
    let prune = format!("$PRUNE --state state --min-free 0 --dsn {}", server.config().display());
    let log = log.display();
    rig.run(&format!("{prune} {log}")).fails(13, "no consumer is known");
    rig.ok(&format!("{prune} --consumer tape=1-4:4 --consumer audit=1-3:4 {log}"));
    assert_eq!(rig.ok(&format!("{prune} -n {log}")).lines().count(), 3);
    assert_eq!(server.logs(), all);
    // The server keeps one that its storage engine may need after a crash, for a moment.
    eventually("two removed files", || {
        rig.ok(&format!("{prune} {log}"));
        server.logs().len() <= 4
    });
    assert_eq!(server.logs(), all[2..]);
    assert_eq!(server.sql("show binary logs;").lines().count(), 4);
    assert!(rig.ok(&format!("{prune} --explain {} {log}", all[2])).contains("kept for consumer audit"));
    server.sql("insert into d.t values(7);");
    // Files of the same names at another server are not its.
    let other = self::server();
    other.sql("create database other_name; flush binary logs;");
    rig.ok(&format!("{prune} --consumer audit=1-4:4 {log}"));
    let wrong = format!("$PRUNE --state state --min-free 0 --dsn {}", other.config().display());
    rig.run(&format!("{wrong} {log}")).fails(13, "is it the server of this log?");
    assert_eq!((server.logs().len(), other.logs().len()), (4, 7));
}

#[test]
fn a_mariadb_server_gives_up_log_that_is_dropped() {
    let (rig, server) = (Rig::new(), server());
    let prune = format!("$PRUNE --state state --dsn {}", server.config().display());
    let log = server.data();
    let log = log.display();
    rig.ok(&format!("{prune} --consumer tape=1-2:4 {log}"));
    // No disk has so much.
    let drop = format!("{prune} --min-free 17179869183G --on-full drop {log}");
    rig.run(&drop).fails(11, "log from 1-2:4 to ");
    eventually("all but the last are gone", || {
        rig.run(&drop).fails(11, "was dropped");
        server.logs().len() <= 1
    });
    rig.ok(&format!("{prune} --consumer tape=1-6:4 {log} && {prune} --min-free 0 {log}"));
}

/// A Berkeley DB SQL database that keeps its log, with some segments of it.
fn environment(rig: &Rig, config: &str) {
    fs::create_dir(rig.path("shop.db-journal")).unwrap();
    fs::write(rig.path("shop.db-journal/DB_CONFIG"), config).unwrap();
    let rows: String = (0..3000).map(|id| format!("insert into s values({id}, hex(randomblob(400)));")).collect();
    fs::write(rig.path("rows.sql"), format!("create table s(id integer, item text); begin;{rows}commit;")).unwrap();
    rig.ok("db5.3_sql shop.db < rows.sql");
}

fn logs(rig: &Rig, dir: &str) -> Vec<String> {
    segments(&rig.path(dir)).into_keys().filter(|name| name.starts_with("log.")).collect()
}

#[test]
fn berkeley_db_gives_up_of_what_it_lists_what_every_consumer_has() {
    let rig = Rig::new();
    environment(&rig, "log_set_config DB_LOG_AUTO_REMOVE off\nset_lg_max 200000\n");
    let prune = "$PRUNE --state state --min-free 0";
    let all = logs(&rig, "shop.db-journal");
    let listed = rig.ok("db5.3_archive -h shop.db-journal").lines().count();
    assert!(listed > 3 && all.len() > listed, "{listed} of {all:?}");
    rig.ok(&format!("{prune} --consumer tape=1-3:28 shop.db-journal"));
    rig.ok(&format!("{prune} shop.db-journal"));
    assert_eq!(logs(&rig, "shop.db-journal"), all[2..]);
    // A consumer that has all does not make the environment give up what it needs itself.
    let last = all.len();
    rig.ok(&format!("{prune} --consumer tape=1-{last}:28 shop.db-journal"));
    assert_eq!(rig.ok(&format!("{prune} -n shop.db-journal")).lines().count(), listed - 2 + 1);
    rig.ok(&format!("{prune} shop.db-journal"));
    assert_eq!(logs(&rig, "shop.db-journal"), all[listed..]);
    rig.ok("db5.3_sql shop.db 'insert into s values(1, 2);'");
}

#[test]
fn a_sender_that_purges_keeps_what_a_named_consumer_lacks() {
    let rig = Rig::new();
    environment(&rig, "log_set_config DB_LOG_AUTO_REMOVE off\nset_lg_max 200000\n");
    let all = logs(&rig, "shop.db-journal");
    rig.ok("$PRUNE --state state --consumer tape=1-3:28 shop.db-journal");
    let ship = "$SHIP -S --state state --purge --via \"$APPLY --acks replica\" shop.db-journal";
    rig.ok(ship);
    assert_eq!(logs(&rig, "shop.db-journal"), all[2..]);
    fs::write(rig.path("state/consumers/tape"), "torn").unwrap();
    // Where nothing is to be shipped, nobody may acknowledge anything.
    let more = "db5.3_sql shop.db 'insert into s values(1, 2);'";
    rig.ok(more);
    let ran = rig.run(ship);
    assert!(ran.code == 0 && ran.err.contains("consumers/tape is damaged"), "{ran:?}");
    assert_eq!(logs(&rig, "shop.db-journal"), all[2..]);
    fs::remove_file(rig.path("state/consumers/tape")).unwrap();
    rig.ok(more);
    rig.ok(ship);
    assert!(logs(&rig, "shop.db-journal").len() < 4);
}

#[test]
fn an_environment_that_removes_its_log_itself_is_refused() {
    let rig = Rig::new();
    environment(&rig, "set_lg_max 200000\n");
    let before = logs(&rig, "shop.db-journal");
    fs::create_dir_all(rig.path("state/consumers")).unwrap();
    fs::write(rig.path("state/consumers/tape"), format!("1-{}:28\n", before.len())).unwrap();
    rig.run("$PRUNE --state state shop.db-journal").fails(2, "DB_LOG_AUTO_REMOVE");
    assert_eq!(logs(&rig, "shop.db-journal"), before);
}

/// Writes in rounds; in each a transaction stays open until the round after next. Between rounds a command is run.
const ROUNDS: &str = r"
import os, subprocess, sys
sys.path.insert(0, '/usr/lib/python3/dist-packages')
from bsddb3 import db
home, command = sys.argv[1], sys.argv[2]
env = db.DBEnv()
env.set_lg_max(60000)
env.open(home, db.DB_CREATE | db.DB_INIT_MPOOL | db.DB_INIT_TXN | db.DB_INIT_LOG | db.DB_INIT_LOCK)
rows, late = db.DB(env), db.DB(env)
rows.open('rows.db', dbtype=db.DB_BTREE, flags=db.DB_CREATE | db.DB_AUTO_COMMIT)
late.open('late.db', dbtype=db.DB_HASH, flags=db.DB_CREATE | db.DB_AUTO_COMMIT)
def write(first):
    for at in range(first, first + 400):
        t = env.txn_begin()
        rows.put(b'%06d' % at, os.urandom(60), t)
        if at % 9: t.commit()
        else: t.abort()
held = []
def round():
    env.log_flush()
    subprocess.check_call(command, shell=True, executable='/bin/bash')
for at in range(8):
    # One page each, or a transaction would wait for another.
    t = env.txn_begin()
    if not held: late.put(b'late %d' % at, os.urandom(900), t)
    held.append(t)
    write(at * 1000)
    env.txn_checkpoint(0, 0, db.DB_FORCE)
    write(at * 1000 + 500)
    round()
    if len(held) > 2:
        for index, t in enumerate(held): t.commit() if (at + index) % 2 else t.abort()
        held = []
for t in held: t.commit()
rows.close()
late.close()
env.txn_checkpoint(0, 0, db.DB_FORCE)
round()
env.close()
";

#[test]
fn a_berkeley_db_standby_is_recovered_again_from_what_is_left() {
    let rig = Rig::new();
    fs::create_dir(rig.path("work")).unwrap();
    let round = "set -e; $SHIP -S --state state --via \"$APPLY --acks replica\" master; rm -f work/log.*; \
                 cp replica/log.* work; db5.3_recover -c -h work; $PRUNE --standby replica; $VERIFY -q replica; \
                 ls replica >>left; echo >>left";
    let mut command = rig.sh("exec /usr/bin/python3 -c \"$ROUNDS\" \"$PWD/master\" \"$ROUND\"");
    let ran = command.env("ROUNDS", ROUNDS).env("ROUND", round).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let (all, left) = (logs(&rig, "master"), logs(&rig, "replica"));
    assert!(all.len() > 10 && left.len() < all.len() / 2, "{left:?} of {all:?}");
    // It was pruned in most rounds, not only at the end.
    let rounds = fs::read_to_string(rig.path("left")).unwrap();
    let firsts: std::collections::BTreeSet<_> =
        rounds.split("\n\n").filter_map(|round| round.lines().find(|name| name.starts_with("log."))).collect();
    assert!(firsts.len() > 2, "{firsts:?}");
    let dump = |dir: &str, file: &str| {
        let ran = Command::new("db5.3_dump").arg(rig.path(dir).join(file)).output().unwrap();
        assert!(ran.status.success(), "{ran:?}");
        String::from_utf8(ran.stdout).unwrap()
    };
    for file in ["rows.db", "late.db"] {
        let whole = dump("master", file);
        assert!(whole.lines().count() > 5, "{whole}");
        assert!(whole == dump("work", file), "{file} differs");
    }
    assert!(rig.ok(&format!("$PRUNE --standby --explain {} replica", left[0])).contains("the standby's next recovery"));
}
