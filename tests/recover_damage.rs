//! What is wrong with an archive is said before anything is touched, where the database's own tool would end without an
//! error: each kind of damage, for each engine, gets the verdict that it is due.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/bdb.rs"]
mod bdb;
#[path = "support/mariadb.rs"]
mod mariadb;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/rig.rs"]
mod rig;

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use mariadb::Mariadb;
use postgres::{Postgres, Stage};
use repl::value::position::Position;
use rig::{Ran, Rig, eventually};

const GAP: i32 = 3;
const CORRUPT: i32 = 6;

/// An archive with a base and some segments behind it, and another of the same kind of database.
struct Ground<'a> {
    /// Where copies are made.
    root: PathBuf,
    /// Runs a script there as who may.
    run: &'a dyn Fn(&str) -> Ran,
    /// Names of segments that the recovery from base `one` needs, in order; the last one is open.
    needed: Vec<String>,
}

impl Ground<'_> {
    /// Damages a copy of the archive; recovery is refused with this code, and nothing was touched.
    #[track_caller]
    fn refuses(&self, what: &str, code: i32, damage: impl FnOnce(&Path)) {
        let copy = self.root.join("copy");
        assert_eq!((self.run)("rm -rf copy target; cp -al archive copy").code, 0);
        damage(&copy);
        let sums = "{ find copy -printf '%p %s %m %T@\n' | sort; \
                    find copy -type f ! -path '*/data/*' | sort | xargs b3sum; } | b3sum";
        let look = || (self.run)(sums).out;
        let before = look();
        for dry in ["-n", ""] {
            let ran = (self.run)(&format!("$RECOVER {dry} --archive copy --target target --base one"));
            assert_eq!(ran.code, code, "{what}: {ran:?}");
            assert!(ran.err.starts_with("repl-recover: "), "{what}: {ran:?}");
            assert!(!self.root.join("target").exists(), "{what}: {ran:?}");
        }
        assert_eq!(look(), before, "{what}");
    }

    /// Every row that engines have in common.
    fn matrix(&self) {
        let [first, .., last] = self.needed.as_slice() else { panic!("{:?}", self.needed) };
        let middle = &self.needed[self.needed.len() / 2];
        assert!(self.needed.len() >= 4, "{:?}", self.needed);
        for name in [first, middle, last] {
            self.refuses(&format!("missing {name}"), GAP, |copy| fs::remove_file(copy.join(name)).unwrap());
            for part in [0, 3] {
                self.refuses(&format!("{name} cut at {part}/4"), CORRUPT, |copy| {
                    let file = apart(&copy.join(name));
                    file.set_len(held(copy, name) * part / 4).unwrap();
                });
            }
            for part in [0, 1, 3] {
                self.refuses(&format!("{name} flipped at {part}/4"), CORRUPT, |copy| {
                    flip(&copy.join(name), held(copy, name) * part / 4 + 30);
                });
            }
        }
        let before = &self.needed[self.needed.len() - 2];
        self.refuses("the last two missing", GAP, |copy| {
            fs::remove_file(copy.join(last)).unwrap();
            fs::remove_file(copy.join(before)).unwrap();
        });
        self.refuses("swapped segments", CORRUPT, |copy| {
            fs::rename(copy.join(first), copy.join("aside")).unwrap();
            fs::rename(copy.join(middle), copy.join(first)).unwrap();
            fs::rename(copy.join("aside"), copy.join(middle)).unwrap();
        });
        self.refuses("a file of the base flipped", CORRUPT, |copy| {
            let sums = fs::read_to_string(copy.join("bases/one/B3SUMS")).unwrap();
            let sized = |name: &&str| fs::metadata(copy.join("bases/one").join(name)).unwrap().len() > 100;
            let name = sums.lines().filter_map(|line| line.split_once("  ")).map(|(_, name)| name).find(sized).unwrap();
            flip(&copy.join("bases/one").join(name), 50);
        });
        self.refuses("the base's record flipped", CORRUPT, |copy| flip(&copy.join("bases/one/base.toml"), 50));
        self.refuses("the base's list flipped", CORRUPT, |copy| flip(&copy.join("bases/one/B3SUMS"), 50));
    }

    /// A base older than the log: what lies between was removed, by right.
    fn base_is_older(&self) {
        let later = &self.needed[2];
        self.refuses("a base older than the log", GAP, |copy| {
            for name in &self.needed[..2] {
                fs::remove_file(copy.join(name)).unwrap();
            }
            for file in ["B3SUMS", "segments.jsonl"] {
                let lines = fs::read_to_string(copy.join(".repl").join(file)).unwrap();
                let gone = |line: &&str| self.needed[..2].iter().any(|name| line.contains(name.as_str()));
                let kept: String = lines.lines().filter(|line| !gone(line)).map(|line| format!("{line}\n")).collect();
                fs::remove_file(copy.join(".repl").join(file)).unwrap();
                fs::write(copy.join(".repl").join(file), kept).unwrap();
            }
            assert!(copy.join(later).exists());
        });
    }
}

