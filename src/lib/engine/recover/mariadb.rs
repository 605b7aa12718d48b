//! MariaDB: a server of our own, that nobody else can reach, opens the base and is fed the archive's binary log, from the
//! base's end to the last transaction before the end, by the same feed that keeps a replica. It keeps its place by itself:
//! it passes over what the base has, and takes nothing whose predecessor it lacks.
//!
//! It is reached by an account that is made before it listens and removed before it ends, neither of which is logged. It
//! ends with us, whatever ends us, since a shell that holds our pipe stops it then.

use std::path::Path;

use anyhow::Result;

use super::Work;
use super::keeper::Keeper;
use super::scratch::{LONG, Scratch};
use crate::edge::dir::{Dir, shown};
use crate::engine::apply::mariadb::{Mariadb, Part};
use crate::engine::mariadb::Server;
use crate::rule::scheme::Scheme;
use crate::value::exit::{Code, fail};
use crate::value::position::Segment;

/// While it starts it hears no request to end.
const SERVER: &str = r#"
PATH=$PATH:/usr/sbin
if [ -n "$REPL_DSN" ]; then from=--defaults-file=$REPL_DSN; else from=--no-defaults; fi
stop=TERM end=KILL
is_up() { mariadb-admin --no-defaults --socket="$REPL_SCRATCH/socket" ping >/dev/null 2>&1; }
serve() {
    exec mariadbd "$from" --datadir="$REPL_TARGET" --socket="$REPL_SCRATCH/socket" --pid-file="$REPL_SCRATCH/pid" \
        --tmpdir="$REPL_SCRATCH" --skip-networking --skip-slave-start --event-scheduler=OFF --log-bin="$REPL_LOG" \
        --log-bin-index="$REPL_LOG.index" --log-slave-updates --gtid-strict-mode=ON --binlog-format=ROW \
        --expire-logs-days=0 --sync-binlog=0 --innodb-flush-log-at-trx-commit=2 --read-only=OFF --log-error= \
        --server-id=1 --init-file="$REPL_SCRATCH/init"
}
"#;

/// Who feeds.
const ACCOUNT: &str = "repl_recover@localhost";

pub(super) fn recover(work: &Work<'_>) -> Result<()> {
    let Scheme::Mariadb(pattern) = &work.plan.scheme else {
        return fail(Code::Fenced, "the archive's log is not MariaDB's");
    };
    let scratch = Scratch::new(work.user.as_ref())?;
    let options = scratch.path.join("client.cnf");
    let mut keeper = start(work, &scratch, &options)?;
    if !keeper.is_up()? {
        return fail(Code::Hook, "the server does not stay up on the base");
    }
    let server = Server { options: Some(options.clone()) };
    let mut feed = Mariadb::new(server.clone(), LONG);
    let place = Dir::open(&scratch.path)?;
    for log in &work.plan.logs {
        let (name, to) = (log.name.as_str(), log.whole);
        feed.run(Part { pattern, dir: work.archive.dir, name, from: 0, to }, &place)?;
    }
    if let Some(last) = work.plan.logs.last() {
        let part = Part { pattern, dir: work.archive.dir, name: &last.name, from: 0, to: last.whole };
        if !feed.has(part)? {
            return fail(Code::Hook, format!("the server has not executed {} to its end", last.name));
        }
    }
    let checked = work.check(&[("REPL_DSN", shown(&options))]);
    server.ask(&format!("set sql_log_bin = 0; drop user {ACCOUNT}"))?;
    keeper.stop()?;
    checked?;
    keeper.finish()?;
    work.recovered()
}

fn start(work: &Work<'_>, scratch: &Scratch, options: &Path) -> Result<Keeper> {
    let secret: String = (0..32).map(|_| fastrand::alphanumeric()).collect();
    let socket = scratch.path.join("socket");
    let client = format!("[client]\nuser=repl_recover\npassword={secret}\nsocket={}\n", socket.display());
    scratch.write(options, &client)?;
    let init = format!(
        "set sql_log_bin = 0;\ncreate or replace user {ACCOUNT} identified by '{secret}';\n\
         grant all on *.* to {ACCOUNT} with grant option;\nset sql_log_bin = 1;\n"
    );
    scratch.write(&scratch.path.join("init"), &init)?;
    let target = std::path::absolute(work.place.dir.path())?;
    let name = work.plan.scheme.name(work.plan.logs.first().map_or(Segment::new(1, 1), |log| log.segment));
    let base = name.rsplit_once('.').map_or(name.as_str(), |(base, _)| base);
    let values = [
        ("REPL_TARGET", shown(&target)),
        ("REPL_SCRATCH", shown(&scratch.path)),
        ("REPL_LOG", shown(&target.join(base))),
        ("REPL_DSN", work.order.dsn.clone().unwrap_or_default()),
    ];
    Keeper::start(work, SERVER, &values)
}
