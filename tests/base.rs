//! Bases of real databases that are written to meanwhile. The databases themselves are the judges: recovered, and started,
//! on a copy, each has all that was committed before.

#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "support/bdb.rs"]
mod bdb;
#[path = "support/mariadb.rs"]
mod mariadb;
#[path = "support/postgres.rs"]
mod postgres;
#[path = "support/rig.rs"]
mod rig;

use std::collections::BTreeSet;
use std::fs;

use mariadb::Mariadb;
use postgres::{Postgres, Stage};
use rig::{Ran, Rig, Running, Sshd, eventually};
use serde_json::Value;

/// What `--json` says of a run that must succeed.
#[track_caller]
fn report(ran: &Ran) -> Value {
    assert_eq!(ran.code, 0, "{ran:?}");
    serde_json::from_str(&ran.out).unwrap()
}

/// The segment in which the log of a base ends, and from which on the archive's is needed.
fn segment(position: &Value) -> &str {
    position.as_str().unwrap().split(':').next().unwrap()
}

/// What was committed in a server, and what is consistent in it whatever was.
fn sums(server: &Postgres) -> (i64, [String; 4]) {
    let sum = |table: &str, column: &str| server.sql(&format!("select coalesce(sum({column}), 0) from {table}"));
    let rows = server.sql("select count(*) from pgbench_history").parse().unwrap();
    let pairs = [
        ("pgbench_accounts", "abalance"),
        ("pgbench_branches", "bbalance"),
        ("pgbench_tellers", "tbalance"),
        ("pgbench_history", "delta"),
    ];
    (rows, pairs.map(|(table, column)| sum(table, column)))
}

/// A server started on a copy of a base, whole.
#[track_caller]
fn assert_postgres(stage: &Stage, base: &str, before: i64, after: i64) {
    let name = base.replace('/', "-");
    let made = Ran::from(stage.sh_as_root(&format!("cp -a {base}/data {name}")).output().unwrap());
    assert_eq!(made.code, 0, "{made:?}");
    let mut server = Postgres::at(stage, &name);
    assert!(server.data.join("backup_label").exists() && !server.data.join("postmaster.pid").exists());
    server.start();
    let (rows, [accounts, branches, tellers, history]) = sums(&server);
    assert!((before..=after).contains(&rows), "{base}: {before} {rows} {after}");
    assert_eq!((&accounts, &branches, &tellers), (&history, &history, &history), "{base}");
    assert_eq!(server.sql("select count(*) from pgbench_accounts"), "100000");
    server.stop(postgres::Stop::Fast);
}

#[test]
fn a_base_of_a_postgres_server_under_load_starts_wherever_it_is_taken_from_and_to() {
    let stage = Stage::new();
    let master = Postgres::init(&stage, "master", 1, "max_wal_size = 64MB\nfsync = off\n");
    master.fill(1);
    stage.ok("$SHIP -S --state state --via '$APPLY --acks --logs-only archive' master/pg_wal");
    let bench = master.bench("-c 2 -R 200 -T 600");
    let sshd = Sshd::start();
    let (ssh, dsn, root) = (sshd.ssh(), master.dsn(), stage.root().display());
    let far = |program: &str| format!("-e '{}' --remote-command ${program}", ssh.strip_suffix(" slave").unwrap());
    for (archive, name, line) in [
        ("archive", "one", "master archive".to_owned()),
        ("archive", "two", "master archive".to_owned()),
        ("pulled", "one", format!("{} slave:{root}/master pulled", far("SYNC"))),
        ("pushed", "one", format!("{} master slave:{root}/pushed", far("BASE"))),
    ] {
        let before = sums(&master).0;
        let line = format!("$BASE --json --dsn '{dsn}' --name {name} {line}");
        // As root over ssh, as the servers' own user here.
        let mut ran = if archive == "archive" { stage.sh(&line) } else { stage.sh_as_root(&line) };
        let told = report(&Ran::from(ran.output().unwrap()));
        let after = sums(&master).0;
        assert_eq!((&told["base"]["engine"], &told["base"]["name"]), (&"postgres".into(), &name.into()), "{told}");
        let system = master.sql("select system_identifier from pg_control_system()");
        assert_eq!(told["base"]["identity"], *system, "{told}");
        assert!(told["base"]["time"].is_string(), "{told}");
        let base = format!("{archive}/bases/{name}");
        let checked = stage.sh_as_root(&format!("cd {base} && b3sum --quiet --check B3SUMS")).output().unwrap();
        assert!(checked.status.success(), "{checked:?}");
        assert_postgres(&stage, &base, before, after);
    }
    drop(bench);
    // The archive's log goes on where the base's own ends.
    stage.ok("$SHIP -S --state state --via '$APPLY --acks --logs-only archive' master/pg_wal");
    let listed = stage.ok("$BASE --list --json archive");
    let last: Value = serde_json::from_str(listed.lines().last().unwrap()).unwrap();
    stage.ok(&format!("test -e archive/{}", name_of(segment(&last["position"]))));
    stage.ok("cp -a archive/bases/two/data later && touch later/recovery.signal");
    let fetch = stage.ok("echo $FETCH");
    let mut later = Postgres::at(&stage, "later");
    let archive = stage.path("archive").display().to_string();
    later.set(&format!("restore_command = '{} -q {archive} %f %p'\n", fetch.trim()));
    later.start();
    eventually("the end of its recovery", || later.sql("select pg_is_in_recovery()") == "f");
    assert_eq!(sums(&later), sums(&master));
}

