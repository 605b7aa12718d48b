//! MariaDB (measured with 10.11).
//!
//! Files of a running server can be copied only while none of them changes: `InnoDB` writes pages and its circular log in
//! the background, also when no statement may write (see the procedure). The binary log is part of the copy: recovery
//! asks it what became of prepared transactions, and a server that is fed by us keeps its place in it.

use std::ffi::OsStr;
use std::path::Path;

use anyhow::Result;

use super::{Defaults, Names, number};
use crate::edge::dir::Dir;
use crate::edge::usage::{self, Process};
use crate::engine::log;
use crate::engine::sync::facts::Facts;
use crate::rule::scheme::{Engine, Kind};
use crate::value::position::Position;

pub(super) const PAGE: u64 = 16384;

/// The files that a running server has locked.
const LOCKED: [&str; 2] = ["ibdata1", CONTROL];
/// Aria's control file: a magic number (`fe fe 0c`), its version, and 16 bytes that no other installation has.
const CONTROL: &str = "aria_log_control";
const CONTROL_MAGIC: [u8; 3] = [0xfe, 0xfe, 0x0c];

/// In the names of the logs that a replica of the engine's own replication receives.
const RELAY: &[u8] = b"relay-bin";
/// Longest index of binary logs that is read.
const INDEX_MAX: u64 = 1 << 20;

pub(super) const NAMES: Names = Names {
    // Temporary tables, and what says where the server is.
    dropped: &["/ibtmp*", "/*.pid", "/*.sock", "/*.lock", "/#innodb_temp/*", "#sql-temptable-*"],
    // Of whom a server is a replica in the engine's own replication, and its error log.
    own: &[
        "/multi-master.info",
        "/master*.info",
        "/relay-log*.info",
        "/*relay-bin*",
        "/*.err",
        "/error.log",
        "/auto.cnf",
    ],
    kept: &["/my.cnf"],
    late: &["/aria_log.*", "/aria_log_control", "/ib_logfile*"],
};

/// A word to the server that the option file tells of, if it is the one of this directory.
macro_rules! of_this_directory {
    ($($command:literal),+) => {
        concat!(
            r#"PATH=$PATH:/usr/sbin; there=$(mariadb --defaults-file="$REPL_DSN" -BNe 'select @@datadir') || exit; "#,
            r#"if [ "$(realpath "$there")" != "$(realpath "$REPL_DIR")" ]; then "#,
            r#"echo "the server that $REPL_DSN tells of has its data in $there"; exit 1; fi; "#,
            $($command),+
        )
    };
}

pub(super) const DEFAULTS: Defaults = Defaults {
    // By a signal, as the service manager does: mariadb-admin looks once a second whether the server has ended.
    stop: Some(of_this_directory!(
        r#"cd "$REPL_DIR" && pid=$(cat "$(mariadb --defaults-file="$REPL_DSN" -BNe 'select @@pid_file')"); "#,
        r#"[ "/proc/$pid/cwd" -ef . ] || exec mariadb-admin --defaults-file="$REPL_DSN" shutdown; "#,
        r#"kill "$pid" && while [ "/proc/$pid/cwd" -ef . ]; do sleep 0.02; done"#
    )),
    start: Some(concat!(
        r#"PATH=$PATH:/usr/sbin; mariadbd --defaults-file="$REPL_DSN" --datadir="$REPL_DIR" & "#,
        r#"until mariadb-admin --defaults-file="$REPL_DSN" ping >/dev/null 2>&1; do "#,
        r#"kill -0 $! 2>/dev/null || { wait $!; echo "mariadbd ended with status $?, see its error log"; exit 1; }; "#,
        r#"sleep 0.02; done"#
    )),
    recover: None,
};

pub(super) fn is_here(names: &[&str]) -> bool {
    LOCKED.iter().any(|name| names.contains(name))
}

pub(super) fn user(dir: &Dir) -> Option<Process> {
    LOCKED.iter().find_map(|name| usage::lock_holder(&dir.path().join(name), 0, 0))
}

pub(super) fn facts(dir: &Dir) -> Result<Facts> {
    let head = super::head(dir, CONTROL)?;
    let mark = number::<16>(&head, 4).filter(|_| head.starts_with(&CONTROL_MAGIC));
    let hexadecimal = |mark: [u8; 16]| mark.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let marks = mark.map(|mark| ("the mark in aria_log_control".to_owned(), hexadecimal(mark)));
    // A replica that is fed by statements has an InnoDB log of its own: no place in it can be compared.
    Ok(Facts { marks: marks.into_iter().collect(), place: None, left: Vec::new() })
}

/// The indexes of binary logs as the copy needs them. A server that has an absolute path as the base of its log writes
/// absolute paths: a replica would look for its log where the master has its own, and on one machine it would find that.
pub(super) fn laid(dir: &Dir) -> Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    for name in dir.names()?.into_iter().filter_map(|name| name.into_string().ok()) {
        if !is_index(name.as_bytes()) {
            continue;
        }
        let text = dir.read_small(&name, INDEX_MAX)?.unwrap_or_default();
        let near: Vec<u8> = text.split_inclusive(|byte| *byte == b'\n').flat_map(|line| beside(dir, line)).collect();
        if near != text {
            found.push((name, near));
        }
    }
    Ok(found)
}

/// Whether a file lists binary logs of the server's own.
pub(super) fn is_index(name: &[u8]) -> bool {
    name.ends_with(b".index") && !name.windows(RELAY.len()).any(|part| part == RELAY)
}

/// A line of an index, relative where its file lies beside the index.
fn beside(dir: &Dir, line: &[u8]) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = Path::new(OsStr::from_bytes(line));
    match (path.parent(), path.file_name()) {
        (Some(parent), Some(name)) if parent.is_absolute() && is_same(parent, dir.path()) => {
            [b"./", name.as_bytes()].concat()
        }
        _ => line.to_owned(),
    }
}

fn is_same(one: &Path, other: &Path) -> bool {
    let one = one.canonicalize();
    one.is_ok() && one.ok() == other.canonicalize().ok()
}

/// The beginning of the file in which the binary log that was copied ends. A feed passes over what the server has.
pub(super) fn position(dir: &Dir) -> Result<Option<Position>> {
    let names = dir.names()?;
    let kind = Kind { engine: Engine::Mariadb, pattern: None }.complete(names.iter().filter_map(|name| name.to_str()));
    match kind.ok().and_then(|kind| kind.scheme(&[])) {
        Some(scheme) => Ok(log::end(dir, &scheme)?.map(|end| end.segment.at(0))),
        None => Ok(None),
    }
}
