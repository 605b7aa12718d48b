//! Resyncs of Berkeley DB environments and SQLite databases while somebody writes to them: what is copied is, after the
//! engine's own recovery, what had been committed.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/bdb.rs"]
mod bdb;
#[path = "support/rig.rs"]
mod rig;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use rig::{Rig, Running, eventually};
use serde_json::Value;

/// Writes to a Berkeley DB environment until it is killed, and not as fast as it can: disks are small. Each row is named by its transaction, as the log names it.
const BDB: &str = r"
import sys, time
from bsddb3 import db
home = sys.argv[1]
env = db.DBEnv()
env.set_lg_max(300000)
env.set_cachesize(0, 4 << 20)
env.set_flags(db.DB_TXN_WRITE_NOSYNC, 1)
env.open(home, db.DB_INIT_TXN | db.DB_INIT_LOG | db.DB_INIT_LOCK | db.DB_INIT_MPOOL | db.DB_CREATE)
rows, t, n = db.DB(env), env.txn_begin(), 0
rows.open('rows.db', None, db.DB_BTREE, db.DB_CREATE, 0o600, txn=t)
rows.put(b'%x' % (t.id() & 0xffffffff), b'opened', txn=t)
t.commit()
while True:
    t, n = env.txn_begin(), n + 1
    rows.put(b'%x' % (t.id() & 0xffffffff), b'%d' % n * (n % 300), txn=t)
    t.abort() if n % 10 == 0 else t.commit()
    if n % 1000 == 0: env.txn_checkpoint()
    time.sleep(.0005)
";

/// Opens an environment, looks into it, and leaves its regions behind.
const BDB_LOOK: &str = r"
import os, sys
from bsddb3 import db
env = db.DBEnv()
env.open(sys.argv[1], db.DB_INIT_TXN | db.DB_INIT_LOG | db.DB_INIT_LOCK | db.DB_INIT_MPOOL | db.DB_CREATE)
rows = db.DB(env)
rows.open('rows.db', None, db.DB_BTREE, db.DB_RDONLY)
for key in rows.keys(): print(key.decode())
sys.stdout.flush()
os._exit(0)
";

/// Writes to a SQLite database in the directory until it is killed: row `n` is committed before row `n + 1` is begun.
const SQLITE: &str = r"
import sqlite3, sys, time
base = sqlite3.connect(sys.argv[1] + '/x.db', timeout=60, isolation_level=None)
base.execute('pragma journal_mode = wal')
base.execute('create table if not exists t(n integer primary key, v text)')
n = base.execute('select count(*) from t').fetchone()[0]
while True:
    n += 1
    base.execute('begin immediate')
    base.execute('insert into t values(?, ?)', (n, str(n) * 50))
    base.execute('update t set v = v || ? where n = ?', ('.', n // 2))
    base.execute('commit')
    time.sleep(.0005)
";

fn python(script: &str, home: &Path) -> BTreeSet<String> {
    let ran = Command::new("/usr/bin/python3").arg("-c").arg(script).arg(home).output().unwrap();
    assert!(ran.status.success(), "is python3-bsddb3 installed? {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap().lines().map(str::to_owned).collect()
}

fn writer(rig: &Rig, script: &str) -> Running {
    fs::write(rig.path("writer.py"), script).unwrap();
    rig.spawn("exec /usr/bin/python3 writer.py master")
}

/// Resyncs, and returns what it says of that.
#[track_caller]
fn sync(rig: &Rig, options: &str) -> Value {
    serde_json::from_str(&rig.ok(&format!("$SYNC --json --delete {options} master replica"))).unwrap()
}

fn regions(dir: &Path) -> Vec<String> {
    let names = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("__db.")).collect()
}

fn committed(rig: &Rig) -> BTreeSet<String> {
    python(bdb::COMMITS, &rig.master())
}

#[test]
fn an_environment_that_is_written_to_is_recovered_to_what_was_committed() {
    let rig = Rig::new();
    let mut writer = writer(&rig, BDB);
    eventually("some log files", || rig.master().join("log.0000000002").exists());
    for (round, options) in ["", "--inplace", "--stage"].into_iter().enumerate() {
        assert!(writer.child.try_wait().unwrap().is_none(), "{}", writer.err());
        let mut old = BTreeSet::new();
        if round > 0 {
            // Regions of the old databases, which would show their rows in the new ones.
            old = python(BDB_LOOK, &rig.replica());
            assert!(!regions(&rig.replica()).is_empty());
        }
        eventually("more rows", || committed(&rig).len() > old.len() + 500);
        let before = committed(&rig);
        let told = sync(&rig, options);
        assert!(told["passes"].as_u64().unwrap() > 2, "{told}");
        assert_eq!(regions(&rig.replica()), [""; 0]);
        let log = python(bdb::COMMITS, &rig.replica());
        let rows = python(BDB_LOOK, &rig.replica());
        assert!(
            before.is_subset(&rows),
            "{} rows were committed before and are gone",
            before.difference(&rows).count()
        );
        let (missing, extra) = (log.difference(&rows).count(), rows.difference(&log).count());
        assert_eq!((missing, extra), (0, 0), "of {} committed", log.len());
        // From there on the log can be shipped to where nothing is yet.
        let position = told["position"].as_str().unwrap();
        rig.ok(&format!("$SHIP -S --state state-{round} --from {position} master | $APPLY log-{round}"));
    }
    assert!(!regions(&rig.master()).is_empty());
    rig.ok("db5.3_verify replica/rows.db");
}

#[test]
fn a_sqlite_database_that_is_written_to_is_whole_in_the_copy() {
    let rig = Rig::new();
    let mut writer = writer(&rig, SQLITE);
    let rows = |dir: &str| -> u64 {
        let said = rig.run(&format!("sqlite3 -cmd '.timeout 60000' {dir}/x.db 'select count(*) from t'"));
        said.out.trim().parse().unwrap_or(0)
    };
    let mut had = 0;
    for options in ["", "--inplace", "--stage"] {
        eventually("more rows", || rows("master") > had + 500);
        assert!(writer.child.try_wait().unwrap().is_none(), "{}", writer.err());
        let before = rows("master");
        let told = sync(&rig, options);
        assert_eq!(told["position"], Value::Null);
        assert!(!rig.path("replica/x.db-shm").exists());
        let said = rig.ok("sqlite3 replica/x.db 'pragma integrity_check; select count(*) - max(n) from t'");
        assert_eq!(said, "ok\n0\n");
        had = rows("replica");
        assert!(had >= before, "{had} of {before} rows");
    }
}
