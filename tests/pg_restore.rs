//! PostgreSQL recovers from an archive by `restore_command = 'repl-fetch …'`: to a time, to a transaction, to the end,
//! and on as a standby. A hole or a flipped byte in the archive ends the recovery; the server never comes up early.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking")]

#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/rig.rs"]
mod rig;

use std::fs;
use std::os::unix::fs::FileExt as _;

use postgres::{Postgres, Stage, Stop};
use rig::{Ran, Running, eventually};

/// Megabytes of a segment: small, so that there are many.
const SEGMENT: u32 = 1;

/// Rows of the table, in one number that two different contents do not share.
const ROWS: &str = "select count(*) || ' ' || coalesce(sum(id), 0) || ' ' || coalesce(md5(string_agg(id || text, '' order by id)), '') from t";

/// A master whose log goes to `archive` as it is written, and a base copy without any log.
struct Site<'a> {
    stage: &'a Stage,
    master: Postgres<'a>,
    ship: Option<Running>,
}

impl<'a> Site<'a> {
    fn new(stage: &'a Stage) -> Site<'a> {
        let master = Postgres::init(stage, "master", SEGMENT, "");
        let ship = stage.spawn("ship", &ship("master", "archive"));
        master.sql("create table t (id serial primary key, text text)");
        stage.ok(&format!("pg_basebackup -d '{}' -X none -c fast --no-sync -D base 2>&1", master.dsn()));
        Site { stage, master, ship: Some(ship) }
    }

    /// Commits some megabytes of log.
    fn write(&self) {
        self.master.sql("insert into t (text) select repeat(md5(random()::text), 20) from generate_series(1, 4000)");
    }

    /// Waits until all that is committed has been acknowledged.
    fn is_archived(&self) {
        archived(self.stage, "archive", self.master.current_lsn());
    }
}

/// The line that ships a server's log.
fn ship(server: &str, archive: &str) -> String {
    format!("exec $SHIP --set shop --state ship.{server} --via \"$APPLY --acks --logs-only {archive}\" {server}/pg_wal")
}

/// Waits until an archive holds the log up to here.
fn archived(stage: &Stage, archive: &str, lsn: u64) {
    eventually("the archive", || held(stage, archive) >= lsn);
}

/// Up to where an archive holds the log, as PostgreSQL counts.
fn held(stage: &Stage, archive: &str) -> u64 {
    let text = stage.ok(&format!("$APPLY --position {archive}"));
    let Some((segment, offset)) = text.split('+').next().unwrap().split_once(':') else {
        return 0;
    };
    let sequence: u64 = segment.split_once('-').unwrap().1.parse().unwrap();
    sequence * u64::from(SEGMENT) * (1 << 20) + offset.parse::<u64>().unwrap()
}

/// A copy of the base that recovers from an archive.
fn copy<'a>(stage: &'a Stage, name: &str, archive: &str, settings: &str) -> Postgres<'a> {
    stage.ok(&format!("cp -a base {name} && touch {name}/recovery.signal"));
    let copy = Postgres::at(stage, name);
    let archive = stage.path(archive);
    copy.set(&format!(
        "restore_command = '$FETCH {} %f %p'\nrecovery_target_action = promote\nwal_retrieve_retry_interval = 100ms\n{settings}\n",
        archive.display()
    ));
    copy
}

/// Runs a recovery to its end; returns the rows.
#[track_caller]
fn recover(stage: &Stage, name: &str, archive: &str, settings: &str) -> String {
    let mut copy = copy(stage, name, archive, settings);
    copy.start();
    eventually("the end of recovery", || {
        let ran = copy.query("select pg_is_in_recovery()");
        assert_eq!(ran.code, 0, "{}", copy.said());
        ran.out == "f\n"
    });
    let rows = copy.sql(ROWS);
    copy.stop(Stop::Fast);
    rows
}

