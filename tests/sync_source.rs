//! What is done at a source around the last pass of a sync, with real databases under load: the copy is made by rsync,
//! the procedure is ours, and the database itself says whether what was copied is whole.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/mariadb.rs"]
mod mariadb;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/rig.rs"]
mod rig;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use mariadb::Mariadb;
use postgres::{Postgres, Stage, Stop};
use repl::edge::dir::Dir;
use repl::engine::sync::procedure::{Procedure, Settings};
use repl::engine::sync::profile::Profile;
use repl::engine::sync::server::{Commands, Server};
use repl::value::exit::{Code, code_of, hint_of};
use repl::value::name::Name;
use rig::eventually;

fn settings(profile: Profile, source: &Path, dsn: Option<String>) -> Settings {
    let timeout = Duration::from_secs(60);
    Settings { profile, source: source.to_owned(), dsn, freeze: None, thaw: None, run_as: None, timeout }
}

/// What rsync copies of a source: all but the late files, or those alone. (Bytes, since stamps may lie; and whole files,
/// since a search for deltas reads pages in two pieces.)
fn copy(profile: Profile, from: &Path, to: &Path, late: bool) {
    let names = profile.names();
    let mut command = Command::new("rsync");
    // A rollback journal that an earlier copy has caught would be played back into this one.
    command.args(["-a", "--checksum", "--inplace", "--whole-file", "--delete"]);
    let mut filter = |what: &str, patterns: &[&str]| {
        command.args(patterns.iter().map(|pattern| format!("--{what}={pattern}")));
    };
    filter("exclude", names.dropped);
    filter("exclude", names.own);
    if late {
        filter("include", names.late);
        filter("include", &["*/"]);
        filter("exclude", &["*"]);
    } else {
        filter("exclude", names.late);
    }
    command.arg(format!("{}/", from.display())).arg(to);
    let ran = command.output().expect("rsync is needed");
    // 24: files vanished, as a running server's do.
    assert!(matches!(ran.status.code(), Some(0 | 24)), "{ran:?}");
}

fn lay(files: Vec<(Name, Vec<u8>)>, to: &Path) {
    for (name, bytes) in files {
        fs::write(to.join(String::from_utf8(name.bytes().to_vec()).unwrap()), bytes).unwrap();
    }
}

fn own_as(path: &Path, like: &Path) {
    let owner = format!("--reference={}", like.display());
    assert!(Command::new("chown").args(["-R", &owner]).arg(path).status().unwrap().success());
}

/// Hot pass, procedure, last pass. The copy is the server's user's.
fn sync(procedure: &mut Procedure, profile: Profile, from: &Path, to: &Path) {
    copy(profile, from, to, false);
    procedure.begin().unwrap();
    copy(profile, from, to, false);
    let laid = procedure.stop().unwrap();
    copy(profile, from, to, true);
    procedure.release().unwrap();
    lay(laid, to);
    own_as(to, from);
}

/// What pgbench keeps equal in each transaction.
const BALANCED: &str = "select (select sum(abalance) from pgbench_accounts) = (select sum(delta) from pgbench_history) \
     and (select sum(tbalance) from pgbench_tellers) = (select sum(delta) from pgbench_history)";

