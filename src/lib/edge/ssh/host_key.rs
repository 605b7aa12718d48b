//! Whether the machine that answers is the one that was meant: its key must stand in `known_hosts`. Nothing is asked and
//! nothing is ever added, since nobody may be there to look at a fingerprint; an unknown key and a changed one are refused
//! alike, before anything of ours is sent.
//!
//! Only algorithms for keys that are known are offered to the host, so that one entry is enough, whatever kinds of keys
//! it has. (A host that has lost that key fails to agree with us; then all are offered, and the check says what it is.)

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use ssh2::{CheckResult, KnownHostFileKind, Session};

use crate::rule::known_hosts::{Entry, Names, entries};
use crate::value::exit::{Code, Failure};
use crate::value::ssh_url::SshUrl;

/// What is known about one host.
pub(super) struct Known<'a> {
    url: &'a SshUrl,
    /// Lines with keys that the host may have, under the one name that we ask for.
    lines: Vec<String>,
    revoked: Vec<String>,
    algorithms: Vec<&'static str>,
}

/// The name under which keys are compared.
const NAME: &str = "host";

impl<'a> Known<'a> {
    /// Reads files; one that is missing knows nobody. Fails with code 5 when no key of the host is known at all.
    pub(super) fn read(session: &Session, files: &[PathBuf], url: &'a SshUrl) -> Result<Known<'a>> {
        let mut known = Known { url, lines: Vec::new(), revoked: Vec::new(), algorithms: Vec::new() };
        for path in files {
            match std::fs::read(path) {
                Ok(bytes) => known.take(session, &String::from_utf8_lossy(&bytes))?,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
            }
        }
        if known.lines.is_empty() {
            return Err(known.refuse("is not known: none stands in known_hosts").into());
        }
        if known.algorithms.is_empty() {
            return Err(known.refuse("is known by a key of a kind that is not supported").into());
        }
        Ok(known)
    }

    fn take(&mut self, session: &Session, text: &str) -> Result<()> {
        let name = self.url.known_as();
        for entry in entries(text) {
            if entry.is_revoked {
                // Whatever host it stands for: a key that was given away is nobody's.
                self.revoked.push(entry.line(NAME));
                continue;
            }
            let is_named = match entry.names(&name) {
                Names::Hashed => is_hash_of(session, &entry, &name)?,
                named => named == Names::Yes,
            };
            if is_named {
                self.lines.push(entry.line(NAME));
                let more = entry.algorithms().iter().filter(|one| !self.algorithms.contains(one)).copied();
                let more: Vec<_> = more.collect();
                self.algorithms.extend(more);
            }
        }
        Ok(())
    }

    /// The algorithms to offer to the host, best known first.
    pub(super) fn algorithms(&self) -> String {
        self.algorithms.join(",")
    }

    /// Fails with code 5 unless the key that the host has proven to have is one of those that are known.
    pub(super) fn check(&self, session: &Session) -> Result<()> {
        let Some((key, _)) = session.host_key() else {
            return Err(self.refuse("did not come").into());
        };
        if self.revoked.iter().any(|line| is_key_of(session, line, key)) {
            return Err(self.refuse("is revoked in known_hosts").into());
        }
        if !self.lines.iter().any(|line| is_key_of(session, line, key)) {
            return Err(self
                .refuse("is not the one in known_hosts: it was changed, or this is another machine")
                .into());
        }
        Ok(())
    }

    fn refuse(&self, why: &str) -> Failure {
        let SshUrl { host, port, .. } = self.url;
        let text = format!("the host key of {} {why}", self.url.known_as());
        let hint = format!(
            "look at its fingerprint (ssh -p {port} {host}), or trust this network once: ssh-keyscan -p {port} {host} >>~/.ssh/known_hosts"
        );
        Failure::new(Code::Fenced, text).hint(hint)
    }
}

/// Whether an entry's hashed name is this one.
fn is_hash_of(session: &Session, entry: &Entry<'_>, name: &str) -> Result<bool> {
    let mut hosts = session.known_hosts()?;
    // A line that cannot be read names nobody.
    if hosts.read_str(&entry.own_line(), KnownHostFileKind::OpenSSH).is_err() {
        return Ok(false);
    }
    // No key of anybody: a name that is there shows as one with another key.
    Ok(matches!(hosts.check(name, b"none"), CheckResult::Mismatch))
}

/// Whether a line has this key.
fn is_key_of(session: &Session, line: &str, key: &[u8]) -> bool {
    session.known_hosts().is_ok_and(|mut hosts| {
        hosts.read_str(line, KnownHostFileKind::OpenSSH).is_ok() && matches!(hosts.check(NAME, key), CheckResult::Match)
    })
}
