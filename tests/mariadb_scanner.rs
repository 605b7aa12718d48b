//! The MariaDB scanner on logs that the server wrote, judged by the server's own reader.
//!
//! Every event that `mariadb-binlog` prints is found with the same end, and nothing else; boundaries are where
//! transactions end by what it prints, and nowhere else. Needs mariadb-server and mariadb-client.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/mariadb.rs"]
mod mariadb;

use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use mariadb::Mariadb;
use repl::rule::pattern::Pattern;
use repl::rule::scheme::mariadb::{Gtids, Transactions};
use repl::rule::scheme::{Beside, Closure, Engine, HEAD, Kind, Mark, Scanner, Scheme};
use repl::value::position::Segment;
use repl::value::time::Time;

/// What `mariadb-binlog` says of one event.
#[derive(Debug)]
struct Printed {
    end: u64,
    seconds: i64,
    words: String,
    /// Statements that follow.
    body: String,
}

fn pattern() -> Pattern {
    Pattern::parse("bin.%06S").unwrap()
}

fn scheme() -> Scheme {
    Scheme::Mariadb(pattern())
}

/// The events of a file as `mariadb-binlog` prints them, in order of their ends.
fn printed(file: &Path) -> Vec<Printed> {
    let mut command = Command::new("mariadb-binlog");
    // Times are printed in the local zone.
    command
        .args(["--no-defaults", "--verify-binlog-checksum", "--base64-output=decode-rows"])
        .arg(file)
        .env("TZ", "UTC");
    let ran = command.output().expect("mariadb-binlog is needed: install mariadb-client");
    assert!(ran.status.success(), "{ran:?}");
    let mut events: Vec<Printed> = Vec::new();
    for line in String::from_utf8_lossy(&ran.stdout).lines() {
        let Some((date, words)) = line.strip_prefix('#').and_then(|line| line.split_once(" end_log_pos ")) else {
            if let Some(event) = events.last_mut() {
                event.body += &format!("{line}\n");
            }
            continue;
        };
        let (end, words) = words.split_once(' ').unwrap();
        let words = words.split_once('\t').map_or("", |(_, words)| words).to_owned();
        let date = date.split(" server id").next().unwrap();
        events.push(Printed { end: end.parse().unwrap(), seconds: seconds(date), words, body: String::new() });
    }
    // What annotates rows is printed behind them, sometimes.
    events.sort_by_key(|event| event.end);
    events
}

/// Seconds since 1970 of `261122  7:47:00`.
fn seconds(date: &str) -> i64 {
    let (day, time) = date.split_once(' ').unwrap();
    let text = format!("20{}-{}-{}T{:0>8}Z", &day[..2], &day[2..4], &day[4..], time.trim());
    Time::parse(&text).unwrap_or_else(|| panic!("{date}: {text}")).0 / 1_000_000
}

/// Where transactions end: what begins with a GTID ends with its commit, or is one statement.
fn ends(events: &[Printed]) -> Vec<Mark> {
    let (mut marks, mut open) = (Vec::new(), None);
    for event in events {
        if event.words.starts_with("GTID ") {
            // The client begins a transaction only where one has to be ended.
            open = Some(event.body.contains("START TRANSACTION") || event.body.contains("XA START"));
            continue;
        }
        let is_before = ["Annotate", "Intvar", "Rand", "User_var", "Table_map", "#Begin"];
        let is_end = match open {
            Some(true) => {
                // What ends one is the server's own word, alone on its line.
                let is_word = |line: &str| ["COMMIT", "ROLLBACK"].contains(&line.trim_end_matches("/*!*/;"));
                event.words.starts_with('X') || (event.words.starts_with("Query") && event.body.lines().any(is_word))
            }
            Some(false) => !is_before.iter().any(|word| event.words.starts_with(word)),
            None => false,
        };
        if is_end {
            marks.push(Mark { offset: event.end, time: Some(Time::from_seconds(event.seconds)) });
            open = None;
        }
    }
    marks
}

/// Takes one byte at a time: every place up to which the log was safe, and every boundary.
fn walk(bytes: &[u8]) -> (Vec<u64>, Vec<Mark>) {
    let mut scanner = scheme().scanner(Segment::new(1, 1), None);
    let (mut ends, mut marks) = (Vec::new(), Vec::new());
    for byte in bytes {
        let before = (scanner.safe(), scanner.boundary());
        scanner.take(std::slice::from_ref(byte));
        if scanner.safe() != before.0 {
            ends.push(scanner.safe());
        }
        if scanner.boundary() != before.1 {
            marks.push(scanner.boundary().unwrap());
        }
    }
    (ends, marks)
}

fn scan(bytes: &[u8]) -> Scanner {
    let mut scanner = scheme().scanner(Segment::new(1, 1), None);
    bytes.chunks(64 << 10).for_each(|chunk| scanner.take(chunk));
    scanner
}

