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

use rig::{Rig, Running, eventually};
use serde_json::Value;

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
    bdb::python(bdb::COMMITS, &rig.master())
}

#[test]
fn an_environment_that_is_written_to_is_recovered_to_what_was_committed() {
    let rig = Rig::new();
    let mut writer = writer(&rig, bdb::WRITE);
    eventually("some log files", || rig.master().join("log.0000000002").exists());
    for (round, options) in ["", "--inplace", "--stage"].into_iter().enumerate() {
        assert!(writer.child.try_wait().unwrap().is_none(), "{}", writer.err());
        let mut old = BTreeSet::new();
        if round > 0 {
            // Regions of the old databases, which would show their rows in the new ones.
            old = bdb::python(bdb::LOOK, &rig.replica());
            assert!(!regions(&rig.replica()).is_empty());
        }
        eventually("more rows", || committed(&rig).len() > old.len() + 500);
        let before = committed(&rig);
        let told = sync(&rig, options);
        assert!(told["passes"].as_u64().unwrap() > 2, "{told}");
        assert_eq!(regions(&rig.replica()), [""; 0]);
        let log = bdb::python(bdb::COMMITS, &rig.replica());
        let rows = bdb::python(bdb::LOOK, &rig.replica());
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
