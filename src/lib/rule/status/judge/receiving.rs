//! Receiving directories, by what lies there and what `repl-apply` has heard.

use super::{Alarm, Judged, Limits, State, age, by_age, by_lag, distance, dropped, ended, is_quiet, past, waiting};
use crate::rule::status::receiver::{Receiver, Session};
use crate::rule::status::sender::Paused;
use crate::value::escape::show;
use crate::value::exit::Code;
use crate::value::time::Time;
use crate::value::units::tell_seconds;

/// A receiving directory.
pub fn receiver(receiver: &Receiver, now: Time, limits: &Limits) -> Judged {
    if let Some(first) = receiver.dropped.first() {
        return dropped(first);
    }
    if let Some(astray) = receiver.astray {
        let why = format!("the database has log up to {astray} that the master has not: it needs a new base");
        return Judged::new(State::Refused, Alarm::Critical, Code::Diverged, why);
    }
    if let Some(fault) = &receiver.fault {
        let code = receiver.fault_code.and_then(Code::from_number).filter(|code| *code != Code::Done);
        return Judged::new(State::Unknown, Alarm::Unknown, code.unwrap_or(Code::Failed), show(fault));
    }
    let judged = heard(receiver, now, limits);
    // Not what was stopped on purpose, nor what was refused to an older master, nor what the database has not got.
    let is_told = matches!((judged.state, judged.code), (State::Paused, _) | (_, Code::Fenced | Code::Hook));
    if receiver.is_past() && !is_told { past(receiver.told.as_ref()) } else { judged }
}

/// By what its `repl-apply` has said.
fn heard(receiver: &Receiver, now: Time, limits: &Limits) -> Judged {
    let Some(session) = &receiver.session else {
        let why = "no repl-apply has said what it heard of the master";
        return Judged::new(State::Unknown, Alarm::Unknown, Code::Unconfirmed, why);
    };
    let told = if session.connected { receiving(receiver, session, now, limits) } else { apart(session, now, limits) };
    standing(receiver, session, told, now, limits)
}

/// What was stopped on purpose explains what comes of it, and nothing else: silence and a refusal as busy of a landing
/// that is paused, an end by the feed of a feeding that is. A feed that fails is told of unless something is louder.
fn standing(receiver: &Receiver, session: &Session, told: Judged, now: Time, limits: &Limits) -> Judged {
    match (&receiver.paused_apply, &receiver.paused_feed) {
        (Some(paused), _) if matches!(told.code, Code::Done | Code::Link | Code::Busy) => stopped("apply", paused, now),
        (_, Some(paused)) if told.alarm == Alarm::Ok || told.code == Code::Hook => stopped("feed", paused, now),
        (_, Some(_)) => told,
        (_, None) => match failing(session, now, limits) {
            Some(failing) if (failing.alarm, failing.rank()) > (told.alarm, told.rank()) => failing,
            _ => told,
        },
    }
}

fn stopped(what: &str, paused: &Paused, now: Time) -> Judged {
    let since = paused.since.map(|since| format!(" {} ago", tell_seconds(age(since, now)))).unwrap_or_default();
    let reason = paused.reason.as_ref().filter(|reason| !reason.is_empty());
    let reason = reason.map(|reason| format!(": {}", show(reason))).unwrap_or_default();
    Judged::new(State::Paused, Alarm::Warning, Code::Done, format!("{what} paused{since}{reason}"))
}

/// Log lands, and the database does not get it: never well, and an alarm when that lasts.
fn failing(session: &Session, now: Time, limits: &Limits) -> Option<Judged> {
    let error = show(session.feed_error.as_ref()?);
    let seconds = session.feed_failing.map_or(0.0, |since| age(since, now));
    let why = format!("feeding fails for {}: {error}", tell_seconds(seconds));
    Some(Judged::new(State::Failed, by_age(seconds, limits).max(Alarm::Warning), Code::Hook, why))
}

