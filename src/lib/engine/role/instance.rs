//! The instance that a log directory and a sender's state are together, as the state directory keeps it.

use anyhow::{Context as _, Result};

use crate::edge::dir::Dir;
use crate::edge::host;
use crate::engine::site;
use crate::rule::instance::{Home, Instance, Record};
use crate::value::digest::Digest;
use crate::value::exit::{Code, Failure};

const FILE: &str = "instance";

/// Which it is. One that is new, or has moved as it may, is recorded.
pub(super) fn own(dir: &Dir, state: &Dir) -> Result<Instance> {
    let now = home(dir)?;
    if let Some(record) = read(state)?
        && record.moved(&now).as_ref() == Some(&record)
    {
        return Ok(record.instance());
    }
    // Two senders that start at once must not be two instances.
    let _alone = site::alone(state)?;
    let record = peek_record(dir, state)?.unwrap_or_else(|| Record::new(fastrand::u128(..), now));
    state.replace(FILE, record.print().as_bytes())?;
    Ok(record.instance())
}

/// Which it is, if it is known; nothing is recorded.
pub(super) fn peek(dir: &Dir, state: &Dir) -> Result<Option<Instance>> {
    Ok(peek_record(dir, state)?.map(|record| record.instance()))
}

/// The same; where it is not known, one that is this by its place alone. `None` on a machine without an identity.
pub(super) fn known(dir: &Dir, state: Option<&Dir>) -> Result<Option<Instance>> {
    match state.map(|state| peek(dir, state)).transpose()?.flatten() {
        None => by_place(dir),
        known => Ok(known),
    }
}

/// An instance of a new number that is where the directory is; nothing is recorded. So it is the same as that of any
/// state of this place, and another than that of a copy. `None` on a machine without an identity: no place tells there.
pub(super) fn by_place(dir: &Dir) -> Result<Option<Instance>> {
    let home = home(dir)?;
    Ok(home.machine.is_some().then(|| Record::new(fastrand::u128(..), home).instance()))
}

fn peek_record(dir: &Dir, state: &Dir) -> Result<Option<Record>> {
    let now = home(dir)?;
    Ok(read(state)?.and_then(|record| record.moved(&now)))
}

fn read(state: &Dir) -> Result<Option<Record>> {
    let Some(bytes) = state.read_small(FILE, 512)? else {
        return Ok(None);
    };
    let parsed = std::str::from_utf8(&bytes).ok().and_then(Record::parse);
    parsed.map(Some).with_context(|| {
        Failure::new(Code::Corrupt, format!("{} is damaged", state.shown(FILE)))
            .hint(format!("rm {} has it made anew", state.shown(FILE)))
    })
}

fn home(dir: &Dir) -> Result<Home> {
    let ((_, inode), device) = (dir.own_identity()?, dir.file_system()?);
    let machine = host::machine().map(|machine| Digest::of(machine.as_bytes()).proof());
    Ok(Home { machine, device, inode, boot: host::boot() })
}