/// The name of a PostgreSQL segment of 1 MiB.
fn name_of(segment: &str) -> String {
    let (timeline, sequence) = segment.split_once('-').unwrap();
    let (timeline, sequence) = (timeline.parse::<u64>().unwrap(), sequence.parse::<u64>().unwrap());
    format!("{timeline:08X}{:08X}{:08X}", sequence >> 12, sequence & 0xfff)
}

#[test]
fn a_postgres_server_of_another_system_is_refused_and_the_right_one_is_taken_afterwards() {
    let stage = Stage::new();
    let master = Postgres::init(&stage, "master", 1, "");
    let other = Postgres::init(&stage, "other", 1, "");
    stage.ok("$SHIP -S --state state --via '$APPLY --acks --logs-only archive' master/pg_wal");
    let take = |server: &Postgres, name: &str| stage.run(&format!("$BASE --dsn '{}' {name} archive", server.dsn()));
    take(&other, "other").fails(5, "the archive is of database");
    assert_eq!(stage.ok("ls -A archive/bases"), ".lock\n");
    assert_eq!(take(&master, "master").code, 0);
    // By now there is a base to be compared with before anything is copied.
    take(&other, "other").fails(13, "holds another database");
    let listed = stage.ok("ls -A archive/bases");
    assert_eq!(listed.lines().count(), 3, "{listed}");
    // A part that lies elsewhere would be missing.
    stage.ok("mkdir elsewhere && ln -s \"$PWD/elsewhere\" master/pg_tblspc/17000");
    take(&master, "master").fails(13, "lies elsewhere");
}

/// Writes to an environment until it is dropped.
fn writer(rig: &Rig, home: &str) -> Running {
    fs::create_dir_all(rig.path(home)).unwrap();
    fs::write(rig.path("writer.py"), bdb::WRITE).unwrap();
    let running = Running::start(rig.sh(&format!("exec /usr/bin/python3 writer.py {home}")), &rig.path(home));
    eventually("some log files", || rig.path(home).join("log.0000000002").exists());
    running
}

/// An environment recovered in a copy of a base has what was committed before it, and all that its log has.
#[track_caller]
fn assert_berkeley_db(rig: &Rig, base: &str, before: &BTreeSet<String>) {
    let data = rig.path(&format!("{base}/data"));
    assert!(
        fs::read_dir(&data).unwrap().all(|entry| !entry.unwrap().file_name().to_string_lossy().starts_with("__db"))
    );
    let log = bdb::python(bdb::COMMITS, &data);
    rig.ok(&format!("rm -rf copy && cp -a {base}/data copy && db5.3_recover -c -h copy && db5.3_verify copy/rows.db"));
    let rows = bdb::python(bdb::LOOK, &rig.path("copy"));
    assert!(before.is_subset(&rows), "{} of {} rows are gone", before.difference(&rows).count(), before.len());
    assert_eq!(rows, log);
}

