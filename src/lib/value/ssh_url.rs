//! `ssh://[USER@]HOST[:PORT][/PATH]`: a place at another machine. An IPv6 address stands in brackets; what has a meaning
//! of its own in a URL is written `%XX`. A password has no place in one: command lines are read by everybody.

use std::fmt::{self, Write as _};
use std::net::Ipv6Addr;

/// The port that needs no naming.
const PORT: u16 = 22;

/// A machine that is reached by ssh, with a path there if one was given. Prints as it is parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SshUrl {
    /// Whom to log in as; `None` for the user's own name.
    pub user: Option<String>,
    /// A name in lower case, or an address (of IPv6 without brackets). Never empty, never begins with a dash.
    pub host: String,
    /// 22 unless given.
    pub port: u16,
    /// Absolute (`/PATH`), or relative to where a login begins (`/~/PATH`); then it never begins with a dash.
    pub path: Option<String>,
}

impl SshUrl {
    /// Reads a URL; the error says what is wrong with it.
    pub fn parse(text: &str) -> Result<SshUrl, String> {
        let rest = text.strip_prefix("ssh://").ok_or("expected ssh://[USER@]HOST[:PORT]/DIR")?;
        let (place, path) = match rest.find('/') {
            Some(at) => (&rest[..at], Some(path(&rest[at..])?)),
            None => (rest, None),
        };
        let (user, place) = match place.rsplit_once('@') {
            Some((user, place)) => (Some(self::user(user)?), place),
            None => (None, place),
        };
        let (host, port) = split_port(place)?;
        Ok(SshUrl { user, host: self::host(host)?, port: port.map_or(Ok(PORT), self::port)?, path })
    }

    /// The host's name in a `known_hosts` file: with another port than 22 it is `[HOST]:PORT`.
    pub fn known_as(&self) -> String {
        if self.port == PORT { self.host.clone() } else { format!("[{}]:{}", self.host, self.port) }
    }
}

impl fmt::Display for SshUrl {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ssh://")?;
        if let Some(user) = &self.user {
            write!(out, "{}@", encode(user))?;
        }
        if self.host.contains(':') { write!(out, "[{}]", self.host) } else { out.write_str(&self.host) }?;
        if self.port != PORT {
            write!(out, ":{}", self.port)?;
        }
        match &self.path {
            Some(path) if path.starts_with('/') => out.write_str(&encode(path)),
            Some(path) => write!(out, "/~/{}", encode(path)),
            None => Ok(()),
        }
    }
}

fn user(text: &str) -> Result<String, String> {
    if text.contains(':') {
        return Err("a password does not belong in a URL: use a key, or an agent".to_owned());
    }
    match decode(text)? {
        user if user.is_empty() => Err("the user's name is empty".to_owned()),
        user if user.starts_with('-') => Err(format!("'{user}' is not a user's name: it begins with a dash")),
        user => Ok(user),
    }
}

/// Parts a port from what comes before it; colons within brackets are an address's own.
fn split_port(place: &str) -> Result<(&str, Option<&str>), String> {
    let Some(inside) = place.strip_prefix('[') else {
        return match place.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                Err(format!("'{place}' is not a host; an IPv6 address stands in brackets"))
            }
            Some((host, port)) => Ok((host, Some(port))),
            None => Ok((place, None)),
        };
    };
    let (address, after) = inside.split_once(']').ok_or_else(|| format!("'{place}' has no closing bracket"))?;
    address.parse::<Ipv6Addr>().map_err(|_| format!("'{address}' is not an IPv6 address"))?;
    match after.strip_prefix(':') {
        Some(port) => Ok((address, Some(port))),
        None if after.is_empty() => Ok((address, None)),
        None => Err(format!("'{after}' behind the address is not a port")),
    }
}

fn host(text: &str) -> Result<String, String> {
    if let Ok(address) = text.parse::<Ipv6Addr>() {
        return Ok(address.to_string());
    }
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if text.is_empty() {
        return Err("the host is missing".to_owned());
    }
    if text.starts_with('-') || !text.bytes().all(is_name) {
        return Err(format!("'{text}' is not a host"));
    }
    Ok(text.to_ascii_lowercase())
}

fn port(text: &str) -> Result<u16, String> {
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port @ 1..) if is_number => Ok(port),
        _ => Err(format!("'{text}' is not a port: expected 1 to 65535")),
    }
}

/// Reads a path that begins with a slash.
fn path(text: &str) -> Result<String, String> {
    let relative = if text == "/~" { Some("") } else { text.strip_prefix("/~/") };
    let path = decode(relative.unwrap_or(text))?;
    Ok(match relative {
        Some(_) if path.is_empty() => ".".to_owned(),
        // It is to be an argument, not an option, and not absolute after all.
        Some(_) if path.starts_with(['-', '/']) => format!("./{}", path.trim_start_matches('/')),
        _ => path,
    })
}