/// How much of a segment is held.
fn held(archive: &Path, name: &str) -> u64 {
    let position = fs::read_to_string(archive.join(".repl/position")).unwrap_or_default();
    let sums = fs::read_to_string(archive.join(".repl/B3SUMS")).unwrap();
    if sums.contains(name) {
        return fs::metadata(archive.join(name)).unwrap().len();
    }
    let ends = position.split_whitespace().filter_map(|word| word.strip_prefix("at=")?.parse::<Position>().ok());
    ends.max().unwrap().offset
}

/// A file of a copy, which shares its blocks with the archive no more.
fn apart(path: &Path) -> fs::File {
    let bytes = fs::read(path).unwrap();
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
    fs::OpenOptions::new().read(true).write(true).open(path).unwrap()
}

fn flip(path: &Path, at: u64) {
    let file = apart(path);
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at).unwrap();
}

/// Segments from the one in which the base ends.
fn needed(root: &Path, position: &str) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(root.join("archive")).unwrap().map(|entry| entry.unwrap()).collect();
    names.retain(|entry| {
        entry.file_type().unwrap().is_file() && !entry.file_name().to_str().unwrap().contains("history")
    });
    let mut names: Vec<_> = names.into_iter().map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    let number: usize = position.split(['-', ':']).nth(1).unwrap().parse().unwrap();
    let of = |name: &String| {
        let digits = name.rsplit('.').next().unwrap();
        if name.len() == 24 {
            let part = |range| usize::from_str_radix(&name[range], 16).unwrap();
            // Segments of one megabyte.
            part(8..16) * 4096 + part(16..24)
        } else {
            digits.parse().unwrap()
        }
    };
    names.retain(|name| of(name) >= number);
    names
}

/// The position of a base that was just taken.
fn position(said: &str) -> String {
    said.split_whitespace().nth(1).unwrap().to_owned()
}

#[test]
fn damage_of_berkeley_db_is_told() {
    let rig = Rig::new();
    let make = |name: &str, log: u32| {
        fs::write(rig.path("writer.py"), bdb::WRITE).unwrap();
        fs::create_dir_all(rig.path(name)).unwrap();
        let writer = rig.spawn(&format!("exec /usr/bin/python3 writer.py {name}"));
        eventually("log", || rig.path(&format!("{name}/log.{log:010}")).exists());
        writer
    };
    let writer = make("master", 2);
    let ship = |from: &str, to: &str| {
        rig.ok(&format!("$SHIP -S --state shipped-{from} --via '$APPLY --logs-only --acks {to}' {from}"))
    };
    ship("master", "archive");
    let at = position(&rig.ok("$BASE --name one master archive"));
    let later: u64 = at.split(['-', ':']).nth(1).unwrap().parse::<u64>().unwrap() + 4;
    eventually("log", || rig.path(&format!("master/log.{later:010}")).exists());
    ship("master", "archive");
    drop(writer);
    drop(make("other", 3));
    ship("other", "foreign");
    let ground = Ground { root: rig.path(""), run: &|script| rig.run(script), needed: needed(&rig.path(""), &at) };
    ground.matrix();
    ground.base_is_older();
    // Nothing in a foreign environment's log says so but its bytes.
    ground.refuses("a foreign environment's log under a base", CORRUPT, |copy| {
        fs::remove_dir_all(copy).unwrap();
        let line = "mkdir other-archive; cp -a foreign/. other-archive; cp -a archive/bases other-archive; mv other-archive copy";
        rig.ok(line);
        let position = fs::read_to_string(copy.join(".repl/position")).unwrap();
        assert!(position.contains("at=1-"), "{position}");
    });
    ground.refuses("a foreign environment's file", CORRUPT, |copy| {
        fs::remove_file(copy.join(&ground.needed[1])).unwrap();
        fs::copy(rig.path("foreign/log.0000000002"), copy.join(&ground.needed[1])).unwrap();
    });
    rig.ok("rm -rf target; $RECOVER --archive archive --target target --base one");
    // Without a base, log that does not begin with the set is not enough.
    let ran = rig.run("rm -rf copy target; cp -a archive copy; rm copy/log.0000000001; $RECOVER --archive copy --target target --base none");
    assert_eq!(ran.code, GAP, "{ran:?}");
}

