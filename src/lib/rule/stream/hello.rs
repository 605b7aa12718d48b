//! The hello: who ships, and what. Lines of `key=word`, so that a dump of a stream can be read; unknown keys are passed
//! over, so that later releases can say more within version 1.

use super::{Corrupt, corrupt};
use crate::rule::instance::Instance;
use crate::rule::pattern::Pattern;
use crate::rule::scheme::{Engine, Kind, Scheme};
use crate::value::escape::word;
use crate::value::pairs;

/// The version of the stream that this release writes and reads.
pub const VERSION: u64 = 1;
/// The last epoch that is believed: a set whose masters are counted has no such one.
pub const EPOCH_MOST: u64 = i64::MAX.cast_unsigned();

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
    /// Which database ships; older senders, and those without state, do not say it.
    pub instance: Option<Instance>,
}

impl Hello {
    /// The payload of the hello frame.
    pub fn print(&self) -> String {
        let Hello { set, scheme, epoch, fingerprint, site, instance } = self;
        let segment_size = scheme.segment_size();
        let pattern = scheme.pattern().map(Pattern::to_string).unwrap_or_default();
        let instance = instance.as_ref().map(|instance| format!("instance={instance}\n")).unwrap_or_default();
        format!(
            "v={VERSION}\nset={}\nengine={}\npattern={}\nidentity={}\nsegment-size={segment_size}\nepoch={epoch}\n\
             fingerprint={}\nsite={}\n{instance}",
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
            epoch: Some(count("epoch")?)
                .filter(|epoch| *epoch <= EPOCH_MOST)
                .ok_or_else(|| Corrupt("the hello has no valid epoch".into()))?,
            fingerprint: name(want("fingerprint")?)?,
            site: name(want("site")?)?,
            instance: instance(text)?,
        })
    }
}

fn instance(text: &str) -> Result<Option<Instance>, Corrupt> {
    if !text.lines().any(|line| line.starts_with("instance=")) {
        return Ok(None);
    }
    match pairs::get(text, "instance") {
        Some(word) if word.is_empty() => Ok(None),
        word => match word.as_deref().and_then(Instance::parse) {
            None => corrupt("the hello has no valid instance"),
            instance => Ok(instance),
        },
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
            instance: Instance::parse(&("0123456789abcdef".repeat(2) + ".00000000000000ff")),
        }
    }

    #[test]
    fn one_of_an_older_sender_has_no_instance() {
        let unsaid = Hello { instance: None, ..hello() };
        assert!(!unsaid.print().contains("instance"));
        for more in ["", "instance=-\n"] {
            assert_eq!(Hello::parse((unsaid.print() + more).as_bytes()), Ok(unsaid.clone()));
        }
    }

    #[test]
    fn an_epoch_after_which_no_other_can_be_made_is_none() {
        let last = Hello { epoch: EPOCH_MOST, ..hello() };
        assert_eq!(Hello::parse(last.print().as_bytes()), Ok(last));
        for epoch in [EPOCH_MOST + 1, u64::MAX] {
            assert!(Hello::parse(Hello { epoch, ..hello() }.print().as_bytes()).is_err());
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
            epoch: EPOCH_MOST,
            fingerprint: name.clone(),
            site: name,
            instance: hello().instance,
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
            ("instance=0", "instance=O"),
            ("instance=0", "instance="),
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
