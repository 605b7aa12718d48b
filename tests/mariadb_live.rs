//! A MariaDB server itself: its binary log is shipped while it is written, rotated, killed and begun anew. What a replica
//! holds in the end is the master's files, byte for byte.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

#[path = "support/mariadb.rs"]
mod mariadb;
#[path = "support/rig.rs"]
mod rig;

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use mariadb::Mariadb;
use rig::{Rig, eventually};
use rustix::process::Signal;

const PASS: &str = "$SHIP -S --state state --via \"$APPLY --acks replica\"";
const TABLES: &str = "create database d; create table d.i (a int auto_increment primary key, b longtext) engine=innodb;
    create table d.m (a int) engine=aria;";

/// A script with the server's log directory behind it.
fn on(server: &Mariadb, script: &str) -> String {
    format!("{script} {}", server.data().display())
}

/// Every file of the replica is the master's, whole or as far as it is held; returns how many there are.
#[track_caller]
fn compare(master: &Path, replica: &Path, is_prefix: bool) -> usize {
    let names = fs::read_dir(replica).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name != ".repl").collect();
    names.sort();
    for (at, name) in names.iter().enumerate() {
        let (mut ours, mut theirs) = (fs::read(replica.join(name)).unwrap(), fs::read(master.join(name)).unwrap());
        if is_prefix && at + 1 == names.len() {
            theirs.truncate(ours.len());
            // The flag is written when the file is closed. It may have been made a moment ago, with nothing in it yet.
            [&mut ours, &mut theirs].into_iter().filter_map(|bytes| bytes.get_mut(21)).for_each(|flags| *flags |= 1);
        }
        assert!(ours == theirs, "{name} is not the master's: {} and {} bytes", ours.len(), theirs.len());
    }
    assert!(names.iter().all(|name| name.starts_with("bin.0")), "{names:?}");
    names.len()
}

/// Holds a replica against its master in every way there is.
#[track_caller]
fn check(rig: &Rig, server: &Mariadb) -> usize {
    let count = compare(&server.data(), &rig.replica(), true);
    rig.ok("cd replica && b3sum --check --quiet .repl/B3SUMS");
    let sums = fs::read_to_string(rig.replica().join(".repl/B3SUMS")).unwrap();
    assert_eq!(sums.lines().count(), count - 1, "all but the last are closed: {sums}");
    rig.ok("$VERIFY replica");
    count
}

/// Writes from several clients until it is told to stop; each goes on after a crash.
fn write(server: &Mariadb, client: u64, stop: &AtomicBool, written: &AtomicU64) {
    let mut round = client;
    while !stop.load(Ordering::SeqCst) {
        round += 4;
        let text = "text ".repeat((round * 37 % 3000) as usize);
        let ending = if round % 7 == 3 { "rollback" } else { "commit" };
        let sql = format!(
            "begin; insert into d.i (b) values ('{text}'); insert into d.i (b) values ('{round}'); {ending}; \
             insert into d.m values ({round});"
        );
        if server.try_sql(&sql).status.success() {
            written.fetch_add(1, Ordering::SeqCst);
        } else {
            std::thread::yield_now();
        }
    }
}

/// Runs this while clients write, with a count of what they have written.
fn while_writing(server: &Mariadb, script: impl FnOnce(&dyn Fn(u64))) {
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for client in 0..3 {
            let (stop, written) = (&stop, &written);
            scope.spawn(move || write(server, client, stop, written));
        }
        let more = |count: u64| {
            let target = written.load(Ordering::SeqCst) + count;
            eventually("more transactions", || written.load(Ordering::SeqCst) >= target);
        };
        // A test that fails must not leave them writing.
        let _stop = Stop(&stop);
        script(&more);
    });
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_log_is_followed_while_it_is_written_rotated_and_flushed() {
    let rig = Rig::new();
    let server = Mariadb::start_new(&["max_binlog_size=64K"]);
    server.sql(TABLES);
    let mut ship = rig.spawn(&on(&server, "exec $SHIP --poll 50ms --state state --via \"exec $APPLY --acks replica\""));
    while_writing(&server, |more| {
        for _ in 0..5 {
            more(15);
            server.sql("flush binary logs;");
            if rig.replica().join("bin.000001").exists() {
                compare(&server.data(), &rig.replica(), true);
            }
        }
        // A link that is lost and found.
        ship.signal(Signal::KILL);
        ship.wait();
        more(5);
        eventually("no receiver", || rig.run("flock -sn replica true").code == 0);
        ship = rig.spawn(&on(&server, "exec $SHIP --poll 50ms --state state --via \"exec $APPLY --acks replica\""));
        more(15);
    });
    ship.signal(Signal::TERM);
    let ran = ship.wait();
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    // The server notes in the log, in its own time, what it has on disk.
    eventually("all of it", || {
        rig.ok(&on(&server, PASS));
        let (name, end) = server.master_status();
        fs::metadata(rig.replica().join(name)).unwrap().len() == end
    });
    assert!(check(&rig, &server) > 10);
    // In order, the server stops: its last file is whole, too, once there is a next one.
    let mut server = server;
    server.stop();
    server.start();
    rig.ok(&on(&server, PASS));
    check(&rig, &server);
    // A replica is shipped on, and to an archive from its beginning.
    rig.ok("$SHIP -S --state state2 --via \"$APPLY --acks far\" replica");
    rig.ok(&format!("$SHIP -S {} | $APPLY archive", server.data().display()));
    for other in ["far", "archive"] {
        compare(&server.data(), &rig.path(other), true);
        rig.ok(&format!("cd {other} && b3sum --check --quiet .repl/B3SUMS && $VERIFY ."));
    }
    // All of it again: compared, not written.
    let ran = rig.run(&format!("$SHIP -S {} | $APPLY -v replica", server.data().display()));
    assert!(ran.code == 0 && ran.err.contains("bytes were there already and are equal"), "{ran:?}");
    check(&rig, &server);
}

