//! The Berkeley DB scanner on logs that the engine wrote, judged by the engine's own reader.
//!
//! Every record that `db5.3_printlog` and the engine's log cursor see is found at the same offset with the same end, and
//! nothing else; damage, gaps and foreign files are seen. Needs db5.3-util, db5.3-sql-util and python3-bsddb3.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use repl::rule::scheme::{Beside, Closure, Engine, HEAD, Kind, Mark, Scanner, Scheme};
use repl::value::position::Segment;
use repl::value::time::Time;
use tempfile::TempDir;

const WRITER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/bdb_scanner.py");

/// An environment that was written to.
struct Home {
    directory: TempDir,
    /// File, offset and length of every record, by the engine's log cursor.
    cursor: Vec<(u64, u64, u64)>,
    /// When the writing began and ended.
    run: (Time, Time),
}

/// What `db5.3_printlog` says of one record.
#[derive(Debug, PartialEq)]
struct Printed {
    offset: u64,
    kind: u32,
    /// Of a transaction end or a checkpoint.
    time: Option<Time>,
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    Time::from_seconds(since.as_secs().cast_signed())
}

/// Runs a tool and returns what it prints; a tool that is missing or fails is a failed test, never a skipped one.
fn run(package: &str, command: &mut Command, input: &str) -> String {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot run {command:?}: {error}\nhint: apt-get install {package}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}: {words}\nhint: apt-get install {package}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn writer(home: &Path, seed: u32, rounds: u32) -> Command {
    let mut command = Command::new("/usr/bin/python3");
    command.arg(WRITER).arg(home).args([seed.to_string(), rounds.to_string()]);
    command
}

fn written(seed: u32, rounds: u32) -> Home {
    let directory = TempDir::new().unwrap();
    let begun = now();
    let lines = run("python3-bsddb3", &mut writer(directory.path(), seed, rounds), "");
    let ended = now();
    let cursor = lines.lines().map(|line| {
        let mut numbers = line.split(' ').map(|number| number.parse::<u64>().unwrap());
        let mut next = || numbers.next().unwrap();
        (next(), next(), next())
    });
    Home { cursor: cursor.collect(), run: (begun, ended), directory }
}

/// The log as `db5.3_printlog` shows it, by file.
fn printlog(home: &Path) -> BTreeMap<u64, Vec<Printed>> {
    let text = run("db5.3-util", Command::new("db5.3_printlog").arg("-h").arg(home), "");
    let mut files: BTreeMap<u64, Vec<Printed>> = BTreeMap::new();
    let mut file = 0;
    for line in text.lines() {
        if let Some(lsn) = line.strip_prefix('[') {
            let (lsn, rest) = lsn.split_once("]__").unwrap();
            let (number, offset) = lsn.split_once("][").unwrap();
            let kind = rest.split_once("rec: ").unwrap().1.split(' ').next().unwrap();
            file = number.parse().unwrap();
            let record = Printed { offset: offset.parse().unwrap(), kind: kind.parse().unwrap(), time: None };
            files.entry(file).or_default().push(record);
        } else if let Some(seconds) = line.trim_start().strip_prefix("timestamp: ") {
            let seconds = seconds.split(' ').next().unwrap().parse().unwrap();
            files.get_mut(&file).unwrap().last_mut().unwrap().time = Some(Time::from_seconds(seconds));
        }
    }
    files
}

fn path(home: &Path, number: u64) -> PathBuf {
    home.join(Scheme::Bdb.name(Segment::new(1, number)))
}

/// The log files, by number.
fn logs(home: &Path) -> BTreeMap<u64, Vec<u8>> {
    let entries = fs::read_dir(home).unwrap().map(Result::unwrap);
    let named = entries.filter_map(|entry| Some((Scheme::Bdb.segment(entry.file_name().to_str()?)?, entry.path())));
    named.map(|(segment, path)| (segment.sequence, fs::read(path).unwrap())).collect()
}

fn scan(bytes: &[u8]) -> Scanner {
    let mut scanner = Scheme::Bdb.scanner(Segment::new(1, 1), None);
    bytes.chunks(64 << 10).for_each(|chunk| scanner.take(chunk));
    scanner
}

fn head(bytes: &[u8]) -> &[u8] {
    &bytes[..HEAD.min(bytes.len())]
}

