//! MariaDB itself, fed by its own client from what is durable at a replica: `CHECKSUM TABLE` must say the same of every
//! table on both sides, whatever was killed in between. Tables without a key are in it: there a row that is applied twice
//! is two rows.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

#[path = "support/mariadb.rs"]
mod mariadb;
#[path = "support/rig.rs"]
mod rig;

use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

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

/// Processes of this test's feed: its working directory is the test's own.
fn feeders(rig: &Rig, names: &[&str]) -> Vec<Pid> {
    let root = fs::canonicalize(rig.root.path()).unwrap();
    let is_ours = |pid: &i32| {
        let of = |what: &str| format!("/proc/{pid}/{what}");
        let name = fs::read_to_string(of("comm")).unwrap_or_default();
        names.contains(&name.trim_end()) && fs::read_link(of("cwd")).is_ok_and(|cwd| cwd == root)
    };
    let entries = fs::read_dir("/proc").unwrap().map(|entry| entry.unwrap().file_name());
    let pids = entries.filter_map(|name| name.to_str()?.parse().ok()).filter(is_ours);
    pids.filter_map(Pid::from_raw).collect()
}

/// Transactions on several connections, until it is dropped; some are aborted, some large.
struct Writers {
    enough: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Writers {
    fn start(server: &Mariadb) -> Writers {
        server.sql("create database if not exists w; create table if not exists w.bare(a int, t varchar(200));");
        let enough = Arc::new(AtomicBool::new(false));
        let threads = (0..2).map(|number| {
            let (enough, config) = (Arc::clone(&enough), server.config());
            std::thread::spawn(move || {
                let mut client = Command::new("mariadb");
                // A transaction may lose against a change of its table.
                client.arg(format!("--defaults-file={}", config.display())).arg("--force").stdin(Stdio::piped());
                let mut client = client.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
                let (mut input, mut dice) = (client.stdin.take().unwrap(), fastrand::Rng::with_seed(number));
                let mut count = 0;
                while !enough.load(Ordering::SeqCst) {
                    count += 1;
                    let rows = if dice.u8(..50) == 0 { 2000 } else { dice.u32(1..5) };
                    let end = if dice.u8(..5) == 0 { "rollback" } else { "commit" };
                    // A client whose server was killed is gone.
                    let written = writeln!(
                        input,
                        "begin; insert into w.bare select {count}, repeat('{number}', seq % 200) from w.seq_1_to_{rows}; \
                         {end};{} do sleep(0.03);",
                        if dice.u8(..100) == 0 {
                            format!("alter table w.bare comment 'of {number}, {count}';")
                        } else {
                            String::new()
                        }
                    );
                    if written.and_then(|()| input.flush()).is_err() {
                        break;
                    }
                }
                drop(input);
                client.wait().unwrap();
            })
        });
        let threads = threads.collect();
        Writers { enough, threads }
    }
}

impl Drop for Writers {
    fn drop(&mut self) {
        self.enough.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn rows(server: &Mariadb) -> u64 {
    String::from_utf8(server.try_sql("select count(*) from w.bare;").stdout).unwrap().trim().parse().unwrap_or(0)
}

/// What is killed: our receiver, the two programs that it runs, all three, the sender too, or the server itself.
#[test]
fn a_feed_that_is_killed_at_any_instant_applies_nothing_twice() {
    const KILLED: [&[&str]; 5] = [
        &["repl-apply"],
        &["mariadb"],
        &["mariadb-binlog"],
        &["repl-apply", "mariadb", "mariadb-binlog"],
        &["repl-ship", "repl-apply"],
    ];
    let (rig, from, mut to) = (Rig::new(), master(), replica());
    let writers = Writers::start(&from);
    let follow = ship("--state state --poll 5ms", &from, &to);
    let mut ship = rig.spawn(&follow);
    let (mut dice, mut killed) = (fastrand::Rng::with_seed(11), [0; KILLED.len() + 1]);
    for round in 0..rounds() {
        let before = rows(&to);
        eventually("rows at the replica", || {
            if ship.child.try_wait().unwrap().is_some() {
                ship = rig.spawn(&follow);
            }
            rows(&to) > before
        });
        let what = round % killed.len();
        std::thread::sleep(Duration::from_micros(dice.u64(..30_000)));
        if let Some(names) = KILLED.get(what) {
            // One that runs for some milliseconds at a time must be met.
            eventually("a process to kill", || {
                let found = feeders(&rig, names);
                killed[what] += found.iter().filter(|pid| kill_process(**pid, Signal::KILL).is_ok()).count();
                !found.is_empty()
            });
        } else {
            to.kill9();
            to.start();
            killed[what] += 1;
        }
    }
    drop(writers);
    eventually("all rows at the replica", || {
        if ship.child.try_wait().unwrap().is_some() {
            ship = rig.spawn(&follow);
        }
        rows(&to) == rows(&from)
    });
    ship.signal(Signal::TERM);
    let ran = ship.wait();
    assert_eq!(ran.code, 0, "{ran:?}");
    passes(&rig, &from, &to);
    assert_same(&from, &to);
    eprintln!("killed: {killed:?}, {} rows, {} files", rows(&to), from.logs().len());
    assert!(rounds() < killed.len() || killed.iter().all(|times| *times > 0), "{killed:?}");
}

/// The torn transaction stays in the file for ever, and its identifier comes again in the next one.
#[test]
fn a_master_that_is_killed_inside_a_transaction_uses_its_identifier_again() {
    let (rig, mut from, to) = (Rig::new(), Mariadb::start_new(&["binlog_cache_size=32K"]), replica());
    from.sql("create database d; create table d.bare(a int, t text); insert into d.bare values(1, 'one');");
    passes(&rig, &from, &to);
    for round in 0..3 {
        let (name, end) = from.master_status();
        let log = from.data().join(&name);
        std::thread::scope(|scope| {
            let large = "insert into d.bare select seq, repeat('x', 1000) from d.seq_1_to_40000;";
            scope.spawn(|| from.try_sql(large));
            eventually("bytes of a transaction", || fs::metadata(&log).unwrap().len() > end + 4096);
            kill_process(from.pid(), Signal::KILL).unwrap();
        });
        from.gone();
        // What the kill left may be the whole; then there is no end in the middle of it, so some is cut off.
        let torn = fs::metadata(&log).unwrap().len();
        let whole = String::from_utf8(
            Command::new("mariadb-binlog").arg(format!("--start-position={end}")).arg(&log).output().unwrap().stdout,
        )
        .unwrap();
        if whole.contains("\nCOMMIT") {
            fs::OpenOptions::new().write(true).open(&log).unwrap().set_len(torn - 1).unwrap();
        }
        from.start();
        from.sql(&format!("insert into d.bare values({round}, 'after');"));
        passes(&rig, &from, &to);
        assert_same(&from, &to);
        assert!(torn > end + 4096 && fs::metadata(rig.replica().join(&name)).unwrap().len() > end);
    }
}

#[test]
fn a_statement_that_fails_stops_the_feed_in_its_place_until_it_is_repaired() {
    let (rig, from, to) = (Rig::new(), master(), replica());
    from.sql("create database d; create table d.a(a int); create table d.b(a int); insert into d.a values(1);");
    passes(&rig, &from, &to);
    let held = to.sql("set session sql_log_bin = 0; drop table d.b; select @@gtid_binlog_pos;");
    from.sql("insert into d.a values(2); insert into d.b values(3); insert into d.a values(4);");
    let ran = pass(&rig, &from, &to);
    ran.fails(9, "Table 'd.b' doesn't exist");
    assert_eq!(to.sql("select group_concat(a order by a) from d.a;"), "1,2");
    assert_ne!(to.sql("select @@gtid_binlog_pos;"), held);
    // All of the log is here all the same.
    assert!(ran.err.contains("receiver"), "{ran:?}");
    pass(&rig, &from, &to).fails(9, "Table 'd.b' doesn't exist");
    to.sql("set session sql_log_bin = 0; create table d.b(a int);");
    passes(&rig, &from, &to);
    assert_same(&from, &to);
    assert_eq!(to.sql("select group_concat(a order by a) from d.a;"), "1,2,4");
}

#[test]
fn a_local_write_at_the_replica_blocks_the_feed_and_nothing_is_passed_over() {
    let (rig, from, to) = (Rig::new(), master(), replica());
    from.sql("create database d; create table d.a(a int); insert into d.a values(1);");
    // The replica's own transactions have higher numbers than the master's.
    to.sql("create database own; create table own.a(a int); create table own.b(a int); create table own.c(a int);");
    let ran = pass(&rig, &from, &to);
    ran.fails(9, "ERROR 1950");
    ran.fails(9, "set read_only");
    assert_eq!(to.sql("show databases like 'd';"), "");
    assert!(!rig.replica().join(".repl/applied").exists());
    to.sql("set session sql_log_bin = 0; drop database own; set session sql_log_bin = 1; reset master;");
    passes(&rig, &from, &to);
    assert_same(&from, &to);
}

#[test]
fn what_comes_before_must_have_been_executed() {
    let (rig, from, to) = (Rig::new(), master(), replica());
    from.sql("create database d; create table d.a(a int); insert into d.a values(1); flush binary logs;");
    passes(&rig, &from, &to);
    from.sql("insert into d.a values(2); flush binary logs; insert into d.a values(3);");
    // Another server with the same rows, and without what tells which transactions they are of.
    to.sql("reset master;");
    pass(&rig, &from, &to).fails(9, "has not executed transaction 0-");
    assert_eq!(to.sql("select group_concat(a order by a) from d.a;"), "1");
    let before = from.sql("show binlog events in 'bin.000002' limit 1, 1;");
    let state = before.split(['[', ']']).nth(1).unwrap().to_owned();
    to.sql(&format!("set global gtid_binlog_state = '{state}';"));
    passes(&rig, &from, &to);
    assert_same(&from, &to);
}

/// One whose place is lost finds it again at the server, also in the middle of a file.
#[test]
fn a_feed_without_its_own_notes_asks_the_server() {
    let (rig, from, to) = (Rig::new(), master(), replica());
    from.sql(
        "create database d; create table d.bare(a int); insert into d.bare values(1); insert into d.bare values(2);",
    );
    passes(&rig, &from, &to);
    for value in 3..6 {
        fs::remove_file(rig.replica().join(".repl/applied")).unwrap();
        from.sql(&format!(
            "insert into d.bare values({value}); flush binary logs; insert into d.bare values({value});"
        ));
        passes(&rig, &from, &to);
        assert_same(&from, &to);
    }
}

#[test]
fn a_server_that_could_execute_a_transaction_twice_is_refused() {
    for (options, says) in [
        (["log_slave_updates", "gtid_strict_mode=OFF"], "without gtid_strict_mode"),
        (["skip_log_bin", "gtid_strict_mode=ON"], "without log_bin"),
        (["skip_log_slave_updates", "gtid_strict_mode=ON"], "without log_slave_updates"),
    ] {
        let (rig, from, to) = (Rig::new(), master(), Mariadb::start_new(&options));
        from.sql("create database d;");
        pass(&rig, &from, &to).fails(9, says);
        assert_eq!(to.sql("show databases like 'd';"), "");
    }
}

#[test]
fn a_server_that_is_away_is_waited_for() {
    let (rig, from, mut to) = (Rig::new(), master(), replica());
    from.sql("create database d; create table d.a(a int);");
    to.stop();
    pass(&rig, &from, &to).fails(9, "Can't connect");
    let mut ship = rig.spawn(&ship("--state state --poll 5ms", &from, &to));
    eventually("a warning", || ship.err().contains("feeding is tried again"));
    to.start();
    eventually("the table", || to.try_sql("select * from d.a;").status.success());
    ship.signal(Signal::TERM);
    assert_eq!(ship.wait().code, 0);
}

/// Transactions of two histories can have the same identifiers.
#[test]
fn a_server_that_executed_what_was_set_aside_is_not_fed_on() {
    let options = ["server_id=77"];
    let (rig, mut from, to) = (Rig::new(), Mariadb::start_new(&options), replica());
    from.sql("create database d; create table d.a(a int); insert into d.a values(1);");
    from.kill9();
    let data = from.data();
    let other = Mariadb::from_copy(&options, |to| {
        assert!(Command::new("cp").arg("-a").args([&data, to]).status().unwrap().success());
    });
    from.start();
    from.sql("insert into d.a values(2);");
    other.sql("insert into d.a values(3); flush binary logs; insert into d.a values(4);");
    passes(&rig, &from, &to);
    let aside = ship("-S", &other, &to).replace("--acks", "--acks --set-aside --adopt");
    for _ in 0..2 {
        rig.run(&aside).fails(9, "that is set aside now: make it anew");
        assert_eq!(to.sql("select group_concat(a) from d.a;"), "1,2");
    }
}

#[test]
fn an_encrypted_log_is_refused_and_not_taken_for_an_empty_one() {
    let (rig, mut from, to) = (Rig::new(), Mariadb::install(&[]), replica());
    let keys = from.dir().join("keys");
    fs::write(&keys, "1;770a8a65da156d24ee2a093277530142\n").unwrap();
    for option in ["plugin_load_add=file_key_management", "encrypt_binlog=ON"] {
        from.set(option);
    }
    from.set(&format!("file_key_management_filename={}", keys.display()));
    from.start();
    from.sql("create database d; flush binary logs; flush binary logs;");
    pass(&rig, &from, &to).fails(9, "is encrypted: only a server with its key can read it");
    assert!(!rig.replica().join(".repl/applied").exists());
}

/// A pass that ended a little behind its end took the bytes and not the boundary with it: they were held, and not fed.
#[test]
fn a_pass_beside_a_writer_feeds_all_that_was_committed_when_it_began() {
    let (rig, master, replica) = (Rig::new(), master(), replica());
    master.sql("create database w; create table w.bare(n int);");
    let line = format!(
        "while :; do mariadb --defaults-file={} -e 'insert into w.bare values(1); insert into w.bare values(2)'; done",
        master.config().display()
    );
    let _writer = rig.spawn(&line);
    for round in 0..8 {
        let begin: u64 = master.sql("select count(*) from w.bare;").parse().unwrap();
        // All of it again, in many pieces; what the server has is passed over.
        rig.ok(&format!(
            "$SHIP -S --state state-{round} {} | $APPLY --feed default --dsn {} log-{round}",
            master.data().display(),
            replica.config().display()
        ));
        assert!(rows(&replica) >= begin, "{} of {begin} rows", rows(&replica));
    }
}
