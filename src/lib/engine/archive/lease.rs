//! What a running recovery needs: `.repl/leases/NAME`, a line that tells from where it reads and of which base, under an
//! flock. A recovery that has died, in whichever way, holds nothing. When the last one ends, nothing is left of it.
//!
//! First lease, then look. A lease is taken under the lock of the state directory itself, which `repl-prune` has from its
//! look at the leases until it has said durably what goes (a base is renamed, the horizon is written). So a lease is either seen by a prune, which then
//! keeps what it names; or it was taken after the horizon was written, and whoever looks then no longer finds what is to
//! go. The file is made, locked and written under that same lock: nobody meets one that is not locked yet.

use std::process;

use anyhow::Result;

use crate::edge::clock;
use crate::edge::dir::Dir;
use crate::edge::lock::Lock;
use crate::value::escape::word;
use crate::value::pairs;
use crate::value::position::Position;

/// Its directory in an archive's state.
const LEASES: &str = "leases";

/// A lease of ours. It ends when it is dropped, or with this process.
#[derive(Debug)]
pub struct Lease {
    state: Dir,
    name: String,
    _lock: Lock,
}

/// What somebody holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Its file's name.
    pub name: String,
    /// Log is needed from here on; `None` for all of it.
    pub from: Option<Position>,
    /// This base is needed.
    pub base: Option<String>,
}

/// While this is there no lease is taken.
#[derive(Debug)]
pub struct Look {
    state: Dir,
    dir: Option<Dir>,
    _lock: Lock,
}

impl Lease {
    /// Takes a lease in an archive's state directory: of the log from a position on, or of all of it, and of a base.
    /// Afterwards one looks whether that is still there.
    pub fn take(state: &Dir, from: Option<Position>, base: Option<&str>) -> Result<Lease> {
        let look = Look::begin(state)?;
        look.sweep()?;
        let dir = state.subdir(LEASES)?;
        let name = format!("{}-{:08x}", process::id(), fastrand::u32(..));
        let from = from.map_or_else(|| "oldest".to_owned(), |from| from.to_string());
        let (base, pid, now) = (word(base.unwrap_or_default()), process::id(), clock::now());
        let lock = Lock::on_new(&dir, &name, &format!("v=1 from={from} base={base} pid={pid} since={now}\n"))?;
        Ok(Lease { state: state.try_clone()?, name, _lock: lock })
    }

    fn end(&self) -> Result<()> {
        let look = Look::begin(&self.state)?;
        look.remove(&self.name)?;
        look.sweep()
    }

    /// What is held in an archive's state directory.
    pub fn held(state: &Dir) -> Result<Vec<Held>> {
        Look::begin(state)?.held()
    }
}

impl Drop for Lease {
    /// Its name goes first, so that a file without a lock is one of the dead.
    fn drop(&mut self) {
        // What stays is removed by the next one.
        let _ = self.end();
    }
}

impl Look {
    /// From now on nobody takes a lease.
    pub fn begin(state: &Dir) -> Result<Look> {
        let lock = Lock::wait_directory(state)?;
        let dir = state.identity(LEASES)?.map(|_| state.open_subdir(LEASES)).transpose()?;
        Ok(Look { state: state.try_clone()?, dir, _lock: lock })
    }

    /// What is held, in order of names.
    pub fn held(&self) -> Result<Vec<Held>> {
        let mut held = Vec::new();
        for name in self.names()? {
            let text = self.text(&name)?;
            if self.is_alive(&name)? {
                held.push(Held {
                    from: from(&text),
                    base: pairs::get(&text, "base").filter(|base| !base.is_empty()),
                    name,
                });
            }
        }
        held.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(held)
    }

    /// Removes the leases of the dead, and their directory when there are no others.
    pub fn sweep(&self) -> Result<()> {
        let mut is_empty = self.dir.is_some();
        for name in self.names()? {
            if self.is_alive(&name)? {
                is_empty = false;
            } else {
                self.remove(&name)?;
            }
        }
        if is_empty {
            self.state.remove_directory(LEASES.as_ref())?;
        }
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.dir.as_ref().map_or(Ok(()), |dir| dir.remove_if_there(name).map(drop))
    }

    fn names(&self) -> Result<Vec<String>> {
        let names = self.dir.as_ref().map(Dir::names).transpose()?.unwrap_or_default();
        Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect())
    }

    fn text(&self, name: &str) -> Result<String> {
        let bytes = self.dir.as_ref().map(|dir| dir.read_small(name, 4096)).transpose()?.flatten();
        Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
    }

    fn is_alive(&self, name: &str) -> Result<bool> {
        self.dir.as_ref().map_or(Ok(false), |dir| Lock::is_held(dir, name))
    }
}

/// From where on log is needed: all of it, where that cannot be read.
fn from(text: &str) -> Option<Position> {
    pairs::get(text, "from")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::site::horizon;
    use crate::value::position::Segment;

    #[test]
    fn a_lease_is_held_until_it_is_dropped() {
        let root = tempfile::tempdir().unwrap();
        let state = Dir::open(root.path()).unwrap();
        assert_eq!(Lease::held(&state).unwrap(), []);
        let from = "1-7:40".parse().ok();
        let one = Lease::take(&state, from, Some("monday")).unwrap();
        let two = Lease::take(&state, None, None).unwrap();
        let mut held = Lease::held(&state).unwrap();
        held.sort_by_key(|held| held.from.is_none());
        assert_eq!((held[0].from, held[0].base.as_deref()), (from, Some("monday")));
        assert_eq!((held[1].from, held[1].base.as_deref(), held.len()), (None, None, 2));
        drop(one);
        assert_eq!(Lease::held(&state).unwrap().len(), 1);
        drop(two);
        assert_eq!(std::fs::read_dir(root.path()).unwrap().count(), 0);
    }

    #[test]
    fn one_who_takes_a_lease_while_another_prunes_finds_what_that_has_said() {
        let root = tempfile::tempdir().unwrap();
        let state = Dir::open(root.path()).unwrap();
        for number in 1..50 {
            let look = Look::begin(&state).unwrap();
            let before = Segment::new(1, number);
            std::thread::scope(|scope| {
                let taker = scope.spawn(|| {
                    let lease = Lease::take(&state, None, None).unwrap();
                    (horizon::read(&state).unwrap(), lease)
                });
                // It is not seen before the horizon is written: then what it may need is gone by right.
                assert_eq!(look.held().unwrap(), []);
                horizon::write(&state, before).unwrap();
                drop(look);
                assert_eq!(taker.join().unwrap().0, Some(before));
            });
        }
    }

    #[test]
    fn the_dead_hold_nothing_and_one_that_cannot_be_read_holds_all() {
        let root = tempfile::tempdir().unwrap();
        let state = Dir::open(root.path()).unwrap();
        let dir = state.subdir(LEASES).unwrap();
        std::fs::write(dir.path().join("7-dead"), "v=1 from=1-1:0 base= pid=7\n").unwrap();
        let _torn = Lock::on_new(&dir, "8-torn", "v=1 fr").unwrap();
        let look = Look::begin(&state).unwrap();
        assert_eq!(look.held().unwrap(), [Held { name: "8-torn".into(), from: None, base: None }]);
        look.sweep().unwrap();
        assert_eq!(dir.names().unwrap(), ["8-torn"]);
    }
}