#[test]
fn a_killed_server_s_files_are_shipped_with_their_torn_ends() {
    let rig = Rig::new();
    let mut server = Mariadb::start_new(&["max_binlog_size=1G"]);
    server.sql(TABLES);
    let (mut torn, mut sizes) = (0, Vec::new());
    // A kill tears a large transaction sooner or later.
    while torn < 2 || sizes.len() < 4 {
        let name = format!("bin.{:06}", sizes.len() + 1);
        let path = server.data().join(&name);
        let ship = rig.spawn(&on(&server, "exec $SHIP --poll 20ms --state state --via \"exec $APPLY --acks replica\""));
        let grown = fs::metadata(&path).unwrap().len() + 1;
        let row = format!("insert into d.i (b) values ('{}');", "row ".repeat(100_000));
        let sql = format!("begin; {} commit; insert into d.m values (1);", row.repeat(12)).repeat(3);
        std::thread::scope(|scope| {
            let client = scope.spawn(|| server.try_sql(&sql));
            while fs::metadata(&path).unwrap().len() < grown {
                std::thread::yield_now();
            }
            rustix::process::kill_process(server.pid(), Signal::KILL).unwrap();
            client.join().unwrap();
        });
        server.kill9();
        server.start();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes[21], 1, "the flag stays");
        eventually("the next segment", || rig.replica().join(format!("bin.{:06}", sizes.len() + 2)).exists());
        ship.signal(Signal::TERM);
        drop(ship);
        eventually("no receiver", || rig.run("flock -sn replica true").code == 0);
        rig.ok(&on(&server, PASS));
        assert!(fs::read(rig.replica().join(&name)).unwrap() == bytes, "{name}");
        sizes.push(bytes.len());
        check(&rig, &server);
        torn += u32::from(printed_end(&path) < bytes.len() as u64);
        assert!(sizes.len() < 40, "no kill tears a file: {torn} of {sizes:?}");
    }
    rig.ok("$SHIP -S --state state2 --via \"$APPLY --acks far\" replica && $VERIFY far");
    compare(&server.data(), &rig.path("far"), true);
    rig.ok("cd far && b3sum --check --quiet .repl/B3SUMS");
}

/// The end of the last whole event, as the server's own reader sees it.
fn printed_end(file: &Path) -> u64 {
    let ran = std::process::Command::new("mariadb-binlog").arg("--no-defaults").arg(file).output().unwrap();
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    let ends = text.lines().filter(|line| line.starts_with('#')).filter_map(|line| line.split_once(" end_log_pos "));
    ends.map(|(_, rest)| rest.split(' ').next().unwrap().parse().unwrap()).max().unwrap()
}

