//! Berkeley DB itself: logs are shipped while writers are at full speed, and what a replica holds at any instant is
//! recovered by the engine's own tool to exactly the transactions that had been committed up to there. Which these are
//! is told by `db5.3_printlog` or a few lines of Python, not by our scanner.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

#[path = "support/bdb.rs"]
mod bdb;
#[path = "support/rig.rs"]
mod rig;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use repl::rule::scheme::Scheme;
use repl::value::position::Segment;
use rig::{Rig, Running, eventually};
use rustix::process::{Pid, Signal, kill_process};

/// A process with threads that write until `stop` is there. Each transaction's row is named by its id, as the log names
/// it; some are aborted, some stay open long.
const WRITER: &str = r"
import os, random, sys, threading
from bsddb3 import db
home, first, nosync = sys.argv[1], sys.argv[2] == 'first', sys.argv[3] == 'nosync'
env = db.DBEnv()
env.set_lk_detect(db.DB_LOCK_DEFAULT)
for limit in (env.set_lk_max_locks, env.set_lk_max_objects): limit(100000)
env.set_tx_max(1000)
env.set_cachesize(0, 64 << 20)
env.set_lg_max(3 << 20)
env.set_flags(db.DB_TXN_NOSYNC if nosync else db.DB_TXN_WRITE_NOSYNC, 1)
flags = db.DB_INIT_TXN | db.DB_INIT_LOG | db.DB_INIT_LOCK | db.DB_INIT_MPOOL | db.DB_THREAD
env.open(home, flags | (db.DB_CREATE if first else 0))
name = 'first.db' if first else 'second.db'
rows, late, t = db.DB(env), db.DB(env), env.txn_begin()
rows.open(name, 'rows', db.DB_BTREE, db.DB_CREATE | db.DB_THREAD, 0o600, txn=t)
late.open('late-' + name, 'late', db.DB_BTREE, db.DB_CREATE | db.DB_THREAD, 0o600, txn=t)
rows.put(b'%x' % (t.id() & 0xffffffff), b'opened', txn=t)
t.commit()
stop, parent = os.path.join(home, 'stop'), os.getppid()
def write(seed):
    dice, n = random.Random(seed), 0
    # A test that was killed must not leave it writing, until the disk is full.
    while not os.path.exists(stop) and os.getppid() == parent:
        held = None
        for _ in range(200):
            n += 1
            t = env.txn_begin()
            try:
                # A row of a transaction that stays open is elsewhere, or its thread would wait for itself.
                stays = held is None and dice.random() < .01
                (late if stays else rows).put(b'%x' % (t.id() & 0xffffffff), b'%d' % n * dice.randint(1, 40), txn=t)
                if stays: held = t
                elif dice.random() < .1: t.abort()
                else: t.commit()
            except db.DBLockDeadlockError:
                t.abort()
                if held: held.abort(); held = None
        if held: held.abort() if dice.random() < .5 else held.commit()
        if dice.random() < .02: env.txn_checkpoint()
threads = [threading.Thread(target=write, args=(seed,)) for seed in range(3)]
print('ready', flush=True)
for one in threads: one.start()
for one in threads: one.join()
env.txn_checkpoint()
rows.close()
late.close()
env.close()
";

fn seconds() -> u64 {
    std::env::var("REPL_TEST_SECONDS").map_or(8, |seconds| seconds.parse().unwrap())
}

/// Starts a writer and waits until it writes; it ends when its home has a file `stop`, or we end.
fn writer(home: &Path, args: [&str; 2]) -> Writer {
    let mut command = Command::new("/usr/bin/python3");
    command.arg("-c").arg(WRITER).arg(home).args(args).stdout(Stdio::piped());
    let mut child = command.spawn().expect("python3 is needed, with bsddb3: install python3-bsddb3");
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    assert_eq!(line, "ready\n", "is python3-bsddb3 installed?");
    Writer(child)
}

struct Writer(Child);

impl Drop for Writer {
    fn drop(&mut self) {
        // A test that fails must not leave it writing.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn python(script: &str, home: &Path) {
    let ran = Command::new("/usr/bin/python3").arg("-c").arg(script).arg(home).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
}

fn logs(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path());
    let mut logs: Vec<_> =
        entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with("log.")).collect();
    logs.sort();
    logs
}

