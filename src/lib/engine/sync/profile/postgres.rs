//! PostgreSQL (measured with 15; what a base copy leaves out and why: the manual's chapter on continuous archiving, and
//! what `pg_basebackup` does).
//!
//! A running master is copied between the start and the stop of a backup: what changes meanwhile is made whole by the
//! log from its start on, and the label that the stop returns says so to the server that begins on the copy. Without the
//! label such a copy starts too, sometimes, and is silently wrong.

use anyhow::Result;

use super::{Defaults, Names, number};
use crate::edge::dir::Dir;
use crate::edge::usage::{self, Process};
use crate::engine::log;
use crate::engine::sync::facts::Facts;
use crate::rule::scheme::postgres::Cluster;
use crate::rule::scheme::{Engine, Kind, Scheme};
use crate::value::name::Name;
use crate::value::position::Position;

pub(super) const PAGE: u64 = 8192;

/// What the stop of a backup returns, as the server that starts on the copy looks for it.
pub(in crate::engine::sync) const LABEL: &str = "backup_label";
/// The same for tablespaces.
pub(in crate::engine::sync) const TABLESPACES: &str = "tablespace_map";
const VERSION: &str = "PG_VERSION";
pub(super) const LOG: &str = "pg_wal";
const PID: &str = "postmaster.pid";

pub(super) const NAMES: Names = Names {
    dropped: &[
        "/postmaster.pid",
        "/postgresql.auto.conf.tmp",
        "/current_logfiles",
        "/current_logfiles.tmp",
        "/backup_label.old",
        "/tablespace_map.old",
        "/backup_manifest",
        "/pg_dynshmem/*",
        "/pg_notify/*",
        "/pg_serial/*",
        "/pg_snapshots/*",
        "/pg_stat_tmp/*",
        "/pg_subtrans/*",
        // What the master has archived, or not yet, is no matter of the replica's.
        "/pg_wal/archive_status/*",
        "pgsql_tmp*",
        // Names of relations' files, made again by whoever misses it.
        "pg_internal.init*",
    ],
    own: &[
        // The options with which it is started again.
        "/postmaster.opts",
        // Whether it follows a master: copied, they would make one that does not begin to, or one that does stop.
        "/standby.signal",
        "/recovery.signal",
        // A master's slots would keep log for ever in a replica that nobody asks for it.
        "/pg_replslot/*",
        "/log/*",
        "/pg_log/*",
    ],
    kept: &[
        "/postgresql.conf",
        "/postgresql.auto.conf",
        "/pg_hba.conf",
        "/pg_ident.conf",
        "/conf.d/*",
        "/server.crt",
        "/server.key",
        "/root.crt",
    ],
    // The control file behind the data, so that of a standby it says how far its data reach; the log behind both.
    late: &["/global/pg_control", "/pg_wal/**"],
};

/// Programs of the same version as the directory, where the usual packages put them.
macro_rules! with_programs {
    ($($command:literal),+) => {
        concat!(
            r#"v=$(tr -cd 0-9. <"$REPL_DIR/PG_VERSION"); "#,
            r#"PATH=/usr/lib/postgresql/$v/bin:/usr/pgsql-$v/bin:$PATH; "#,
            $($command),+
        )
    };
}