#[test]
fn a_postgres_master_under_load_is_copied_whole() {
    let stage = Stage::new();
    let master =
        Postgres::init(&stage, "source", 1, "checkpoint_timeout = 30s\nmax_wal_size = 8MB\nwal_keep_size = 0\n");
    master.fill(1);
    let load = master.bench("-c 3 -T 600");
    eventually("writers", || master.sql("select count(*) > 200 from pgbench_history") == "t");

    let made = stage.path("copy");
    let mut procedure = Procedure::new(settings(Profile::Postgres, &master.data, Some(master.dsn()))).unwrap();
    assert!(matches!(procedure, Procedure::Postgres(_)));
    sync(&mut procedure, Profile::Postgres, &master.data, &made);
    assert!(fs::read_to_string(made.join("backup_label")).unwrap().contains("LABEL: repl-sync"));
    for absent in ["postmaster.pid", "postmaster.opts"] {
        assert!(!made.join(absent).exists(), "{absent}");
    }
    drop(procedure);
    eventually("the slot's end", || master.sql("select count(*) from pg_replication_slots") == "0");

    let position = Profile::Postgres.position(&Dir::open(&made).unwrap()).unwrap().unwrap();
    let label = fs::read_to_string(made.join("backup_label")).unwrap();
    let place = label.lines().next().unwrap().split_whitespace().nth(3).unwrap();
    assert_eq!((position.segment.generation, position.segment.sequence), (1, postgres::lsn(place) >> 20));

    let facts = |path: &Path| Profile::Postgres.facts(&Dir::open(path).unwrap()).unwrap();
    assert_eq!(facts(&made).marks, facts(&master.data).marks);
    drop(load);

    let mut copied = Postgres::at(&stage, "copy");
    copied.start();
    assert_eq!(copied.sql(BALANCED), "t");
    assert_eq!(copied.sql("select count(*) > 200 from pgbench_history"), "t");
    let (root, port) = (stage.root().display(), copied.port);
    stage.ok(&format!("pg_amcheck --install-missing -h {root} -p {port} -U postgres postgres"));
}

#[test]
fn a_postgres_backup_ends_with_whoever_began_it() {
    let stage = Stage::new();
    let mut master = Postgres::init(&stage, "source", 1, "");
    let slots = || master.sql("select count(*) from pg_replication_slots");
    let mut procedure = Procedure::new(settings(Profile::Postgres, &master.data, Some(master.dsn()))).unwrap();
    procedure.begin().unwrap();
    assert_eq!(slots(), "1");
    procedure.abort();
    eventually("the slot's end", || slots() == "0");

    // Without a begin there is nothing to stop, and a release that succeeds would say that the copy is whole.
    let mut procedure = Procedure::new(settings(Profile::Postgres, &master.data, Some(master.dsn()))).unwrap();
    assert!(procedure.stop().is_err() && procedure.release().is_err());

    // Another server's backup would be no backup of this directory.
    let other = Postgres::init(&stage, "other", 1, "");
    let mut wrong = Procedure::new(settings(Profile::Postgres, &master.data, Some(other.dsn()))).unwrap();
    assert_eq!(code_of(&wrong.begin().unwrap_err()), Code::Guarded);

    master.stop(Stop::Fast);
    let mut idle = Procedure::new(settings(Profile::Postgres, &master.data, Some(master.dsn()))).unwrap();
    assert!(matches!(idle, Procedure::Idle(_)));
    idle.begin().unwrap();
    assert!(idle.stop().unwrap().is_empty());
    idle.release().unwrap();
    idle.begin().unwrap();
    master.start();
    assert!(idle.release().unwrap_err().to_string().contains("came into use"));
}

#[test]
fn a_postgres_server_is_stopped_and_started_as_it_ran() {
    let stage = Stage::new();
    let server = Postgres::init(&stage, "destination", 1, "");
    let state = stage.path("state");
    fs::create_dir(&state).unwrap();
    let open =
        || Server::new(Profile::Postgres, no_commands(), &Dir::open(&state).unwrap(), &server.data, "run-1").unwrap();
    let mut ours = open();
    assert_eq!(code_of(&ours.confirm_down().unwrap_err()), Code::Guarded);
    ours.stop().unwrap();
    assert_ne!(server.query("select 1").code, 0);
    ours.confirm_down().unwrap();
    // Killed here; a later run has it start, with the port and the socket that it had.
    drop(ours);
    let mut later = open();
    assert!(later.was_stopped_by_us());
    later.stop().unwrap();
    later.start(&|| Ok(())).unwrap();
    assert_eq!(server.sql("select 1"), "1");
    assert!(!open().was_stopped_by_us());
    open().stop().unwrap();
}