/// Takes one byte at a time: every place up to which the log was safe, and every boundary.
fn walk(bytes: &[u8]) -> (Vec<u64>, Vec<Mark>) {
    let mut scanner = Scheme::Bdb.scanner(Segment::new(1, 1), None);
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

/// Holds the scanner against both readers of the engine, for every file.
fn compare(home: &Path, cursor: &[(u64, u64, u64)]) {
    let (printed, files) = (printlog(home), logs(home));
    assert_eq!(printed.keys().collect::<Vec<_>>(), files.keys().collect::<Vec<_>>());
    for (number, bytes) in &files {
        let (ends, marks) = walk(bytes);
        let offsets: Vec<_> = printed[number].iter().map(|record| record.offset).collect();
        // The header's end is where the first record begins; the last record's end begins nothing.
        assert_eq!(ends[..ends.len() - 1], offsets, "file {number}");
        let of_file = cursor.iter().filter(|(file, ..)| file == number);
        let cursor_ends: Vec<_> = of_file.map(|(_, offset, length)| offset + length).collect();
        assert!(cursor.is_empty() || ends[1..] == cursor_ends, "file {number}");
        let timed = printed[number].iter().zip(&ends[1..]).filter(|(record, _)| record.time.is_some());
        let expected: Vec<_> = timed.map(|(record, end)| Mark { offset: *end, time: record.time }).collect();
        assert_eq!(marks, expected, "file {number}");
        let at_once = scan(bytes);
        assert_eq!((Some(at_once.safe()), at_once.boundary()), (ends.last().copied(), marks.last().copied()));
        assert!(bytes[at_once.safe() as usize..].iter().all(|byte| *byte == 0), "file {number}");
    }
}

/// A segment that begins with these bytes comes next.
fn beside(next: &[u8]) -> Beside<'_> {
    Beside { own: &[], segment: Segment::new(1, 2), next, is_passed: false }
}

fn is_damaged(closure: &Closure) -> bool {
    matches!(closure, Closure::Damaged(_))
}

#[test]
fn the_engine_and_the_scanner_see_the_same_records() {
    let home = written(1, 600);
    let at = home.directory.path();
    let printed = printlog(at);
    let kinds = |kind: u32| printed.values().flatten().filter(|record| record.kind == kind).count();
    assert!(printed.len() >= 5 && kinds(10) > 500 && kinds(11) >= 10 && kinds(12) > 20, "{}", printed.len());
    assert!(home.cursor.iter().any(|(.., length)| *length > 64 << 10), "no record is above 64 KiB");
    compare(at, &home.cursor);
    for time in printed.values().flatten().filter_map(|record| record.time) {
        assert!((home.run.0..=home.run.1).contains(&time), "{time}");
    }
}

#[test]
fn every_file_with_a_successor_is_closed_and_the_last_is_open() {
    let home = written(2, 400);
    let files = logs(home.directory.path());
    let last = *files.keys().last().unwrap();
    for (number, bytes) in &files {
        let scanner = scan(bytes);
        match files.get(&(number + 1)) {
            Some(next) => assert_eq!(scanner.closure(beside(head(next))), Closure::Closed, "file {number}"),
            None => assert_eq!(*number, last),
        }
        assert_eq!(scanner.closure(beside(&[])), Closure::Open);
        assert_eq!(scanner.closure(beside(&[0; HEAD])), Closure::Open);
    }
}

#[test]
fn a_damaged_or_cut_file_is_never_closed() {
    let home = written(3, 400);
    let files = logs(home.directory.path());
    let (bytes, next) = (&files[&2], &files[&3]);
    let safe = scan(bytes).safe() as usize;
    let ends = walk(bytes).0;
    for at in (0..safe).step_by(safe / 20).chain([safe - 1]) {
        let mut flipped = bytes.clone();
        flipped[at] ^= 0x10;
        let scanner = scan(&flipped);
        assert!(scanner.safe() as usize <= at, "{at}");
        assert!(is_damaged(&scanner.closure(beside(head(next)))), "{at}");
        let mut torn = bytes.clone();
        torn[at..].fill(0);
        // A record that ends in zeros is whole without them.
        let is_whole = torn[..safe] == bytes[..safe];
        assert_eq!(is_damaged(&scan(&torn).closure(beside(head(next)))), !is_whole, "zero from {at}");
        assert!(is_damaged(&scan(&bytes[..at]).closure(beside(head(next)))), "cut at {at}");
    }
    for end in ends.iter().rev().skip(1).step_by(20) {
        assert!(is_damaged(&scan(&bytes[..*end as usize]).closure(beside(head(next)))), "cut at record {end}");
    }
}

#[test]
fn a_gap_or_a_file_of_another_environment_is_damage() {
    let (ours, theirs) = (written(4, 400), written(5, 400));
    let (ours, theirs) = (logs(ours.directory.path()), logs(theirs.directory.path()));
    let first = scan(&ours[&1]);
    assert!(is_damaged(&first.closure(beside(head(&ours[&1])))));
    assert!(is_damaged(&first.closure(beside(head(&ours[&3])))));
    for (number, next) in &theirs {
        assert!(is_damaged(&first.closure(beside(head(next)))), "their file {number}");
    }
    // Another database's file, and a region, are no log.
    assert!(is_damaged(&first.closure(beside(&[b'x'; HEAD]))));
}

