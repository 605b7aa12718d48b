//! MariaDB: a server of our own, that nobody else can reach, opens the base and is fed the archive's binary log, from the
//! base's end to the last transaction before the end, by the same feed that keeps a replica. It keeps its place by itself:
//! it passes over what the base has, and takes nothing whose predecessor it lacks.
//!
//! It is reached by an account that is made before it listens and removed before it ends, neither of which is logged. It
//! ends with us, whatever ends us, since a shell that holds our pipe stops it then.

use std::path::Path;

use anyhow::{Context as _, Result};

use super::Work;
use super::scratch::{LONG, Scratch};
use crate::edge::coprocess::Coprocess;
use crate::edge::dir::{Dir, shown};
use crate::edge::program::Program;
use crate::engine::apply::mariadb::{Mariadb, Part};
use crate::engine::mariadb::Server;
use crate::rule::scheme::Scheme;
use crate::value::exit::{Code, fail};
use crate::value::position::Segment;

/// Says `up` when the server answers, and `down` when it has ended well, as it does at a word. The end of its input is its
/// end at once (while it starts it does not take a request for it): all of it is going to be done anew.
const KEEPER: &str = r#"
PATH=$PATH:/usr/sbin
trap '' PIPE HUP INT TERM
exec 3<&0
if [ -n "$REPL_DSN" ]; then from=--defaults-file=$REPL_DSN; else from=--no-defaults; fi
(trap - PIPE HUP INT TERM; exec mariadbd "$from" --datadir="$REPL_TARGET" --socket="$REPL_SCRATCH/socket" \
 --pid-file="$REPL_SCRATCH/pid" --tmpdir="$REPL_SCRATCH" --skip-networking --skip-slave-start --event-scheduler=OFF \
 --log-bin="$REPL_LOG" --log-bin-index="$REPL_LOG.index" --log-slave-updates --gtid-strict-mode=ON --binlog-format=ROW \
 --expire-logs-days=0 --sync-binlog=0 --innodb-flush-log-at-trx-commit=2 --read-only=OFF --log-error= \
 --server-id=1 --init-file="$REPL_SCRATCH/init") </dev/null >&2 3<&- &
server=$!
(read -r word <&3 && kill -TERM $server && exit; kill -KILL $server) 2>/dev/null &
keeper=$!
until mariadb-admin --no-defaults --socket="$REPL_SCRATCH/socket" ping >/dev/null 2>&1; do
    kill -0 $server 2>/dev/null || break
    sleep 0.05
done
if kill -0 $server 2>/dev/null; then echo up; fi
wait $server
status=$?
kill $keeper 2>/dev/null
[ $status = 0 ] && echo down
exit $status
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
    match keeper.hear().context("the server does not start on the base")?.as_str() {
        "up" => {}
        said => return fail(Code::Hook, format!("the server does not run on the base: {said}")),
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
    let ended = keeper.ask("stop").context("the recovered server did not end well")?;
    checked?;
    if ended != "down" {
        return fail(Code::Hook, format!("the recovered server did not end well: {ended}"));
    }
    keeper.finish().context("the recovered server did not end well")?;
    work.recovered()
}

fn start(work: &Work<'_>, scratch: &Scratch, options: &Path) -> Result<Coprocess> {
    let secret: String = (0..32).map(|_| fastrand::alphanumeric()).collect();
    let socket = scratch.path.join("socket");
    let client = format!("[client]\nuser=repl_recover\npassword={secret}\nsocket={}\n", socket.display());
    scratch.write(options, &client)?;
    let init = format!(
        "set sql_log_bin = 0;\ncreate or replace user {ACCOUNT} identified by '{secret}';\n\
         grant all on *.* to {ACCOUNT} with grant option;\nset sql_log_bin = 1;\n"
    );
    scratch.write(&scratch.path.join("init"), &init)?;
    let program = Program { user: work.user.clone(), ..Program::new("/bin/sh", ["-c", KEEPER], LONG) };
    let target = std::path::absolute(work.place.dir.path())?;
    let name = work.plan.scheme.name(work.plan.logs.first().map_or(Segment::new(1, 1), |log| log.segment));
    let base = name.rsplit_once('.').map_or(name.as_str(), |(base, _)| base);
    let values = [
        ("REPL_TARGET", shown(&target)),
        ("REPL_SCRATCH", shown(&scratch.path)),
        ("REPL_LOG", shown(&target.join(base))),
        ("REPL_DSN", work.order.dsn.clone().unwrap_or_default()),
    ];
    Coprocess::start(&program, &values)
}