/// Judges a file by the one behind it.
fn judge(bytes: &[u8], number: u64, next: &[u8], is_passed: bool) -> Closure {
    let mut scanner = scan(bytes);
    if scanner.search() {
        let from = scanner.at() as usize;
        scanner.take(&bytes[from..]);
    }
    let (own, segment) = (&bytes[..HEAD.min(bytes.len())], Segment::new(1, number + 1));
    let next = &next[..next.len().min(1 << 16)];
    scanner.closure(Beside { own, segment, next, is_passed })
}

/// Holds the scanner against the server's reader, for every file; returns the files and how many transactions were seen.
fn compare(server: &Mariadb) -> (Vec<Vec<u8>>, usize) {
    let logs = server.logs();
    let mut transactions = 0;
    for name in &logs {
        let path = server.data().join(name);
        let (events, bytes) = (printed(&path), fs::read(&path).unwrap());
        let (safe, marks) = walk(&bytes);
        assert_eq!(safe, events.iter().map(|event| event.end).collect::<Vec<_>>(), "{name}");
        assert_eq!(marks, ends(&events), "{name}");
        let at_once = scan(&bytes);
        assert_eq!((at_once.safe() as usize, at_once.boundary()), (bytes.len(), marks.last().copied()));
        transactions += compare_gtids(&bytes, &events, &marks);
    }
    (logs.iter().map(|name| fs::read(server.data().join(name)).unwrap()).collect(), transactions)
}

/// The names of transactions are those that are printed; returns their count.
fn compare_gtids(bytes: &[u8], events: &[Printed], marks: &[Mark]) -> usize {
    let names = events.iter().filter_map(|event| event.words.strip_prefix("GTID "));
    let names: Vec<_> = names.map(|words| words.split(' ').next().unwrap().to_owned()).collect();
    let mut seen = Vec::new();
    let mut transactions = Transactions::new(&pattern(), Gtids::default());
    transactions.take(bytes, |one, _| seen.push(one));
    assert_eq!(seen.iter().map(|one| one.gtid.to_string()).collect::<Vec<_>>(), names);
    assert_eq!(
        seen.iter().map(|one| one.end).collect::<Vec<_>>(),
        marks.iter().map(|mark| mark.offset).collect::<Vec<_>>()
    );
    for (at, one) in seen.iter().enumerate() {
        let mut some = Transactions::new(&pattern(), Gtids::parse(&one.gtid.to_string()).unwrap());
        some.take(bytes, |_, _| {});
        assert_eq!((some.behind(), some.end()), (Some(one.end), seen.last().map(|last| last.end)), "{at}");
    }
    seen.len()
}

/// All kinds of groups: engines with and without transactions, statements and rows, definitions, distributed ones.
const MIXED: &str = "
    create database d; use d;
    create table i (a int auto_increment primary key, b longtext, r double) engine=innodb;
    create table m (a int) engine=aria;
    insert into i (b) values ('one');
    insert into m values (1), (2);
    begin; insert into i (b) values (repeat('y', 3000)); insert into m values (3); insert into i (b) values ('z'); commit;
    begin; insert into m values (4); insert into i (b) values ('gone'); rollback;
    xa start 'x'; insert into i (b) values ('xa'); xa end 'x'; xa prepare 'x'; xa commit 'x';
    xa start 'y'; insert into i (b) values ('xa'); xa end 'y'; xa prepare 'y'; xa rollback 'y';
    set binlog_format = statement;
    create temporary table t (a int); insert into t values (1);
    set insert_id = 70; insert into i (r) values (rand());
    set @v = 'COMMIT'; insert into i (b) values (@v);
    begin; insert into i (b) values ('\\0COMMIT'); savepoint s; insert into m values (5); rollback to s; commit;
    load data infile '/etc/passwd' into table m (@x) set a = length(@x);
    create table c engine=aria as select * from m;
    truncate c; drop table c; analyze table i; flush tables;
    create procedure p() insert into m values (6); call p(); drop procedure p;
    set binlog_format = row;
    update i set b = 'all'; delete from m;
";

#[test]
fn the_server_and_the_scanner_see_the_same_events_and_transactions() {
    let server = Mariadb::start_new(&["max_binlog_size=4K", "log_bin_compress=ON", "log_bin_compress_min_len=100"]);
    server.sql(MIXED);
    // As many files as a rotation by size makes.
    for round in 0..60 {
        server.sql(&format!(
            "insert into d.i (b) values (repeat('{round} ', {})); insert into d.m values (1);",
            round * 40
        ));
    }
    server.sql("flush binary logs; set global binlog_checksum = NONE;");
    server.sql(&MIXED.replace("create database d; use d;", "create database e; use e;"));
    server.sql(
        "flush binary logs; set global binlog_checksum = CRC32; set gtid_domain_id = 7; insert into d.m values (9);",
    );
    server.sql("set server_id = 4294967295; insert into d.m values (10);");
    let (files, transactions) = compare(&server);
    assert!(files.len() >= 10 && transactions > 150, "{} files, {transactions} transactions", files.len());
    for (at, pair) in files.windows(2).enumerate() {
        assert_eq!(judge(&pair[0], at as u64 + 1, &pair[1], false), Closure::Closed, "file {}", at + 1);
        assert_eq!(pair[0][21], 0, "file {}", at + 1);
    }
    assert_eq!(files.last().unwrap()[21], 1);
    let names: Vec<_> =
        fs::read_dir(server.data()).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    let shown = Kind::detect(names.iter().map(String::as_str)).unwrap();
    assert_eq!((shown.engine, shown.pattern), (Engine::Mariadb, Some(pattern())));
    assert!(scheme().fingerprint(&files[0][..HEAD]).starts_with("server-version=10."));
}

