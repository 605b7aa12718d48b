//! Whom a command runs as. Root drops to another user by setpriv(1), which takes that user's own supplementary groups
//! (a key that only the group `ssl-cert` may read stays readable) and becomes the command: the process is still ours to
//! wait for. Nobody else can become anybody.

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::geteuid;

use super::child;
use super::program::Program;
use crate::value::escape::show;
use crate::value::exit::{Code, fail};

/// How long the user database may take: it may be far away.
const QUESTION: Duration = Duration::from_secs(30);

/// Somebody else than this process runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    id: u32,
    group: u32,
    /// Name and home; a number that nobody has a name for may own files nevertheless.
    known: Option<(String, String)>,
}

impl User {
    /// The user of this name (or number); `None` when that is who we are. An error when we are not root.
    pub fn named(name: &str) -> Result<Option<User>> {
        let Some(user) = look_up(name)? else {
            return fail(Code::Usage, format!("there is no user '{}'", show(name)));
        };
        if user.id == geteuid().as_raw() {
            return Ok(None);
        }
        if !geteuid().is_root() {
            return fail(Code::Usage, format!("only root can run commands as '{}'", show(name)));
        }
        Ok(Some(user))
    }

    /// Who owns this file, if we are root and they are not: programs that refuse root are run as its owner.
    pub fn owner(path: &Path) -> Result<Option<User>> {
        if !geteuid().is_root() {
            return Ok(None);
        }
        let metadata = path.metadata().with_context(|| format!("cannot look at {}", super::dir::shown(path)))?;
        if metadata.uid() == 0 {
            return Ok(None);
        }
        let known = look_up(&metadata.uid().to_string())?;
        Ok(Some(known.unwrap_or(User { id: metadata.uid(), group: metadata.gid(), known: None })))
    }

    /// User and group.
    pub fn numbers(&self) -> (u32, u32) {
        (self.id, self.group)
    }

    /// The command `program`, as this user.
    fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("setpriv");
        command.arg(format!("--reuid={}", self.id)).arg(format!("--regid={}", self.group));
        command.arg(if self.known.is_some() { "--init-groups" } else { "--clear-groups" }).arg("--").arg(program);
        if let Some((name, home)) = &self.known {
            command.env("HOME", home).env("USER", name).env("LOGNAME", name);
        }
        command
    }
}

/// The command `program`, as somebody or as who we are.
pub(super) fn command(user: Option<&User>, program: impl AsRef<OsStr>) -> Command {
    let mut command = match user {
        Some(user) => user.command(program),
        None => Command::new(program),
    };
    child::untell(&mut command);
    command
}

/// Asks the machine's user database by getent(1), which also knows users that are in no file here.
fn look_up(name: &str) -> Result<Option<User>> {
    // A name that begins with a dash would be an option.
    if name.is_empty() || name.starts_with('-') {
        return Ok(None);
    }
    let ask = Program::new("getent", ["passwd", name], QUESTION);
    // Status 2 alone means that there is none.
    let answer = match ask.ask() {
        Err(error) if error.to_string().contains("exited with 2:") => return Ok(None),
        answer => answer.context("cannot look up a user")?,
    };
    let fields: Vec<_> = answer.trim_end().split(':').collect();
    let [name, _, id, group, _, home, ..] = fields.as_slice() else {
        return Ok(None);
    };
    let numbers = id.parse().ok().zip(group.parse().ok());
    Ok(numbers.map(|(id, group)| User { id, group, known: Some(((*name).to_owned(), (*home).to_owned())) }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::exit::code_of;

    #[test]
    fn nobody_is_somebody_else_and_who_we_are_is_none() {
        let own = rustix::process::geteuid().as_raw().to_string();
        assert_eq!(User::named(&own).unwrap(), None);
        for bad in ["", "-x", "no such user"] {
            assert_eq!(code_of(&User::named(bad).unwrap_err()), Code::Usage, "{bad}");
        }
    }

    #[test]
    fn root_becomes_the_owner_of_a_directory_with_that_users_home() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(User::owner(root.path()).unwrap(), None);
        if !geteuid().is_root() {
            return;
        }
        std::os::unix::fs::chown(root.path(), Some(54321), Some(54322)).unwrap();
        let stranger = User::owner(root.path()).unwrap();
        let answer = command(stranger.as_ref(), "id").output().unwrap();
        let text = String::from_utf8(answer.stdout).unwrap();
        assert_eq!(text.trim(), "uid=54321 gid=54322 groups=54322");

        let nobody = User::named("nobody").unwrap();
        let answer = command(nobody.as_ref(), "sh").args(["-c", "id -un; echo $HOME"]).output().unwrap();
        let text = String::from_utf8(answer.stdout).unwrap();
        assert!(text.starts_with("nobody\n/"), "{text}");
    }
}