#[test]
fn what_was_safe_while_the_engine_wrote_is_what_the_file_holds_in_the_end() {
    let directory = TempDir::new().unwrap();
    let mut child = writer(directory.path(), 6, 1500).stdout(Stdio::null()).spawn().unwrap_or_else(|error| {
        panic!("cannot run /usr/bin/python3: {error}\nhint: apt-get install python3-bsddb3");
    });
    let mut shipped: BTreeMap<u64, (Scanner, Vec<u8>)> = BTreeMap::new();
    let mut reads = 0;
    loop {
        let is_over = child.try_wait().unwrap();
        let from = shipped.keys().last().copied().unwrap_or(1);
        for number in (from..).take_while(|number| path(directory.path(), *number).exists()) {
            let (scanner, held) =
                shipped.entry(number).or_insert_with(|| (Scheme::Bdb.scanner(Segment::new(1, 1), None), Vec::new()));
            follow(&path(directory.path(), number), scanner, held);
            reads += 1;
        }
        if let Some(status) = is_over {
            assert!(status.success(), "{status}\nhint: apt-get install python3-bsddb3");
            break;
        }
    }
    let files = logs(directory.path());
    assert!(files.len() > 10 && reads > files.len(), "{} files, {reads} reads", files.len());
    for (number, (mut scanner, mut held)) in shipped {
        // A file that was left for its successor may have got its end after it was last looked at.
        follow(&path(directory.path(), number), &mut scanner, &mut held);
        assert!(files[&number].starts_with(&held), "file {number}");
        assert_eq!(held.len() as u64, scan(&files[&number]).safe(), "file {number}");
    }
}

/// Reads on behind what is held and keeps what is safe.
fn follow(path: &Path, scanner: &mut Scanner, held: &mut Vec<u8>) {
    let mut bytes = Vec::new();
    let mut file = fs::File::open(path).unwrap();
    file.seek(SeekFrom::Start(scanner.at())).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    let from = scanner.at();
    bytes.chunks(10_000).for_each(|chunk| scanner.take(chunk));
    held.extend(&bytes[..(scanner.safe() - from) as usize]);
    scanner.rewind();
}

#[test]
fn the_journal_of_berkeley_db_sql_is_a_log_as_well() {
    let directory = TempDir::new().unwrap();
    let journal = directory.path().join("app.db-journal");
    fs::create_dir(&journal).unwrap();
    let config = "log_set_config DB_LOG_AUTO_REMOVE off\nset_lg_max 500000\n";
    fs::write(journal.join("DB_CONFIG"), config).unwrap();
    let rows = (0..300).map(|row| {
        let end = if row % 7 == 3 { "rollback" } else { "commit" };
        format!("begin; insert into t values({row}, randomblob({})); {end};\n", 100 + row * 37)
    });
    let script: String =
        std::iter::once("create table t(a integer primary key, b);\n".to_owned()).chain(rows).collect();
    run("db5.3-sql-util", Command::new("db5.3_sql").arg("app.db").current_dir(&directory), &script);
    assert_eq!(Kind::detect(names(&journal).iter().map(String::as_str)).unwrap().engine, Engine::Bdb);
    let shown = journal.to_str().unwrap();
    assert!(Scheme::Bdb.warning(shown, None).is_some());
    assert_eq!(Scheme::Bdb.warning(shown, Some(config)), None);
    for name in names(&journal) {
        let is_segment = Scheme::Bdb.segment(&name).is_some();
        let bytes = fs::read(journal.join(&name)).unwrap();
        assert!(is_segment || Scheme::Bdb.is_side_file(&name, head(&bytes)), "{name}");
        assert_eq!(Scheme::Bdb.fingerprint(head(&bytes)).starts_with("log-version=19 "), is_segment, "{name}");
    }
    let database = fs::read(directory.path().join("app.db")).unwrap();
    assert!(Scheme::Bdb.is_side_file("app.db", head(&database)));
    compare(&journal, &[]);
    let files = logs(&journal);
    assert!(files.len() >= 3 && files.contains_key(&1), "{:?}", files.keys());
    for (number, bytes) in files.iter().rev().skip(1) {
        assert_eq!(scan(bytes).closure(beside(head(&files[&(number + 1)]))), Closure::Closed, "file {number}");
    }
}

fn names(directory: &Path) -> Vec<String> {
    fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}
