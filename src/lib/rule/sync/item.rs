//! What happens to a name, in the eleven letters of rsync's itemized changes.

use crate::value::entry::{Entry, Kind};
use crate::value::name::Name;

/// What is done with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act<'a> {
    /// It is new here.
    Create,
    /// Its content changes.
    Update,
    /// Only what it wears changes.
    Dress,
    /// It becomes another name of what has this one.
    Link(&'a Name),
    /// It goes.
    Delete,
}

/// What a change of a name is told as: `>f.st...... name`.
pub fn line(act: Act<'_>, new: &Entry, old: Option<&Entry>) -> Vec<u8> {
    let mut line = Vec::new();
    if act == Act::Delete {
        line.extend(b"*deleting  ");
    } else {
        let letter = match new.kind {
            Kind::File => b'f',
            Kind::Directory => b'd',
            Kind::Link(_) => b'L',
            Kind::Fifo => b'S',
            Kind::Character(..) | Kind::Block(..) => b'D',
        };
        let mark = match act {
            Act::Link(_) => b'h',
            Act::Dress => b'.',
            _ if new.is_file() => b'>',
            _ => b'c',
        };
        line.extend([mark, letter]);
        match old {
            Some(old) if is_alike(&old.kind, &new.kind) => line.extend(changes(act, new, old)),
            _ => line.extend(b"+++++++++"),
        }
    }
    line.push(b' ');
    line.extend(if new.name.is_root() { b".".to_vec() } else { escaped(new.name.bytes()) });
    if new.is_directory() {
        line.push(b'/');
    }
    match (act, &new.kind) {
        (Act::Link(to), _) => line.extend([b" => ", escaped(to.bytes()).as_slice()].concat()),
        (_, Kind::Link(target)) => line.extend([b" -> ", escaped(target).as_slice()].concat()),
        _ => {}
    }
    line.push(b'\n');
    line
}

/// Whether two kinds are the same but for where a link leads.
fn is_alike(one: &Kind, other: &Kind) -> bool {
    one == other || matches!((one, other), (Kind::Link(_), Kind::Link(_)))
}

/// The nine letters of what changes: checksum, size, time, permissions, owner, group, two that rsync has for itself, ACL
/// and extended attributes.
fn changes(act: Act<'_>, new: &Entry, old: &Entry) -> [u8; 9] {
    let is_acl = |(name, _): &&(Box<[u8]>, Box<[u8]>)| name.starts_with(b"system.posix_acl");
    let acls = |entry: &Entry| entry.xattrs.iter().filter(is_acl).cloned().collect::<Vec<_>>();
    let others = |entry: &Entry| entry.xattrs.iter().filter(|pair| !is_acl(pair)).cloned().collect::<Vec<_>>();
    let when = |is_so: bool, letter: u8| if is_so { letter } else { b'.' };
    [
        when(act == Act::Update || new.kind != old.kind, b'c'),
        when(new.is_file() && new.stamp.size != old.stamp.size, b's'),
        when(new.stamp.mtime != old.stamp.mtime, b't'),
        when(new.mode != old.mode, b'p'),
        when(new.uid != old.uid, b'o'),
        when(new.gid != old.gid, b'g'),
        b'.',
        when(acls(new) != acls(old), b'a'),
        when(others(new) != others(old), b'x'),
    ]
}

/// Control bytes, bytes above 126, and a backslash that would be read so, as `\#ooo`: as rsync prints them.
fn escaped(bytes: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    for (at, byte) in bytes.iter().enumerate() {
        let is_plain = match &bytes[at..] {
            [b'\\', b'#', digits @ ..] => digits.len() < 3 || !digits[..3].iter().all(u8::is_ascii_digit),
            [first, ..] => (b' '..=b'~').contains(first),
            [] => true,
        };
        match byte {
            _ if is_plain => text.push(*byte),
            _ => text.extend(format!("\\#{byte:03o}").bytes()),
        }
    }
    text
}