#[test]
fn a_mariadb_master_under_load_is_copied_whole() {
    let master = Mariadb::start_new(&["innodb_log_file_size=8M"]);
    master.sql(
        "create database d; create table d.a (id int primary key, n int, pad varchar(400), key (n)) engine=innodb;
         create table d.m (n int) engine=myisam; create table d.r (n int, pad varchar(200)) engine=aria;
         use d; insert into d.a select seq, 1000, repeat('x', 400) from seq_1_to_20000;
         delimiter //
         create procedure d.work() begin declare i int default 0; while i < 100000000 do
           start transaction; set @a = floor(1 + rand() * 19999), @b = @a + 1;
           update d.a set n = n - 1, pad = repeat(char(97 + rand() * 26), rand() * 400) where id = @a;
           update d.a set n = n + 1 where id = @b; commit;
           if i % 50 = 0 then insert into d.m values (i); insert into d.r values (i, repeat('y', 200)); end if;
           set i = i + 1; end while; end//",
    );
    let mut load: Vec<_> = (0..2)
        .map(|_| Load(master.client().args(["-e", "call d.work()"]).stderr(Stdio::null()).spawn().unwrap()))
        .collect();
    eventually("writers", || master.sql("select count(*) > 5 from d.m") == "1");

    let dsn = Some(master.config().display().to_string());
    let mut procedure = Procedure::new(settings(Profile::Mariadb, &master.data(), dsn.clone())).unwrap();
    assert!(matches!(procedure, Procedure::Mariadb(_)));
    let scratch = tempfile::tempdir().unwrap();
    for round in 0..3 {
        let made = scratch.path().join(format!("copy{round}"));
        sync(&mut procedure, Profile::Mariadb, &master.data(), &made);
        let facts = |path: &Path| Profile::Mariadb.facts(&Dir::open(path).unwrap()).unwrap();
        assert_eq!(facts(&made).marks.len(), 1);
        assert_eq!(facts(&made), facts(&master.data()));
        let copied = Mariadb::from_copy(&["innodb_log_file_size=8M"], |data| {
            fs::rename(&made, data).unwrap();
        });
        assert_eq!(copied.sql("select sum(n), count(*) from d.a"), "20000000\t20000");
        let checked = copied.sql("check table d.a, d.m, d.r extended");
        assert_eq!(checked.lines().filter(|line| line.ends_with("\tOK")).count(), 3, "{checked}");
        assert!(!copied.errors().contains("[ERROR]"), "{}", copied.errors());
    }
    // It goes on, and another round finds it so.
    let before = master.sql("select max(n) from d.m");
    eventually("writers that go on", || master.sql("select max(n) from d.m") != before);

    // What was written in spite of the lock, the copy does not have: it does not count.
    procedure.begin().unwrap();
    fs::write(master.data().join("d/foreign"), "x").unwrap();
    let error = procedure.release().unwrap_err();
    assert_eq!(code_of(&error), Code::Guarded);
    assert!(error.to_string().contains("d/foreign") && hint_of(&error).unwrap().contains("--freeze"), "{error}");
    load.clear();
}

#[test]
fn a_mariadb_server_elsewhere_is_not_the_sources() {
    let (master, other) = (Mariadb::start_new(&[]), Mariadb::start_new(&[]));
    let dsn = Some(other.config().display().to_string());
    let mut wrong = Procedure::new(settings(Profile::Mariadb, &master.data(), dsn.clone())).unwrap();
    assert_eq!(code_of(&wrong.begin().unwrap_err()), Code::Guarded);

    // Nor is it stopped in the destination's place.
    let state = tempfile::tempdir().unwrap();
    let commands = Commands {
        stop: None,
        start: None,
        status: None,
        check: None,
        run_as: None,
        dsn,
        timeout: Duration::from_secs(60),
    };
    let dir = Dir::open(state.path()).unwrap();
    let mut server = Server::new(Profile::Mariadb, commands.clone(), &dir, &master.data(), "run-1").unwrap();
    let error = server.stop().unwrap_err();
    assert!(error.to_string().contains("has its data in"), "{error}");
    assert_eq!((master.sql("select 1"), other.sql("select 1")), ("1".to_owned(), "1".to_owned()));
    server.bring_back(&|| Ok(())).unwrap();

    let mut server = Server::new(Profile::Mariadb, commands, &dir, &other.data(), "run-2").unwrap();
    server.stop().unwrap();
    assert!(!other.try_sql("select 1").status.success());
    server.start(&|| Ok(())).unwrap();
    assert_eq!(other.sql("select 1"), "1");
    other.sql("shutdown");
}

