//! A source, a destination, and a server that can only live on a destination that is wholly of one version.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::rig::{Ran, Rig, Running, eventually, noise};

pub const SYNC: &str = env!("CARGO_BIN_EXE_repl-sync");

/// `start` notes what it must never be asked for: a start while it runs, on a directory that is neither the old nor the
/// new one, or where the guard forbids it; `stop` notes that it did not run.
const SERVER: &str = r#"#!/bin/bash
cd "$(dirname "$0")" || exit 1
sum() {
    (cd "$1" && find . -name '.repl*' -prune -o -type f -print0 | LC_ALL=C sort -z | xargs -0r md5sum | md5sum)
}
case $1 in
sum) sum "$2" ;;
bless) sum src >>whole ;;
status) [[ -e running ]] ;;
stop)
    if rm running 2>/dev/null; then echo stop >>log; else echo idle >>log; fi
    ;;
start)
    if [[ -e running ]]; then
        echo twice >>log
    elif ! "$ROLE" guard dst 2>/dev/null; then
        echo fenced >>log
    elif ! grep -qxF "$(sum dst)" whole; then
        echo torn >>log
    else
        : >running
        echo start >>log
        exit 0
    fi
    exit 1
    ;;
esac
"#;

/// A remote shell: its first word is a host.
const RSH: &str = "#!/bin/sh\nshift\nexec sh -c \"$*\"\n";

/// Which end is started by the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Far {
    None,
    Source,
    Destination,
}

pub struct Stand {
    pub rig: Rig,
    version: std::cell::Cell<u64>,
}

impl Stand {
    /// With a source of version 1 and no destination.
    pub fn new() -> Stand {
        Stand::at(Rig::new())
    }

    pub fn at(rig: Rig) -> Stand {
        let stand = Stand { rig, version: 0.into() };
        for (name, text) in [("server", SERVER), ("rsh", RSH)] {
            fs::write(stand.path(name), text).unwrap();
            fs::set_permissions(stand.path(name), fs::Permissions::from_mode(0o755)).unwrap();
        }
        fs::create_dir_all(stand.src("d/e")).unwrap();
        fs::write(stand.src("steady"), noise(500_000, 0)).unwrap();
        stand.advance();
        stand
    }

    /// With a destination that is as the source, and its server running.
    pub fn synced() -> Stand {
        let stand = Stand::new();
        stand.completes(Far::None, "--stage", "");
        stand
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.rig.path(name)
    }

    pub fn src(&self, name: &str) -> PathBuf {
        self.path("src").join(name)
    }

    /// The source comes to its next version: in every file it shows, but for one that is large and stays.
    pub fn advance(&self) {
        let version = self.version.get() + 1;
        self.version.set(version);
        for number in 0..24 {
            let dir = ["", "d/", "d/e/"][number % 3];
            let mut bytes = noise([300, 20_000, 150_000][number % 2 + usize::from(number % 7 == 0)], number as u64);
            bytes.splice(0..0, format!("version={version};").bytes());
            fs::write(self.src(&format!("{dir}{number}")), bytes).unwrap();
        }
        let _ = fs::remove_file(self.src(&format!("d/new-{}", version - 1)));
        fs::write(self.src(&format!("d/new-{version}")), noise(90_000, version)).unwrap();
    }

    /// The command line of a sync; what is only told to root's server is in `more`.
    #[expect(clippy::unused_self, reason = "a stand's line reads as its own")]
    pub fn line(&self, far: Far, mode: &str, more: &str) -> String {
        let (src, dst) = match far {
            Far::None => ("src", "dst"),
            Far::Source => ("host:src", "dst"),
            Far::Destination => ("src", "host:dst"),
        };
        format!(
            "exec {SYNC} --json --delete {mode} -e ./rsh --remote-command {SYNC} --stop './server stop' \
             --start './server start' --status './server status' {more} {src} {dst}"
        )
    }

    /// What is wholly of one version by now is as the destination and the source are.
    pub fn bless(&self) {
        self.rig.ok("(./server sum src; [[ ! -d dst ]] || ./server sum dst) >whole");
    }

    /// Starts a sync in the background.
    pub fn spawn(&self, far: Far, mode: &str, more: &str) -> Running {
        self.bless();
        self.rig.spawn(&self.line(far, mode, more))
    }

    /// Runs a sync to its end.
    pub fn run(&self, far: Far, mode: &str, more: &str) -> Ran {
        self.bless();
        let ran = self.rig.run(&self.line(far, mode, more));
        assert!(![101, 134, 135, 139].contains(&ran.code), "{ran:?}");
        ran
    }

