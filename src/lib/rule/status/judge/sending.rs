//! Senders, and sites as their senders see them.

use super::{
    Alarm, Judged, Limits, State, age, by_age, by_lag, distance, dropped, ended, is_quiet, past, trying, waiting,
};
use crate::rule::status::sender::{Lag, Link, Sender, Site};
use crate::value::escape::show;
use crate::value::exit::Code;
use crate::value::time::Time;
use crate::value::units::tell_seconds;

/// Whether a sender says nothing, and why one thinks so.
fn silence(sender: &Sender, now: Time) -> Option<String> {
    let Some(updated) = sender.updated else {
        return Some("its status does not say when it was written".to_owned());
    };
    let seconds = distance(updated, now);
    if seconds > sender.patience() {
        return Some(format!("no news for {}", tell_seconds(seconds)));
    }
    let pid = sender.pid.unwrap_or_default();
    (sender.running == Some(false)).then(|| format!("repl-ship (process {pid}) is gone"))
}

/// The verdict on one who ships no more, in order or not.
fn gone(sender: &Sender, now: Time, limits: &Limits) -> Option<Judged> {
    let silence = silence(sender, now);
    // A pause brings each link to its end, and the sender stays to wait it out.
    let is_waiting = sender.paused.is_some() && silence.is_none();
    if sender.has_ended() && !is_waiting {
        return Some(ended(sender.updated, now, limits));
    }
    silence.map(|why| Judged::new(State::Stale, Alarm::Unknown, Code::Link, why))
}

/// What a site lacks, where that can still be so: of one that says nothing any more it is not.
pub fn lag(from: &Sender, site: &Site, now: Time, limits: &Limits) -> Lag {
    let is_gone = gone(from, now, limits).is_some_and(|gone| gone.state == State::Stale);
    let is_told = !is_gone && self::site(from, site, now, limits).state != State::Stale;
    if is_told { site.lag } else { Lag::default() }
}

/// A sender as a whole.
pub fn sender(sender: &Sender, now: Time, limits: &Limits) -> Judged {
    if let Some(first) = sender.dropped.first() {
        return dropped(first);
    }
    if sender.is_past() {
        return past(sender.told.as_ref());
    }
    if let Some(gone) = gone(sender, now, limits) {
        return gone;
    }
    if let Some(fault) = &sender.fault {
        return Judged::new(State::Unknown, Alarm::Unknown, Code::Failed, show(fault));
    }
    if let Some(paused) = &sender.paused {
        let since = paused.since.map(|since| format!(" {} ago", tell_seconds(age(since, now)))).unwrap_or_default();
        let reason = paused.reason.as_ref().map(|reason| format!(": {}", show(reason))).unwrap_or_default();
        return Judged::new(State::Paused, Alarm::Warning, Code::Done, format!("paused{since}{reason}"));
    }
    let is_quiet = is_quiet(sender.grown, sender.updated, sender.patience());
    Judged::well(match sender.end {
        None => State::Connecting,
        Some(_) if is_quiet => State::Idle,
        Some(_) => State::Current,
    })
}

/// A site, as its sender sees it.
pub fn site(from: &Sender, site: &Site, now: Time, limits: &Limits) -> Judged {
    // As those who gave the log up call it: how it is reached, or its name.
    let names = [&site.receiver, &site.name].map(|name| format!("receiver '{name}'"));
    let gap = from
        .dropped
        .iter()
        .find(|gap| gap.who.iter().any(|who| names.contains(who)) && (site.proven.is_none() || site.proven < gap.to));
    if let Some(gap) = gap {
        return dropped(gap);
    }
    if from.is_past() {
        return past(from.told.as_ref());
    }
    let (alarm, behind) = by_lag(site.lag, limits);
    match (site.link(), gone(from, now, limits)) {
        // A verdict stands, also when its sender has ended by it.
        (Link::Refused, _) => {
            let code = site.code.and_then(Code::from_number).filter(|code| *code != Code::Done);
            let why = show(site.error.as_deref().unwrap_or("it was refused"));
            Judged::new(State::Refused, Alarm::Critical, code.unwrap_or(Code::Failed), why)
        }
        (_, Some(gone)) => gone,
        _ if from.paused.is_some() => Judged::new(
            State::Paused,
            alarm.max(Alarm::Warning),
            waiting(alarm),
            if alarm == Alarm::Ok { String::new() } else { behind },
        ),
        (Link::Retrying, None) => {
            let alarm = alarm.max(by_age(quiet_for(from, site, now), limits)).max(Alarm::Warning);
            let why = site.error.as_deref().map(show).unwrap_or_default();
            Judged::new(State::Retrying, alarm, trying(alarm), why)
        }
        (Link::Connecting, None) => {
            let alarm = alarm.max(by_age(quiet_for(from, site, now), limits));
            Judged::new(State::Connecting, alarm, waiting(alarm), "")
        }
        (Link::Done, None) => ended(from.updated, now, limits),
        (Link::Connected, None) => connected(from, site, now, alarm, behind),
    }
}

