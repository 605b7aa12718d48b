//! `known_hosts` files of OpenSSH (their format is in sshd(8)): which lines name a host, and with which kind
//! of key. The keys themselves are compared by who has them.

/// One line that names hosts and a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// The key is marked `@revoked`: nobody may use it.
    pub is_revoked: bool,
    hosts: &'a str,
    /// Kind of key, `ssh-ed25519`.
    pub kind: &'a str,
    /// The key in base64.
    pub key: &'a str,
}

/// Whether an entry is about a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Names {
    /// It is.
    Yes,
    /// It is not.
    No,
    /// Its name is hashed, and it takes that hash to tell.
    Hashed,
}

/// The entries of a file. Comments and lines that are none are passed over, and so are certificate authorities: a
/// certificate is no proof to us.
pub fn entries(text: &str) -> impl Iterator<Item = Entry<'_>> {
    text.lines().filter_map(|line| {
        let mut words = line.split_ascii_whitespace();
        let mut hosts = words.next()?;
        let mut is_revoked = false;
        if hosts.starts_with('@') {
            is_revoked = hosts == "@revoked";
            hosts = words.next().filter(|_| is_revoked)?;
        }
        let (kind, key) = (words.next()?, words.next()?);
        (!hosts.starts_with('#')).then_some(Entry { is_revoked, hosts, kind, key })
    })
}

impl Entry<'_> {
    /// Whether this is about a host, as it is named there: `venus`, or `[venus]:2222` with another port than 22.
    pub fn names(&self, host: &str) -> Names {
        if self.hosts.starts_with('|') {
            return Names::Hashed;
        }
        let mut named = Names::No;
        for pattern in self.hosts.split(',') {
            match pattern.strip_prefix('!') {
                Some(pattern) if matches(pattern.as_bytes(), host.as_bytes()) => return Names::No,
                None if matches(pattern.as_bytes(), host.as_bytes()) => named = Names::Yes,
                _ => {}
            }
        }
        named
    }

    /// The entry as a line for one host that is named in it.
    pub fn line(&self, host: &str) -> String {
        format!("{host} {} {}", self.kind, self.key)
    }

    /// The entry as a line with the names it has.
    pub fn own_line(&self) -> String {
        self.line(self.hosts)
    }

    /// The host key algorithms that prove a key of this kind, best first; none for a kind that is not supported.
    pub fn algorithms(&self) -> &'static [&'static str] {
        match self.kind {
            "ssh-ed25519" => &["ssh-ed25519"],
            "ecdsa-sha2-nistp256" => &["ecdsa-sha2-nistp256"],
            "ecdsa-sha2-nistp384" => &["ecdsa-sha2-nistp384"],
            "ecdsa-sha2-nistp521" => &["ecdsa-sha2-nistp521"],
            "ssh-rsa" => &["rsa-sha2-512", "rsa-sha2-256"],
            _ => &[],
        }
    }
}

/// Whether a pattern with `*` and `?` is all of a name; case does not count.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let (mut at, mut pos) = (0, 0);
    // Where the last star was, and what it has swallowed up to.
    let mut star = None;
    while pos < name.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, pos));
                at += 1;
            }
            Some(byte) if *byte == b'?' || byte.eq_ignore_ascii_case(&name[pos]) => {
                at += 1;
                pos += 1;
            }
            _ => match star {
                Some((before, swallowed)) => {
                    star = Some((before, swallowed + 1));
                    (at, pos) = (before + 1, swallowed + 1);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(hosts: &str, host: &str) -> Names {
        entries(&format!("{hosts} ssh-ed25519 AAAA")).next().unwrap().names(host)
    }

    #[test]
    fn names_patterns_and_exceptions() {
        assert_eq!(named("venus", "venus"), Names::Yes);
        assert_eq!(named("Venus,10.0.0.1", "10.0.0.1"), Names::Yes);
        assert_eq!(named("venus", "venus2"), Names::No);
        assert_eq!(named("*.example", "a.example"), Names::Yes);
        assert_eq!(named("*.example", "a.example.org"), Names::No);
        assert_eq!(named("*.example,!b.example", "b.example"), Names::No);
        assert_eq!(named("!b.example,*.example", "a.example"), Names::Yes);
        assert_eq!(named("10.0.?.1*", "10.0.3.17"), Names::Yes);
        assert_eq!(named("*a*b", "aab"), Names::Yes);
        assert_eq!(named("[venus]:2222", "[venus]:2222"), Names::Yes);
        assert_eq!(named("venus", "[venus]:2222"), Names::No);
        assert_eq!(named("[venus]:2222", "venus"), Names::No);
        assert_eq!(named("|1|salt=|hash=", "venus"), Names::Hashed);
    }

    #[test]
    fn only_entries_are_entries() {
        let text = "# venus ssh-ed25519 AAAA\n\n#x\nvenus\nvenus ssh-rsa\n  a ssh-rsa BBBB root@a # c\n\
                    @cert-authority * ssh-rsa CCCC\n@revoked b ssh-ed25519 DDDD\r\n@revoked\n";
        let found: Vec<_> = entries(text).map(|entry| (entry.is_revoked, entry.own_line())).collect();
        assert_eq!(found, [(false, "a ssh-rsa BBBB".to_owned()), (true, "b ssh-ed25519 DDDD".to_owned())]);
    }

    #[test]
    fn sha1_is_not_offered() {
        let of = |kind: &str| entries(&format!("h {kind} A")).next().unwrap().algorithms();
        assert_eq!(of("ssh-rsa"), ["rsa-sha2-512", "rsa-sha2-256"]);
        assert_eq!(of("ssh-dss"), [""; 0]);
    }
}
