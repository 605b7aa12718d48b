//! What the tests stand on: the real commands, real files, a real sshd on loopback.

#![allow(dead_code, unreachable_pub, reason = "each test crate uses its own part")]

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// The suite's commands, as built for this test run.
pub const SHIP: &str = env!("CARGO_BIN_EXE_repl-ship");
pub const APPLY: &str = env!("CARGO_BIN_EXE_repl-apply");
pub const VERIFY: &str = env!("CARGO_BIN_EXE_repl-verify");
pub const FETCH: &str = env!("CARGO_BIN_EXE_repl-fetch");
pub const PRUNE: &str = env!("CARGO_BIN_EXE_repl-prune");
pub const ROLE: &str = env!("CARGO_BIN_EXE_repl-role");
pub const SYNC: &str = env!("CARGO_BIN_EXE_repl-sync");
pub const BASE: &str = env!("CARGO_BIN_EXE_repl-base");
pub const RECOVER: &str = env!("CARGO_BIN_EXE_repl-recover");
pub const WAIT: &str = env!("CARGO_BIN_EXE_repl-wait");
pub const STATUS: &str = env!("CARGO_BIN_EXE_repl-status");

/// All of them, each with the variable by which scripts find it.
pub const COMMANDS: [(&str, &str); 11] = [
    ("SHIP", SHIP),
    ("APPLY", APPLY),
    ("WAIT", WAIT),
    ("VERIFY", VERIFY),
    ("FETCH", FETCH),
    ("PRUNE", PRUNE),
    ("ROLE", ROLE),
    ("SYNC", SYNC),
    ("BASE", BASE),
    ("RECOVER", RECOVER),
    ("STATUS", STATUS),
];

/// Longest wait for anything: far above what is needed, so that only a real hang meets it.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A scratch directory with a master's and a replica's log directory and a state directory in it.
pub struct Rig {
    pub root: TempDir,
}

impl Rig {
    pub fn new() -> Rig {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("master")).unwrap();
        Rig { root }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn master(&self) -> PathBuf {
        self.path("master")
    }

    pub fn replica(&self) -> PathBuf {
        self.path("replica")
    }

    /// Writes (or overwrites) a file in the master's directory.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        fs::write(self.master().join(name), bytes).unwrap();
    }

    /// Appends to a file in the master's directory.
    pub fn append(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let mut file = fs::OpenOptions::new().append(true).create(true).open(self.master().join(name)).unwrap();
        file.write_all(bytes.as_ref()).unwrap();
    }

    /// A shell in the scratch directory, with the suite's commands as `$SHIP`, `$APPLY` and so on, and a state home of its
    /// own. `pipefail` is on: the exit code is the first failing command's from the right.
    pub fn sh(&self, script: &str) -> Command {
        let mut command = Command::new("bash");
        command.arg("-c").arg(format!("set -o pipefail\n{script}")).current_dir(self.root.path());
        command.envs(COMMANDS);
        command.env("XDG_STATE_HOME", self.path("xdg")).env("REPL_TEST_STATE", self.path("state"));
        command.stdin(Stdio::null());
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

    /// Starts a script in the background, its output in files.
    pub fn spawn(&self, script: &str) -> Running {
        Running::start(self.sh(script), &self.path("spawn"))
    }

    /// One `-S` pass from master to replica by a command link.
    pub fn pass(&self, ship: &str, apply: &str) -> Ran {
        self.run(&format!("$SHIP -S {ship} --via \"$APPLY --acks {apply} replica\" master"))
    }

    /// The segments of both sides are equal, byte by byte.
    #[track_caller]
    pub fn assert_equal(&self) {
        assert_eq!(segments(&self.master()), segments(&self.replica()));
    }
}

impl Drop for Rig {
    /// Root's senders keep their state in `/var/lib/repl` by default, named after the log directory.
    fn drop(&mut self) {
        let path = fs::canonicalize(self.root.path()).unwrap();
        let name = path.to_str().unwrap().trim_matches('/').replace('/', "-");
        for entry in fs::read_dir("/var/lib/repl").into_iter().flatten().flatten() {
            if entry.file_name().to_str().is_some_and(|other| other.starts_with(&name)) {
                let _ = fs::remove_dir_all(entry.path());
            }
        }
    }
}

