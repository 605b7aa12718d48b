//! Which database ships: a random identity that is kept in the sender's state, bound to the machine and to the log
//! directory that it was made for. A name of a set or a site can be copied with a server; this is not, since whoever
//! finds itself at another place is another instance.
//!
//! A receiver takes one instance in each epoch. So a clone of a server, with its state or without, cannot write into
//! what the original has shipped.

use std::fmt;

use crate::value::digest::{Digest, Proof};
use crate::value::escape::word;
use crate::value::pairs;

/// Hex digits of an identity.
const DIGITS: usize = 32;

/// What a hello says of who ships.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    id: String,
    place: Option<Proof>,
}

impl Instance {
    /// Reads `ID.PLACE`: 32 hex digits, and 16 or none where the machine has no identity.
    pub fn parse(text: &str) -> Option<Instance> {
        let (id, place) = text.split_once('.')?;
        let place = if place.is_empty() { None } else { Some(Proof::parse(place)?) };
        is_id(id).then(|| Instance { id: id.to_owned(), place })
    }

    /// Whether two are the same: by identity, or by place, since the state of a sender may be lost and made anew.
    pub fn is(&self, other: &Instance) -> bool {
        self.id == other.id || (self.place.is_some() && self.place == other.place)
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Some(place) => write!(out, "{}.{place}", self.id),
            None => write!(out, "{}.", self.id),
        }
    }
}

fn is_id(text: &str) -> bool {
    text.len() == DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Where a log directory is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    /// A digest of the machine's identity; `None` where it has none.
    pub machine: Option<Proof>,
    /// A number of the log directory's file system, or of its device.
    pub device: u64,
    /// Its inode.
    pub inode: u64,
    /// The machine's boot; empty where that is not known.
    pub boot: String,
}

impl Home {
    /// Whether this, as it was recorded, is where we are now. A machine may number its devices anew when it boots.
    pub fn is_still(&self, now: &Home) -> bool {
        let is_device = self.device == now.device || self.boot != now.boot;
        self.machine == now.machine && self.inode == now.inode && is_device
    }

    fn place(&self) -> Option<Proof> {
        let text = format!("{} {} {}", self.machine?, self.device, self.inode);
        Some(Digest::of(text.as_bytes()).proof())
    }
}

/// What a sender keeps of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    id: String,
    home: Home,
}

impl Record {
    /// A new instance, of a random number.
    pub fn new(random: u128, home: Home) -> Record {
        Record { id: format!("{random:032x}"), home }
    }

    /// The same instance where it is now; `None` when what is here now is another.
    pub fn moved(&self, now: &Home) -> Option<Record> {
        self.home.is_still(now).then(|| Record { id: self.id.clone(), home: now.clone() })
    }

    /// What is said of it to receivers.
    pub fn instance(&self) -> Instance {
        Instance { id: self.id.clone(), place: self.home.place() }
    }

    /// One line.
    pub fn print(&self) -> String {
        let Home { machine, device, inode, boot } = &self.home;
        let machine = machine.map(|machine| machine.to_string()).unwrap_or_default();
        let (machine, boot) = (word(&machine), word(boot));
        format!("v=1 id={} machine={machine} device={device} inode={inode} boot={boot}\n", self.id)
    }

    /// Reads it.
    pub fn parse(text: &str) -> Option<Record> {
        if pairs::get(text, "v")? != "1" {
            return None;
        }
        let id = pairs::get(text, "id").filter(|id| is_id(id))?;
        let machine = match pairs::get(text, "machine")?.as_str() {
            "" => None,
            machine => Some(Proof::parse(machine)?),
        };
        let (device, inode) = (pairs::count(text, "device")?, pairs::count(text, "inode")?);
        Some(Record { id, home: Home { machine, device, inode, boot: pairs::get(text, "boot")? } })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home() -> Home {
        Home { machine: Some(Digest::of(b"mars").proof()), device: 2049, inode: 77, boot: "first".into() }
    }

    #[test]
    fn a_place_is_the_same_until_something_of_it_changes() {
        let second = |home: Home| Home { boot: "second".into(), ..home };
        let was = home();
        assert!(was.is_still(&home()) && was.is_still(&second(home())));
        // The device may have another number after a reboot, and within one it is another device.
        let renumbered = Home { device: 2065, ..home() };
        assert!(was.is_still(&second(renumbered.clone())) && !was.is_still(&renumbered));
        let others = [Home { inode: 78, ..home() }, Home { machine: None, ..home() }, Home { inode: 78, ..renumbered }];
        for other in others {
            assert!(!was.is_still(&other) && !was.is_still(&second(other.clone())), "{other:?}");
        }
    }

    #[test]
    fn a_reboot_is_forgiven_once_and_not_for_ever() {
        let record = Record::new(7, home());
        let after = Home { device: 2065, boot: "second".into(), ..home() };
        let record = record.moved(&after).unwrap();
        assert!(record.moved(&Home { device: 2049, ..after }).is_none());
    }

    #[test]
    fn it_is_the_same_by_identity_or_by_place() {
        let one = Record::new(1, home()).instance();
        let anew = Record::new(2, home()).instance();
        let rebooted = Record::new(1, Home { device: 9, ..home() }).instance();
        let other = Record::new(3, Home { inode: 78, ..home() }).instance();
        assert!(one.is(&anew) && one.is(&rebooted) && !one.is(&other));
        let nowhere = |random| Record::new(random, Home { machine: None, ..home() }).instance();
        assert!(nowhere(1).is(&nowhere(1)) && !nowhere(1).is(&nowhere(2)));
    }

    #[test]
    fn all_of_it_is_read_back_and_nothing_else_is() {
        for home in [home(), Home { machine: None, boot: String::new(), ..home() }] {
            let record = Record::new(u128::MAX, home);
            assert_eq!(Record::parse(&record.print()), Some(record.clone()));
            assert_eq!(Instance::parse(&record.instance().to_string()), Some(record.instance()));
        }
        let good = Record::new(5, home()).instance().to_string();
        let bad = [good.to_uppercase(), format!("{good}0"), good[1..].to_owned(), good[..33].replace('.', "")];
        for text in bad.iter().map(String::as_str).chain(["", ".", "-"]) {
            assert_eq!(Instance::parse(text), None, "{text}");
        }
    }
}