    /// Runs a sync that must complete, and looks at all that it leaves; returns its report.
    #[track_caller]
    pub fn completes(&self, far: Far, mode: &str, more: &str) -> Value {
        let ran = self.run(far, mode, more);
        assert_eq!(ran.code, 0, "{ran:?}");
        self.rig.ok("diff -r --no-dereference src/ dst/");
        assert!(self.path("running").exists(), "{ran:?}");
        self.judge();
        self.check_litter();
        serde_json::from_str(&ran.out).unwrap()
    }

    /// What must hold at every instant: whole, or fenced; and the server was never asked for what must not be.
    #[track_caller]
    pub fn judge(&self) {
        let is_whole = self.rig.run("grep -qxF \"$(./server sum dst)\" whole").code == 0;
        let guard = self.rig.run("exec $ROLE guard dst");
        assert!(matches!(guard.code, 0 | 5), "{guard:?}");
        assert!(is_whole || guard.code == 5, "torn, and the guard says nothing");
        let log = self.log();
        for pair in log.windows(2) {
            assert_ne!(pair[0], pair[1], "{log:?}");
        }
        assert!(log.iter().all(|line| ["start", "stop"].contains(&line.as_str())), "{log:?}");
    }

    /// Whether the guard lets a server be started.
    pub fn is_fenced(&self) -> bool {
        self.rig.run("exec $ROLE guard dst").code == 5
    }

    /// The server runs on what the destination was before, which the hash says.
    #[track_caller]
    pub fn is_as_before(&self, before: &BTreeMap<PathBuf, String>) {
        assert_eq!(&tree(&self.path("dst").canonicalize().unwrap()), before);
        assert!(self.path("running").exists(), "{:?}", self.log());
        assert!(!self.is_fenced());
        self.judge();
    }

    pub fn log(&self) -> Vec<String> {
        fs::read_to_string(self.path("log")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Nothing of ours is in the destination, and beside it only what is to stay.
    #[track_caller]
    pub fn check_litter(&self) {
        let beside = "cd \"$(dirname \"$(realpath dst)\")\" && ls -A .repl-sync-dst && ls -Ad .repl-sync*";
        let found = self.rig.ok(&format!("find -H src dst -name '.repl*' && {beside}"));
        let known = [".repl-sync-dst", "digests", "history.jsonl", "lock", "pairs", "start.log"];
        assert!(found.lines().all(|name| known.contains(&name)), "litter: {found}");
    }

    /// Processes of this stand: what has its environment, the ends of a sync and whatever they have started.
    fn processes(&self) -> Vec<(Pid, String)> {
        let mark = format!("REPL_TEST_STATE={}", self.path("state").display());
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let read = |name: &str| fs::read(entry.path().join(name)).unwrap_or_default();
            if read("environ").split(|byte| *byte == 0).any(|word| word == mark.as_bytes()) {
                let line = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
                found.extend(Pid::from_raw(pid).map(|pid| (pid, line)));
            }
        }
        found
    }

    /// The end that the other has started, if it is there by now.
    pub fn far_end(&self) -> Option<Pid> {
        let is_it = |line: &str| line.starts_with(SYNC) && line.contains("--server");
        self.processes().into_iter().find(|(_, line)| is_it(line)).map(|(pid, _)| pid)
    }

    /// Waits until no process of this stand is left: a killed end leaves what it started to end by itself.
    #[track_caller]
    pub fn quiet(&self) {
        eventually("the end of all processes", || self.processes().is_empty());
    }

    #[expect(clippy::unused_self, reason = "a stand's processes")]
    pub fn signal(&self, pid: Pid, signal: Signal) -> bool {
        kill_process(pid, signal).is_ok()
    }
}

/// How often to try.
pub fn rounds(few: u64) -> u64 {
    std::env::var("REPL_TEST_ROUNDS").map_or(few, |rounds| rounds.parse().unwrap())
}

/// All of a tree that counts, as text by path: kind, mode, owner, time, target or digest.
pub fn tree(root: &Path) -> BTreeMap<PathBuf, String> {
    use std::os::unix::fs::MetadataExt as _;
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let metadata = fs::symlink_metadata(&path).unwrap();
        let content = if metadata.is_dir() {
            waiting.extend(fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
            "directory".to_owned()
        } else if metadata.is_file() {
            blake3::hash(&fs::read(&path).unwrap()).to_string()
        } else {
            format!("{:?}", fs::read_link(&path))
        };
        let (owner, mtime) = ((metadata.uid(), metadata.gid()), (metadata.mtime(), metadata.mtime_nsec()));
        let text = format!("{:o} {owner:?} {mtime:?} {content}", metadata.mode());
        found.insert(path.strip_prefix(root).unwrap().to_owned(), text);
    }
    found
}