fn receiving(receiver: &Receiver, session: &Session, now: Time, limits: &Limits) -> Judged {
    let heard = session.heard.or(session.updated);
    let seconds = heard.map_or(f64::INFINITY, |heard| distance(heard, now));
    if receiver.running == Some(false) {
        let pid = session.pid.unwrap_or_default();
        let why = format!("repl-apply (process {pid}) is gone, and was heard {} ago", tell_seconds(seconds));
        return Judged::new(State::Stale, Alarm::Unknown, Code::Link, why);
    }
    if seconds > limits.stale {
        let why = format!("no news from the master for {}", tell_seconds(seconds));
        return Judged::new(State::Stale, Alarm::Unknown, Code::Link, why);
    }
    let lag = receiver.lag(now);
    let (alarm, behind) = by_lag(lag, limits);
    match alarm {
        Alarm::Warning | Alarm::Critical => Judged::new(State::Lagging, alarm, waiting(alarm), behind),
        _ if lag.bytes == Some(0) && is_quiet(session.grown, session.heard, limits.stale) => Judged::well(State::Idle),
        _ => Judged::well(State::Current),
    }
}

/// No stream is being received: it ended in order, or was lost, or was refused.
fn apart(session: &Session, now: Time, limits: &Limits) -> Judged {
    let code = session.code.and_then(Code::from_number).filter(|code| *code != Code::Done);
    let Some(code) = code else {
        return ended(session.updated, now, limits);
    };
    let why = show(session.error.as_deref().unwrap_or_default());
    match code {
        Code::Link => {
            let seconds = session.updated.map_or(f64::INFINITY, |updated| distance(updated, now));
            let why = format!("no news for {}: {why}", tell_seconds(seconds));
            if seconds > limits.stale {
                return Judged::new(State::Stale, Alarm::Unknown, Code::Link, why);
            }
            Judged::new(State::Retrying, Alarm::Warning, Code::Done, why)
        }
        Code::Gap | Code::Diverged | Code::Fenced | Code::Corrupt | Code::Usage | Code::Guarded => {
            Judged::new(State::Refused, Alarm::Critical, code, why)
        }
        _ => Judged::new(State::Failed, Alarm::Critical, code, why),
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

    #[test]
    fn each_state_of_a_receiver_has_its_alarm_and_its_code() {
        use Alarm::{Critical, Ok, Warning};
        use State::{Current, Ended, Failed, Idle, Lagging, Paused, Refused, Retrying, Stale};
        let session = |change: Value| {
            let mut session = json!({
                "v": 1, "pid": 7, "updated": before(5), "heard": before(5), "master_end": "1-2:40", "grown": before(900), "connected": true
            });
            session.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            json!({"running": true, "held": "1-2:40", "session": session})
        };
        let ended = |age: i64, code: Option<u8>| {
            session(json!({"connected": false, "updated": before(age), "code": code, "error": code.map(|_| "why")}))
        };
        let feed = |change: Value, age: i64| {
            let mut failing = session(change);
            failing["session"]["feed_error"] = "why".into();
            failing["session"]["feed_failing"] = before(age).into();
            failing
        };
        let paused = |what: &str, mut of: Value| {
            of[what] = json!({"since": before(90), "reason": "disk"});
            of
        };
        let told = |role: &str, mut of: Value| {
            of["told"] = json!({"role": role, "site": "venus", "epoch": 2});
            if of["running"] == true && of["session"]["connected"] == false {
                of["running"] = false.into();
            }
            of
        };
        // It is there, and says nothing: whatever its site was told, somebody should look.
        let working = told("master", session(json!({"heard": before(31)})));
        let mut gone = session(json!({}));
        gone["running"] = false.into();
        let mut behind = session(json!({"behind": before(61)}));
        behind["held"] = "1-2:30".into();
        let rows = [
            (session(json!({})), (Idle, Ok, Code::Done)),
            (session(json!({"grown": before(6)})), (Current, Ok, Code::Done)),
            (behind, (Lagging, Warning, Code::Done)),
            (session(json!({"heard": before(31)})), (Stale, Alarm::Unknown, Code::Link)),
            (gone.clone(), (Stale, Alarm::Unknown, Code::Link)),
            (ended(5, None), (Ended, Ok, Code::Done)),
            (ended(601, None), (Ended, Critical, Code::Link)),
            (ended(5, Some(8)), (Retrying, Warning, Code::Done)),
            (ended(31, Some(8)), (Stale, Alarm::Unknown, Code::Link)),
            (ended(5, Some(4)), (Refused, Critical, Code::Diverged)),
            (ended(5, Some(12)), (Failed, Critical, Code::Full)),
            (json!({"held": "1-2:40"}), (State::Unknown, Alarm::Unknown, Code::Unconfirmed)),
            (feed(json!({}), 61), (Failed, Warning, Code::Hook)),
            (feed(json!({}), 601), (Failed, Critical, Code::Hook)),
            (feed(json!({"heard": before(31)}), 61), (Stale, Alarm::Unknown, Code::Link)),
            (feed(json!({"heard": before(31)}), 601), (Failed, Critical, Code::Hook)),
            (feed(json!({"connected": false, "code": 8}), 61), (Failed, Warning, Code::Hook)),
            (paused("paused_feed", feed(json!({}), 601)), (Paused, Warning, Code::Done)),
            (paused("paused_feed", session(json!({}))), (Paused, Warning, Code::Done)),
            (paused("paused_feed", ended(5, Some(9))), (Paused, Warning, Code::Done)),
            (paused("paused_feed", ended(5, Some(4))), (Refused, Critical, Code::Diverged)),
            (ended(5, Some(7)), (Failed, Critical, Code::Busy)),
            (paused("paused_apply", ended(5, Some(7))), (Paused, Warning, Code::Done)),
            (paused("paused_apply", ended(601, None)), (Paused, Warning, Code::Done)),
            (paused("paused_apply", session(json!({}))), (Paused, Warning, Code::Done)),
            (paused("paused_apply", ended(5, Some(12))), (Failed, Critical, Code::Full)),
            (told("master", ended(601, None)), (Ended, Ok, Code::Done)),
            (told("master", ended(601, Some(8))), (Ended, Ok, Code::Done)),
            (told("master", ended(601, Some(3))), (Ended, Ok, Code::Done)),
            (told("master", gone.clone()), (Ended, Ok, Code::Done)),
            (told("master", json!({"held": "1-2:40"})), (Ended, Ok, Code::Done)),
            (told("receiver", ended(601, None)), (Ended, Critical, Code::Link)),
            (told("receiver", json!({"held": "1-2:40"})), (State::Unknown, Alarm::Unknown, Code::Unconfirmed)),
            (told("master", ended(601, Some(5))), (Refused, Critical, Code::Fenced)),
            (told("master", ended(601, Some(9))), (Failed, Critical, Code::Hook)),
            (told("master", paused("paused_apply", ended(601, None))), (Paused, Warning, Code::Done)),
            (told("master", json!({"astray": "1-2:40"})), (Refused, Critical, Code::Diverged)),
            (working, (Stale, Alarm::Unknown, Code::Link)),
            (json!({"astray": "1-2:40"}), (Refused, Critical, Code::Diverged)),
            (json!({"fault": "damaged", "fault_code": 6}), (State::Unknown, Alarm::Unknown, Code::Corrupt)),
        ];
        for (value, expected) in rows {
            let of: Receiver = serde_json::from_value(value.clone()).unwrap();
            let Judged { state, alarm, code, .. } = receiver(&of, NOON, &Limits::default());
            assert_eq!((state, alarm, code), expected, "{value}");
        }
    }
}
