//! Logging in by a key: of the agent, or of a file without a passphrase. Never by a password, and nobody is asked.

use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::Result;
use ssh2::Session;

use super::{home, is_link, lost};
use crate::value::escape::show;
use crate::value::exit::{Code, Failure};
use crate::value::ssh_url::SshUrl;

/// Key files that are tried when none is named, in `~/.ssh`.
const FILES: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];

/// Logs in; fails with code 2 when no key of ours is taken. Files that are named come first and a missing one counts;
/// else the agent comes first.
pub(super) fn log_in(session: &Session, socket: &TcpStream, url: &SshUrl, identities: &[PathBuf]) -> Result<()> {
    let user = match &url.user {
        Some(user) => user.clone(),
        None => own_name().ok_or_else(|| Failure::new(Code::Usage, "this user has no name: name one in the URL"))?,
    };
    let mut login = Login { session, socket, url, user, tried: Vec::new() };
    if login.needs_none()? {
        return Ok(());
    }
    let is_in = if identities.is_empty() {
        let usual = FILES.map(|name| home().join(".ssh").join(name));
        let usual: Vec<_> = usual.into_iter().filter(|path| path.exists()).collect();
        login.by_agent()? || login.by_files(&usual)?
    } else {
        login.by_files(identities)? || login.by_agent()?
    };
    if is_in { Ok(()) } else { Err(login.refused().into()) }
}

struct Login<'a> {
    session: &'a Session,
    socket: &'a TcpStream,
    url: &'a SshUrl,
    user: String,
    /// What was tried, and what came of it.
    tried: Vec<String>,
}

impl Login<'_> {
    /// Asks which methods there are; true when nothing more is wanted.
    fn needs_none(&self) -> Result<bool> {
        match self.session.auth_methods(&self.user) {
            _ if self.session.authenticated() => Ok(true),
            Ok(methods) if !methods.split(',').any(|method| method == "publickey") => {
                let text = format!("{} takes no keys from {}, only: {}", self.url.host, self.user, show(methods));
                Err(Failure::new(Code::Usage, text).into())
            }
            Ok(_) => Ok(false),
            Err(error) => Err(lost(self.url, &error).into()),
        }
    }

    fn by_agent(&mut self) -> Result<bool> {
        if std::env::var_os("SSH_AUTH_SOCK").is_none() {
            return Ok(false);
        }
        let Ok(mut agent) = self.session.agent() else {
            return Ok(false);
        };
        let keys = agent.connect().and_then(|()| agent.list_identities()).and_then(|()| agent.identities());
        let keys = match keys {
            Ok(keys) => keys,
            Err(error) => {
                self.tried.push(format!("the agent: {}", error.message()));
                return Ok(false);
            }
        };
        for key in keys {
            let done = agent.userauth(&self.user, &key);
            if self.is_in(done, || format!("the agent's {}", show(key.comment())))? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn by_files(&mut self, files: &[PathBuf]) -> Result<bool> {
        for path in files {
            if let Some(why) = fault(path) {
                self.tried.push(format!("{}: {why}", path.display()));
                continue;
            }
            // An empty passphrase: with none, the library below asks the terminal for one.
            let done = self.session.userauth_pubkey_file(&self.user, None, path, Some(""));
            if self.is_in(done, || path.display().to_string())? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn is_in(&mut self, done: Result<(), ssh2::Error>, what: impl Fn() -> String) -> Result<bool> {
        let Err(error) = done else {
            return Ok(true);
        };
        if !self.is_lost(&error) {
            self.tried.push(format!("{}: {}", what(), show(error.message())));
            return Ok(false);
        }
        if self.tried.is_empty() {
            return Err(lost(self.url, &error).into());
        }
        // It may have had enough of keys, or be gone: the first is told, the second is tried again.
        let left = Failure::new(Code::Link, format!("{}, then it left", self.list()));
        Err(left.hint("if it takes only so many tries, name the right key with -i").into())
    }

    /// Whether it is the connection that failed. The library says so of a key, too, when no answer comes.
    fn is_lost(&self, error: &ssh2::Error) -> bool {
        let has_left = match self.socket.peek(&mut [0]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        };
        has_left || is_link(error) || error.message().starts_with("Waiting for")
    }

    fn list(&self) -> String {
        let tried = if self.tried.is_empty() { "there is none to try".to_owned() } else { self.tried.join("; ") };
        format!("{} takes no key of ours for {}: {tried}", self.url.host, self.user)
    }

    fn refused(&self) -> Failure {
        let SshUrl { host, port, .. } = self.url;
        Failure::new(Code::Usage, self.list()).hint(format!(
            "ssh-copy-id -p {port} {}@{host}; a key with a passphrase must be in an agent (ssh-add)",
            self.user
        ))
    }
}

/// Why a key file cannot be used, as far as can be seen from outside.
fn fault(path: &Path) -> Option<String> {
    match std::fs::metadata(path) {
        Err(error) => Some(error.to_string()),
        Ok(meta) if meta.permissions().mode() & 0o077 != 0 && meta.uid() == rustix::process::getuid().as_raw() => {
            Some("others can read it (chmod 600)".to_owned())
        }
        Ok(_) => None,
    }
}

/// The name of the user that runs this.
fn own_name() -> Option<String> {
    let name = account(0).or_else(|| std::env::var("LOGNAME").ok());
    name.filter(|name| !name.is_empty())
}

/// A field of this user's line in `/etc/passwd`: 0 is the name, 5 the home directory.
pub(super) fn account(field: usize) -> Option<String> {
    let uid = rustix::process::getuid().as_raw().to_string();
    let text = std::fs::read_to_string("/etc/passwd").ok()?;
    let line = text.lines().find(|line| line.split(':').nth(2) == Some(&uid))?;
    line.split(':').nth(field).map(ToOwned::to_owned)
}
