//! A real MariaDB server of a test's own: installed into a temporary directory, on a Unix socket, never as root, gone
//! with the test.

#![allow(dead_code, unreachable_pub, reason = "each test crate uses its own part")]

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Longest wait for a server to come or go.
const PATIENCE: Duration = Duration::from_secs(120);

/// Each server of a test program has another `server_id`.
static SERVERS: AtomicU32 = AtomicU32::new(1);

/// A server; killed when dropped.
pub struct Mariadb {
    dir: TempDir,
    child: Option<Child>,
    options: Vec<String>,
    pub server_id: u32,
}

impl Mariadb {
    /// Installs a server with these options (lines of an option file, such as `max_binlog_size=64K`) after the usual
    /// ones, and starts it.
    pub fn start_new(options: &[&str]) -> Mariadb {
        let mut server = Mariadb::install(options);
        server.start();
        server
    }

    /// The same, not started. The binary log is `data/bin.000001` and so on, in row format, synced at each commit, and
    /// never expires.
    pub fn install(options: &[&str]) -> Mariadb {
        let dir = tempfile::Builder::new().prefix("maria").tempdir().unwrap();
        let server_id = SERVERS.fetch_add(1, Ordering::Relaxed);
        let options = options.iter().map(ToString::to_string).collect();
        let server = Mariadb { dir, child: None, options, server_id };
        // A server that starts removes the temporary tables of others that have the same tmpdir.
        fs::create_dir(server.dir.path().join("tmp")).unwrap();
        if rustix::process::geteuid().is_root() {
            let owned = Command::new("chown").args(["-R", "mysql:"]).arg(server.dir.path()).status().unwrap();
            assert!(owned.success());
        }
        server.write_config();
        let mut install = unprivileged("mariadb-install-db");
        install.arg(format!("--defaults-file={}", server.config().display())).args([
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            "--skip-name-resolve",
            "--skip-log-bin",
        ]);
        let ran = install.output().expect("mariadb-install-db is needed: install mariadb-server");
        assert!(ran.status.success(), "{ran:?}, {}", server.errors());
        server
    }

    /// A server on the files of a copy: whatever is in `data` now. `fill` puts it there.
    pub fn from_copy(options: &[&str], fill: impl FnOnce(&Path)) -> Mariadb {
        let mut server = Mariadb::install(options);
        fs::remove_dir_all(server.data()).unwrap();
        fill(&server.data());
        if rustix::process::geteuid().is_root() {
            assert!(Command::new("chown").args(["-R", "mysql:"]).arg(server.data()).status().unwrap().success());
        }
        server.start();
        server
    }

