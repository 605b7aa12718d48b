//! Real PostgreSQL servers for tests: on unix sockets in one scratch directory, run as a user who is not root, gone when
//! the test is over, however it ends.
//!
//! A server is our own child, not `pg_ctl`'s: whoever kills it must also reap it, since a server that finds the number in
//! `postmaster.pid` alive, were it only as a zombie, does not start.

#![allow(dead_code, unreachable_pub, reason = "each test crate uses its own part")]

use std::cell::Cell;
use std::fs;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::rig::{COMMANDS, Ran, Rig, Running, eventually};

/// A scratch directory that belongs to the user who runs the servers, and that user's way of running anything.
pub struct Stage {
    rig: Rig,
    /// User and group, when the test itself runs as root.
    owner: Option<(u32, u32)>,
    commands: [PathBuf; COMMANDS.len()],
    tools: PathBuf,
    servers: Cell<u16>,
}

impl Stage {
    pub fn new() -> Stage {
        let owner = rustix::process::geteuid().is_root().then(|| (number("-u"), number("-g")));
        let commands = COMMANDS.map(|(_, path)| PathBuf::from(path));
        let stage = Stage { rig: Rig::new(), owner, commands, tools: tools(), servers: Cell::new(0) };
        if let Some((user, group)) = owner {
            for path in [stage.root().to_owned(), stage.path("master")] {
                std::os::unix::fs::chown(path, Some(user), Some(group)).unwrap();
            }
        }
        fs::remove_dir(stage.path("master")).unwrap();
        stage.within_reach()
    }

    /// With copies of our commands, where that user cannot get at those that were built.
    fn within_reach(mut self) -> Stage {
        let runs = |path: &Path| {
            self.as_owner(Command::new(path)).arg("--version").output().is_ok_and(|ran| ran.status.success())
        };
        if !self.commands.iter().all(|path| runs(path)) {
            let bin = self.path("bin");
            fs::create_dir(&bin).unwrap();
            self.commands = self.commands.map(|path| {
                let copy = bin.join(path.file_name().unwrap());
                fs::copy(path, &copy).unwrap();
                copy
            });
        }
        self
    }

    pub fn root(&self) -> &Path {
        self.rig.root.path()
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.rig.path(name)
    }

    /// The same command, run as the servers' user.
    pub fn as_owner(&self, mut command: Command) -> Command {
        if let Some((user, group)) = self.owner {
            // (Other groups of root's are dropped with this.)
            command.gid(group).uid(user);
        }
        command.env("HOME", self.root());
        command
    }

    /// A shell as the servers' user in the scratch directory, with the suite's commands as in [`Rig::sh`], and the
    /// tools of PostgreSQL in its path.
    pub fn sh(&self, script: &str) -> Command {
        self.equipped(self.as_owner(self.rig.sh(script)))
    }

    /// The same as the user who runs the test.
    pub fn sh_as_root(&self, script: &str) -> Command {
        self.equipped(self.rig.sh(script))
    }

    fn equipped(&self, mut command: Command) -> Command {
        for ((name, _), path) in COMMANDS.into_iter().zip(&self.commands) {
            command.env(name, path);
        }
        let path = [self.commands[0].parent().unwrap(), &self.tools].map(Path::to_owned).into_iter();
        let inherited = std::env::var_os("PATH").unwrap_or_default();
        command.env("PATH", std::env::join_paths(path.chain(std::env::split_paths(&inherited))).unwrap());
        for foreign in ["PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGSERVICE", "PGOPTIONS", "PGDATA"] {
            command.env_remove(foreign);
        }
        command
    }

    /// Runs a script to its end.
    pub fn run(&self, script: &str) -> Ran {
        Ran::from(self.sh(script).output().unwrap())
    }

    /// Runs a script that must succeed; returns its standard output.
    #[track_caller]
    pub fn ok(&self, script: &str) -> String {
        let ran = self.run(script);
        assert_eq!(ran.code, 0, "{script}: {ran:?}");
        ran.out
    }

    /// Starts a script in the background; what it says is in files named after it.
    pub fn spawn(&self, name: &str, script: &str) -> Running {
        Running::start(self.sh(script), &self.path(name))
    }
}

/// The number of the user (`-u`) or group (`-g`) that the Debian package makes for its servers.
fn number(which: &str) -> u32 {
    let id = Command::new("id").args([which, "postgres"]).output().unwrap();
    String::from_utf8(id.stdout).unwrap().trim().parse().expect("the user postgres is needed: install postgresql")
}

