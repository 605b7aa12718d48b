//! Log that the receiver has on its disk is given up at the master: by a real MariaDB server, and from a real Berkeley DB
//! environment. Never more than that, and never because of what could not be proven.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/mariadb.rs"]
mod mariadb;
#[path = "support/rig.rs"]
mod rig;

use std::fs;
use std::process::Command;

use mariadb::Mariadb;
use rig::{Ran, Rig, eventually, segments};
use rustix::process::Signal;

/// A server with six files of log.
fn master() -> Mariadb {
    let server = Mariadb::start_new(&[]);
    server.sql("create database d; create table d.t(a int);");
    for value in 1..6 {
        server.sql(&format!("insert into d.t values({value}); flush binary logs;"));
    }
    server
}

/// One pass that purges, with more options, by the server that `dsn` leads to.
fn pass(rig: &Rig, from: &Mariadb, dsn: &Mariadb, options: &str) -> Ran {
    let (log, dsn) = (from.data(), dsn.config());
    let purge = format!("--purge --dsn {}", dsn.display());
    rig.run(&format!("$SHIP -S {purge} {options} --via \"$APPLY --acks replica\" {}", log.display()))
}

#[test]
fn a_mariadb_server_purges_what_is_flushed_and_no_more() {
    let (rig, from) = (Rig::new(), master());
    let all: Vec<_> = from.logs();
    assert_eq!(all.len(), 6);
    let whole = segments(&from.data());
    // Up to the middle of the third one. (The server keeps one that its storage engine may need after a crash, for a
    // moment: then another pass has it.)
    let end = fs::metadata(from.data().join("bin.000003")).unwrap().len();
    let passes = |options: &str| {
        let ran = pass(&rig, &from, &from, options);
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    };
    eventually("two purged files", || {
        passes(&format!("--until 1-3:{}", end - 60));
        from.logs().len() <= 4
    });
    assert_eq!(from.logs(), all[2..]);
    // All of it: the current one stays.
    eventually("purged files", || {
        passes("");
        from.logs().len() <= 1
    });
    assert_eq!(from.logs(), all[5..]);
    assert_eq!(from.sql("show binary logs;").lines().count(), 1);
    // None is lost: what the master had is here.
    for name in &all[..5] {
        assert_eq!(whole[name], segments(&rig.replica())[name], "{name}");
    }
    from.sql("insert into d.t values(7);");
    passes("");
}

#[test]
fn while_it_follows_it_purges_as_files_close() {
    let (rig, from) = (Rig::new(), master());
    let (log, dsn) = (from.data(), from.config());
    let ship = format!(
        "exec $SHIP --heartbeat 50ms --state state --purge --dsn {} --via \"exec $APPLY --acks replica\" {}",
        dsn.display(),
        log.display()
    );
    let mut ship = rig.spawn(&ship);
    for _ in 0..3 {
        // The server keeps one that its storage engine may need after a crash, for a moment; the next purge has it.
        eventually("purged files", || from.logs().len() <= 2);
        from.sql("insert into d.t values(8); flush binary logs;");
    }
    eventually("purged files", || from.logs().len() <= 2);
    ship.signal(Signal::TERM);
    assert_eq!(ship.wait().code, 0);
    assert_eq!(segments(&rig.replica()).len(), 9);
}

#[test]
fn a_server_that_does_not_purge_is_a_warning() {
    let (rig, mut from) = (Rig::new(), master());
    let all = from.logs();
    from.stop();
    let ran = pass(&rig, &from, &from, "");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.contains("cannot purge binary logs") && ran.err.contains("log is kept at the master"), "{ran:?}");
    assert_eq!(from.logs(), all);
}

/// Files of the same names there are not the ones that were shipped.
#[test]
fn another_server_purges_nothing() {
    let (rig, from) = (Rig::new(), master());
    let other = Mariadb::start_new(&[]);
    other.sql("create database other_name; flush binary logs; flush binary logs;");
    let ran = pass(&rig, &from, &other, "");
    assert_eq!(ran.code, 0, "{ran:?}");
    assert!(ran.err.contains("is it the server of this log?"), "{ran:?}");
    assert_eq!((from.logs().len(), other.logs().len()), (6, 3));
}

/// A receiver says what it holds before that is compared. It must not count.
#[test]
fn for_a_receiver_with_another_history_nothing_is_purged() {
    let (rig, from, other) = (Rig::new(), master(), master());
    other.sql("insert into d.t values(7); insert into d.t values(8); flush binary logs;");
    let log = other.data();
    assert_eq!(rig.run(&format!("$SHIP -S --via \"$APPLY --acks replica\" {}", log.display())).code, 0);
    let purge = format!("--purge --dsn {} --heartbeat 1ms", from.config().display());
    let via = "--via \"$APPLY --acks --adopt replica\"";
    let ran = rig.run(&format!("$SHIP -S {purge} {via} {}", from.data().display()));
    assert!([3, 4].contains(&ran.code), "{ran:?}");
    assert_eq!(from.logs().len(), 6);
    // One that is slow to compare (of these words, not a real one), and acknowledges what it holds meanwhile.
    let end = fs::metadata(from.data().join("bin.000006")).unwrap().len();
    for holds in ["1-7:4".to_owned(), format!("1-6:{end}")] {
        let receiver = format!(
            "echo welcome v=1 set=- engine=- site=- epoch=0 at={holds}+0123456789abcdef; exec 3<&0; cat <&3 >/dev/null & \
             while kill -0 $! 2>/dev/null; do echo ack received={holds} flushed={holds} applied=-; sleep 0.01; done"
        );
        let (log, dsn) = (from.data(), from.config());
        let purge = format!("--purge --dsn {} --heartbeat 1ms --timeout 500ms", dsn.display());
        let ran = rig.run(&format!("$SHIP -S {purge} --via '{receiver}' {}", log.display()));
        assert_eq!((ran.code, from.logs().len()), (4, 6), "{ran:?}");
    }
}