/// Names and contents of all regular files directly in a directory.
pub fn segments(dir: &Path) -> std::collections::BTreeMap<String, blake3::Hash> {
    let files =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap()).filter(|entry| entry.file_type().unwrap().is_file());
    files.map(|file| (file.file_name().into_string().unwrap(), blake3::hash(&fs::read(file.path()).unwrap()))).collect()
}

/// Deterministic bytes that do not compress.
pub fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(&mut bytes);
    bytes
}

/// Kills what a script runs (as `timeout`'s child) at many instants of the time that it takes, measured by a first run;
/// `ran` runs a script. Returns how many runs were killed.
pub fn kill_often(times: u32, fresh: &str, command: &str, ran: &dyn Fn(&str) -> Ran) -> u32 {
    let began = Instant::now();
    assert_eq!(ran(&format!("{fresh}; {command}")).code, 0);
    let took = began.elapsed().as_secs_f64();
    ran(fresh);
    let mut random = fastrand::Rng::with_seed(7);
    let mut killed = 0;
    for _ in 0..times {
        let ended = ran(&format!("timeout -s KILL {:.3} {command}", random.f64() * took));
        // The run before may have been killed when all was done.
        if ended.code == 0 || ended.code == 13 {
            ran(fresh);
        } else {
            assert!(ended.code == -1 || ended.code == 137, "{ended:?}");
            killed += 1;
        }
    }
    killed
}

/// How a command ended, and what it said.
#[derive(Debug)]
pub struct Ran {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Ran {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Ran { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Ran {
    /// The exit code is this, and standard error says this.
    #[track_caller]
    pub fn fails(&self, code: i32, says: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.err.contains(says), "expected '{says}' in {self:?}");
    }
}

/// A process in the background; killed with its group when dropped.
pub struct Running {
    pub child: Child,
    out: PathBuf,
    err: PathBuf,
}

impl Running {
    /// Starts a command in the background; what it says goes to files of this name, ending in `.out` and `.err`.
    pub fn start(mut command: Command, words: &Path) -> Running {
        let (out, err) = (words.with_extension("out"), words.with_extension("err"));
        command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
        // A group of its own, so that the end of the test ends all of it.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        Running { child: command.spawn().unwrap(), out, err }
    }

    /// The same with its standard output for the test to read.
    pub fn start_talking(mut command: Command, words: &Path) -> Running {
        let (out, err) = (words.with_extension("out"), words.with_extension("err"));
        fs::write(&out, "").unwrap();
        command.stdout(Stdio::piped()).stderr(fs::File::create(&err).unwrap());
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        Running { child: command.spawn().unwrap(), out, err }
    }

    /// The number of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process_group(pid, signal).unwrap();
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(&mut self) -> Ran {
        let deadline = Instant::now() + PATIENCE;
        let status: ExitStatus = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end: {}", self.err());
            nap();
        };
        Ran { code: status.code().unwrap_or(-1), out: fs::read_to_string(&self.out).unwrap(), err: self.err() }
    }

    pub fn err(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.err).unwrap()).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that was waited for has left its number to others.
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process_group(pid, rustix::process::Signal::KILL);
        let _ = self.child.wait();
    }
}

/// Waits until something is so; the only sleep of the tests is in here, and nothing depends on its length.
#[track_caller]
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "never came: {what}");
        nap();
    }
}

fn nap() {
    std::thread::sleep(Duration::from_millis(5));
}

/// A real sshd on a free port of loopback, with keys of its own. `host` is the name to use with [`Sshd::ssh`].
pub struct Sshd {
    dir: TempDir,
    child: Child,
    pub port: u16,
}

impl Sshd {
    /// Starts it; every key that is added may log in as the user who runs the test.
    pub fn start() -> Sshd {
        Sshd::start_with("")
    }

