//! What may be a secret in a command, a connection string or an address, and is not printed.
//!
//! No list can know every secret, and the manual says to keep them in files that only their programs read. What people
//! write all the same has few shapes: a word that names a secret and its value (`PGPASSWORD=x`, `--token x`,
//! `password = 'x'`, `"secret": "x"`, `Authorization: Bearer x`), a password in an address (`://user:x@`), and short
//! options of a few programs (`mysql -px`, `sshpass -p x`, `curl -u user:x`). In doubt it is masked.

use std::collections::BTreeMap;

/// Stands for a secret. A file that has it is printed, but nothing is done with it.
pub const MASK: &str = "********";

/// Parts of words that name a secret.
const NAMES: [&str; 12] = [
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "secret",
    "token",
    "apikey",
    "api_key",
    "api-key",
    "access_key",
    "access-key",
    "credential",
];
/// Ends of words that name where a secret is, and not the secret.
const PLACES: [&str; 6] = ["file", "path", "dir", "command", "cmd", "fd"];
/// Programs with a short option for a secret, and whether it is the next word.
const OPTIONS: [(&str, &str, bool); 4] =
    [("mysql", "-p", false), ("mariadb", "-p", false), ("sshpass", "-p", true), ("curl", "-u", true)];

/// Looks at what was masked once more, since what stood behind a secret may be one by then: so often at most.
const ROUNDS: usize = 16;

/// The text with what may be a secret replaced by [`MASK`]. The same again changes nothing.
pub fn mask(text: &str) -> String {
    let mut masked = once(text);
    for _ in 0..ROUNDS {
        let again = once(&masked);
        if again == masked {
            break;
        }
        masked = again;
    }
    masked
}

/// Texts that are masked one after the other. Two that differ by nothing but a secret stay two: the second one has a
/// number.
#[derive(Debug, Default)]
pub struct Apart(BTreeMap<String, String>);

impl Apart {
    /// The text with what may be a secret masked; the same for the same text.
    pub fn mask(&mut self, text: &str) -> String {
        if let Some(known) = self.0.get(text) {
            return known.clone();
        }
        let masked = mask(text);
        let numbered = (2_u64..).map(|count| format!("{masked} ({count})"));
        let mut free = std::iter::once(masked.clone()).chain(numbered);
        let shown = free.find(|shown| self.0.values().all(|other| other != shown)).unwrap_or(masked);
        self.0.insert(text.to_owned(), shown.clone());
        shown
    }
}

fn once(text: &str) -> String {
    let (mut out, mut done) = (String::new(), 0);
    for (begin, end) in secrets(text) {
        if begin >= done {
            out.extend([&text[done..begin], MASK]);
        }
        done = done.max(end);
    }
    out + &text[done..]
}

/// From where to where, in order.
fn secrets(text: &str) -> Vec<(usize, usize)> {
    let mut found = named(text);
    found.extend(addressed(text));
    found.extend(optional(text));
    // A reference is none: the shell or the service manager puts in what it stands for.
    found.retain(|(begin, end)| begin < end && !text[*begin..].starts_with('$'));
    found.sort_unstable();
    found
}

/// Values of words that name a secret.
fn named(text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(begin) = text[at..].find(is_part).map(|begin| at + begin) {
        let end = text[begin..].find(|c| !is_part(c)).map_or(text.len(), |end| begin + end);
        if let Some(value) = value_behind(text, begin, end) {
            found.push((value, end_of(text, value, text[begin..end].eq_ignore_ascii_case("authorization"))));
        }
        at = end;
    }
    found
}

fn is_part(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '-'
}

/// Where the value of a word begins, if the word names a secret and has one.
fn value_behind(text: &str, begin: usize, end: usize) -> Option<usize> {
    let name = text[begin..end].to_ascii_lowercase();
    let is_secret = NAMES.iter().any(|part| name.contains(part)) || name.ends_with("pass") || name == "authorization";
    if !is_secret || PLACES.iter().any(|place| name.ends_with(place)) || name.starts_with("--no-") {
        return None;
    }
    let rest = &text[end..];
    let apart = rest.trim_start_matches([' ', '\t']);
    // Between a name in quotes and its colon stands the end of the quotes.
    let behind = rest.trim_start_matches(['"', '\'', '\\', ' ', '\t']);
    let gap = match behind.strip_prefix(['=', ':']) {
        Some(value) if rest.len() == behind.len() || !name.starts_with('-') => value,
        _ if name.starts_with("--") && apart.len() < rest.len() && !apart.starts_with('-') => apart,
        _ => return None,
    };
    let value = gap.trim_start_matches([' ', '\t']);
    // A shell's `NAME= command` gives no value.
    let is_empty = gap.len() != value.len() && rest.starts_with('=') && begin_of_shell_word(text, begin);
    (!is_empty).then_some(text.len() - value.len())
}

fn begin_of_shell_word(text: &str, begin: usize) -> bool {
    text[begin..].chars().take_while(|c| is_part(*c)).all(|c| !c.is_ascii_lowercase())
}

/// Where a value ends. It may be in quotes, also such that are themselves escaped within others.
fn end_of(text: &str, begin: usize, is_line: bool) -> usize {
    let rest = &text[begin..];
    if is_line {
        return rest.find(['"', '\'', '\n']).map_or(text.len(), |end| begin + end);
    }
    let inner = rest.trim_start_matches('\\');
    if let Some(quote) = inner.chars().next().filter(|c| ['"', '\''].contains(c)) {
        let is_nested = rest.len() != inner.len();
        let content = begin + (rest.len() - inner.len()) + 1;
        let mut escaped = false;
        for (at, c) in text[content..].char_indices() {
            if c == quote && (is_nested || !escaped) {
                return content + at + 1;
            }
            escaped = c == '\\' && !escaped;
        }
        return text.len();
    }
    let mut escaped = false;
    for (at, c) in rest.char_indices() {
        if !escaped && (c.is_whitespace() || "\"';&|<>(),}".contains(c)) {
            return begin + at;
        }
        escaped = c == '\\' && !escaped;
    }
    text.len()
}