#[test]
fn a_log_that_is_begun_anew_is_diverged_and_overwrites_nothing() {
    let rig = Rig::new();
    let server = Mariadb::start_new(&[]);
    server.sql(TABLES);
    server.sql("flush binary logs; insert into d.m values (1); flush binary logs; insert into d.m values (2);");
    rig.ok(&on(&server, PASS));
    let before = rig::segments(&rig.replica());
    // The beginning of a file has its time in seconds.
    let second = server.sql("select unix_timestamp();");
    eventually("another second", || server.sql("select unix_timestamp();") != second);
    server.sql("reset master;");
    for more in ["", "insert into d.m values (3);", "flush binary logs; flush binary logs; flush binary logs;"] {
        server.sql(&format!("{more}select 1;"));
        let ran = rig.run(&on(&server, PASS));
        assert_eq!(ran.code, 4, "{ran:?}");
        let ran = rig.run(&format!("$SHIP -S {} | $APPLY replica", server.data().display()));
        ran.fails(4, "diverged");
        assert_eq!(rig::segments(&rig.replica()), before);
    }
    // While it is followed, too.
    let rig = Rig::new();
    rig.ok(&on(&server, PASS));
    let before = rig::segments(&rig.replica());
    let mut ship = rig.spawn(&on(&server, "exec $SHIP --poll 20ms --state state --via \"exec $APPLY --acks replica\""));
    eventually("a sender", || rig.run("flock -sn replica true").code != 0);
    let second = server.sql("select unix_timestamp();");
    eventually("another second", || server.sql("select unix_timestamp();") != second);
    server.sql("reset master; insert into d.m values (3);");
    let ran = ship.wait();
    assert!([3, 4, 6].contains(&ran.code), "{ran:?}");
    assert_eq!(rig::segments(&rig.replica()), before);
    let ran = rig.run(&on(&server, PASS));
    assert_eq!(ran.code, 4, "{ran:?}");
}

#[test]
fn an_encrypted_log_is_shipped_segment_by_segment() {
    let rig = Rig::new();
    let mut server = Mariadb::install(&[]);
    let keys = server.dir().join("keys");
    fs::write(&keys, "1;770a8a65da156d24ee2a093277530142\n").unwrap();
    server.set("plugin_load_add=file_key_management");
    server.set(&format!("file_key_management_filename={}", keys.display()));
    server.set("encrypt_binlog=ON");
    server.start();
    server.sql(TABLES);
    let ran = rig.run(&on(&server, PASS));
    let words = "repl-ship: the log is encrypted: each segment is shipped when it is closed, not before\n";
    assert_eq!((ran.code, ran.err.as_str()), (0, words));
    // Magic, format description, and what says that the rest is encrypted.
    let plain = fs::metadata(rig.replica().join("bin.000001")).unwrap().len();
    assert!(plain < 512 && plain < fs::metadata(server.data().join("bin.000001")).unwrap().len(), "{plain}");
    rig.ok("$VERIFY replica");
    for round in 0..3 {
        server.sql(&format!("insert into d.i (b) values (repeat('x', {})); flush binary logs;", round * 100_000));
    }
    let ran = rig.run(&on(&server, PASS));
    assert_eq!((ran.code, ran.err.as_str()), (0, words), "once");
    assert_eq!(check(&rig, &server), 4);
    // After a crash the flag stays; a file counts when the one behind the next is there.
    server.sql("insert into d.i (b) values (repeat('y', 300000));");
    server.kill9();
    server.start();
    rig.ok(&on(&server, PASS));
    assert_eq!(compare(&server.data(), &rig.replica(), true), 4);
    server.sql("flush binary logs;");
    rig.ok(&on(&server, PASS));
    assert_eq!(check(&rig, &server), 6);
    rig.ok("$SHIP -q -S --state state2 --via \"$APPLY --acks far\" replica && $VERIFY far");
    compare(&server.data(), &rig.path("far"), true);
}

#[test]
fn a_damaged_file_ends_with_6_and_nothing_from_there_on_is_shipped() {
    let rig = Rig::new();
    let server = Mariadb::start_new(&[]);
    server.sql(TABLES);
    server.sql("flush binary logs; insert into d.i (b) values (repeat('x', 30000)); insert into d.m values (1);");
    server.sql("flush binary logs; insert into d.m values (2); flush binary logs;");
    let path = server.data().join("bin.000002");
    let file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 10_000).unwrap();
    file.write_all_at(&[byte[0] ^ 4], 10_000).unwrap();
    let ran = rig.run(&on(&server, PASS));
    ran.fails(6, "bin.000002 is damaged at ");
    ran.fails(6, ", and a whole event follows at 3");
    assert!(!rig.replica().join("bin.000003").exists());
    compare(&server.data(), &rig.replica(), true);
    // Repaired (from a copy), it goes on.
    file.write_all_at(&byte, 10_000).unwrap();
    rig.ok(&on(&server, PASS));
    assert_eq!(check(&rig, &server), 4);
}

#[test]
fn a_log_directory_is_known_by_its_index_and_an_ambiguous_or_empty_one_needs_a_pattern() {
    let rig = Rig::new();
    for name in ["a.index", "a.000001", "b.index", "b.000001"] {
        rig.write(name, "");
    }
    rig.run("$SHIP -S master | cat").fails(2, "binary logs of both 'a.%06S' and 'b.%06S' are there; say --pattern");
    rig.run("$SHIP -S --engine mariadb --pattern b.%S master | cat")
        .fails(2, "needs a --pattern such as 'mysql-bin.%06S'");
    let rig = Rig::new();
    rig.run("$SHIP -S --engine mariadb master | cat").fails(2, "say --pattern, such as 'mysql-bin.%06S'");
}