/// Where the server's programs are: Debian keeps them out of the path, by version.
fn tools() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().map(|entry| entry.unwrap().path());
    let newest = versions.max_by_key(|path| path.file_name().unwrap().to_str().unwrap().parse::<u32>().ok());
    newest.map(|path| path.join("bin")).expect("PostgreSQL is needed: install postgresql")
}

/// How to stop a server.
pub enum Stop {
    /// With a checkpoint; sessions are ended.
    Fast,
    /// Without one: the next start recovers.
    Immediate,
}

/// One server; running or not, its directory stays until the stage goes.
pub struct Postgres<'a> {
    stage: &'a Stage,
    pub data: PathBuf,
    pub port: u16,
    child: Option<Child>,
}

impl<'a> Postgres<'a> {
    /// Makes a database that keeps its log, with segments of so many megabytes and more settings, and starts it.
    pub fn init(stage: &'a Stage, name: &str, segment: u32, settings: &str) -> Postgres<'a> {
        let init = format!("initdb -D {name} -U postgres -A trust -E UTF8 --locale=C -k -N --wal-segsize={segment}");
        stage.ok(&init);
        let mut made = Postgres::at(stage, name);
        // For those who start one of its copies without us.
        made.set(&format!("listen_addresses = ''\nunix_socket_directories = '{}'\n", stage.root().display()));
        made.set(
            "max_connections = 30\nshared_buffers = 32MB\nwal_level = replica\nmax_wal_size = 256MB\n\
             wal_keep_size = 2GB\nlog_min_messages = log\nhot_standby = on\n",
        );
        made.set(settings);
        made.start();
        made
    }

    /// A server whose directory is there, or will be; it is not started.
    pub fn at(stage: &'a Stage, name: &str) -> Postgres<'a> {
        let data = stage.path(name);
        // No port of the machine's: only a part of the socket's name, in a directory of the test's own.
        let port = 5433 + stage.servers.replace(stage.servers.get() + 1);
        Postgres { stage, data, port, child: None }
    }

    /// Makes a standby from a base backup, without any log: it reads what lands in its `pg_wal`, and asks nobody.
    pub fn standby(&self, name: &str) -> Postgres<'a> {
        let dsn = self.dsn();
        self.stage.ok(&format!("pg_basebackup -d '{dsn}' -X none -c fast --no-sync -D {name} 2>&1"));
        let made = Postgres::at(self.stage, name);
        made.set("restore_command = ''\nprimary_conninfo = ''\nwal_retrieve_retry_interval = 100ms\n");
        self.stage.ok(&format!("touch {name}/standby.signal"));
        made
    }

    /// Appends to its `postgresql.conf`.
    pub fn set(&self, settings: &str) {
        let path = self.data.join("postgresql.conf");
        fs::OpenOptions::new().append(true).open(path).unwrap().write_all(settings.as_bytes()).unwrap();
    }

    /// How to reach it.
    pub fn dsn(&self) -> String {
        format!("host={} port={} user=postgres dbname=postgres", self.stage.root().display(), self.port)
    }

    /// Where its log is.
    pub fn wal(&self) -> PathBuf {
        self.data.join("pg_wal")
    }

    /// Starts it and waits until it answers.
    #[track_caller]
    pub fn start(&mut self) {
        let (root, data, port) = (self.stage.root().display(), self.data.display(), self.port);
        let line = format!("exec postgres -D {data} -p {port} -c listen_addresses= -c unix_socket_directories={root}");
        let mut command = self.stage.sh(&line);
        let log = fs::OpenOptions::new().append(true).create(true).open(self.log()).unwrap();
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        self.child = Some(command.spawn().unwrap());
        eventually("the server's answer", || {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "{}", self.said());
            self.query("select 1").code == 0
        });
    }

