//! Resyncs of MariaDB replicas: from a master that goes on being written to, by the engine's own procedure and by one that
//! is stopped for the last pass, with the replica's server stopped and started by the far end itself. The servers'
//! `CHECKSUM TABLE` is the judge.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stderr)]

#[path = "support/mariadb.rs"]
mod mariadb;
#[path = "support/rig.rs"]
mod rig;

use std::fs;

use mariadb::Mariadb;
use rig::{Ran, Rig, Running, Sshd, eventually};
use serde_json::Value;

/// A command line that does not run as root.
fn unprivileged() -> &'static str {
    if rustix::process::geteuid().is_root() { "setpriv --reuid mysql --regid mysql --clear-groups" } else { "env" }
}

/// A master with some megabytes in it.
fn master() -> Mariadb {
    let server = Mariadb::start_new(&["max_binlog_size=1M"]);
    server.sql(
        "create database d; use d; create table d.t(id int auto_increment primary key, v varchar(200)) engine=InnoDB; \
         create table d.a(id int auto_increment primary key, v varchar(200)) engine=Aria; \
         insert into d.t(v) select repeat(md5(seq), 5) from seq_1_to_20000; \
         insert into d.a(v) select repeat(md5(seq), 5) from seq_1_to_2000;",
    );
    server
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

/// A far end with a replica, which only its own command line says how to reach.
struct Far {
    rig: Rig,
    sshd: Sshd,
    replica: Mariadb,
}

impl Far {
    fn new() -> Far {
        Far { rig: Rig::new(), sshd: Sshd::start(), replica: Mariadb::install(&Mariadb::REPLICA) }
    }

    /// Without a data directory.
    fn empty() -> Far {
        let far = Far::new();
        fs::remove_dir_all(far.replica.data()).unwrap();
        far
    }

    fn sync(&self, master: &Mariadb, options: &str) -> Ran {
        self.sync_as("", master, options)
    }

    /// With more that the far end itself says.
    fn sync_as(&self, own: &str, master: &Mariadb, options: &str) -> Ran {
        let (ssh, root) = (self.sshd.ssh(), self.replica.dir().display());
        let own = format!("{own} --restrict {root} --dsn {} --owner", self.replica.config().display());
        self.rig.run(&format!(
            "$SYNC -e '{}' --remote-command \"$SYNC {own}\" --dsn {} --delete --json {options} {} slave:data",
            ssh.strip_suffix(" slave").unwrap(),
            master.config().display(),
            master.data().display(),
        ))
    }
}

#[track_caller]
fn report(ran: &Ran) -> Value {
    assert_eq!(ran.code, 0, "{ran:?}");
    serde_json::from_str(&ran.out).unwrap()
}

/// The feed from where a resync has said, into a log directory of its own, until the replica has what the master has.
#[track_caller]
fn catches_up(far: &Far, master: &Mariadb, position: &Value, name: &str) {
    let position = position.as_str().unwrap();
    // A server finishes what it was told by a client that was killed since.
    let others =
        "select count(*) from information_schema.processlist where command <> 'Daemon' and id <> connection_id();";
    eventually("the writers are gone", || master.sql(others) == "0");
    far.rig.ok(&format!(
        "$SHIP -S --state state-{name} --from {position} {} | $APPLY --feed default --dsn {} {name}",
        master.data().display(),
        far.replica.config().display()
    ));
    let places = "select @@gtid_binlog_pos;";
    assert_eq!(far.replica.sql(places), master.sql(places));
    assert_eq!(far.replica.checksums(), master.checksums());
}

#[test]
fn a_replica_is_resynced_while_its_master_is_written_to_and_its_feed_goes_on() {
    let mut far = Far::empty();
    let master = master();
    let writers = load(&far.rig, &master);
    // A first copy: nobody starts a server that was not there.
    let told = report(&far.sync(&master, ""));
    assert_eq!((&told["mode"], &told["downtime_seconds"]), (&Value::from("stage"), &Value::Null));
    let index = fs::read_to_string(far.replica.data().join("bin.index")).unwrap();
    assert!(index.lines().all(|line| line.starts_with("./bin.")), "{index}");
    far.replica.start();
    drop(writers);
    catches_up(&far, &master, &told["position"], "first");
    for mode in ["--inplace", "--stage"] {
        let writers = load(&far.rig, &master);
        // It has gone its own way, and its server runs.
        far.replica.sql("create database its_own; insert into d.t(v) values ('its own')");
        master.sql("use d; insert into d.t(v) select repeat(md5(seq), 5) from d.t, seq_1_to_2 limit 20000");
        let told = report(&far.sync(&master, mode));
        far.replica.stopped_by_another();
        assert_eq!(told["mode"], mode.trim_start_matches("--"));
        assert!(told["passes"].as_u64().unwrap() > 1, "{told}");
        let bytes = |key: &str| told[key].as_u64().unwrap();
        assert!(bytes("last_literal_bytes") * 2 < bytes("literal_bytes"), "{told}");
        let down = told["downtime_seconds"].as_f64().unwrap();
        eprintln!("{mode}: down for {down:.3} s of {} s", told["seconds"]);
        // Its own configuration, the master's content.
        assert_eq!(far.replica.sql("select @@server_id, @@read_only;"), format!("{}\t1", far.replica.server_id));
        assert_eq!(far.replica.sql("show databases like 'its%'; select count(*) from d.t where v = 'its own';"), "0");
        drop(writers);
        catches_up(&far, &master, &told["position"], mode.trim_start_matches("--"));
    }
}

#[test]
fn a_master_that_is_stopped_for_the_last_pass_runs_again_and_the_copy_is_its_equal() {
    let mut far = Far::new();
    let mut master = master();
    far.replica.start();
    let config = master.config().display().to_string();
    let stop = format!("mariadb-admin --defaults-file={config} shutdown");
    let start = format!(
        "{} mariadbd --defaults-file={config} >/dev/null 2>&1 & until mariadb-admin --defaults-file={config} ping >/dev/null 2>&1; do sleep 0.05; done",
        unprivileged()
    );
    let frozen = format!("--inplace --freeze '{stop}' --thaw '{start}'");
    // What is there is another installation.
    far.sync(&master, &frozen).fails(13, "holds another database");
    assert_eq!(far.replica.sql("select @@server_id;"), far.replica.server_id.to_string());
    let told = report(&far.sync_as("--adopt", &master, &frozen));
    master.stopped_by_another();
    far.replica.stopped_by_another();
    assert!(told["downtime_seconds"].is_number(), "{told}");
    for of in [&master, &far.replica] {
        assert_eq!(of.sql("select @@server_id;"), of.server_id.to_string());
    }
    assert_eq!(far.replica.sql("select @@gtid_binlog_pos;"), master.sql("select @@gtid_binlog_pos;"));
    assert_eq!(far.replica.checksums(), master.checksums());
    assert!(far.replica.checksums().lines().count() == 2);
    master.sql("insert into d.t(v) values ('later')");
    catches_up(&far, &master, &told["position"], "log");
}

/// Nobody promises that a locked server writes nothing: it is looked, and where it did, it is read once more.
#[test]
fn a_master_that_wrote_though_it_was_locked_is_read_again() {
    let mut far = Far::empty();
    let master = master();
    let hook = format!("--hook after-stop='touch {}/d/t.frm'", master.data().display());
    let ran = far.sync(&master, &format!("-v {hook}"));
    report(&ran);
    assert!(ran.err.contains("the last pass begins again"), "{ran:?}");
    far.replica.start();
    assert_eq!(far.replica.checksums(), master.checksums());
}