    /// Starts it with more lines of `sshd_config`.
    pub fn start_with(more: &str) -> Sshd {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        for key in ["host", "key"] {
            make_key(&dir.path().join(key), &[]);
        }
        fs::copy(path("key.pub"), path("authorized_keys")).unwrap();
        // sshd wants its privilege separation directory when it runs as root.
        if rustix::process::geteuid().is_root() {
            fs::create_dir_all("/run/sshd").unwrap();
        }
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\n\
             StrictModes no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\nAcceptEnv REPL_*\n\
             MaxStartups 100\nMaxSessions 100\nLogLevel ERROR\n{more}\n",
            path("host"),
            path("authorized_keys")
        );
        fs::write(path("sshd_config"), config).unwrap();
        let user = Command::new("id").arg("-un").output().unwrap().stdout;
        let user = String::from_utf8(user).unwrap();
        let config = format!(
            "Host slave\n HostName 127.0.0.1\n Port {port}\n User {}\n IdentityFile {}\n IdentitiesOnly yes\n \
             StrictHostKeyChecking no\n UserKnownHostsFile {}\n BatchMode yes\n LogLevel ERROR\n",
            user.trim(),
            path("key"),
            path("known_hosts")
        );
        fs::write(path("ssh_config"), config).unwrap();
        let mut sshd = Sshd { child: listen(dir.path()), port, dir };
        sshd.wait_for_banner();
        sshd
    }

    /// The processes that serve its sessions.
    pub fn sessions(&self) -> Vec<rustix::process::Pid> {
        let pid = self.child.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let pids = children.split_whitespace().filter_map(|pid| pid.parse().ok());
        pids.filter_map(rustix::process::Pid::from_raw).collect()
    }

    /// Ends it with all of its sessions, at once.
    pub fn stop(&mut self) {
        for session in self.sessions() {
            let _ = rustix::process::kill_process(session, rustix::process::Signal::KILL);
        }
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Starts it again where it was, with a key of its own that is new if it has no other any more.
    pub fn start_again(&mut self) {
        if !self.path("host").exists() {
            make_key(&self.path("host"), &[]);
        }
        self.child = listen(self.dir.path());
        self.wait_for_banner();
    }

    /// A file of its own: `host` and `key` are private keys, `sshd_config` is read at each start.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// What `known_hosts` says of it.
    pub fn known(&self) -> String {
        let key = fs::read_to_string(self.path("host.pub")).unwrap();
        format!("[127.0.0.1]:{} {key}", self.port)
    }

    fn wait_for_banner(&mut self) {
        let port = self.port;
        eventually("sshd's banner", || {
            let Ok(stream) = TcpStream::connect(("127.0.0.1", port)) else {
                return false;
            };
            let mut line = String::new();
            BufReader::new(stream.take(255)).read_line(&mut line).is_ok_and(|_| line.starts_with("SSH-"))
        });
    }

    /// The beginning of a command line that runs something at the far side: `ssh … slave`.
    pub fn ssh(&self) -> String {
        format!("ssh -F {} slave", self.dir.path().join("ssh_config").display())
    }

    /// The public half of the key that may log in.
    pub fn public_key(&self) -> PathBuf {
        self.dir.path().join("key.pub")
    }

    /// From now on `authorized_keys` is this.
    pub fn authorize(&self, lines: &str) {
        fs::write(self.dir.path().join("authorized_keys"), lines).unwrap();
    }

    /// From now on the key can only do this: the options of a line in `authorized_keys`.
    pub fn force(&self, options: &str) {
        let key = fs::read_to_string(self.dir.path().join("key.pub")).unwrap();
        fs::write(self.dir.path().join("authorized_keys"), format!("{options} {key}")).unwrap();
    }
}

/// Makes a pair of keys without a passphrase, unless the options say otherwise.
pub fn make_key(path: &Path, options: &[&str]) {
    let _ = fs::remove_file(path);
    let mut command = Command::new("ssh-keygen");
    command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).args(options);
    assert!(command.status().expect("ssh-keygen is needed: install openssh-client").success());
}

fn listen(dir: &Path) -> Child {
    let log = fs::File::create(dir.join("sshd.log")).unwrap();
    let mut command = Command::new("/usr/sbin/sshd");
    command.args(["-D", "-e", "-f"]).arg(dir.join("sshd_config")).stderr(log);
    command.spawn().expect("sshd is needed: install openssh-server")
}

impl Drop for Sshd {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
