//! What changes a role: joins the command line, the configuration and the engine.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::place::Site;
use crate::cli::args::Talk;
use crate::cli::{narrate, report};
use crate::edge::bell::Bell;
use crate::edge::dir::Dir;
use crate::edge::signal::Stop;
use crate::engine::role::database::Database;
use crate::engine::role::far::Far;
use crate::engine::role::promote;
use crate::engine::role::switchover::{Order, Switchover, not_told};
use crate::engine::sync::profile::Profile;
use crate::engine::sync::server::Commands;
use crate::rule::config;
use crate::rule::scheme::{Engine, Scheme};
use crate::value::exit::{Code, Failure, fail};

/// What the command line says of any change.
pub(super) struct Change {
    pub(super) timeout: Duration,
    pub(super) reason: Option<String>,
    pub(super) is_dry: bool,
}

/// Makes another site the master.
pub(super) fn switch(site: &Site<'_>, to: &str, change: Change, talk: &Talk) -> Result<()> {
    let Some(config) = site.config else {
        return Err(Failure::new(Code::Usage, "a switchover needs a configuration")
            .hint("-c FILE, or --set NAME")
            .into());
    };
    let Some(other) = config.sites.iter().find(|other| other.name == to) else {
        return fail(Code::Usage, format!("no [[site]] of the configuration has the name '{to}'"));
    };
    // A site that was never told what it is has none.
    let Some(state) = site.state_there()? else {
        return Err(not_told().into());
    };
    let scheme = site.scheme()?;
    let database = database(site, scheme, change.timeout)?;
    let far = Far { site: other, set: site.set(), timeout: change.timeout };
    let ship = shell_words::join(ship(site, &state, &other.via(site.set())?)?);
    let monitor = narrate::monitor("repl-role", talk);
    let stop = Stop::catch(Bell::new()).context("cannot catch signals")?;
    let order = Order { to: far, ship, patience: change.timeout, stop, reason: change.reason };
    let switchover =
        Switchover { dir: site.dir(), state: &state, scheme, database: &database, order: &order, monitor: &monitor };
    if change.is_dry {
        return say(&switchover.plan()?);
    }
    switchover.run()?;
    if talk.quiet { Ok(()) } else { say(&[format!("{to} is the master")]) }
}

/// Makes this site the master.
pub(super) fn lead(site: &Site<'_>, order: &promote::Order) -> Result<()> {
    if site.keeps_log_only() {
        let text = "this site keeps log only: it has no database that could become the master";
        return Err(Failure::new(Code::Guarded, text).hint("repl-recover makes one of its log").into());
    }
    let state = if order.is_dry { site.state_there()? } else { Some(site.state()?) };
    let database = database(site, site.scheme()?, order.patience)?;
    say(&promote::run(&site.place(state.as_ref()), &database, order)?)
}

fn say(lines: &[String]) -> Result<()> {
    report::print((lines.join("\n") + "\n").as_bytes())
}

/// The database beside a log. Only where the log of a set goes on in the same files with another master can roles be
/// changed: a MariaDB server has a log of its own.
fn database(site: &Site<'_>, scheme: &Scheme, timeout: Duration) -> Result<Database> {
    let profile = match scheme.engine() {
        Engine::Postgres => Profile::Postgres,
        Engine::Bdb => Profile::Bdb,
        Engine::Plain => Profile::Plain,
        Engine::Eloquence => Profile::Eloquence,
        Engine::Mariadb => {
            return fail(
                Code::Usage,
                "roles of MariaDB servers cannot be changed: each of them writes a log of its own",
            );
        }
    };
    let server = site.config.map(|config| config.server.clone()).unwrap_or_default();
    let config::Server { stop, start, status, promote, demote } = server;
    let commands = Commands { stop, start, status, check: None, run_as: None, dsn: None, timeout };
    let dir = site.config.and_then(|config| config.datadir.clone()).unwrap_or_else(|| beside(profile, site.dir()));
    Ok(Database { profile, dir, commands, promote, demote })
}

/// The database's directory where only that of its log is known.
fn beside(profile: Profile, log: &Dir) -> PathBuf {
    let path = log.path();
    match path.parent().filter(|_| profile == Profile::Postgres && path.ends_with("pg_wal")) {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        Some(_) => PathBuf::from("."),
        None => path.to_owned(),
    }
}

/// A pass of `repl-ship`, beside this program or in the path, to one receiver.
fn ship(site: &Site<'_>, state: &Dir, via: &str) -> Result<Vec<String>> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let beside = own.with_file_name("repl-ship");
    let program = if beside.exists() { beside.to_string_lossy().into_owned() } else { "repl-ship".to_owned() };
    let path = |dir: &Dir| -> Result<String> { Ok(std::path::absolute(dir.path())?.to_string_lossy().into_owned()) };
    let mut words = vec![program, "-S".into(), "-q".into(), "--retry-for=1s".into()];
    words.extend([format!("--state={}", path(state)?), format!("--via={via}")]);
    words.extend(Some(site.set()).filter(|set| !set.is_empty()).map(|set| format!("--set={set}")));
    let scheme = site.scheme()?;
    words.push(format!("--engine={}", scheme.engine()));
    words.extend(scheme.pattern().map(|pattern| format!("--pattern={pattern}")));
    words.push(path(site.dir())?);
    Ok(words)
}
