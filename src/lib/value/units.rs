//! Sizes and durations as operators write them. Sizes take K, M, G (IEC: 1K is 1024 bytes), durations ms, s, m, h.

use std::time::Duration;

use super::position::number;

/// Reads a size in bytes: `4096`, `64K`, `10M`, `2G`.
pub fn size(text: &str) -> Result<u64, String> {
    let error = || format!("'{text}' is not a size: expected a number of bytes with K, M or G, such as 64M");
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K') => (&text[..text.len() - 1], 10),
        Some(b'M') => (&text[..text.len() - 1], 20),
        Some(b'G') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    number(digits).and_then(|count| count.checked_mul(1 << shift)).ok_or_else(error)
}

/// Reads a rate in bytes per second, at least 1K so that a stream stays alive.
pub fn rate(text: &str) -> Result<u64, String> {
    match size(text)? {
        rate if rate < 1024 => Err(format!("'{text}' is too slow: the least rate is 1K bytes per second")),
        rate => Ok(rate),
    }
}

/// Reads a duration: `250ms`, `5s`, `10m`, `2h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let error = || format!("'{text}' is not a duration: expected a number with ms, s, m or h, such as 250ms");
    let unit = text.trim_start_matches(|ch: char| ch.is_ascii_digit());
    let count = number(&text[..text.len() - unit.len()]).ok_or_else(error)?;
    let millis = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(error()),
    };
    // A year and some: far above any use, far below what would overflow a deadline.
    match count.checked_mul(millis) {
        Some(total) if total <= 400 * 24 * 3_600_000 => Ok(Duration::from_millis(total)),
        _ => Err(error()),
    }
}

/// Reads a duration above zero.
pub fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err(format!("'{text}' is too short: it must be above zero")),
        long => Ok(long),
    }
}

/// A size for people: `123 B`, `3.1 MiB`.
pub fn tell_size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let (mut amount, mut unit) = (bytes as f64 / 1024.0, 0);
    while amount >= 1023.95 && unit + 1 < UNITS.len() {
        (amount, unit) = (amount / 1024.0, unit + 1);
    }
    format!("{amount:.1} {}", UNITS[unit])
}

/// Seconds for people: `0.4 s`, `42 s`, `3 m 20 s`, `2 h 5 m`, `3 d 4 h`. What is not a number of them is `?`.
pub fn tell_seconds(seconds: f64) -> String {
    if !seconds.is_finite() || seconds < 0.0 {
        return "?".to_owned();
    }
    if (0.05..9.95).contains(&seconds) {
        return format!("{seconds:.1} s");
    }
    // Beyond that, more than thirty thousand years, one figure is as good as another.
    let whole = Duration::from_secs_f64(seconds.round().min(1e12)).as_secs();
    let pair = |large: u64, large_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large} {large_unit}"),
        _ => format!("{large} {large_unit} {small} {small_unit}"),
    };
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => pair(whole / 60, "m", whole % 60, "s"),
        3600..86_400 => pair(whole / 3600, "h", whole % 3600 / 60, "m"),
        _ => pair(whole / 86_400, "d", whole % 86_400 / 3600, "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_told_in_two_figures_or_units() {
        let sizes = [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (1_048_575, "1.0 MiB"), (u64::MAX, "16.0 EiB")];
        for (bytes, told) in sizes {
            assert_eq!(tell_size(bytes), told);
        }
        let seconds = [(0.0, "0 s"), (0.04, "0 s"), (0.4, "0.4 s"), (9.96, "10 s"), (59.6, "1 m"), (200.0, "3 m 20 s")];
        let long = [(7500.0, "2 h 5 m"), (273_600.0, "3 d 4 h"), (f64::INFINITY, "?"), (-1.0, "?")];
        for (amount, told) in seconds.into_iter().chain(long) {
            assert_eq!(tell_seconds(amount), told);
        }
    }

    #[test]
    fn sizes() {
        assert_eq!(size("0"), Ok(0));
        assert_eq!(size("64K"), Ok(65_536));
        assert_eq!(size("2G"), Ok(2 << 30));
        for bad in ["", "K", "1k", "-1", "1.5M", "1KB", "18014398509481985K", "é"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        assert!(rate("1023").is_err());
    }

    #[test]
    fn durations() {
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2h"), Ok(Duration::from_secs(7200)));
        for bad in ["", "5", "s", "1d", "-1s", "1 s", "99999999999999999999s", "10000h", "é"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert!(positive_duration("0s").is_err());
    }
}