#[test]
fn a_damaged_or_cut_file_is_never_closed() {
    let server = Mariadb::start_new(&[]);
    server.sql(MIXED);
    server.sql("flush binary logs; insert into d.m values (1); flush binary logs;");
    let (files, _) = compare(&server);
    let ends = walk(&files[0]).0;
    let (bytes, length) = (&files[0], files[0].len());
    for at in (4..length).step_by(length / 200).filter(|at| *at != 21) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        assert!(scan(&flipped).safe() as usize <= at, "{at}");
        assert_ne!(judge(&flipped, 1, &files[1], true), Closure::Closed, "{at}");
        assert_ne!(judge(&bytes[..at], 1, &files[1], true), Closure::Closed, "cut at {at}");
    }
    // Without its last event it lacks nothing that was done.
    for end in &ends[..ends.len() - 2] {
        assert_ne!(judge(&bytes[..*end as usize], 1, &files[1], true), Closure::Closed, "cut at event {end}");
    }
    for (number, next) in files.iter().enumerate().filter(|(number, _)| *number != 1) {
        assert_ne!(judge(bytes, number as u64, next, true), Closure::Closed, "file {number}");
    }
    let other = Mariadb::start_new(&[]);
    other.sql("create database x; flush binary logs;");
    let foreign = fs::read(other.data().join("bin.000002")).unwrap();
    assert!(matches!(judge(bytes, 1, &foreign, true), Closure::Damaged(_)));
}

#[test]
fn a_killed_server_leaves_a_file_that_is_closed_with_its_torn_tail() {
    let mut server = Mariadb::start_new(&[]);
    server.sql("create database d; create table d.i (a int auto_increment primary key, b longtext) engine=innodb;");
    let (mut torn, mut number, mut last) = (0, 1, None);
    // Large transactions, so that a kill tears one sooner or later; a file that happens to be whole is judged as well.
    while torn < 2 {
        let path = server.data().join(format!("bin.{number:06}"));
        let mut client =
            server.client().stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let mut input = client.stdin.take().unwrap();
        let grown = fs::metadata(&path).unwrap().len() + 1;
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let row = format!("insert into d.i (b) values ('{}');\n", "row ".repeat(50_000));
                while input.write_all(format!("begin;{}commit;\n", row.repeat(40)).as_bytes()).is_ok() {}
            });
            while fs::metadata(&path).unwrap().len() < grown {
                std::thread::yield_now();
            }
            server.kill9();
            client.wait().unwrap();
        });
        let before = fs::read(&path).unwrap();
        server.start();
        let (bytes, next) =
            (fs::read(&path).unwrap(), fs::read(server.data().join(format!("bin.{:06}", number + 1))).unwrap());
        assert!(bytes == before, "a torn tail was rewritten");
        assert_eq!(bytes[21], 1);
        let scanner = scan(&bytes);
        assert!(scanner.may_be_torn());
        torn += u32::from(scanner.safe() < bytes.len() as u64);
        assert_eq!(judge(&bytes, number, &next, false), Closure::Closed, "{:?}", scanner.trouble());
        // A transaction that is not whole is none: its name is used again.
        let mut transactions = Transactions::new(&pattern(), Gtids::default());
        transactions.take(&bytes, |one, _| last = Some(one.gtid));
        let state = Gtids::parse(&server.sql("select @@gtid_binlog_pos;")).unwrap();
        assert_eq!(Some(state.to_string()), last.map(|gtid| gtid.to_string()));
        number += 1;
        assert!(number < 40, "no kill tears a file");
    }
}

#[test]
fn an_event_of_twenty_megabytes_is_one_event() {
    let server = Mariadb::start_new(&["max_allowed_packet=64M"]);
    server.sql("create database d; create table d.i (b longtext) engine=innodb; insert into d.i values (repeat('x', 20000000));");
    let bytes = fs::read(server.data().join("bin.000001")).unwrap();
    let events = printed(&server.data().join("bin.000001"));
    let scanner = scan(&bytes);
    assert!(bytes.len() > 20_000_000);
    assert_eq!((scanner.safe(), scanner.trouble()), (events.last().unwrap().end, None));
    assert_eq!(scanner.boundary(), ends(&events).last().copied());
}
