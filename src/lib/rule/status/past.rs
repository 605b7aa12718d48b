//! What was: `history.jsonl`, a line for each thing that was done, and `lag.jsonl`, a line for each minute in which
//! `repl-ship` ran. Lines that cannot be read are passed over: they only report.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::value::time::Time;

/// Something that was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When.
    pub time: Time,
    /// What, in a word.
    pub what: String,
    /// In more words.
    pub detail: String,
    /// Why.
    pub reason: Option<String>,
}

/// How far sites were behind at a time.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// When.
    pub time: Time,
    /// Bytes and seconds by the sites' names; `None` where that was not known.
    pub sites: BTreeMap<String, (Option<u64>, Option<f64>)>,
}

impl Event {
    /// Reads a line.
    pub fn parse(line: &str) -> Option<Event> {
        let value: Value = serde_json::from_str(line).ok()?;
        let text = |key: &str| value.get(key).and_then(Value::as_str).map(str::to_owned);
        Some(Event {
            time: Time::parse(value.get("time")?.as_str()?)?,
            what: text("what")?,
            detail: text("detail").unwrap_or_default(),
            reason: text("reason").filter(|reason| !reason.is_empty()),
        })
    }
}

impl Sample {
    /// Reads a line.
    pub fn parse(line: &str) -> Option<Sample> {
        let value: Value = serde_json::from_str(line).ok()?;
        let amount = |site: &Value| {
            let seconds = site["seconds"].as_f64().map(|seconds| seconds.clamp(0.0, 1e12));
            (site["bytes"].as_u64(), seconds)
        };
        let sites = value.get("sites")?.as_object()?.iter().map(|(name, site)| (name.clone(), amount(site)));
        Some(Sample { time: Time::parse(value.get("time")?.as_str()?)?, sites: sites.collect() })
    }
}

/// One stretch of a [`course`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Level {
    /// Nothing was recorded.
    Silent,
    /// The sender ran, and did not know.
    Unknown,
    /// The most seconds in it.
    Seconds(f64),
}

/// How far a site was behind from one time to another, in so many equal stretches: of each the worst, so that no moment
/// of it is lost. A stretch of a sender that ran has a sample each minute; `None` of them is silence.
pub fn course(samples: &[Sample], site: &str, from: Time, to: Time, stretches: usize) -> Vec<Level> {
    let mut course = vec![Level::Silent; stretches];
    let span = to.0.saturating_sub(from.0).max(1);
    for sample in samples {
        let Some((_, seconds)) = sample.sites.get(site) else { continue };
        let since = sample.time.0.saturating_sub(from.0);
        if stretches == 0 || !(0..=span).contains(&since) {
            continue;
        }
        let place = usize::try_from(i128::from(since) * stretches as i128 / i128::from(span)).unwrap_or_default();
        let level = &mut course[place.min(stretches - 1)];
        *level = match (*level, seconds) {
            (Level::Seconds(most), Some(seconds)) => Level::Seconds(most.max(*seconds)),
            (_, Some(seconds)) => Level::Seconds(*seconds),
            (Level::Silent, None) => Level::Unknown,
            (known, None) => known,
        };
    }
    course
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(second: i64, seconds: &str) -> Sample {
        let time = Time::from_seconds(second);
        let line = format!(r#"{{"v":1,"time":"{time}","end":null,"sites":{{"a":{{"bytes":7,"seconds":{seconds}}}}}}}"#);
        Sample::parse(&line).unwrap()
    }

    #[test]
    fn the_worst_moment_survives_and_silence_is_told_from_ignorance() {
        let samples = [sample(0, "1.5"), sample(10, "90"), sample(20, "0"), sample(50, "null"), sample(100, "-4")];
        let second = Time::from_seconds;
        let found = course(&samples, "a", second(0), second(100), 4);
        assert_eq!(found, [Level::Seconds(90.0), Level::Silent, Level::Unknown, Level::Seconds(0.0)]);
        assert_eq!(course(&samples, "b", second(0), second(100), 1), [Level::Silent]);
        // A clock that was set back, and nothing at all.
        assert_eq!(course(&samples, "a", second(100), second(0), 2).len(), 2);
        assert_eq!(course(&samples, "a", second(0), second(100), 0), []);
    }

    #[test]
    fn a_line_that_is_none_is_passed_over() {
        assert_eq!(Event::parse("{"), None);
        assert_eq!(Event::parse(r#"{"time":"@1"}"#), None);
        assert_eq!(Sample::parse(r#"{"time":"@1","sites":[]}"#), None);
        let event = Event::parse(r#"{"v":1,"time":"@1","what":"stop","detail":"d","reason":"r"}"#).unwrap();
        assert_eq!((event.time, event.reason.as_deref()), (Time::from_seconds(1), Some("r")));
    }
}
