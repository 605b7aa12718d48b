//! Who uses files: what the kernel knows of locks, and of other processes' open files. No promise that nobody does: of
//! other users' processes only root sees all.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use rustix::process::{Flock, FlockOffsetType, FlockType, fcntl_getlk, getpid};

use crate::value::escape::show_bytes;

/// A process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    id: i32,
    /// What it is called, safe to show.
    pub name: String,
}

impl std::fmt::Display for Process {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "process {} ({})", self.id, self.name)
    }
}

impl Process {
    /// The process of this number, if it is there and more than an entry that nobody has reaped yet.
    pub fn living(id: i32) -> Option<Process> {
        let stat = fs::read(format!("/proc/{id}/stat")).ok()?;
        // The name is in parentheses and may have some itself; the state comes behind it.
        let close = stat.iter().rposition(|byte| *byte == b')')?;
        let open = stat.iter().position(|byte| *byte == b'(')?;
        let is_alive = !matches!(stat.get(close + 2), Some(b'Z' | b'X') | None);
        is_alive.then(|| Process { id, name: show_bytes(&stat[open + 1..close]) })
    }

    /// Whether it works in this directory; `None` when we may not know.
    pub fn works_in(&self, dir: &Path) -> Option<bool> {
        let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
        let here = fs::metadata(dir).ok().map(identity)?;
        match fs::metadata(format!("/proc/{}/cwd", self.id)) {
            Ok(metadata) => Some(identity(metadata) == here),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => None,
            Err(_) => Some(false),
        }
    }

    /// Whether it has a file below a directory open for writing, or mapped so.
    fn writes_below(&self, dir: &Path) -> bool {
        self.has_open(dir).unwrap_or(false) || self.has_mapped(dir).unwrap_or(false)
    }

    fn has_open(&self, dir: &Path) -> io::Result<bool> {
        for entry in fs::read_dir(format!("/proc/{}/fd", self.id))? {
            let entry = entry?;
            // Closed in the meantime: not open.
            let is_below = fs::read_link(entry.path()).is_ok_and(|target| is_counted(&target, dir));
            if is_below && self.is_open_for_writing(&entry.file_name().to_string_lossy()) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// By the access mode, the lowest two bits of the flags.
    fn is_open_for_writing(&self, descriptor: &str) -> bool {
        let text = fs::read_to_string(format!("/proc/{}/fdinfo/{descriptor}", self.id)).unwrap_or_default();
        let flags = text.lines().find_map(|line| line.strip_prefix("flags:"));
        flags.and_then(|flags| u32::from_str_radix(flags.trim(), 8).ok()).is_some_and(|flags| flags & 3 != 0)
    }

    fn has_mapped(&self, dir: &Path) -> io::Result<bool> {
        let maps = fs::read(format!("/proc/{}/maps", self.id))?;
        let maps = String::from_utf8_lossy(&maps);
        // `7f..-7f.. rw-s 00000000 fe:00 1234   /path`
        Ok(maps.lines().any(|line| {
            let mut words = line.split_whitespace();
            let is_shared = words.nth(1).is_some_and(|mode| mode.contains('w') && mode.ends_with('s'));
            let path = line.find('/').map(|at| PathBuf::from(&line[at..]));
            is_shared && path.is_some_and(|path| is_counted(&path, dir))
        }))
    }
}

/// Whether a path is below a directory, and not in what we keep there ourselves.
fn is_counted(path: &Path, dir: &Path) -> bool {
    let first = path.strip_prefix(dir).ok().and_then(|below| below.components().next());
    first.is_some_and(|first| !first.as_os_str().to_string_lossy().starts_with(".repl"))
}

/// All processes but this one.
fn others() -> impl Iterator<Item = Process> {
    let own = getpid().as_raw_nonzero().get();
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = names.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(move |id| *id != own).filter_map(Process::living)
}

/// A process that has a file below this directory open for writing. (Files in `.repl*` do not count: they are ours.)
pub fn writer(dir: &Path) -> Option<Process> {
    let dir = fs::canonicalize(dir).ok()?;
    others().find(|process| process.writes_below(&dir))
}

/// A process of this name that works in this directory.
pub fn worker(dir: &Path, name: &str) -> Option<Process> {
    others().filter(|process| process.name == name).find(|process| process.works_in(dir) == Some(true))
}

/// Whether we see what files the processes of a file's owner have open: root does, and the owner.
pub fn sees_processes_of_owner(path: &Path) -> bool {
    let own = rustix::process::geteuid();
    own.is_root() || fs::metadata(path).is_ok_and(|metadata| metadata.uid() == own.as_raw())
}

/// Who holds a lock on any of `length` bytes (0: to the end, wherever that is) from `start` on of a file that is there.
pub fn lock_holder(path: &Path, start: u64, length: u64) -> Option<Process> {
    let file = File::open(path).ok()?;
    let asked = Flock { start, length, pid: None, typ: FlockType::WriteLock, offset_type: FlockOffsetType::Set };
    let holder = fcntl_getlk(&file, &asked).ok()??;
    let id = holder.pid.map_or(0, |pid| pid.as_raw_nonzero().get());
    // One in another namespace has no number here.
    Some(Process::living(id).unwrap_or(Process { id, name: "unknown".to_owned() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader};
    use std::process::{Child, Command, Stdio};

    /// A shell that does something, says a line, and waits; ended when dropped.
    struct Other(Child);

    impl Other {
        fn start(script: &str) -> Other {
            let mut command = Command::new("/usr/bin/env");
            command.args(["bash", "-c", &format!("{script}; echo ready; read -r line")]);
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            assert_eq!(line, "ready\n");
            Other(child)
        }

        fn id(&self) -> i32 {
            self.0.id().cast_signed()
        }
    }

    impl Drop for Other {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    #[test]
    fn a_writer_is_found_and_a_reader_is_none() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().display();
        fs::write(root.path().join("a"), "x").unwrap();
        fs::create_dir(root.path().join(".repl-sync")).unwrap();
        let _reader = Other::start(&format!("exec 9<{dir}/a"));
        let _own = Other::start(&format!("exec 9>{dir}/.repl-sync/lock"));
        assert_eq!(writer(root.path()), None);
        let other = Other::start(&format!("exec 9>>{dir}/a"));
        assert_eq!(writer(root.path()).map(|process| process.id), Some(other.id()));
        assert_eq!(writer(&root.path().join(".repl-sync")).map(|process| process.name).as_deref(), Some("bash"));
    }

    #[test]
    fn a_worker_is_known_by_name_and_place() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(worker(root.path(), "bash"), None);
        let other = Other::start(&format!("cd {}", root.path().display()));
        assert_eq!(worker(root.path(), "bash").map(|process| process.id), Some(other.id()));
        assert_eq!(worker(root.path(), "postgres"), None);
    }

    #[test]
    fn a_lock_names_its_holder() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("a");
        fs::write(&path, "x").unwrap();
        assert_eq!(lock_holder(&path, 0, 0), None);
        let script = "import fcntl,sys\nf=open(sys.argv[1],'r+')\nfcntl.lockf(f,fcntl.LOCK_EX)\nprint('ready',flush=True)\nsys.stdin.read()";
        let mut command = Command::new("python3");
        command.arg("-c").arg(script).arg(&path).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut other = Other(command.spawn().unwrap());
        let mut line = String::new();
        BufReader::new(other.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(lock_holder(&path, 0, 0).map(|process| process.id), Some(other.id()));
        assert_eq!(lock_holder(&root.path().join("none"), 0, 0), None);
    }
}
