//! The hello: who ships, and what. Lines of `key=word`, so that a dump of a stream can be read; unknown keys are passed
//! over, so that later releases can say more within version 1.

use super::{Corrupt, corrupt};
use crate::rule::pattern::Pattern;
use crate::rule::scheme::{Engine, Kind, Scheme};
use crate::value::escape::word;
use crate::value::pairs;

/// The version of the stream that this release writes and reads.
pub const VERSION: u64 = 1;

/// What a sender says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// Name of the set; empty when the operator gave none.
    pub set: String,
    /// Engine, pattern, the database's identity and its segments' size.
    pub scheme: Scheme,
    /// How many masters this set has had.
    pub epoch: u64,
    /// What a receiver's engine must understand (log version, byte order); empty when not known.
    pub fingerprint: String,
    /// Name of the sending site, for messages; may be empty.
    pub site: String,
}

impl Hello {
    /// The payload of the hello frame.
    pub fn print(&self) -> String {
        let Hello { set, scheme, epoch, fingerprint, site } = self;
        let segment_size = scheme.segment_size();
        let pattern = scheme.pattern().map(Pattern::to_string).unwrap_or_default();
        format!(
            "v={VERSION}\nset={}\nengine={}\npattern={}\nidentity={}\nsegment-size={segment_size}\nepoch={epoch}\n\
             fingerprint={}\nsite={}\n",
            word(set),
            scheme.engine(),
            word(&pattern),
            word(&scheme.identity()),
            word(fingerprint),
            word(site),
        )
    }

    /// Reads the payload of a hello frame.
    pub fn parse(payload: &[u8]) -> Result<Hello, Corrupt> {
        let Ok(text) = std::str::from_utf8(payload) else {
            return corrupt("the hello is not UTF-8");
        };
        let want = |key: &str| pairs::get(text, key).ok_or_else(|| Corrupt(format!("the hello has no valid {key}")));
        let count = |key: &str| pairs::count(text, key).ok_or_else(|| Corrupt(format!("the hello has no valid {key}")));
        let version = count("v")?;
        if version != VERSION {
            return corrupt(format!("the stream is version {version}, this release reads version {VERSION}"));
        }
        let engine = Engine::parse(&want("engine")?).map_err(Corrupt)?;
        let pattern = match want("pattern")?.as_str() {
            "" => None,
            pattern => Some(Pattern::parse(pattern).map_err(Corrupt)?),
        };
        let kind = Kind::new(engine, pattern).map_err(Corrupt)?;
        Ok(Hello {
            set: name(want("set")?)?,
            scheme: Scheme::new(&kind, &want("identity")?, count("segment-size")?).map_err(Corrupt)?,
            epoch: count("epoch")?,
            fingerprint: name(want("fingerprint")?)?,
            site: name(want("site")?)?,
        })
    }
}

/// Most bytes of a name, counted as its word: all of them together still fit a hello, and two of them a welcome.
pub const NAME_MAX: usize = 255;

/// Whether a name may be kept in a state file and shown: bounded, without control characters.
pub fn is_name(text: &str) -> bool {
    word(text).len() <= NAME_MAX && !text.chars().any(char::is_control)
}

fn name(text: String) -> Result<String, Corrupt> {
    if is_name(&text) {
        return Ok(text);
    }
    corrupt("the hello has a name that is too long or has control characters")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rule::stream::frame::{Header, Kind, header};

    fn hello() -> Hello {
        Hello {
            set: "order s".into(),
            scheme: Scheme::Plain(Pattern::parse("log.%S").unwrap()),
            epoch: 3,
            fingerprint: "log-version=19 byte-order=little".into(),
            site: "venus".into(),
        }
    }

    #[test]
    fn it_is_read_back_and_unknown_keys_are_passed_over() {
        let text = hello().print() + "later=thing\n";
        assert_eq!(Hello::parse(text.as_bytes()), Ok(hello()));
    }

    #[test]
    fn the_longest_names_and_pattern_fit_the_frame() {
        let name = "é".repeat(42);
        assert!(is_name(&name) && !is_name(&(name.clone() + "é")));
        let pattern = "%%".repeat(214) + "%S";
        let longest = Hello {
            set: name.clone(),
            scheme: Scheme::Eloquence(Pattern::parse(&pattern).unwrap()),
            epoch: u64::MAX,
            fingerprint: name.clone(),
            site: name,
        };
        let text = longest.print();
        assert!(Header::parse(&header(Kind::Hello, 0, &[text.as_bytes()])).is_ok(), "{}", text.len());
        assert_eq!(Hello::parse(text.as_bytes()), Ok(longest));
    }

    #[test]
    fn hostile_fields_are_refused() {
        let good = hello().print();
        for (from, to) in [
            ("v=1", "v=2"),
            ("v=1", "v=x"),
            ("pattern=log.%25S", "pattern=../%25S"),
            ("pattern=log.%25S", "pattern=.repl%25S"),
            ("engine=plain", "engine=other"),
            ("epoch=3", "epoch=-1"),
            ("set=order%20s", "set=a%0Ab"),
            ("set=order%20s\n", ""),
            ("set=order%20s", "set="),
            ("v=1\n", "v=1\r\n"),
            ("identity=-", "identity=7"),
            ("segment-size=0", "segment-size=16777216"),
            (
                "engine=plain\npattern=log.%25S\nidentity=-\nsegment-size=0",
                "engine=postgres\npattern=-\nidentity=7\nsegment-size=1",
            ),
        ] {
            let bad = good.replacen(from, to, 1);
            assert_ne!(bad, good);
            assert!(Hello::parse(bad.as_bytes()).is_err(), "{to}");
        }
        assert!(Hello::parse(&[0xff; 20]).is_err());
    }
}
