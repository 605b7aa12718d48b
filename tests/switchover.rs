//! An orderly switchover of real databases under a writer's load: what was committed at the old master is at the new one,
//! the old one ships no more and follows, and it goes back again, interrupted on the way.

#![allow(clippy::unwrap_used, clippy::expect_used)]
#![allow(unreachable_pub, reason = "all of it is one test crate")]

#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/rig.rs"]
mod rig;

#[path = "switchover/berkeley_pair.rs"]
mod berkeley_pair;
#[path = "switchover/cut.rs"]
mod cut;
#[path = "switchover/pair.rs"]
mod pair;
#[path = "switchover/postgres_pair.rs"]
mod postgres_pair;

use std::fs;
use std::path::Path;

use postgres::{Postgres, Stage};
use rig::{Ran, Rig, eventually};

/// The configuration of a site in a root, with what is said of its server.
fn config(root: &Path, [here, there]: [&str; 2], engine: &str, logdir: &str, server: &str) -> String {
    let root = root.display();
    format!(
        "set = \"orders\"\nhere = \"{here}\"\nengine = \"{engine}\"\nlogdir = \"{root}/{logdir}\"\n\
         datadir = \"{root}/{here}\"\nstate = \"{root}/{here}-state\"\n[server]\n{server}\n\
         [[site]]\nname = \"{there}\"\nrsh = \"sh -c\"\nconfig = \"{root}/{there}.toml\"\n"
    )
}

/// Writes a row each time round, and its number to `acked` once it is committed; ends when the server does.
const ROWS: &str = r#"
i=0
while i=$((i + 1)); psql -X -q -d "$DSN" -c "insert into told values ($i)" 2>/dev/null; do echo $i >> acked; done
"#;