/// A process that is ended with the test.
struct Load(Child);

impl Drop for Load {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn sqlite(path: &Path, statements: &str) -> String {
    let ran = Command::new("sqlite3")
        .args(["-batch", "-bail", "-cmd", ".timeout 20000"])
        .arg(path)
        .arg(statements)
        .output()
        .unwrap();
    assert!(ran.status.success(), "{statements}: {ran:?}");
    String::from_utf8(ran.stdout).unwrap().trim_end().to_owned()
}

#[test]
fn sqlite_databases_under_load_are_copied_whole() {
    let scratch = tempfile::tempdir().unwrap();
    let source = scratch.path().join("source");
    fs::create_dir(&source).unwrap();
    for (name, mode) in [("a.db", "wal"), ("b.db", "delete")] {
        let make = format!(
            "pragma journal_mode={mode}; create table t (n integer primary key, pad); create table s (n); \
             insert into s values (0); create trigger sum after insert on t begin update s set n = n + 1; end;"
        );
        sqlite(&source.join(name), &make);
    }
    // Without a pause between two, nobody else gets a lock for minutes: SQLite's locks are not fair.
    let write = "pragma busy_timeout=60000; pragma wal_autocheckpoint=20; pragma synchronous=off;";
    let row = "insert into t (pad) values (hex(randomblob(abs(random()) % 4000)));";
    let load: Vec<_> = ["a.db", "b.db"]
        .iter()
        .map(|name| {
            let script =
                format!("{{ echo '{write}'; while echo \"{row}\"; do sleep 0.002; done; }} | sqlite3 -batch \"$1\"");
            let mut command = Command::new("bash");
            command.args(["-c", &script, "bash"]).arg(source.join(name)).stdout(Stdio::null());
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
            Group(command.spawn().unwrap())
        })
        .collect();
    let rows = |path: &Path| -> u64 { sqlite(path, "select count(*) from t").parse().unwrap() };
    eventually("writers", || ["a.db", "b.db"].iter().all(|name| rows(&source.join(name)) > 50));

    let mut procedure = Procedure::new(settings(Profile::Sqlite, &source, None)).unwrap();
    assert!(matches!(procedure, Procedure::Sqlite(_)));
    for round in 0..4 {
        let made = scratch.path().join(format!("copy{round}"));
        copy(Profile::Sqlite, &source, &made, false);
        procedure.begin().unwrap();
        let held = ["a.db", "b.db"].map(|name| rows(&source.join(name)));
        copy(Profile::Sqlite, &source, &made, false);
        assert!(procedure.stop().unwrap().is_empty());
        // Whoever copies pages back from the log does no harm.
        sqlite(&source.join("a.db"), "pragma wal_checkpoint(passive)");
        copy(Profile::Sqlite, &source, &made, true);
        procedure.release().unwrap();
        for (name, held) in ["a.db", "b.db"].iter().zip(held) {
            let path = made.join(name);
            assert_eq!(sqlite(&path, "pragma integrity_check; select n = (select count(*) from t) from s"), "ok\n1");
            assert_eq!(rows(&path), held);
        }
        let last = rows(&source.join("a.db"));
        eventually("a writer that goes on", || rows(&source.join("a.db")) > last);
    }
    drop(load);
}

/// A process group that is ended with the test.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        let group = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        let _ = self.0.wait();
    }
}

/// Writers that move amounts between two databases, so that their sums stay.
const BDB_WRITER: &str = r"
import random, sys, threading
from bsddb3 import db
env = db.DBEnv()
env.set_lk_detect(db.DB_LOCK_DEFAULT)
env.set_cachesize(0, 256 << 10)
env.set_lg_max(1 << 20)
env.set_flags(db.DB_TXN_WRITE_NOSYNC, 1)
env.open(sys.argv[1], db.DB_INIT_TXN | db.DB_INIT_LOG | db.DB_INIT_LOCK | db.DB_INIT_MPOOL | db.DB_THREAD | db.DB_CREATE)
def opened(name):
    one, t = db.DB(env), env.txn_begin()
    one.open(name, None, db.DB_BTREE, db.DB_CREATE | db.DB_THREAD, 0o600, txn=t)
    t.commit()
    return one