/// For how many seconds nothing was heard of a site.
fn quiet_for(sender: &Sender, site: &Site, now: Time) -> f64 {
    site.last_ack.or(sender.started).map_or(0.0, |last| age(last, now))
}

fn connected(sender: &Sender, site: &Site, now: Time, alarm: Alarm, behind: String) -> Judged {
    let silent = site.last_ack.map(|last| age(last, now)).filter(|seconds| *seconds > sender.patience());
    if let Some(seconds) = silent {
        let why = format!("connected, but no acknowledgement for {}", tell_seconds(seconds));
        return Judged::new(State::Stale, Alarm::Unknown, Code::Link, why);
    }
    let has_all = site.lag.bytes == Some(0) || (site.proven.is_some() && site.proven >= sender.end);
    match (site.lag.bytes.is_none() && site.lag.seconds.is_none(), alarm) {
        (_, Alarm::Warning | Alarm::Critical) => Judged::new(State::Lagging, alarm, waiting(alarm), behind),
        (true, _) if !has_all && site.received.is_none() => {
            Judged::new(State::Unknown, Alarm::Unknown, Code::Unconfirmed, "it does not say what it has")
        }
        _ if has_all && is_quiet(sender.grown, sender.updated, sender.patience()) => Judged::well(State::Idle),
        _ => Judged::well(State::Current),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    /// Noon, and the seconds before it.
    fn before(seconds: i64) -> String {
        Time::from_seconds(43_200 - seconds).to_string()
    }

    const NOON: Time = Time(43_200_000_000);

    /// A quiet sender with one site that has all, changed by the keys of two objects.
    fn sender(change: Value, site: Value) -> Sender {
        let mut all = json!({
            "v": 1, "logdir": "/db", "pid": 7, "running": true, "heartbeat": 10.0, "updated": before(5), "started": before(90_000),
            "end": "1-2:40", "grown": before(80_000),
            "sites": [{
                "name": "venus", "receiver": "ssh venus", "state": "connected", "proven": "1-2:40", "received": "1-2:40",
                "lag": {"bytes": 0, "segments": 0, "seconds": 0.0}, "last_ack": before(4), "reconnects": 1
            }]
        });
        let put = |into: &mut Value, change: Value| {
            into.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        };
        put(&mut all, change);
        put(&mut all["sites"][0], site);
        Sender::from_value(all).unwrap()
    }

    fn judged(change: Value, of: Value) -> (State, Alarm, Code) {
        let from = sender(change, of);
        let Judged { state, alarm, code, .. } = site(&from, &from.sites[0], NOON, &Limits::default());
        (state, alarm, code)
    }

    #[test]
    fn each_state_of_a_site_has_its_alarm_and_its_code() {
        use Alarm::{Critical, Ok, Warning};
        use State::{Connecting, Current, Ended, Idle, Lagging, Paused, Refused, Retrying, Stale};
        let lag = |bytes: u64, seconds: f64| json!({"proven": "1-2:9", "lag": {"bytes": bytes, "segments": 0, "seconds": seconds}});
        let with = |mut one: Value, other: Value| {
            one.as_object_mut().unwrap().extend(other.as_object().unwrap().clone());
            one
        };
        let retrying = json!({"state": "retrying", "error": "no route", "code": 8});
        let none = || json!({});
        // One of yesterday, at a site that has changed its role, or has not.
        let told = |role: &str, running: bool| json!({"told": {"role": role, "epoch": 2}, "running": running, "updated": before(86_400)});
        let rows = [
            (none(), none(), (Idle, Ok, Code::Done)),
            (json!({"grown": before(6)}), none(), (Current, Ok, Code::Done)),
            (none(), lag(31, 2.0), (Current, Ok, Code::Done)),
            (none(), lag(31, 61.0), (Lagging, Warning, Code::Done)),
            (none(), lag(31, 601.0), (Lagging, Critical, Code::Unconfirmed)),
            (none(), json!({"state": "connecting"}), (Connecting, Ok, Code::Done)),
            (
                none(),
                json!({"state": "connecting", "last_ack": before(700)}),
                (Connecting, Critical, Code::Unconfirmed),
            ),
            (none(), retrying.clone(), (Retrying, Warning, Code::Done)),
            (none(), with(retrying.clone(), json!({"last_ack": before(601)})), (Retrying, Critical, Code::Link)),
            (none(), with(retrying, json!({"last_ack": null})), (Retrying, Critical, Code::Link)),
            (none(), json!({"state": "refused", "code": 4}), (Refused, Critical, Code::Diverged)),
            (none(), json!({"state": "refused", "code": 99}), (Refused, Critical, Code::Failed)),
            (json!({"running": false}), json!({"state": "refused", "code": 4}), (Refused, Critical, Code::Diverged)),
            (
                json!({"updated": before(601)}),
                json!({"state": "refused", "code": 4}),
                (Refused, Critical, Code::Diverged),
            ),
            (json!({"paused": {"reason": "move"}}), none(), (Paused, Warning, Code::Done)),
            (json!({"paused": {}}), lag(31, 601.0), (Paused, Critical, Code::Unconfirmed)),
            (json!({"paused": {}}), json!({"state": "done"}), (Paused, Warning, Code::Done)),
            (
                json!({"paused": {}}),
                with(lag(31, 601.0), json!({"state": "done"})),
                (Paused, Critical, Code::Unconfirmed),
            ),
            (json!({"paused": {}, "running": false}), json!({"state": "done"}), (Ended, Ok, Code::Done)),
            (told("receiver", false), json!({"state": "done"}), (Ended, Ok, Code::Done)),
            (told("receiver", false), none(), (Ended, Ok, Code::Done)),
            (told("receiver", false), json!({"state": "refused", "code": 5}), (Ended, Ok, Code::Done)),
            (told("receiver", true), none(), (Stale, Alarm::Unknown, Code::Link)),
            (told("master", false), json!({"state": "done"}), (Ended, Critical, Code::Link)),
            (told("master", false), none(), (Stale, Alarm::Unknown, Code::Link)),
            (none(), json!({"state": "done"}), (Ended, Ok, Code::Done)),
            (json!({"updated": before(61), "running": false}), json!({"state": "done"}), (Ended, Warning, Code::Done)),
            (json!({"updated": before(601)}), json!({"state": "done"}), (Ended, Critical, Code::Link)),
            (json!({"updated": before(31)}), none(), (Stale, Alarm::Unknown, Code::Link)),
            (json!({"updated": before(29)}), none(), (Idle, Ok, Code::Done)),
            (json!({"updated": before(31), "heartbeat": 20.0}), none(), (Idle, Ok, Code::Done)),
            (json!({"updated": null}), none(), (Stale, Alarm::Unknown, Code::Link)),
            (json!({"running": false}), none(), (Stale, Alarm::Unknown, Code::Link)),
            (none(), json!({"last_ack": before(45)}), (Stale, Alarm::Unknown, Code::Link)),
            (
                none(),
                json!({"proven": null, "received": null, "lag": {}}),
                (State::Unknown, Alarm::Unknown, Code::Unconfirmed),
            ),
        ];
        for (change, of, expected) in rows {
            assert_eq!(judged(change.clone(), of.clone()), expected, "{change} {of}");
        }
    }

    #[test]
    fn a_quiet_log_is_idle_for_ever_and_a_clock_that_jumps_makes_no_lag() {
        let idle = (State::Idle, Alarm::Ok, Code::Done);
        assert_eq!(judged(json!({"grown": null}), json!({})), idle);
        // The clock was set back by an hour after the acknowledgement: nothing has a negative age.
        assert_eq!(
            judged(json!({"grown": before(-3600)}), json!({"last_ack": before(-3600)})),
            (State::Current, Alarm::Ok, Code::Done)
        );
        // A status from the future is of a sender that died before the clock was set back.
        assert_eq!(judged(json!({"updated": before(-3600)}), json!({})).0, State::Stale);
    }

    #[test]
    fn what_was_dropped_stays_red_whatever_else_there_is() {
        let gap = json!({"dropped": [{"from": "1-1:0", "to": "1-3:0", "who": ["receiver 'ssh venus'"]}]});
        let red = (State::Dropped, Alarm::Critical, Code::Dropped);
        assert_eq!(judged(gap.clone(), json!({})), red);
        let from = sender(gap, json!({"proven": "1-3:0"}));
        assert_eq!(site(&from, &from.sites[0], NOON, &Limits::default()).state, State::Idle);
        assert_eq!(super::sender(&from, NOON, &Limits::default()).code, Code::Dropped);
    }

    #[test]
    fn bytes_count_where_a_limit_is_given() {
        let limits = Limits { warn_bytes: Some(10), crit_bytes: Some(100), ..Limits::default() };
        let alarm = |bytes: u64| {
            let from = sender(json!({}), json!({"proven": "1-2:9", "lag": {"bytes": bytes, "seconds": 0.1}}));
            site(&from, &from.sites[0], NOON, &limits).alarm
        };
        assert_eq!([10, 11, 100, 101].map(alarm), [Alarm::Ok, Alarm::Warning, Alarm::Warning, Alarm::Critical]);
    }
}
