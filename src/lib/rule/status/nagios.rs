//! For Nagios and its kin: one line, and an exit code of theirs, by the Monitoring Plugins' guidelines. What is not known
//! has no performance data: not every reader takes the guidelines' `U`.

use super::judge::{self, Alarm, Judged, Limits, State};
use super::sender::Lag;
use super::{Part, Report, What};
use crate::value::escape::show;

/// The line, with its end.
pub fn render(report: &Report) -> String {
    let data: Vec<String> = report.parts.iter().flat_map(|part| data(part, report)).collect();
    let data = if data.is_empty() { String::new() } else { format!("|{}", data.join(" ")) };
    format!("REPL {} - {}{data}\n", word(report.alarm()), plain(&summary(report)))
}

/// What it exits with.
pub fn exit(alarm: Alarm) -> u8 {
    match alarm {
        Alarm::Ok => 0,
        Alarm::Warning => 1,
        Alarm::Critical => 2,
        Alarm::Unknown => 3,
    }
}

/// The line when nothing could be found out at all.
pub fn failure(why: &str) -> String {
    format!("REPL UNKNOWN - {}\n", plain(&show(why)))
}

fn word(alarm: Alarm) -> &'static str {
    match alarm {
        Alarm::Ok => "OK",
        Alarm::Warning => "WARNING",
        Alarm::Critical => "CRITICAL",
        Alarm::Unknown => "UNKNOWN",
    }
}

/// Text in which nothing begins performance data.
fn plain(text: &str) -> String {
    show(text).replace('|', "\\u{7c}")
}

/// What is wrong, worst first; when nothing is, the state of each.
fn summary(report: &Report) -> String {
    let mut told: Vec<(String, Judged)> = report.parts.iter().flat_map(|part| named(part, report)).collect();
    let worst = report.alarm();
    if worst != Alarm::Ok {
        told.retain(|(_, judged)| judged.alarm != Alarm::Ok);
    }
    told.sort_by_key(|(_, judged)| std::cmp::Reverse(judged.alarm));
    let words = told.iter().map(|(name, Judged { state, why, .. })| match why.as_str() {
        "" => format!("{name} {}", state.word()),
        why => format!("{name} {}: {why}", state.word()),
    });
    let words: Vec<String> = words.collect();
    if words.is_empty() { "nothing was found".to_owned() } else { words.join("; ") }
}

/// Each verdict of a part with the name of what it is of. A sender whose sites say it all says nothing itself.
fn named(part: &Part, report: &Report) -> Vec<(String, Judged)> {
    let title = show(&part.title());
    let judged = part.judged(&report.limits);
    let What::Sender(sender) = &part.what else {
        return judged.into_iter().map(|judged| (title.clone(), judged)).collect();
    };
    let names = sender.sites.iter().map(|site| name(&show(site.title()), &title, report));
    let mut named: Vec<_> = std::iter::once(title.clone()).chain(names).zip(judged).collect();
    let whole = named[0].1.state;
    if matches!(whole, State::Stale | State::Ended) {
        // What each site has of it is said once; a verdict on one is more than that.
        let own = named.remove(0);
        named.retain(|(_, judged)| judged.state != whole);
        named.insert(0, own);
    } else if named.len() > 1 && named[0].1.alarm == Alarm::Ok {
        named.remove(0);
    }
    named
}

/// A site's name, with its set where there are several.
fn name(site: &str, title: &str, report: &Report) -> String {
    if report.parts.len() > 1 { format!("{title}/{site}") } else { site.to_owned() }
}

fn data(part: &Part, report: &Report) -> Vec<String> {
    let (title, limits) = (part.title(), &report.limits);
    match &part.what {
        What::Sender(sender) => {
            let mut data = Vec::new();
            for site in &sender.sites {
                let name = name(site.title(), &title, report);
                data.extend(behind(&name, judge::lag(sender, site, part.time, limits), limits));
                data.push(format!("{}={}c", label(&format!("{name} reconnects")), site.reconnects));
            }
            let own = if report.parts.len() > 1 { format!("{title} ") } else { String::new() };
            let count = |what: &str, count: Option<u64>| {
                count.map(|count| format!("{}={count}c", label(&format!("{own}{what}"))))
            };
            data.extend(count("confirmed", sender.confirmed));
            data.extend(count("unconfirmed", sender.unconfirmed));
            data
        }
        What::Receiver(receiver) => {
            let is_stale = judge::receiver(receiver, part.time, limits).state == State::Stale;
            behind(&title, if is_stale { Lag::default() } else { receiver.lag(part.time) }, limits)
        }
        What::Silent(_) => Vec::new(),
    }
}

fn behind(name: &str, lag: Lag, limits: &Limits) -> Vec<String> {
    let bound = |bound: Option<u64>| bound.map(|bound| bound.to_string()).unwrap_or_default();
    let seconds = lag.seconds.map(|seconds| {
        let (warn, crit) = (number(limits.warn_age), number(limits.crit_age));
        format!("{}={}s;{warn};{crit};0", label(&format!("{name} lag")), number(seconds))
    });
    let bytes = lag.bytes.map(|bytes| {
        let (warn, crit) = (bound(limits.warn_bytes), bound(limits.crit_bytes));
        format!("{}={bytes}B;{warn};{crit};0", label(&format!("{name} bytes")))
    });
    seconds.into_iter().chain(bytes).collect()
}

/// In thousandths, without an exponent and without zeros that say nothing.
fn number(amount: f64) -> String {
    let text = format!("{amount:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// In quotes. A label can have no `=`, its quotes are doubled by some readers and split at by others, and some split the
/// line at any `|`: those are written as `%XX`, and so is what could end the line.
fn label(name: &str) -> String {
    let mut label = String::from("'");
    for ch in name.chars() {
        if matches!(ch, '\'' | '=' | '|' | '%') || ch.is_control() {
            let mut bytes = [0; 4];
            label.extend(ch.encode_utf8(&mut bytes).bytes().map(|byte| format!("%{byte:02X}")));
        } else {
            label.push(ch);
        }
    }
    label + "'"
}

/// Only for tests of the limits that go with the data.
#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_cannot_end_itself_or_the_line() {
        assert_eq!(label("a'b=c|d%\n"), "'a%27b%3Dc%7Cd%25%0A'");
        assert_eq!(plain("a|b\nc"), "a\\u{7c}b\\nc");
    }

    #[test]
    fn numbers_are_plain() {
        for (amount, text) in [(0.0, "0"), (0.4, "0.4"), (60.0, "60"), (600.0, "600"), (1e12, "1000000000000")] {
            assert_eq!(number(amount), text);
        }
    }
}