/// Every segment begins like the master's. Ours is read first, since the master's only grows.
fn check_prefixes(rig: &Rig, from: &Path) {
    for path in logs(&rig.replica()).into_iter().filter(|path| path.file_name() >= from.file_name()) {
        let ours = fs::read(&path).unwrap();
        let mut theirs = vec![0; ours.len()];
        let master = rig.master().join(path.file_name().unwrap());
        fs::File::open(&master).unwrap().read_exact_at(&mut theirs, 0).unwrap();
        assert!(ours == theirs, "{} is no prefix of the master's", path.display());
    }
}

/// What `position` says: sequence and offset.
fn position(rig: &Rig) -> (u64, u64) {
    let text = rig.ok("$APPLY --position replica");
    let Some(at) = text.strip_prefix("1-") else {
        return (1, 0);
    };
    let (sequence, offset) = at.split('+').next().unwrap().trim().split_once(':').unwrap();
    (sequence.parse().unwrap(), offset.parse().unwrap())
}

/// Copies what the replica holds, and no byte more.
fn copy_held(rig: &Rig, to: &str) -> PathBuf {
    let (last, offset) = position(rig);
    let copy = rig.path(to);
    let _ = fs::remove_dir_all(&copy);
    fs::create_dir(&copy).unwrap();
    for sequence in 1..=last {
        let name = format!("log.{sequence:010}");
        if sequence < last || offset > 0 {
            fs::copy(rig.replica().join(&name), copy.join(&name)).unwrap();
        }
        if sequence == last && offset > 0 {
            fs::OpenOptions::new().write(true).open(copy.join(&name)).unwrap().set_len(offset).unwrap();
            // The cut is between two records, or at the end of a closed file, which has nothing behind its last one.
            let (mut scanner, held) =
                (Scheme::Bdb.scanner(Segment::new(1, 1), None), fs::read(copy.join(&name)).unwrap());
            scanner.take(&held);
            let behind = &held[scanner.safe() as usize..];
            assert!(behind.iter().all(|byte| *byte == 0), "{name}, held up to {offset}: {:?}", scanner.trouble());
        }
    }
    copy
}

/// Transaction ids with a commit record, as the engine's own tool reads the log.
fn committed(dir: &Path) -> BTreeSet<u64> {
    let printed =
        Command::new("db5.3_printlog").arg("-h").arg(dir).output().expect("db5.3_printlog: install db5.3-util");
    assert!(printed.status.success(), "{}", String::from_utf8_lossy(&printed.stderr));
    let text = String::from_utf8_lossy(&printed.stdout).into_owned();
    let (mut ids, mut ending) = (BTreeSet::new(), None);
    for line in text.lines() {
        if line.starts_with('[') {
            ending = line.contains("__txn_regop").then(|| {
                let id = line.split("txnp ").nth(1).unwrap().split(' ').next().unwrap();
                u64::from_str_radix(id, 16).unwrap()
            });
        } else if line.trim() == "opcode: 1" {
            ids.extend(ending.take());
        }
    }
    ids
}

/// The same as [`committed`], for more log than `db5.3_printlog` prints in bearable time.
fn committed_in_bulk(dir: &Path) -> BTreeSet<u64> {
    let ran = Command::new("/usr/bin/python3").arg("-c").arg(bdb::COMMITS).arg(dir).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8_lossy(&ran.stdout).lines().map(|id| u64::from_str_radix(id, 16).unwrap()).collect()
}

/// Names of the rows in both databases, after catastrophic recovery.
fn recovered(dir: &Path) -> BTreeSet<u64> {
    let ran = Command::new("db5.3_recover").args(["-c", "-h"]).arg(dir).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    rows(dir)
}

fn rows(dir: &Path) -> BTreeSet<u64> {
    let mut ids = BTreeSet::new();
    for (file, name) in
        [("first.db", "rows"), ("late-first.db", "late"), ("second.db", "rows"), ("late-second.db", "late")]
    {
        // One whose creation is not in the log (yet) is not there.
        let dump = Command::new("db5.3_dump").args(["-p", "-s", name]).arg(dir.join(file)).output().unwrap();
        let text = String::from_utf8_lossy(&dump.stdout).into_owned();
        let lines = text.lines().skip_while(|line| *line != "HEADER=END").skip(1).step_by(2);
        ids.extend(lines.filter_map(|line| line.strip_prefix(' ')).map(|id| u64::from_str_radix(id, 16).unwrap()));
    }
    ids
}

/// Recovers what is held and compares; returns how many transactions were there.
fn check_recovery(rig: &Rig) -> usize {
    let copy = copy_held(rig, "copy");
    if logs(&copy).is_empty() {
        return 0;
    }
    let known = committed_in_bulk(&copy);
    if logs(&copy).len() < 6 {
        assert_eq!(known, committed(&copy), "the two readers of the log");
    }
    let committed = known;
    let recovered = recovered(&copy);
    let (missing, extra) = (committed.difference(&recovered).count(), recovered.difference(&committed).count());
    assert_eq!((missing, extra), (0, 0), "of {} committed at {:?}", committed.len(), position(rig));
    committed.len()
}

