//! Instants in microseconds since 1970, printed as RFC 3339 UTC, and the `--until` that is a time or a position.

use std::fmt;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::position::{Position, number};

/// Microseconds since 1970-01-01 00:00:00 UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub i64);

/// Where `--until` ends: at a time (nothing later), or at a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// The last boundary that is not later than this.
    Time(Time),
    /// This position.
    Position(Position),
}

impl Time {
    /// From whole seconds since 1970.
    pub fn from_seconds(seconds: i64) -> Time {
        Time(seconds.saturating_mul(1_000_000))
    }

    /// Reads RFC 3339, `YYYY-MM-DD HH:MM:SS` (UTC) or `@SECONDS`.
    pub fn parse(text: &str) -> Option<Time> {
        if let Some(seconds) = text.strip_prefix('@') {
            return i64::try_from(number(seconds)?).ok().map(Time::from_seconds);
        }
        let stamp = text.parse::<jiff::Timestamp>().ok().or_else(|| {
            // A civil time must be written with the date and the time: "2026" is more likely a mistake.
            let civil =
                text.get(10..11).filter(|between| matches!(*between, " " | "T")).map(|_| text.parse::<DateTime>());
            civil?.ok()?.to_zoned(TimeZone::UTC).ok().map(|zoned| zoned.timestamp())
        })?;
        Some(Time(stamp.as_microsecond()))
    }

    /// `2026-04-18 18:54:17`, for narration.
    pub fn narrate(self) -> String {
        self.stamp().map_or_else(|| self.to_string(), |stamp| stamp.strftime("%Y-%m-%d %H:%M:%S").to_string())
    }

    fn stamp(self) -> Option<jiff::Timestamp> {
        jiff::Timestamp::from_microsecond(self.0).ok()
    }
}

impl fmt::Display for Time {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.stamp() {
            Some(stamp) => write!(out, "{stamp}"),
            // Beyond the year 9999: still a fact, shown as it was read.
            None => write!(out, "@{}us", self.0),
        }
    }
}

impl Until {
    /// Reads a position or a time.
    pub fn parse(text: &str) -> Result<Until, String> {
        let position = || text.parse::<super::position::Bookmark>().ok().map(|mark| Until::Position(mark.position));
        position().or_else(|| Time::parse(text).map(Until::Time)).ok_or_else(|| {
            format!(
                "'{text}' is neither a time (RFC 3339, 'YYYY-MM-DD HH:MM:SS', @SECONDS) nor a position (1-12:40960)"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_forms_mean_the_same_instant() {
        let time = Time::from_seconds(1_776_538_457);
        for text in ["@1776538457", "2026-04-18T18:54:17Z", "2026-04-18 18:54:17", "2026-04-18T20:54:17+02:00"] {
            assert_eq!(Time::parse(text), Some(time), "{text}");
        }
        assert_eq!(time.to_string(), "2026-04-18T18:54:17Z");
        assert_eq!(time.narrate(), "2026-04-18 18:54:17");
    }

    #[test]
    fn until_is_a_time_or_a_position() {
        assert_eq!(Until::parse("1-12:40"), Ok(Until::Position("1-12:40".parse().unwrap())));
        assert_eq!(Until::parse("@5"), Ok(Until::Time(Time(5_000_000))));
        for bad in ["", "yesterday", "2026", "@", "@-5", "2026-13-01 00:00:00"] {
            assert!(Until::parse(bad).is_err(), "{bad}");
        }
    }
}