    /// Options for a server that is fed by us: it keeps its place in its own binary log, and nobody else writes there.
    pub const REPLICA: [&'static str; 3] = ["log_slave_updates", "gtid_strict_mode=ON", "read_only=ON"];

    fn write_config(&self) {
        let (dir, id) = (self.dir.path().display(), self.server_id);
        let mut text = format!(
            "[client]\nsocket={dir}/socket\nuser=root\n[mariadbd]\ndatadir={dir}/data\nsocket={dir}/socket\ntmpdir={dir}/tmp\n\
             pid_file={dir}/pid\nlog_error={dir}/error.log\nskip_networking\nserver_id={id}\nlog_bin={dir}/data/bin\n\
             binlog_format=ROW\nsync_binlog=1\nexpire_logs_days=0\ncharacter_set_server=utf8mb4\n\
             innodb_buffer_pool_size=16M\ninnodb_log_file_size=16M\ninnodb_fast_shutdown=1\nkey_buffer_size=1M\n\
             aria_pagecache_buffer_size=2M\nperformance_schema=OFF\n\
             innodb_use_native_aio=OFF\nmax_connections=20\n"
        );
        for option in &self.options {
            writeln!(text, "{option}").unwrap();
        }
        fs::write(self.config(), text).unwrap();
    }

    /// Sets another option; it counts from the next start on.
    pub fn set(&mut self, option: &str) {
        self.options.push(option.to_owned());
        self.write_config();
    }

    /// Where all of it is.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The data directory, which has the binary log as well.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// The option file, for clients too: `--defaults-file`.
    pub fn config(&self) -> PathBuf {
        self.dir.path().join("my.cnf")
    }

    /// The names of the binary logs that lie there, in order.
    pub fn logs(&self) -> Vec<String> {
        let names = fs::read_dir(self.data()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let is_log = |name: &String| {
            name.strip_prefix("bin.").is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
        };
        let mut logs: Vec<_> = names.filter(is_log).collect();
        logs.sort();
        logs
    }

    /// Starts it and waits until it answers.
    #[track_caller]
    pub fn start(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let mut server = unprivileged("mariadbd");
        server.arg(format!("--defaults-file={}", self.config().display()));
        server.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.child = Some(server.spawn().expect("mariadbd is needed: install mariadb-server"));
        let deadline = Instant::now() + PATIENCE;
        while !self.answers() {
            let ended = self.child.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none() && Instant::now() < deadline, "it does not start: {}", self.errors());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn answers(&self) -> bool {
        self.admin("ping").is_ok_and(|ran| ran.status.success())
    }

    fn admin(&self, what: &str) -> std::io::Result<Output> {
        let config = format!("--defaults-file={}", self.config().display());
        Command::new("mariadb-admin").args([config.as_str(), "--connect-timeout=10", what]).output()
    }

    /// Stops it in an orderly way and waits until it is gone.
    #[track_caller]
    pub fn stop(&mut self) {
        self.signal(Signal::TERM);
        self.wait();
    }

    /// Kills it, as a crash does, and waits until it is gone.
    #[track_caller]
    pub fn kill9(&mut self) {
        self.signal(Signal::KILL);
        self.wait();
    }

    /// The server's process.
    #[track_caller]
    pub fn pid(&self) -> Pid {
        // setpriv becomes the server: it is the same process.
        Pid::from_child(self.child.as_ref().expect("it does not run"))
    }

    /// Waits until a server that was killed by its process is gone.
    #[track_caller]
    pub fn gone(&mut self) {
        self.wait();
    }

    fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    #[track_caller]
    fn wait(&mut self) {
        let mut child = self.child.take().expect("it does not run");
        let deadline = Instant::now() + PATIENCE;
        while child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "it does not end: {}", self.errors());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The server's own error log.
    pub fn errors(&self) -> String {
        fs::read_to_string(self.dir.path().join("error.log")).unwrap_or_default()
    }

    /// The client, for a test that feeds it itself.
    pub fn client(&self) -> Command {
        let mut client = Command::new("mariadb");
        client.arg(format!("--defaults-file={}", self.config().display())).args(["--batch", "--skip-column-names"]);
        client
    }

    /// Runs statements that must succeed; returns the rows, fields parted by tabs.
    #[track_caller]
    pub fn sql(&self, statements: &str) -> String {
        let ran = self.try_sql(statements);
        assert!(ran.status.success(), "{statements:.200}: {}", String::from_utf8_lossy(&ran.stderr));
        String::from_utf8(ran.stdout).unwrap().trim_end().to_owned()
    }

    /// Runs statements.
    pub fn try_sql(&self, statements: &str) -> Output {
        let mut client = self.client();
        client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = client.spawn().expect("mariadb is needed: install mariadb-client");
        let mut input = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            // A client that fails reads no more; what it says then counts.
            scope.spawn(move || input.write_all(statements.as_bytes()));
            child.wait_with_output().unwrap()
        })
    }

    /// `CHECKSUM TABLE` of every table of the databases that are not the server's own: a line each.
    #[track_caller]
    pub fn checksums(&self) -> String {
        let tables = self.sql(
            "select concat('`', table_schema, '`.`', table_name, '`') from information_schema.tables \
             where table_type = 'BASE TABLE' \
             and table_schema not in ('mysql', 'information_schema', 'performance_schema', 'sys') order by 1;",
        );
        tables.lines().map(|table| self.sql(&format!("checksum table {table} extended;")) + "\n").collect()
    }

    /// Where its binary log ends: file and offset, as the server says.
    #[track_caller]
    pub fn master_status(&self) -> (String, u64) {
        let text = self.sql("show master status;");
        let mut fields = text.split('\t');
        (fields.next().unwrap().to_owned(), fields.next().unwrap().parse().unwrap())
    }
}

impl Mariadb {
    /// Waits for the end of a server that another has stopped; from now on one may run that is not our child.
    pub fn stopped_by_another(&mut self) {
        if self.child.is_some() {
            self.wait();
        }
    }

    /// One that was started by somebody else, by the file that it keeps, if that is still its own.
    fn stranger(&self) -> Option<Pid> {
        let pid = Pid::from_raw(fs::read_to_string(self.dir.path().join("pid")).ok()?.trim().parse().ok()?)?;
        let line = fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())).ok()?;
        String::from_utf8_lossy(&line).contains(self.dir.path().to_str()?).then_some(pid)
    }
}

impl Drop for Mariadb {
    fn drop(&mut self) {
        if let (None, Some(pid)) = (&self.child, self.stranger()) {
            let _ = kill_process(pid, Signal::KILL);
        }
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A command that does not run as root.
fn unprivileged(program: &str) -> Command {
    if !rustix::process::geteuid().is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "mysql", "--regid", "mysql", "--clear-groups", program]);
    command
}
