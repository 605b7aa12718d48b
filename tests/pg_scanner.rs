//! The PostgreSQL scanner on logs that real servers wrote, judged by PostgreSQL's own reader.
//!
//! Every record that `pg_waldump` sees ends where ours does, and every end of a transaction is a boundary with its time; in
//! segments of several sizes, behind switches, crashes and promotions, and while files are used again. Needs postgresql-15.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/rig.rs"]
mod rig;
#[path = "support/wal.rs"]
mod wal;

use std::collections::BTreeMap;
use std::fs;

use postgres::{Postgres, Stage, Stop};
use repl::rule::scheme::postgres::Cluster;
use repl::rule::scheme::{Beside, Closure, Scanner};
use repl::value::position::Segment;
use rig::eventually;
use wal::{Printed, chain, compare, files, head, scheme};

fn count(printed: &[Printed], manager: &str, word: &str) -> usize {
    printed.iter().filter(|record| record.is(manager, word)).count()
}

/// A record of so many bytes, in a transaction of its own that is lost with it.
fn message(length: usize) -> String {
    format!("select pg_logical_emit_message(true, 'test', repeat('0123456789abcdef', {}))", length / 16)
}

/// Writes records of all sorts: small, wide, full page images, messages longer than a page and than a segment.
fn write(server: &Postgres, stage: &Stage, segment: usize) {
    server.fill(1);
    server.sql("create table wide (a int, b text); alter table wide alter b set storage external");
    server.sql("insert into wide select i, repeat(md5(i::text), 200) from generate_series(1, 300) i");
    let dsn = server.dsn();
    stage.ok(&format!(
        "psql -X -q -d '{dsn}' -c 'copy wide to stdout' | psql -X -q -d '{dsn}' -c 'copy wide from stdin' 2>&1"
    ));
    // Every page that is touched after a checkpoint is logged whole.
    server.sql("checkpoint");
    server.sql("update wide set a = a + 1");
    let mut bench = server.bench("-c 4 -t 100");
    assert_eq!(bench.wait().code, 0, "{}", bench.err());
    server.sql("begin; update wide set a = 0; rollback");
    server.sql("begin; insert into wide values (7, 'x'); prepare transaction 'one'");
    server.sql("begin; insert into wide values (8, 'x'); prepare transaction 'two'");
    server.sql("commit prepared 'one'");
    server.sql("rollback prepared 'two'");
    server.sql("select pg_create_restore_point('here')");
    for length in [8000, 8192, 100_000, segment - 4000, segment + 4000, 2 * segment + 100_000] {
        server.sql(&message(length));
        server.sql("select pg_switch_wal()");
        server.sql(&message(length));
    }
    server.sql("create index on wide (a)");
}

/// Each segment with a successor is finished; the last is not.
fn assert_closed(scanners: &BTreeMap<Segment, Scanner>, files: &BTreeMap<Segment, Vec<u8>>) {
    let last = files.keys().next_back().unwrap();
    for (segment, scanner) in scanners {
        let next = Segment::new(segment.generation, segment.sequence + 1);
        let Some(bytes) = files.get(&next) else {
            assert_eq!(segment, last);
            continue;
        };
        let judge = |next_bytes, is_passed| {
            scanner.closure(Beside { own: head(&files[segment]), segment: next, next: next_bytes, is_passed })
        };
        assert_eq!(judge(bytes.as_slice(), next < *last), Closure::Closed, "{segment}");
        assert_eq!(judge(&[], true), Closure::Open);
        assert!(matches!(judge(head(bytes), true), Closure::Closed | Closure::More), "{segment}");
    }
}

/// All that holds of a log at rest.
fn judge(megabytes: u32) {
    let stage = Stage::new();
    let mut server = Postgres::init(&stage, "master", megabytes, "max_prepared_transactions = 10\n");
    write(&server, &stage, megabytes as usize * (1 << 20));
    server.stop(Stop::Fast);
    let printed = compare(&server.wal(), 1);
    assert!(printed.len() > 3000, "{}", printed.len());
    for word in ["COMMIT", "ABORT", "PREPARE", "COMMIT_PREPARED", "ABORT_PREPARED"] {
        assert!(count(&printed, "Transaction", word) > 0, "{word}");
    }
    for word in ["SWITCH", "RESTORE_POINT", "FPI_FOR_HINT", "CHECKPOINT_SHUTDOWN"] {
        assert!(count(&printed, "XLOG", word) > 0, "{word}");
    }
    let longest = printed.iter().map(|record| record.end - record.start).max().unwrap();
    assert!(longest > u64::from(megabytes) << 21, "no record is longer than two segments: {longest}");
    let (scheme, files) = (scheme(&server.wal()), files(&server.wal(), 1));
    assert_eq!(scheme.segment_size(), u64::from(megabytes) << 20);
    assert_closed(&chain(&scheme, &files), &files);
}

#[test]
fn the_server_and_the_scanner_see_the_same_records() {
    judge(16);
}

#[test]
fn the_same_in_segments_of_1_mb() {
    judge(1);
}

#[test]
fn the_same_in_segments_of_32_mb() {
    judge(32);
}

/// How many bytes of each segment are safe, and they.
fn safe(server: &Postgres) -> BTreeMap<Segment, Vec<u8>> {
    let mut files = files(&server.wal(), 1);
    for (segment, scanner) in chain(&scheme(&server.wal()), &files) {
        files.get_mut(&segment).unwrap().truncate(scanner.safe() as usize);
    }
    files
}