#[test]
fn damage_of_postgres_is_told() {
    let stage = Stage::new();
    let master = Postgres::init(&stage, "master", 1, "max_wal_size = 64MB\nfsync = off\nautovacuum = off\n");
    let fill = |from: u32| master.sql(&format!("insert into t select generate_series({from}, {from} + 19999)"));
    master.sql("create table t (n int)");
    let ship = |from: &str, to: &str| {
        stage.ok(&format!("$SHIP -S --state shipped-{from}-{to} --via '$APPLY --logs-only --acks {to}' {from}/pg_wal"))
    };
    ship("master", "archive");
    let said = stage.ok(&format!("$BASE --dsn '{}' --name one master archive", master.dsn()));
    for from in [0, 20000, 40000] {
        fill(from);
    }
    ship("master", "archive");
    let run = |script: &str| stage.run(script);
    let ground = Ground { root: stage.path(""), run: &run, needed: needed(&stage.path(""), &position(&said)) };
    ground.matrix();
    ground.base_is_older();
    // Another cluster's log.
    let other = Postgres::init(&stage, "other", 1, "fsync = off\n");
    other.sql("create table t (n int); insert into t select generate_series(1, 60000)");
    ship("other", "foreign");
    ground.refuses("another cluster's log under a base", CORRUPT, |copy| {
        fs::remove_dir_all(copy).unwrap();
        stage.ok("cp -a foreign copy; cp -a archive/bases copy");
    });
    // A standby is promoted, and the old master goes on: its later base is of no past of the new timeline.
    let mut standby = master.standby("standby");
    stage.ok("$SHIP -S --state shipped-standby --via '$APPLY --acks standby/pg_wal' master/pg_wal");
    standby.start();
    standby.reaches(master.current_lsn());
    standby.promote();
    standby.sql("insert into t select generate_series(1, 20000)");
    fill(60000);
    stage.ok(&format!("$BASE --dsn '{}' --name late master beside", master.dsn()));
    ship("standby", "archive");
    ground.refuses("a base of a timeline that was left", CORRUPT, |copy| {
        stage.ok("rm -r copy/bases/one; cp -a beside/bases/late copy/bases/one");
        assert!(copy.join("00000002.history").exists());
    });
    ground.refuses("log of a timeline without its history", GAP, |copy| {
        fs::remove_file(copy.join("00000002.history")).unwrap();
        fs::remove_file(copy.join(".repl/aux/00000002.history")).unwrap();
    });
    // Across the promotion it is recovered.
    stage.ok("rm -rf target; $RECOVER --archive archive --target target --base one");
    let mut server = Postgres::at(&stage, "target");
    server.start();
    assert_eq!(server.sql("select count(*) from t"), standby.sql("select count(*) from t"));
}

#[test]
fn damage_of_mariadb_is_told() {
    let rig = Rig::new();
    let master = Mariadb::start_new(&["max_binlog_size=64K"]);
    let ship = |server: &Mariadb, to: &str| {
        rig.ok(&format!(
            "$SHIP -S --state shipped-{to} --via '$APPLY --logs-only --acks {to}' {}",
            server.data().display()
        ))
    };
    let fill = |server: &Mariadb| {
        for _ in 0..60 {
            server.sql("insert into d.t(v) select md5(rand()) from d.seq_1_to_100");
        }
    };
    master.sql("create database d; create table d.t(n int auto_increment primary key, v varchar(99))");
    ship(&master, "archive");
    let (config, data) = (master.config(), master.data());
    let said = rig.ok(&format!("$BASE --dsn {} --name one {} archive", config.display(), data.display()));
    fill(&master);
    ship(&master, "archive");
    let ground =
        Ground { root: rig.path(""), run: &|script| rig.run(script), needed: needed(&rig.path(""), &position(&said)) };
    ground.matrix();
    ground.base_is_older();
    let other = Mariadb::start_new(&["max_binlog_size=64K"]);
    other.sql("create database d; create table d.t(n int auto_increment primary key, v varchar(99))");
    fill(&other);
    ship(&other, "foreign");
    ground.refuses("another server's log under a base", CORRUPT, |copy| {
        fs::remove_dir_all(copy).unwrap();
        let copied = Command::new("cp").arg("-a").arg(rig.path("foreign")).arg(copy).status().unwrap();
        assert!(copied.success());
        rig.ok("cp -a archive/bases copy");
    });
    rig.ok("rm -rf target; $RECOVER --archive archive --target target --base one");
}