fn applier(rig: &Rig) -> Option<Pid> {
    let text = fs::read_to_string(rig.replica().join(".repl/lock")).ok()?;
    Pid::from_raw(text.trim().strip_prefix("process ")?.parse().ok()?)
}

/// Ends shipping, one way or another, and waits until nobody writes the replica.
fn halt(rig: &Rig, mut ship: Running, how: usize) {
    if how == 2 {
        let _ = applier(rig).map(|pid| kill_process(pid, Signal::KILL));
    }
    ship.signal(if how == 0 { Signal::TERM } else { Signal::KILL });
    let ran = ship.wait();
    assert!(how != 0 || ran.code == 0, "{ran:?}");
    eventually("no receiver", || rig.run("flock -sn replica true").code == 0);
}

#[test]
fn a_replica_of_writers_at_full_speed_recovers_to_what_was_committed() {
    let rig = Rig::new();
    let mut random = fastrand::Rng::with_seed(11);
    let mut writers = [writer(&rig.master(), ["first", "nosync"]), writer(&rig.master(), ["second", "write"])];
    let follow = "exec $SHIP --state state --via \"exec $APPLY --acks replica\" master";
    let (began, end) = (Instant::now(), Duration::from_secs(seconds()));
    let (mut rounds, mut looks, mut most) = (0, 0, 0);
    while began.elapsed() < end || rounds < 3 {
        let ship = rig.spawn(follow);
        let until = Instant::now() + end / 8 + Duration::from_millis(random.u64(..300));
        let mut from = logs(&rig.replica()).pop().unwrap_or_default();
        while Instant::now() < until {
            check_prefixes(&rig, &from);
            from = logs(&rig.replica()).pop().unwrap_or_default();
            looks += 1;
            std::thread::sleep(Duration::from_millis(random.u64(..20)));
        }
        halt(&rig, ship, rounds % 3);
        check_prefixes(&rig, Path::new(""));
        most = most.max(check_recovery(&rig));
        rounds += 1;
    }
    rig.write("stop", b"");
    for writer in &mut writers {
        assert!(writer.0.wait().unwrap().success());
    }
    let pass = "$SHIP -S --state state --via \"$APPLY --acks replica\" master";
    rig.ok(pass);
    check_prefixes(&rig, Path::new(""));
    let all = check_recovery(&rig);
    assert_eq!(recovered(&rig.path("copy")), rows(&rig.master()), "the master's own rows");
    let (ours, theirs) = (logs(&rig.replica()), logs(&rig.master()));
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(&theirs).take(theirs.len() - 1) {
        assert!(fs::read(ours).unwrap() == fs::read(theirs).unwrap(), "{} is closed and differs", ours.display());
    }
    let bytes = theirs.len() * 3;
    eprintln!("{rounds} rounds, {looks} looks, {all} transactions, about {bytes} MB of log");
    assert!(rounds >= 3 && looks > 20 && most > 100 && theirs.len() > 3, "too little was tried");
}

/// Three log files, 300 committed rows, and a transaction that stays open behind them.
const SMALL: &str = r"
import sys, os
from bsddb3 import db
env = db.DBEnv()
env.set_lg_max(200000)
env.open(sys.argv[1], db.DB_INIT_TXN | db.DB_INIT_LOG | db.DB_INIT_LOCK | db.DB_INIT_MPOOL | db.DB_CREATE)
rows, t = db.DB(env), env.txn_begin()
rows.open('first.db', 'rows', db.DB_BTREE, db.DB_CREATE, 0o600, txn=t)
rows.put(b'%x' % (t.id() & 0xffffffff), b'opened', txn=t)
t.commit()
for n in range(300):
    t = env.txn_begin()
    rows.put(b'%x' % (t.id() & 0xffffffff), b'x' * 1500, txn=t)
    t.commit()
t = env.txn_begin()
rows.put(b'%x' % (t.id() & 0xffffffff), b'y' * 1500, txn=t)
env.log_flush()
os._exit(0)
";

