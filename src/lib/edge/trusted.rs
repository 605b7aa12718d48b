//! Reads a file that says what is run here. Whoever can write it can do what its reader can, so only root and the user
//! may be able to.
//!
//! The race: a file that is looked at by its name may be another one by the time it is read. So the directory is opened
//! first, the file is opened in it without following a link, and both are judged by their descriptors; what is read is
//! what was judged. Links in the name are followed before that: who may make them does not matter, since what is found
//! behind them is judged by its own facts. A directory with the sticky bit lets nobody replace a file of another's.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use rustix::fs::{FileType, Mode, OFlags, Stat, fstat, open, openat};

use crate::value::exit::{Code, Failure, fail};

/// Bits by which group and others may write.
const WRITABLE: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// The text of a file that nobody but root and this user can write, of at most so many bytes. Exit code 2 for one that
/// is missing, too long or no text, or that others can write; with what makes it right.
pub fn read(path: &Path, longest: usize) -> Result<String> {
    let cannot = || Failure::new(Code::Usage, format!("cannot read {}", path.display()));
    let whole = std::fs::canonicalize(path).with_context(cannot)?;
    let (Some(parent), Some(name)) = (whole.parent(), whole.file_name()) else {
        return fail(Code::Usage, format!("{} is no file", path.display()));
    };
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let dir = open(parent, flags | OFlags::DIRECTORY, Mode::empty()).with_context(cannot)?;
    // A fifo would be waited for.
    let file = openat(&dir, name, flags | OFlags::NOFOLLOW | OFlags::NONBLOCK, Mode::empty()).with_context(cannot)?;
    let facts = fstat(&file).with_context(cannot)?;
    if FileType::from_raw_mode(facts.st_mode) != FileType::RegularFile {
        return fail(Code::Usage, format!("{} is no regular file", path.display()));
    }
    judge(&whole, &facts, 0)?;
    judge(parent, &fstat(&dir).with_context(cannot)?, STICKY)?;
    let mut text = String::new();
    File::from(file).take(longest as u64 + 1).read_to_string(&mut text).with_context(cannot)?;
    if text.len() > longest {
        return fail(Code::Usage, format!("{} has more than {longest} bytes", path.display()));
    }
    Ok(text)
}

/// `keeping` is the bit that makes up for writability, where there is one.
fn judge(path: &Path, facts: &Stat, keeping: u32) -> Result<()> {
    let own = rustix::process::geteuid().as_raw();
    let shown = path.display();
    let quoted = shell_words::quote(&shown.to_string()).into_owned();
    if facts.st_uid != 0 && facts.st_uid != own {
        let text =
            format!("{shown} belongs to user {}, who is neither root nor the one that this runs as", facts.st_uid);
        return Err(Failure::new(Code::Usage, text).hint(format!("chown {own} {quoted}")).into());
    }
    if facts.st_mode & WRITABLE != 0 && facts.st_mode & keeping == 0 {
        let text = format!("{shown} can be written by others than its owner (mode {:04o})", facts.st_mode & 0o7777);
        return Err(Failure::new(Code::Usage, text).hint(format!("chmod go-w {quoted}")).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use crate::value::exit::{code_of, hint_of};

    /// A directory with a file `set.toml` of this mode.
    fn placed(mode: u32) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("set.toml");
        fs::write(&path, "set = \"a\"\n").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
        (dir, path)
    }

    #[track_caller]
    fn refused(path: &Path, why: &str, hint: &str) {
        let error = read(path, 100).unwrap_err();
        assert_eq!(code_of(&error), Code::Usage, "{error:#}");
        assert!(format!("{error:#}").contains(why), "{error:#}");
        assert_eq!(hint_of(&error).unwrap_or_default(), hint);
    }

    #[test]
    fn a_file_that_others_can_write_is_refused() {
        for mode in [0o600, 0o400, 0o644, 0o640, 0o755] {
            let (_dir, path) = placed(mode);
            assert_eq!(read(&path, 100).unwrap(), "set = \"a\"\n", "{mode:o}");
        }
        for mode in [0o666, 0o664, 0o602, 0o1666] {
            let (dir, path) = placed(mode);
            let whole = fs::canonicalize(dir.path()).unwrap().join("set.toml");
            refused(&path, &format!("(mode {mode:04o})"), &format!("chmod go-w {}", whole.display()));
        }
    }

    #[test]
    fn a_directory_that_others_can_write_is_refused_without_the_sticky_bit() {
        for (mode, is_good) in [(0o755, true), (0o1777, true), (0o777, false), (0o770, false), (0o2775, false)] {
            let (dir, path) = placed(0o600);
            fs::set_permissions(dir.path(), Permissions::from_mode(mode)).unwrap();
            let whole = fs::canonicalize(dir.path()).unwrap();
            if is_good {
                assert!(read(&path, 100).is_ok(), "{mode:o}");
            } else {
                refused(&path, "can be written by others", &format!("chmod go-w {}", whole.display()));
            }
        }
    }

    #[test]
    fn what_belongs_to_somebody_else_is_refused() {
        // Only root can give a file away.
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (dir, path) = placed(0o600);
        let whole = fs::canonicalize(dir.path()).unwrap();
        std::os::unix::fs::chown(&path, Some(12345), None).unwrap();
        refused(&path, "belongs to user 12345", &format!("chown 0 {}/set.toml", whole.display()));
        std::os::unix::fs::chown(&path, Some(0), None).unwrap();
        std::os::unix::fs::chown(dir.path(), Some(12345), None).unwrap();
        refused(&path, "belongs to user 12345", &format!("chown 0 {}", whole.display()));
    }

    #[test]
    fn behind_a_link_the_file_itself_is_judged() {
        let (dir, path) = placed(0o644);
        let (_other, bad) = placed(0o666);
        let link = dir.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(read(&link, 100).is_ok());
        fs::remove_file(&link).unwrap();
        symlink(&bad, &link).unwrap();
        refused(&link, "(mode 0666)", &format!("chmod go-w {}", fs::canonicalize(&bad).unwrap().display()));
    }

    #[test]
    fn what_is_no_short_text_is_refused() {
        let (dir, path) = placed(0o600);
        refused(&dir.path().join("none"), "cannot read", "");
        refused(dir.path(), "is no regular file", "");
        rustix::fs::mknodat(rustix::fs::CWD, dir.path().join("fifo"), FileType::Fifo, Mode::RUSR, 0).unwrap();
        refused(&dir.path().join("fifo"), "is no regular file", "");
        fs::write(&path, "x".repeat(101)).unwrap();
        refused(&path, "has more than 100 bytes", "");
        fs::write(&path, b"\xff").unwrap();
        refused(&path, "UTF-8", "");
    }
}