#[test]
fn a_base_of_a_berkeley_db_environment_under_load_is_recovered_to_what_was_committed() {
    let rig = Rig::new();
    let mut writer = writer(&rig, "master");
    let ship = || rig.ok("$SHIP -S --state state --via '$APPLY --acks --logs-only archive' master");
    let sshd = Sshd::start();
    let ssh = sshd.ssh();
    let push = format!("-e '{}' --remote-command $BASE", ssh.strip_suffix(" slave").unwrap());
    let push = format!("{push} master slave:{}", rig.path("archive").display());
    let mut had = 0;
    for (name, line) in [("one", "master archive"), ("two", "master archive"), ("three", &push)] {
        eventually("more rows", || bdb::python(bdb::COMMITS, &rig.master()).len() > had + 500);
        assert!(writer.child.try_wait().unwrap().is_none(), "{}", writer.err());
        let before = bdb::python(bdb::COMMITS, &rig.master());
        had = before.len();
        let told = report(&rig.run(&format!("$BASE --json --name {name} {line}")));
        assert_eq!((&told["base"]["engine"], &told["base"]["identity"]), (&"bdb".into(), &"".into()), "{told}");
        assert!(told["base"]["position"].is_string() && told["base"]["time"].is_string(), "{told}");
        // The first is there before any log was received.
        ship();
        rig.ok(&format!("cd archive/bases/{name} && b3sum --quiet --check B3SUMS"));
        assert_berkeley_db(&rig, &format!("archive/bases/{name}"), &before);
    }
    // Its own log is the database's, and the archive's goes on behind it: more log over the copy, and recovered again.
    writer.signal(rustix::process::Signal::KILL);
    writer.wait();
    ship();
    let last: Value = serde_json::from_str(rig.ok("$BASE --list --json archive").lines().last().unwrap()).unwrap();
    let from: u64 = segment(&last["position"]).strip_prefix("1-").unwrap().parse().unwrap();
    rig.ok(&format!(
        "rm -rf copy && cp -a archive/bases/three/data copy && for log in archive/log.*; do \
         [ \"${{log##*.}}\" -lt {from:010} ] || cp \"$log\" copy; done && db5.3_recover -c -h copy"
    ));
    assert_eq!(bdb::python(bdb::LOOK, &rig.path("copy")), bdb::python(bdb::COMMITS, &rig.path("archive")));
    rig.ok("$VERIFY archive");
}

#[test]
fn a_berkeley_db_environment_of_another_history_or_without_a_log_is_refused() {
    let rig = Rig::new();
    drop(writer(&rig, "master"));
    drop(writer(&rig, "other"));
    rig.ok("$SHIP -S --state state --via '$APPLY --acks --logs-only archive' master");
    rig.run("$BASE other archive").fails(4, "of another history");
    assert_eq!(rig.ok("ls -A archive/bases"), ".lock\n");
    rig.ok("$BASE --name one master archive");
    rig.run("$BASE other archive").fails(13, "holds another database");
    rig.run("$BASE --adopt other archive").fails(4, "of another history");
    assert_eq!(rig.ok("ls -A archive/bases"), ".lock\nhistory.jsonl\none\n");
    // Its log lies elsewhere.
    rig.ok("cp -a other without && rm without/log.* without/__db.* && ls -A without >before");
    rig.run("$BASE without elsewhere").fails(13, "there is no log in the directory");
    assert_eq!(rig.ok("ls -A elsewhere/bases; ls -A without | diff before -"), ".lock\n");
}