pub(super) const DEFAULTS: Defaults = Defaults {
    stop: Some(with_programs!(r#"exec pg_ctl -D "$REPL_DIR" -m fast -w -t "$REPL_TIMEOUT" stop"#)),
    // To "restart" a server that does not run is to start it with the options that it had.
    start: Some(with_programs!(
        r#"if [ -s "$REPL_DIR/postmaster.opts" ]; then how=restart; else how=start; fi; "#,
        r#"exec pg_ctl -D "$REPL_DIR" -w -t "$REPL_TIMEOUT" "$how""#
    )),
    recover: None,
};

pub(super) fn is_here(names: &[&str]) -> bool {
    [VERSION, "global", LOG].iter().all(|name| names.contains(name))
}

/// Whether a link of this name leads to a part of the database: its log, or a tablespace.
pub(super) fn is_elsewhere(name: &Name) -> bool {
    let first = name.components().next();
    first == Some(LOG.as_bytes()) || first == Some(b"pg_tblspc") || first == Some(b"base")
}

/// The server, by the file that it keeps, or any process of one that was killed: they go on for a while.
pub(super) fn user(dir: &Dir) -> Result<Option<Process>> {
    let text = dir.read_small(PID, 1 << 16)?.unwrap_or_default();
    let id = String::from_utf8_lossy(&text).lines().next().and_then(|line| line.trim().parse().ok());
    // A process that merely got the number of a dead one works elsewhere.
    let here = |process: &Process| process.works_in(dir.path()).unwrap_or(true);
    let server = id.and_then(Process::living).filter(here);
    Ok(server.or_else(|| usage::worker(dir.path(), "postgres")))
}

/// It follows a master only while one of these files is there.
pub(super) fn leads(dir: &Dir) -> Result<bool> {
    Ok(dir.identity("standby.signal")?.is_none() && dir.identity("recovery.signal")?.is_none())
}

/// The beginning of `global/pg_control`, as `catalog/pg_control.h` has it since version 11: system identifier (u64),
/// version of the file (u32), version of the catalog (u32), state (u32), time (i64 at 24), place of the last checkpoint
/// (u64 at 32), and of that checkpoint its redo place (u64 at 40) and its timeline (u32 at 48).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Control {
    /// The system identifier.
    system: u64,
    /// Where the last checkpoint is, its redo place, and its timeline; `None` in a layout that is not known.
    checkpoint: Option<(u64, u64, u32)>,
}

impl Control {
    /// Reads the beginning of the file.
    fn read(head: &[u8]) -> Option<Control> {
        let system = number(head, 0).map(u64::from_ne_bytes).filter(|system| *system > 0)?;
        let version = number(head, 8).map(u32::from_ne_bytes)?;
        let checkpoint = || {
            let place = number(head, 32).map(u64::from_ne_bytes)?;
            let redo = number(head, 40).map(u64::from_ne_bytes)?;
            let timeline = number(head, 48).map(u32::from_ne_bytes)?;
            (redo <= place && timeline > 0).then_some((place, redo, timeline))
        };
        Some(Control { system, checkpoint: if version >= 1100 { checkpoint() } else { None } })
    }

    fn of(dir: &Dir) -> Result<Option<Control>> {
        if dir.identity("global")?.is_none() {
            return Ok(None);
        }
        Ok(Control::read(&super::head(&dir.open_subdir("global")?, "pg_control")?))
    }
}

pub(super) fn facts(dir: &Dir) -> Result<Facts> {
    let Some(control) = Control::of(dir)? else {
        return Ok(Facts::default());
    };
    let place = control.checkpoint.map(|(place, _, timeline)| (timeline.into(), place));
    let left = match place {
        Some((timeline, _)) if dir.identity(LOG)?.is_some() => left(dir, timeline)?,
        _ => Vec::new(),
    };
    Ok(Facts { marks: vec![("the system identifier".to_owned(), control.system.to_string())], place, left })
}

/// By the history of a timeline: lines `timeline place reason` of those before it.
fn left(dir: &Dir, timeline: u64) -> Result<Vec<(u64, u64)>> {
    let text = dir.open_subdir(LOG)?.read_small(&format!("{timeline:08X}.history"), 1 << 20)?.unwrap_or_default();
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let (timeline, (high, low)) = (words.next()?.parse().ok()?, words.next()?.split_once('/')?);
        let number = |text| u64::from_str_radix(text, 16).ok();
        Some((timeline, number(high)? << 32 | number(low)?))
    };
    Ok(String::from_utf8_lossy(&text).lines().filter_map(line).collect())
}

/// The beginning of the segment in which the label says that the log begins, or the last checkpoint's redo.
pub(super) fn position(dir: &Dir) -> Result<Option<Position>> {
    if dir.identity(LOG)?.is_none() {
        return Ok(None);
    }
    let log = dir.open_subdir(LOG)?;
    let Some(cluster) = cluster(&log)? else {
        return Ok(None);
    };
    let scheme = Scheme::Postgres(cluster);
    let label = dir.read_small(LABEL, 1 << 16)?.map(|label| String::from_utf8_lossy(&label).into_owned());
    let begin = match (label.as_deref().and_then(first_segment), Control::of(dir)?.and_then(|found| found.checkpoint)) {
        (Some(name), _) => scheme.segment(&name),
        (None, Some((_, redo, timeline))) => {
            Some(crate::value::position::Segment::new(timeline.into(), redo / cluster.size))
        }
        (None, None) => return log::end(&log, &scheme),
    };
    Ok(begin.map(|segment| segment.at(0)))
}

/// By the first segment that says.
fn cluster(log: &Dir) -> Result<Option<Cluster>> {
    let kind = Kind { engine: Engine::Postgres, pattern: None };
    for name in log.names()? {
        if let Some(name) = name.to_str().filter(|name| kind.wants_head_of(name))
            && let Some(file) = log.open_read(name)?
            && let Some(found) = Cluster::read(&log::head(&file)?)
        {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// `START WAL LOCATION: 0/2000028 (file 000000010000000000000002)`.
fn first_segment(label: &str) -> Option<String> {
    let line = label.lines().find_map(|line| line.strip_prefix("START WAL LOCATION: "))?;
    Some(line.split_once("(file ")?.1.strip_suffix(')')?.to_owned())
}
