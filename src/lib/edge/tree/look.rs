//! What one name stands for: kind, mode, owner, stamp and extended attributes, of the thing itself and never of what a
//! link leads to.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{self, AtFlags, FileType, Stat};
use rustix::io::Errno;

use super::resolve::path_in;
use super::walk::changed;
use crate::value::entry::{Entry, Kind, Moment, Stamp, XATTR_MAX};
use crate::value::name::Name;

/// How often something is looked at again that became something else meanwhile.
const TRIES: usize = 16;
/// Long enough for the names, and for most values, of most files.
const SHORT: usize = 1 << 10;

/// Names and values of extended attributes, sorted by name.
pub(super) type Attributes = Vec<(Box<[u8]>, Box<[u8]>)>;

/// The entry of a component of a directory; `None` when there is nothing or a socket.
pub(super) fn entry(dir: &OwnedFd, component: &[u8], name: &Name) -> io::Result<Option<Entry>> {
    again(|| once(dir, component, name, |_| attributes_in(dir, component)))
}

/// The same; extended attributes only of what is no file.
pub(super) fn bare(dir: &OwnedFd, component: &[u8], name: &Name) -> io::Result<Option<Entry>> {
    let attributes = |kind: &Kind| if *kind == Kind::File { Ok(Vec::new()) } else { attributes_in(dir, component) };
    again(|| once(dir, component, name, attributes))
}

fn again(look: impl Fn() -> Result<Option<Entry>, Errno>) -> io::Result<Option<Entry>> {
    for _ in 0..TRIES {
        match look() {
            // A link that is no link any more, or attributes of what is not there: what is there now?
            Err(Errno::INVAL | Errno::NOENT) => {}
            other => return Ok(other?),
        }
    }
    Err(changed("changes while it is looked at"))
}

fn once(
    dir: &OwnedFd,
    component: &[u8],
    name: &Name,
    attributes: impl Fn(&Kind) -> Result<Attributes, Errno>,
) -> Result<Option<Entry>, Errno> {
    let stat = match fs::statat(dir, component, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => stat,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error),
    };
    let device = || (fs::major(stat.st_rdev), fs::minor(stat.st_rdev));
    let kind = match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Link(fs::readlinkat(dir, component, Vec::new())?.into_bytes().into()),
        FileType::Fifo => Kind::Fifo,
        FileType::CharacterDevice => Kind::Character(device().0, device().1),
        FileType::BlockDevice => Kind::Block(device().0, device().1),
        _ => return Ok(None),
    };
    Ok(Some(Entry {
        name: name.clone(),
        xattrs: attributes(&kind)?,
        kind,
        mode: stat.st_mode & 0o7777,
        uid: stat.st_uid,
        gid: stat.st_gid,
        links: stat.st_nlink as u32,
        allocated: stat.st_blocks.cast_unsigned() * 512,
        stamp: stamp(&stat),
    }))
}

/// The stamp in what the kernel says.
pub(super) fn stamp(stat: &Stat) -> Stamp {
    Stamp {
        device: stat.st_dev,
        inode: stat.st_ino,
        size: stat.st_size.cast_unsigned(),
        mtime: Moment { seconds: stat.st_mtime, nanos: stat.st_mtime_nsec as u32 },
        ctime: Moment { seconds: stat.st_ctime, nanos: stat.st_ctime_nsec as u32 },
    }
}

/// Whether an extended attribute is part of a tree: users' own ones and ACLs; capabilities only as root, who alone may
/// set them. What belongs to the machine (labels, `trusted.`, file systems' own) is not.
pub(super) fn is_taken(name: &[u8], as_root: bool) -> bool {
    match name {
        b"system.posix_acl_access" | b"system.posix_acl_default" => true,
        b"security.capability" => as_root,
        _ => name.starts_with(b"user."),
    }
}

/// The extended attributes of a component of a directory.
fn attributes_in(dir: &OwnedFd, component: &[u8]) -> Result<Attributes, Errno> {
    let path = &path_in(dir, component);
    collect(|out| fs::llistxattr(path, out), |name, out| fs::lgetxattr(path, name, out))
}

/// The extended attributes of an open file.
pub(super) fn attributes_of(file: &File) -> Result<Attributes, Errno> {
    collect(|out| fs::flistxattr(file, out), |name, out| fs::fgetxattr(file, name, out))
}

/// The extended attributes of what a descriptor is open on, which has this path among the kernel's own.
pub(super) fn attributes_at(path: &str) -> Result<Attributes, Errno> {
    collect(|out| fs::listxattr(path, out), |name, out| fs::getxattr(path, name, out))
}

fn collect(
    list: impl Fn(&mut [u8]) -> Result<usize, Errno>,
    get: impl Fn(&[u8], &mut [u8]) -> Result<usize, Errno>,
) -> Result<Attributes, Errno> {
    let names = match whole(list) {
        Ok(names) if names.is_empty() => return Ok(Vec::new()),
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        other => other?,
    };
    let as_root = rustix::process::geteuid().is_root();
    let mut found = Attributes::new();
    for name in names.split(|byte| *byte == 0).filter(|name| is_taken(name, as_root)) {
        match whole(|out| get(name, out)) {
            Ok(value) => found.push((name.into(), value.into())),
            // Removed meanwhile.
            Err(Errno::NODATA | Errno::NOTSUP) => {}
            Err(error) => return Err(error),
        }
    }
    found.sort();
    Ok(found)
}

fn whole(read: impl Fn(&mut [u8]) -> Result<usize, Errno>) -> Result<Vec<u8>, Errno> {
    let mut short = [0; SHORT];
    match read(&mut short) {
        Ok(length) => Ok(short[..length].to_vec()),
        Err(Errno::RANGE) => {
            let mut long = vec![0; XATTR_MAX];
            let length = read(&mut long)?;
            long.truncate(length);
            Ok(long)
        }
        Err(error) => Err(error),
    }
}