    /// What it said.
    pub fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log()).unwrap_or_default()).into_owned()
    }

    fn log(&self) -> PathBuf {
        self.data.with_extension("log")
    }

    /// Stops it, and waits until it has.
    pub fn stop(&mut self, how: Stop) {
        let mut child = self.child.take().expect("it runs");
        let signal = match how {
            Stop::Fast => Signal::INT,
            Stop::Immediate => Signal::QUIT,
        };
        kill_process(Pid::from_child(&child), signal).unwrap();
        eventually("the server's end", || child.try_wait().unwrap().is_some());
    }

    /// Waits for the end of a server that another has stopped, so that it is not there even as a zombie.
    pub fn stopped_by_another(&mut self) {
        if let Some(mut child) = self.child.take() {
            eventually("the server's end", || child.try_wait().unwrap().is_some());
        }
    }

    /// Ends it as a power cut would, with all its children, and waits until none is left.
    pub fn kill9(&mut self) {
        let Some(main) = self.main() else {
            return;
        };
        let children = children(main);
        let _ = kill_process(main, Signal::KILL);
        // Found before and killed after: as long as the first one runs, it starts others.
        for child in &children {
            let _ = kill_process(*child, Signal::KILL);
        }
        if let Some(mut child) = self.child.take() {
            child.wait().unwrap();
        }
        eventually("the end of all its processes", || !children.iter().any(|child| is_alive(*child)));
    }

    /// Its first process, by the file that it keeps; `None` when that is of somebody else, or gone.
    fn main(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.data.join("postmaster.pid")).ok()?;
        let pid = Pid::from_raw(text.lines().next()?.trim().parse().ok()?)?;
        let home = fs::read_link(format!("/proc/{}/cwd", pid.as_raw_nonzero())).ok()?;
        (home == self.data).then_some(pid)
    }

    /// What `psql` says to a statement.
    pub fn query(&self, statement: &str) -> Ran {
        let mut command = self.stage.sh("psql -X -q -A -t -v ON_ERROR_STOP=1 -d \"$DSN\" -c \"$STATEMENT\"");
        Ran::from(command.env("DSN", self.dsn()).env("STATEMENT", statement).output().unwrap())
    }

    /// The answer to a statement that must succeed.
    #[track_caller]
    pub fn sql(&self, statement: &str) -> String {
        let ran = self.query(statement);
        assert_eq!(ran.code, 0, "{statement}: {ran:?}");
        ran.out.trim_end().to_owned()
    }

    /// Fills pgbench's tables.
    pub fn fill(&self, scale: u32) {
        self.stage.ok(&format!("pgbench -i -q -s {scale} '{}' 2>&1", self.dsn()));
    }

    /// Writers, until they are stopped or their number of transactions or seconds is done: `-c 4 -T 5`.
    pub fn bench(&self, options: &str) -> Running {
        let name = format!("bench-{}", self.port);
        self.stage.spawn(&name, &format!("exec pgbench -n {options} '{}'", self.dsn()))
    }

    /// Where its log ends. (A session's hint bits, the autovacuum and the background writer move that at any time.)
    #[track_caller]
    pub fn current_lsn(&self) -> u64 {
        lsn(&self.sql("select pg_current_wal_lsn()"))
    }

    /// How far a standby has replayed; 0 for nothing.
    #[track_caller]
    pub fn replay_lsn(&self) -> u64 {
        lsn(&self.sql("select coalesce(pg_last_wal_replay_lsn(), '0/0')"))
    }

    /// Waits until it has replayed up to here.
    #[track_caller]
    pub fn reaches(&self, lsn: u64) {
        eventually("the standby's replay", || self.replay_lsn() >= lsn);
    }

    /// A standby becomes a master, on a timeline of its own.
    #[track_caller]
    pub fn promote(&self) {
        assert_eq!(self.sql("select pg_promote(true, 60)"), "t");
        assert_eq!(self.sql("select pg_is_in_recovery()"), "f");
    }
}

impl Drop for Postgres<'_> {
    fn drop(&mut self) {
        // Nothing to lose any more. What hangs here would hang the other tests.
        if let Some(main) = self.main() {
            for pid in children(main).into_iter().chain([main]) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// `16/B374D848` as a number of bytes.
pub fn lsn(text: &str) -> u64 {
    let (high, low) = text.split_once('/').unwrap_or_else(|| panic!("no position: {text}"));
    u64::from_str_radix(high, 16).unwrap() << 32 | u64::from_str_radix(low, 16).unwrap()
}

/// State and parent of a process, as its `/proc/PID/stat` has them behind the name, which may have blanks.
fn stat(pid: &str) -> Option<(String, i32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut words = text.rsplit_once(')')?.1.split_whitespace();
    Some((words.next()?.to_owned(), words.next()?.parse().ok()?))
}

/// Whether a process is more than an entry that nobody has reaped yet.
fn is_alive(pid: Pid) -> bool {
    stat(&pid.as_raw_nonzero().to_string()).is_some_and(|(state, _)| state != "Z" && state != "X")
}

fn children(of: Pid) -> Vec<Pid> {
    let names = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let ours = names.filter(|name| stat(name).is_some_and(|(_, parent)| parent == of.as_raw_nonzero().get()));
    ours.filter_map(|name| Pid::from_raw(name.parse().ok()?)).collect()
}