/// A Berkeley DB SQL database that keeps its log, with some segments of it.
fn environment(rig: &Rig, config: &str) {
    let log = rig.path("shop.db-journal");
    fs::create_dir(&log).unwrap();
    fs::write(log.join("DB_CONFIG"), config).unwrap();
    rig.ok("db5.3_sql shop.db 'create table sale(id integer primary key, item text);'");
    more(rig, 0);
}

fn more(rig: &Rig, from: u32) {
    let rows: String =
        (from..from + 3000).map(|id| format!("insert into sale values({id}, hex(randomblob(400)));")).collect();
    fs::write(rig.path("rows.sql"), format!("begin;{rows}commit;")).unwrap();
    rig.ok("db5.3_sql shop.db < rows.sql");
}

fn logs(rig: &Rig) -> Vec<String> {
    let names = segments(&rig.path("shop.db-journal")).into_keys();
    names.filter(|name| name.starts_with("log.")).collect()
}

const KEEP: &str = "log_set_config DB_LOG_AUTO_REMOVE off\nset_lg_max 200000\n";

#[test]
fn berkeley_db_gives_up_what_is_flushed_and_what_it_needs_no_more() {
    let rig = Rig::new();
    environment(&rig, KEEP);
    let ship = "$SHIP -S --purge --via \"$APPLY --acks replica\" shop.db-journal";
    let all = logs(&rig);
    assert!(all.len() > 4, "{all:?}");
    let listed = rig.ok("db5.3_archive -h shop.db-journal");
    assert!(listed.lines().count() > 2, "{listed}");
    // Up to the second segment only.
    rig.ok(&ship.replace("-S", "-S --until 1-2:1000"));
    assert_eq!(logs(&rig), all[1..]);
    let ran = rig.run(ship);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{ran:?}");
    let left = logs(&rig);
    assert!(left.len() < all.len() - 2 && left.last() == all.last(), "{left:?} of {all:?}");
    assert!(left.iter().all(|name| !listed.lines().any(|line| line.ends_with(name))), "{left:?}, {listed}");
    // The database goes on, and the replica's log alone has all of it.
    more(&rig, 5000);
    rig.ok("db5.3_checkpoint -1 -h shop.db-journal");
    rig.ok(ship);
    rig.ok("mkdir standby; cp -r replica standby/shop.db-journal; rm -r standby/shop.db-journal/.repl");
    rig.ok("printf 'add_data_dir ..\\nset_create_dir ..\\n' >> standby/shop.db-journal/DB_CONFIG");
    rig.ok("db5.3_recover -c -h standby/shop.db-journal");
    let rows = |file: &str| {
        let query = "select count(*), sum(length(item)) from sale;";
        let ran = Command::new("db5.3_sql").args([file, query]).current_dir(rig.root.path()).output().unwrap();
        String::from_utf8(ran.stdout).unwrap()
    };
    assert_eq!(rows("shop.db"), rows("standby/shop.db"));
    assert!(rows("shop.db").starts_with("6000|"), "{}", rows("shop.db"));
}

#[test]
fn an_environment_that_removes_its_log_itself_is_refused() {
    for config in ["set_lg_max 200000\n", "log_set_config DB_LOG_AUTO_REMOVE on\n"] {
        let rig = Rig::new();
        environment(&rig, config);
        let before = logs(&rig);
        rig.run("$SHIP -S --purge --via \"$APPLY --acks replica\" shop.db-journal").fails(2, "DB_LOG_AUTO_REMOVE");
        assert_eq!(logs(&rig), before);
    }
}

#[test]
fn engines_and_options_that_do_not_go_together_are_refused() {
    let rig = Rig::new();
    environment(&rig, KEEP);
    rig.run("$SHIP -S --purge shop.db-journal").fails(2, "need a receiver that acknowledges");
    rig.write("log.1", b"a");
    let plain = "--pattern log.%S";
    let via = "--via 'cat >/dev/null'";
    for (options, says) in [
        (format!("{plain} --purge {via}"), "--purge is for engines bdb and mariadb"),
        (format!("{plain} --slot venus"), "--slot is for engine postgres"),
        (format!("{plain} --home . --purge {via}"), "--home is for engine bdb"),
        (format!("{plain} --dsn x {via}"), "--dsn goes with"),
    ] {
        rig.run(&format!("$SHIP -S {options} master")).fails(2, says);
    }
}
