//! A MariaDB server as its own client programs reach it. Which one, and as whom, stands in an option file: no secret is
//! on a command line.

use std::fs::File;
use std::io::Seek as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::edge::dir::Dir;
use crate::edge::program::Program;
use crate::rule::scheme::Scheme;
use crate::rule::scheme::mariadb::Gtids;
use crate::value::exit::{Code, Failure, fail};
use crate::value::position::Segment;

/// How long a question may take.
const QUESTION: Duration = Duration::from_secs(60);
/// A lock that whoever feeds holds: a client that outlives its `repl-apply` is at work as long as it is taken.
const LOCK: &str = "repl-apply";

/// How to reach a server.
#[derive(Clone, Debug)]
pub struct Server {
    /// The option file for clients; without one, those that clients read by themselves.
    pub options: Option<PathBuf>,
}

impl Server {
    /// Asks in SQL; returns rows, fields parted by tabs.
    pub fn ask(&self, statements: &str) -> Result<String> {
        let mut args = self.args();
        args.extend(["--batch", "--skip-column-names", "--connect-timeout=30"].map(str::to_owned));
        args.push(format!("--execute={statements}"));
        Program::new("mariadb", args, QUESTION).ask()
    }

    /// What the server has executed, when nothing that fed it before is still at work. Refuses one that could execute a
    /// transaction twice: replayed ones are told from new ones by its own binary log, in strict mode.
    pub fn executed(&self) -> Result<Gtids> {
        let wait = QUESTION.as_secs() / 2;
        // Two statements: what the second one tells is of a time when the first one has come to its end.
        let answer = self.ask(&format!(
            "select get_lock('{LOCK}', {wait}); \
             select @@log_bin, @@log_slave_updates, @@gtid_strict_mode, @@gtid_binlog_state"
        ))?;
        let mut lines = answer.lines();
        if lines.next() != Some("1") {
            return fail(Code::Hook, "an earlier feed is still at work in the server");
        }
        let fields: Vec<_> = lines.next().unwrap_or_default().split('\t').collect();
        let [settings @ .., state] = fields.as_slice() else {
            return fail(Code::Hook, "the server does not say how it is set up");
        };
        for (name, setting) in ["log_bin", "log_slave_updates", "gtid_strict_mode"].iter().zip(settings) {
            if *setting != "1" {
                let text = format!("the server runs without {name}, so rows could be applied twice");
                let hint = "a server that is fed needs log_bin, log_slave_updates and gtid_strict_mode=ON";
                return Err(Failure::new(Code::Hook, format!("{text}: {hint}")).into());
            }
        }
        Gtids::parse(state).with_context(|| format!("the server says '{state}' of its transactions"))
    }

    /// Executes what [`decode`] wrote, to the first error. One client, one connection: were it made again after a loss,
    /// the rest of a transaction would go on alone.
    pub fn play(&self, mut script: File, timeout: Duration) -> Result<()> {
        script.rewind().context("cannot read what is to be fed")?;
        let mut args = self.args();
        args.extend(["--batch", "--binary-mode", "--skip-reconnect", "--skip-force"].map(str::to_owned));
        args.extend(["--max-allowed-packet=1G".to_owned(), format!("--init-command=do get_lock('{LOCK}', 3600)")]);
        Program::new("mariadb", args, timeout).run(Some(script), None).map_err(|error| {
            let text = error.to_string();
            if text.contains("ERROR 1950 ") {
                return error.context(Failure::new(
                    Code::Hook,
                    "something else wrote to the server that is fed; set read_only there, and undo what was written",
                ));
            }
            error
        })
    }

    /// Has the server remove the binary logs before this one, which lie in `dir`. Asked of another server than the one that
    /// wrote them, or of one that has removed some by itself, it would tell of other files; then nothing is removed.
    pub(super) fn purge(&self, dir: &Dir, scheme: &Scheme, up_to: Segment) -> Result<()> {
        for line in self.ask("show binary logs").context("cannot purge binary logs")?.lines() {
            let (name, length) = line.split_once('\t').unwrap_or_default();
            if scheme.segment(name).is_some_and(|segment| segment < up_to) {
                let here = dir.open_read(name)?.map(|file| file.metadata()).transpose()?.map(|metadata| metadata.len());
                let length = length.split('\t').next().and_then(|length| length.parse().ok());
                if here.is_none() || here != length {
                    let text = format!("{name} is not what the server calls so: is it the server of this log?");
                    return Err(Failure::new(Code::Guarded, text).into());
                }
            }
        }
        self.ask(&format!("purge binary logs to '{}'", scheme.name(up_to))).context("cannot purge binary logs")?;
        Ok(())
    }

    fn args(&self) -> Vec<String> {
        let file = |path: &PathBuf| format!("--defaults-file={}", path.display());
        self.options.iter().map(file).collect()
    }
}

/// Writes the part of a binary log between two transaction ends as statements. Checksums are proven on the way, so that
/// nothing of a damaged part is executed.
///
/// A file lies between this and the client, and no pipe: at the end of its input the client executes a last statement
/// that is not finished, and so would take what a killed `mariadb-binlog` left for the whole. `drop table ab` is not
/// `drop table abc`.
pub fn decode(log: &Path, start: u64, stop: u64, script: &File, timeout: Duration) -> Result<()> {
    let mut args: Vec<std::ffi::OsString> = vec!["--no-defaults".into(), "--verify-binlog-checksum".into()];
    args.extend([format!("--start-position={start}").into(), format!("--stop-position={stop}").into()]);
    args.push(log.into());
    let script = script.try_clone().context("cannot write what is to be fed")?;
    Program::new("mariadb-binlog", args, timeout).run(None, Some(script))
}
