//! PostgreSQL: a server of our own, that nobody else can reach, recovers the base by `repl-fetch` up to the last record
//! before the end, and is promoted there.
//!
//! The server itself is the proof that the end was reached: told of a target, it ends with an error when the log does not
//! come that far. It leads nobody anywhere meanwhile: it listens on no address, archives nothing, and has its socket in a
//! private directory. It ends with us, whatever ends us, since a shell that holds our pipe stops it then.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};

use super::keeper::Keeper;
use super::plan::Plan;
use super::scratch::Scratch;
use super::{Order, Work};
use crate::edge::dir::shown;
use crate::edge::program::Program;
use crate::edge::user::User;
use crate::value::exit::{Code, Failure, fail};
use crate::value::position::Position;

const QUESTION: Duration = Duration::from_secs(600);
/// Only a part of the socket's name.
const PORT: &str = "5432";

/// It is up when its recovery has come to its end; told to stay in recovery, it ends by itself there.
const SERVER: &str = r#"
v=$(tr -cd 0-9. <"$REPL_TARGET/PG_VERSION")
PATH=/usr/lib/postgresql/$v/bin:/usr/pgsql-$v/bin:$PATH
umask 077
echo 'local all all trust' >"$REPL_SCRATCH/hba" || exit
stop=INT end=QUIT
is_up() { pg_isready -q -h "$REPL_SCRATCH" -p "$REPL_PORT"; }
serve() {
    exec postgres -D "$REPL_TARGET" -p "$REPL_PORT" -c listen_addresses= \
        -c unix_socket_directories="$REPL_SCRATCH" -c hba_file="$REPL_SCRATCH/hba" -c ssl=off -c hot_standby=off \
        -c archive_mode=off -c archive_command= -c primary_conninfo= -c primary_slot_name= \
        -c synchronous_standby_names= -c logging_collector=off -c log_destination=stderr \
        -c archive_cleanup_command= -c recovery_end_command= -c recovery_target= -c recovery_target_name= \
        -c recovery_target_time= -c recovery_target_xid= -c recovery_min_apply_delay=0 \
        -c restore_command="$REPL_RESTORE" -c recovery_target_timeline="$REPL_TIMELINE" \
        -c recovery_target_lsn="$REPL_LSN" -c recovery_target_inclusive=on -c recovery_target_action="$REPL_ACTION"
}
"#;

pub(super) fn recover(work: &Work<'_>) -> Result<()> {
    let scratch = Scratch::new(work.user.as_ref())?;
    let (Some(end), Some(last)) = (work.plan.end, work.plan.last) else {
        return fail(Code::Corrupt, "no record of the log says where the recovery ends");
    };
    signal(work, &scratch)?;
    let mut server = start(work, &scratch, end, last)?;
    match (server.is_up()?, work.order.stays) {
        (false, true) => {}
        (true, false) => {
            let more = [("PGHOST", shown(&scratch.path)), ("PGPORT", PORT.to_owned())];
            let checked = work.check(&more);
            server.stop()?;
            checked?;
        }
        _ => return fail(Code::Hook, "the server's recovery did not end as it was told to"),
    }
    server.finish()?;
    work.recovered()
}

/// Has the server begin with a recovery, and not as a standby for ever.
fn signal(work: &Work<'_>, scratch: &Scratch) -> Result<()> {
    let dir = &work.place.dir;
    for name in ["standby.signal", "postmaster.pid", "postmaster.opts"] {
        if dir.identity(name)?.is_some() {
            dir.remove(name)?;
        }
    }
    dir.replace("recovery.signal", b"")?;
    scratch.give(&dir.path().join("recovery.signal"))
}

fn start(work: &Work<'_>, scratch: &Scratch, end: Position, last: u64) -> Result<Keeper> {
    let text = |path: &Path| -> Result<String> { Ok(std::path::absolute(path)?.to_string_lossy().into_owned()) };
    let values = [
        ("REPL_TARGET", text(work.place.dir.path())?),
        ("REPL_SCRATCH", shown(&scratch.path)),
        ("REPL_PORT", PORT.to_owned()),
        ("REPL_RESTORE", restore(work.order, "%f", "%p")?),
        ("REPL_TIMELINE", end.segment.generation.to_string()),
        ("REPL_LSN", format!("{:X}/{:X}", last >> 32, last & 0xffff_ffff)),
        ("REPL_ACTION", if work.order.stays { "shutdown" } else { "promote" }.to_owned()),
    ];
    Keeper::start(work, SERVER, &values)
}

/// The command that hands out a segment.
fn restore(order: &Order, name: &str, to: &str) -> Result<String> {
    let mut words = vec![fetch()?.to_string_lossy().into_owned(), "-q".to_owned()];
    if let Some(state) = &order.state {
        words.extend(["--state".to_owned(), std::path::absolute(state)?.to_string_lossy().into_owned()]);
    }
    words.push(std::path::absolute(&order.archive)?.to_string_lossy().into_owned());
    // To the server, a percent sign is the beginning of its own.
    let line = shell_words::join(words).replace('%', "%%");
    Ok(format!("{line} {name} {to}"))
}

/// `repl-fetch`, beside this program.
fn fetch() -> Result<PathBuf> {
    let own = std::env::current_exe().context("cannot tell where this program is")?;
    let beside = own.with_file_name("repl-fetch");
    Ok(if beside.exists() { beside } else { "repl-fetch".into() })
}

/// Refuses an archive that who is going to run the server cannot read, before anything is made.
pub(super) fn readable(order: &Order, plan: &Plan, user: Option<&User>) -> Result<()> {
    let Some(log) = plan.logs.first() else {
        return Ok(());
    };
    let scratch = Scratch::new(user)?;
    let to = shell_words::quote(&shown(&scratch.path.join("probe"))).into_owned();
    let line = restore(order, &log.name, &to)?.replace("%%", "%");
    let program = Program { user: user.cloned(), ..Program::new("/bin/sh", ["-c", &line], QUESTION) };
    program.run(None, None).map_err(|error| {
        let text = "who runs the server cannot read the archive";
        let hint = "run repl-recover as that user, or let the user's group read the archive";
        error.context(Failure::new(Code::Guarded, text).hint(hint))
    })
}