both = opened('a.db'), opened('b.db')
t = env.txn_begin()
for one in both:
    for n in range(4000): one.put(b'%d' % n, b'1000' + b' ' * 100, txn=t)
t.commit()
def write(seed):
    dice, n = random.Random(seed), 0
    while True:
        n += 1
        t = env.txn_begin()
        try:
            for one, step in zip(both, (-1, 1)):
                key = b'%d' % dice.randrange(4000)
                one.put(key, b'%d' % (int(one.get(key, txn=t, flags=db.DB_RMW)) + step) + b' ' * dice.randrange(200), txn=t)
            t.commit()
        except db.DBLockDeadlockError: t.abort()
        if n % 500 == 0: env.txn_checkpoint()
for seed in range(3): threading.Thread(target=write, args=(seed,)).start()
print('ready', flush=True)
";
const BDB_SUM: &str = r"
import sys
from bsddb3 import db
total = 0
for name in ('a.db', 'b.db'):
    one = db.DB()
    one.open(sys.argv[1] + '/' + name, None, db.DB_BTREE, db.DB_RDONLY)
    total += sum(int(value) for value in one.values())
print(total)
";

fn python(script: &str, path: &Path) -> Command {
    let mut command = Command::new("/usr/bin/python3");
    command.arg("-c").arg(script).arg(path);
    command
}