/// Runs a recovery that must not come to an end: the server ends itself.
#[track_caller]
fn refuses(stage: &Stage, name: &str, archive: &str, says: &str) {
    let copy = copy(stage, name, archive, "hot_standby = off");
    let line = format!(
        "exec timeout -s QUIT 60 postgres -D {} -p {} -c listen_addresses= -c unix_socket_directories=$PWD",
        copy.data.display(),
        copy.port
    );
    let ran: Ran = stage.run(&line);
    assert!(ran.code != 0 && ran.code != 124, "{ran:?}");
    assert!(ran.err.contains("FATAL:  could not restore file"), "{ran:?}");
    assert!(ran.err.contains(says), "{ran:?}");
    assert!(!ran.err.contains("selected new timeline"), "{ran:?}");
    assert!(!copy.wal().join("00000002.history").exists());
}

/// The closed segments that an archive lists, oldest first.
fn closed(stage: &Stage, archive: &str) -> Vec<String> {
    let sums = fs::read_to_string(stage.path(archive).join(".repl/B3SUMS")).unwrap();
    sums.lines().map(|line| line.split_once("  ").unwrap().1.to_owned()).collect()
}

#[test]
fn a_server_recovers_to_a_time_a_transaction_and_the_end_and_never_comes_up_early() {
    let stage = Stage::new();
    let site = Site::new(&stage);
    site.write();
    let at_time = site.master.sql(ROWS);
    let time = site.master.sql("select clock_timestamp()");
    site.write();
    let xid = site.master.sql("insert into t (text) values ('last') returning pg_current_xact_id()");
    let at_xid = site.master.sql(ROWS);
    site.write();
    let at_end = site.master.sql(ROWS);
    site.is_archived();
    assert!(at_time != at_xid && at_xid != at_end);

    assert_eq!(recover(&stage, "to_time", "archive", &format!("recovery_target_time = '{time}'")), at_time);
    assert_eq!(recover(&stage, "to_xid", "archive", &format!("recovery_target_xid = '{xid}'")), at_xid);
    assert_eq!(recover(&stage, "to_end", "archive", ""), at_end);

    // One in the middle of what recovery needs: PostgreSQL takes a file that is not there, or is damaged, for the end.
    let names = closed(&stage, "archive");
    let name = &names[names.len() - 4];
    stage.ok("cp -a archive hole && cp -a archive flipped");
    fs::remove_file(stage.path("hole").join(name)).unwrap();
    refuses(&stage, "on_hole", "hole", &format!("{name} is missing; it is recorded as held"));
    let file = fs::OpenOptions::new().read(true).write(true).open(stage.path("flipped").join(name)).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, 300_001).unwrap();
    file.write_all_at(&[byte[0] ^ 1], 300_001).unwrap();
    refuses(&stage, "on_flip", "flipped", &format!("{name} has digest"));
    refuses(&stage, "on_nothing", "nowhere", "cannot open");
}