#[test]
fn commit_only_ends_behind_the_last_commit() {
    let rig = Rig::new();
    python(SMALL, &rig.master());
    rig.ok("$SHIP -S --commit-only --state state --via \"$APPLY --acks replica\" master");
    let held = position(&rig);
    let copy = copy_held(&rig, "copy");
    let printed = rig.ok("db5.3_printlog -h copy");
    let last = printed.lines().rfind(|line| line.starts_with('[')).unwrap().to_owned();
    assert!(last.contains("__txn_regop"), "{last}");
    assert_eq!(committed(&copy).len(), 301);
    assert_eq!(recovered(&copy).len(), 301);
    rig.ok("$SHIP -S --state state --via \"$APPLY --acks replica\" master");
    assert!(position(&rig) > held, "the open transaction is not in the log");
    assert_eq!(check_recovery(&rig), 301);
}

#[test]
fn until_a_time_ends_with_the_last_transaction_before_it() {
    let rig = Rig::new();
    python(SMALL, &rig.master());
    rig.ok("$SHIP -S --until 2001-01-01T00:00:00Z --state state --via \"$APPLY --acks replica\" master");
    assert_eq!(position(&rig), (1, 0));
    rig.ok("$SHIP -S --until 2037-01-01T00:00:00Z --state state --via \"$APPLY --acks replica\" master");
    assert_eq!(check_recovery(&rig), 301);
}

#[test]
fn a_damaged_middle_file_ends_with_6_and_nothing_from_there_on_is_shipped() {
    let rig = Rig::new();
    python(SMALL, &rig.master());
    let path = rig.master().join("log.0000000002");
    let good = fs::read(&path).unwrap();
    let mut bad = good.clone();
    bad[60_000] ^= 1;
    fs::write(&path, &bad).unwrap();
    let ran = rig.run("$SHIP -S --state state --via \"$APPLY --acks replica\" master");
    ran.fails(6, "log.0000000002 is damaged at ");
    let at: u64 = ran.err.split("is damaged at ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!((50_000..=60_000).contains(&at), "{ran:?}");
    assert_eq!(position(&rig), (2, at));
    assert!(fs::read(rig.replica().join("log.0000000002")).unwrap() == good[..at as usize]);
    assert!(!rig.replica().join("log.0000000003").exists());
    check_recovery(&rig);
    // Repaired (from a copy), it goes on.
    fs::write(&path, &good).unwrap();
    rig.ok("$SHIP -S --state state --via \"$APPLY --acks replica\" master");
    assert_eq!(check_recovery(&rig), 301);
}

fn sql(rig: &Rig, database: &str, text: &str) -> String {
    let mut command = rig.sh(&format!("db5.3_sql {database}"));
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn berkeley_db_sql_is_shipped_with_its_configuration_and_its_rows_come_out_by_sql() {
    let rig = Rig::new();
    let pass = "$SHIP -S --state state --via \"$APPLY --acks replica\" master/x.db-journal";
    sql(&rig, "master/y.db", "create table t(a);\n");
    let ran = rig.run("$SHIP -S --state state2 --via \"$APPLY --acks other\" master/y.db-journal");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.contains("removes logs automatically"), "{ran:?}");
    // In the region files of an environment the default stays until it is made anew.
    fs::create_dir(rig.master().join("x.db-journal")).unwrap();
    fs::write(rig.master().join("x.db-journal/DB_CONFIG"), "log_set_config DB_LOG_AUTO_REMOVE off\n").unwrap();
    sql(&rig, "master/x.db", "create table t(a integer primary key, b text);\n");
    for part in 0..3 {
        let insert = |row| format!("insert into t values({}, '{}');\n", part * 4000 + row, "text ".repeat(50));
        sql(&rig, "master/x.db", &format!("begin;\n{}commit;\n", (0..4000).map(insert).collect::<String>()));
        let ran = rig.run(pass);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    }
    assert!(logs(&rig.replica()).len() > 1, "one log file proves little");
    assert_eq!(fs::read(rig.replica().join("DB_CONFIG")).unwrap(), b"log_set_config DB_LOG_AUTO_REMOVE off\n");
    // At the slave the journal is beside its database, and recovery must be told so.
    rig.ok(
        "mkdir -p slave/x.db-journal && cp replica/log.* replica/DB_CONFIG slave/x.db-journal && \
         printf 'add_data_dir ..\\nset_create_dir ..\\n' >>slave/x.db-journal/DB_CONFIG && db5.3_recover -c -h slave/x.db-journal",
    );
    let sums = "select count(*), sum(a), sum(length(b)) from t;\n";
    let rows = sql(&rig, "slave/x.db", sums);
    assert_eq!(rows, sql(&rig, "master/x.db", sums));
    assert!(rows.starts_with("12000|"), "{rows}");
}