#[test]
fn a_postgres_pair_changes_roles_under_load_and_back() {
    let stage = Stage::new();
    let mut a = Postgres::init(&stage, "a", 1, "wal_keep_size = 256MB\nwal_retrieve_retry_interval = 100ms\n");
    a.sql("create table told (i int primary key)");
    let mut b = a.standby("b");
    for pair in [["a", "b"], ["b", "a"]] {
        let text = config(stage.root(), pair, "postgres", &format!("{}/pg_wal", pair[0]), "");
        fs::write(stage.path("config"), text).unwrap();
        stage_own(&stage, &format!("{}.toml", pair[0]));
    }
    stage.ok("$ROLE init --master -q -c a.toml");
    let via = "$APPLY --acks -c b.toml";
    let mut ship = stage.spawn("ship", &format!("exec $SHIP --state a-state --set orders --via \"{via}\" a/pg_wal"));
    b.start();
    let (dsn_a, dsn_b) = (a.dsn(), b.dsn());
    let rows = stage.spawn("rows", &format!("export DSN='{dsn_a}'; {ROWS}"));
    let acked = || fs::read_to_string(stage.path("acked")).unwrap_or_default().lines().count();
    eventually("rows", || acked() > 20);

    let ran = stage.run("$ROLE switchover -v --to b --reason drill -c a.toml");
    assert_eq!(ran.code, 0, "{ran:?} {}", b.said());
    a.stopped_by_another();
    drop(rows);
    let count: usize = b.sql("select count(*) from told").parse().unwrap();
    let written = acked();
    let missing =
        b.sql(&format!("select count(*) from generate_series(1, {written}) i where i not in (select i from told)"));
    assert!(missing == "0" && count >= written, "{missing} of {written} are missing");
    assert_eq!(b.sql("select pg_is_in_recovery()"), "f");
    // The sender that was at work has ended, and none is begun.
    assert_eq!(ship.wait().code, 0);
    pass(&stage, "a", "b").fails(5, "this site is a receiver since epoch 2");
    // The old master follows.
    b.sql("insert into told values (-1)");
    let end = b.current_lsn();
    let ran = pass(&stage, "b", "a");
    assert_eq!(ran.code, 0, "{ran:?}");
    eventually("the old master's answer", || {
        let ran = stage.run(&format!("psql -X -A -t -d '{dsn_a}' -c 'select count(*) from told where i = -1'"));
        ran.out.trim() == "1"
    });
    a.reaches(end);
    // What each has been before is history, which no age makes an alarm.
    let told = |site: &str, part: &str| {
        let ran = stage.run(&format!("$STATUS --json --warn-age 0s --crit-age 0s --local -c {site}.toml"));
        let found: serde_json::Value =
            serde_json::from_str(&ran.out).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
        ["state", "alarm", "why"].map(|key| found[part][0][key].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(told("a", "senders"), ["ended", "ok", "this site is a receiver since epoch 2"]);
    assert_eq!(told("b", "receivers"), ["ended", "ok", "this site is the master since epoch 2"]);

    // And back, killed behind its point of no return.
    let kill = "strace -o /dev/null -e trace=renameat -e inject=renameat:signal=KILL:when=7";
    assert_ne!(stage.run(&format!("{kill} $ROLE switchover --to a -c b.toml")).code, 0);
    b.stopped_by_another();
    assert!(stage.ok("cat b-state/role").contains("role=receiver"), "{}", stage.ok("ls b-state; cat b-state/*"));
    // Whatever starts it now finds a standby.
    assert!(stage.path("b/standby.signal").exists());
    let ran = stage.run("$ROLE switchover --to a -c b.toml");
    assert_eq!(ran.code, 0, "{ran:?} {}", a.said());
    assert_eq!(stage.ok("$ROLE where -c a.toml; $ROLE where -c b.toml"), "a\na\n");
    assert_eq!(a.sql("insert into told values (-2) returning pg_is_in_recovery()"), "f");
    pass(&stage, "b", "a").fails(5, "this site is a receiver since epoch 3");
    assert_eq!(pass(&stage, "a", "b").code, 0);
    eventually("the rows at the other one", || {
        let ran = stage.run(&format!("psql -X -A -t -d '{dsn_b}' -c 'select count(*) from told where i < 0'"));
        ran.out.trim() == "2"
    });
}

/// Gives a file to the servers' user under another name.
fn stage_own(stage: &Stage, name: &str) {
    stage.ok(&format!("cp config {name} && chmod 600 {name}"));
}

fn pass(stage: &Stage, from: &str, to: &str) -> Ran {
    stage.run(&format!(
        "$SHIP -S --set orders --state {from}-state --retry-for 1ms --via \"$APPLY --acks -c {to}.toml\" {from}/pg_wal"
    ))
}

/// Opens an environment, tells that it runs, commits rows and notes them in `acked`, until a file says stop.
const WRITER: &str = r"
import os, sys
from bsddb3 import db
home, root = sys.argv[1], sys.argv[2]
env = db.DBEnv()
env.set_lg_max(200000)
env.open(home, db.DB_INIT_TXN | db.DB_INIT_LOG | db.DB_INIT_LOCK | db.DB_INIT_MPOOL | db.DB_CREATE)
rows, t = db.DB(env), env.txn_begin()
rows.open('rows.db', None, db.DB_BTREE, db.DB_CREATE, 0o600, txn=t)
t.commit()
n, acked = len(rows), open(root + '/acked', 'a')
while not os.path.exists(home + '-stop'):
    n, t = n + 1, env.txn_begin()
    rows.put(b'%08d' % n, b'x' * 200, txn=t)
    t.commit()
    acked.write('%08d\n' % n)
    acked.flush()
rows.close()
env.close()
os.unlink(home + '-runs')
";

const KEYS: &str = r"
import sys
from bsddb3 import db
env = db.DBEnv()
env.open(sys.argv[1], db.DB_INIT_TXN | db.DB_INIT_LOG | db.DB_INIT_LOCK | db.DB_INIT_MPOOL | db.DB_CREATE | db.DB_RECOVER)
rows = db.DB(env)
rows.open('rows.db', None, db.DB_BTREE, db.DB_RDONLY)
for key in rows.keys(): print(key.decode())
";

#[test]
fn a_berkeley_db_pair_changes_roles_under_load_and_back() {
    let rig = Rig::new();
    rig.ok("mkdir a bin; for c in $ROLE $APPLY $SHIP; do ln -s $c bin; done");
    fs::write(rig.path("writer.py"), WRITER).unwrap();
    fs::write(rig.path("keys.py"), KEYS).unwrap();
    let root = rig.root.path().display().to_string();
    for pair in [["a", "b"], ["b", "a"]] {
        let home = format!("{root}/{}", pair[0]);
        let server = format!(
            "stop = \"touch {home}-stop; while [ -e {home}-runs ]; do sleep .02; done\"\n\
             start = \"rm -f {home}-stop; touch {home}-runs; /usr/bin/python3 {root}/writer.py {home} {root} &\"\n\
             status = \"[ -e {home}-runs ]\""
        );
        let text = config(rig.root.path(), pair, "bdb", pair[0], &server)
            .replace("sh -c", &format!("env PATH={root}/bin:/usr/sbin:/usr/bin:/bin sh -c"));
        fs::write(rig.path(&format!("{}.toml", pair[0])), text).unwrap();
    }
    rig.ok("chmod 600 *.toml");
    let run = |site: &str| {
        rig.ok(&format!("rm -f {site}-stop; touch {site}-runs; setsid /usr/bin/python3 writer.py $PWD/{site} $PWD >{site}.log 2>&1 &"))
    };
    let _end = End(&rig);
    run("a");
    let acked = || fs::read_to_string(rig.path("acked")).unwrap_or_default().lines().count();
    eventually("rows", || acked() > 500);
    rig.ok("$ROLE init --master -q -c a.toml");
    let mut ship = rig.spawn("exec $SHIP --state a-state --set orders --via \"$APPLY --acks -c b.toml\" a");
    let beyond = acked() + 1000;
    eventually("more rows, and some of them at the other site", || {
        acked() > beyond && rig.run("$APPLY --position b").out.starts_with("1-")
    });

    let ran = rig.run("$ROLE switchover --to b -c a.toml");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ship.wait().code, 0);
    // All rows of the old master, and the new one's own.
    let before = acked();
    eventually("the new master's rows", || acked() > before + 100);
    pass_bdb(&rig, "a", "b").fails(5, "this site is a receiver since epoch 2");
    assert_eq!(pass_bdb(&rig, "b", "a").code, 0);
    // And back, killed on the way.
    let kill = "strace -o /dev/null -e trace=renameat -e inject=renameat:signal=KILL:when=3";
    assert_ne!(rig.run(&format!("{kill} $ROLE switchover --to a -c b.toml")).code, 0);
    assert!(rig.ok("cat b-state/role").contains("role=master"));
    let ran = rig.run("$ROLE switchover --to a -c b.toml");
    assert_eq!(ran.code, 0, "{ran:?}");
    let before = acked();
    eventually("the first master's rows", || acked() > before + 100);
    rig.ok("touch a-stop; while [ -e a-runs ]; do sleep .02; done");
    pass_bdb(&rig, "b", "a").fails(5, "this site is a receiver since epoch 3");
    assert_eq!(pass_bdb(&rig, "a", "b").code, 0);
    let keys = rig.ok("/usr/bin/python3 keys.py a");
    assert_eq!(keys, rig.ok("cat acked"), "each committed row is there, and was written once");
}

/// Writers end with the test.
struct End<'a>(&'a Rig);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.run("touch a-stop b-stop; for try in 1 2 3 4 5 6 7 8 9; do [ -e a-runs ] || [ -e b-runs ] || break; sleep .1; done");
    }
}

fn pass_bdb(rig: &Rig, from: &str, to: &str) -> Ran {
    rig.run(&format!(
        "$SHIP -S --set orders --state {from}-state --retry-for 1ms --via \"$APPLY --acks -c {to}.toml\" {from}"
    ))
}