#[test]
fn a_base_of_berkeley_db_sql_under_load_is_recovered_to_what_was_committed() {
    let rig = Rig::new();
    fs::create_dir(rig.master().join("x.db-journal")).unwrap();
    fs::write(rig.master().join("x.db-journal/DB_CONFIG"), "log_set_config DB_LOG_AUTO_REMOVE off\n").unwrap();
    rig.ok("db5.3_sql master/x.db 'create table t(n integer primary key, v text)'");
    let script = "for n in $(seq 100000); do echo \"insert into t values($n, hex(randomblob(300)));\"; \
                  [ $((n % 50)) = 0 ] && sleep 0.01; done | exec db5.3_sql master/x.db";
    let _writer = rig.spawn(script);
    let rows = |database: &str| -> u64 {
        let said = rig.run(&format!("db5.3_sql {database} 'select count(*) from t'"));
        said.out.trim().parse().unwrap_or(0)
    };
    for name in ["one", "two"] {
        let had = rows("master/x.db");
        eventually("more rows", || rows("master/x.db") > had + 300);
        let before = rows("master/x.db");
        let told = report(&rig.run(&format!("$BASE --json --name {name} master archive")));
        assert!(told["base"]["position"].is_string(), "{told}");
        let record = fs::read_to_string(rig.path(&format!("archive/bases/{name}/base.toml"))).unwrap();
        assert!(record.contains("log = \"x.db-journal\"\n"), "{record}");
        rig.ok(&format!(
            "rm -rf copy && cp -a archive/bases/{name}/data copy && \
             printf 'add_data_dir ..\\nset_create_dir ..\\n' >>copy/x.db-journal/DB_CONFIG && \
             db5.3_recover -c -h copy/x.db-journal"
        ));
        let said = rig.ok("db5.3_sql copy/x.db 'pragma integrity_check; select count(*) - max(n) from t'");
        assert_eq!(said, "ok\n0\n", "{name}");
        assert!(rows("copy/x.db") >= before, "{name}");
    }
    assert_eq!(rig.ok("ls -A master"), "x.db\nx.db-journal\n");
}

/// Clients that write, one after the other, until they are dropped.
fn load(rig: &Rig, server: &Mariadb) -> Running {
    let text = "insert into d.t(v) values (md5(rand())), (md5(rand())); update d.t set v = md5(rand()) where id = \
                floor(rand() * 20000); insert into d.a(v) values (md5(rand()));";
    rig.spawn(&format!(
        "while :; do mariadb --defaults-file={} -e '{text}' || sleep 0.1; done",
        server.config().display()
    ))
}

#[test]
fn a_base_of_a_mariadb_server_under_load_starts_and_its_log_goes_on_in_the_archive() {
    let rig = Rig::new();
    let master = Mariadb::start_new(&["max_binlog_size=1M"]);
    master.sql(
        "create database d; use d; create table d.t(id int auto_increment primary key, v varchar(200)) engine=InnoDB; \
         create table d.a(id int auto_increment primary key, v varchar(200)) engine=Aria; \
         insert into d.t(v) select repeat(md5(seq), 5) from seq_1_to_20000; \
         insert into d.a(v) select repeat(md5(seq), 5) from seq_1_to_2000;",
    );
    let (data, config) = (master.data(), master.config());
    let (data, config) = (data.display(), config.display());
    let ship = format!("$SHIP -S --state state --via '$APPLY --acks --logs-only archive' {data}");
    rig.ok(&ship);
    let writers = load(&rig, &master);
    let (count, mut told) = ("select count(*) from d.t; select count(*) from d.a;", Value::Null);
    let mut before = String::new();
    for name in ["one", "two"] {
        before = master.sql(count);
        eventually("more rows", || master.sql(count) != before);
        told = report(&rig.run(&format!("$BASE --json --name {name} --dsn {config} {data} archive")));
        assert_eq!(told["base"]["engine"], "mariadb");
        rig.ok(&format!("cd archive/bases/{name} && b3sum --quiet --check B3SUMS"));
    }
    drop(writers);
    // A server finishes what it was told by a client that was killed since.
    let others =
        "select count(*) from information_schema.processlist where command <> 'Daemon' and id <> connection_id();";
    eventually("the writers are gone", || master.sql(others) == "0");
    rig.ok(&ship);
    let copy = Mariadb::from_copy(&Mariadb::REPLICA, |to| {
        rig.ok(&format!("cp -a archive/bases/two/data {}", to.display()));
    });
    let rows = |text: &str| text.lines().map(|line| line.parse::<u64>().unwrap()).collect::<Vec<_>>();
    assert!(rows(&copy.sql(count)).iter().zip(rows(&before)).all(|(has, had)| *has >= had), "{before}");
    // The archive's log from that segment on is all that it lacks.
    rig.ok(&format!(
        "$SHIP -S --state on --from {}:0 archive | $APPLY --feed default --dsn {} fed",
        segment(&told["base"]["position"]),
        copy.config().display()
    ));
    let places = "select @@gtid_binlog_pos;";
    assert_eq!(copy.sql(places), master.sql(places));
    assert_eq!((copy.checksums(), copy.checksums().lines().count()), (master.checksums(), 2));
}