#[test]
fn a_berkeley_db_environment_under_load_is_copied_and_recovered() {
    let scratch = tempfile::tempdir().unwrap();
    let source = scratch.path().join("source");
    fs::create_dir(&source).unwrap();
    let mut load = Load(python(BDB_WRITER, &source).stdout(Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    let output = load.0.stdout.take().unwrap();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(output), &mut line).unwrap();
    assert_eq!(line, "ready\n", "is python3-bsddb3 installed?");

    assert_eq!(Profile::detect(&Dir::open(&source).unwrap()).unwrap(), Profile::Bdb);
    let mut procedure = Procedure::new(settings(Profile::Bdb, &source, None)).unwrap();
    assert!(matches!(procedure, Procedure::Bdb(_)) && procedure.needs_recovery());
    let writer = rustix::process::Pid::from_child(&load.0);
    let pause = |signal| rustix::process::kill_process(writer, signal).unwrap();
    for round in 0..3 {
        let made = scratch.path().join(format!("copy{round}"));
        assert!(Command::new("db5.3_archive").args(["-d", "-h"]).arg(&source).status().unwrap().success());
        sync(&mut procedure, Profile::Bdb, &source, &made);
        assert!(!made.join("__db.001").exists());
        let dir = Dir::open(&made).unwrap();
        let relation =
            Profile::Bdb.facts(&dir).unwrap().relation(&Profile::Bdb.facts(&Dir::open(&source).unwrap()).unwrap());
        assert_eq!(relation, repl::engine::sync::facts::Relation::Same);
        // Its log would outrun a recovery of all of it.
        pause(rustix::process::Signal::STOP);
        recover(scratch.path(), &made);
        let sum = python(BDB_SUM, &made).output().unwrap();
        assert_eq!(
            String::from_utf8(sum.stdout).unwrap().trim(),
            "8000000",
            "{}",
            String::from_utf8_lossy(&sum.stderr)
        );
        for name in ["a.db", "b.db"] {
            let verified = Command::new("db5.3_verify").arg(made.join(name)).output().unwrap();
            assert!(verified.status.success(), "{verified:?}");
        }
        pause(rustix::process::Signal::CONT);
    }

    // Log that the copy needs is gone: it does not count.
    procedure.begin().unwrap();
    drop(load);
    let logs = |dir: &Path| -> Vec<PathBuf> {
        let mut found: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
        found.retain(|path| path.file_name().unwrap().to_str().unwrap().starts_with("log."));
        found
    };
    for path in logs(&source) {
        fs::remove_file(path).unwrap();
    }
    let error = procedure.release().unwrap_err();
    assert!(error.to_string().contains("was removed while"), "{error}");
}

/// Nothing that an operator has told.
fn no_commands() -> Commands {
    let (stop, start, status, check, run_as, dsn) = (None, None, None, None, None, None);
    Commands { stop, start, status, check, run_as, dsn, timeout: Duration::from_secs(60) }
}

fn recover(state: &Path, made: &Path) {
    let server = Server::new(Profile::Bdb, no_commands(), &Dir::open(state).unwrap(), made, "run-1").unwrap();
    server.recover(made).unwrap();
}

/// A freeze and a thaw that say what they did.
fn frozen(root: &Path, freeze: &str, thaw: &str) -> Settings {
    let mut settings = settings(Profile::Plain, root, None);
    settings.freeze = Some(freeze.to_owned());
    settings.thaw = Some(thaw.to_owned());
    settings
}

const SAY: &str = "echo \"$REPL_POINT $REPL_ENGINE\" >>\"$REPL_DIR/said\"";

#[test]
fn a_freeze_is_thawed_whatever_happens() {
    let said = |root: &Path| fs::read_to_string(root.join("said")).unwrap_or_default().replace('\n', ",");
    let root = tempfile::tempdir().unwrap();
    let mut procedure = Procedure::new(frozen(root.path(), SAY, SAY)).unwrap();
    procedure.begin().unwrap();
    assert_eq!(said(root.path()), "freeze plain,");
    procedure.stop().unwrap();
    procedure.release().unwrap();
    assert_eq!(said(root.path()), "freeze plain,thaw plain,");

    // Dropped in between.
    procedure.begin().unwrap();
    drop(procedure);
    assert_eq!(said(root.path()), "freeze plain,thaw plain,freeze plain,thaw plain,");

    // A freeze that failed half-way.
    let root = tempfile::tempdir().unwrap();
    let mut procedure = Procedure::new(frozen(root.path(), &format!("{SAY}; echo why; exit 3"), SAY)).unwrap();
    let error = procedure.begin().unwrap_err();
    assert_eq!(code_of(&error), Code::Hook);
    assert!(error.to_string().contains("exited with 3: why"), "{error:#}");
    assert_eq!(said(root.path()), "freeze plain,thaw plain,");

    // One that takes too long.
    let root = tempfile::tempdir().unwrap();
    let mut slow = frozen(root.path(), &format!("{SAY}; exec sleep 1000"), SAY);
    slow.timeout = Duration::from_millis(700);
    let error = Procedure::new(slow).unwrap().begin().unwrap_err();
    assert_eq!(code_of(&error), Code::Hook);
    assert_eq!(said(root.path()), "freeze plain,thaw plain,");

    // A thaw that fails: the master may be down, and the operator must know.
    let root = tempfile::tempdir().unwrap();
    let mut procedure = Procedure::new(frozen(root.path(), SAY, "echo stuck; exit 5")).unwrap();
    procedure.begin().unwrap();
    let error = procedure.release().unwrap_err();
    assert!(error.to_string().contains("exited with 5: stuck") && error.to_string().contains("frozen"), "{error:#}");
    assert!(hint_of(&error).is_some());
}

/// Set for the process that is to be killed, to the directory that it freezes.
const VICTIM: &str = "REPL_TEST_VICTIM";

#[test]
fn a_freeze_is_thawed_when_we_are_killed() {
    if let Some(root) = std::env::var_os(VICTIM) {
        let thaw = "echo noise; echo noise >&2; echo thawed >\"$REPL_DIR/thawed\"";
        let mut procedure = Procedure::new(frozen(Path::new(&root), ": >\"$REPL_DIR/frozen\"", thaw)).unwrap();
        procedure.begin().unwrap();
        fs::write(Path::new(&root).join("begun"), "").unwrap();
        loop {
            std::thread::park();
        }
    }
    let root = tempfile::tempdir().unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "a_freeze_is_thawed_when_we_are_killed"]).env(VICTIM, root.path());
    let mut victim = Load(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    eventually("the freeze", || root.path().join("begun").exists());
    assert!(!root.path().join("thawed").exists());
    victim.0.kill().unwrap();
    eventually("the thaw", || fs::read_to_string(root.path().join("thawed")).is_ok_and(|text| text == "thawed\n"));
}