fn decode(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => match (digit(rest.next()), digit(rest.next())) {
                (Some(high), Some(low)) => bytes.push((high << 4 | low) as u8),
                _ => return Err(format!("'{text}' has a % without two hexadecimal digits (a % itself is %25)")),
            },
            b'?' | b'#' => return Err(format!("'{text}' has a ? or #, which is written %3F or %23")),
            _ => bytes.push(byte),
        }
    }
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains(char::is_control) => Ok(text),
        Ok(_) => Err("a control character has no place in a URL".to_owned()),
        Err(_) => Err(format!("'{text}' is not UTF-8 when decoded")),
    }
}

fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-+,=".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> SshUrl {
        SshUrl::parse(text).unwrap()
    }

    #[test]
    fn parts_are_told_apart() {
        let url = parse("ssh://repl@Venus.example:2222/srv/a%20b");
        assert_eq!((url.user.as_deref(), url.host.as_str(), url.port), (Some("repl"), "venus.example", 2222));
        assert_eq!(url.path.as_deref(), Some("/srv/a b"));
        let url = parse("ssh://venus");
        assert_eq!(url, SshUrl { user: None, host: "venus".into(), port: 22, path: None });
        let url = parse("ssh://[fe80::1]:23/x");
        assert_eq!((url.host.as_str(), url.port), ("fe80::1", 23));
        assert_eq!(parse("ssh://a%40b@c/").user.as_deref(), Some("a@b"));
        assert_eq!(parse("ssh://[0:0::1]/").known_as(), "::1");
        assert_eq!(parse("ssh://[::1]:24").known_as(), "[::1]:24");
    }

    #[test]
    fn a_path_is_absolute_unless_it_begins_at_the_login() {
        let path = |text: &str| parse(&format!("ssh://h{text}")).path.unwrap();
        assert_eq!(path("/"), "/");
        assert_eq!(path("/~/one"), "one");
        assert_eq!(path("/~"), ".");
        assert_eq!(path("/~/"), ".");
        assert_eq!(path("/~/-n"), "./-n");
        assert_eq!(path("/~//etc"), "./etc");
        assert_eq!(path("/%7E/one"), "/~/one");
        assert_eq!(path("/~one"), "/~one");
        assert_eq!(path("/a@b:c"), "/a@b:c");
    }

    #[test]
    fn what_is_printed_is_read_back() {
        for text in [
            "ssh://h",
            "ssh://h:2/",
            "ssh://[::1]:2/a",
            "ssh://u%3A@h/%7E/%25%C3%A9%20%3F",
            "ssh://h/~/-n",
            "ssh://h/~/.",
        ] {
            let url = parse(text);
            assert_eq!(parse(&url.to_string()), url, "{text}: {url}");
        }
        assert_eq!(parse("ssh://u@h:22/a b").to_string(), "ssh://u@h/a%20b");
    }

    #[test]
    fn what_could_be_taken_for_something_else_is_refused() {
        for (text, says) in [
            ("", "expected ssh://"),
            ("http://h/", "expected ssh://"),
            ("ssh:///dir", "host is missing"),
            ("ssh://:22/", "host is missing"),
            ("ssh://u@/", "host is missing"),
            ("ssh://@h/", "name is empty"),
            ("ssh://u:secret@h/", "a password does not belong"),
            ("ssh://u:@h/", "a password does not belong"),
            ("ssh://-oProxyCommand=x/", "not a host"),
            ("ssh://-h/", "not a host"),
            ("ssh://-u@h/", "dash"),
            ("ssh://h o/", "not a host"),
            ("ssh://h;id/", "not a host"),
            ("ssh://::1/", "not a host"),
            ("ssh://fe80::1:22/", "brackets"),
            ("ssh://[h]/", "not an IPv6 address"),
            ("ssh://[::1/", "no closing bracket"),
            ("ssh://[::1]22/", "not a port"),
            ("ssh://h:/", "not a port"),
            ("ssh://h:0/", "not a port"),
            ("ssh://h:+22/", "not a port"),
            ("ssh://h:65536/", "not a port"),
            ("ssh://h/%4", "hexadecimal"),
            ("ssh://h/%zz", "hexadecimal"),
            ("ssh://h/%ff", "not UTF-8"),
            ("ssh://h/%00", "control character"),
            ("ssh://h/a%0Ab", "control character"),
            ("ssh://h/a?b", "%3F"),
            ("ssh://h/a#b", "%23"),
        ] {
            let error = SshUrl::parse(text).unwrap_err();
            assert!(error.contains(says), "{text}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