#[test]
fn a_standby_follows_the_open_segment_and_the_timeline_of_its_promotion_is_found_in_the_archive() {
    let stage = Stage::new();
    let mut site = Site::new(&stage);
    let mut standby = copy(&stage, "standby", "archive", "");
    fs::rename(stage.path("standby/recovery.signal"), stage.path("standby/standby.signal")).unwrap();
    standby.start();
    // Each time more of the same segment, and then the next ones.
    for _ in 0..4 {
        site.master.sql("insert into t (text) values ('one more')");
        standby.reaches(site.master.current_lsn());
        assert_eq!(standby.sql(ROWS), site.master.sql(ROWS));
    }
    site.write();
    let rows = site.master.sql(ROWS);
    site.is_archived();

    // The master is gone, with all of its log in the archive.
    drop(site.ship.take());
    site.master.kill9();
    let open = files(&stage, "archive").pop().unwrap();
    stage.ok(&format!("$FETCH archive {open} {open} && test $(stat -c %s {open}) = {}", SEGMENT << 20));
    stage.run(&format!("$FETCH --closed archive {open} none")).fails(1, "is not closed");
    for name in ["00000001.history", "00000002.history", "000000010000000100000000", "000000020000000000000001"] {
        stage.run(&format!("$FETCH archive {name} none")).fails(1, name);
    }
    standby.promote();
    assert_eq!(standby.sql(ROWS), rows);
    standby.sql("insert into t (text) select repeat(md5(random()::text), 20) from generate_series(1, 8000)");
    let rows = standby.sql(ROWS);
    // Nothing here but its own log says that this server was promoted, and a copy that was tried out could say so, too: it
    // is the master because somebody says so.
    stage.run(&format!("{} -S", ship("standby", "archive"))).fails(5, "another instance");
    stage.ok("$ROLE init --master --epoch 1 --state ship.standby standby/pg_wal");
    let _ship = stage.spawn("ship", &ship("standby", "archive"));
    let end = standby.current_lsn();
    eventually("the new timeline", || {
        stage.ok("$APPLY --position archive").starts_with("2-") && held(&stage, "archive") >= end
    });
    assert_eq!(recover(&stage, "along", "archive", ""), rows);
    rewinds(&stage, &mut site.master, &standby);

    // The first timeline was left in the segment in which the second begins.
    let fork = files(&stage, "archive").into_iter().find(|name| name.starts_with("00000002")).unwrap();
    let number = u32::from_str_radix(&fork[16..], 16).unwrap();
    let first = |number: u32| format!("0000000100000000{number:08X}");
    stage.ok(&format!("$FETCH archive 00000002.history out && $FETCH archive {} out", first(number - 1)));
    stage.run(&format!("$FETCH archive {} none", first(number + 1))).fails(1, "the log goes on with 2-");
    stage.run("$FETCH archive 00000003.history none").fails(1, "00000003.history is not there");
    stage.ok(&format!("cp -a archive hole && rm hole/{}", first(number - 1)));
    stage.run(&format!("$FETCH hole {} none", first(number - 1))).fails(126, "is missing");

    // Without its history the second timeline would not be seen, and the server come up at the end of the first.
    stage.ok("cp -a archive lost && rm lost/00000002.history lost/.repl/aux/00000002.history");
    stage.run("$FETCH lost 00000002.history none").fails(126, "00000002.history is missing, and log of 2 is held");
    refuses(&stage, "on_lost", "lost", "00000002.history is missing");
    assert!(!stage.path("none").exists());
}

/// The old master goes on by itself for a while, then joins the new one: what it no longer has of the log in which both
/// were one, `pg_rewind` takes from the archive, and so does it when it is a standby.
#[track_caller]
fn rewinds(stage: &Stage, old: &mut Postgres<'_>, new: &Postgres<'_>) {
    old.start();
    old.sql("insert into t (text) values ('lost')");
    old.stop(Stop::Fast);
    let open =
        files(stage, "master/pg_wal").into_iter().rfind(|name| stage.path("archive").join(name).exists()).unwrap();
    for name in files(stage, "master/pg_wal").into_iter().filter(|name| *name < open) {
        fs::remove_file(stage.path("master/pg_wal").join(name)).unwrap();
    }
    old.set(&format!("restore_command = '$FETCH {} %f %p'\n", stage.path("archive").display()));
    // Before its first checkpoint the new one's control file has the old timeline.
    new.sql("checkpoint");
    let rewind = |options: &str| stage.run(&format!("pg_rewind {options} -D master --source-server='{}'", new.dsn()));
    assert_eq!(rewind("-n").code, 1, "nothing was needed from the archive");
    let ran = rewind("-c");
    assert!(ran.code == 0 && ran.err.contains("servers diverged"), "{ran:?}");
    stage.ok("touch master/standby.signal");
    // What was copied has the new one's settings.
    old.set(&format!("restore_command = '$FETCH {} %f %p'\n", stage.path("archive").display()));
    old.start();
    old.reaches(held(stage, "archive"));
    assert_eq!(old.sql(ROWS), new.sql(ROWS));
    old.stop(Stop::Fast);
}

/// The segments that lie in an archive, in order.
fn files(stage: &Stage, archive: &str) -> Vec<String> {
    let entries = fs::read_dir(stage.path(archive)).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.len() == 24);
    names.sort();
    names
}