/// Passwords in addresses: `scheme://user:secret@host`.
fn addressed(text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("://") {
        let begin = at + 3;
        let rest = &text[begin..];
        let end = rest.find(|c: char| c.is_whitespace() || "/\"'".contains(c)).unwrap_or(rest.len());
        let Some(host) = rest[..end].rfind('@') else {
            continue;
        };
        if let Some(colon) = rest[..host].find(':') {
            found.push((begin + colon + 1, begin + host));
        }
    }
    found
}

/// Values of short options of programs that are known for them.
fn optional(text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut program = "";
    let mut is_next = false;
    let mut at = 0;
    for word in text.split_inclusive(|c: char| c.is_whitespace() || "\"';&|()".contains(c)) {
        let begin = at;
        at += word.len();
        let word = word.trim_end_matches(|c: char| c.is_whitespace() || "\"';&|()".contains(c));
        if word.is_empty() {
            continue;
        }
        if std::mem::take(&mut is_next) {
            found.push((begin, begin + word.len()));
            continue;
        }
        let base = word.rsplit(['/', '=']).next().unwrap_or_default();
        if let Some((name, ..)) = OPTIONS.iter().find(|(name, ..)| base.starts_with(name)) {
            program = name;
        }
        for (_, option, is_apart) in OPTIONS.iter().filter(|(name, ..)| *name == program) {
            match word.strip_prefix(option) {
                Some("") => is_next = *is_apart,
                Some(_) => found.push((begin + option.len(), begin + word.len())),
                None => {}
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_a_secret_is_masked_with_its_value() {
        for (text, masked) in [
            ("PGPASSWORD=x psql -c 'select 1'", "PGPASSWORD=* psql -c 'select 1'"),
            ("sh -c 'MYSQL_PWD=x mysqladmin stop'", "sh -c 'MYSQL_PWD=* mysqladmin stop'"),
            ("psql 'host=a password=x user=b'", "psql 'host=a password=* user=b'"),
            ("psql \"password = 'x y' host=a\"", "psql \"password = * host=a\""),
            ("tool --password=x --host b", "tool --password=* --host b"),
            ("tool --password x --host b", "tool --password * --host b"),
            ("tool --token 'x y' z", "tool --token * z"),
            ("tool --password=x\\ y z", "tool --password=* z"),
            ("ssh a \"tool --password=\\\"x y\\\" z\"", "ssh a \"tool --password=* z\""),
            ("curl -H 'Authorization: Bearer x' b", "curl -H 'Authorization: *' b"),
            ("curl -d '{\"secret\": \"x\", \"a\": 1}'", "curl -d '{\"secret\": *, \"a\": 1}'"),
            ("curl -u me:x https://b", "curl -u * https://b"),
            ("curl -ume:x https://b", "curl -u* https://b"),
            ("mysql -px -h b; ssh -p22 c", "mysql -p* -h b; ssh -p* c"),
            ("/usr/bin/mariadb-admin -px shutdown", "/usr/bin/mariadb-admin -p* shutdown"),
            ("on-error=curl -u me:x b", "on-error=curl -u * b"),
            ("sshpass -p x ssh b", "sshpass -p * ssh b"),
            ("psql postgres://me:x@b:5/c", "psql postgres://me:*@b:5/c"),
            ("postgres://me:x@y@b", "postgres://me:*@b"),
            ("AWS_SECRET_ACCESS_KEY=x aws", "AWS_SECRET_ACCESS_KEY=* aws"),
            ("é PASSWORD=é é", "é PASSWORD=* é"),
            ("password=", "password="),
        ] {
            assert_eq!(mask(text), masked.replace('*', MASK), "{text}");
        }
    }

    #[test]
    fn what_names_none_stays_as_it_is() {
        for text in [
            "systemctl stop postgresql@15-main",
            "ssh -p 22 repl@venus",
            "psql --no-password db",
            "PGPASSFILE=/etc/repl/pgpass psql",
            "tool --password-file /etc/x --token-cmd 'cat x'",
            "host=a user=b passfile=/etc/x",
            "PGPASSWORD=$(cat /run/x) psql",
            "PGPASSWORD=$P psql --password-file=a",
            "ssh://me@b:22/c",
            "https://b:1/c@d",
            "mysql -h b -P 3306",
            "passed=1",
            "",
        ] {
            assert_eq!(mask(text), text);
        }
    }

    #[test]
    fn two_that_differ_by_a_secret_stay_two() {
        let mut apart = Apart::default();
        let masked = ["TOKEN=a x", "TOKEN=b x", "y", "TOKEN=a x"].map(|text| apart.mask(text));
        assert_eq!(masked, ["TOKEN=******** x", "TOKEN=******** x (2)", "y", "TOKEN=******** x"]);
        let mut again = Apart::default();
        assert_eq!(masked.clone().map(|text| again.mask(&text)), masked);
    }

    proptest::proptest! {
        #[test]
        fn masking_what_is_masked_changes_nothing(text in "[a-z:/@ '\"=$\\\\-]{0,40}(password|--token|curl -u|mysql -p|://)[a-z:@ '\"=\\\\]{0,30}") {
            let once = mask(&text);
            proptest::prop_assert_eq!(mask(&once), once);
        }
    }
}