/// What was safe is a prefix of what is there now.
#[track_caller]
fn assert_kept(before: &BTreeMap<Segment, Vec<u8>>, server: &Postgres) {
    let now = files(&server.wal(), 1);
    for (segment, safe) in before {
        let is_kept = now.get(segment).is_some_and(|bytes| bytes.starts_with(safe));
        assert!(is_kept, "{segment} was safe to {}, and is no more; {:?}", safe.len(), now.keys());
    }
}

#[test]
fn what_was_safe_before_a_crash_is_unchanged_after_it() {
    let stage = Stage::new();
    let mut server = Postgres::init(&stage, "master", 1, "wal_buffers = 64kB\nfsync = off\n");
    // At a pace that leaves all of the log there to be looked at.
    let script = "\\set n random(1, 20000)\nselect pg_logical_emit_message(random() < 0.5, 'test', repeat('0123456789abcdef', :n));\n";
    fs::write(stage.path("messages.sql"), script).unwrap();
    let mut given_up = 0;
    for round in 0..12 {
        let mut bench = server.bench("-c 4 -T 600 -R 50 -f messages.sql");
        let from = server.current_lsn();
        eventually("some megabytes", || server.current_lsn() > from + (3 << 20));
        let live = safe(&server);
        server.kill9();
        bench.wait();
        assert_kept(&live, &server);
        let dead = safe(&server);
        server.start();
        assert_kept(&live, &server);
        assert_kept(&dead, &server);
        let printed = wal::printed(&server.wal(), *dead.keys().next_back().unwrap());
        given_up += count(&printed, "XLOG", "OVERWRITE_CONTRECORD");
        if round >= 3 && given_up >= 2 {
            break;
        }
    }
    server.stop(Stop::Fast);
    let printed = compare(&server.wal(), 1);
    let given_up = count(&printed, "XLOG", "OVERWRITE_CONTRECORD");
    eprintln!("{given_up} records were given up");
    assert!(given_up > 0, "no crash tore a record over a page's end");
    let files = files(&server.wal(), 1);
    assert_closed(&chain(&scheme(&server.wal()), &files), &files);
}

#[test]
fn a_promoted_servers_log_goes_on_behind_its_parents() {
    let stage = Stage::new();
    let mut master = Postgres::init(&stage, "master", 1, "");
    master.fill(1);
    master.stop(Stop::Fast);
    stage.ok("cp -a master standby && touch standby/standby.signal");
    let mut standby = Postgres::at(&stage, "standby");
    standby.set(&format!("port = {}\n", standby.port));
    standby.start();
    standby.promote();
    standby.fill(1);
    standby.stop(Stop::Fast);
    let wal = standby.wal();
    let (old, new) = (files(&wal, 1), files(&wal, 2));
    let fork = *new.keys().next().unwrap();
    let parent = Segment::new(1, fork.sequence);
    let scheme = scheme(&wal);
    let history = fs::read_to_string(wal.join(scheme.history_name(2).unwrap())).unwrap();
    assert_eq!(scheme.lineage(2, &history), Some(vec![parent]));
    assert!(
        scheme.is_inherited(fork, &new[&fork]) && !scheme.is_inherited(fork, &new[&Segment::new(2, fork.sequence + 1)])
    );
    let printed = compare(&wal, 2);
    assert!(count(&printed, "XLOG", "END_OF_RECOVERY") + count(&printed, "XLOG", "CHECKPOINT_SHUTDOWN") > 0);
    // In one chain over the fork, too.
    let lineage = old.into_iter().filter(|(segment, _)| *segment <= parent).chain(new.clone()).collect();
    let (over, alone) = (chain(&scheme, &lineage), chain(&scheme, &new));
    for (segment, scanner) in &alone {
        assert_eq!(scanner.safe(), over[segment].safe(), "{segment}");
        assert!(scanner.safe() > 0, "{segment}");
    }
    let beside = Beside { own: &[], segment: fork, next: head(&new[&fork]), is_passed: true };
    assert_eq!(over[&parent].closure(beside), Closure::Closed);
}

#[test]
fn a_file_that_is_used_again_has_not_begun_until_it_is() {
    let stage = Stage::new();
    let settings = "wal_keep_size = 0\nmin_wal_size = 32MB\nmax_wal_size = 40MB\ncheckpoint_timeout = 1h\n";
    let server = Postgres::init(&stage, "master", 1, settings);
    server.fill(1);
    let wal = server.wal();
    let _bench = server.bench("-c 2 -T 600");
    let (mut looks, mut old) = (0, 0);
    eventually("old content under the names of segments to come", || {
        server.sql(&message(1 << 20));
        server.sql("checkpoint");
        let scheme = scheme(&wal);
        let names: Vec<_> =
            fs::read_dir(&wal).unwrap().map(|name| name.unwrap().file_name().into_string().unwrap()).collect();
        let segments: Vec<_> = names.iter().filter_map(|name| scheme.segment(name)).collect();
        let heads =
            segments.iter().filter_map(|segment| Some((segment, fs::read(wal.join(scheme.name(*segment))).ok()?)));
        let heads: Vec<_> = heads.collect();
        // Asked afterwards: none of what was read is later than this.
        let at = postgres::lsn(&server.sql("select pg_current_wal_insert_lsn()")) >> 20;
        for (segment, bytes) in heads {
            let is_begun = scheme.is_begun(*segment, head(&bytes));
            assert!(!is_begun || segment.sequence <= at, "{segment} has begun, the server is at {at}");
            let mut scanner = scheme.scanner(*segment, None);
            scanner.take(&bytes);
            assert!(scanner.safe() == 0 || is_begun, "{segment}");
            old += usize::from(!is_begun && segment.sequence > at && Cluster::read(head(&bytes)).is_some());
        }
        looks += 1;
        looks > 10 && old > 20
    });
}
